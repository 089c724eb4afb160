# SPDX-License-Identifier: Apache-2.0
"""Tensors on the wire of the Open Inference Protocol: JSON numbers, or bytes behind the JSON (binary tensor extension).

Private to the room. Source: Triton's binary tensor data extension; the size of the JSON stands in the header
`Inference-Header-Content-Length`, tensors follow in order, little-endian; BYTES elements each follow their length as
four bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import TensorError, UsageError
from shipsight.serve.http.json_body import read_json
from shipsight.serve.limits import Limits
from shipsight.serve.open_inference import DATATYPES, TensorShape

__all__ = ["InferRequest", "read_request", "write_answer"]

_MOST_ID_CHARACTERS = 200
_TYPES = {wire: np.dtype(name).newbyteorder("<") for name, wire in DATATYPES.items()}


@dataclass(frozen=True, eq=False)
class InferRequest:
    """What a client sent.

    Attributes:
        id: of the request, returned with the answer; None where there is none.
        parameters: of the request.
        tensors: input name -> array, or list of byte strings for BYTES.
        outputs: names asked for, empty for all.
        binary: output names wanted as bytes; None for all.
    """

    id: str | None
    parameters: Mapping[str, Any]
    tensors: Mapping[str, NDArray[Any] | list[bytes]]
    outputs: tuple[str, ...]
    binary: frozenset[str] | None


def read_request(body: bytes, header_size: int | None, expected: Sequence[TensorShape], limits: Limits) -> InferRequest:
    """Reads a request.

    Args:
        body: as it came.
        header_size: bytes of its JSON, None for all of it.
        expected: what the endpoint takes.
        limits: on how many images or tensors a request may bring.

    Raises:
        UsageError: it is not a request of the protocol.
        LimitError: a batch is too large.
        TensorError: a tensor is not what the endpoint takes.
    """
    if header_size is not None and not 0 < header_size <= len(body):
        raise UsageError("not a size within the body", where="Inference-Header-Content-Length", got=header_size)
    told = read_json(body[:header_size])
    if not isinstance(told, dict) or not isinstance(told.get("inputs"), list):
        raise UsageError("not a request of the protocol", where="body", expected='{"inputs": [...]}')
    rest = memoryview(body)[len(body) if header_size is None else header_size :]
    known = {one.name: one for one in expected}
    tensors: dict[str, NDArray[Any] | list[bytes]] = {}
    for given in told["inputs"]:
        name = given.get("name") if isinstance(given, dict) else None
        if not isinstance(name, str) or name not in known or name in tensors:
            raise TensorError(
                "not an input, or given twice", where="inputs", expected=list(known), got=repr(name)[:100]
            )
        tensors[name], rest = _read_tensor(given, known[name], rest, limits)
    if len(tensors) != len(known):
        raise TensorError("an input is missing", where="inputs", expected=list(known), got=list(tensors))
    if rest.nbytes:
        raise UsageError("bytes are left behind the last tensor", where="body", got=rest.nbytes)
    return _with_outputs(told, tensors)


def _with_outputs(told: Mapping[str, Any], tensors: Mapping[str, NDArray[Any] | list[bytes]]) -> InferRequest:
    parameters = _mapping(told.get("parameters", {}), "parameters")
    asked = told.get("outputs", [])
    if not isinstance(asked, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in asked
    ):
        raise UsageError("not a list of outputs", where="outputs", expected='[{"name": ...}]')
    names = tuple(one["name"] for one in asked)
    if len(set(names)) != len(names):
        raise UsageError("an output is asked for twice", where="outputs")
    if parameters.get("binary_data_output") is True and not asked:
        binary: frozenset[str] | None = None
    else:
        wanted = [one for one in asked if _mapping(one.get("parameters", {}), "outputs").get("binary_data") is True]
        binary = frozenset(one["name"] for one in wanted)
    identity = told.get("id")
    if not isinstance(identity, str | None) or len(identity or "") > _MOST_ID_CHARACTERS:
        raise UsageError("not an id", where="id", expected=f"text of at most {_MOST_ID_CHARACTERS} characters")
    return InferRequest(identity, parameters, tensors, names, binary)


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError("not a mapping", where=where, got=type(value).__name__)
    return value


def _read_tensor(
    given: Mapping[str, Any], expected: TensorShape, rest: memoryview, limits: Limits
) -> tuple[NDArray[Any] | list[bytes], memoryview]:
    shape = given.get("shape")
    if given.get("datatype") != expected.datatype:
        raise TensorError(
            "another type", where=expected.name, expected=expected.datatype, got=repr(given.get("datatype"))[:40]
        )
    if not isinstance(shape, list) or not all(type(side) is int and 0 < side < 2**31 for side in shape):
        raise TensorError("not a shape", where=expected.name, expected=list(expected.shape), got=repr(shape)[:100])
    fits = len(shape) == len(expected.shape) and all(
        want in (-1, side) for side, want in zip(shape, expected.shape, strict=True)
    )
    if expected.datatype == "BYTES":
        # Clients send images as [n] and as [n, 1].
        fits = fits or (len(shape) == 2 and shape[1] == 1)
    if not fits:
        raise TensorError("another shape", where=expected.name, expected=list(expected.shape), got=str(shape)[:100])
    limits.check_images(shape[0])
    count = math.prod(shape)
    size = _mapping(given.get("parameters", {}), expected.name).get("binary_data_size")
    if size is None:
        return _from_json(given.get("data"), expected, shape), rest
    if type(size) is not int or not 0 <= size <= rest.nbytes:
        raise TensorError(
            "more bytes than the body holds", where=expected.name, expected=f"at most {rest.nbytes}", got=size
        )
    raw, rest = rest[:size], rest[size:]
    if expected.datatype == "BYTES":
        return _split_bytes(raw, count, expected.name), rest
    kind = _TYPES[expected.datatype]
    if size != count * kind.itemsize:
        raise TensorError("another number of bytes", where=expected.name, expected=count * kind.itemsize, got=size)
    return _finite(np.frombuffer(raw, kind).reshape(shape), expected.name), rest


def _finite(array: NDArray[Any], name: str) -> NDArray[Any]:
    if not np.isfinite(array).all():
        raise TensorError("not all are finite numbers", where=name, expected="finite numbers of its type")
    return array


def _from_json(data: object, expected: TensorShape, shape: list[int]) -> NDArray[Any] | list[bytes]:
    if expected.datatype == "BYTES":
        raise TensorError(
            "images come as bytes behind the JSON", where=expected.name, expected="parameters.binary_data_size"
        )
    try:
        with np.errstate(over="ignore"):  # too large for the type: infinite, and refused as such
            array = np.asarray(data, dtype=_TYPES[expected.datatype])
        return _finite(array.reshape(shape), expected.name)
    except (TypeError, ValueError, OverflowError):
        raise TensorError("numbers that do not fill the shape", where=expected.name, expected=shape) from None


def _split_bytes(raw: memoryview, count: int, name: str) -> list[bytes]:
    found: list[bytes] = []
    while raw.nbytes and len(found) <= count:
        size = int.from_bytes(raw[:4], "little")
        if raw.nbytes < 4 + size:
            break
        found.append(bytes(raw[4 : 4 + size]))
        raw = raw[4 + size :]
    if raw.nbytes or len(found) != count:
        raise TensorError("byte strings that do not fill the shape", where=name, expected=count, got=len(found))
    return found


def write_answer(
    head: Mapping[str, Any], outputs: Mapping[str, NDArray[Any] | list[bytes]], request: InferRequest
) -> tuple[bytes, int | None]:
    """Writes an answer.

    Args:
        head: name, version and id of it.
        outputs: output name -> array, or byte strings.
        request: says which outputs, and which as bytes.

    Returns:
        The body, and the size of its JSON where bytes follow it.

    Raises:
        TensorError: an output is asked for that there is not, or is not finite and so has no form in JSON.
    """
    missing = [name for name in request.outputs if name not in outputs]
    if missing:
        raise TensorError("no such output", where="outputs", expected=list(outputs), got=missing[:10])
    entries: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name in request.outputs or tuple(outputs):
        value = outputs[name]
        as_bytes = request.binary is None or name in request.binary
        if isinstance(value, list):
            entry: dict[str, Any] = {"name": name, "datatype": "BYTES", "shape": [len(value)]}
            blob = b"".join(len(one).to_bytes(4, "little") + one for one in value)
            plain: list[Any] = [one.decode() for one in value] if not as_bytes else []
        else:
            entry = {"name": name, "datatype": DATATYPES[value.dtype.name], "shape": list(value.shape)}
            blob = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes() if as_bytes else b""
            plain = [] if as_bytes else _finite(value, name).ravel().tolist()
        if as_bytes:
            entry["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            entry["data"] = plain
        entries.append(entry)
    told = {**head, **({} if request.id is None else {"id": request.id}), "outputs": entries}
    text = json.dumps(told, separators=(",", ":")).encode()
    return b"".join([text, *blobs]), len(text) if blobs else None
