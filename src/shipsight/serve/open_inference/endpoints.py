# SPDX-License-Identifier: Apache-2.0
"""The names of the Open Inference Protocol: what a model in service is called there, takes and gives.

A model in service appears under two names. Under its own it takes the raw tensor and gives the raw outputs of a variant
with float input, so that clients which bring their own pre- and postprocessing work unchanged. Under `NAME_image` it
takes encoded images as BYTES and gives predictions as JSON, one string an image. Source: Open Inference Protocol 2,
Triton's model configuration extension. Stable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shipsight.errors import NotFoundError
from shipsight.model import Card, Head, OutputForm, Task, TensorLayout
from shipsight.serve.models import Models, ServedModel
from shipsight.serve.runner import Runner

__all__ = [
    "DATATYPES",
    "IMAGE_SUFFIX",
    "Endpoint",
    "TensorShape",
    "config_of",
    "endpoint_of",
    "find_endpoint",
    "list_endpoints",
    "metadata_of",
    "model_of",
]

IMAGE_SUFFIX = "_image"
DATATYPES: Mapping[str, str] = {
    "float32": "FP32", "float16": "FP16", "float64": "FP64", "uint8": "UINT8", "int8": "INT8", "uint16": "UINT16",
    "int16": "INT16", "uint32": "UINT32", "int32": "INT32", "uint64": "UINT64", "int64": "INT64", "bool": "BOOL",
}  # fmt: skip
"""NumPy's name of a type -> the protocol's."""


@dataclass(frozen=True)
class TensorShape:
    """A tensor of an endpoint.

    Attributes:
        name: of the tensor.
        datatype: the protocol's name, for example `FP32`.
        shape: -1 for any size.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns it as the protocol's metadata has it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True, eq=False)
class Endpoint:
    """A name of the protocol.

    Attributes:
        name: as clients call it.
        model: in service behind it.
        runner: variant of it that answers; for raw tensors one with float input and raw outputs.
        takes_images: whether it takes encoded images instead of a tensor.
    """

    name: str
    model: ServedModel
    runner: Runner
    takes_images: bool

    @property
    def inputs(self) -> tuple[TensorShape, ...]:
        """What it takes."""
        if self.takes_images:
            return (TensorShape("image", "BYTES", (-1,)),)
        spec = self.runner.alone.input
        return (TensorShape(spec.name, DATATYPES[spec.dtype], (-1, *spec.shape[1:])),)

    @property
    def outputs(self) -> tuple[TensorShape, ...]:
        """What it gives."""
        if self.takes_images:
            return (TensorShape("predictions", "BYTES", (-1,)),)
        return tuple(
            TensorShape(spec.name, DATATYPES[spec.dtype], (-1, *spec.shape[1:])) for spec in self.runner.alone.outputs
        )


def model_of(models: Models, name: str) -> str:
    """Returns the name of the model that a name of the protocol stands for."""
    known = {one.name for one in models.all()}
    return name if name in known else name.removesuffix(IMAGE_SUFFIX)


def find_endpoint(models: Models, name: str, version: str | None = None, key: str = "") -> Endpoint:
    """Returns what a name stands for.

    Args:
        models: in service.
        name: of the protocol.
        version: None for the current one, or the canary where the key belongs to it.
        key: of the request.

    Raises:
        NotFoundError: nothing of that name is served, or the model is served without a variant for raw tensors.
        NotReadyError: the model is not ready.
    """
    return endpoint_of(name, models.get(model_of(models, name), version, key))


def endpoint_of(name: str, model: ServedModel) -> Endpoint:
    """Returns what a name stands for, once its model was found.

    Raises:
        NotFoundError: the model is served without a variant for raw tensors.
    """
    if name != model.name:
        return Endpoint(name, model, model.runner(None), takes_images=True)
    runner = _raw_runner(model)
    if runner is None:
        raise NotFoundError(
            "this model is served without a variant for raw tensors",
            where=name,
            hint=f"Serve its reference, too (--variant), or ask {name}{IMAGE_SUFFIX} with encoded images.",
        )
    return Endpoint(name, model, runner, takes_images=False)


def _raw_runner(model: ServedModel) -> Runner | None:
    """Returns the variant for raw tensors: the reference where it is served, else another with float input."""
    raw = [
        one
        for one in model.runners.values()
        if one.variant.layout is TensorLayout.FLOAT_NCHW and one.variant.form is OutputForm.RAW
    ]
    return next((one for one in raw if one.variant.is_reference), raw[0] if raw else None)


def list_endpoints(models: Models) -> list[tuple[str, ServedModel]]:
    """Returns all names with the models behind them, ready or not."""
    found = []
    for model in models.all():
        if not model.runners or _raw_runner(model) is not None:
            found.append((model.name, model))
        found.append((model.name + IMAGE_SUFFIX, model))
    return found


def metadata_of(endpoint: Endpoint, versions: Sequence[str]) -> dict[str, Any]:
    """Returns the protocol's model metadata."""
    return {
        "name": endpoint.name,
        "versions": list(versions),
        "platform": endpoint.runner.variant.engine,
        "inputs": [one.to_dict() for one in endpoint.inputs],
        "outputs": [one.to_dict() for one in endpoint.outputs],
    }


def config_of(endpoint: Endpoint) -> dict[str, Any]:
    """Returns Triton's model configuration; Ultralytics' client reads the metadata in its parameters."""

    def described(tensors: Sequence[TensorShape]) -> list[dict[str, Any]]:
        return [
            {
                "name": one.name,
                "data_type": "TYPE_STRING" if one.datatype == "BYTES" else f"TYPE_{one.datatype}",
                "dims": list(one.shape if endpoint.takes_images else (1, *one.shape[1:])),
            }
            for one in tensors
        ]

    return {
        "name": endpoint.name,
        "platform": "",
        "backend": "shipsight",
        "max_batch_size": 0,
        "input": described(endpoint.inputs),
        "output": described(endpoint.outputs),
        "parameters": {"metadata": {"string_value": repr(_ultralytics_metadata(endpoint.runner.card))}},
    }


def _ultralytics_metadata(card: Card) -> dict[str, Any]:
    """Returns what Ultralytics writes into its exports, plain values only."""
    metadata: dict[str, Any] = {
        "description": f"{card.name} {card.version}",
        "task": card.task.value,
        "stride": card.input.stride,
        "batch": 1,
        "imgsz": list(card.input.size_hw),
        "names": dict(enumerate(card.class_names)),
        "end2end": card.output.head is Head.END2END,
        "channels": 3,
    }
    if card.task is Task.POSE and card.output.keypoint_shape is not None:
        metadata["kpt_shape"] = list(card.output.keypoint_shape)
    return metadata
