# SPDX-License-Identifier: Apache-2.0
"""What the examination of the environment knows: this machine, that of the build, and what was measured between. Pure. Stable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["EnvironmentEvidence", "KnownVersion", "Precision", "Timing"]


@dataclass(frozen=True)
class KnownVersion:
    """Versions of a package that are known to be wrong or slow.

    Attributes:
        package: name of the distribution.
        first, last: versions, both included.
        system: operating system that is concerned, None for any.
        machine: processor architecture that is concerned, None for any.
        precision: of the model that is concerned, None for any.
        effect: `wrong` or `slow`.
        what: what happens, and which version does not.
        source: where it is told.
        date: when, year-month-day.
    """

    package: str
    first: str
    last: str
    system: str | None
    machine: str | None
    precision: str | None
    effect: str
    what: str
    source: str
    date: str


@dataclass(frozen=True)
class Precision:
    """What a model's convolutions compute in.

    Attributes:
        convolutions: number of them.
        integer_convolutions: those in 8-bit integers.
        float_type: of the others: `f32`, `f16`, `bf16`.
    """

    convolutions: int
    integer_convolutions: int
    float_type: str


@dataclass(frozen=True)
class Timing:
    """Two ways of running the same, timed in turns in one run.

    Attributes:
        as_is_ms: median, as production runs it.
        other_ms: median of the other way.
        runs: of each.
    """

    as_is_ms: float
    other_ms: float
    runs: int

    @property
    def share_lost(self) -> float:
        """Share of the speed that production loses, 0 where the other way is slower."""
        return max(0.0, 1 - self.other_ms / self.as_is_ms) if self.as_is_ms > 0 else 0.0


@dataclass(frozen=True)
class EnvironmentEvidence:
    """What was collected.

    Attributes:
        engine: that runs the suspect, as in `Variant.engine`; empty for a server.
        precision: of the variant, `fp32`, `fp16`, `bf16` or `int8`; None for a foreign file.
        here: versions of packages on this machine.
        built: versions where the proof was made.
        flags: the processor's features here.
        built_flags: features where the proof was made.
        cpu, built_cpu: class of the processor, as `proof.cpu_class` says it.
        system, machine: operating system and architecture here.
        known: versions known to be bad.
        runs: what the suspect truly runs in, None where that cannot be told.
        ran: what the variant ran in when it was built, None where that was not recorded.
        caps: environment variables that change what a runtime does, name -> value.
        cores: logical cores that this process may use.
        limit_cores: cores that the control group allows, None for no limit.
        throttled_share: share of the control group's periods in which it was throttled, None where not told.
        threads: the engine's, as asked; None for its own choice.
        timing: with as many threads as there are cores, where more were asked.
        limit_timing: with as many threads as cores are allowed, where the runtime takes more; None where that was not timed.
        subnormal_share: share of float weights that are subnormal.
        flush_timing: with subnormals taken for zero.
        saturation: agreement of the suspect with itself where 8-bit products cannot overflow; None where that was not tried.
        saturation_images: number of images it was measured on.
        changed: files of the variant that are not what the manifest promises.
        is_of_bundle: whether the suspect's file is one of the bundle's; None for a server.
        ir_version, opset: of an ONNX file, 0 for none.
        refused: what the runtime said when it would not open the file; None where it did.
    """

    engine: str = ""
    precision: str | None = None
    here: Mapping[str, str] = field(default_factory=dict)
    built: Mapping[str, str] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    built_flags: frozenset[str] = frozenset()
    cpu: str = ""
    built_cpu: str = ""
    system: str = ""
    machine: str = ""
    known: tuple[KnownVersion, ...] = ()
    runs: Precision | None = None
    ran: Precision | None = None
    caps: Mapping[str, str] = field(default_factory=dict)
    cores: int = 1
    limit_cores: float | None = None
    throttled_share: float | None = None
    threads: int | None = None
    timing: Timing | None = None
    limit_timing: Timing | None = None
    subnormal_share: float = 0.0
    flush_timing: Timing | None = None
    saturation: float | None = None
    saturation_images: int = 0
    changed: tuple[str, ...] = ()
    is_of_bundle: bool | None = True
    ir_version: int = 0
    opset: int = 0
    refused: str | None = None
