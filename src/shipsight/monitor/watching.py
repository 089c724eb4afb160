# SPDX-License-Identifier: Apache-2.0
"""Watching one model's production for drift: what comes now against what came first.

The first images make the reference, as many apart as they must be to be news (`permuting.spacing`). From then on every
window of images is compared with it, all features in one test; what is too slow or too small for a window is looked for in the
stream (`trends`). An alarm needs both: chance would name any feature in no more than `error` of the windows, and what moved is
large enough to matter.

Leaves to others: training data (`doctor accuracy` compares with it), what becomes of alarms (`alerts`), keeping images
(`recording`). Invariants: numbers only, no image is kept; nothing here fails a request: what cannot be read is counted.
Thread-safe. Stable.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import ShipsightError, UsageError
from shipsight.model import ImagePredictions
from shipsight.monitor._state import State, read_state, write_state
from shipsight.monitor.accuracy import LEAST_PREDICTIONS, estimate
from shipsight.monitor.drift import Drift, Estimate, MonitorSettings
from shipsight.monitor.features import ANSWERS, CLASSES, EMBEDDING, Observation, columns, leading, numbers, observe
from shipsight.monitor.permuting import Comparison, class_shift, compare, spacing
from shipsight.monitor.signal import Signal
from shipsight.monitor.spreading import gap, places, share
from shipsight.monitor.telling import tell, tell_estimate, tell_trend
from shipsight.monitor.trends import Trends
from shipsight.proof.calibration import Calibration

__all__ = ["Monitor", "MonitorReport", "Phase"]

Pixels = NDArray[np.uint8]
_log = logging.getLogger("shipsight.monitor")
_MOST_KEPT = 20
"""References' worth of images that are looked at for one reference before fewer are taken."""


class Phase(StrEnum):
    """What a monitor is doing."""

    LEARNING = "learning"
    """The reference is not complete."""
    WAITING = "not enough data"
    """No window has been completed since."""
    WATCHING = "watching"
    """At least one window was compared."""


@dataclass(frozen=True)
class MonitorReport:
    """How a model's production stands.

    Attributes:
        subject: model/variant.
        phase: what the monitor is doing.
        seen: images it was told of since the state began.
        taken: of them, those it looked at.
        unreadable: of them, those that could not be measured.
        reference: images in the reference, or so far.
        window: images in the window that is being filled.
        spacing: how many images that are looked at apart those that count are, at least, so that each is news.
        windows: that were compared.
        is_kept: whether the state file holds all of this up to the latest comparison, where there is one.
        drifts: every feature in the latest comparison, the likeliest first; empty before one.
        trends: every number since it last changed, the likeliest first; empty before enough images.
        accuracy: precision of the latest window, from its scores; None where it is not estimated.
        not_estimated: why; None where it is.
    """

    subject: str
    phase: Phase
    seen: int
    taken: int
    unreadable: int
    reference: int
    window: int
    spacing: int
    windows: int
    is_kept: bool = True
    drifts: tuple[Drift, ...] = ()
    trends: tuple[Drift, ...] = ()
    accuracy: Estimate | None = None
    not_estimated: str | None = None

    @property
    def is_learned(self) -> bool:
        """Whether the reference is complete."""
        return self.phase is not Phase.LEARNING

    @property
    def alarms(self) -> tuple[Drift, ...]:
        """The features that alarm, those of the latest window first."""
        return tuple(one for one in (*self.drifts, *self.trends) if one.is_alarm)


@dataclass(eq=False)
class Monitor:
    """Watches one model.

    Args:
        subject: model/variant, for reports.
        settings: how.
        state_file: where the numbers are kept over restarts: read where it exists, written when the reference is complete,
            after every comparison and by `save`; None keeps them in memory.
        clock: monotonic seconds.
        calibration: of the variant, from its bundle (`proof.calibration_of`): with it the precision of each window is estimated.
        embed: gives the model's own view of an image, (H, W, 3) uint8 RGB -> (d,) (`proof.open_embedding`); called for images that are
            looked at. With it the vectors are compared as well.

    Raises:
        CorruptError: the state file is damaged.
        UnsupportedError: another version wrote it.
        UsageError: it is another subject's, or was made with other settings.
    """

    subject: str
    settings: MonitorSettings = field(default_factory=MonitorSettings)
    state_file: Path | None = None
    clock: Callable[[], float] = time.monotonic
    calibration: Calibration | None = None
    embed: Callable[[Pixels], NDArray[np.float64]] | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._due_s = -float("inf")
        self._state = State()
        self._names: tuple[str, ...] = ()
        self._is_kept = True
        if self.state_file is not None and self.state_file.exists():
            self._state = read_state(self.state_file, self.subject, self.settings)
        self._trends = self._begin_trends()

    def _begin_trends(self) -> Trends | None:
        """Returns the trends, with what is known of them; None while the reference is not complete."""
        if not self._state.is_learned:
            return None
        return Trends(numbers(columns(self._state.reference)), self.settings, self._state.trends)

    def observe(self, image: Pixels | Callable[[], Pixels], predictions: ImagePredictions) -> bool:
        """Takes notice of an image and its answer; nearly free where it is not its turn.

        Args:
            image: (H, W, 3) uint8 RGB, or what gives it: called only where it is looked at.
            predictions: the answer.

        Returns:
            Whether it was looked at.

        Raises:
            UsageError: the answer is of a model with another number of classes, or the vector of another size.
        """
        with self._lock:
            self._state.seen += 1
            now = self.clock()
            if now < self._due_s:
                return False
            self._due_s = max(self._due_s + (0.5 + share(self._state.seen)) / self.settings.most_per_s, now)
            if self._state.passing:
                self._state.passing -= 1
                return False
            self._state.taken += 1
            self._state.passing = gap(self._state.step, self._state.taken) - 1
        try:
            conf = None if self.calibration is None else self.calibration.conf
            one = observe(image() if callable(image) else image, predictions, conf=conf, embed=self.embed)
        except ShipsightError:
            with self._lock:
                self._state.unreadable += 1
            return True
        self._add(one, predictions.class_names)
        return True

    @property
    def windows(self) -> int:
        """Windows that were compared."""
        return self._state.windows

    def is_due(self) -> bool:
        """Tells whether an image that came now would be looked at, or passed over for others' sake; costs next to nothing."""
        return self.clock() >= self._due_s

    def _add(self, one: Observation, names: tuple[str, ...]) -> None:
        with self._lock:
            state = self._state
            self._names = names
            known = state.reference[0] if state.reference else one
            if len(known.counts) != len(one.counts):
                raise UsageError(
                    "a monitor watches one model",
                    where=self.subject,
                    expected=f"{len(known.counts)} classes",
                    got=len(one.counts),
                    hint="Give each model a monitor of its own",
                )
            if known.embedding and one.embedding and len(known.embedding) != len(one.embedding):
                raise UsageError(
                    "a monitor takes vectors of one size",
                    where=self.subject,
                    expected=len(known.embedding),
                    got=len(one.embedding),
                    hint="Call `forget()` after a change that was meant",
                )
            window: list[Observation] = []
            if self._trends is not None:
                self._trends.add({name: float(values[0]) for name, values in numbers(columns([one])).items()})
                state.window.append(one)
                if len(state.window) < self.settings.window:
                    return
                window, state.window = state.window, []
            elif self._learn(one):
                self._trends = self._begin_trends()
            else:
                return
            reference, number = list(state.reference), state.windows
        if window:
            # Outside the lock: others go on meanwhile.
            before, here = columns(reference), columns(window)
            if not (EMBEDDING in before and EMBEDDING in here):
                # Learned, or begun, without.
                before.pop(EMBEDDING, None)
                here.pop(EMBEDDING, None)
            found = compare(before, here, vectors=(EMBEDDING,), seed=number)
            guess = self._estimate(window, number)
            with self._lock:
                state.windows += 1
                state.drifts = self._judge(found, before, here)
                state.estimate = guess
        self._keep()

    def _keep(self) -> None:
        """Saves; where that fails, watching goes on and the report says it."""
        try:
            self.save()
        except OSError as error:
            _log.error("a monitor's state cannot be written: %s", error)
            self._is_kept = False

    def _learn(self, one: Observation) -> bool:
        """Adds to the reference; returns whether it now holds enough images that are news to each other. Holds the lock."""
        state, wanted = self._state, self.settings.reference
        state.reference.append(replace(one, scores=None))
        if len(state.reference) % wanted:
            return False
        apart = spacing(leading(columns(state.reference)))
        kept, fewer = places(apart, len(state.reference)), apart
        if len(kept) >= wanted:
            kept = kept[:wanted]
            state.is_learned = True
        elif len(state.reference) >= _MOST_KEPT * wanted:
            kept, fewer = places(2, len(state.reference)), 2
        else:
            return False
        state.reference = [state.reference[place] for place in kept]
        state.step *= fewer
        state.passing = state.step - 1
        return state.is_learned

    def _judge(
        self,
        found: Mapping[str, Comparison],
        before: Mapping[str, NDArray[np.float64]],
        here: Mapping[str, NDArray[np.float64]],
    ) -> tuple[Drift, ...]:
        drifts = []
        for name, one in found.items():
            least = self.settings.least_class_effect if name == CLASSES else self.settings.least_effect
            is_alarm = one.p_family <= self.settings.error and one.effect >= least
            now, then = self._show(name, before[name], here[name])
            drifts.append(Drift(name, one.effect, one.p_family, is_alarm, now, then, len(here[name])))
        return tuple(sorted(drifts, key=lambda one: (not one.is_alarm, one.p_family, -one.effect)))

    def _show(
        self, name: str, before: NDArray[np.float64], here: NDArray[np.float64]
    ) -> tuple[float, float] | tuple[str, str]:
        if name == CLASSES:
            return _show_classes(before, here, self._names)
        if name == EMBEDDING:
            middle = before.mean(axis=0)
            before, here = (np.linalg.norm(side - middle, axis=1) for side in (before, here))
        return float(np.median(here)), float(np.median(before))

    def report(self) -> MonitorReport:
        """Returns how things stand."""
        with self._lock:
            state = self._state
            phase = Phase.LEARNING if not state.is_learned else Phase.WATCHING if state.windows else Phase.WAITING
            return MonitorReport(
                subject=self.subject,
                phase=phase,
                seen=state.seen,
                taken=state.taken,
                unreadable=state.unreadable,
                reference=len(state.reference),
                window=len(state.window),
                spacing=state.step,
                windows=state.windows,
                is_kept=self._is_kept,
                drifts=state.drifts,
                trends=() if self._trends is None else self._trends.found(),
                accuracy=state.estimate,
                not_estimated=None if state.estimate is not None else self._why_not(state),
            )

    def signals(self) -> list[Signal]:
        """Returns what `alerts` is told: one for every feature and trend, and for the precision where it is estimated; none before a window was compared."""
        report = self.report()
        if not report.windows:
            return []
        windows = [tell(one, self.subject, self._least(one.feature), self.settings.error) for one in report.drifts]
        trends = [
            tell_trend(one, self.subject, self.settings.least_trend, self.settings.error) for one in report.trends
        ]
        is_shifted = any(one.is_alarm and one.feature not in (*ANSWERS, CLASSES) for one in report.drifts)
        guess = report.accuracy
        accuracy = [] if guess is None else [tell_estimate(guess, self.subject, is_shifted=is_shifted)]
        return [*windows, *trends, *accuracy]

    def _least(self, feature: str) -> float:
        return self.settings.least_class_effect if feature == CLASSES else self.settings.least_effect

    def _estimate(self, window: list[Observation], seed: int) -> Estimate | None:
        # A window may have begun before there was a calibration.
        scores = [one.scores for one in window if one.scores is not None]
        if self.calibration is None or not scores:
            return None
        return estimate(self.calibration, scores, seed=seed)

    def _why_not(self, state: State) -> str:
        if self.calibration is None:
            return "no calibration was given: the bundle holds none for this variant"
        if not state.windows:
            return "no window was compared"
        least, conf = LEAST_PREDICTIONS, self.calibration.conf
        return f"the latest window holds fewer than {least} predictions of a score of {conf:.3f} and more"

    def forget(self) -> None:
        """Begins anew: what comes now becomes the reference. For after a change that was meant."""
        with self._lock:
            self._state, self._trends = State(), None
        self.save()

    def save(self) -> None:
        """Writes the state file, whole or not at all; nothing where there is none.

        Raises:
            OSError: the file cannot be written; the one before stands.
        """
        if self.state_file is None:
            return
        # The disk holds up other writers alone; what is written last was known last.
        with self._writing:
            with self._lock:
                kept = self._state.copy()
                kept.trends = {} if self._trends is None else self._trends.kept()
            write_state(self.state_file, self.subject, self.settings, kept)
            self._is_kept = True


def _show_classes(before: NDArray[np.float64], here: NDArray[np.float64], names: tuple[str, ...]) -> tuple[str, str]:
    """Returns the class that changed most, and how."""
    kind, most = np.unravel_index(int(np.argmax(class_shift(before, here))), (2, before.shape[1]))
    name = names[most] if most < len(names) else str(most)
    if kind:
        return name, f"in {(before[:, most] > 0).mean():.0%} to {(here[:, most] > 0).mean():.0%} of the images"
    shares = [float(side[:, most].sum() / max(side.sum(), 1.0)) for side in (before, here)]
    return name, f"{shares[0]:.0%} to {shares[1]:.0%} of the objects"
