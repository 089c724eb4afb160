# SPDX-License-Identifier: Apache-2.0
"""Who takes the cores away: other virtual machines, other processes, limits, too many threads, a low clock. Pure. Stable.

What the examination of the environment (`doctor accuracy`) sees of the machine is seen here too, by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from shipsight.build.progress import Progress
from shipsight.doctor.environment import EnvironmentEvidence
from shipsight.doctor.environment.machine_rules import (
    CpuFeaturesMissing,
    CpuLimited,
    DenormalsSlow,
    ThreadsOversubscribed,
)
from shipsight.doctor.environment.rules import PrecisionNotAsBuilt
from shipsight.doctor.examination import Examination
from shipsight.doctor.finding import Figure, Finding, Severity
from shipsight.doctor.rule import Rule
from shipsight.doctor.speed.case import SpeedCase

__all__ = ["AffinityNarrow", "CpuBusy", "CpuSlowed", "CpuStolen", "MachineEvidence", "MachineExamination"]

_STOLEN = 0.03
_BUSY = 0.1
"""Shares of the machine's time in other machines and in other processes, and of the highest clock; chosen, not measured."""
_SLOWED = 0.7


@dataclass(frozen=True)
class MachineEvidence(EnvironmentEvidence):
    """What was seen while the model ran, beside what the environment shows.

    Attributes:
        logical_cores: of the machine.
        window_s: seconds for which it was watched.
        stolen_share: share of the cores' time that other virtual machines took; None where the system does not tell.
        others_share: share of the cores' time in other processes; None likewise.
        clock_share: clock of the cores over the highest they may have, under load; None likewise.
        throttle_events: times that a core was slowed for its heat meanwhile; None likewise.
        process_threads: threads of this process with one engine open.
    """

    logical_cores: int = 1
    window_s: float = 0.0
    stolen_share: float | None = None
    others_share: float | None = None
    clock_share: float | None = None
    throttle_events: int | None = None
    process_threads: int = 0


class CpuStolen(Rule[MachineEvidence]):
    """The hypervisor gives this machine's time to others: steal time of `/proc/stat` while the model ran."""

    id = "cpu-stolen"
    title = "Time stolen by other virtual machines"

    def look(self, evidence: MachineEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        share = evidence.stolen_share
        if share is None or share < _STOLEN:
            return
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            what="Other virtual machines on the same host take time that this one was to have.",
            evidence=f"{share:.1%} of the cores' time was stolen in {evidence.window_s:.1f} s under load.",
            remedy="Take a kind of machine with cores of its own, or another host; nothing in this machine helps.",
            weight=min(share, 1.0),
            certainty=0.9,
            figures={"stolen_share": share, "window_s": evidence.window_s},
        )


class CpuBusy(Rule[MachineEvidence]):
    """Other processes use the cores: what `/proc/stat` counts beyond this process while the model ran."""

    id = "cpu-busy"
    title = "Other processes use the cores"

    def look(self, evidence: MachineEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        share = evidence.others_share
        if share is None or share < _BUSY:
            return
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            what="Other processes compute on the same cores while the model runs.",
            evidence=f"{share:.0%} of {evidence.logical_cores} cores' time was in other processes, over {evidence.window_s:.1f} s under load.",
            remedy="Move them elsewhere, or give the model cores of its own and as many threads; measured now, other figures are too slow.",
            command="taskset --cpu-list 0-1 shipsight serve BUNDLE --threads 2",
            weight=min(share, 1.0),
            certainty=0.8,
            figures={"others_share": share, "cores": evidence.logical_cores, "window_s": evidence.window_s},
        )


class AffinityNarrow(Rule[MachineEvidence]):
    """This process may use fewer cores than the machine has: its affinity."""

    id = "affinity-narrow"
    title = "Placed on few cores"

    def look(self, evidence: MachineEvidence) -> Iterable[Finding]:
        """Returns a note, if any."""
        if evidence.cores >= evidence.logical_cores:
            return
        yield Finding(
            rule=self.id,
            severity=Severity.NOTE,
            what="This process may run on some of the machine's cores only.",
            evidence=f"{evidence.cores} of {evidence.logical_cores} cores.",
            remedy="Widen its affinity, if that was not meant: taskset, a systemd unit's CPUAffinity, or a container's cpuset.",
            command="taskset --cpu-list --pid PID",
            figures={"cores": evidence.cores, "logical_cores": evidence.logical_cores},
        )


class CpuSlowed(Rule[MachineEvidence]):
    """The cores run below their clock under load: the kernel's clock and its count of slowing for heat."""

    id = "cpu-slowed"
    title = "A low clock"

    def look(self, evidence: MachineEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        share, events = evidence.clock_share, evidence.throttle_events or 0
        is_low = share is not None and share < _SLOWED
        if not is_low and not events:
            return
        clock = "the clock is not told" if share is None else f"clock at {share:.0%} of its highest"
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            what="The cores run slower than they can while the model runs.",
            evidence=f"Under load: {clock}; slowed for heat {events} times in {evidence.window_s:.1f} s.",
            remedy="Set the governor to performance, and look at cooling and power limits.",
            command="cpupower frequency-set --governor performance",
            weight=1 - share if is_low and share is not None else 0.0,
            certainty=0.6,  # wide vectors lower the clock by design
            figures={"clock_share": share, "throttle_events": events},
        )


class MachineExamination(Examination[SpeedCase, MachineEvidence]):
    """The machine while the model runs."""

    name = "machine"
    title = "Does the model have the cores to itself?"
    rules: ClassVar[tuple[Rule[Any], ...]] = (
        ThreadsOversubscribed(),
        CpuLimited(),
        CpuStolen(),
        CpuBusy(),
        AffinityNarrow(),
        CpuSlowed(),
        DenormalsSlow(),
        CpuFeaturesMissing(),
        PrecisionNotAsBuilt(),
    )
    cost = 4.0

    def lacks(self, case: SpeedCase) -> str | None:
        """Returns nothing: a bundle has all."""
        return None

    def collect(self, case: SpeedCase, progress: Progress) -> MachineEvidence:
        """Watches the machine under load, and times what may be wrong both ways."""
        from shipsight.doctor.speed.collecting.machine import collect_machine

        return collect_machine(case, case.share_s(self.cost), progress)

    def figures(self, evidence: MachineEvidence) -> Mapping[str, Figure | list[Figure]]:
        """Returns the cores, and who else was on them."""
        return {
            "cores": evidence.cores,
            "logical_cores": evidence.logical_cores,
            "limit_cores": evidence.limit_cores,
            "throttled_share": evidence.throttled_share,
            "stolen_share": evidence.stolen_share,
            "others_share": evidence.others_share,
            "clock_share": evidence.clock_share,
            "process_threads": evidence.process_threads,
            "subnormal_share": evidence.subnormal_share,
            "window_s": evidence.window_s,
        }
