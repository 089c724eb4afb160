# SPDX-License-Identifier: Apache-2.0
"""Variants as plain values and back, and image sizes as users write them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.model.conftest import VARIANTS

from shipsight.errors import CorruptError, UsageError
from shipsight.model import OutputForm, Precision, TensorLayout, Variant, format_size, parse_size

sides = st.integers(1, 128).map(lambda count: 32 * count)
sizes = st.tuples(sides, sides)
names = st.text(max_size=30)
variants = st.builds(
    Variant,
    name=names,
    engine=st.sampled_from(["onnxruntime", "openvino", "pytorch"]),
    precision=st.sampled_from(Precision),
    size_hw=sizes,
    layout=st.sampled_from(TensorLayout),
    form=st.sampled_from(OutputForm),
    files=st.lists(names, max_size=3).map(tuple),
    rest=st.sampled_from(Precision),
    is_reference=st.booleans(),
)


@given(variants)
def test_variant_comes_back_through_json(variant: Variant) -> None:
    assert Variant.from_dict(json.loads(json.dumps(variant.to_dict()))) == variant


@pytest.mark.parametrize("key", sorted(VARIANTS[0].to_dict()))
def test_variant_is_refused_when_a_key_is_missing(key: str) -> None:
    data = VARIANTS[0].to_dict()
    del data[key]
    with pytest.raises(CorruptError, match="keys of a variant do not fit"):
        Variant.from_dict(data)


def test_variant_is_refused_when_a_key_is_unknown() -> None:
    with pytest.raises(CorruptError, match="surprise"):
        Variant.from_dict({**VARIANTS[0].to_dict(), "surprise": 1})


@pytest.mark.parametrize("data", [None, [], "variant", 3], ids=repr)
def test_variant_is_refused_when_it_is_no_mapping(data: Any) -> None:
    with pytest.raises(CorruptError, match=type(data).__name__):
        Variant.from_dict(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("precision", "fp8"),
        ("rest", None),
        ("layout", "nchw"),
        ("form", ""),
        ("size_hw", [640]),
        ("size_hw", [640, 640, 3]),
        ("size_hw", 640),
        ("size_hw", ["wide", 640]),
        ("files", None),
    ],
)
def test_variant_is_refused_when_a_value_does_not_fit(key: str, value: object) -> None:
    with pytest.raises(CorruptError, match="a value of a variant does not fit"):
        Variant.from_dict({**VARIANTS[0].to_dict(), key: value})


def test_imgsz_is_one_number_where_square() -> None:
    square, wide = (replace(VARIANTS[0], size_hw=size) for size in ((640, 640), (384, 640)))
    assert (square.imgsz, wide.imgsz) == (640, [384, 640])


@given(sizes)
def test_size_comes_back_through_text(size_hw: tuple[int, int]) -> None:
    text = format_size(size_hw)
    assert parse_size(text) == size_hw
    assert parse_size(f"  {text}\n") == size_hw
    assert ("x" in text) == (size_hw[0] != size_hw[1])


@pytest.mark.parametrize(
    ("text", "size_hw"), [("640", (640, 640)), ("384x640", (384, 640)), ("32", (32, 32)), ("4096x32", (4096, 32))]
)
def test_size_is_height_by_width(text: str, size_hw: tuple[int, int]) -> None:
    assert parse_size(text) == size_hw


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "x",
        "640x",
        "x640",
        "640x640x3",
        "640X384",
        "640,384",
        "-640",
        "+640",
        "640.0",
        "33",
        "31",
        "640x100",
        "4128",
        "0x640",
        "999999",
        "6 40",
        "1e3",
    ],
)
def test_size_is_refused_when_it_is_not_a_multiple_of_32_in_range(text: str) -> None:
    with pytest.raises(UsageError, match="not an image size") as caught:
        parse_size(text)
    assert caught.value.got == repr(text)


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_usage_error(text: str) -> None:
    try:
        size_hw = parse_size(text)
    except UsageError:
        return
    assert all(side % 32 == 0 and 32 <= side <= 4096 for side in size_hw)
    assert parse_size(format_size(size_hw)) == size_hw
