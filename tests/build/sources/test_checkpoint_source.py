# SPDX-License-Identifier: Apache-2.0
"""Ultralytics checkpoints as sources: card, export, reference; all tasks, and YOLO26 built from its YAML."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from shipsight.build.sources import Source, open_source
from shipsight.engines import EngineOptions, get_engine
from shipsight.errors import LimitError, TensorError, UnsupportedError, UntrustedError, UsageError
from shipsight.model import Fit, Head, OutputForm, Precision, Task, TensorLayout, Variant

pytestmark = pytest.mark.torch

_BUILD = """
import sys, torch
from ultralytics import YOLO
torch.manual_seed(0)
for name in sys.argv[2:]:
    model = YOLO(name + ".yaml", verbose=False).model
    model.args = {"imgsz": 64}
    torch.save({"model": model, "train_args": {"imgsz": 64, "data": "/home/me/secret/data.yaml"}}, f"{sys.argv[1]}/{name}.pt")
"""


def _build(folder: Path, *names: str) -> None:
    subprocess.run([sys.executable, "-c", _BUILD, str(folder), *names], check=True, timeout=600, capture_output=True)


def _compare(source: Source, size_hw: tuple[int, int]) -> dict[str, tuple[float, tuple[int, ...]]]:
    """Runs the export in ONNX Runtime and the source in PyTorch; returns output -> (largest difference, shape)."""
    variant = Variant(
        "reference",
        "onnxruntime",
        Precision.FP32,
        size_hw,
        TensorLayout.FLOAT_NCHW,
        OutputForm.RAW,
        ("model.onnx",),
        Precision.FP32,
    )
    tensor = np.random.default_rng(0).random((1, 3, *size_hw), np.float32)
    with (
        get_engine("onnxruntime").open({"model.onnx": source.export_onnx(size_hw)}, variant, EngineOptions()) as ours,
        source.open_reference(size_hw) as theirs,
    ):
        assert theirs.precision().float_type == "f32"
        found, expected = ours.infer(tensor), theirs.infer(tensor)
        assert list(found) == list(expected)
        with pytest.raises(TensorError):
            theirs.infer(tensor[:, :, 32:])
    return {name: (float(np.abs(found[name] - expected[name]).max()), found[name].shape) for name in found}


def test_detector_is_described_exported_and_run_when_opened(tmp_path: Path) -> None:
    _build(tmp_path, "yolo11n")
    with open_source(tmp_path / "yolo11n.pt", name="mine", version="7") as source:
        card = source.card
        assert (card.name, card.version, card.task, card.output.head) == ("mine", "7", Task.DETECT, Head.YOLOV8)
        assert (card.input.size_hw, card.input.stride, card.origin.architecture) == ((64, 64), 32, "yolo11n")
        assert card.training.arguments["data"] == "data.yaml"
        (difference, shape), *rest = _compare(source, (64, 96)).values()
        assert (shape, rest) == ((1, 84, 126), [])
        assert difference < 2e-3
        model = onnx.load_from_string(source.export_onnx((64, 64)))
        assert not {"date", "args", "description"} & {item.key for item in model.metadata_props}
        with pytest.raises(UsageError, match="multiples of 32"):
            source.export_onnx((64, 100))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("family", ["yolov8n", "yolo11n", "yolo26n"])
def test_all_five_tasks_open_and_agree_with_pytorch_when_built_from_yaml(tmp_path: Path, family: str) -> None:
    tasks = {"": Task.DETECT, "-seg": Task.SEGMENT, "-pose": Task.POSE, "-obb": Task.OBB, "-cls": Task.CLASSIFY}
    _build(tmp_path, *(f"{family}{suffix}" for suffix in tasks))
    for suffix, task in tasks.items():
        with open_source(tmp_path / f"{family}{suffix}.pt") as source:
            assert source.card.task is task
            head = Head.CLASSIFY if task is Task.CLASSIFY else Head.END2END if family == "yolo26n" else Head.YOLOV8
            assert source.card.output.head is head
            results = _compare(source, (64, 64))
            assert set(results) == ({"output0", "output1"} if task is Task.SEGMENT else {"output0"})
            if head is not Head.END2END:  # random weights give ties, whose order ends in different rows
                assert max(difference for difference, _ in results.values()) < 2e-3


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "task", "side", "shapes"),
    [
        ("yolo11n", Task.DETECT, 640, [(1, 84, 8400)]),
        ("bccd-yolo11n", Task.DETECT, 320, [(1, 7, 2100)]),
        ("yolo11n-seg", Task.SEGMENT, 320, [(1, 127, 2100), (1, 32, 80, 80)]),
        ("yolov8n-pose", Task.POSE, 640, [(1, 56, 8400)]),
        ("yolo11n-obb", Task.OBB, 320, [(1, 96, 2100)]),
        ("yolo11n-cls", Task.CLASSIFY, 64, [(1, 3)]),
    ],
)
def test_real_checkpoint_is_described_and_exported_twice_alike(
    shared_data: Path, name: str, task: Task, side: int, shapes: list[tuple[int, ...]]
) -> None:
    exports = []
    for _ in range(2):
        with open_source(shared_data / "models" / f"{name}.pt") as source:
            assert (source.card.task, source.card.input.size_hw) == (task, (side, side))
            assert (source.card.input.fit is Fit.CENTRE_CROP) == (task is Task.CLASSIFY)
            assert source.card.licence == "AGPL-3.0"
            exports.append(source.export_onnx((side, side)))
            if len(exports) == 1:
                results = _compare(source, (side, side))
                assert [shape for _, shape in results.values()] == shapes
                assert max(difference for difference, _ in results.values()) < 2e-2
    assert exports[0] == exports[1]
    if name == "bccd-yolo11n":
        assert source.card.class_names == ("RBC", "WBC", "Platelets")
        assert source.card.training.metrics["metrics/mAP50-95(B)"] == pytest.approx(0.59879)


_HOSTILE = """
import sys, torch
from ultralytics import YOLO
kind, target = sys.argv[1:]
name = {"other-network": "yolov10n", "unknown-head": "yolov5n"}.get(kind, "yolov8n")
checkpoint = {"model": YOLO(name + ".yaml", verbose=False).model, "train_args": {"imgsz": 64}}
model = checkpoint["model"]
if kind == "hook":
    model.model[0]._forward_hooks[0] = torch.Size
elif kind == "callable":
    model.model[0].__dict__["forward"] = torch.nn.Conv2d
elif kind == "memory-bomb":
    weight = torch.nn.Parameter(torch.zeros(1).half().expand(1 << 21, 1 << 20))
    model.model[0].conv.weight = weight
elif kind == "state-dict":
    checkpoint = model.state_dict()
elif kind == "yaml-activation":
    model.yaml["activation"] = f"open({target + '.canary'!r}, 'w')"
    model.yaml["yaml_file"] = target + ".canary"
torch.save(checkpoint, target)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("hook", UntrustedError, "_forward_hooks"),
        ("callable", UntrustedError, "forward"),
        ("memory-bomb", LimitError, "memory"),
        ("state-dict", UnsupportedError, "state dict"),
        ("other-network", UnsupportedError, "YOLOv10"),
        ("unknown-head", UnsupportedError, "YOLOv5"),
    ],
)
def test_network_is_refused_before_it_runs_when(
    tmp_path: Path, kind: str, error: type[Exception], message: str
) -> None:
    file = tmp_path / "best.pt"
    subprocess.run([sys.executable, "-c", _HOSTILE, kind, str(file)], check=True, timeout=600, capture_output=True)
    with pytest.raises(error, match=message):
        open_source(file)


@pytest.mark.slow
def test_architecture_description_is_never_evaluated(tmp_path: Path) -> None:
    file = tmp_path / "best.pt"
    subprocess.run(
        [sys.executable, "-c", _HOSTILE, "yaml-activation", str(file)], check=True, timeout=600, capture_output=True
    )
    with open_source(file) as source:
        source.export_onnx((64, 64))
    assert list(tmp_path.glob("*canary*")) == []
