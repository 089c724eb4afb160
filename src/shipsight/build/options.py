# SPDX-License-Identifier: Apache-2.0
"""What a build may be told. One frozen dataclass, checked on creation. Stable."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from shipsight.errors import UsageError
from shipsight.model import Precision

__all__ = ["ENGINE_PRECISIONS", "BuildOptions", "Constraints", "GoldenKind", "Objective"]

ENGINE_PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "onnxruntime": (Precision.FP32, Precision.FP16, Precision.INT8),
    "openvino": (Precision.FP32, Precision.BF16, Precision.INT8),
}
"""Which precisions a build makes for which engine."""


class Objective(StrEnum):
    """What the default variant is best at, among those whose accuracy is acceptable."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"
    ACCURACY = "accuracy"
    SIZE = "size"


class GoldenKind(StrEnum):
    """Where golden inputs come from: the user's images, scenes drawn by shipsight, or both."""

    IMAGES = "images"
    SYNTHETIC = "synthetic"
    BOTH = "both"


@dataclass(frozen=True)
class Constraints:
    """What the default variant must keep; None means no limit.

    Attributes:
        max_latency_ms: p50 of decoded image to predictions, in milliseconds.
        min_map: mAP50-95 (top-1 for classify), 0 to 1.
        max_size_mb: of the variant's files, in 10^6 bytes.
        max_memory_mb: peak resident memory of a process that runs it, in 10^6 bytes.
    """

    max_latency_ms: float | None = None
    min_map: float | None = None
    max_size_mb: float | None = None
    max_memory_mb: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_latency_ms", "max_size_mb", "max_memory_mb"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError("limit out of range", where=name, expected="above 0", got=value)
        if self.min_map is not None and not 0 <= self.min_map <= 1:
            raise UsageError("limit out of range", where="min_map", expected="0 to 1", got=self.min_map)


@dataclass(frozen=True)
class BuildOptions:
    """How a bundle is built.

    Attributes:
        data: the data set's `data.yaml` (or a folder of classes); None leaves accuracy "not measured".
        images: folder of images for the golden set where there is no `data`.
        name: of the model; None for the source file's stem.
        version: of the model (default `1`).
        card_file: card of an ONNX file that does not describe itself.
        sizes_hw: input sizes in pixels; empty for the one the model was trained at.
        engines: which engines to build for.
        precisions: which precisions to build.
        max_drop: most absolute mAP50-95 (top-1) that INT8 may lose, 0 to 1 (default 0.01).
        required: precisions without which the build's answer is no.
        accept_undecided: whether a variant whose drop the images cannot decide may be the default.
        guard_split: split that INT8 decisions look at; None holds images out of the training split.
        golden: where golden inputs come from (default both).
        keep_all: whether variants that are not the best of their engine and precision are kept.
        objective: what the default variant is best at (default latency).
        constraints: what the default variant must keep.
        sandboxed: whether a source is refused where it cannot be opened in a sandbox (default yes).
        seed: of every choice made at random, 0 and more.
        threads: of the engines while measuring; None for one per core.
        max_images: most images of each set that are measured, 1 and more (default 500).
        force: whether an existing bundle is replaced.
    """

    data: Path | None = None
    images: Path | None = None
    name: str | None = None
    version: str = "1"
    card_file: Path | None = None
    sizes_hw: tuple[tuple[int, int], ...] = ()
    engines: tuple[str, ...] = ("onnxruntime", "openvino")
    precisions: tuple[Precision, ...] = (Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8)
    max_drop: float = 0.01
    required: tuple[Precision, ...] = ()
    accept_undecided: bool = False
    guard_split: str | None = None
    golden: GoldenKind = GoldenKind.BOTH
    keep_all: bool = False
    objective: Objective = Objective.LATENCY
    constraints: Constraints = Constraints()
    sandboxed: bool = True
    seed: int = 0
    threads: int | None = None
    max_images: int = 500
    force: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(set(self.engines) - set(ENGINE_PRECISIONS))
        if unknown or not self.engines:
            raise UsageError(
                "no such engine", where="engine", expected=sorted(ENGINE_PRECISIONS), got=unknown or "none"
            )
        if not self.precisions:
            raise UsageError("no precision is left to build", where="precision", expected=[p.value for p in Precision])
        if not 0 <= self.max_drop <= 1:
            raise UsageError("max_drop out of range", where="max_drop", expected="0 to 1", got=self.max_drop)
        if self.max_images < 1 or self.seed < 0:
            raise UsageError("out of range", where="max_images, seed", got=(self.max_images, self.seed))
        missing = set(self.required) - set(self.precisions)
        if missing:
            raise UsageError("a required precision is not built", where="require", got=sorted(missing))
        if self.golden is GoldenKind.IMAGES and self.data is None and self.images is None:
            raise UsageError("golden images need a source", where="golden", hint="Give --data or --images.")
