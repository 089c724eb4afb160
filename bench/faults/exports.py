# SPDX-License-Identifier: Apache-2.0
"""Exports that went wrong: each made with the tools with which people make them, from a float model that is right."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from faults.pipeline import Pipeline

Graph = onnx.ModelProto


class Images(CalibrationDataReader):
    """Feeds what a pipeline makes of images."""

    def __init__(self, pipeline: Pipeline, paths: Sequence[Path]) -> None:
        name = pipeline.model.session.get_inputs()[0].name
        self._left: Iterator[dict[str, NDArray[Any]]] = iter([{name: pipeline.tensor(path)} for path in paths])

    def get_next(self) -> dict[str, NDArray[Any]] | None:  # type: ignore[override]
        return next(self._left, None)


def head(model: Graph) -> str:
    """The prefix of the detection head's nodes."""
    numbers = {int(one.name.split(".")[1].split("/")[0]) for one in model.graph.node if one.name.startswith("/model.")}
    return f"/model.{max(numbers)}/"


# Long in arguments alone: what people choose when they quantize.
def quantized(
    pipeline: Pipeline,
    paths: Sequence[Path],
    out: Path,
    *,
    types: Sequence[str] | None = ("Conv",),
    is_excluded: Callable[[str, str], bool] = lambda name, head: False,
    signed: bool = False,
    reduce_range: bool = True,
    calibration: Pipeline | None = None,
) -> Path:
    """A static quantization by ONNX Runtime."""
    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(pipeline.model.path), str(prepared), skip_symbolic_shape=True)
    model = onnx.load(prepared)
    prefix = head(model)
    excluded = [one.name for one in model.graph.node if is_excluded(one.name, prefix)]
    quantize_static(
        str(prepared),
        str(out),
        Images(calibration or pipeline, paths),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=None if types is None else list(types),
        per_channel=True,
        reduce_range=reduce_range,
        activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=excluded,
    )
    prepared.unlink()
    return out


def dynamic(pipeline: Pipeline, out: Path) -> Path:
    """A dynamic quantization, as for language models."""
    quantize_dynamic(str(pipeline.model.path), str(out), weight_type=QuantType.QUInt8)
    return out


def _weights(model: Graph, *, least: int = 2) -> list[onnx.TensorProto]:
    return [
        one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT and len(one.dims) >= least
    ]


def _put(tensor: onnx.TensorProto, values: NDArray[Any]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))


def other_weights(pipeline: Pipeline, out: Path, *, strength: float, seed: int) -> Path:
    """Weights of another epoch: all a little different."""
    model, draw = onnx.load(pipeline.model.path), np.random.default_rng(seed)
    for one in _weights(model):
        values = numpy_helper.to_array(one)
        _put(one, values + draw.normal(0, strength, values.shape) * values.std())
    onnx.save(model, out)
    return out


def zeroed(pipeline: Pipeline, out: Path, *, at: float) -> Path:
    """One convolution lost its weights."""
    model = onnx.load(pipeline.model.path)
    found = [one for one in _weights(model, least=4) if "dfl" not in one.name]
    one = found[int(at * (len(found) - 1))]
    _put(one, np.zeros(numpy_helper.to_array(one).shape))
    onnx.save(model, out)
    return out


def permuted_classes(pipeline: Pipeline, out: Path, *, seed: int) -> Path:
    """Class channels in another order, as after a change of `data.yaml`."""
    model, count = onnx.load(pipeline.model.path), len(pipeline.model.names)
    order = np.random.default_rng(seed).permutation(count)
    prefix = head(model).strip("/")
    for one in model.graph.initializer:
        if one.name.startswith(f"{prefix}.cv3.") and one.name.split(".")[-2] == "2" and one.dims[0] == count:
            _put(one, numpy_helper.to_array(one)[order])
    onnx.save(model, out)
    return out


def without_class(pipeline: Pipeline, out: Path, *, number: int) -> Path:
    """One class never answers: its channel was lost."""
    model, count = onnx.load(pipeline.model.path), len(pipeline.model.names)
    prefix = head(model).strip("/")
    for one in model.graph.initializer:
        if one.name.startswith(f"{prefix}.cv3.") and one.name.endswith(".2.bias") and one.dims[0] == count:
            values = numpy_helper.to_array(one).copy()
            values[number] = -20.0
            _put(one, values)
    onnx.save(model, out)
    return out


def shifted(pipeline: Pipeline, out: Path, *, pixels: float) -> Path:
    """Positions are counted from the corners of cells, not from their middles: centres lie off by some pixels of the input."""
    model = onnx.load(pipeline.model.path)
    output = model.graph.output[0].name
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            if name == output:
                node.output[place] = f"{output}_unmoved"
    move = np.zeros((1, 4 + len(pipeline.model.names), 1), np.float32)
    move[0, :2] = pixels
    model.graph.initializer.append(numpy_helper.from_array(move, f"{output}_move"))
    model.graph.node.append(
        helper.make_node("Add", [f"{output}_unmoved", f"{output}_move"], [output], name=f"{head(model)}Move")
    )
    onnx.save(model, out)
    return out


def subnormal(pipeline: Pipeline, out: Path, *, share: float) -> Path:
    """Pruned to almost nothing: the smallest weights are far smaller than a float's normal numbers."""
    model = onnx.load(pipeline.model.path)
    for one in (one for one in _weights(model, least=4) if "dfl" not in one.name):
        values = numpy_helper.to_array(one).copy()
        small = np.abs(values) < np.quantile(np.abs(values), share)
        values[small] = np.sign(values[small]) * np.float32(1e-39)
        _put(one, values)
    onnx.save(model, out)
    return out


def denied_suppression(checkpoint: Path, out: Path, *, size: int) -> Path:
    """Non-maximum suppression in the graph, of which the metadata know nothing."""
    model = onnx.load(with_suppression(checkpoint, out, size=size, conf=0.001))
    for one in model.metadata_props:
        if one.key == "args":
            one.value = one.value.replace("'nms': True", "'nms': False")
        if one.key == "nms":
            one.value = "False"
    onnx.save(model, out)
    return out


def exported(checkpoint: Path, folder: Path, *, size: int, **options: object) -> Path:
    """By Ultralytics, as they are asked to."""
    from ultralytics import YOLO

    # Beside the checkpoint is where it writes.
    copied = shutil.copy(checkpoint, folder / "exported.pt")
    return Path(YOLO(copied).export(imgsz=size, verbose=False, **options))


def _product_of(model: Graph, block: str) -> str:
    """The first activation that a block gives."""
    node = next(one for one in model.graph.node if one.op_type == "Mul" and one.name.startswith(block))
    return str(node.output[0])


def _put_behind(model: Graph, name: str, *nodes: onnx.NodeProto) -> None:
    """Lets all that read a tensor read the last one of nodes instead, which stand behind what gives it."""
    place = next(number for number, one in enumerate(model.graph.node) if name in one.output) + 1
    for reader in model.graph.node:
        for position, given in enumerate(reader.input):
            if given == name:
                reader.input[position] = nodes[-1].output[0]
    for number, node in enumerate(nodes):
        model.graph.node.insert(place + number, node)


def restless(pipeline: Pipeline, out: Path, *, share: float) -> Path:
    """Exported as in training: noise is still added to what the backbone gives."""
    model = onnx.load(pipeline.model.path)
    name = _product_of(model, "/model.9/")
    normal, noise, noisy = f"{name}_normal", f"{name}_noise", f"{name}_noisy"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(share), f"{name}_share"))
    _put_behind(
        model,
        name,
        helper.make_node("RandomNormalLike", [name], [normal], name=normal),
        helper.make_node("Mul", [normal, f"{name}_share"], [noise], name=noise),
        helper.make_node("Add", [name, noise], [noisy], name=noisy),
    )
    onnx.save(model, out)
    return out


def overflowing(pipeline: Pipeline, out: Path, *, factor: float) -> Path:
    """Half precision, where one activation is beyond what that holds: the next layer divides by as much, so that float32 is right."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(pipeline.model.path)
    name = _product_of(model, "/model.4/")
    up, down = f"{name}_up", f"{name}_down"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(factor), f"{name}_factor"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1 / factor), f"{name}_back"))
    _put_behind(
        model,
        name,
        helper.make_node("Mul", [name, f"{name}_factor"], [up], name=up),
        helper.make_node("Mul", [up, f"{name}_back"], [down], name=down),
    )
    onnx.save(convert_float_to_float16(model, keep_io_types=True), out)
    return out


def newer(pipeline: Pipeline, out: Path, *, opset: int, ir: int) -> Path:
    """Written by a newer exporter than runtimes on devices read."""
    model = version_converter.convert_version(onnx.load(pipeline.model.path), opset)
    model.ir_version = ir
    onnx.save(model, out)
    return out


def built(model: Path, images: Sequence[Path], folder: Path) -> Path:
    """A bundle of a model, without its data set."""
    (folder / "golden").mkdir()
    for one in images:
        shutil.copy(one, folder / "golden" / one.name)
    made = folder / "older.bundle"
    command = [sys.executable, "-m", "shipsight", "build", str(model), "--precision", "fp32", "--out", str(made)]
    subprocess.run([*command, "--images", str(folder / "golden")], check=True, capture_output=True)
    return made


def with_suppression(checkpoint: Path, out: Path, *, size: int, conf: float) -> Path:
    """Non-maximum suppression in the graph, with its thresholds for good."""
    return exported(checkpoint, out.parent, size=size, format="onnx", nms=True, conf=conf).replace(out)
