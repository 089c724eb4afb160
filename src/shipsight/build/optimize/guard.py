# SPDX-License-Identifier: Apache-2.0
"""The guard: INT8 only as far as accuracy allows, decided by measuring.

It quantizes, measures the drop in accuracy on the guard images, and as long as the drop is beyond the limit returns
layers to float: first those known to suffer (the decoding of boxes, DFL and the head's sigmoid are float from the start;
then the head's last layers, then attention), then the others in order of measured sensitivity, ever more at once. It
ends when the drop fits, or when too few layers are left in integers, or when INT8 is no faster than float.

Where there are several ways to quantize (attempts: other weight range, other recipe) each is tried as it is and with the
known offenders in float, and the first that fits and is faster than float is taken; where none is, the best of them goes
on with the ranked layers.

Leaves to others: quantizing (given as functions), measuring accuracy and speed (given as a function, on guard images,
never on those reported), the decision to ship (the pipeline's, on the report images). Invariants: each step is recorded
and told to `on_step` at once; within an attempt the float layers only grow; what is returned never has outcome `failed`,
never fewer integers than the floor, and is faster than float. Stable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from shipsight.build.measure.intervals import Interval, Outcome, outcome
from shipsight.build.optimize.layers import FloatLayers, LayerGroup, LayerMap, LayerRole
from shipsight.errors import UsageError

__all__ = ["Attempt", "GuardEnd", "GuardMeasurement", "GuardResult", "GuardSettings", "GuardStep", "run_guard"]

FilesT = TypeVar("FilesT")

_OFFENDERS = (LayerRole.HEAD_OUTPUT, LayerRole.ATTENTION)


@dataclass(frozen=True)
class GuardMeasurement:
    """What was measured of one quantized form.

    Attributes:
        drop: source minus variant in mAP50-95 (top-1 for classification), absolute, on the guard images.
        latency_ms: median of one inference, in milliseconds.
        integer_convolutions: convolutions that truly ran in 8 bits.
        convolutions: all convolutions that ran.
    """

    drop: Interval
    latency_ms: float
    integer_convolutions: int
    convolutions: int

    @property
    def integer_share(self) -> float:
        """Share of convolutions that ran in 8 bits, 0 to 1."""
        return self.integer_convolutions / self.convolutions if self.convolutions else 0.0


@dataclass(frozen=True)
class Attempt(Generic[FilesT]):
    """One way to quantize.

    Attributes:
        name: for people, for example `8-bit weights`.
        quantize: makes the files with the given layers in float.
        spared: roles of layers that this way leaves in float from its start, beside those that always are.
    """

    name: str
    quantize: Callable[[FloatLayers], FilesT]
    spared: tuple[LayerRole, ...] = ()

    def start(self, layers: LayerMap) -> FloatLayers:
        """Returns the layers in float at its start."""
        return layers.always_float.plus(group for role in self.spared for group in layers.of_role(role))


@dataclass(frozen=True)
class GuardSettings:
    """When the guard is content, and when it gives up.

    Attributes:
        max_drop: largest accepted drop, absolute, 0 to 1 (default 0.01).
        min_integer_share: least share of integer convolutions, 0 to 1 (default 0.5: below, INT8 is so in name only).
        float_latency_ms: median of the fastest float form of the same engine; None where speed is not judged.
        max_steps: most measurements, 1 and more (default 12).
    """

    max_drop: float = 0.01
    min_integer_share: float = 0.5
    float_latency_ms: float | None = None
    max_steps: int = 12

    def __post_init__(self) -> None:
        for name in ("max_drop", "min_integer_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} out of range", where=name, expected="0 to 1", got=getattr(self, name))
        if self.max_steps < 1:
            raise UsageError("max_steps out of range", where="max_steps", expected="1 or more", got=self.max_steps)
        if self.float_latency_ms is not None and not self.float_latency_ms > 0:
            raise UsageError("latency out of range", where="float_latency_ms", got=self.float_latency_ms)


@dataclass(frozen=True)
class GuardStep:
    """One measurement of the guard.

    Attributes:
        number: from 1.
        attempt: name of the way to quantize.
        returned: names of the groups that this step returned to float, empty at an attempt's start.
        float_groups: names of all groups in float.
        measurement: what was measured.
        outcome: of the drop.
        fits: whether the drop itself (its point estimate) is within the limit.
        is_faster: whether it is faster than float; true where speed is not judged.
    """

    number: int
    attempt: str
    returned: tuple[str, ...]
    float_groups: tuple[str, ...]
    measurement: GuardMeasurement
    outcome: Outcome
    fits: bool
    is_faster: bool

    def describe(self) -> str:
        """Returns the step as one line for people."""
        measured = self.measurement
        what = f"returned to float: {', '.join(self.returned)}" if self.returned else "start"
        return (
            f"{self.number}. {self.attempt}, {what}: drop {measured.drop.value:+.4f} "
            f"[{measured.drop.low:+.4f}, {measured.drop.high:+.4f}] {self.outcome.value}, "
            f"{measured.integer_convolutions} of {measured.convolutions} convolutions in int8 "
            f"({measured.integer_share:.0%}), {measured.latency_ms:.1f} ms"
            + ("" if self.is_faster else ", slower than float")
        )

    def to_dict(self) -> dict[str, object]:
        """Returns the step as plain values."""
        return {
            "number": self.number,
            "attempt": self.attempt,
            "returned": list(self.returned),
            "float_groups": list(self.float_groups),
            "drop": self.measurement.drop.to_dict(),
            "latency_ms": self.measurement.latency_ms,
            "int8_layers": [self.measurement.integer_convolutions, self.measurement.convolutions],
            "outcome": self.outcome.value,
            "fits": self.fits,
            "is_faster": self.is_faster,
        }


class GuardEnd(StrEnum):
    """Why the guard ended.

    `fits`: the drop is within the limit. `undecided`: it never was, but the best form's interval does not exclude it.
    `too-inaccurate`: every form that keeps enough integers failed. `too-slow`: none that did not fail was faster than float.
    """

    FITS = "fits"
    UNDECIDED = "undecided"
    TOO_INACCURATE = "too-inaccurate"
    TOO_SLOW = "too-slow"


@dataclass(frozen=True)
class GuardResult(Generic[FilesT]):
    """What the guard found.

    Attributes:
        files: the quantized form to take, None where none may be shipped.
        step: the step that made it, None likewise.
        float_layers: what it leaves in float, None likewise.
        end: why the guard ended.
        steps: all steps, in order.
    """

    files: FilesT | None
    step: GuardStep | None
    float_layers: FloatLayers | None
    end: GuardEnd
    steps: tuple[GuardStep, ...]


def run_guard(
    attempts: Sequence[Attempt[FilesT]],
    measure: Callable[[FilesT], GuardMeasurement],
    *,
    layers: LayerMap,
    rank: Callable[[Sequence[LayerGroup]], Sequence[LayerGroup]],
    settings: GuardSettings = GuardSettings(),
    on_step: Callable[[GuardStep], None] = lambda step: None,
) -> GuardResult[FilesT]:
    """Finds the quantized form that keeps the most in integers while its drop fits.

    Args:
        attempts: ways to quantize, the preferred first.
        measure: accuracy on the guard images and speed of what an attempt made.
        layers: groups of the float model.
        rank: orders groups by measured sensitivity, the most sensitive first; asked once, and only when the known
            offenders were not enough.
        settings: limits.
        on_step: told of each step as soon as it is measured.

    Raises:
        UsageError: there is no attempt.
    """
    if not attempts:
        raise UsageError("the guard needs a way to quantize", where="attempts", got=0)
    search = _Search(measure, settings, on_step)
    for attempt in attempts:
        if search.is_exhausted:
            break
        start = attempt.start(layers)
        if search.try_form(attempt, start, ()):
            return search.result()
        offenders = [layers.of_role(role) for role in _OFFENDERS if role not in attempt.spared]
        if _return_layers(search, attempt, start, [groups for groups in offenders if groups]):
            return search.result()
    best = search.best_attempt(attempts)
    if best is not None and not search.has_found:
        floating = best.start(layers).plus(group for role in _OFFENDERS for group in layers.of_role(role))
        _return_layers(search, best, floating, _ranked_rest(layers, rank))
    return search.result()


def _return_layers(
    search: _Search[FilesT],
    attempt: Attempt[FilesT],
    floating: FloatLayers,
    order: Iterable[Sequence[LayerGroup]],
) -> bool:
    """Returns ever more groups to float; tells whether a form was found that fits."""
    steps = iter(order)
    while not search.is_exhausted and search.may_go_on(attempt):
        groups = next(steps, None)
        if groups is None:
            return False
        floating = floating.plus(groups)
        if search.try_form(attempt, floating, tuple(group.name for group in groups)):
            return True
    return False


def _ranked_rest(
    layers: LayerMap, rank: Callable[[Sequence[LayerGroup]], Sequence[LayerGroup]]
) -> Iterator[tuple[LayerGroup, ...]]:
    """Yields what is returned at each step after the known offenders: the ranked rest in steps of 1, 1, 2, 4, ..."""
    known = {*_OFFENDERS, LayerRole.DECODE}
    ranked = list(rank([group for group in layers.groups if group.role not in known]))
    size, done = 1, 0
    while done < len(ranked):
        yield tuple(ranked[done : done + size])
        done, size = done + size, max(1, done + size)


class _Search(Generic[FilesT]):
    """The steps so far and the best form among them."""

    def __init__(
        self,
        measure: Callable[[FilesT], GuardMeasurement],
        settings: GuardSettings,
        on_step: Callable[[GuardStep], None],
    ) -> None:
        self._measure = measure
        self._settings = settings
        self._on_step = on_step
        self._steps: list[GuardStep] = []
        self._best: tuple[FilesT, GuardStep, FloatLayers] | None = None

    @property
    def is_exhausted(self) -> bool:
        return len(self._steps) >= self._settings.max_steps

    @property
    def has_found(self) -> bool:
        return self._best is not None and self._best[1].fits

    def may_go_on(self, attempt: Attempt[FilesT]) -> bool:
        """Tells whether returning more layers can still help: enough integers are left, and there is speed to give."""
        last = next(step for step in reversed(self._steps) if step.attempt == attempt.name)
        return last.is_faster and last.measurement.integer_share >= self._settings.min_integer_share

    def try_form(self, attempt: Attempt[FilesT], floating: FloatLayers, returned: tuple[str, ...]) -> bool:
        """Quantizes, measures and records one form; tells whether it is the one to take."""
        files = attempt.quantize(floating)
        measured = self._measure(files)
        limit = self._settings.float_latency_ms
        step = GuardStep(
            number=len(self._steps) + 1,
            attempt=attempt.name,
            returned=returned,
            float_groups=floating.names,
            measurement=measured,
            outcome=outcome(measured.drop, self._settings.max_drop),
            fits=measured.drop.value <= self._settings.max_drop,
            is_faster=limit is None or measured.latency_ms < limit,
        )
        self._steps.append(step)
        self._on_step(step)
        if self._may_ship(step) and (self._best is None or _rank(step) < _rank(self._best[1])):
            self._best = (files, step, floating)
        return self._may_ship(step) and step.fits

    def _may_ship(self, step: GuardStep) -> bool:
        enough = step.measurement.integer_share >= self._settings.min_integer_share
        return enough and step.is_faster and step.outcome is not Outcome.FAILED

    def best_attempt(self, attempts: Sequence[Attempt[FilesT]]) -> Attempt[FilesT] | None:
        """Returns the attempt worth repairing: of those faster than float the one that lost least, None where none is."""
        faster = [step for step in self._steps if step.is_faster]
        if not faster:
            return None
        name = min(faster, key=lambda step: step.measurement.drop.value).attempt
        return next(attempt for attempt in attempts if attempt.name == name)

    def result(self) -> GuardResult[FilesT]:
        """Returns the best form that may be shipped, if there is one."""
        steps = tuple(self._steps)
        if self._best is not None:
            files, step, floating = self._best
            end = GuardEnd.FITS if step.fits else GuardEnd.UNDECIDED
            return GuardResult(files=files, step=step, float_layers=floating, end=end, steps=steps)
        accurate = any(step.outcome is not Outcome.FAILED and not step.is_faster for step in steps)
        end = GuardEnd.TOO_SLOW if accurate else GuardEnd.TOO_INACCURATE
        return GuardResult(files=None, step=None, float_layers=None, end=end, steps=steps)


def _rank(step: GuardStep) -> tuple[bool, float]:
    """Orders forms that may be shipped: fitting ones first, then by drop."""
    return (not step.fits, step.measurement.drop.value)
