# SPDX-License-Identifier: Apache-2.0
"""The detective on tensors: planted chains are found, healthy ones are silent, what is no image's tensor is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from shipsight.doctor.preprocessing.chain import (
    ALTERNATIVES,
    Chain,
    Photo,
    expected_chain,
    render,
    to_levels,
    to_values,
)
from shipsight.doctor.preprocessing.naming import name_scaling, scalings
from shipsight.doctor.preprocessing.reading_predictions import read_predictions
from shipsight.doctor.preprocessing.reading_tensor import read_tensor
from shipsight.doctor.preprocessing.telling import differing_steps
from shipsight.doctor.preprocessing.tensors import Solved, solve
from shipsight.errors import CorruptError, TensorError, UsageError
from shipsight.model import Fit, InputContract, TensorLayout
from shipsight.vision import prepare, to_tensor

CONTRACT = InputContract((128, 128))
ASKED = expected_chain(CONTRACT)
PLAIN = [one for one in scalings(ASKED.values) if len(one.rules) == 1]


@cache
def photo(shape_hw: tuple[int, int] = (180, 240)) -> Photo:
    """A colourful image with edges and texture, of no symmetry, whose file asks for a turn by half."""
    rng = np.random.default_rng(5)
    noise = cv2.resize(
        rng.integers(0, 255, (24, 32, 3)).astype(np.uint8), shape_hw[::-1], interpolation=cv2.INTER_CUBIC
    )
    for number in range(12):
        x, y = rng.integers(0, shape_hw[1]), rng.integers(0, shape_hw[0])
        colour = tuple(int(one) for one in rng.integers(0, 255, 3))
        cv2.circle(noise, (int(x), int(y)), 4 + number, colour, -1)
    fine = np.clip(noise.astype(np.int16) + rng.integers(-12, 12, noise.shape), 0, 255).astype(np.uint8)
    return Photo(fine, np.ascontiguousarray(fine[::-1, ::-1]))


def feed(chain: Chain, one: Photo) -> NDArray[Any]:
    """What a pipeline of this chain feeds its model, one image's tensor."""
    values = to_values(to_levels(render(one, chain), chain), chain.values)
    return {
        "nchw": lambda: values.transpose(2, 0, 1),
        "nhwc": lambda: values,
        "reshaped": lambda: values.reshape(3, *chain.size_hw),
        "transposed": lambda: values.transpose(2, 1, 0),
    }[chain.layout]().astype(np.float32)


def told(solved: Solved) -> set[str]:
    return {one.rule for one in differing_steps(solved.chain, ASKED, solved.scaling, solved.pad, CONTRACT)}


def asked_rules(chain: Chain, rules: tuple[str, ...]) -> set[str]:
    pad = chain.pad if chain.fit == "letterbox" else None
    words = [one for one in PLAIN if one.rules == rules]
    return {one.rule for one in differing_steps(chain, ASKED, words[0] if words else None, pad, CONTRACT)}


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.parametrize("shape_hw", [(180, 240), (240, 180), (128, 128), (97, 333), (40, 30)])
def test_chain_of_a_card_makes_what_prepare_makes(fit: Fit, shape_hw: tuple[int, int]) -> None:
    contract = replace(CONTRACT, fit=fit, colour="bgr", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    chain = expected_chain(contract)
    one = photo(shape_hw)
    right = to_tensor(prepare(one.upright, contract)[0], contract, TensorLayout.FLOAT_NCHW)[0]
    assert np.abs(feed(chain, one) - right).max() < 1e-5


def test_healthy_tensor_is_silent() -> None:
    solved = solve(feed(ASKED, photo()), photo(), ASKED)
    assert told(solved) == set()
    assert solved.mean < 0.01


@pytest.mark.parametrize(
    ("step", "value"),
    [(step, value) for step, values in ALTERNATIVES.items() for value in values if value != getattr(ASKED, step)],
)
def test_single_step_is_found(step: str, value: Any) -> None:
    one = photo((181, 243)) if step in ("place", "rounding") else photo()
    chain = ASKED.with_step(step, value)
    solved = solve(feed(chain, one), one, ASKED)
    made, right = (render(one, each) for each in (chain, ASKED))
    is_visible = made.window != right.window or not np.array_equal(made.content, right.content) or step == "channels"
    assert getattr(solved.chain, step) == (value if is_visible else getattr(ASKED, step))
    assert solved.mean < 0.2
    others = [other for other in ALTERNATIVES if other not in (step, "place", "rounding")]
    assert all(getattr(solved.chain, other) == getattr(ASKED, other) for other in others)


@pytest.mark.parametrize("layout", ["nhwc", "reshaped", "transposed"])
def test_layout_is_found(layout: str) -> None:
    solved = solve(feed(replace(ASKED, layout=layout), photo()), photo(), ASKED)
    assert told(solved) == {"layout-swapped"}
    assert solved.chain.layout == layout


@pytest.mark.parametrize("scaling", PLAIN, ids=lambda one: one.words)
def test_scaling_is_named(scaling: Any) -> None:
    solved = solve(feed(replace(ASKED, values=scaling.values), photo()), photo(), ASKED)
    is_close = scaling.words == "divided by 256"  # within what is let pass of 255
    assert solved.scaling.rules == (() if is_close else scaling.rules)


def test_constant_offset_is_told_with_its_levels() -> None:
    shifted = replace(ASKED.values, offset=(0.1, 0.1, 0.1))
    assert name_scaling(shifted, ASKED.values).rules == ("values-differ",)
    assert "+25.5 levels" in name_scaling(shifted, ASKED.values).words


@settings(max_examples=12, deadline=None)
@given(
    channels=st.sampled_from(["rgb", "bgr", "grey"]),
    fit=st.sampled_from(["letterbox", "stretch", "crop"]),
    mirrored=st.booleans(),
    turned=st.booleans(),
    interpolation=st.sampled_from(["linear", "nearest", "antialiased"]),
    place=st.sampled_from(["centre", "top-left", "bottom-right"]),
    pad=st.sampled_from([0.0, 114.0, 255.0]),
    rules=st.sampled_from([(), ("scale-missing",), ("scale-twice",), ("range-minus-one",)]),
    gamma=st.sampled_from([1.0, 2.2]),
)
@example(rules=(), pad=0.0, channels="rgb", fit="crop", mirrored=False, turned=False, interpolation="nearest", place="centre", gamma=1.0)  # fmt: skip
def test_planted_chain_is_found_step_by_step(rules: tuple[str, ...], pad: float, **steps: Any) -> None:
    values = ASKED.values if not rules else next(one.values for one in PLAIN if one.rules == rules)
    chain = replace(ASKED, values=values, pad=(pad, pad, pad), **steps)
    if chain.fit != "letterbox":
        chain = replace(chain, place="centre", pad=ASKED.pad)
    solved = solve(feed(chain, photo()), photo(), ASKED)
    assert told(solved) == asked_rules(chain, rules)
    assert solved.mean < 0.6


@pytest.mark.parametrize("quality", [95, 75])
def test_other_decoder_and_half_precision_are_no_fault(quality: int, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(photo().upright).save(path, quality=quality)
    decoded = np.asarray(Image.open(path).convert("RGB"))
    from shipsight.vision import decode_image

    ours = decode_image(path)
    solved = solve(feed(ASKED, Photo(decoded, decoded)).astype(np.float16), Photo(ours, ours), ASKED)
    assert told(solved) == set()
    assert solved.mean < 1.0


def test_square_image_cannot_show_the_fit() -> None:
    one = Photo(photo((128, 128)).upright, photo((128, 128)).upright)
    solved = solve(feed(replace(ASKED, fit="stretch"), one), one, ASKED)
    assert told(solved) == set()
    assert {"fit", "interpolation"} <= set(solved.same)


def test_other_image_explains_little() -> None:
    other = np.random.default_rng(1).random((3, 128, 128), dtype=np.float32)
    assert solve(other, photo(), ASKED).explained < 0.5


@pytest.mark.parametrize(
    "shape", [(0, 3, 8, 8), (2, 2, 2, 2, 2), (7,), (5, 9, 11), (3, 3), (1, 3, 9000, 9000), (3, 4, 4)]
)
def test_tensor_of_absurd_shape_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    array = (
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape) if 0 not in shape else np.zeros(shape)
    )
    if 0 in shape:
        np.save(path, array)
    with pytest.raises(TensorError, match="the tensor"):
        read_tensor(path)


def test_tensor_that_promises_more_than_memory_is_refused_from_its_header(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (100_000, 3, 640, 640)}
        )
    with pytest.raises(TensorError, match="too large"):
        read_tensor(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_tensor_with_what_is_no_number_is_refused(value: float, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((3, 16, 16), value, np.float32))
    with pytest.raises(TensorError, match="no numbers"):
        read_tensor(tmp_path / "a.npy")


def test_pickled_objects_are_refused_unopened(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(TensorError, match="another type"):
        read_tensor(tmp_path / "a.npy")


@pytest.mark.parametrize("data", [b"", b"nothing", b"\x93NUMPY\x01\x00\x10\x00{'descr'"])
def test_file_that_is_no_tensor_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(CorruptError, match="not a tensor"):
        read_tensor(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "text",
    ["", "{", "7", "[7]", '{"images": 3}', '{"images": [{"source": null, "predictions": []}]}', "[[]]", '[{"bbox": [1, 2]}]',
     '[{"image_id": "a", "category_id": 1, "bbox": [1, 2, 3, NaN], "score": 1}]', "[" * 100_000],
)  # fmt: skip
def test_malformed_predictions_are_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(CorruptError, match="not predictions"):
        read_predictions(tmp_path / "p.json", [Path("a.jpg"), Path("b.jpg")])


def test_predictions_of_other_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"images": [{"source": "c.jpg", "predictions": []}]}')
    with pytest.raises(UsageError, match="none of the images"):
        read_predictions(tmp_path / "p.json", [Path("a.jpg")])


def test_formats_of_predictions_are_read_alike(tmp_path: Path) -> None:
    own = '{"images": [{"source": "x/0007.jpg", "predictions": [{"class_id": 2, "score": 0.5, "box_xyxy": [1, 2, 4, 8]}]}]}'
    coco = '[{"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 6], "score": 0.5}]'
    theirs = '[{"class": 2, "confidence": 0.5, "box": {"x1": 1, "y1": 2, "x2": 4, "y2": 8}}]'
    for text in (own, coco, theirs, f"[{theirs}]", f'{{"0007.jpg": {theirs}}}'):
        (tmp_path / "p.json").write_text(text)
        boxes = read_predictions(tmp_path / "p.json", [Path("0007.jpg")]).images[0]
        assert boxes.boxes_xyxy.tolist() == [[1, 2, 4, 8]]
        assert boxes.class_ids.tolist() == [2]
        assert boxes.scores.tolist() == [0.5]
