# SPDX-License-Identifier: Apache-2.0
"""The golden set: the inputs a model is recorded on, and how they lie in a bundle.

Leaves to others: recording and comparing (`recording`, `replay`, `parity`). Invariants: between 16 and 64 inputs;
synthetic ones hold no private pixel and are there for most of the set's work; the choice depends on the model, the
images and the seed alone; what is on disk is PNG, JSON and `.npz` without pickle. Stable; described in
`docs/formats/bundle.md`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import CorruptError, MissingFileError, UsageError
from shipsight.model import InputContract, format_size
from shipsight.model.bundle import Bundle, parse_json
from shipsight.model.manifest import GoldenInfo
from shipsight.model.warning import BuildWarning
from shipsight.proof.arrays import read_arrays, write_arrays, write_png
from shipsight.proof.matching import MatchCriteria
from shipsight.proof.recording import Deviation, Recording, recordings_from, recordings_to_arrays
from shipsight.proof.scenes import make_scene
from shipsight.proof.subject import Subject
from shipsight.vision import decode_image, prepare

__all__ = [
    "FOLDER",
    "GoldenFiles",
    "GoldenInput",
    "GoldenSet",
    "VariantRecording",
    "choose_golden",
    "golden_files",
    "synthetic_half",
]

FOLDER = "proof/golden/"
Image = NDArray[np.uint8]

_IMAGE_COUNT = 8
_SYNTHETIC_COUNT = 16
_REGARDLESS = 4  # synthetic inputs that are taken whether or not the model predicts something on them
_CANDIDATES, _CHILDREN = 64, 4
_ENOUGH_PREDICTIONS = 8
_LOWEST_CONF = 0.01
_MOST_PIXELS = 1_500_000
_LIMIT_INPUTS = 64


@dataclass(frozen=True, eq=False)
class GoldenInput:
    """One input.

    Attributes:
        key: name inside the set, `image-00` or `synthetic-00`.
        kind: `images` or `synthetic`.
        image_rgb: (H, W, 3) uint8 RGB, as it lies in the bundle.
        made_from: what it was made from: seeds of the scene, or the factor by which the user's image was reduced.
    """

    key: str
    kind: str
    image_rgb: Image
    made_from: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class GoldenSet:
    """The inputs and what counts as the same prediction on them.

    Attributes:
        inputs: 16 to 64.
        criteria: thresholds of matching.
        least_share: share of confident predictions that must match on another class of processor.
    """

    inputs: tuple[GoldenInput, ...]
    criteria: MatchCriteria
    least_share: float = 0.9

    @property
    def info(self) -> GoldenInfo:
        """What the manifest says of the set."""
        kinds = [one.kind for one in self.inputs]
        images, synthetic = kinds.count("images"), kinds.count("synthetic")
        kind = "both" if images and synthetic else "images" if images else "synthetic"
        return GoldenInfo(kind=kind, images=images, synthetic=synthetic)

    def only(self, kind: str) -> GoldenSet:
        """Returns the inputs of one kind."""
        return GoldenSet(tuple(one for one in self.inputs if one.kind == kind), self.criteria, self.least_share)


@dataclass(frozen=True, eq=False)
class VariantRecording:
    """What a variant gave for the golden set where it was built.

    Attributes:
        recordings: input key -> what it gave.
        tolerance: table name -> how far a repetition may be off on the same class of processor.
        cpu_class: class of the processor it was recorded on.
        runtime: engine and version.
        float_type: what its float layers ran in.
        is_integer: whether any convolution ran in integers.
        threads: numbers of threads of the repetitions.
    """

    recordings: Mapping[str, Recording]
    tolerance: Mapping[str, Deviation]
    cpu_class: str
    runtime: str
    float_type: str
    is_integer: bool
    threads: tuple[int, ...]


def choose_golden(
    subject: Subject,
    *,
    kind: str = "both",
    images: Sequence[Callable[[], Image]] = (),
    image_count: int = _IMAGE_COUNT,
    synthetic_count: int = _SYNTHETIC_COUNT,
    candidates: int = _CANDIDATES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[GoldenSet, tuple[BuildWarning, ...]]:
    """Chooses inputs on which the model predicts something.

    Args:
        subject: the model, in any form; the float reference is meant.
        kind: `images`, `synthetic` or `both`; `both` without images is `synthetic`.
        images: the user's images, each a function that gives (H, W, 3) uint8 RGB; at most 4 times `image_count` of
            them are looked at.
        image_count: how many of them to take in the kind `both`; `images` alone takes at least 16.
        synthetic_count: how many scenes to take, 16 and more.
        candidates: how many scenes to look at, `synthetic_count` and more: seven twelfths are subjects, the rest
            further settings of the strongest.
        seed: of the choice.
        progress: called with candidates looked at and candidates in all.

    Returns:
        The set, and what a person should know of it.

    Raises:
        UsageError: the kind needs images and there are none, or there would be more than 64 inputs.
    """
    if kind == "images" and not images:
        raise UsageError("a golden set of images needs images", where="golden", hint="Give --data or --images")
    wanted_images = 0 if kind == "synthetic" else max(image_count, 16 if kind == "images" else 0)
    wanted_scenes = 0 if kind == "images" else max(synthetic_count, 16)
    if wanted_images + wanted_scenes > _LIMIT_INPUTS:
        raise UsageError("too many golden inputs", where="golden", expected=f"at most {_LIMIT_INPUTS}")
    total = min(4 * wanted_images, len(images)) + (candidates if wanted_scenes else 0)
    judge = _Judge(subject, progress, total)
    chosen = judge.pick_images(images, wanted_images, seed)
    chosen += judge.pick_scenes(wanted_scenes, seed, candidates)
    warnings: list[BuildWarning] = []
    if len(chosen) < 16:
        text = f"The golden set holds {len(chosen)} inputs, fewer than 16: there are no more images."
        warnings.append(BuildWarning("golden-small", text))
    conf = _confidence([one for one in chosen if one.kind == "synthetic"] or chosen, judge.strengths)
    if conf < MatchCriteria().conf:
        text = (
            f"The model predicts little on the golden set: predictions count as confident from a score of {conf:.3f} "
            "instead of 0.25. Replay compares raw outputs in any case."
        )
        warnings.append(BuildWarning("golden-unconfident", text))
    score = min(MatchCriteria().score, conf / 2)
    return GoldenSet(tuple(chosen), MatchCriteria(conf=conf, score=score)), tuple(warnings)


class _Judge:
    """Looks at candidates with the model and keeps how strongly it answers."""

    def __init__(self, subject: Subject, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._subject = subject
        self._progress = progress
        self._total = total
        self._seen = 0
        self.strengths: dict[str, list[float]] = {}  # key -> falling scores

    def scores(self, image_rgb: Image) -> list[float]:
        """Returns the falling scores of what the model predicts."""
        prepared, geometry = prepare(image_rgb, self._subject.card.input)
        outputs = self._subject.infer(prepared)
        found = self._subject.predictions(outputs, geometry, conf=_LOWEST_CONF)
        values = [found.probabilities.max()] if found.probabilities is not None else found.scores
        self._seen += 1
        if self._progress is not None:
            self._progress(self._seen, self._total)
        return sorted((float(value) for value in values), reverse=True)

    def pick_images(self, images: Sequence[Callable[[], Image]], count: int, seed: int) -> list[GoldenInput]:
        order = np.random.RandomState(seed % 2**32).permutation(len(images))[: 4 * count].tolist()
        looked: list[tuple[float, Image, int, list[float]]] = []
        for index in order:
            image, factor = _reduced(images[index]())
            scores = self.scores(image)
            looked.append((sum(scores[:5]), image, factor, scores))
            looked.sort(key=lambda one: -one[0])  # stable: equal strengths keep the seed's order
            del looked[count:]
        chosen = []
        for number, (_, image, factor, scores) in enumerate(looked):
            key = f"image-{number:02d}"
            self.strengths[key] = scores
            chosen.append(GoldenInput(key, "images", image, {"reduced_by": factor}))
        return chosen

    def pick_scenes(self, count: int, seed: int, candidates: int) -> list[GoldenInput]:
        """Takes the scenes with the strongest answers, those of strong subjects tried in further settings."""
        if not count:
            return []
        tried: dict[tuple[int, int], list[float]] = {}
        first = max(count, candidates * 7 // 12)
        for number in range(first):
            scene = (seed * 1000 + number, 0)
            tried[scene] = self.scores(make_scene(*scene))
        parents = sorted(tried, key=lambda scene: -sum(tried[scene][:5]))[: (candidates - first) // _CHILDREN]
        for subject, _ in parents:
            for setting in range(1, _CHILDREN + 1):
                tried[subject, setting] = self.scores(make_scene(subject, setting))
        taken = list(tried)[:_REGARDLESS]
        for scene in sorted(tried, key=lambda one: -sum(tried[one][:5])):
            if len(taken) == count:
                break
            if scene not in taken and sum(one[0] == scene[0] for one in taken) < 2:
                taken.append(scene)
        taken += [scene for scene in tried if scene not in taken][: count - len(taken)]
        chosen = []
        for number, scene in enumerate(taken):
            key = f"synthetic-{number:02d}"
            self.strengths[key] = tried[scene]
            made_from = {"subject": scene[0], "setting": scene[1]}
            chosen.append(GoldenInput(key, "synthetic", make_scene(*scene), made_from))
        return chosen


def _confidence(inputs: Sequence[GoldenInput], strengths: Mapping[str, list[float]]) -> float:
    """Returns 0.25, or the score above which there are enough predictions to compare."""
    scores = sorted((score for one in inputs for score in strengths[one.key]), reverse=True)
    usual = MatchCriteria().conf
    if not scores:
        return _LOWEST_CONF
    enough = scores[min(_ENOUGH_PREDICTIONS, len(scores)) - 1]
    return usual if enough >= usual else max(_LOWEST_CONF, round(enough * 0.95, 4))


def _reduced(image_rgb: Image) -> tuple[Image, int]:
    """Reduces a large image by a whole factor, by the mean of blocks; returns it and the factor."""
    height, width = image_rgb.shape[:2]
    factor = 1
    while (height // (factor + 1)) * (width // (factor + 1)) > 0 and height * width / factor**2 > _MOST_PIXELS:
        factor += 1
    if factor == 1:
        return np.ascontiguousarray(image_rgb), 1
    rows, columns = height // factor, width // factor
    blocks = image_rgb[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 3)
    total = blocks.sum(axis=(1, 3), dtype=np.uint32)
    return ((total + factor**2 // 2) // factor**2).astype(np.uint8), factor


def golden_files(
    golden: GoldenSet,
    contracts: Sequence[InputContract],
    *,
    source: Mapping[tuple[int, int], Mapping[str, Recording]],
    variants: Mapping[str, VariantRecording],
) -> dict[str, bytes]:
    """Writes the set as files of a bundle, by their paths in it.

    Args:
        golden: the inputs.
        contracts: one an input size that variants have.
        source: input size -> what the source model gave there, in its own runtime.
        variants: variant name -> what it gave.
    """
    files: dict[str, bytes] = {}
    for one in golden.inputs:
        files[f"{FOLDER}inputs/{one.key}.png"] = write_png(one.image_rgb)
        for contract in contracts:
            prepared, _ = prepare(one.image_rgb, contract)
            files[f"{FOLDER}{_tensor_name(contract.size_hw, one.key)}"] = write_png(prepared)
    for size_hw, recordings in source.items():
        files[f"{FOLDER}source-{format_size(size_hw)}.npz"] = write_arrays(recordings_to_arrays(recordings))
    described = {}
    for name, recorded in variants.items():
        files[f"{FOLDER}variant-{name}.npz"] = write_arrays(recordings_to_arrays(recorded.recordings))
        described[name] = {
            "cpu_class": recorded.cpu_class,
            "runtime": recorded.runtime,
            "float_type": recorded.float_type,
            "is_integer": recorded.is_integer,
            "threads": list(recorded.threads),
            "tolerance": {table: one.to_dict() for table, one in recorded.tolerance.items()},
        }
    index = {
        "criteria": {"conf": golden.criteria.conf, "iou": golden.criteria.iou, "score": golden.criteria.score},
        "least_share": golden.least_share,
        "most_levels": 1,
        "inputs": [{"key": one.key, "kind": one.kind, "made_from": dict(one.made_from)} for one in golden.inputs],
        "variants": described,
    }
    files[f"{FOLDER}golden.json"] = _to_json(index)
    return files


def _tensor_name(size_hw: tuple[int, int], key: str) -> str:
    return f"tensors-{format_size(size_hw)}/{key}.png"


def _to_json(value: object) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def synthetic_half(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Returns the files of a golden set without those made from the user's images, in pictures and in numbers.

    Args:
        files: path in the bundle -> bytes; what is not of the golden set stays as it is.

    Raises:
        UsageError: the set holds no synthetic input.
    """
    index = _parse_index(files[f"{FOLDER}golden.json"])
    kept = [one for one in index["inputs"] if one["kind"] == "synthetic"]
    if not kept:
        raise UsageError("the golden set holds nothing but the user's images", where="golden")
    dropped = {one["key"] for one in index["inputs"]} - {one["key"] for one in kept}
    result: dict[str, bytes] = {}
    for name, data in files.items():
        if name.startswith(FOLDER) and name.rsplit("/", 1)[-1].removesuffix(".png") in dropped:
            continue
        if name.startswith(FOLDER) and name.endswith(".npz"):
            arrays = read_arrays(data, where=name)
            data = write_arrays({key: one for key, one in arrays.items() if key.split("/")[0] not in dropped})
        result[name] = data
    result[f"{FOLDER}golden.json"] = _to_json({**index, "inputs": kept})
    return result


class GoldenFiles:
    """A golden set as it lies in a bundle, read as needed.

    Args:
        read: gives the bytes of a file by its path in the bundle, and refuses what was changed.
    """

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self._read = read
        self._index = _parse_index(read(f"{FOLDER}golden.json"))

    @classmethod
    def of(cls, bundle: Bundle) -> GoldenFiles:
        """Reads the set of a bundle."""
        return cls(bundle.read)

    @property
    def criteria(self) -> MatchCriteria:
        """Thresholds of matching."""
        return MatchCriteria(**self._index["criteria"])

    @property
    def least_share(self) -> float:
        """Share of confident predictions that must match on another class of processor."""
        return float(self._index["least_share"])

    @property
    def most_levels(self) -> int:
        """By how many levels a prepared pixel may be off."""
        return int(self._index["most_levels"])

    def keys(self, kind: str | None = None) -> tuple[str, ...]:
        """Returns the inputs' keys, all or those of one kind."""
        return tuple(one["key"] for one in self._index["inputs"] if kind in (None, one["kind"]))

    def image(self, key: str) -> Image:
        """Returns an input, (H, W, 3) uint8 RGB."""
        return decode_image(self._read(f"{FOLDER}inputs/{key}.png"))

    def tensor(self, key: str, size_hw: tuple[int, int]) -> Image:
        """Returns a recorded prepared image, (h, w, 3) uint8 RGB."""
        name = f"{FOLDER}{_tensor_name(size_hw, key)}"
        tensor = decode_image(self._read(name))
        if tensor.shape != (*size_hw, 3):
            raise CorruptError("a recorded tensor has another size", where=name, expected=size_hw, got=tensor.shape)
        return tensor

    def variant(self, name: str) -> VariantRecording:
        """Returns what a variant gave.

        Raises:
            MissingFileError: there is no recording of it.
            CorruptError: the recording does not fit.
        """
        described = self._index["variants"].get(name)
        if described is None:
            raise MissingFileError("the golden set has no recording of this variant", where="golden.json", got=name)
        path = f"{FOLDER}variant-{name}.npz"
        arrays = read_arrays(self._read(path), where=path)
        try:
            return VariantRecording(
                recordings=recordings_from(arrays, self.keys(), where=path),
                tolerance={table: Deviation.from_dict(one) for table, one in described["tolerance"].items()},
                cpu_class=str(described["cpu_class"]),
                runtime=str(described["runtime"]),
                float_type=str(described["float_type"]),
                is_integer=bool(described["is_integer"]),
                threads=tuple(int(count) for count in described["threads"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise CorruptError("a recording does not fit", where=path, got=error) from error

    def source(self, size_hw: tuple[int, int]) -> dict[str, Recording]:
        """Returns what the source model gave at an input size."""
        path = f"{FOLDER}source-{format_size(size_hw)}.npz"
        return recordings_from(read_arrays(self._read(path), where=path), self.keys(), where=path)


def _parse_index(data: bytes) -> dict[str, Any]:
    index = parse_json(data, where=f"{FOLDER}golden.json")
    keys = {"criteria", "least_share", "most_levels", "inputs", "variants"}
    fits = isinstance(index, dict) and set(index) == keys
    fits = fits and isinstance(index["inputs"], list) and isinstance(index["variants"], dict)
    fits = fits and all(isinstance(one, dict) and {"key", "kind"} <= set(one) for one in index["inputs"])
    fits = fits and isinstance(index["criteria"], dict) and set(index["criteria"]) == {"conf", "iou", "score"}
    if not fits:
        raise CorruptError("the golden set's index does not fit", where=f"{FOLDER}golden.json", expected=sorted(keys))
    result: dict[str, Any] = index
    return result
