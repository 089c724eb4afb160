# SPDX-License-Identifier: Apache-2.0
"""ONNX files as sources, through the sandboxed child."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from tests.build.sources import hostile_onnx as make

from shipsight.build.sources import open_source
from shipsight.errors import CardError, CorruptError, UnsupportedError, UntrustedError, UsageError
from shipsight.model import Fit, Head, Task

CARD: dict[str, Any] = {
    "task": "detect",
    "head": "yolov8",
    "names": ["a", "b"],
    "fit": "letterbox",
    "normalisation": {"colour": "rgb", "scale": "1/255"},
}


def _save(folder: Path, model: Any, card: dict[str, Any] | None = None) -> Path:
    file = folder / "m.onnx"
    file.write_bytes(model.SerializeToString())
    if card is not None:
        (folder / "m.card.yaml").write_text(yaml.safe_dump(card))
    return file


def test_model_is_complete_when_it_carries_metadata(tmp_path: Path) -> None:
    with open_source(_save(tmp_path, make.detector())) as source:
        assert (source.card.task, source.card.output.head, source.card.input.fit) == (
            Task.DETECT,
            Head.YOLOV8,
            Fit.LETTERBOX,
        )
        assert source.card.class_names == ("bus/truck", "b")
        assert source.card.training.framework == "ultralytics 8.4.1"
        data = source.export_onnx((64, 64))
        with pytest.raises(UnsupportedError, match="expected 64"):
            source.export_onnx((96, 96))
        with source.open_reference((64, 64), threads=1) as session:
            tensor = np.random.default_rng(1).random((1, 3, 64, 64), np.float32)
            assert session.infer(tensor)["output0"].shape == (1, 6, 4)
    model = onnx.load_from_string(data)
    assert [info.name for info in [*model.graph.input, *model.graph.output]] == ["images", "output0"]
    assert (model.ir_version <= 10, model.opset_import[0].version <= 18) == (True, True)


def test_model_gives_same_bytes_when_opened_twice_at_free_size(tmp_path: Path) -> None:
    file = _save(tmp_path, make.detector(sides=("n", 3, "h", "w"), opset=11))
    found = []
    for _ in range(2):
        with open_source(file) as source:
            assert [warning.code for warning in source.warnings] == ["onnx-opset-converted"]
            assert source.card.input.size_hw == (64, 64)
            found.append((source.export_onnx((64, 64)), source.export_onnx((96, 64))))
            with pytest.raises(UsageError, match="multiples of 32"):
                source.export_onnx((65, 64))
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


def test_model_is_refused_with_an_example_when_nothing_describes_it(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="normalisation"):
        open_source(_save(tmp_path, make.detector(metadata={})))


def test_model_is_refused_when_card_does_not_fit_it(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="not what its card says"):
        open_source(_save(tmp_path, make.detector(metadata={}), CARD | {"names": ["a", "b", "c"]}))
    with pytest.raises(CardError, match="another size"):
        open_source(_save(tmp_path, make.detector(metadata={}), CARD | {"imgsz": 96}))


def test_suppression_is_end2end_with_a_warning_when_baked_in(tmp_path: Path) -> None:
    metadata = make.ULTRALYTICS | {"args": "{'nms': True, 'conf': 0.25}"}
    model = make.detector(metadata=metadata, rows=2, sides=(1, 3, 96, 64))  # (1, 2, 6): two detections of six values
    model.metadata_props[3].value = "[96, 64]"
    with open_source(_save(tmp_path, model)) as source:
        assert (source.card.output.head, source.card.output.max_detections) == (Head.END2END, 2)
        assert [warning.code for warning in source.warnings] == ["onnx-thresholds-baked"]


@pytest.mark.parametrize(
    ("build", "error"),
    [
        pytest.param(lambda: make.with_external("/etc/passwd"), UntrustedError, id="external-data"),
        pytest.param(lambda: make.detector(sides=(2, 3, 64, 64)), UnsupportedError, id="batch-of-two"),
        pytest.param(
            lambda: make.detector(metadata=make.ULTRALYTICS | {"names": "__import__('os')"}),
            CorruptError,
            id="code-in-names",
        ),
        pytest.param(
            lambda: make.detector(metadata=make.ULTRALYTICS | {"task": "depth"}), UnsupportedError, id="other-task"
        ),
    ],
)
def test_model_is_refused_in_the_child_when(tmp_path: Path, build: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        open_source(_save(tmp_path, build()))


@pytest.mark.parametrize("data", [b"", b"\x08", b"not a model at all", bytes(1000)])
def test_file_is_corrupt_when_it_is_no_model(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(CorruptError):
        open_source(tmp_path / "m.onnx")


def test_file_is_refused_when_it_is_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.onnx", Path("/dev/zero")):
        with pytest.raises(UsageError):
            open_source(path)
    (tmp_path / "m.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(UnsupportedError, match="without a network"):
        open_source(tmp_path / "m.safetensors")
