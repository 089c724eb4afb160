# SPDX-License-Identifier: Apache-2.0
"""Suspects that run here: a bundle's variant, an ONNX file, an OpenVINO model, a checkpoint.

What a foreign file is, its own metadata say (Ultralytics'); where it has none, the bundle's card and the shapes of its tensors do.
The file is run as it is, not repaired. Private to the room.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.case import Case
from shipsight.doctor.suspect import Suspect, SuspectKind
from shipsight.engines import EngineOptions, EngineSession, get_engine
from shipsight.engines._onnxruntime_import import import_onnxruntime
from shipsight.errors import CardError, CorruptError, MissingDependencyError, TensorError
from shipsight.model import (
    Card,
    Fit,
    Head,
    ImagePredictions,
    InputContract,
    OutputContract,
    OutputForm,
    Precision,
    Task,
    TensorLayout,
    Variant,
)
from shipsight.vision import PredictSettings, postprocess, prepare, to_tensor

__all__ = ["EngineSuspect", "open_checkpoint", "open_onnx", "open_openvino", "open_variant"]

_BEST_CLASS = {"boxes", "scores", "class_ids"}
_KEYS = ("names", "imgsz", "kpt_shape", "args", "stride", "end2end")


class EngineSuspect(Suspect):
    """A model in an engine of this process, or of its child.

    Args:
        kind: what it is.
        session: opened; closed with the suspect.
        card: at the variant's input size.
        variant: how it is run.
        files: of the model.
        is_described: whether the card's class names are the suspect's own.
        baked: thresholds in the graph.
    """

    def __init__(
        self,
        kind: SuspectKind,
        session: EngineSession,
        card: Card,
        variant: Variant,
        files: Mapping[str, bytes] | None,
        *,
        is_described: bool = True,
        baked: Mapping[str, float] | None = None,
    ) -> None:
        self.kind, self.session, self.files, self.variant = kind, session, files, variant
        self._session, self._card, self._variant = session, card.with_size(variant.size_hw), variant
        self.card = self._card
        self.is_described = is_described
        self.baked = baked or {}

    def predict(
        self, image_rgb: NDArray[np.uint8], *, conf: float = 0.25, iou: float = 0.7, max_det: int = 300
    ) -> ImagePredictions:
        """Predicts; see the contract."""
        prepared, geometry = prepare(image_rgb, self._card.input)
        outputs = self._run(to_tensor(prepared, self._card.input, self._variant.layout))
        settings = PredictSettings(conf=conf, iou=iou, max_det=max_det)
        return postprocess(
            outputs, card=self._card, form=self._variant.form, geometry=geometry, settings=settings, source=None
        )

    def raw(self, batch: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Runs the graph; see the contract."""
        is_pixels = batch.dtype == np.uint8 and batch.ndim == 4
        tensors = to_tensor(batch, self._card.input, self._variant.layout) if is_pixels else batch
        if not len(tensors):
            raise TensorError("no tensors to run", where="batch", expected="one or more")
        answers = [self._run(tensors[number : number + 1]) for number in range(len(tensors))]
        return {name: np.concatenate([one[name] for one in answers]) for name in answers[0]}

    def close(self) -> None:
        """Closes the engine."""
        self._session.close()

    def _run(self, tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        if tensor.dtype == np.float32 and self._session.input.dtype == "float16":
            tensor = tensor.astype(np.float16)
        outputs = self._session.infer(tensor)
        return {
            name: one.astype(np.float32) if one.dtype == np.float16 else one for name, one in sorted(outputs.items())
        }


def open_variant(case: Case) -> EngineSuspect:
    """Opens the case's variant, its bytes checked against the manifest."""
    files = case.bundle.variant_files(case.variant.name)
    session = get_engine(case.variant.engine).open(files, case.variant, EngineOptions(threads=case.threads))
    suspect = EngineSuspect(SuspectKind.VARIANT, session, case.card, case.variant, files)
    suspect.digest = case.bundle.digest
    return suspect


def open_checkpoint(case: Case, path: Path) -> Suspect:
    """Opens a checkpoint in its own runtime, in a sandboxed child; needs the extra `ultralytics`.

    It runs at the variant's size: a checkpoint takes any, and at that of its training it would answer otherwise and be no other model.
    """
    from shipsight.build.sources import open_source

    size_hw = case.variant.size_hw
    source = open_source(path)
    try:
        session = source.open_reference(size_hw, threads=case.threads)
    finally:
        source.close()  # the session keeps the child alive
    variant = _variant("pytorch", size_hw, (path.name,))
    return EngineSuspect(SuspectKind.CHECKPOINT, session, source.card, variant, {path.name: path.read_bytes()})


def open_onnx(case: Case, path: Path) -> Suspect:
    """Opens an ONNX file in ONNX Runtime, as it is; free sides take the size that its metadata or the bundle's card say."""
    content = path.read_bytes()
    shape, said = _inspect_onnx(content, path)
    metadata = _literals(said)
    if any(side is None for side in shape):
        size_hw = _size(metadata.get("imgsz")) or (case.variant.size_hw)
        content = _fix_shape(content, size_hw, is_nhwc=shape[-1] == 3)
    return _open_foreign(case, SuspectKind.ONNX, "onnxruntime", {path.name: content}, metadata)


def open_openvino(case: Case, path: Path) -> Suspect:
    """Opens an OpenVINO model, with the `metadata.yaml` that Ultralytics writes beside it."""
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise CorruptError("the model's weights are missing", where=path.parent, expected=weights.name)
    files = {path.name: path.read_bytes(), weights.name: weights.read_bytes()}
    beside = path.with_name("metadata.yaml")
    metadata = _read_yaml(beside) if beside.is_file() else {}
    return _open_foreign(case, SuspectKind.OPENVINO, "openvino", files, metadata)


def _open_foreign(
    case: Case, kind: SuspectKind, engine: str, files: Mapping[str, bytes], metadata: Mapping[str, Any]
) -> Suspect:
    probe = _variant(engine, case.variant.size_hw, tuple(files))
    session = get_engine(engine).open(files, probe, EngineOptions(threads=case.threads))
    try:
        where = next(iter(files))
        layout, size_hw = _layout(session, where)
        variant = replace(probe, size_hw=size_hw, layout=layout, form=_form(session))
        card, is_described = _card(case, metadata, size_hw, where)
        if layout is TensorLayout.UINT8_NHWC:
            card = replace(card, input=replace(card.input, colour=case.card.input.colour))
        if variant.form is OutputForm.RAW:
            card = _fit_outputs(card, session, where, is_described=is_described)
    except BaseException:
        session.close()
        raise
    arguments = metadata.get("args")
    baked = arguments if isinstance(arguments, Mapping) and arguments.get("nms") is True else {}
    thresholds = {
        key: float(baked[key]) for key in ("conf", "iou", "max_det") if isinstance(baked.get(key), int | float)
    }
    return EngineSuspect(kind, session, card, variant, files, is_described=is_described, baked=thresholds)


def _variant(engine: str, size_hw: tuple[int, int], files: tuple[str, ...]) -> Variant:
    return Variant(
        name=f"{engine}-suspect",
        engine=engine,
        precision=Precision.FP32,
        size_hw=size_hw,
        layout=TensorLayout.FLOAT_NCHW,
        form=OutputForm.RAW,
        files=files,
        rest=Precision.FP32,
    )


def _layout(session: EngineSession, where: str) -> tuple[TensorLayout, tuple[int, int]]:
    spec = session.input
    if len(spec.shape) == 4 and spec.shape[0] == 1:
        if spec.dtype == "uint8" and spec.shape[3] == 3:
            return TensorLayout.UINT8_NHWC, (spec.shape[1], spec.shape[2])
        if spec.dtype in ("float32", "float16") and spec.shape[1] == 3:
            return TensorLayout.FLOAT_NCHW, (spec.shape[2], spec.shape[3])
    raise CardError(
        "the model takes no tensor that is handled",
        where=where,
        expected="float (1, 3, height, width) or uint8 (1, height, width, 3)",
        got=f"{spec.dtype} {spec.shape}",
    )


def _form(session: EngineSession) -> OutputForm:
    names = {one.name for one in session.outputs}
    return OutputForm.BEST_CLASS if names >= _BEST_CLASS else OutputForm.RAW


def _card(case: Case, metadata: Mapping[str, Any], size_hw: tuple[int, int], where: str) -> tuple[Card, bool]:
    """Returns what the suspect is: as its metadata say, else as the bundle does."""
    names = metadata.get("names")
    if not isinstance(names, Mapping | list) or "task" not in metadata:
        return case.card.with_size(size_hw), False
    try:
        task = Task(str(metadata["task"]))
        table = {
            int(key): str(name) for key, name in (names.items() if isinstance(names, Mapping) else enumerate(names))
        }
        class_names = tuple(table[number] for number in range(len(table)))
        arguments = metadata.get("args")
        is_end2end = str(metadata.get("end2end")) == "True" or (
            isinstance(arguments, Mapping) and arguments.get("nms") is True
        )
        head = Head.CLASSIFY if task is Task.CLASSIFY else Head.END2END if is_end2end else Head.YOLOV8
        shape = metadata.get("kpt_shape")
        keypoints = None if task is not Task.POSE or shape is None else (int(shape[0]), int(shape[1]))
        fit = Fit.CENTRE_CROP if task is Task.CLASSIFY else Fit.LETTERBOX
        contract = InputContract(size_hw=size_hw, fit=fit, stride=int(metadata.get("stride", 32)))
        if task is case.card.task and task is Task.CLASSIFY:  # mean and std do not stand in the metadata
            contract = replace(contract, mean=case.card.input.mean, std=case.card.input.std)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CorruptError("the model's metadata do not fit", where=where, got=error) from error
    output = OutputContract(head, keypoint_shape=keypoints)
    return replace(case.card, task=task, class_names=class_names, input=contract, output=output), True


def _fit_outputs(card: Card, session: EngineSession, where: str, *, is_described: bool) -> Card:
    """Returns the card with the head that the outputs' shapes show, or refuses."""
    shapes = [one.shape for one in session.outputs]
    first = next((shape for shape in shapes if len(shape) == 3), shapes[0])
    masks = next((shape[1] for shape in shapes if len(shape) == 4), 0) if card.task is Task.SEGMENT else 0
    keypoints = card.output.keypoint_shape
    extras = masks + (keypoints[0] * keypoints[1] if keypoints else 0) + (card.task is Task.OBB)
    classes = len(card.class_names)
    head: Head | None = None
    if card.task is Task.CLASSIFY:
        head = Head.CLASSIFY if first == (1, classes) else None
    elif len(first) == 3:
        if first[1] == 4 + classes + extras and card.output.head is not Head.END2END:
            head = Head.YOLOV8
        elif first[2] == 6 + extras and (card.output.head is Head.END2END or not is_described):
            head = Head.END2END
        elif first[2] == 5 + classes and card.output.head is Head.YOLOX:
            head = Head.YOLOX
    if head is None:
        raise CardError(
            "the model's outputs are not what its card says",
            where=where,
            expected=f"a head for {card.task} with {classes} classes",
            got=shapes,
            hint="Export it with its metadata (Ultralytics writes them), or give the bundle of this very model.",
        )
    rows = first[1] if head is Head.END2END and first[1] > 0 else None
    return replace(card, output=OutputContract(head, keypoints, masks, rows))


def _inspect_onnx(content: bytes, path: Path) -> tuple[tuple[int | None, ...], dict[str, str]]:
    """Returns the input's shape (None for a free side) and the metadata of an ONNX file."""
    from shipsight.engines._onnx_nodes import read_graph

    if read_graph(content).has_external_data:
        from shipsight.errors import UntrustedError

        raise UntrustedError("the model keeps weights outside its file", where=path.name)
    runtime = import_onnxruntime()
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3
    settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        session = runtime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    except (state.Fail, state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument, RuntimeError) as error:
        raise CorruptError("ONNX Runtime cannot read this file", where=path.name, got=str(error)[:300]) from error
    inputs = session.get_inputs()
    shape = tuple(side if isinstance(side, int) else None for side in inputs[0].shape)
    return shape, dict(session.get_modelmeta().custom_metadata_map)


def _fix_shape(content: bytes, size_hw: tuple[int, int], *, is_nhwc: bool) -> bytes:
    """Returns an ONNX model whose one input has a fixed size."""
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            "the model's input size is free, and what fixes it is not installed",
            where="onnx",
            got=error,
            hint="Run: pip install 'shipsight[build]'",
        ) from error
    model = onnx.load_model_from_string(content)
    sides = (1, *size_hw, 3) if is_nhwc else (1, 3, *size_hw)
    for dimension, side in zip(model.graph.input[0].type.tensor_type.shape.dim, sides, strict=True):
        dimension.dim_value = side
    del model.graph.value_info[:]
    for output in model.graph.output:
        for dimension in output.type.tensor_type.shape.dim:
            dimension.Clear()
    fixed: bytes = onnx.shape_inference.infer_shapes(model).SerializeToString()
    return fixed


def _literals(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Reads metadata as Ultralytics writes them: Python literals in text."""
    found: dict[str, Any] = dict(metadata)
    for key in _KEYS:
        if isinstance(found.get(key), str) and len(found[key]) < 2**20 and re.match(r"[\[{(\d]", found[key]):
            try:
                found[key] = ast.literal_eval(found[key])
            except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
                raise CorruptError("the model's metadata do not fit", where=key, got=error) from error
    return found


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CorruptError("the model's metadata cannot be read", where=path.name, got=error) from error
    return dict(told) if isinstance(told, Mapping) else {}


def _size(said: object) -> tuple[int, int] | None:
    sides = [said, said] if isinstance(said, int) else said
    if isinstance(sides, list | tuple) and len(sides) == 2 and all(isinstance(side, int) for side in sides):
        return int(sides[0]), int(sides[1])
    return None
