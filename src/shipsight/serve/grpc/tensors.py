# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol's requests and answers as gRPC has them: raw contents, or numbers by type. Private to the room."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shipsight.errors import TensorError, UsageError
from shipsight.serve.grpc.messages import Message, message
from shipsight.serve.limits import Limits
from shipsight.serve.open_inference import TensorShape
from shipsight.serve.open_inference.tensors import (
    NUMPY_TYPES,
    Tensor,
    check_complete,
    check_name,
    check_parameters,
    check_tensor,
    choose_outputs,
    describe_tensor,
    join_tensor,
    split_tensor,
)

__all__ = ["InferRequest", "is_raw", "read_request", "value_of", "write_answer"]

# KServe's requests are made for both wires; over this one, what is raw stands in the request itself.
_ABOUT_REST = "binary_data_output"
_FIELDS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}  # fmt: skip
"""Datatype -> the field of its numbers; FP16 has none."""


@dataclass(frozen=True, eq=False)
class InferRequest:
    """What a client sent.

    Attributes:
        id: of the request, returned with the answer; empty where there is none.
        parameters: of the request.
        tensors: input name -> tensor.
        outputs: names asked for, empty for all.
        is_raw: whether the tensors came as raw contents; the answer goes the same way.
    """

    id: str
    parameters: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    is_raw: bool


def is_raw(request: Message) -> bool:
    """Tells whether a request's tensors are raw contents: quick to read."""
    return len(request.raw_input_contents) > 0


def read_request(request: Message, expected: Sequence[TensorShape], limits: Limits) -> InferRequest:
    """Reads a request.

    Args:
        request: a ModelInferRequest.
        expected: what the endpoint takes.
        limits: on how many images or tensors a request may bring.

    Raises:
        UsageError: it is not a request of the protocol.
        LimitError: a batch is too large.
        TensorError: a tensor is not what the endpoint takes.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise UsageError(
            "as many raw contents as inputs are needed",
            where="raw_input_contents",
            expected=len(request.inputs),
            got=len(raw),
        )
    known = {one.name: one for one in expected}
    tensors: dict[str, Tensor] = {}
    for position, given in enumerate(request.inputs):
        wanted = check_name(given.name, known, tensors)
        # KServe's clients say here how long the raw contents are.
        check_parameters(given.name, given.parameters, ("binary_data_size",))
        shape = check_tensor(wanted, given.datatype, list(given.shape))
        limits.check_images(shape[0])
        if raw and given.HasField("contents"):
            raise TensorError("both raw contents and others", where=given.name)
        tensors[wanted.name] = (
            split_tensor(raw[position], wanted, shape) if raw else _from_contents(given.contents, wanted, shape)
        )
    check_complete(known, tensors)
    for one in request.outputs:
        check_parameters(one.name, one.parameters, ("binary_data",))
    return InferRequest(
        id=request.id[:200],
        parameters={name: value_of(name, one) for name, one in request.parameters.items() if name != _ABOUT_REST},
        tensors=tensors,
        outputs=tuple(dict.fromkeys(one.name for one in request.outputs)),
        is_raw=bool(raw),
    )


def value_of(name: str, given: Message) -> bool | int | float | str:
    """Returns a parameter's value.

    Raises:
        UsageError: it has none.
    """
    choice = given.WhichOneof("parameter_choice")
    if choice is None:
        raise UsageError("a parameter without a value", where=name[:100])
    value: bool | int | float | str = getattr(given, choice)
    return value


def _from_contents(contents: Message, expected: TensorShape, shape: Sequence[int]) -> Tensor:
    field = _FIELDS.get(expected.datatype)
    filled = [one.name for one, _ in contents.ListFields()]
    if field is None or filled not in ([], [field]):
        raise TensorError(
            "another field of contents", where=expected.name, expected=field or "raw_input_contents", got=filled
        )
    values = getattr(contents, field)
    count = math.prod(shape)
    if len(values) != count:
        raise TensorError("values that do not fill the shape", where=expected.name, expected=count, got=len(values))
    if expected.datatype == "BYTES":
        return list(values)
    try:
        return np.fromiter(values, NUMPY_TYPES[expected.datatype], count).reshape(shape)
    except OverflowError:
        raise TensorError("a value out of range", where=expected.name, expected=expected.datatype) from None


def write_answer(name: str, version: str, outputs: Mapping[str, Tensor], request: InferRequest) -> Message:
    """Returns the answer, a ModelInferResponse.

    Args:
        name: of the endpoint.
        version: that answered.
        outputs: output name -> tensor.
        request: says which outputs, and in which form.

    Raises:
        TensorError: an output is asked for that there is not.
    """
    answer = message("ModelInferResponse")(model_name=name, model_version=version, id=request.id)
    chosen = {
        output: (tensor, *describe_tensor(tensor))
        for output, tensor in choose_outputs(outputs, request.outputs).items()
    }
    # All outputs in one form: the protocol forbids a mixture.
    as_raw = request.is_raw or any(datatype not in _FIELDS for _, datatype, _ in chosen.values())
    for output, (tensor, datatype, shape) in chosen.items():
        entry = answer.outputs.add(name=output, datatype=datatype, shape=shape)
        if as_raw:
            answer.raw_output_contents.append(join_tensor(tensor))
        else:
            values = tensor if isinstance(tensor, list) else tensor.ravel().tolist()
            getattr(entry.contents, _FIELDS[datatype]).extend(values)
    return answer
