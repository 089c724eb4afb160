# SPDX-License-Identifier: Apache-2.0
"""Ultralytics checkpoints, inside the sandboxed child: load, describe, export, infer.

Leaves to others: isolation (`_worker`), the card (`checkpoint`, in the parent). Invariants: a pickle is loaded only
after `_pickle_walk` passed it, only by torch's restricted unpickler, only from an archive written anew; no other load is
tried where that fails. Ultralytics gets the network, never the file. Private.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from shipsight.build.sources._allowed import MODELS
from shipsight.build.sources._attributes import check_modules, plain
from shipsight.build.sources._canonical import canonical_onnx
from shipsight.build.sources._wire import Frame
from shipsight.build.sources._worker import Operation
from shipsight.build.sources.network import check_checkpoint, import_framework, load_network
from shipsight.build.sources.sandbox import Limits, limit_memory
from shipsight.errors import UnsupportedError

__all__ = ["CheckpointWorker"]

MAX_CLASSES = 20_000
MAX_TRAINING_KEYS = 300
OPSET = 17
_METADATA = ("author", "license", "version", "stride", "task", "head", "batch", "imgsz", "names", "channels", "end2end")
_METADATA_POSE = ("kpt_shape", "kpt_names")


class CheckpointWorker:
    """Answers requests about one checkpoint."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._model: Any = None
        self._running: Any = None

    def operations(self) -> dict[str, Operation]:
        """Names the requests."""
        return {"load": self.load, "export": self.export, "infer": self.infer, "count": self.count, "probe": self.probe}

    def probe(self, parameters: dict[str, Any], blobs: list[bytes]) -> Frame:
        """Tells what this process can still do, for the sandbox's own test."""
        from shipsight.build.sources._probe import probe

        return {"can": probe(parameters)}, []

    def load(self, parameters: dict[str, Any], blobs: list[bytes]) -> Frame:
        """Loads a checkpoint and describes it."""
        where = str(parameters["file_name"])
        limit_memory(self._limits.memory_bytes)
        (data,) = blobs
        checked = check_checkpoint(data, where)
        del data
        blobs.clear()
        with _library_memory(self._limits):
            import_framework()
        import torch

        torch.set_grad_enabled(False)
        model, checkpoint = load_network(checked, where)
        self._model, description = _prepare(model, checkpoint, where)
        return description, []

    def export(self, parameters: dict[str, Any], blobs: list[bytes]) -> Frame:
        """Exports the loaded network to ONNX."""
        size = [int(side) for side in parameters["size_hw"]]
        from ultralytics.engine.exporter import Exporter

        with _library_memory(self._limits):
            import onnx
            import onnxslim
        exporter = Exporter(
            overrides={
                "format": "onnx",
                "imgsz": size,
                "batch": 1,
                "dynamic": False,
                "simplify": False,
                "opset": OPSET,
                "nms": False,
                "device": "cpu",
            }
        )
        path = Path(str(exporter(self._model)))
        model = onnx.load(str(path), load_external_data=False)
        path.unlink()
        kept = {item.key: item.value for item in model.metadata_props if item.key in _METADATA + _METADATA_POSE}
        del model.metadata_props[:]
        return {}, [canonical_onnx(onnxslim.slim(model), metadata=kept)]

    def infer(self, parameters: dict[str, Any], blobs: list[bytes]) -> Frame:
        """Runs the loaded network: float32, evaluation mode, convolutions and batch norms fused."""
        import torch

        shape = tuple(int(side) for side in parameters["shape"])
        torch.set_num_threads(int(parameters["threads"]))
        tensor = torch.from_numpy(np.frombuffer(bytearray(blobs[0]), dtype="<f4").reshape(shape))
        with torch.inference_mode():
            outputs = _outputs(self._fused()(tensor))
        arrays = [np.ascontiguousarray(output.numpy(), dtype="<f4") for output in outputs]
        return {"shapes": [list(array.shape) for array in arrays]}, [array.tobytes() for array in arrays]

    def count(self, parameters: dict[str, Any], blobs: list[bytes]) -> Frame:
        """Counts the convolutions of the network that `infer` ran."""
        kinds = ("Conv2d", "ConvTranspose2d")
        modules = [] if self._running is None else self._running.modules()
        return {"convolutions": sum(type(module).__name__ in kinds for module in modules)}, []

    def _fused(self) -> Any:  # noqa: ANN401 - a torch module
        if self._running is None:
            self._running = copy.deepcopy(self._model).fuse(verbose=False)
        head = self._running.model[-1]
        if hasattr(head, "shape"):
            head.shape = None  # or it would reuse the anchors of another size
        return self._running


def _outputs(result: Any) -> list[Any]:  # noqa: ANN401 - nested tuples of tensors
    """Picks the raw outputs that the exported graph has too.

    The networks answer (predictions, features), with the mask prototypes beside the predictions for segment:
    ((predictions, prototypes), features); for classify (probabilities, logits).
    """
    first = result[0] if isinstance(result, (tuple, list)) else result
    return list(first) if isinstance(first, (tuple, list)) else [first]


@contextlib.contextmanager
def _library_memory(limits: Limits) -> Iterator[None]:
    """Lets trusted libraries map themselves, then allows the usual memory beyond that."""
    limit_memory(limits.library_memory_bytes)
    yield
    limit_memory(limits.memory_bytes)


def _prepare(model: Any, checkpoint: dict[str, Any], where: str) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
    task = MODELS[type(model).__name__]
    transforms = _read_transforms(model.__dict__.get("transforms"))
    own_arguments = model.__dict__.get("args")
    yaml = model.__dict__.get("yaml")
    check_modules(model, where=where)
    yaml = yaml if isinstance(yaml, dict) else {}
    head = model.model[-1]
    channels = plain(yaml.get("channels", yaml.get("ch", 3)))
    if channels not in (3, None):
        raise UnsupportedError("only models of colour images are handled", where=where, expected=3, got=channels)
    names = _names(model.__dict__.get("names"), head, where)
    model.yaml = {"channels": 3, "yaml_file": "model.yaml", "backbone": [], "head": []}
    model.names = dict(enumerate(names))
    model.task = task
    model.args = {"task": task, "data": ""}
    model.pt_path = "model.pt"
    stride = model.__dict__.get("stride")
    model.stride = stride.float() if task != "classify" and hasattr(stride, "float") else _tensor([32.0])
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = True
        if type(module).__name__ == "Upsample" and not hasattr(module, "recompute_scale_factor"):
            module.recompute_scale_factor = None  # torch before 1.11 did not write it
    model = model.float().eval()
    arguments = checkpoint.get("train_args") or own_arguments
    end2end = bool(getattr(head, "one2one_cv2", None) is not None)
    if hasattr(model, "end2end"):
        model.end2end = end2end
    shape = getattr(head, "kpt_shape", None) if task == "pose" else None
    description = {
        "task": task,
        "names": names,
        "stride": int(max(model.stride.tolist())),
        "head": type(head).__name__,
        "end2end": end2end,
        "keypoint_shape": None if shape is None else [int(shape[0]), int(shape[1])],
        "mask_channels": int(head.nm) if task == "segment" else 0,
        "parameters": sum(int(parameter.numel()) for parameter in model.parameters()),
        "transforms": transforms,
        "architecture": _architecture(yaml, model),
        "licence": plain_text(checkpoint.get("license")),
        "version": plain_text(checkpoint.get("version")),
        "date": plain_text(checkpoint.get("date")),
        "epoch": plain(checkpoint.get("epoch")),
        "arguments": _mapping(arguments),
        "metrics": _mapping(checkpoint.get("train_metrics")),
    }
    return model, description


def plain_text(value: object) -> str | None:
    """Returns a text that is no path as it is, bounded."""
    return value[:100] if isinstance(value, str) else None


def _tensor(values: list[float]) -> Any:  # noqa: ANN401 - a torch tensor
    import torch

    return torch.tensor(values)


def _mapping(values: object) -> dict[str, Any]:
    if not isinstance(values, dict):
        return {}
    pairs = list(values.items())[:MAX_TRAINING_KEYS]
    return {str(key)[:100]: plain(value) for key, value in pairs if isinstance(key, str)}


def _names(names: object, head: Any, where: str) -> list[str]:  # noqa: ANN401 - a torch module
    linear = getattr(head, "linear", None)
    count = int(linear.out_features if linear is not None else head.nc)
    if not 1 <= count <= MAX_CLASSES:
        raise UnsupportedError("number of classes", where=where, expected=f"1 to {MAX_CLASSES}", got=count)
    listed: Any = dict(enumerate(names)) if isinstance(names, (list, tuple)) else names
    if not isinstance(listed, dict) or not listed:
        listed = {i: f"class{i}" for i in range(count)}
    texts = [str(listed.get(i, listed.get(str(i), f"class{i}")))[:200] for i in range(count)]
    return ["".join(c if c.isprintable() else " " for c in text) for text in texts]


def _read_transforms(transforms: object) -> dict[str, Any] | None:
    """Reads size, mean and std of a classification model's own preprocessing."""
    steps = getattr(transforms, "__dict__", {}).get("transforms")
    if not isinstance(steps, list):
        return None
    found: dict[str, Any] = {}
    for step in steps[:16]:
        state = dict(vars(step))
        kind = type(step).__name__
        if kind == "CenterCrop":
            found["size"] = plain(state.get("size"))
        elif kind == "Resize":
            found["resize"] = plain(state.get("size"))
            mode = getattr(state.get("interpolation"), "value", None)
            found["interpolation"] = plain(mode)
        elif kind == "Normalize":
            for key in ("mean", "std"):
                values: Any = state.get(key)
                found[key] = plain(values.tolist() if hasattr(values, "tolist") else values)
    return found


def _architecture(yaml: dict[Any, Any], model: Any) -> str:  # noqa: ANN401 - a torch module
    """Names the network: its YAML file's stem with the scale's letter, as Ultralytics names models."""
    stem = Path(str(plain(yaml.get("yaml_file")) or "unknown")).stem[:60]
    blocks = {type(module).__name__ for module in model.modules()}
    has_second_head = getattr(model.model[-1], "one2one_cv2", None) is not None
    family = (
        "yolov8" if "C2f" in blocks else ("yolo26" if has_second_head else "yolo11") if "C3k2" in blocks else "unknown"
    )
    return stem if stem.startswith("yolo") else family
