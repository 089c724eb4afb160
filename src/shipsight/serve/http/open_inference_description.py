# SPDX-License-Identifier: Apache-2.0
"""What the routes of the Open Inference Protocol take and give, for the description. Private to the room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shipsight.protect import MEDIA_TYPE
from shipsight.serve.http.description import Operation, answer, operation
from shipsight.serve.http.schemas import ref, thresholds
from shipsight.serve.limits import Limits
from shipsight.serve.open_inference.endpoints import DATATYPES

__all__ = ["described_operations"]

_TAG = "open-inference"
_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_KINDS = {"enum": [*sorted(DATATYPES.values()), "BYTES"]}
_PLAIN_OR_OWN = {"anyOf": [ref("PlainError"), ref("Error")]}
"""An error's body: the protocol's, or the server's where the protocol was not reached."""


def _object(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


def _list_of(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_SHAPE = _list_of({"type": "integer"})
_METADATA_TENSOR = _object({"name": _TEXT, "datatype": _KINDS, "shape": _SHAPE})
_CONFIG_TENSOR = _object({"name": _TEXT, "data_type": _TEXT, "dims": _SHAPE})
_ANSWER_TENSOR = _object(
    {"name": _TEXT, "datatype": _KINDS, "shape": _SHAPE}, {"data": {"type": "array"}, "parameters": {"type": "object"}}
)
_ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "server": _object({"name": _TEXT, "version": _TEXT, "extensions": _list_of(_TEXT)}),
    "live": _object({"live": {"type": "boolean"}}),
    "ready": _object({"ready": {"type": "boolean"}, "live": {"type": "boolean"}}),
    "model_ready": _object({"name": _TEXT, "ready": {"type": "boolean"}}),
    "metadata": _object(
        {
            "name": _TEXT,
            "versions": _list_of(_TEXT),
            "platform": _TEXT,
            "inputs": _list_of(_METADATA_TENSOR),
            "outputs": _list_of(_METADATA_TENSOR),
        }
    ),
    "config": _object(
        {
            "name": _TEXT,
            "max_batch_size": _COUNT,
            "input": _list_of(_CONFIG_TENSOR),
            "output": _list_of(_CONFIG_TENSOR),
        },
        {"parameters": {"type": "object"}},
    ),
    "index": _list_of(_object({"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT})),
    "load": {"type": "object"},
    "unload": {"type": "object"},
    "statistics": _object(
        {"model_stats": _list_of(_object({"name": _TEXT, "version": _TEXT, "inference_stats": {"type": "object"}}))}
    ),
    "infer": _object({"model_name": _TEXT, "model_version": _TEXT, "outputs": _list_of(_ANSWER_TENSOR)}, {"id": _TEXT}),
}
_SUMMARIES: Mapping[str, str] = {
    "server": "Describes the server",
    "live": "Tells whether the server lives",
    "ready": "Tells whether all models answer",
    "model_ready": "Tells whether a model answers",
    "metadata": "Describes a model",
    "config": "Describes a model as Triton does",
    "index": "Lists the models",
    "load": "Loads a model anew from its bundle",
    "unload": "Takes a model out of service",
    "statistics": "Counts requests and their times",
    "infer": "Infers on a tensor, or predicts on encoded images",
}


def described_operations(limits: Limits) -> dict[str, Operation]:
    """Returns handler -> what it takes and gives.

    Args:
        limits: of the server.
    """
    bodies: dict[str, Mapping[str, Any]] = {
        "index": {"application/json": {"type": "object", "properties": {"ready": {"type": "boolean"}}}},
        "load": {"application/json": _with_parameters({"version": {"type": ["string", "null"]}})},
        "unload": {"application/json": _with_parameters({"unload_dependents": {"type": "boolean"}})},
        "infer": {"application/json": _infer_request(limits), "application/octet-stream": {}, MEDIA_TYPE: {}},
    }
    errors: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("model_ready", "metadata", "config", "statistics"), (404,)),
        "load": (404, 413, 415, 422),
        "unload": (404, 413, 415),
        "index": (413, 415),
        "infer": (404, 413, 415, 504),
    }
    described = {}
    for handler, schema in _ANSWERS.items():
        content = {
            "application/json": schema,
            **({"application/octet-stream": {}, MEDIA_TYPE: {}} if handler == "infer" else {}),
        }
        given = answer("binary tensors follow the JSON" if handler == "infer" else "found", content)
        described[handler] = operation(
            _SUMMARIES[handler],
            tag=_TAG,
            answers={200: given, 503: given} if handler == "ready" else {200: given},
            body=bodies.get(handler),
            needs_body=handler == "infer",
            errors=errors.get(handler, ()),
            error=_PLAIN_OR_OWN,
        )
    return described


def _with_parameters(known: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": known, "additionalProperties": False}
    return {"type": "object", "properties": {"parameters": parameters}}


def _infer_request(limits: Limits) -> dict[str, Any]:
    settings = {name: one for name, one in thresholds(limits).items() if name != "classes"}
    tensor = _object(
        {
            "name": _TEXT,
            "datatype": _KINDS,
            "shape": {**_list_of({"type": "integer", "minimum": 1, "maximum": 2**31 - 1}), "minItems": 1},
        },
        {"data": {"type": "array"}, "parameters": {"type": "object", "properties": {"binary_data_size": _COUNT}}},
    )
    output = _object({"name": _TEXT}, {"parameters": {"type": "object"}})
    parameters = {"type": "object", "properties": {**settings, "binary_data_output": {"type": "boolean"}}}
    return _object(
        {"inputs": {**_list_of(tensor), "minItems": 1, "maxItems": 1}},
        {
            "id": {"type": "string", "maxLength": 200},
            "parameters": parameters,
            "outputs": _list_of(output),
        },
    )
