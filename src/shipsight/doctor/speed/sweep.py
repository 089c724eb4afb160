# SPDX-License-Identifier: Apache-2.0
"""Would it be faster otherwise: other threads, other variants, several requests at once, several images a run. Pure. Stable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from shipsight.build.measure import Interval
from shipsight.build.progress import Progress
from shipsight.doctor.examination import Examination
from shipsight.doctor.finding import Figure, Finding, Picture, Severity
from shipsight.doctor.rule import Rule
from shipsight.doctor.speed.case import SpeedCase
from shipsight.doctor.speed.drawings import draw_bars, draw_gains
from shipsight.doctor.speed.racing import is_worth, times

__all__ = [
    "BatchFaster",
    "Int8Slower",
    "StreamsFaster",
    "SweepEvidence",
    "SweepExamination",
    "ThreadsNotBest",
    "VariantFaster",
    "VariantWay",
    "Way",
]

_PAYS_SIDE_BY_SIDE = 1.25
"""Least gain of several requests at once: production may have but one at a time."""
_NOT_SLOWER = 1.05


@dataclass(frozen=True)
class Way:
    """Another way to run it.

    Attributes:
        count: threads, streams or images a run.
        value: milliseconds, or images per second.
        gain: how many times faster than as it is.
    """

    count: int
    value: float
    gain: Interval


@dataclass(frozen=True)
class VariantWay:
    """Another variant of the bundle.

    Attributes:
        name: of it.
        engine, precision: of it.
        size: of its input, as people write it.
        value_ms: median milliseconds, decoded image to predictions.
        gain: how many times faster than the one that runs.
        drop: accuracy that it loses against the one that runs, by the bundle's proof; None where that was not measured.
        metric: that the drop is of.
    """

    name: str
    engine: str
    precision: str
    size: str
    value_ms: float
    gain: Interval
    drop: float | None
    metric: str


@dataclass(frozen=True)
class SweepEvidence:
    """What was timed, each in turns with the variant as it is.

    Attributes:
        variant, engine, precision, size: of the variant that runs.
        cores: that this process may use.
        asked: threads that production sets, None for the engine's choice.
        variant_ms: median of the variant as it is, decoded image to predictions.
        alone_ips: images per second, one after another.
        threads: other numbers of threads; milliseconds of the engine alone.
        variants: others of the bundle that run here.
        streams: several requests at once, with as many streams of the engine; images per second of the whole pipeline.
        callers: the same with one stream: only the work around the engine overlaps. None where it was not timed.
        batches: several images a run; images per second of the engine alone.
        dynamic: whether the variant quantizes while it runs.
        max_drop: accuracy that the build allowed a variant to lose.
        left_out: what was not timed -> why.
    """

    variant: str
    engine: str
    precision: str
    size: str
    cores: int
    asked: int | None = None
    variant_ms: float = 0.0
    alone_ips: float = 0.0
    threads: tuple[Way, ...] = ()
    variants: tuple[VariantWay, ...] = ()
    streams: tuple[Way, ...] = ()
    callers: Way | None = None
    batches: tuple[Way, ...] = ()
    dynamic: bool = False
    max_drop: float = 0.01
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def float_sibling(self) -> VariantWay | None:
        """The fastest float variant of the same engine and size, where the variant that runs is int8."""
        if self.precision != "int8":
            return None
        like = [one for one in self.variants if one.engine == self.engine and one.size == self.size]
        return max((one for one in like if one.precision != "int8"), key=lambda one: one.gain.value, default=None)


class ThreadsNotBest(Rule[SweepEvidence]):
    """Another number of threads is faster: timed in turns on the engine alone."""

    id = "threads-not-best"
    title = "Another number of threads is faster"

    def look(self, evidence: SweepEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        # More threads than cores have a rule of their own.
        if evidence.asked is not None and evidence.asked > evidence.cores:
            return
        best = _best(evidence.threads)
        if best is None or not is_worth(best.gain):
            return
        now = "as many as the engine takes" if evidence.asked is None else f"{evidence.asked}"
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            what="The engine is faster with another number of threads.",
            evidence=f"{best.count} threads: {best.value:.1f} ms, {times(best.gain)} as fast as with {now}, on {evidence.cores} cores.",
            remedy=f"Set {best.count} threads.",
            command=f"shipsight serve BUNDLE --threads {best.count}",
            weight=1 - 1 / best.gain.value,
            figures={
                "threads": best.count,
                "gain": best.gain.value,
                "gain_low": best.gain.low,
                "cores": evidence.cores,
            },
        )


class VariantFaster(Rule[SweepEvidence]):
    """The bundle has a faster variant: timed in turns, with what the proof says of its accuracy."""

    id = "variant-faster"
    title = "A faster variant is at hand"

    def look(self, evidence: SweepEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        sibling = evidence.float_sibling
        if sibling is not None and is_worth(sibling.gain, _NOT_SLOWER):
            return  # the more certain finding: the quantization itself
        worth = [one for one in evidence.variants if is_worth(one.gain)]
        kept = [one for one in worth if one.drop is not None and one.drop <= evidence.max_drop]
        best = max(kept or worth, key=lambda one: one.gain.value, default=None)
        if best is None:
            return
        told = "its accuracy was not measured" if best.drop is None else f"{best.metric} {-best.drop:+.4f} by the proof"
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING if kept else Severity.NOTE,
            what="The bundle holds a variant that is faster here than the one that runs.",
            evidence=f"{best.name}: {best.value_ms:.1f} ms an image against {evidence.variant_ms:.1f} ms, {times(best.gain)} as fast; {told}.",
            remedy=f"Serve {best.name}, where its accuracy is enough.",
            command=f"shipsight bench BUNDLE --variant {best.name}",
            weight=1 - 1 / best.gain.value if kept else 0.0,
            figures={
                "gain": best.gain.value,
                "gain_low": best.gain.low,
                "precision": best.precision,
                "drop": best.drop,
            },
        )


class Int8Slower(Rule[SweepEvidence]):
    """The int8 variant is slower than the float one of the same engine and size (rule Q6): timed in turns."""

    id = "int8-slower"
    title = "INT8 is slower than float"

    def look(self, evidence: SweepEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        sibling = evidence.float_sibling
        if sibling is None or not is_worth(sibling.gain, _NOT_SLOWER):
            return
        why = " It quantizes its activations anew in every run." if evidence.dynamic else ""
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            what=f"The quantized variant is slower than the float one it was made from.{why}",
            evidence=f"int8 {evidence.variant_ms:.1f} ms an image, {sibling.precision} {sibling.value_ms:.1f} ms in the same engine: float is "
            f"{times(sibling.gain)} as fast.",
            remedy="Quantize statically with calibration images, activations in unsigned 8 bits on x86, or serve the float variant.",
            command="shipsight build MODEL --data DATA",
            weight=1 - 1 / sibling.gain.value,
            figures={"gain": sibling.gain.value, "gain_low": sibling.gain.low, "is_dynamic": evidence.dynamic},
        )


class StreamsFaster(Rule[SweepEvidence]):
    """Several requests at once give more images a second: synchronous against asynchronous, in turns, whole pipeline."""

    id = "streams-faster"
    title = "Several requests at once pay"

    def look(self, evidence: SweepEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        best = _best(evidence.streams)
        if best is None or not is_worth(best.gain, _PAYS_SIDE_BY_SIDE):
            return
        callers = evidence.callers
        around = (
            "" if callers is None else f"; {callers.gain.value:.2f} times with one stream and {callers.count} callers"
        )
        yield Finding(
            rule=self.id,
            # Whether several images wait at once is not seen from here.
            severity=Severity.NOTE,
            what="One image after another leaves cores idle: several at once give more images a second.",
            evidence=f"{best.count} streams: {best.value:.1f} images a second against {evidence.alone_ips:.1f}, {times(best.gain)} as many{around}.",
            remedy=f"Use {best.count} streams and keep as many requests in flight; shipsight serve measures at its start how many pay.",
            command=f"shipsight serve BUNDLE --streams {best.count}",
            figures={"streams": best.count, "gain": best.gain.value, "gain_low": best.gain.low},
        )


class BatchFaster(Rule[SweepEvidence]):
    """Several images a run give more images a second: the graph rewritten for a batch, timed in turns."""

    id = "batch-faster"
    title = "Batches pay"

    def look(self, evidence: SweepEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        best = _best(evidence.batches)
        if best is None or not is_worth(best.gain, _PAYS_SIDE_BY_SIDE):
            return
        yield Finding(
            rule=self.id,
            severity=Severity.NOTE,
            what="The engine answers more images a second where it takes several in one run.",
            evidence=f"Batch {best.count}: {best.value:.1f} images a second in the engine, {times(best.gain)} as many as one at a time.",
            remedy="Try several streams first: they give the same without a wait; variants of a bundle take one image.",
            command=f"shipsight serve BUNDLE --streams {evidence.cores}",
            figures={"batch": best.count, "gain": best.gain.value, "gain_low": best.gain.low},
        )


class SweepExamination(Examination[SpeedCase, SweepEvidence]):
    """The variant as it is against other ways to run it."""

    name = "sweep"
    title = "Would it be faster otherwise?"
    rules: ClassVar[tuple[Rule[Any], ...]] = (
        ThreadsNotBest(),
        VariantFaster(),
        Int8Slower(),
        StreamsFaster(),
        BatchFaster(),
    )
    cost = 18.0

    def lacks(self, case: SpeedCase) -> str | None:
        """Returns nothing: a bundle has all."""
        return None

    def collect(self, case: SpeedCase, progress: Progress) -> SweepEvidence:
        """Times each way in turns with the variant as it is."""
        from shipsight.doctor.speed.collecting.sweep import collect_sweep

        return collect_sweep(case, case.share_s(self.cost), progress)

    def figures(self, evidence: SweepEvidence) -> Mapping[str, Figure | list[Figure]]:
        """Returns every way with its gain."""
        told: dict[str, Figure | list[Figure]] = {"p50_ms": evidence.variant_ms, "alone_ips": evidence.alone_ips}
        for name, ways in (
            ("threads", evidence.threads),
            ("streams", evidence.streams),
            ("batches", evidence.batches),
        ):
            told |= {name: [one.count for one in ways], f"{name}_gain": [round(one.gain.value, 3) for one in ways]}
        told |= {
            "variants": [one.name for one in evidence.variants],
            "variants_ms": [round(one.value_ms, 3) for one in evidence.variants],
            "variants_gain": [round(one.gain.value, 3) for one in evidence.variants],
        }
        return told

    def not_told(self, evidence: SweepEvidence) -> tuple[str, ...]:
        """Returns what was not timed, and why."""
        return tuple(f"Not timed: {name}. {why}" for name, why in evidence.left_out.items())

    def pictures(self, evidence: SweepEvidence) -> tuple[Picture, ...]:
        """Returns the gains of all ways, and the variants' times."""
        rows = [(f"{one.count} thread{'' if one.count == 1 else 's'}", one.gain) for one in evidence.threads]
        rows += [(one.name, one.gain) for one in evidence.variants]
        rows += [(f"{one.count} streams", one.gain) for one in evidence.streams]
        rows += [(f"batch {one.count}", one.gain) for one in evidence.batches]
        pictures = []
        if rows:
            caption = f"How many times as fast as {evidence.variant} runs now, with the 95 % interval; streams and batches in images a second."
            pictures.append(draw_gains(rows, caption))
        bars = [(evidence.variant, evidence.variant_ms), *((one.name, one.value_ms) for one in evidence.variants)]
        if len(bars) > 1:
            told = [(name, value, f"{value:.1f} ms") for name, value in bars]
            pictures.append(draw_bars(told, "Milliseconds an image of each variant, decoded image to predictions."))
        return tuple(pictures)


def _best(ways: Iterable[Way]) -> Way | None:
    return max(ways, key=lambda one: one.gain.value, default=None)
