# SPDX-License-Identifier: Apache-2.0
"""Layouts of data sets that are read, and those that are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shipsight.build.measure import load_dataset
from shipsight.errors import DatasetError, UsageError
from shipsight.model import Card, Head, InputContract, OutputContract, Task

WriteImage = Callable[[Path, int], Path]


def card(names: tuple[str, ...], task: Task = Task.DETECT) -> Card:
    return Card("m", "1", task, names, InputContract((64, 64)), OutputContract(Head.YOLOV8))


@pytest.fixture
def folder(tmp_path: Path, write_image: WriteImage) -> Path:
    for i, name in enumerate(["train/a.jpg", "train/deep/b.png", "val/images/c.jpg"]):
        write_image(tmp_path / "images" / name, i)
    (tmp_path / "images" / "train" / "notes.md").write_text("not an image", encoding="utf-8")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("1 .5 .5 .2 .2\n", encoding="utf-8")
    return tmp_path


def write_yaml(folder: Path, text: str) -> Path:
    file = folder / "data.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("names", ["names: [x, y]", "names: {0: x, 1: y}", "nc: 2"], ids=["list", "mapping", "nc"])
def test_names_are_read(folder: Path, names: str) -> None:
    dataset = load_dataset(write_yaml(folder, f"train: images/train\nval: images/val\n{names}\n"), Task.DETECT)
    assert dataset.class_names == (("0", "1") if names.startswith("nc") else ("x", "y"))
    assert [sample.image.name for sample in dataset.splits["train"]] == ["a.jpg", "b.png"]


def test_labels_lie_where_images_becomes_labels_and_missing_ones_are_background(folder: Path) -> None:
    dataset = load_dataset(write_yaml(folder, "train: images/train\nval: images/val\nnames: [x, y]\n"), Task.DETECT)
    first, second = dataset.splits["train"]
    assert first.labels.class_ids.tolist() == [1]
    assert len(second.labels) == 0
    last = folder / "images" / "val" / "labels"
    last.mkdir()
    (last / "c.txt").write_text("0 .5 .5 .1 .1", encoding="utf-8")
    assert len(dataset.splits["val"][0].labels) == 1, "only the last images folder is replaced"


def test_path_is_relative_to_the_yaml_and_lists_of_folders_are_joined(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    text = "path: ..\ntrain: [images/train, images/val]\nval: images/val\nnames: [x]\n"
    dataset = load_dataset(write_yaml(place, text), Task.DETECT)
    assert len(dataset.splits["train"]) == 3


def test_list_file_is_relative_to_itself_or_to_the_root(folder: Path) -> None:
    (folder / "images" / "list.txt").write_text("./train/a.jpg\n\nimages/val/images/c.jpg\n", encoding="utf-8")
    dataset = load_dataset(write_yaml(folder, "val: images/list.txt\nnames: [x, y]\n"), Task.DETECT)
    assert [sample.image.name for sample in dataset.splits["val"]] == ["a.jpg", "c.jpg"]


def test_bad_label_is_refused_only_when_asked_for(folder: Path) -> None:
    (folder / "labels" / "train" / "a.txt").write_text("7 .5 .5 .2 .2\n", encoding="utf-8")
    dataset = load_dataset(write_yaml(folder, "train: images/train\nnames: [x, y]\n"), Task.DETECT)
    with pytest.raises(DatasetError, match=r"a\.txt:1: class id out of range"):
        _ = dataset.splits["train"][0].labels


def test_reading_writes_nothing(folder: Path) -> None:
    file = write_yaml(folder, "train: images/train\nval: images/val\nnames: [x, y]\n")
    before = sorted(folder.rglob("*"))
    for samples in load_dataset(file, Task.DETECT).splits.values():
        for sample in samples:
            assert sample.labels is sample.labels
            assert len(sample.digest) == 64
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("val: images/none\nnames: [x]", "no such path", id="missing-folder"),
        pytest.param("path: none\nval: images/val\nnames: [x]", "no such path", id="missing-root"),
        pytest.param("names: [x]", "names no split", id="no-split"),
        pytest.param("val: images/val", "names no classes", id="no-names"),
        pytest.param("val: images/val\nnames: {0: x, 2: y}", "count up from 0", id="gap-in-names"),
        pytest.param("val: images/val\nnames: x", "list or a mapping", id="names-word"),
        pytest.param("val: labels/train\nnames: [x]", "split has no image", id="no-image"),
        pytest.param("val: data.yaml\nnames: [x]", "neither a folder nor a list", id="other-file"),
        pytest.param("val: [3]\nnames: [x]", "names folders or list files", id="number"),
        pytest.param("- val", "is not a data set", id="list"),
        pytest.param("val: [", "not readable as YAML", id="broken"),
        pytest.param("val: !!python/object/apply:os.system [id]", "not readable as YAML", id="hostile"),
    ],
)
def test_bad_yaml_is_refused(folder: Path, text: str, expected: str) -> None:
    with pytest.raises(DatasetError, match=expected):
        load_dataset(write_yaml(folder, text), Task.DETECT)


def test_missing_yaml_and_missing_listed_image_are_refused(folder: Path) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        load_dataset(folder / "none.yaml", Task.DETECT)
    (folder / "list.txt").write_text("images/train/a.jpg\nimages/none.jpg\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"list\.txt:2: listed image does not exist"):
        load_dataset(write_yaml(folder, "val: list.txt\nnames: [x]"), Task.DETECT)


@pytest.mark.parametrize("shape", ["", "kpt_shape: [17]", "kpt_shape: [17, 4]", "kpt_shape: [0, 3]"])
def test_pose_without_a_keypoint_shape_is_refused(folder: Path, shape: str) -> None:
    with pytest.raises(DatasetError, match="keypoint shape"):
        load_dataset(write_yaml(folder, f"val: images/val\nnames: [x]\n{shape}\n"), Task.POSE)


def test_class_folders_are_numbered_by_sorted_name_or_by_the_model(tmp_path: Path, write_image: WriteImage) -> None:
    for i, name in enumerate(["train/cat/1.jpg", "train/ant/2.jpg", "val/cat/3.jpg"]):
        write_image(tmp_path / name, i)
    dataset = load_dataset(tmp_path, Task.CLASSIFY)
    assert dataset.class_names == ("ant", "cat")
    assert dataset.splits["val"][0].labels.class_ids.tolist() == [1]
    dataset = load_dataset(tmp_path, Task.CLASSIFY, class_names=("cat", "dog", "ant"))
    assert dataset.splits["val"][0].labels.class_ids.tolist() == [0]
    with pytest.raises(DatasetError, match=r"class folders do not fit.*cat"):
        load_dataset(tmp_path, Task.CLASSIFY, class_names=("dog", "ant"))
    with pytest.raises(UsageError, match=r"data\.yaml is needed"):
        load_dataset(tmp_path, Task.DETECT)


def test_plain_class_folders_and_yaml_with_class_folders_are_read(tmp_path: Path, write_image: WriteImage) -> None:
    for i, name in enumerate(["plain/a/1.jpg", "plain/b/2.jpg"]):
        write_image(tmp_path / name, i)
    assert {
        split: len(samples) for split, samples in load_dataset(tmp_path / "plain", Task.CLASSIFY).splits.items()
    } == {"val": 2}
    dataset = load_dataset(write_yaml(tmp_path, "val: plain\nnames: [b, a]\n"), Task.CLASSIFY)
    assert [sample.labels.class_ids[0] for sample in dataset.splits["val"]] == [1, 0]


def test_card_is_compared_with_the_data(folder: Path) -> None:
    dataset = load_dataset(write_yaml(folder, "val: images/val\nnames: [cat, dog]\n"), Task.DETECT)
    assert dataset.check_card(card(("cat", "dog"))) == ()
    (warning,) = dataset.check_card(card(("cat", "hound")))
    assert warning.to_dict()["code"] == "class-names-differ"
    with pytest.raises(DatasetError, match="another order"):
        dataset.check_card(card(("dog", "cat")))
    with pytest.raises(DatasetError, match="number of classes"):
        dataset.check_card(card(("cat",)))
    with pytest.raises(DatasetError, match="another task"):
        dataset.check_card(replace(card(("cat", "dog")), task=Task.OBB))


@pytest.mark.shared
def test_shared_data_sets_are_read(shared_data: Path) -> None:
    expected = {"coco128": (Task.DETECT, 128, 64), "bccd": (Task.DETECT, 205, 87), "coco128-obb": (Task.OBB, 24, 50)}
    for name, (task, train, val) in expected.items():
        dataset = load_dataset(shared_data / name / "data.yaml", task)
        assert (len(dataset.splits["train"]), len(dataset.splits["val"])) == (train, val)
        assert sum(len(sample.labels) for samples in dataset.splits.values() for sample in samples) > train
    assert len(load_dataset(shared_data / "bccd-cls", Task.CLASSIFY).splits["val"]) == 60
