# SPDX-License-Identifier: Apache-2.0
"""Tells a principal whose questions look like somebody copying a model from one who uses it.

Three signs, each of images that were not seen before from this principal; exact repeats never count:

    noise       new scenes without the smoothness of photographs, at any scale down to a sixteenth of the image
    perturbed   scenes that come again with grain laid over them (Jacobian-based augmentation, adversarial examples)
    border      a scene that comes again, changed all over, with answers that hang at the threshold (walks along a border)

What is not told from use, and cannot be by looking at images: many different photographs (a surrogate trained on another data
set); small noise on one still image. Only a quota bounds those. Invariants: of an image a hash and a grey thumbnail are kept,
in memory, of at most `_SCENES` images for each of at most `_MOST_STATES` principals and models; nothing is written to a disk.
Leaves to others: what happens to who is suspected. Stable in use, its thresholds not. Sources: Papernot et al., "Practical
black-box attacks" (2017); Juuti et al., "PRADA" (2019); Chen, Jordan, Wainwright, "HopSkipJumpAttack" (2020); Orekondy et
al., "Knockoff nets" (2019). Measured in bench/extraction.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from shipsight.access.events import Event, EventKind, EventSink, Outcome
from shipsight.access.principal import Principal
from shipsight.access.quotas import owner_of

__all__ = ["Extraction", "Look", "Samples", "Seen", "Sign", "look_at", "sample_of", "seen_in"]

Floats = NDArray[np.float32]
_log = logging.getLogger("shipsight.access")
_SAMPLES, _CELLS, _MATCHED = 96, 16, 8
_SCENES = 512
_MOST_STATES = 256
_AGAIN_S = 3600.0

_SAME_SCENE = 0.93  # correlation of thumbnails of 8 x 8
_NOISE_SMOOTHNESS = 0.33  # of photographs the least was 0.35, the fifth percentile 0.57
_NOISE_CONTRAST, _NOISE_GRAIN = 12.0, 20.0  # a dark camera's noise has less of both
_NOISE_WINDOW, _NOISE_LEAST = 256, 64
_GRAIN_TIMES, _GRAIN_MORE = 1.6, 3.0
_GRAIN_RISE_S = 1.0 / 600.0  # levels a second by which dusk may raise a camera's grain
_PERTURBED_WINDOW, _PERTURBED_LEAST = 512, 64
_BORDER_NEAR = 0.1
_BORDER_LEAST, _BORDER_MEMORY = 64, 0.99
_CHANGED_LEVELS = 1.0


class Sign(StrEnum):
    """What looks like copying."""

    NOISE = "noise"
    PERTURBED = "perturbed"
    BORDER = "border"


@dataclass(frozen=True, eq=False, slots=True)
class Look:
    """What is kept of an image.

    Attributes:
        digest: of sampled pixels: the same image has the same.
        size_hw: its pixels.
        thumbnail: 16 x 16 means, 0 to 255.
        grain: how much pixels that are two apart differ in the smoother fifth of the image, levels.
    """

    digest: int
    size_hw: tuple[int, int]
    thumbnail: Floats
    grain: float


@dataclass(frozen=True, eq=False, slots=True)
class Samples:
    """Pixels of an image, on a grid.

    Attributes:
        size_hw: of the image.
        here: of one channel, uint8.
        beside: the second pixels to their right.
    """

    size_hw: tuple[int, int]
    here: NDArray[np.uint8]
    beside: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a model said, as far as it tells of a border.

    Attributes:
        is_empty: whether it found nothing.
        margin: how far the best score lies above the threshold, or the best class above the second; 0 and more.
        best: class of the best score, None where it found nothing.
    """

    is_empty: bool
    margin: float
    best: int | None


def sample_of(image: NDArray[np.uint8]) -> Samples:
    """Takes some pixels of an image: all that has to be done while it is there; some 20 microseconds, whatever its size.

    Args:
        image: (height, width, 3) uint8 of any colour order, 1 x 1 and more.
    """
    height, width = image.shape[:2]
    # Two pixels apart, by an odd step: what was made at half the size and enlarged has its edges in the samples, too.
    step_y, step_x = max(height // _SAMPLES, 1) | 1, max((width - 2) // _SAMPLES, 1) | 1
    if width < 3:
        image = np.repeat(image, 3, axis=1)
    here = np.ascontiguousarray(image[::step_y, :-2:step_x, 1])
    beside = np.ascontiguousarray(image[::step_y, 2::step_x, 1])
    return Samples((height, width), here, beside)


def look_at(samples: Samples) -> Look:
    """Looks at an image by its samples."""
    grains = np.sort(_means(cv2.absdiff(samples.here, samples.beside)).ravel())
    digest = hash(samples.here.tobytes())
    return Look(digest, samples.size_hw, _means(samples.here), float(grains[len(grains) // 5]))


def _means(samples: NDArray[Any]) -> Floats:
    """Returns the means of 16 x 16 cells; of what is smaller, of cells as large as there are."""
    means: Floats = cv2.resize(samples.astype(np.float32), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    return means


def seen_in(
    class_ids: NDArray[Any], scores: NDArray[Any], *, conf: float, probabilities: NDArray[Any] | None = None
) -> Seen:
    """Returns what a model said.

    Args:
        class_ids: (N,) of what was found.
        scores: (N,) in [0, 1].
        conf: threshold that was asked for.
        probabilities: (classes,) of a classifier, None for others.
    """
    if probabilities is not None:
        best = int(probabilities.argmax())
        others = np.delete(probabilities, best)
        return Seen(False, float(probabilities[best] - others.max(initial=0.0)), best)
    if not len(scores):
        return Seen(True, 0.0, None)
    place = int(scores.argmax())
    return Seen(False, max(float(scores[place]) - conf, 0.0), int(class_ids[place]))


@dataclass(eq=False, slots=True)
class _Scene:
    """An image that came, and came again changed: counts fade, so that they tell of the last hundred."""

    size_hw: tuple[int, int]
    grain: float
    at_s: float
    contrast: float
    answers: float = 0.0
    changed: float = 0.0
    at_border: float = 0.0
    by_answer: dict[int | None, float] = field(default_factory=dict)

    def is_walked(self) -> bool:
        """Whether changed images of it hang at the border between two answers."""
        if self.answers < _BORDER_LEAST * 0.7 or self.changed < 0.5 * self.answers:
            return False
        two = sorted(self.by_answer.values(), reverse=True)[:2]
        return len(two) == 2 and two[1] > 0.15 * self.answers and self.at_border > 0.8 * self.answers


class _State:
    """What one principal asked one model."""

    def __init__(self, seed: int) -> None:
        self.images = self.repeats = self.found = 0
        self._thumbnails = np.zeros((_SCENES, _MATCHED * _MATCHED), np.float32)
        self._scenes: list[_Scene] = []
        self._digests: OrderedDict[int, None] = OrderedDict()
        self._noise: deque[bool] = deque(maxlen=_NOISE_WINDOW)
        self._perturbed: deque[bool] = deque(maxlen=_PERTURBED_WINDOW)
        self._chance = np.random.default_rng(seed)

    def observe(self, look: Look, seen: Seen | None, now_s: float) -> Sign | None:
        """Takes an image and its answer; returns what it, with those before, looks like."""
        self.images += 1
        if look.digest in self._digests:
            self.repeats += 1
            return None
        self._digests[look.digest] = None
        if len(self._digests) > 4 * _SCENES:
            self._digests.popitem(last=False)
        thumbnail, contrast = _normalized(look.thumbnail)
        place = self._place_of(thumbnail, look.size_hw)
        if place is None:
            return self._add(look, thumbnail, contrast, now_s)
        return self._again(self._scenes[place], place, look, seen, thumbnail, contrast, now_s)

    def _place_of(self, thumbnail: Floats, size_hw: tuple[int, int]) -> int | None:
        if not self._scenes:
            return None
        alike = self._thumbnails[: len(self._scenes)] @ thumbnail
        place = int(alike.argmax())
        if alike[place] < _SAME_SCENE:
            return None
        if self._scenes[place].size_hw == size_hw:
            return place
        # Another size of the same scene is another scene: its grain cannot be compared.
        for other in np.flatnonzero(alike >= _SAME_SCENE):
            if self._scenes[other].size_hw == size_hw:
                return int(other)
        return None

    def _add(self, look: Look, thumbnail: Floats, contrast: float, now_s: float) -> Sign | None:
        self.found += 1
        scene = _Scene(look.size_hw, look.grain, now_s, contrast)
        if len(self._scenes) < _SCENES:
            self._scenes.append(scene)
            place = len(self._scenes) - 1
        else:
            # By chance: who goes through more scenes than are kept, in order, would else find none of them again.
            place = int(self._chance.integers(_SCENES))
            self._scenes[place] = scene
        self._thumbnails[place] = thumbnail
        is_noise = _smoothness(look.thumbnail) < _NOISE_SMOOTHNESS and (
            float(look.thumbnail.std()) > _NOISE_CONTRAST or look.grain > _NOISE_GRAIN
        )
        self._noise.append(is_noise)
        self._perturbed.append(False)
        noises = sum(self._noise) if is_noise else 0
        return Sign.NOISE if noises >= _NOISE_LEAST and noises > 0.5 * len(self._noise) else None

    def _again(
        self, scene: _Scene, place: int, look: Look, seen: Seen | None, thumbnail: Floats, contrast: float, now_s: float
    ) -> Sign | None:
        # Grain goes with contrast, as where somebody tries other exposures.
        usual = scene.grain * max(contrast / max(scene.contrast, 1e-3), 1.0)
        is_perturbed = look.grain > max(_GRAIN_TIMES * usual, usual + _GRAIN_MORE)
        self._perturbed.append(is_perturbed)
        difference = np.abs(thumbnail - self._thumbnails[place]) * contrast * _MATCHED
        has_changed = is_perturbed or float(np.median(difference)) > _CHANGED_LEVELS
        rise = (now_s - scene.at_s) * _GRAIN_RISE_S
        scene.grain = min(look.grain, scene.grain + rise)
        scene.at_s, scene.contrast = now_s, contrast
        self._thumbnails[place] = thumbnail
        if seen is not None:
            self._answered(scene, seen, has_changed=has_changed)
        if is_perturbed and sum(self._perturbed) >= _PERTURBED_LEAST:
            return Sign.PERTURBED
        return Sign.BORDER if seen is not None and scene.is_walked() else None

    def _answered(self, scene: _Scene, seen: Seen, *, has_changed: bool) -> None:
        scene.answers = scene.answers * _BORDER_MEMORY + 1.0
        scene.changed = scene.changed * _BORDER_MEMORY + has_changed
        scene.at_border = scene.at_border * _BORDER_MEMORY + (seen.margin < _BORDER_NEAR)
        faded = {one: count * _BORDER_MEMORY for one, count in scene.by_answer.items() if count > 0.01}
        faded[seen.best] = faded.get(seen.best, 0.0) + 1.0
        scene.by_answer = faded


def _normalized(thumbnail: Floats) -> tuple[Floats, float]:
    """Returns 8 x 8 means as a vector of length 1 whose mean is 0, and its contrast in levels."""
    half = _CELLS // _MATCHED
    small = thumbnail.reshape(_MATCHED, half, _MATCHED, half).mean((1, 3)).ravel()
    small -= small.mean()
    length = float(np.linalg.norm(small))
    contrast = length / _MATCHED
    return (small / length if length > 1e-3 else small), contrast


def _smoothness(thumbnail: Floats) -> float:
    """Returns the correlation of neighbouring cells: 0 for noise, some 0.8 for photographs."""
    centred = thumbnail - thumbnail.mean()
    power = float((centred * centred).mean())
    if power < 1e-6:
        return 1.0
    beside = float((centred[:, 1:] * centred[:, :-1]).mean()) + float((centred[1:] * centred[:-1]).mean())
    return beside / 2.0 / power


class Extraction:
    """Watches what principals ask. Threads may share it.

    Args:
        events: takes who is suspected, at most once an hour for each sign.
        now: tells the time for events.
        clock: monotonic seconds.
    """

    def __init__(
        self, events: EventSink, *, now: Callable[[], datetime], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._events, self._now, self._clock = events, now, clock
        self._lock = threading.Lock()
        self._states: OrderedDict[tuple[str, str], _State] = OrderedDict()
        self._told: dict[tuple[str, str, Sign], float] = {}
        self._suspected: Counter[tuple[str, str]] = Counter()

    def suspected(self) -> Mapping[tuple[str, str], int]:
        """Returns how often somebody was, by model and sign."""
        with self._lock:
            return dict(self._suspected)

    def observe(self, principal: Principal, model: str, look: Look, seen: Seen | None) -> Sign | None:
        """Takes an image that was asked about, with its answer.

        Args:
            principal: who asked.
            model: that answered.
            look: of the image.
            seen: what the model said, None where it is not known.

        Returns:
            The sign that was told of now, None where there is none or it was told of before.
        """
        owner = owner_of(principal)
        if owner is None:
            return None
        with self._lock:
            state = self._states.get((owner, model))
            if state is None:
                state = self._states[owner, model] = _State(len(self._states))
                if len(self._states) > _MOST_STATES:
                    self._states.popitem(last=False)
            self._states.move_to_end((owner, model))
            sign = state.observe(look, seen, self._clock())
            if sign is None or not self._is_news((owner, model, sign)):
                return None
            self._suspected[model, sign.value] += 1
            event = Event(
                self._now(),
                EventKind.EXTRACTION_SUSPECTED,
                Outcome.DONE,
                principal.told(),
                subject=model,
                why=sign.value,
                details={"images": state.images, "repeats": state.repeats, "scenes": state.found},
            )
        self._events.record(event)
        return sign

    def _is_news(self, what: tuple[str, str, Sign]) -> bool:
        now = self._clock()
        if now < self._told.get(what, -_AGAIN_S) + _AGAIN_S:
            return False
        if len(self._told) >= 4 * _MOST_STATES:
            self._told = {one: at for one, at in self._told.items() if now < at + _AGAIN_S}
        self._told[what] = now
        return True
