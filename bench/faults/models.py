# SPDX-License-Identifier: Apache-2.0
"""Models that are planted: exports that went wrong, and servers of another bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faults import exports
from faults.cost import Wrong
from faults.labels import commonest_class
from faults.planting import STRENGTHS, Planted, Scene, copied, drawn, given
from shipsight.model.bundle import open_bundle

__all__ = ["Exported", "in_servers", "wrong_exports"]


def _tail(name: str, prefix: str) -> bool:
    """Nodes of the head that decode: no convolution of its towers."""
    return name.startswith(prefix) and "/cv" not in name


def _only(*parts: str) -> Callable[[str, str], bool]:
    return lambda name, prefix: not (name.startswith(prefix) and any(part in name for part in parts))


@dataclass(frozen=True)
class Exported:
    """An export that went wrong."""

    make: Callable[[Scene, Path, int], Path]

    def wrong(self, scene: Scene, folder: Path, seed: int) -> Wrong:
        model = dataclasses.replace(scene.pipeline.model, path=self.make(scene, folder / "model.onnx", seed))
        return Wrong(dataclasses.replace(scene.pipeline, model=model, geometry={}))

    def __call__(self, scene: Scene, folder: Path, seed: int) -> list[str]:
        made = self.make(scene, folder / "model.onnx", seed)
        return given(copied(scene.some(seed, 16), folder / "images"), "--against", made)


def _fewer(scene: Scene, seed: int) -> list[Path]:
    draw = np.random.default_rng(seed)
    return [scene.calibration[n] for n in draw.permutation(len(scene.calibration))[:24].tolist()]


def _quantized(**options: object) -> Callable[[Scene, Path, int], list[str]]:
    return Exported(
        lambda scene, out, seed: exports.quantized(scene.pipeline, _fewer(scene, seed), out, **options)  # type: ignore[arg-type]
    )


def _clipped(factor: float) -> Callable[[Scene, Path, int], list[str]]:
    def make(scene: Scene, out: Path, seed: int) -> Path:
        dim = dataclasses.replace(scene.pipeline, scale=drawn(factor, seed) / 255, geometry={})
        return exports.quantized(scene.pipeline, _fewer(scene, seed), out, is_excluded=_tail, calibration=dim)

    return Exported(make)


WRONG_WEIGHTS = {"weights-differ", "stale-model", "layer-broken"}
EPOCHS = (0.003, 0.015, 0.05)
"""Noise of the weights, as shares of their deviation."""
ORDER = {"classes-permuted", "class-order-wrong", "weights-differ"}


def _case(name: str, right: set[str], plant: Callable[[Scene, Path, int], list[str]], **more: object) -> Planted:
    return Planted(name, "export", frozenset(right), plant, **more)  # type: ignore[arg-type] - its fields


def _quantizations() -> Iterator[Planted]:
    yield _case("one scale for boxes and scores", {"int8-scale-spans-boxes-and-scores"}, _quantized(types=None))
    yield _case(
        "box decoding in 8 bits",
        {"int8-dfl"},
        _quantized(types=("Conv", "Softmax", "MatMul"), is_excluded=_only("/dfl/")),
        may_be_unseen=True,
    )
    yield _case(
        "head's outputs in 8 bits",
        {"int8-head-convolutions"},
        _quantized(is_excluded=_only(".2/Conv")),
        may_be_unseen=True,
    )
    yield _case(
        "scores in 8 bits",
        {"int8-sigmoid"},
        _quantized(types=("Sigmoid",), is_excluded=lambda name, prefix: name != f"{prefix}Sigmoid"),
        may_be_unseen=True,
    )
    signed = {"int8-signed-activations", "int8-not-executed"}
    yield _case("signed activations", signed, _quantized(signed=True, is_excluded=_tail))
    yield _case("dynamic quantization", {"int8-dynamic"}, Exported(lambda s, out, _: exports.dynamic(s.pipeline, out)))
    full = _quantized(reduce_range=False, is_excluded=_tail)
    yield _case("8-bit weights without VNNI", {"int8-saturation"}, full, may_be_unseen=True)
    for strength, factor in zip(STRENGTHS, (0.7, 0.5, 0.3), strict=True):
        right = {"int8-range-clipped"}
        yield _case(
            "calibrated on dark pictures", right, _clipped(factor), strength=strength, may_be_unseen=factor > 0.6
        )


def _other_epoch(share: float) -> Callable[[Scene, Path, int], Path]:
    def make(scene: Scene, out: Path, seed: int) -> Path:
        exact = share * np.random.default_rng([seed, 1]).uniform(0.85, 1.15)
        return exports.other_weights(scene.pipeline, out, strength=exact, seed=seed)

    return make


def _refused(scene: Scene, folder: Path, seed: int) -> list[str]:
    made = exports.newer(scene.pipeline, folder / "model.onnx", opset=22, ir=99)
    return given(copied(scene.some(seed, 16), folder / "images"), "--against", made)


def _wrong_weights() -> Iterator[Planted]:
    for strength, share in zip(STRENGTHS, EPOCHS, strict=True):
        yield _case("weights of another epoch", WRONG_WEIGHTS, Exported(_other_epoch(share)), strength=strength)
    for place in (0.2, 0.7):

        def empty(scene: Scene, out: Path, seed: int, place: float = place) -> Path:
            return exports.zeroed(scene.pipeline, out, at=place)

        yield _case(f"a layer without weights, at {place}", WRONG_WEIGHTS, Exported(empty))
    yield _case(
        "classes in another order",
        ORDER,
        Exported(lambda s, out, n: exports.permuted_classes(s.pipeline, out, seed=n)),
    )
    yield _case(
        "a class that never answers",
        {"one-class-lost"},
        Exported(lambda s, out, n: exports.without_class(s.pipeline, out, number=commonest_class(s))),
    )
    for strength, share in zip(STRENGTHS, (0.004, 0.01, 0.025), strict=True):

        def moved(scene: Scene, out: Path, seed: int, share: float = share) -> Path:
            return exports.shifted(scene.pipeline, out, pixels=drawn(share, seed) * scene.pipeline.model.size_hw[0])

        yield _case("boxes lie off", {"boxes-shifted"}, Exported(moved), strength=strength)
    yield _case(
        "weights of almost nothing",
        {"denormals-slow"},
        Exported(lambda s, out, n: exports.subnormal(s.pipeline, out, share=0.2)),
        is_noted=True,
    )


def _wrong_formats() -> Iterator[Planted]:
    yield _case("a format that the runtime refuses", {"runtime-newer-format", "opset-too-new"}, _refused)
    yield _case(
        "half precision overflows",
        {"fp16-overflow"},
        Exported(lambda s, out, n: exports.overflowing(s.pipeline, out, factor=1e5)),
    )
    yield _case(
        "an opset that is too new",
        {"opset-too-new"},
        Exported(lambda s, out, n: exports.newer(s.pipeline, out, opset=22, ir=11)),
    )

    def suppressed(scene: Scene, out: Path, seed: int) -> Path:
        size = scene.pipeline.model.size_hw[0]
        return exports.with_suppression(scene.checkpoint, out, size=size, conf=0.55)

    yield _case("suppression in the graph", {"nms-baked", "thresholds-differ"}, Exported(suppressed))

    def denied(scene: Scene, out: Path, seed: int) -> Path:
        return exports.denied_suppression(scene.checkpoint, out, size=scene.pipeline.model.size_hw[0])

    yield _case("suppression that metadata deny", {"nms-missing"}, Exported(denied))
    yield _case("a free input size", {"shape-dynamic"}, _by_ultralytics(format="onnx", dynamic=True), is_noted=True)
    # Where the processor has it: elsewhere nothing is to be found.
    if "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        yield _case("bf16 unasked", {"precision-bf16-default"}, _by_ultralytics(format="openvino"), is_noted=True)


def _by_ultralytics(**options: object) -> Callable[[Scene, Path, int], list[str]]:
    def plant(scene: Scene, folder: Path, seed: int) -> list[str]:
        made = exports.exported(scene.checkpoint, folder, size=scene.pipeline.model.size_hw[0], **options)
        return given(copied(scene.some(seed, 16), folder / "images"), "--against", made)

    return plant


def wrong_exports() -> Iterator[Planted]:
    """Yields exports that lose accuracy, or do not run."""
    yield from _quantizations()
    yield from _wrong_weights()
    yield from _wrong_formats()


@dataclass(frozen=True)
class _Older:
    """A server that still answers by the weights of an earlier epoch."""

    share: float

    def wrong(self, scene: Scene, folder: Path, seed: int) -> Wrong:
        return Exported(_other_epoch(self.share)).wrong(scene, folder, seed)

    def serves(self, scene: Scene, folder: Path, seed: int) -> Path:
        # A server is asked for the model by its name.
        name = open_bundle(scene.bundle).card.name
        model = _other_epoch(self.share)(scene, folder / f"{name}.onnx", seed)
        return exports.built(model, scene.some(seed, 8), folder)

    def __call__(self, scene: Scene, folder: Path, seed: int) -> list[str]:
        return given(copied(scene.some(seed, 32), folder / "images"))


def in_servers() -> Iterator[Planted]:
    """Yields servers of another bundle."""
    right = frozenset({"stale-model", "weights-differ"})
    for word, share in zip(STRENGTHS, EPOCHS, strict=True):
        older = _Older(share)
        yield Planted("an older bundle behind a server", "server", right, older, word, serves=older.serves)
