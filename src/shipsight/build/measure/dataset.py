# SPDX-License-Identifier: Apache-2.0
"""The data set: which images there are, by split, and where their labels lie.

What for: reads Ultralytics' `data.yaml` (or a folder of class folders) into frozen samples whose labels are read when
first asked for. Leaves to others: pixels (`vision`), choosing images for calibration, guard and report (`splits`).
Invariants: nothing is written beside the images; the order of samples is that of sorted paths (or of the list file);
an image without a label file is background. Stable.

Source: https://docs.ultralytics.com/datasets/detect/ and /classify/ for layout of `data.yaml` and folders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from shipsight.build.measure.labels import LabelFormat, Labels, read_labels
from shipsight.errors import DatasetError, UsageError
from shipsight.model import Card, Task

__all__ = ["IMAGE_SUFFIXES", "Dataset", "DatasetWarning", "Sample", "label_file", "load_dataset"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
"""File name endings, in lower case, that count as images; other files in an image folder are passed over."""

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DatasetWarning:
    """Something about the data that a reader of the numbers should know.

    Attributes:
        code: stable, for machines.
        text: for people.
    """

    code: str
    text: str

    def to_dict(self) -> dict[str, str]:
        """Returns `code` and `text`."""
        return {"code": self.code, "text": self.text}


class Sample:
    """An image file and its labels; immutable, labels and digest are read when first asked for.

    Attributes:
        image: path of the image file.
    """

    __slots__ = ("_digest", "_labels", "image")

    image: Path
    _labels: Labels | Callable[[], Labels]
    _digest: str | None

    def __init__(self, image: Path, labels: Labels | Callable[[], Labels]) -> None:
        """Ties an image to its labels.

        Args:
            image: path of the image file.
            labels: the labels, or what reads them.
        """
        object.__setattr__(self, "image", Path(image))
        object.__setattr__(self, "_labels", labels)
        object.__setattr__(self, "_digest", None)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a sample is frozen: {name}")

    def __repr__(self) -> str:
        return f"Sample({str(self.image)!r})"

    @property
    def labels(self) -> Labels:
        """The labels.

        Raises:
            DatasetError: the label file holds a line that does not fit.
        """
        held = self._labels
        if isinstance(held, Labels):
            return held
        read = held()
        object.__setattr__(self, "_labels", read)
        return read

    @property
    def digest(self) -> str:
        """SHA-256 of the image file, lower-case hexadecimal.

        Raises:
            DatasetError: the file cannot be read.
        """
        held = self._digest
        if held is None:
            try:
                held = hashlib.sha256(self.image.read_bytes()).hexdigest()
            except OSError as error:
                raise DatasetError("image cannot be read", where=self.image, got=error) from error
            object.__setattr__(self, "_digest", held)
        return held


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set.

    Attributes:
        task: what its labels answer.
        class_names: position = class id.
        splits: split name -> samples, in a stable order; only splits that the data set has.
        keypoint_shape: (keypoints, 2 or 3 values each) for pose, else None.
        origin: the file or folder it was read from.
    """

    task: Task
    class_names: tuple[str, ...]
    splits: Mapping[str, tuple[Sample, ...]]
    keypoint_shape: tuple[int, int] | None
    origin: Path

    def check_card(self, card: Card) -> tuple[DatasetWarning, ...]:
        """Compares task and classes with a model's card.

        Returns:
            A warning `class-names-differ` where names differ but cannot be told to be in another order.

        Raises:
            DatasetError: task or number of classes differ, or the same names stand in another order.
        """
        if card.task is not self.task:
            raise DatasetError("another task", where=self.origin, expected=card.task.value, got=self.task.value)
        if len(card.class_names) != len(self.class_names):
            raise DatasetError(
                "number of classes differs from the model's",
                where=self.origin,
                expected=len(card.class_names),
                got=len(self.class_names),
            )
        pairs = zip(card.class_names, self.class_names, strict=True)
        different = [(i, model, data) for i, (model, data) in enumerate(pairs) if model != data]
        if not different:
            return ()
        i, model, data = different[0]
        if set(card.class_names) == set(self.class_names):
            raise DatasetError(
                "classes stand in another order than the model's",
                where=self.origin,
                expected=f"class {i} = {model!r}",
                got=f"class {i} = {data!r}",
                hint="Order `names` as in training.",
            )
        text = f"{len(different)} class names differ from the model's, first class {i}: {data!r}, model {model!r}"
        return (DatasetWarning("class-names-differ", text),)


def load_dataset(data_yaml: Path | str, task: Task, *, class_names: Sequence[str] | None = None) -> Dataset:
    """Reads a data set's layout; labels are read later, image by image.

    Args:
        data_yaml: Ultralytics' `data.yaml`; for classify also a folder, either with `train`, `val` (or `test`)
            sub-folders of class folders, or itself full of class folders, which are then all `val`.
        task: what the labels answer.
        class_names: of the model. Classify only: class folders are looked up in it; None (default) numbers the
            folders in sorted order, as training does.

    Raises:
        DatasetError: the file or a path in it is missing or malformed, a split has no image, or a class folder is
            not among `class_names`. Label lines are not read here; `Sample.labels` refuses them.
        UsageError: a folder was given for a task other than classify.
    """
    origin = Path(data_yaml)
    if origin.is_dir():
        if task is not Task.CLASSIFY:
            raise UsageError("a data.yaml is needed, a folder will not do", where=origin, got=f"task {task.value}")
        return _load_class_folders(origin, _split_folders(origin), class_names, None)
    data = _read_yaml(origin)
    root = origin.parent if data.get("path") in (None, "") else _resolve(origin.parent, str(data["path"]), origin)
    names = _read_names(data, origin)
    given = {split: data[split] for split in _SPLITS if data.get(split)}
    if not given:
        raise DatasetError("names no split", where=origin, expected="train, val or test")
    if task is Task.CLASSIFY:
        folders = {split: _resolve(root, str(value), origin) for split, value in given.items()}
        return _load_class_folders(origin, folders, class_names, names)
    if not names:
        raise DatasetError("names no classes", where=origin, expected="names: a list or a mapping of id to name")
    layout = LabelFormat(task, len(names), _read_keypoint_shape(data, task, origin))
    splits = {split: _label_samples(_find_images(value, root, origin), layout) for split, value in given.items()}
    for split, samples in splits.items():
        if not samples:
            raise DatasetError("split has no image", where=f"{origin}: {split}", expected=sorted(IMAGE_SUFFIXES))
    return Dataset(task, names, splits, layout.keypoint_shape, origin)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError("no such file", where=file, hint="Give the path of a data.yaml.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DatasetError("is not readable as YAML", where=file, got=" ".join(str(error).split())) from error
    if not isinstance(data, dict):
        raise DatasetError("is not a data set", where=file, expected="a mapping", got=type(data).__name__)
    return data


def _resolve(base: Path, text: str, origin: Path) -> Path:
    found = base / text
    if not found.exists():
        raise DatasetError(
            "no such path", where=origin, got=found, hint="Paths are taken relative to the yaml, or to its `path`."
        )
    return found


def _read_names(data: Mapping[str, Any], origin: Path) -> tuple[str, ...]:
    names = data.get("names")
    if names is None and isinstance(data.get("nc"), int):
        return tuple(str(i) for i in range(data["nc"]))
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise DatasetError("class ids must count up from 0", where=f"{origin}: names", got=list(names)[:10])
        return tuple(str(names[i]) for i in range(len(names)))
    if names is not None and not isinstance(names, list):
        raise DatasetError("must be a list or a mapping", where=f"{origin}: names", got=type(names).__name__)
    return tuple(str(name) for name in names or ())


def _read_keypoint_shape(data: Mapping[str, Any], task: Task, origin: Path) -> tuple[int, int] | None:
    if task is not Task.POSE:
        return None
    shape = data.get("kpt_shape")
    where = f"{origin}: kpt_shape"
    if not (isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, int) for n in shape)):
        raise DatasetError("keypoint shape is missing", where=where, expected="[keypoints, 2 or 3]", got=shape)
    if shape[0] < 1 or shape[1] not in (2, 3):
        raise DatasetError("keypoint shape out of range", where=where, expected="[keypoints, 2 or 3]", got=shape)
    return shape[0], shape[1]


def _find_images(value: object, root: Path, origin: Path) -> list[Path]:
    """Returns the images of a split's value: a folder, a list file, or several of them."""
    entries = value if isinstance(value, list) else [value]
    images: dict[Path, None] = {}
    for entry in entries:
        if not isinstance(entry, str):
            raise DatasetError("a split names folders or list files", where=origin, got=repr(entry))
        place = _resolve(root, entry, origin)
        found = _walk(place) if place.is_dir() else _read_list(place, root)
        images.update(dict.fromkeys(found))
    return list(images)


def _walk(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _read_list(file: Path, root: Path) -> list[Path]:
    if file.suffix.lower() != ".txt":
        raise DatasetError("is neither a folder nor a list of images", where=file, expected="a folder or a .txt file")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError("list of images cannot be read", where=file, got=error) from error
    images = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        # Lists are written relative to themselves ("./images/a.jpg") or to the data set's root.
        image = next((path for path in (file.parent / text, root / text) if path.is_file()), None)
        if image is None:
            raise DatasetError("listed image does not exist", where=f"{file}:{number}", got=text)
        images.append(image)
    return images


def _label_samples(images: Sequence[Path], layout: LabelFormat) -> tuple[Sample, ...]:
    return tuple(Sample(image, partial(read_labels, label_file(image), layout)) for image in images)


def label_file(image: Path) -> Path:
    """Returns where an image's labels lie: its last `images` folder replaced by `labels`, else beside the image."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _split_folders(folder: Path) -> dict[str, Path]:
    folders = {split: folder / split for split in _SPLITS if (folder / split).is_dir()}
    if not folders:
        return {"val": folder}
    if "val" not in folders and "test" in folders:
        folders["val"] = folders.pop("test")
    return folders


def _load_class_folders(
    origin: Path, folders: Mapping[str, Path], class_names: Sequence[str] | None, yaml_names: tuple[str, ...] | None
) -> Dataset:
    """Reads splits that are folders of class folders.

    The order of classes: the model's where given, else the yaml's, else the sorted names of all splits' folders.
    """
    found = {
        split: sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        for split, folder in folders.items()
        if folder.is_dir()
    }
    present = sorted(set().union(*found.values())) if found else []
    names = tuple(class_names) if class_names is not None else (yaml_names or tuple(present))
    unknown = sorted(set(present) - set(names))
    if unknown or not present:
        raise DatasetError(
            "class folders do not fit", where=origin, expected=f"folders named after {list(names)[:10]}", got=unknown
        )
    splits: dict[str, tuple[Sample, ...]] = {}
    for split, folder_names in found.items():
        samples = []
        for name in folder_names:
            labels = Labels(np.array([names.index(name)], dtype=np.int64), np.zeros((1, 4)))
            samples += [Sample(image, labels) for image in _walk(folders[split] / name)]
        if not samples:
            raise DatasetError("split has no image", where=folders[split], expected=sorted(IMAGE_SUFFIXES))
        splits[split] = tuple(samples)
    return Dataset(Task.CLASSIFY, names, splits, None, origin)
