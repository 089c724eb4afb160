# SPDX-License-Identifier: Apache-2.0
"""Finds the chain behind predictions: each likely fault is tried on the bundle's reference, the best are joined. Private to the room.

How: the reference answers behind the chain that is asked and behind each single fault, on the few images that tell most. The best few
are joined with each other for as long as that gains. What is found has to beat the plain chain on all images, images resampled.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.dataset.evidence import Boxes
from shipsight.doctor.preprocessing.agreeing import BOX_FORMS, compare_boxes, map_classes, read_boxes, share_agreeing
from shipsight.doctor.preprocessing.answers import Answerer
from shipsight.doctor.preprocessing.chain import Chain, Photo, render, to_levels
from shipsight.doctor.preprocessing.naming import Scaling, scalings
from shipsight.vision import Geometry

__all__ = ["DEADLINE_S", "Guess", "Guesser", "Subject"]

_LEAST_GAIN = 0.03
"""Share of the answers that a fault has to explain more than the plain chain does: what 16 images show by chance is below."""
_LEAST_SHARE = 0.25
"""Share of what disagrees, likewise."""
_BEAM = 3
_DEPTH = 3
DEADLINE_S = 40.0
"""After which steps are no longer joined."""
_DRAWS = 400


@dataclass(frozen=True, eq=False)
class Subject:
    """An image with what was predicted for it.

    Attributes:
        photo: the image.
        theirs: boxes as written, scores as they leave a model.
    """

    photo: Photo
    theirs: Boxes


@dataclass(frozen=True)
class Guess:
    """A chain, and how predictions were written.

    Attributes:
        chain: of preprocessing.
        form: of boxes: one of `BOX_FORMS`.
        scaling: of the values, None where as asked.
    """

    chain: Chain
    form: str = BOX_FORMS[0]
    scaling: Scaling | None = None


@dataclass(eq=False)
class Guesser:
    """Compares guesses with what was given; what the model answered once is kept.

    Attributes:
        answerer: the reference.
        subjects: images, those that tell most first.
        expected: what is asked.
        floor: least score that counts.
        is_coco: whether boxes were read from corner and size.
        has_classes: whether classes have to agree.
        classes: class as written -> class as it should be.
        was_cut: whether the search ended before all that it would join was tried.
    """

    answerer: Answerer
    subjects: Sequence[Subject]
    expected: Chain
    floor: float
    is_coco: bool = False
    has_classes: bool = True
    classes: dict[int, int] = field(default_factory=dict)
    was_cut: bool = False
    _answers: dict[tuple[Chain, int], tuple[Boxes, Geometry]] = field(default_factory=dict)
    _begun_s: float = field(default_factory=time.monotonic)

    def answers(self, chain: Chain, count: int) -> list[tuple[Boxes, Geometry]]:
        """Returns what the reference answers behind a chain for the first images."""
        for at in range(count):
            if (chain, at) not in self._answers:
                self._answers[chain, at] = self.answerer.answer(self.subjects[at].photo, chain, conf=0.1)
        return [self._answers[chain, at] for at in range(count)]

    def parts(self, guess: Guess, count: int) -> NDArray[np.float64]:
        """Returns (count, 2) of what agrees and of all, image by image."""
        return np.stack(
            [
                compare_boxes(
                    ours,
                    read_boxes(map_classes(one.theirs, self.classes), guess.form, geometry),
                    floor=self.floor,
                    has_classes=self.has_classes,
                )
                for (ours, geometry), one in zip(self.answers(guess.chain, count), self.subjects[:count], strict=True)
            ]
        )

    def guess(self, few: int) -> Guess:
        """Searches.

        Args:
            few: number of images that are searched on.

        Returns:
            The best guess; the plain one unless another beats it on all images, whichever are drawn again.
        """
        forms = BOX_FORMS if self.is_coco else BOX_FORMS[:-1]
        plain = Guess(self.expected)
        tried = {one: share_agreeing(self.parts(one, few)) for one in (replace(plain, form=form) for form in forms)}
        written = max(tried, key=lambda one: tried[one])
        if share_agreeing(self.parts(written, len(self.subjects))) > 1 - _LEAST_GAIN:
            # No fault of preprocessing could gain enough to be told.
            return self._choose([plain, written])
        faults = [one for one in self._singles() if self._shows(one.chain, few)]
        for fault in faults:
            for form in forms:
                tried[replace(fault, form=form)] = share_agreeing(self.parts(replace(fault, form=form), few))
        # What is done to values is copied as one recipe: each half of it alone may explain nothing.
        for recipe in self._recipes(faults):
            if self._in_time():
                tried[recipe] = share_agreeing(self.parts(recipe, few))
        beam = self._best(tried)
        for _ in range(_DEPTH - 1):
            if tried[beam[0]] > 0.97 or not self._in_time():
                break
            joined: dict[Guess, float] = {}
            for one in beam:
                for fault in faults:
                    both = _join(one, fault, self.expected)
                    if both is not None and both not in tried and self._in_time():
                        joined[both] = share_agreeing(self.parts(both, few))
            tried |= joined
            beam = self._best(tried)
        return self._simplest(self._choose([plain, *(replace(plain, form=form) for form in forms[1:]), *beam]))

    def _recipes(self, faults: Sequence[Guess]) -> Iterator[Guess]:
        """Yields every scaling with every order of channels."""
        for one in faults:
            for other in faults:
                if one.chain.values != self.expected.values and other.chain.channels != self.expected.channels:
                    both = _join(one, other, self.expected)
                    if both is not None:
                        yield both

    def _in_time(self) -> bool:
        self.was_cut = self.was_cut or time.monotonic() - self._begun_s > DEADLINE_S
        return not self.was_cut

    def _best(self, tried: dict[Guess, float]) -> list[Guess]:
        # Fewer faults first where as much agrees: an order of insertion, which sorting keeps.
        return sorted(tried, key=lambda one: -round(tried[one], 3))[:_BEAM]

    def _choose(self, guesses: Sequence[Guess]) -> Guess:
        best = guesses[0]
        whole = self.parts(best, len(self.subjects))
        for one in guesses[1:]:
            parts = self.parts(one, len(self.subjects))
            if self._beats(parts, whole):
                best, whole = one, parts
        return best

    def _simplest(self, best: Guess) -> Guess:
        """Leaves out each fault that nothing speaks for."""
        for step, one in self.without(best):
            del step
            if not self._beats(self.parts(best, len(self.subjects)), self.parts(one, len(self.subjects))):
                return self._simplest(one)
        return best

    def without(self, guess: Guess) -> Iterator[tuple[str, Guess]]:
        """Yields a guess with one of its faults put right each, and the name of that step."""
        for step in (
            "values",
            "pad",
            "turned",
            "channels",
            "mirrored",
            "gamma",
            "fit",
            "place",
            "interpolation",
            "layout",
        ):
            asked = getattr(self.expected, step)
            if getattr(guess.chain, step) != asked:
                scaling = None if step == "values" else guess.scaling
                yield step, replace(guess, chain=guess.chain.with_step(step, asked), scaling=scaling)
        if guess.form != BOX_FORMS[0]:
            yield "form", replace(guess, form=BOX_FORMS[0])

    def _beats(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
        before, after = 1 - share_agreeing(other), 1 - share_agreeing(one)
        if before - after < max(_LEAST_GAIN, _LEAST_SHARE * before):
            return False
        return self.certainty(one, other) >= 0.95

    def certainty(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
        """Returns how often the first agrees more than the second, images drawn again, 0 to 1."""
        drawn = np.random.default_rng(0).integers(0, len(one), (_DRAWS, len(one)))
        sums = [parts[drawn].sum(axis=1) for parts in (one, other)]
        shares = [total[:, 0] / total[:, 1] for total in sums]
        return float((shares[0] > shares[1]).mean())

    def _shows(self, chain: Chain, count: int) -> bool:
        """Returns whether a fault changes what the model is fed, on any image."""
        if chain.values != self.expected.values or chain.layout != self.expected.layout:
            return True
        return any(
            not np.array_equal(_levels(one.photo, chain), _levels(one.photo, self.expected))
            for one in self.subjects[:count]
        )

    def _singles(self) -> Iterator[Guess]:
        """Yields faults, the commonest first: of two that explain as much, the first is told."""
        asked = self.expected
        steps: list[tuple[str, object]] = [("channels", one) for one in ("bgr", "rgb", "grey")]
        steps += [("fit", one) for one in ("stretch", "crop", "letterbox")]
        steps += [("pad", (level,) * 3) for level in (0.0, 255.0, 128.0)]
        steps += [("place", "top-left"), ("turned", False), ("mirrored", True), ("gamma", 2.2), ("gamma", 1 / 2.2)]
        steps += [("interpolation", "nearest"), ("layout", "reshaped"), ("layout", "transposed")]
        known = scalings(asked.values)
        used = [one for one in known[1:] if "video-range" not in one.rules][:9] + [
            one for one in known if one.rules == ("video-range",)
        ]
        for scaling in used:
            yield Guess(replace(asked, values=scaling.values), scaling=scaling)
        for step, value in steps:
            if getattr(asked, step) != value:
                yield Guess(asked.with_step(step, value))


def _levels(photo: Photo, chain: Chain) -> NDArray[np.float32]:
    return to_levels(render(photo, chain), chain)


def _join(one: Guess, fault: Guess, expected: Chain) -> Guess | None:
    """Returns a guess with one more fault; None where it has one of that step."""
    for step in ("values", "pad", "turned", "channels", "mirrored", "gamma", "fit", "place", "interpolation", "layout"):
        value = getattr(fault.chain, step)
        if value != getattr(expected, step):
            if getattr(one.chain, step) != getattr(expected, step):
                return None
            return replace(one, chain=one.chain.with_step(step, value), scaling=fault.scaling or one.scaling)
    return None
