# SPDX-License-Identifier: Apache-2.0
"""H6: tensors that are none, sent to a real server."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import numpy as np
import pytest
from tests.serve.attacked import INFER, PREDICT, Attacked

SHAPE = [1, 3, 256, 256]
COUNT = 3 * 256 * 256


def asked(data: str = "[]", *, shape: object = SHAPE, kind: object = "FP32", more: str = "") -> bytes:
    text = f'"name": "images", "datatype": {json.dumps(kind)}, "shape": {json.dumps(shape)}, "data": {data}'
    return f'{{"inputs": [{{{text}}}]{more}}}'.encode()


def numbers(one: str, count: int = COUNT) -> str:
    return "[" + one + ",0" * (count - 1) + "]"


def binary(blob: bytes, *, size: int | None = None, shape: object = SHAPE, more: dict[str, Any] | None = None) -> Any:
    entry = {"name": "images", "datatype": "FP32", "shape": shape}
    entry["parameters"] = {"binary_data_size": len(blob) if size is None else size}
    text = json.dumps({"inputs": [entry], **(more or {})}).encode()
    return {"content": text + blob, "headers": {"inference-header-content-length": str(len(text))}}


def ask(attacked: Attacked, path: str = INFER, **given: Any) -> httpx.Response:
    before = time.monotonic()
    answer = attacked.ask("POST", path, **given)
    assert time.monotonic() - before < 10
    return answer


JSON: dict[str, tuple[bytes, int]] = {
    "nan": (asked(numbers("NaN")), 400),
    "infinity": (asked(numbers("Infinity")), 400),
    "1e308": (asked(numbers("1e308")), 400),
    "1e999": (asked(numbers("1e999")), 400),
    "null": (asked(numbers("null")), 400),
    "text": (asked(numbers('"x"')), 400),
    "object": (asked(numbers("{}")), 400),
    "2-to-the-64": (asked(numbers(str(2**64)), shape=[2, 3, 256, 256]), 400),
    "integer-of-10000-digits": (asked(numbers("9" * 10_000)), 400),
    "integer-of-4000-digits": (asked(numbers("9" * 4_000)), 400),
    "ragged": (asked("[[1],[2,3]]"), 400),
    "nested-1e5": (asked("[" * 100_000 + "]" * 100_000), 400),
    "nested-1e5-objects": (b'{"inputs": ' + b'{"a":' * 100_000, 400),
    "nested-900": (asked("[" * 900 + "]" * 900), 400),
    "a-million-lists": (asked("[" + "[]," * 1_000_000 + "1]"), 413),
    "a-million-objects": (asked("[" + "{}," * 1_000_000 + "1]"), 413),
    "none": (asked("null"), 400),
    "missing": (asked("[]").replace(b', "data": []', b""), 400),
    "too-few": (asked("[1, 2]"), 400),
    "too-many": (asked(numbers("0", COUNT + 1)), 400),
    "shape-product-overflow": (asked(shape=[2**31 - 1] * 4), 400),
    "shape-too-large-a-side": (asked(shape=[2**31, 3, 256, 256]), 400),
    "shape-2-to-the-64": (asked(shape=[2**64, 3, 256, 256]), 400),
    "shape-negative": (asked(shape=[-1, 3, 256, 256]), 400),
    "shape-zero": (asked(shape=[0, 3, 256, 256]), 400),
    "shape-float": (asked(shape=[1.0, 3, 256, 256]), 400),
    "shape-truth": (asked(shape=[True, 3, 256, 256]), 400),
    "shape-text": (asked(shape="1,3,256,256"), 400),
    "shape-of-a-million-sides": (asked(shape=[1] * 1_000_000), 400),
    "shape-empty": (asked(shape=[]), 400),
    "batch-of-1000": (asked(shape=[1000, 3, 256, 256]), 413),
    "batch-of-2-to-the-30": (asked(shape=[2**30, 3, 256, 256]), 413),
    "other-type": (asked(numbers("0"), kind="INT64"), 400),
    "type-that-is-none": (asked(numbers("0"), kind="O"), 400),
    "type-of-code": (asked(numbers("0"), kind="__import__('os')"), 400),
    "type-list": (asked(numbers("0"), kind=["FP32"]), 400),
    "id-list": (asked(numbers("0"), more=', "id": [[1]]'), 400),
    "id-number": (asked(numbers("0"), more=', "id": 1'), 400),
    "id-long": (asked(numbers("0"), more=f', "id": "{"x" * 100_000}"'), 400),
    "output-1e5-times": (asked(numbers("0"), more=f', "outputs": [{", ".join([json.dumps({"name": "output0"})] * 90_000)}]'), 400),
    "outputs-unknown": (asked(numbers("0"), more=', "outputs": [{"name": "x"}]'), 400),
    "parameters-list": (asked(numbers("0"), more=', "parameters": []'), 400),
    "shared-memory": (asked("null", more=', "parameters": {"shared_memory_region": "x"}'), 400),
    "inputs-1e5": (b'{"inputs": [' + b'{"name": "images"},' * 90_000 + b"{}]}", 400),
    "utf-16": (asked("[1]").decode().encode("utf-16"), 400),
    "half-a-pair": (b'{"inputs": [{"name": "\\ud800"}]}', 400),
    "not-utf-8": (b'{"inputs": [{"name": "\xff"}]}', 400),
}  # fmt: skip


@pytest.mark.parametrize("name", JSON, ids=[f"H6-{name}" for name in JSON])
def test_tensor_in_json_is_refused_by_name(attacked: Attacked, name: str) -> None:
    body, status = JSON[name]
    answer = ask(attacked, content=body)
    assert (answer.status_code, answer.json()["code"]) in ((status, "tensor"), (status, "usage"), (status, "limit")), (
        answer.text
    )


FLOATS = np.zeros(SHAPE, "<f4")
BINARY: dict[str, tuple[Any, int]] = {
    "nan": (binary((FLOATS + np.nan).tobytes()), 400),
    "infinity": (binary((FLOATS - np.inf).tobytes()), 400),
    "size-too-large": (binary(FLOATS.tobytes(), size=4 * COUNT + 1), 400),
    "size-2-to-the-63": (binary(FLOATS.tobytes(), size=2**63), 400),
    "size-negative": (binary(FLOATS.tobytes(), size=-4), 400),
    "size-short": (binary(FLOATS.tobytes(), size=4 * COUNT - 4), 400),
    "bytes-left-over": (binary(FLOATS.tobytes() + b"x", size=4 * COUNT), 400),
    "none": (binary(b"", size=0), 400),
    "batch-of-4": (binary(bytes(16 * COUNT // 3), shape=[4, 3, 256, 256]), 413),
    "batch-that-overflows": (binary(FLOATS.tobytes(), shape=[2**31 - 1, 3, 256, 256]), 413),
}


@pytest.mark.parametrize("name", BINARY, ids=[f"H6-{name}" for name in BINARY])
def test_tensor_in_bytes_is_refused_by_name(attacked: Attacked, name: str) -> None:
    given, status = BINARY[name]
    answer = ask(attacked, **given)
    assert (answer.status_code, answer.json()["code"]) in ((status, "tensor"), (status, "usage"), (status, "limit")), (
        answer.text
    )


@pytest.mark.parametrize("length", ["0", "-1", "1e3", str(2**63), "9" * 11, "9" * 40, "\xb2", "+5", "0x10"])
def test_h6_length_of_the_json_is_refused_where_it_is_none(attacked: Attacked, length: str) -> None:
    given = binary(FLOATS.tobytes())
    given["headers"] = {"inference-header-content-length": length.encode("latin-1")}
    assert ask(attacked, **given).status_code == 400


@pytest.mark.parametrize("count", [1, 3, 1000, 1_500_000], ids=["one", "three", "thousand", "millions"])
def test_h6_byte_strings_that_do_not_fill_their_shape_are_refused(attacked: Attacked, count: int) -> None:
    for blob in (bytes(4 * count + 1), b"\xff\xff\xff\xff" + bytes(4 * count), b"\1\0\0\0" * count, bytes(6_000_000)):
        entry = {"name": "image", "datatype": "BYTES", "shape": [count], "parameters": {"binary_data_size": len(blob)}}
        text = json.dumps({"inputs": [entry]}).encode()
        headers = {"inference-header-content-length": str(len(text))}
        answer = ask(attacked, "/v2/models/digits_image/infer", content=text + blob, headers=headers)
        assert answer.status_code in (400, 413), answer.text


def test_h6_largest_finite_numbers_are_answered_in_finite_json_or_refused(attacked: Attacked) -> None:
    most = FLOATS + np.finfo(np.float32).max
    answer = ask(attacked, **binary(most.tobytes()))
    assert answer.status_code in (200, 400)
    json.loads(answer.content, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    answer = ask(attacked, **binary(most.tobytes(), more={"parameters": {"binary_data_output": True}}))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "options",
    [
        *({"conf": one} for one in ("nan", "inf", "-1", "1e308", "9" * 400, "0_1", " 0.5", "\u0661", "0x1", "")),
        *({"max_det": one} for one in ("0", "-0", "9" * 400, "1.5", "1e2", "\u0661", "1001", "")),
        *({"classes": one} for one in ("", ",", "-1", "1,", "0,99", "9" * 400, "0," * 5000 + "99")),
        *({"deadline_ms": one} for one in ("nan", "inf", "0", "-1", "1e308", "120001", "")),
        {"agnostic_nms": "yes"},
        {"conf\0": "1"},
        [("conf", "0.5"), ("conf", "0.6")],
    ],
    ids=lambda one: str(one)[:30],
)
def test_h6_option_that_is_out_of_range_is_refused(attacked: Attacked, options: Any) -> None:
    answer = ask(attacked, PREDICT, content=attacked.jpeg, params=options)
    assert answer.status_code in (400, 413), answer.text


@pytest.mark.parametrize(
    "value",
    ["NaN", "1e999", "9" * 4000, '"half"', "null", "[0.5]", "true", "-0.1", "2"],
    ids=lambda one: one.lower()[:24],
)
def test_h6_parameter_that_is_out_of_range_is_refused(attacked: Attacked, value: str) -> None:
    for name in ("conf", "max_det"):
        if (name, value) == ("max_det", "2"):
            continue
        size = len(attacked.jpeg) + 4
        text = (
            f'{{"inputs": [{{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {{"binary_data_size": {size}}}}}],'
            f'"parameters": {{"{name}": {value}}}}}'
        ).encode()
        blob = len(attacked.jpeg).to_bytes(4, "little") + attacked.jpeg
        headers = {"inference-header-content-length": str(len(text))}
        answer = ask(attacked, "/v2/models/digits_image/infer", content=text + blob, headers=headers)
        assert answer.status_code in (400, 413), answer.text
