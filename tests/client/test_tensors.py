# SPDX-License-Identifier: Apache-2.0
"""Tensors as bytes behind JSON: nothing is lost on the way, and what is no answer is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shipsight.client.tensors import read_tensors, write_tensors
from shipsight.errors import CorruptError, TensorError

NUMBERS = st.one_of(
    arrays.boolean_dtypes(),
    arrays.integer_dtypes(),
    arrays.unsigned_integer_dtypes(),
    arrays.floating_dtypes(sizes=(16, 32, 64)),
)
TENSORS = st.dictionaries(
    st.text(max_size=5),
    arrays.arrays(NUMBERS, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)),
    max_size=3,
)


def as_answer(body: bytes, size: int) -> tuple[bytes, str]:
    told = json.loads(body[:size])
    head = json.dumps({"outputs": told["inputs"]}).encode()
    return head + body[size:], str(len(head))


@given(TENSORS)
def test_tensors_survive_the_way_there_and_back(tensors: dict[str, Any]) -> None:
    read = read_tensors(*as_answer(*write_tensors(tensors)))
    assert list(read) == list(tensors)
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype.newbyteorder("<")
        assert np.array_equal(read[name], tensor, equal_nan=tensor.dtype.kind == "f")


def test_an_answer_may_hold_numbers_as_json() -> None:
    told = {"outputs": [{"name": "a", "datatype": "FP32", "shape": [2, 1], "data": [0.5, 2]}]}
    assert read_tensors(json.dumps(told).encode(), None)["a"].tolist() == [[0.5], [2.0]]


@pytest.mark.parametrize(
    "tensor", [np.array(["a"]), np.array([1j]), np.array([None]), np.zeros(2, "datetime64[s]")], ids=str
)
def test_types_that_the_protocol_has_not_are_refused(tensor: Any) -> None:
    with pytest.raises(TensorError, match="no such type"):
        write_tensors({"x": tensor})


FINE = {"name": "a", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}


@pytest.mark.parametrize(
    "change",
    [
        {"datatype": "FP33"}, {"datatype": None}, {"shape": [3]}, {"shape": [-2]}, {"shape": [-1, -2]}, {"shape": [2**70]},
        {"shape": ["2"]}, {"shape": 2}, {"parameters": {}}, {"parameters": {"binary_data_size": 4}}, {"parameters": None},
        {"shape": [4], "parameters": {"binary_data_size": 16}}, {"shape": [1], "parameters": {"binary_data_size": 4}},
        {"data": [1.0]}, {"data": ["x", "y"]}, {"data": {}}, {"name": []},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_tensor_is_refused(change: dict[str, Any]) -> None:
    head = json.dumps({"outputs": [{**FINE, **change}]}).encode()
    with pytest.raises(CorruptError, match="not tensors"):
        read_tensors(head + bytes(8), str(len(head)))


@pytest.mark.parametrize(("body", "size"), [(b"", None), (b"[]", None), (b"{}", None), (b"{}", "x"), (b"{}", "-1")])
def test_what_is_no_answer_is_refused(body: bytes, size: str | None) -> None:
    with pytest.raises(CorruptError, match="not tensors"):
        read_tensors(body, size)
