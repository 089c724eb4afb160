# SPDX-License-Identifier: Apache-2.0
"""ONNX files, inside the sandboxed child: check, describe, bring to the canonical form, try once.

Leaves to others: isolation (`_worker`), checks of structure (`_onnx_checks`), the card (`onnx_source`, in the parent).
Invariants: the parent only ever gets bytes that were written here, from a model that passed every check and ran once on
zeros under the child's limits; where the operator set is changed, the outputs before and after are compared. Private.
"""

from __future__ import annotations

import ast
import os
from typing import Any

import numpy as np

from shipsight.build.sources._canonical import canonical_onnx
from shipsight.build.sources._onnx_checks import check_structure, main_opset, parse_model
from shipsight.build.sources._wire import Frame
from shipsight.build.sources._worker import Operation
from shipsight.build.sources.sandbox import Limits, limit_memory
from shipsight.errors import CorruptError, LimitError, MissingDependencyError, UnsupportedError

__all__ = ["OnnxWorker"]

MAX_METADATA_BYTES = 4 << 20
LOWEST_KEPT_OPSET, TARGET_OPSET, HIGHEST_KEPT_OPSET = 13, 17, 18
_FLOAT, _FLOAT16 = 1, 10  # TensorProto.DataType
_LITERALS = ("names", "imgsz", "kpt_shape", "args")


class OnnxWorker:
    """Answers requests about one ONNX file."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._where = "model"
        self._model: Any = None
        self._warnings: list[list[str]] = []

    def operations(self) -> dict[str, Operation]:
        """Names the requests."""
        return {"load": self.load, "export": self.export}

    def load(self, parameters: dict[str, Any], blobs: list[bytes]) -> Frame:
        """Checks a model and describes it."""
        self._where = str(parameters["file_name"])
        limit_memory(self._limits.library_memory_bytes)
        _import_libraries()
        limit_memory(self._limits.memory_bytes)
        (data,) = blobs
        model = parse_model(data, where=self._where)
        del data
        blobs.clear()
        check_structure(model, where=self._where)
        metadata = _metadata(model, self._where)
        name, sides = _image_input(model, self._where)
        self._model = self._with_kept_opset(model, sides)
        return {
            "metadata": metadata,
            "input": name,
            "sides": sides,
            "outputs": [str(output.name)[:200] for output in model.graph.output],
            "opset": main_opset(self._model),
            "warnings": self._warnings,
            "architecture": str(model.graph.name)[:60],
            "producer": f"{model.producer_name} {model.producer_version}".strip()[:60],
        }, []

    def export(self, parameters: dict[str, Any], blobs: list[bytes]) -> Frame:
        """Brings the model to one static size and canonical names, and runs it once."""
        import onnx
        import onnxslim

        height, width = (int(side) for side in parameters["size_hw"])
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        name, _ = _image_input(model, self._where)
        shape = (1, 3, height, width)
        try:
            _set_shape(_find(model.graph.input, name), shape)
            _forget_shapes(model)
            model = onnxslim.slim(model)
            _rename(model, {name: "images"} | {str(out.name): f"output{i}" for i, out in enumerate(model.graph.output)})
        except (RuntimeError, ValueError, KeyError, onnx.checker.ValidationError) as error:
            text = str(error)[-300:]
            raise UnsupportedError("the model cannot be brought to this size", where=self._where, got=text) from error
        outputs = self._run(model.SerializeToString(), "images", shape)
        for output, array in zip(model.graph.output, outputs, strict=True):
            if array.dtype != np.float32:
                raise UnsupportedError(
                    "an output is not float32", where=self._where, got=f"{output.name}: {array.dtype}"
                )
            _set_shape(output, array.shape)
        data = canonical_onnx(model, metadata=parameters["metadata"])
        check_structure(parse_model(data, where=self._where), where=self._where)
        return {"output_shapes": [list(array.shape) for array in outputs]}, [data]

    def _with_kept_opset(self, model: Any, sides: list[int | None]) -> Any:  # noqa: ANN401 - onnx.ModelProto
        opset = main_opset(model)
        if LOWEST_KEPT_OPSET <= opset <= HIGHEST_KEPT_OPSET:
            return model
        import onnx

        target = TARGET_OPSET if opset < LOWEST_KEPT_OPSET else HIGHEST_KEPT_OPSET
        if opset > HIGHEST_KEPT_OPSET and onnx.defs.onnx_opset_version() < opset:
            raise UnsupportedError("the model's operator set is too new", where=self._where, got=opset)
        try:
            changed = onnx.version_converter.convert_version(model, target)
        except (RuntimeError, ValueError, onnx.version_converter.ConvertError) as error:
            raise UnsupportedError(
                "the model's operator set cannot be converted",
                where=self._where,
                expected=f"{LOWEST_KEPT_OPSET} to {HIGHEST_KEPT_OPSET}",
                got=f"{opset}: {str(error)[:200]}",
                hint=f"Export it again with opset {TARGET_OPSET}",
            ) from error
        del changed.metadata_props[:]
        self._compare(model, changed, sides)
        self._warnings.append(
            [
                "onnx-opset-converted",
                f"operator set {opset} was converted to {target}; the outputs were compared and are equal",
            ]
        )
        return changed

    def _compare(self, before: Any, after: Any, sides: list[int | None]) -> None:  # noqa: ANN401 - onnx.ModelProto
        name, _ = _image_input(before, self._where)
        shape = (1, 3, sides[2] or 320, sides[3] or 320)
        pairs = zip(*(self._run(m.SerializeToString(), name, shape, noise=True) for m in (before, after)), strict=True)
        for old, new in pairs:
            if old.shape != new.shape or not np.allclose(old, new, rtol=1e-4, atol=1e-5):
                raise UnsupportedError(
                    "converting the operator set changes what the model computes",
                    where=self._where,
                    hint=f"Export it again with opset {TARGET_OPSET}",
                )

    def _run(self, data: bytes, name: str, shape: tuple[int, ...], *, noise: bool = False) -> list[Any]:
        """Runs a model once, under the limits of this process."""
        from shipsight.engines._onnxruntime_import import import_onnxruntime

        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.log_severity_level = 4
        tensor = np.zeros(shape, np.float32)
        if noise:
            tensor = np.random.default_rng(0).random(shape, np.float32) * np.float32(255)
        try:
            session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            arrays = session.run(None, {name: tensor})
        except Exception as error:  # ONNX Runtime's exceptions share no documented base
            text = str(error)
            if "bad_alloc" in text or "allocate" in text:
                raise LimitError(
                    "the model needs too much memory to run", where=self._where, got=text[-200:]
                ) from error
            raise CorruptError("ONNX Runtime cannot run the model", where=self._where, got=text[-300:]) from error
        if not all(isinstance(array, np.ndarray) for array in arrays):
            raise UnsupportedError("the model answers with something that is not a tensor", where=self._where)
        return list(arrays)


def _import_libraries() -> None:
    try:
        import onnx
        import onnxslim  # noqa: F401 - needed later, checked now

        from shipsight.engines._onnxruntime_import import import_onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "onnx and onnxslim are needed to open an ONNX file", got=error, hint="pip install 'shipsight[build]'"
        ) from error
    _ = (onnx.checker, onnx.shape_inference, onnx.version_converter)
    import_onnxruntime()


def _image_input(model: Any, where: str) -> tuple[str, list[int | None]]:  # noqa: ANN401 - onnx.ModelProto
    """Finds the one image input; returns its name and sides, None where a side is free."""
    constants = {str(tensor.name) for tensor in model.graph.initializer}
    inputs = [info for info in model.graph.input if str(info.name) not in constants]
    if len(inputs) != 1:
        raise UnsupportedError(
            "the model must have one input", where=where, got=[str(info.name)[:80] for info in inputs[:8]]
        )
    kind = inputs[0].type.tensor_type
    sides = [int(s.dim_value) if s.HasField("dim_value") and s.dim_value > 0 else None for s in kind.shape.dim]
    if kind.elem_type != _FLOAT:
        got = "float16" if kind.elem_type == _FLOAT16 else f"ONNX type {kind.elem_type}"
        raise UnsupportedError(
            "the model's input must be float32", where=where, got=got, hint="Export it without half=True"
        )
    if len(sides) != 4 or sides[0] not in (1, None) or sides[1] not in (3, None):
        raise UnsupportedError(
            "the model's input must be one colour image, channels first",
            where=where,
            expected="(1, 3, height, width)",
            got=tuple("?" if side is None else side for side in sides),
            hint="Export it with batch=1",
        )
    return str(inputs[0].name), sides


def _metadata(model: Any, where: str) -> dict[str, Any]:  # noqa: ANN401 - onnx.ModelProto
    """Reads metadata properties; Python literals, as Ultralytics writes them, become plain values."""
    properties = {str(item.key)[:100]: str(item.value) for item in model.metadata_props}
    if sum(len(key) + len(value) for key, value in properties.items()) > MAX_METADATA_BYTES:
        raise LimitError("the model's metadata is too large", where=where, expected=f"<= {MAX_METADATA_BYTES} bytes")
    found: dict[str, Any] = {key: value for key, value in properties.items() if key not in _LITERALS}
    for key in _LITERALS:
        if key not in properties:
            continue
        try:
            value = ast.literal_eval(properties[key])
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
            raise CorruptError("metadata cannot be read", where=f"{where}: {key}", got=properties[key][:100]) from error
        found[key] = _literal(value)
    return found


def _literal(value: object, depth: int = 3) -> Any:  # noqa: ANN401 - any plain value
    """Reduces a literal to JSON values; a mapping becomes a list of pairs, since its keys may be numbers."""
    if isinstance(value, dict) and depth:
        return [[_literal(key, 0), _literal(item, depth - 1)] for key, item in list(value.items())[:20_001]]
    if isinstance(value, (list, tuple)) and depth:
        return [_literal(item, depth - 1) for item in list(value)[:20_001]]
    if isinstance(value, str):
        return value[:500]
    return value if isinstance(value, (bool, int, float, type(None))) else None


def _find(infos: Any, name: str) -> Any:  # noqa: ANN401 - onnx.ValueInfoProto
    return next(info for info in infos if info.name == name)


def _set_shape(info: Any, shape: tuple[int, ...]) -> None:  # noqa: ANN401 - onnx.ValueInfoProto
    dimensions = info.type.tensor_type.shape.dim
    del dimensions[:]
    for side in shape:
        dimensions.add(dim_value=int(side))


def _forget_shapes(model: Any) -> None:  # noqa: ANN401 - onnx.ModelProto
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")


def _rename(model: Any, names: dict[str, str]) -> None:  # noqa: ANN401 - onnx.ModelProto
    """Renames tensors everywhere; a tensor that already has a wanted name steps aside."""
    taken = set(names.values()) - set(names)
    table = {name: f"{name}_inner" for name in taken} | names

    def visit(graph: Any) -> None:  # noqa: ANN401 - onnx.GraphProto
        for info in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
            info.name = table.get(info.name, info.name)
        for node in graph.node:
            for list_of_names in (node.input, node.output):
                for i, name in enumerate(list_of_names):
                    list_of_names[i] = table.get(name, name)
            for attribute in node.attribute:
                for inner in [attribute.g] * attribute.HasField("g") + list(attribute.graphs):
                    visit(inner)

    visit(model.graph)
