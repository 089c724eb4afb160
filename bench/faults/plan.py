# SPDX-License-Identifier: Apache-2.0
"""The faults that are planted, each at three strengths where it has any, in turn on three models; and pipelines in which nothing is wrong.

`right` names the rules that may come first; strengths are drawn anew for each seed, around those that stand here. What is right is decided before the
doctor is asked, by what labels say that the fault costs (`cost`):

- It visibly costs accuracy (the 95 % interval of its loss lies above 0): the first finding must be a right one, as error or warning.
- It visibly costs none: the first finding must be a right one; a note will do, which says that the model does not suffer.
- Labels cannot say (speed, objects that moved, files): as if it hurt.
- Of the weakest strength, and of what a person would not see either (`may_be_unseen`), no error and no warning is right, too: the doctor has fewer images
  than labels, and none of these. How many of them hurt all the same stands beside the result.

Six rules have no fault here, and are held by tests on made evidence: `cpu-stolen` and `cpu-slowed` (only a host or heat makes them), `engine-overhead` (two
cores are too few), `int8-saturates` (a processor without VNNI), `fp16-class-ids` (more than 2,048 classes), `int8-one2one` (an end-to-end head).

Notes that tell of what was given (too few images, another file) are passed over. Something else first, as error or warning, is always wrong.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from faults import exports, photographs
from faults.cost import MOST, Wrong
from faults.labels import commonest_class, read_labels, wrong_labels
from faults.machines import plain_server, wrong_environments, wrong_servers, wrong_speed
from faults.models import Exported, in_servers, wrong_exports
from faults.planting import STRENGTHS, Planted, Scene, copied, drawn, given
from faults.stages import wrong_stages

__all__ = ["faults", "healthy"]


# --- what another pipeline fed its model ------------------------------------------------------------------------------

PREPROCESSING: dict[str, tuple[set[str], dict[str, object]]] = {
    "bgr for rgb": ({"channels-swapped"}, {"channels": "bgr"}),
    "not divided by 255": ({"scale-missing"}, {"scale": 1.0}),
    "divided by 255 twice": ({"scale-twice"}, {"scale": 1 / 255 / 255}),
    "normalized as for ImageNet": (
        {"normalized-imagenet"},
        {"mean": (0.485, 0.456, 0.406), "deviation": (0.229, 0.224, 0.225)},
    ),
    "ImageNet's mean without division": (
        {"normalized-imagenet"},
        {"scale": 1.0, "mean": (123.675, 116.28, 103.53), "deviation": (58.395, 57.12, 57.375)},
    ),
    "scaled to -1 and 1": ({"range-minus-one"}, {"scale": 2 / 255, "offset": -1.0}),
    "stretched": ({"stretched"}, {"fit": "stretch"}),
    "cropped": ({"cropped"}, {"fit": "crop"}),
    "padded with black": ({"padding-value"}, {"padding": 0}),
    "padded with white": ({"padding-value"}, {"padding": 255}),
    "padded at right and below": ({"padding-place"}, {"place": "top-left"}),
    "grey": ({"grey-input"}, {"channels": "grey"}),
    "mirrored": ({"mirrored"}, {"mirrored": True}),
    "levels of video": ({"video-range"}, {"decoded": "video"}),
    "gamma": ({"gamma-differs"}, {"gamma": 2.2}),
    "stretched, bgr": ({"stretched", "channels-swapped"}, {"fit": "stretch", "channels": "bgr"}),
    "padded with black at right, not divided": (
        {"padding-value", "padding-place", "scale-missing"},
        {"padding": 0, "place": "top-left", "scale": 1.0},
    ),
    "mirrored, bgr": ({"mirrored", "channels-swapped"}, {"mirrored": True, "channels": "bgr"}),
    "stretched, not divided": ({"stretched", "scale-missing"}, {"fit": "stretch", "scale": 1.0}),
    "grey, scaled to -1 and 1": (
        {"grey-input", "range-minus-one"},
        {"channels": "grey", "scale": 2 / 255, "offset": -1.0},
    ),
    "bgr, ImageNet": (
        {"channels-swapped", "normalized-imagenet"},
        {"channels": "bgr", "mean": (0.485, 0.456, 0.406), "deviation": (0.229, 0.224, 0.225)},
    ),
}
ONLY_TENSORS: dict[str, tuple[set[str], dict[str, object]]] = {
    "nearest pixel": ({"interpolation-differs"}, {"interpolation": cv2.INTER_NEAREST}),
    "smoothed by Pillow": ({"interpolation-differs"}, {"pillow": True}),
    "channels last": ({"layout-swapped"}, {"layout": "nhwc"}),
    "another size": ({"size-wrong"}, {"size_hw": (192, 192)}),
    "a constant too much": ({"values-differ"}, {"offset": 0.09}),
    "rectangular": ({"rectangular-letterbox", "size-wrong"}, {"size_hw": (192, 256)}),
}
SHOWN_BY: dict[str, frozenset[str]] = {
    # The pictures of digits are square, so nothing is padded, cropped or stretched; those of coco128 are 640 px wide, so nothing is resized.
    **{
        name: frozenset({"bccd", "yolo11n"})
        for name in ("padded with black", "padded with white", "cropped", "stretched", "padded at right and below")
    },
    "smoothed by Pillow": frozenset({"bccd"}),
    # Of pictures that fill the square, a stretch changes nothing.
    "stretched, not divided": frozenset({"bccd", "yolo11n"}),
    # Digits are written dark on light and light on dark.
    "inverted": frozenset({"bccd", "yolo11n"}),
    "written as RGB": frozenset({"bccd", "yolo11n"}),
}
# Where a tensor of one picture cannot show it: a square one has no padding.
POSTPROCESSING: dict[str, tuple[set[str], dict[str, object]]] = {
    "boxes of the model's pixels": ({"boxes-not-mapped-back"}, {"maps_back": False}),
    "width and height for the far corner": ({"box-format-wrong"}, {"box": "xywh"}),
    "centre and size for corners": ({"box-format-wrong"}, {"box": "cxcywh"}),
    "boxes between 0 and 1": ({"box-format-wrong", "boxes-not-mapped-back"}, {"box": "normalized"}),
    "classes counted from 1": ({"class-order-wrong", "classes-permuted"}, {"class_offset": 1}),
    "threshold of 0.6": ({"thresholds-differ"}, {"conf": 0.6}),
    "thresholds swapped": ({"thresholds-differ"}, {"conf": 0.7, "iou": 0.25}),
    "no suppression": ({"no-suppression"}, {"suppresses": False}),
    "sigmoid twice": ({"scores-wrong", "scores-compressed"}, {"sigmoid_again": True, "conf": 0.01}),
}


@dataclass(frozen=True)
class _Fed:
    """Another preprocessing or postprocessing, of which the tensor of one image is shown, or the predictions on some."""

    changes: dict[str, object]
    most: int = 12
    shows_tensor: bool = False

    def wrong(self, scene: Scene, folder: Path, seed: int) -> Wrong:
        return Wrong(dataclasses.replace(scene.pipeline, **self.changes, geometry={}))  # type: ignore[arg-type] - its fields

    def __call__(self, scene: Scene, folder: Path, seed: int) -> list[str]:
        images, pipeline = (
            scene.some(seed, 1 if self.shows_tensor else self.most),
            self.wrong(scene, folder, seed).pipeline,
        )
        if self.shows_tensor:
            np.save(folder / "fed.npy", pipeline.tensor(images[0]))
            return given(copied(images, folder / "images"), "--tensor", folder / "fed.npy")
        file = pipeline.write(images, folder / "predictions.json")
        return given(copied(images, folder / "images"), "--predictions", file)


class _OddSides(_Fed):
    """Of pictures that are a row too short for their sides to come out whole."""

    def wrong(self, scene: Scene, folder: Path, seed: int) -> Wrong:
        pipeline = super().wrong(scene, folder, seed).pipeline
        (folder / "odd").mkdir()
        return Wrong(pipeline, lambda path: _row_off(path, folder / "odd"))

    def __call__(self, scene: Scene, folder: Path, seed: int) -> list[str]:
        image = _row_off(scene.some(seed, 1)[0], folder)
        np.save(folder / "fed.npy", super().wrong(scene, folder, seed).pipeline.tensor(image))
        return given(copied([image], folder / "images"), "--tensor", folder / "fed.npy")


def _row_off(path: Path, folder: Path) -> Path:
    pixels = cv2.imread(str(path))
    made = folder / f"{path.stem}.png"
    cv2.imwrite(str(made), pixels[: pixels.shape[0] - 1])
    return made


def _tensor(changes: dict[str, object]) -> _Fed:
    return _Fed(changes, shows_tensor=True)


def _predicted(changes: dict[str, object]) -> _Fed:
    return _Fed(changes)


def _on_their_side(scene: Scene, folder: Path, seed: int) -> list[str]:
    """Images that say that they lie on their side, met by a pipeline that does not look."""
    images = []
    (folder / "images").mkdir()
    for path in scene.some(seed, 12):
        image = Image.open(path).convert("RGB")
        marks = image.getexif()
        marks[0x0112] = 8
        images.append(folder / "images" / f"{path.stem}.jpg")
        image.transpose(Image.Transpose.ROTATE_270).save(images[-1], quality=95, exif=marks)
    pipeline = dataclasses.replace(scene.pipeline, oriented=False, geometry={})
    file = pipeline.write(images, folder / "predictions.json")
    return given(folder / "images", "--predictions", file)


def _other_image(scene: Scene, folder: Path, seed: int) -> list[str]:
    one, other = scene.some(seed, 2)
    np.save(folder / "fed.npy", scene.pipeline.tensor(other))
    return given(copied([one], folder / "images"), "--tensor", folder / "fed.npy")


def _fields_apart(scene: Scene, folder: Path, seed: int) -> list[str]:
    """The two fields of an interlaced camera, taken while it moved: every second row lies farther right."""
    image = scene.some(seed, 1)
    fed = scene.pipeline.tensor(image[0])
    fed[:, :, ::2] = np.roll(fed[:, :, ::2], 5, axis=3)
    np.save(folder / "fed.npy", fed)
    return given(copied(image, folder / "images"), "--tensor", folder / "fed.npy")


def _classifier(scene: Scene, folder: Path, seed: int) -> Path:
    return exports.built(scene.checkpoint.parent / "yolo11n-cls.pt", scene.some(seed, 8), folder)


def _whole_to_classifier(scene: Scene, folder: Path, seed: int) -> list[str]:
    """A classifier that is shown the whole picture with bars, not its middle."""
    image = scene.some(seed, 1)
    np.save(folder / "fed.npy", dataclasses.replace(scene.pipeline, size_hw=(224, 224), geometry={}).tensor(image[0]))
    return given(copied(image, folder / "images"), "--tensor", folder / "fed.npy")


# --- what cameras do --------------------------------------------------------------------------------------------------

CAMERAS: dict[str, tuple[set[str], photographs.Change, tuple[float, float, float]]] = {
    "darker": ({"images-darker"}, photographs.darker, (0.35, 0.6, 0.85)),
    "veiled": ({"contrast-lower"}, photographs.veiled, (0.3, 0.55, 0.8)),
    "over-exposed": ({"images-brighter"}, photographs.brighter, (1.25, 1.6, 2.2)),
    "flat": ({"contrast-lower"}, photographs.flat, (0.4, 0.65, 0.85)),
    "blurred": ({"images-blurred"}, photographs.blurred, (0.3, 0.7, 1.5)),
    "noisy": ({"images-noisier"}, photographs.noisy, (10, 25, 50)),
    "tinted": ({"colour-cast"}, photographs.tinted, (0.2, 0.4, 0.7)),
    "recompressed": ({"compression-stronger"}, photographs.recompressed, (35, 18, 7)),
    "smaller": ({"images-smaller", "images-blurred"}, photographs.smaller, (2, 4, 7)),
    "far": ({"objects-smaller"}, photographs.far, (1.5, 2.2, 3.2)),
    "near": ({"objects-larger", "images-smaller"}, photographs.near, (1.6, 2.4, 3.5)),
    "harder": ({"contrast-higher"}, photographs.harder, (1.25, 1.6, 2.2)),
    "larger": ({"images-larger"}, photographs.larger, (1.5, 2.5, 4)),
}
MOVING = (photographs.far, photographs.near, photographs.bordered)
"""After these labels do not fit any more."""
PLAIN_CAMERAS: dict[str, tuple[set[str], photographs.Change, float]] = {
    "grey": ({"colour-lost"}, photographs.grey, 1),
    "inverted": ({"colours-inverted"}, photographs.inverted, 1),
    "written as RGB": ({"images-channels-swapped"}, photographs.written_as_rgb, 1),
    "bordered": ({"borders-added", "aspect-changed"}, photographs.bordered, 0.35),
}


@dataclass(frozen=True)
class _Changed:
    """A camera that changes pictures in one way after another, each at a strength of its own."""

    changes: tuple[tuple[photographs.Change, float], ...]
    most: int = 48

    def _made(self, images: list[Path], folder: Path, seed: int) -> Path:
        exact = [(change, drawn(its, seed, place)) for place, (change, its) in enumerate(self.changes, start=1)]
        return photographs.changed(images, folder, exact, seed)

    def wrong(self, scene: Scene, folder: Path, seed: int) -> Wrong:
        made = self._made(list(scene.images[:MOST]), folder / "costed", seed)
        return Wrong(scene.pipeline, lambda path: made / f"{path.stem}.jpg")

    def __call__(self, scene: Scene, folder: Path, seed: int) -> list[str]:
        return given(self._made(scene.some(seed, self.most), folder / "images", seed))


def _camera(change: photographs.Change, strength: float) -> Callable[[Scene, Path, int], list[str]]:
    changed = _Changed(((change, strength),))
    return (lambda scene, folder, seed: changed(scene, folder, seed)) if change in MOVING else changed


PAIRS: dict[str, tuple[set[str], tuple[photographs.Change, float], tuple[photographs.Change, float]]] = {
    "darker and noisier": ({"images-darker", "images-noisier"}, (photographs.darker, 0.6), (photographs.noisy, 30)),
    "tinted and blurred": ({"colour-cast", "images-blurred"}, (photographs.tinted, 0.7), (photographs.blurred, 1.2)),
    "flat and recompressed": (
        {"contrast-lower", "compression-stronger"},
        (photographs.flat, 0.7),
        (photographs.recompressed, 8),
    ),
    "grey and over-exposed": ({"colour-lost", "images-brighter"}, (photographs.grey, 1), (photographs.brighter, 2.0)),
}


# --- what makes it slow -----------------------------------------------------------------------------------------------


def _stored(suffix: str, width: int) -> Callable[[Scene, Path, int], list[str]]:
    """Images enlarged to a width, 0 for as they are, and stored in a format."""

    def plant(scene: Scene, folder: Path, seed: int) -> list[str]:
        (folder / "images").mkdir()
        for path in scene.some(seed, 8):
            pixels = cv2.imread(str(path))
            if width:
                pixels = cv2.resize(pixels, (width, width * 3 // 4))
            cv2.imwrite(str(folder / "images" / f"{path.stem}.{suffix}"), pixels)
        return ["speed", "--images", str(folder / "images"), "--only", "images"]

    return plant


def _slow_variant(scene: Scene, folder: Path, seed: int) -> list[str]:
    slow = sorted(path.name for path in (scene.bundle / "variants").glob("onnxruntime-fp32-*"))[0]
    return ["speed", "--variant", slow, "--only", "sweep"]


def _slow() -> Iterator[Planted]:
    for word, factor in zip(STRENGTHS, (2, 4, 16), strict=True):
        threads = str(factor * (os.cpu_count() or 1))
        yield Planted(
            "more threads than cores",
            "speed",
            frozenset({"threads-oversubscribed"}),
            # OpenVINO takes no more threads than there are cores, whatever it is told.
            lambda scene, folder, seed, threads=threads: [
                *_slow_variant(scene, folder, seed)[:-1],
                "machine",
                "--threads",
                threads,
            ],
            word,
            may_be_unseen=word == "weak",
        )
    for word, width in zip(STRENGTHS, (1600, 3000, 6000), strict=True):
        right, unseen = frozenset({"images-oversized"}), word == "weak"
        yield Planted("photographs far too large", "speed", right, _stored("jpg", width), word, may_be_unseen=unseen)
    for word, cores in zip(STRENGTHS, (1.5, 1.0, 0.5), strict=True):
        yield Planted(
            "fewer cores than it sees",
            "speed",
            frozenset({"cpu-limited"}),
            lambda scene, folder, seed: [*_slow_variant(scene, folder, seed)[:-1], "machine"],
            word,
            may_be_unseen=word == "weak",
            cores=cores,
        )
    yield Planted("stored as PNG", "speed", frozenset({"images-slow-format"}), _stored("png", 1280))
    yield Planted("the slow variant", "speed", frozenset({"variant-faster"}), _slow_variant, may_be_unseen=True)


def _cold(scene: Scene, folder: Path, seed: int) -> list[str]:
    """A process that begins anew each time, and keeps nothing of what its engine prepared."""
    slow = sorted(path.name for path in (scene.bundle / "variants").glob("openvino-int8-*"))[0]
    return ["speed", "--variant", slow, "--only", "warmup"]


def _fed_tensors() -> Iterator[Planted]:
    for name, (right, changes) in {**PREPROCESSING, **ONLY_TENSORS}.items():
        yield Planted(name, "tensor", frozenset(right), _tensor(changes), models=SHOWN_BY.get(name, frozenset()))
    rounded = _OddSides({"rounds_down": True}, shows_tensor=True)
    # 479 rows of 640 pixels come to 239.5 at 320; at 640 px, and of squares, all come out whole.
    only = frozenset({"bccd"})
    yield Planted("sides rounded down", "tensor", frozenset({"rounding-differs"}), rounded, models=only)
    yield Planted("tensor of another image", "tensor", frozenset({"other-image"}), _other_image)
    yield Planted("fields apart", "tensor", frozenset({"preprocessing-unexplained"}), _fields_apart)
    yield Planted(
        "a classifier shown the whole",
        "tensor",
        frozenset({"letterboxed"}),
        _whole_to_classifier,
        models=frozenset({"yolo11n"}),
        bundle=_classifier,
    )


def _told_predictions() -> Iterator[Planted]:
    for name, (right, changes) in PREPROCESSING.items():
        unseen = name in {"padded with black", "padded with white", "levels of video"}
        models = SHOWN_BY.get(name, frozenset())
        yield Planted(name, "predictions", frozenset(right), _predicted(changes), may_be_unseen=unseen, models=models)
    for name, (right, changes) in POSTPROCESSING.items():
        yield Planted(name, "predictions", frozenset(right), _predicted(changes))
    turned = frozenset({"orientation-ignored-by-pipeline", "orientation-ignored"})
    yield Planted("orientation not looked at", "predictions", turned, _on_their_side)


def _cameras() -> Iterator[Planted]:
    for name, (right, change, strengths) in CAMERAS.items():
        for word, strength in zip(STRENGTHS, strengths, strict=True):
            plant = _camera(change, strength)
            yield Planted(name, "camera", frozenset(right), plant, word, may_be_unseen=word == "weak")
    for name, (right, change, strength) in PLAIN_CAMERAS.items():
        plant = _camera(change, strength)
        yield Planted(name, "camera", frozenset(right), plant, models=SHOWN_BY.get(name, frozenset()))
    for name, (right, first, second) in PAIRS.items():
        yield Planted(name, "camera", frozenset(right), _Changed((first, second)))
    yield from _pictures()


def _pictures() -> Iterator[Planted]:
    """Yields what is wrong with which pictures there are, not with their pixels."""

    def shown(name: str, rules: set[str], make: Callable[[Scene, Path, int], Path], **more: object) -> Planted:
        def plant(scene: Scene, folder: Path, seed: int) -> list[str]:
            return given(make(scene, folder / "images", seed))

        return Planted(name, "camera", frozenset(rules), plant, **more)  # type: ignore[arg-type] - its fields

    yield shown(
        "lying on its side",
        {"orientation-ignored", "aspect-changed"},
        lambda scene, out, seed: photographs.turned(scene.some(seed, 48), out),
    )
    yield shown(
        "frozen",
        {"camera-frozen", "duplicates"},
        lambda scene, out, seed: photographs.repeated(scene.some(seed, 48), out, 0.6, seed),
    )
    yield shown(
        "torn files",
        {"files-corrupt"},
        lambda scene, out, seed: photographs.torn(scene.some(seed, 48), out, 0.25, seed),
    )
    yield shown("another place", {"unknown-scenes"}, lambda scene, out, seed: copied(list(scene.others[:48]), out))
    only = frozenset({"yolo11n"})
    yield shown("no people any more", {"class-mix-changed"}, _without_commonest, models=only, is_noted=True)
    yield shown(
        "six pictures", {"images-too-few"}, lambda scene, out, seed: copied(scene.some(seed, 6), out), is_noted=True
    )


def faults() -> Iterator[Planted]:
    """Yields every fault."""
    yield from _fed_tensors()
    yield from _told_predictions()
    yield from _cameras()
    yield from wrong_labels()
    yield from wrong_stages()
    yield from wrong_environments()
    yield from wrong_exports()
    yield from _slow()
    yield from wrong_speed()
    yield from wrong_servers()
    yield Planted("nothing is kept between starts", "speed", frozenset({"first-run-slow"}), _cold, is_noted=True)
    yield from in_servers()


def _without_commonest(scene: Scene, out: Path, seed: int) -> Path:
    """Where the class that is seen most everywhere else is not seen."""
    most = commonest_class(scene)

    def has_none(path: Path) -> bool:
        labels = scene.labels / f"{path.stem}.txt"
        return not labels.exists() or all(row[0] != most for row in read_labels(labels))

    return copied([path for path in scene.images if has_none(path)], out)


def healthy() -> Iterator[Planted]:
    """Yields pipelines in which nothing is wrong."""

    def plain(most: int) -> Callable[[Scene, Path, int], list[str]]:
        return lambda scene, folder, seed: given(copied(scene.some(seed, most), folder / "images"))

    def kept(scene: Scene, folder: Path, seed: int) -> list[str]:
        """Images that were stored again at a good quality."""
        return given(photographs.changed(scene.some(seed, 32), folder / "images", (), seed))

    def bundled(precision: str) -> Callable[[Scene, Path, int], list[str]]:
        def plant(scene: Scene, folder: Path, seed: int) -> list[str]:
            found = sorted(path.name for path in (scene.bundle / "variants").glob(f"*-{precision}-*"))
            chosen = (
                found[seed % len(found)] if found else sorted(p.name for p in (scene.bundle / "variants").iterdir())[0]
            )
            return given(copied(scene.some(seed, 24), folder / "images"), "--variant", chosen)

        return plant

    none: frozenset[str] = frozenset()
    for most in (16, 32, 64):
        yield Planted(f"{most} images", "healthy", none, plain(most))
    yield Planted("stored again", "healthy", none, kept)
    yield Planted("a tensor that is right", "healthy", none, _tensor({}))
    yield Planted("predictions that are right", "healthy", none, _predicted({}))
    yield Planted(
        "the same export", "healthy", none, Exported(lambda s, out, n: Path(shutil.copy(s.pipeline.model.path, out)))
    )
    yield Planted("labels given", "healthy", none, _labelled)
    for precision in ("int8", "fp16", "fp32"):
        yield Planted(f"variant in {precision}", "healthy", none, bundled(precision))
    yield Planted("as it was built, speed", "healthy", none, lambda scene, folder, seed: ["speed"])
    yield Planted("a server as it comes", "healthy", none, lambda scene, folder, seed: ["speed"], around=plain_server)


def _labelled(scene: Scene, folder: Path, seed: int) -> list[str]:
    images = scene.some(seed, 32)
    (folder / "labels").mkdir()
    for path in images:
        label = scene.labels / f"{path.stem}.txt"
        if label.exists():
            shutil.copy(label, folder / "labels" / label.name)
    return given(copied(images, folder / "images"), "--labels", folder / "labels")
