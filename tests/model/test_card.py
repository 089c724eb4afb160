# SPDX-License-Identifier: Apache-2.0
"""Cards as plain values and back, and the cards that are refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.model.conftest import CARD

from shipsight.errors import CardError
from shipsight.model import Card, Fit, Head, InputContract, Origin, OutputContract, Task, TrainingRecord

LETTERS = "abcXYZ019._-"
usable_names = st.text(LETTERS, min_size=1, max_size=100).filter(lambda text: text[0] not in ".-")
texts = st.text(max_size=30)
sides = st.integers(1, 8192)
levels = st.floats(-300, 300)
positive = st.floats(1e-6, 300)
plain: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
inputs = st.builds(
    InputContract,
    size_hw=st.tuples(sides, sides),
    colour=st.sampled_from(["rgb", "bgr"]),
    fit=st.sampled_from(Fit),
    pad_value=st.integers(0, 255),
    scale=positive,
    mean=st.tuples(levels, levels, levels),
    std=st.tuples(positive, positive, positive),
    stride=st.sampled_from([8, 16, 32, 64]),
)
outputs = st.builds(
    OutputContract,
    head=st.sampled_from(Head),
    keypoint_shape=st.none() | st.tuples(st.integers(1, 133), st.sampled_from([2, 3])),
    mask_channels=st.integers(0, 64),
    max_detections=st.none() | st.integers(1, 1000),
)
cards = st.builds(
    Card,
    name=usable_names,
    version=usable_names,
    task=st.sampled_from(Task),
    class_names=st.lists(texts, min_size=1, max_size=5).map(tuple),
    input=inputs,
    output=outputs,
    licence=texts,
    origin=st.builds(Origin, kind=texts, file_name=texts, sha256=texts, architecture=texts),
    training=st.builds(
        TrainingRecord,
        framework=texts,
        date=texts,
        arguments=st.dictionaries(texts, plain, max_size=3),
        metrics=st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
        epoch=st.none() | st.integers(0, 10**6),
    ),
    images_shareable=st.booleans(),
)


@given(cards)
def test_card_comes_back_through_json(card: Card) -> None:
    assert Card.from_dict(json.loads(json.dumps(card.to_dict()))) == card


@given(cards, st.tuples(sides, sides))
def test_with_size_changes_the_size_alone(card: Card, size_hw: tuple[int, int]) -> None:
    sized = card.with_size(size_hw)
    assert sized.input.size_hw == size_hw
    assert sized.with_size(card.input.size_hw) == card


def test_card_needs_only_what_has_no_default() -> None:
    least = {
        "name": "cells",
        "version": "1",
        "task": "detect",
        "class_names": ["cell"],
        "input": {"size_hw": [64, 96]},
        "output": {"head": "yolov8"},
    }
    expected = Card("cells", "1", Task.DETECT, ("cell",), InputContract((64, 96)), OutputContract(Head.YOLOV8))
    assert Card.from_dict(least) == expected


@pytest.mark.parametrize("room", ["", "input", "output", "origin", "training"])
def test_card_is_refused_when_a_key_is_unknown(room: str) -> None:
    data = CARD.to_dict()
    (data[room] if room else data)["surprise"] = 1
    with pytest.raises(CardError, match="surprise") as caught:
        Card.from_dict(data)
    assert caught.value.where == f"card.{room}".rstrip(".")


@pytest.mark.parametrize("key", ["name", "version", "task", "class_names", "input", "output"])
def test_card_is_refused_when_a_key_is_missing(key: str) -> None:
    data = CARD.to_dict()
    del data[key]
    with pytest.raises(CardError, match=rf"missing \['{key}'\]"):
        Card.from_dict(data)


@pytest.mark.parametrize("room", ["input", "output", "origin", "training"])
@pytest.mark.parametrize("value", [None, [], "text", 3], ids=repr)
def test_card_is_refused_when_a_part_is_no_mapping(room: str, value: object) -> None:
    with pytest.raises(CardError, match="must be a mapping"):
        Card.from_dict({**CARD.to_dict(), room: value})


@pytest.mark.parametrize("name", ["", ".hidden", "-option", "a b", "a/b", "..", "é", "a\n", "a" * 101, "a\0"])
@pytest.mark.parametrize("key", ["name", "version"])
def test_card_is_refused_when_its_name_cannot_name_a_folder_or_an_address(key: str, name: str) -> None:
    with pytest.raises(CardError, match=f"{key} is not usable") as caught:
        Card.from_dict({**CARD.to_dict(), key: name})
    assert caught.value.where == key


def test_card_is_refused_without_classes() -> None:
    with pytest.raises(CardError, match="at least one class"):
        replace(CARD, class_names=())


@pytest.mark.parametrize("size_hw", [(0, 64), (64, 0), (-32, 64), (8193, 64), (64, 10**9)])
def test_card_is_refused_when_its_size_is_out_of_range(size_hw: tuple[int, int]) -> None:
    with pytest.raises(CardError, match="input size out of range"):
        CARD.with_size(size_hw)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("colour", "gbr"),
        ("fit", "stretch"),
        ("pad_value", 256),
        ("pad_value", -1),
        ("pad_value", "grey"),
        ("scale", 0.0),
        ("scale", -1.0),
        ("scale", math.inf),
        ("scale", math.nan),
        ("scale", "1"),
        ("mean", [0.0, math.nan, 0.0]),
        ("mean", None),
        ("std", [1.0, 0.0, 1.0]),
        ("std", [1.0, 1.0, math.inf]),
        ("std", [1.0, "x", 1.0]),
        ("size_hw", [64]),
        ("size_hw", [64, 64, 3]),
        ("size_hw", ["64", "64"]),
        ("size_hw", None),
    ],
)
def test_card_is_refused_when_a_value_of_its_input_does_not_fit(key: str, value: object) -> None:
    data = CARD.to_dict()
    data["input"][key] = value
    with pytest.raises(CardError):
        Card.from_dict(data)


@pytest.mark.parametrize(
    ("room", "key", "value"),
    [
        ("output", "head", "yolov2"),
        ("output", "keypoint_shape", [17]),
        ("output", "keypoint_shape", ["a", "b"]),
        ("output", "mask_channels", "many"),
        ("", "task", "detection"),
        ("", "class_names", 3),
    ],
)
def test_card_is_refused_when_a_value_does_not_fit(room: str, key: str, value: object) -> None:
    data = CARD.to_dict()
    (data[room] if room else data)[key] = value
    with pytest.raises(CardError):
        Card.from_dict(data)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param(("images_shareable",), "no", id="a word for a claim"),
        pytest.param(("class_names",), "abc", id="a word for a list"),
        pytest.param(("input", "size_hw"), [64.5, 64], id="half a pixel"),
        pytest.param(("input", "size_hw"), "64", id="a word for a size"),
        pytest.param(("training", "arguments"), [1], id="a list for a mapping"),
    ],
)
def test_card_refuses_a_value_that_would_be_read_as_something_else(path: tuple[str, ...], value: object) -> None:
    data = Card(
        name="m",
        version="1",
        task=Task.DETECT,
        class_names=("a",),
        input=InputContract(size_hw=(64, 64)),
        output=OutputContract(head=Head.YOLOV8),
    ).to_dict()
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(CardError):
        Card.from_dict(data)
