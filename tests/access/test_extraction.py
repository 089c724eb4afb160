# SPDX-License-Identifier: Apache-2.0
"""Who is suspected of copying a model, and who is not; the whole of it, with a real model, is bench/extraction.py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shipsight.access import SERVER, Event, EventKind, Principal, PrincipalKind
from shipsight.access.extraction import _MOST_STATES, _SCENES, Extraction, Seen, Sign, look_at, sample_of, seen_in

KEY = Principal(PrincipalKind.KEY, "camera", id="k1")
NOTHING, FOUND, SURE = Seen(True, 0.0, None), Seen(False, 0.03, 7), Seen(False, 0.6, 7)


class Watched:
    """A principal whose questions pass one second apart."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.s = 0.0
        self.watch = Extraction(self, now=lambda: datetime(2026, 1, 2, tzinfo=UTC), clock=lambda: self.s)

    def record(self, event: Event) -> None:
        self.events.append(event)

    def ask(
        self, image: np.ndarray, seen: Seen = SURE, principal: Principal = KEY, pause_s: float = 1.0
    ) -> Sign | None:
        self.s += pause_s
        return self.watch.observe(principal, "m", look_at(sample_of(image)), seen)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def photograph(seed: int) -> np.ndarray:
    """Smooth as photographs are: noise of several scales, the coarse ones strongest."""
    rng = np.random.default_rng(seed)
    made = np.zeros((240, 320, 3), np.float32)
    for cells, levels in ((3, 60.0), (6, 30.0), (24, 10.0), (160, 2.0)):
        made += levels * cv2.resize(rng.standard_normal((cells, cells, 3)).astype(np.float32), (320, 240))
    return np.clip(made + 128, 0, 255).astype(np.uint8)


def noisy(image: np.ndarray, levels: float, rng: np.random.Generator) -> np.ndarray:
    return np.clip(image + rng.choice([-levels, levels], image.shape), 0, 255).astype(np.uint8)


def frames(image: np.ndarray, count: int, *, noise: float = 3.0) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(5)
    for _ in range(count):
        yield np.clip(np.rint(image + rng.normal(0, noise, image.shape)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("cells", [0, 64, 16])
def test_noise_is_suspected_at_any_scale(watched: Watched, cells: int) -> None:
    rng = np.random.default_rng(1)
    signs = []
    for _ in range(80):
        small = rng.integers(0, 256, (cells or 240, cells or 320, 3), dtype=np.uint8)
        signs.append(watched.ask(cv2.resize(small, (320, 240), interpolation=cv2.INTER_CUBIC), NOTHING))
    assert signs.index(Sign.NOISE) == 63
    [event] = watched.events
    assert (event.kind, event.actor, event.subject, event.why) == (
        EventKind.EXTRACTION_SUSPECTED, "key:camera", "m", "noise",
    )  # fmt: skip
    assert event.details == {"images": 64, "repeats": 0, "scenes": 64}
    assert watched.watch.suspected() == {("m", "noise"): 1}


@pytest.mark.parametrize("levels", [8.0, 25.0])
def test_seeds_that_come_again_with_grain_over_them_are_suspected(watched: Watched, levels: float) -> None:
    rng = np.random.default_rng(2)
    seeds = [photograph(number) for number in range(20)]
    signs = [watched.ask(image) for image in seeds]
    signs += [watched.ask(noisy(image, levels, rng)) for _ in range(6) for image in seeds]
    assert [one for one in signs if one is not None] == [Sign.PERTURBED]


def test_walk_along_a_border_is_suspected(watched: Watched) -> None:
    rng = np.random.default_rng(3)
    image, signs = photograph(1), []
    for number in range(200):
        smooth = cv2.resize(rng.normal(0, 5, (12, 12, 3)).astype(np.float32), (320, 240))
        asked = np.clip(image + smooth, 0, 255).astype(np.uint8)
        signs.append(watched.ask(asked, FOUND if number % 2 else NOTHING))
    assert [one for one in signs if one is not None] == [Sign.BORDER]


def test_still_camera_is_not_suspected_also_where_its_answers_hang_at_the_threshold(watched: Watched) -> None:
    for number, frame in enumerate(frames(photograph(1), 300)):
        assert watched.ask(frame, FOUND if number % 2 else NOTHING) is None


def test_many_cameras_with_one_key_are_not_suspected(watched: Watched) -> None:
    for shown in zip(*(frames(photograph(number), 30) for number in range(12)), strict=True):
        for frame in shown:
            assert watched.ask(frame) is None


def test_dark_camera_is_not_taken_for_noise(watched: Watched) -> None:
    for frame in frames(np.full((240, 320, 3), 12, np.uint8), 300, noise=6.0):
        assert watched.ask(frame, NOTHING) is None


def test_dusk_that_raises_a_cameras_grain_is_not_suspected(watched: Watched) -> None:
    image, rng = photograph(4), np.random.default_rng(1)
    for number in range(300):
        frame = np.clip(image + rng.normal(0, 2 + number / 50, image.shape), 0, 255).astype(np.uint8)
        assert watched.ask(frame, pause_s=20.0) is None


def test_batch_over_a_data_set_is_not_suspected(watched: Watched) -> None:
    for number in range(400):
        assert watched.ask(photograph(number), NOTHING if number % 3 else SURE) is None


def test_load_test_that_repeats_images_is_not_suspected(watched: Watched) -> None:
    images = [photograph(number) for number in range(8)]
    rng = np.random.default_rng(1)
    images += [rng.integers(0, 256, (240, 320, 3), dtype=np.uint8) for _ in range(8)]
    for number in range(2000):
        assert watched.ask(images[number % 16], FOUND if number % 2 else NOTHING) is None


def test_somebody_who_tunes_is_not_suspected(watched: Watched) -> None:
    for seed in range(10):
        image = photograph(seed)
        for gain in (0.6, 0.8, 1.0, 1.25, 1.6):
            assert watched.ask(np.clip(image * gain, 0, 255).astype(np.uint8), FOUND) is None
        for quality in (30, 60, 80, 95):
            assert watched.ask(cv2.imdecode(cv2.imencode(".jpg", image, [1, quality])[1], 1)) is None
        for scale in (0.5, 0.75, 1.5):
            assert watched.ask(cv2.resize(image, None, fx=scale, fy=scale)) is None


def test_suspicion_is_told_once_an_hour_and_for_each_principal(watched: Watched) -> None:
    rng = np.random.default_rng(1)
    other = Principal(PrincipalKind.KEY, "other", id="k2")
    for _ in range(200):
        image = rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)
        watched.ask(image, NOTHING)
        watched.ask(image, NOTHING, other)
    assert [event.actor for event in watched.events] == ["key:camera", "key:other"]
    watched.s += 3600
    watched.ask(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8), NOTHING)
    assert len(watched.events) == 3


def test_server_itself_is_not_watched(watched: Watched) -> None:
    assert watched.ask(photograph(1), principal=SERVER) is None
    assert not watched.watch._states


def test_memory_is_bounded(watched: Watched) -> None:
    look = look_at(sample_of(photograph(1)))
    for number in range(_MOST_STATES + 20):
        watched.watch.observe(Principal(PrincipalKind.KEY, "k", id=str(number)), "m", look, SURE)
    assert len(watched.watch._states) == _MOST_STATES
    state = next(reversed(watched.watch._states.values()))
    rng = np.random.default_rng(1)
    for _ in range(_SCENES * 5):
        image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        state.observe(look_at(sample_of(image)), NOTHING, 0.0)
    assert len(state._scenes) == _SCENES
    assert len(state._digests) == _SCENES * 4


@settings(max_examples=100, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 400), st.integers(1, 400), st.just(3)), fill=st.integers(0, 255)))
def test_any_image_can_be_looked_at(image: np.ndarray) -> None:
    look = look_at(sample_of(image))
    assert look.thumbnail.shape == (16, 16)
    assert 0 <= look.thumbnail.min() <= look.thumbnail.max() <= 255.001  # of floats
    assert look.digest == look_at(sample_of(image.copy())).digest
    Watched().watch.observe(KEY, "m", look, NOTHING)


def test_answers_tell_how_near_the_border_they_are() -> None:
    none = np.array([])
    assert seen_in(none, none, conf=0.25) == Seen(True, 0.0, None)
    seen = seen_in(np.array([3, 5]), np.array([0.3, 0.75]), conf=0.25)
    assert (seen.is_empty, seen.best, seen.margin) == (False, 5, 0.5)
    seen = seen_in(none, none, conf=0.25, probabilities=np.array([0.2, 0.35, 0.45]))
    assert seen.best == 2
    assert seen.margin == pytest.approx(0.1)


@pytest.mark.alone
def test_looking_and_observing_take_a_fraction_of_a_millisecond(watched: Watched) -> None:
    image = cv2.resize(photograph(1), (640, 480))
    times = []
    for _ in range(200):
        begin = time.perf_counter()
        look = look_at(sample_of(image))
        watched.watch.observe(KEY, "m", look, SURE)
        times.append(time.perf_counter() - begin)
    assert min(times) < 1e-3
