# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol's requests and answers as REST writes them: JSON, or bytes behind the JSON.

Private to the room. Source: Triton's binary tensor data extension; the size of the JSON stands in the header
`Inference-Header-Content-Length`, tensors follow in order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shipsight.errors import TensorError, UsageError
from shipsight.serve.http.json_body import read_json
from shipsight.serve.limits import Limits
from shipsight.serve.open_inference import TensorShape
from shipsight.serve.open_inference.tensors import (
    NUMPY_TYPES,
    Tensor,
    check_complete,
    check_finite,
    check_name,
    check_parameters,
    check_tensor,
    choose_outputs,
    describe_tensor,
    join_tensor,
    split_tensor,
)

__all__ = ["InferRequest", "read_request", "write_answer"]

_MOST_ID_CHARACTERS = 200


@dataclass(frozen=True, eq=False)
class InferRequest:
    """What a client sent.

    Attributes:
        id: of the request, returned with the answer; None where there is none.
        parameters: of the request, without those that concern its form.
        tensors: input name -> tensor.
        outputs: names asked for, empty for all.
        binary: output names wanted as bytes; None for all.
    """

    id: str | None
    parameters: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    binary: frozenset[str] | None


def read_request(
    body: bytes | memoryview, header_size: int | None, expected: Sequence[TensorShape], limits: Limits
) -> InferRequest:
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
    told = read_json(bytes(body[:header_size]))
    if not isinstance(told, dict) or not isinstance(told.get("inputs"), list):
        raise UsageError("not a request of the protocol", where="body", expected='{"inputs": [...]}')
    rest = memoryview(body)[len(body) if header_size is None else header_size :]
    known = {one.name: one for one in expected}
    tensors: dict[str, Tensor] = {}
    for given in told["inputs"]:
        shape = check_name(given.get("name") if isinstance(given, dict) else None, known, tensors)
        tensors[shape.name], rest = _read_tensor(given, shape, rest, limits)
    check_complete(known, tensors)
    if rest.nbytes:
        raise UsageError("bytes are left behind the last tensor", where="body", got=rest.nbytes)
    return _with_outputs(told, tensors)


def _with_outputs(told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> InferRequest:
    parameters = dict(_mapping(told.get("parameters", {}), "parameters"))
    wants_bytes = parameters.pop("binary_data_output", False) is True
    asked = told.get("outputs", [])
    if not isinstance(asked, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in asked
    ):
        raise UsageError("not a list of outputs", where="outputs", expected='[{"name": ...}]')
    wishes = {one["name"]: _mapping(one.get("parameters", {}), "outputs") for one in asked}
    for name, wish in wishes.items():
        check_parameters(name, wish, ("binary_data",))
    binary = frozenset(name for name, wish in wishes.items() if wish.get("binary_data", wants_bytes) is True)
    if len(wishes) != len(asked):
        raise UsageError("an output is asked for twice", where="outputs")
    identity = told.get("id")
    if not isinstance(identity, str | None) or len(identity or "") > _MOST_ID_CHARACTERS:
        raise UsageError("not an id", where="id", expected=f"text of at most {_MOST_ID_CHARACTERS} characters")
    return InferRequest(
        id=identity,
        parameters=parameters,
        tensors=tensors,
        outputs=tuple(wishes),
        binary=None if wants_bytes and not asked else binary,
    )


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError("not a mapping", where=where, got=type(value).__name__)
    return value


def _read_tensor(
    given: Mapping[str, Any], expected: TensorShape, rest: memoryview, limits: Limits
) -> tuple[Tensor, memoryview]:
    shape = check_tensor(expected, given.get("datatype"), given.get("shape"))
    limits.check_images(shape[0])
    parameters = _mapping(given.get("parameters", {}), expected.name)
    check_parameters(expected.name, parameters, ("binary_data_size",))
    size = parameters.get("binary_data_size")
    if size is None:
        return _from_json(given.get("data"), expected, shape), rest
    if type(size) is not int or not 0 <= size <= rest.nbytes:
        raise TensorError(
            "more bytes than the body holds", where=expected.name, expected=f"at most {rest.nbytes}", got=size
        )
    return split_tensor(rest[:size], expected, shape), rest[size:]


def _from_json(data: object, expected: TensorShape, shape: list[int]) -> Tensor:
    if expected.datatype == "BYTES":
        raise TensorError(
            "images come as bytes behind the JSON", where=expected.name, expected="parameters.binary_data_size"
        )
    try:
        with np.errstate(over="ignore"):  # too large for the type: infinite, and refused as such
            array = np.asarray(data, dtype=NUMPY_TYPES[expected.datatype])
        return check_finite(array.reshape(shape), expected.name)
    except (TypeError, ValueError, OverflowError):
        raise TensorError("numbers that do not fill the shape", where=expected.name, expected=shape) from None


def write_answer(
    head: Mapping[str, Any], outputs: Mapping[str, Tensor], request: InferRequest
) -> tuple[bytes, int | None]:
    """Writes an answer.

    Args:
        head: name, version and id of it.
        outputs: output name -> tensor.
        request: says which outputs, and which as bytes.

    Returns:
        The body, and the size of its JSON where bytes follow it.

    Raises:
        TensorError: an output is asked for that there is not, or is not finite and so has no form in JSON.
    """
    entries: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, tensor in choose_outputs(outputs, request.outputs).items():
        datatype, shape = describe_tensor(tensor)
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
        if request.binary is None or name in request.binary:
            blobs.append(join_tensor(tensor))
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        elif isinstance(tensor, list):
            entry["data"] = [one.decode() for one in tensor]
        else:
            entry["data"] = check_finite(tensor, name).ravel().tolist()
        entries.append(entry)
    told = {**head, **({} if request.id is None else {"id": request.id}), "outputs": entries}
    text = json.dumps(told, separators=(",", ":")).encode()
    return b"".join([text, *blobs]), len(text) if blobs else None
