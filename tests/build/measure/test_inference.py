# SPDX-License-Identifier: Apache-2.0
"""Predictions over many samples: order, equality whatever is in flight, and what is held meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_models import CLASSES, card_of, variant_of, yolov8_model

from shipsight.build.measure import (
    Labels,
    PreparedImages,
    Sample,
    evaluation_settings,
    iterate_predictions,
    predict_samples,
)
from shipsight.engines import EngineOptions, EngineSession, PrecisionReport, get_engine
from shipsight.engines.contract import TensorSpec
from shipsight.errors import ImageError, TensorError, UsageError
from shipsight.model import Head, ImagePredictions, OutputForm
from shipsight.vision import PredictSettings

SIDE = 64
IMAGE_BYTES = SIDE * SIDE * 3
COUNT = 9
CARD = card_of(Head.YOLOV8)
VARIANT = variant_of("fake", ("none",), is_trimmed=True)
SETTINGS = PredictSettings(conf=0.0)
NO_LABELS = Labels(np.zeros(0, np.int64), np.zeros((0, 4)))


class FakeSession(EngineSession):
    """Finds one thing an image, whose place, score and class are functions of the pixels; `hold` may delay a run."""

    def __init__(self, hold: Callable[[int], None] = lambda _: None) -> None:
        self.input = TensorSpec("images", "uint8", (1, SIDE, SIDE, 3))
        self.outputs = (
            TensorSpec("boxes", "float32", (1, 1, 4)),
            TensorSpec("scores", "float32", (1, 1)),
            TensorSpec("class_ids", "int32", (1, 1)),
        )
        self.runs = 0
        self.most_at_once = 0
        self._at_once = 0
        self._hold = hold
        self._lock = threading.Lock()

    def infer(self, tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        pixels = self.check(tensor).astype(np.float32)
        with self._lock:
            number = self.runs
            self.runs += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self._hold(number)
        finally:
            with self._lock:
                self._at_once -= 1
        centre = 24 + pixels[..., 0].mean() / 16
        return {
            "boxes": np.array([[[centre, 32, 16, 16]]], np.float32),
            "scores": np.array([[pixels[..., 1].mean() / 255]], np.float32),
            "class_ids": np.array([[int(pixels.sum()) % len(CLASSES)]], np.int32),
        }

    def precision(self) -> PrecisionReport:
        return PrecisionReport(convolutions=0, integer_convolutions=0, float_type="f32", detail={})

    def close(self) -> None:
        self.runs = 0


@pytest.fixture
def samples(tmp_path: Path, write_image: Callable[[Path, int], Path]) -> list[Sample]:
    """Images that differ from each other, in an order that is not that of their names."""
    names = [f"{(i * 5) % COUNT}.png" for i in range(COUNT)]
    return [Sample(write_image(tmp_path / name, seed), NO_LABELS) for seed, name in enumerate(names)]


def told(found: list[ImagePredictions]) -> list[dict[str, Any]]:
    return [one.to_dict() for one in found]


def predict(samples: list[Sample], session: EngineSession | None = None, **named: Any) -> list[ImagePredictions]:
    return predict_samples(session or FakeSession(), CARD, VARIANT, samples, SETTINGS, **named)


def test_predictions_are_in_the_order_of_the_samples(samples: list[Sample]) -> None:
    found = predict(samples)
    assert [one.source for one in found] == [str(sample.image) for sample in samples]
    assert len({str(one.to_dict()["predictions"]) for one in found}) == COUNT, "images must be told apart"
    assert told(predict(samples[::-1])) == told(found)[::-1]


@pytest.mark.parametrize("in_flight", [2, 3, COUNT, 64])
def test_predictions_do_not_depend_on_how_many_are_in_flight(samples: list[Sample], in_flight: int) -> None:
    alone = FakeSession()
    expected = told(predict(samples, alone, in_flight=1))
    assert alone.most_at_once == 1
    assert told(predict(samples, in_flight=in_flight)) == expected


def test_order_is_kept_when_a_later_image_is_ready_first(samples: list[Sample]) -> None:
    second_ran = threading.Event()

    def hold(number: int) -> None:
        if number == 0:
            assert second_ran.wait(timeout=30), "nothing else is in flight"
        else:
            second_ran.set()

    session = FakeSession(hold)
    assert told(predict(samples, session, in_flight=2)) == told(predict(samples, in_flight=1))
    assert session.most_at_once == 2


def test_engine_gives_the_same_whatever_is_in_flight(samples: list[Sample]) -> None:
    files = {"model.onnx": yolov8_model()}
    variant = variant_of("onnxruntime", tuple(files))
    settings = evaluation_settings(CARD, OutputForm.RAW)
    found = []
    for requests in (1, 4):
        options = EngineOptions(threads=1, requests=requests)
        with get_engine("onnxruntime").open(files, variant, options) as session:
            found.append(told(predict_samples(session, CARD, variant, samples, settings, in_flight=requests)))
    assert found[0] == found[1]
    assert any(one["predictions"] for one in found[0])


def test_the_variant_says_the_size(samples: list[Sample]) -> None:
    other = CARD.with_size((128, 32))
    found = predict_samples(FakeSession(), other, VARIANT, samples, SETTINGS)
    assert told(found) == told(predict(samples))
    with pytest.raises(TensorError):
        predict_samples(FakeSession(), CARD, replace(VARIANT, size_hw=(32, 32)), samples, SETTINGS)


def test_no_more_images_are_worked_on_than_asked_while_the_caller_waits(samples: list[Sample]) -> None:
    session = FakeSession()
    found = iterate_predictions(session, CARD, VARIANT, samples, SETTINGS, in_flight=2)
    assert session.runs == 0
    next(found)
    found.close()  # waits for what is in flight
    assert session.runs <= 3
    assert session.most_at_once <= 2


def test_progress_counts_every_image_once(samples: list[Sample]) -> None:
    seen: list[tuple[int, int]] = []
    predict(samples, on_progress=lambda done, total: seen.append((done, total)), in_flight=3)
    assert seen == [(i + 1, COUNT) for i in range(COUNT)]


def test_no_samples_give_no_predictions() -> None:
    assert predict([]) == []


@pytest.mark.parametrize("in_flight", [0, -1, 65])
def test_images_in_flight_are_refused_when_out_of_range(samples: list[Sample], in_flight: int) -> None:
    with pytest.raises(UsageError, match="in flight"):
        predict(samples, in_flight=in_flight)


@pytest.mark.parametrize("place", [0, 4, COUNT - 1])
def test_unreadable_image_is_an_error_in_its_turn(samples: list[Sample], place: int) -> None:
    samples[place].image.write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    found = iterate_predictions(FakeSession(), CARD, VARIANT, samples, SETTINGS, in_flight=3)
    for sample in samples[:place]:
        assert next(found).source == str(sample.image)
    with pytest.raises(ImageError):
        next(found)


@pytest.mark.parametrize(
    ("head", "form", "asked", "expected"),
    [
        (Head.YOLOV8, OutputForm.RAW, True, True),
        (Head.YOLOX, OutputForm.RAW, True, True),
        (Head.YOLOV8, OutputForm.RAW, False, False),
        (Head.YOLOV8, OutputForm.BEST_CLASS, True, False),
        (Head.END2END, OutputForm.RAW, True, False),
        (Head.CLASSIFY, OutputForm.RAW, True, False),
    ],
)
def test_several_classes_an_anchor_only_where_the_outputs_hold_them(
    head: Head, form: OutputForm, asked: bool, expected: bool
) -> None:
    settings = evaluation_settings(card_of(head), form, multi_label=asked)
    assert settings == PredictSettings(conf=0.001, iou=0.7, max_det=300, multi_label=expected)


def test_held_images_are_decoded_once(samples: list[Sample]) -> None:
    cache = PreparedImages()
    first = told(predict(samples, prepared_cache=cache))
    assert cache.held_bytes == COUNT * IMAGE_BYTES
    for sample in samples:
        sample.image.unlink()
    assert told(predict(samples, prepared_cache=cache, in_flight=4)) == first


def test_held_images_are_told_apart_by_size_and_contract(samples: list[Sample]) -> None:
    cache, image = PreparedImages(), samples[0].image
    contracts = [CARD.input, CARD.with_size((32, 64)).input, replace(CARD.input, pad_value=0)]
    found = [cache.get(image, contract) for contract in contracts]
    assert [pixels.shape for pixels, _ in found] == [(64, 64, 3), (32, 64, 3), (64, 64, 3)]
    assert not np.array_equal(found[0][0], found[2][0])
    assert [cache.get(image, contract)[0] is pixels for contract, (pixels, _) in zip(contracts, found, strict=True)]
    assert cache.held_bytes == sum(pixels.nbytes for pixels, _ in found)


def test_the_image_least_recently_used_goes_when_the_limit_is_reached(samples: list[Sample]) -> None:
    cache = PreparedImages(limit_bytes=2 * IMAGE_BYTES + 1)
    a, b, c = (sample.image for sample in samples[:3])
    held_a, _ = (cache.get(image, CARD.input)[0] for image in (a, b))
    assert cache.get(a, CARD.input)[0] is held_a
    cache.get(c, CARD.input)
    assert cache.held_bytes == 2 * IMAGE_BYTES
    b.unlink()
    assert cache.get(a, CARD.input)[0] is held_a
    with pytest.raises(ImageError):
        cache.get(b, CARD.input)


@pytest.mark.parametrize("limit", [0, IMAGE_BYTES - 1])
def test_an_image_larger_than_the_limit_is_not_held(samples: list[Sample], limit: int) -> None:
    cache = PreparedImages(limit_bytes=limit)
    expected = PreparedImages().get(samples[0].image, CARD.input)
    pixels, geometry = cache.get(samples[0].image, CARD.input)
    assert np.array_equal(pixels, expected[0])
    assert geometry == expected[1]
    assert cache.held_bytes == 0


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(UsageError, match="limit out of range"):
        PreparedImages(limit_bytes=-1)


@pytest.mark.parametrize("limit", [COUNT * IMAGE_BYTES, 3 * IMAGE_BYTES])
def test_bytes_held_are_right_when_threads_ask_at_once(samples: list[Sample], limit: int) -> None:
    cache = PreparedImages(limit_bytes=limit)
    expected = [PreparedImages().get(sample.image, CARD.input)[0] for sample in samples]

    def ask(number: int) -> bool:
        pixels, _ = cache.get(samples[number % COUNT].image, CARD.input)
        return np.array_equal(pixels, expected[number % COUNT]) and cache.held_bytes <= limit + 8 * IMAGE_BYTES

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(20 * COUNT)))
    assert cache.held_bytes == limit
