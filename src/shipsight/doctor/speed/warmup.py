# SPDX-License-Identifier: Apache-2.0
"""How long until it is steady: what the first answer costs, and whether the times ever settle. Pure. Stable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from shipsight.build.measure import Interval
from shipsight.build.progress import Progress
from shipsight.doctor.examination import Examination
from shipsight.doctor.finding import Figure, Finding, Picture, Severity
from shipsight.doctor.rule import Rule
from shipsight.doctor.speed.case import SpeedCase
from shipsight.doctor.speed.drawings import draw_curve
from shipsight.doctor.speed.racing import is_worth, times

__all__ = ["FirstRunSlow", "LatencyUnsteady", "WarmUpEvidence", "WarmUpExamination"]

_COSTLY_S, _WORTH_S = 1.0, 0.1
"""Seconds saved at a start: a warning, and the least that is told; chosen, not measured."""
_UNEVEN = 2.0
"""The 95th of 100 times over the median; a limit that was chosen, not measured."""
_LEAST_COUNTED = 40

_KEPT: Mapping[str, tuple[str, str, str | None]] = {
    "openvino": (
        "compiled kernels",
        "Keep compiled kernels in a folder that outlives the process, in a container in a volume, and answer one request before "
        "you are ready; the server does both where its cache folder stays.",
        "shipsight serve BUNDLE --cache FOLDER",
    ),
    "onnxruntime": (
        "the optimized graph",
        "In a program of your own, write the optimized graph once (`optimized_model_filepath`) and open that on processors of the same "
        "kind; answer one request before you are ready. The server opens a model once and needs nothing.",
        None,
    ),
}
"""Engine -> what it keeps, what to do, and the command."""


@dataclass(frozen=True)
class WarmUpEvidence:
    """What was timed.

    Attributes:
        engine: of the variant.
        first_s: seconds from the model's bytes to the first answer, median of several openings.
        cached_s: the same with what the engine can keep: compiled kernels (OpenVINO), the optimized graph (ONNX Runtime); None for nothing.
        cache_gain: how many times sooner that is.
        times_ms: of each prediction after opening, in order.
        steady_after: runs before the times were steady, as many as there are where they never were.
        is_steady: whether the last twenty were.
    """

    engine: str
    first_s: float
    cached_s: float | None
    cache_gain: Interval | None
    times_ms: tuple[float, ...]
    steady_after: int
    is_steady: bool

    @property
    def settled_ms(self) -> tuple[float, ...]:
        """Times of the runs after warming up; of the latter half where it never was steady."""
        begin = self.steady_after if self.is_steady else len(self.times_ms) // 2
        return self.times_ms[begin:]

    def percentile_ms(self, share: float) -> float:
        """Returns a percentile of the settled times.

        Args:
            share: 0 to 1.
        """
        ordered = sorted(self.settled_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class FirstRunSlow(Rule[WarmUpEvidence]):
    """The first answer after a start is late, and compiled kernels that are kept bring it sooner: both timed in turns."""

    id = "first-run-slow"
    title = "The first answer is late"

    def look(self, evidence: WarmUpEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        gain, cached_s = evidence.cache_gain, evidence.cached_s
        if gain is None or cached_s is None or not is_worth(gain):
            return
        saved_s = evidence.first_s - cached_s
        if saved_s < _WORTH_S:
            return
        kept, remedy, command = _KEPT[evidence.engine]
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING if saved_s >= _COSTLY_S else Severity.NOTE,
            what="After each start the engine prepares the model anew: the first answer waits for it.",
            evidence=f"{evidence.first_s:.2f} s from the file to the first answer, then {evidence.percentile_ms(0.5):.1f} ms; with "
            f"{kept} kept {cached_s:.2f} s: {times(gain)} sooner, {saved_s:.2f} s saved.",
            remedy=remedy,
            command=command,
            figures={"first_s": evidence.first_s, "cached_s": cached_s, "gain": gain.value, "gain_low": gain.low},
        )


class LatencyUnsteady(Rule[WarmUpEvidence]):
    """The times of one and the same prediction never settle, or their tail is long."""

    id = "latency-unsteady"
    title = "The times do not settle"

    def look(self, evidence: WarmUpEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        if len(evidence.times_ms) < _LEAST_COUNTED:
            return
        best, middle, late = (evidence.percentile_ms(share) for share in (0.1, 0.5, 0.95))
        if late < _UNEVEN * middle and middle < _UNEVEN * best:
            return
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            what="The same prediction takes now long and now short: something else takes the cores away.",
            evidence=f"p10 {best:.1f} ms, p50 {middle:.1f} ms, p95 {late:.1f} ms of {len(evidence.settled_ms)} runs on one image; "
            + ("the median was steady." if evidence.is_steady else "they never became steady."),
            remedy="Look at what the examination of the machine says; give the process cores of its own.",
            command="shipsight doctor speed BUNDLE --only machine",
            weight=1 - best / middle,
            certainty=0.7,
            figures={"p10_ms": best, "p50_ms": middle, "p95_ms": late, "is_steady": evidence.is_steady},
        )


class WarmUpExamination(Examination[SpeedCase, WarmUpEvidence]):
    """From a cold start to steady times."""

    name = "warmup"
    title = "How soon is it as fast as it gets?"
    rules: ClassVar[tuple[Rule[Any], ...]] = (FirstRunSlow(), LatencyUnsteady())
    cost = 7.0

    def lacks(self, case: SpeedCase) -> str | None:
        """Returns nothing: a bundle has all."""
        return None

    def collect(self, case: SpeedCase, progress: Progress) -> WarmUpEvidence:
        """Opens the variant several times, and runs it until its times are steady."""
        from shipsight.doctor.speed.collecting.warmup import collect_warm_up

        return collect_warm_up(case, case.share_s(self.cost), progress)

    def figures(self, evidence: WarmUpEvidence) -> Mapping[str, Figure | list[Figure]]:
        """Returns the first answer, the settled ones and the runs between."""
        return {
            "first_s": evidence.first_s,
            "cached_s": evidence.cached_s,
            "first_run_ms": evidence.times_ms[0],
            "p50_ms": evidence.percentile_ms(0.5),
            "p95_ms": evidence.percentile_ms(0.95),
            "runs_until_steady": evidence.steady_after,
            "runs": len(evidence.times_ms),
            "is_steady": evidence.is_steady,
        }

    def pictures(self, evidence: WarmUpEvidence) -> tuple[Picture, ...]:
        """Returns the warm-up curve."""
        after = evidence.steady_after
        told = f"red: the {after} before it was steady" if after else "it was steady at once"
        if not evidence.is_steady:
            told += "; the last ones are not steady either"
        caption = f"Time of each run after opening; {told}."
        return (draw_curve(evidence.times_ms, after, caption),)
