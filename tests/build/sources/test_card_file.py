# SPDX-License-Identifier: Apache-2.0
"""Card files: what they may say, and how they are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from shipsight.build.sources.card_file import example_card, find_card_file, read_card_file
from shipsight.errors import CardError
from shipsight.model import Fit, Head, Task

GOOD: dict[str, Any] = {
    "task": "detect",
    "head": "yolox",
    "names": ["a", "b"],
    "fit": "letterbox-top-left",
    "normalisation": {"colour": "bgr", "scale": 1},
}


def _write(folder: Path, said: object) -> Path:
    file = folder / "m.card.yaml"
    file.write_text(said if isinstance(said, str) else yaml.safe_dump(said))
    return file


def test_card_is_read_when_complete(tmp_path: Path) -> None:
    card = read_card_file(_write(tmp_path, GOOD | {"imgsz": [384, 640], "pad_value": 0}))
    assert (card.task, card.head, card.fit, card.names) == (Task.DETECT, Head.YOLOX, Fit.LETTERBOX_TOP_LEFT, ("a", "b"))
    assert (card.colour, card.scale, card.size_hw, card.pad_value, card.stride) == ("bgr", 1.0, (384, 640), 0, 32)


def test_example_can_be_read_when_unedited(tmp_path: Path) -> None:
    text = example_card(size_hw=None, outputs=["output"], class_count=None)
    card = read_card_file(_write(tmp_path, text))
    assert card.scale == pytest.approx(1 / 255)
    assert card.size_hw == (640, 640)


def test_names_are_in_order_when_given_as_mapping(tmp_path: Path) -> None:
    assert read_card_file(_write(tmp_path, GOOD | {"names": {1: "b", 0: "bus/truck"}})).names == ("bus/truck", "b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"nams": ["a"]}, "Did you mean 'names'", id="unknown-key"),
        pytest.param({"head": "yolo8"}, "Did you mean 'yolov8'", id="unknown-head"),
        pytest.param({"task": "segment"}, "head", id="head-of-another-task"),
        pytest.param({"names": []}, "names", id="no-names"),
        pytest.param({"names": {0: "a", 2: "b"}}, "without gaps", id="gap"),
        pytest.param({"names": [True]}, "quotes", id="boolean-name"),
        pytest.param({"names": ["a\x07"]}, "printable", id="control-character"),
        pytest.param({"names": ["x" * 201]}, "200", id="long-name"),
        pytest.param({"normalisation": {"colour": "rgb"}}, "scale", id="no-scale"),
        pytest.param({"normalisation": {"colour": "rgb", "scale": 0}}, "above 0", id="zero-scale"),
        pytest.param({"normalisation": {"colour": "rgb", "scale": "1/0"}}, "fraction", id="division-by-zero"),
        pytest.param({"normalisation": {"colour": "rgb", "scale": float("nan")}}, "number", id="nan"),
        pytest.param({"normalisation": {"colour": "rgb", "scale": 1, "std": [1, 1]}}, "three", id="two-stds"),
        pytest.param({"normalisation": {"colour": "gbr", "scale": 1}}, "rgb, bgr", id="colour"),
        pytest.param({"imgsz": True}, "whole number", id="boolean-size"),
        pytest.param({"imgsz": [1, 2, 3]}, "height", id="three-sides"),
        pytest.param({"pad_value": 256}, "0 to 255", id="pad"),
        pytest.param({"keypoint_shape": [17, 3]}, "pose", id="keypoints-without-pose"),
    ],
)
def test_card_is_refused_and_says_why_when(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(CardError, match=message):
        read_card_file(_write(tmp_path, GOOD | change))


@pytest.mark.parametrize("key", sorted(GOOD))
def test_card_is_refused_when_a_needed_key_is_missing(tmp_path: Path, key: str) -> None:
    with pytest.raises(CardError, match=f"missing {key}"):
        read_card_file(_write(tmp_path, {name: value for name, value in GOOD.items() if name != key}))


@pytest.mark.parametrize(
    "text",
    [
        "- a",
        "",
        "task: [",
        "task: detect\ntask: pose",
        "a: &x [1]\nb: *x",
        "a: !!python/object/apply:os.system [true]",
        "\x00",
    ],
)
def test_card_is_refused_when_yaml_is_not_a_plain_mapping(tmp_path: Path, text: str) -> None:
    with pytest.raises(CardError):
        read_card_file(_write(tmp_path, text))


def test_card_is_refused_when_it_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="cannot be read"):
        read_card_file(tmp_path / "none.yaml")


def test_card_is_found_when_it_lies_beside_the_model(tmp_path: Path) -> None:
    assert find_card_file(tmp_path / "m.onnx") is None
    assert find_card_file(tmp_path / "m.onnx") is None
    file = _write(tmp_path, GOOD)
    assert find_card_file(tmp_path / "m.onnx") == file
