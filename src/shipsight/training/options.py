# SPDX-License-Identifier: Apache-2.0
"""What is asked of a technique that changes weights. Stable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shipsight.errors import UsageError

__all__ = ["PruneOptions", "TrainOptions"]


@dataclass(frozen=True)
class TrainOptions:
    """How is trained, and what on.

    Attributes:
        data: data.yaml of the data set, or a folder of classes.
        size_hw: of the input, None for the one that the model was trained at.
        epochs: in all, 1 and more.
        batch: images a step.
        lr: learning rate that begins.
        seeds: one matched pair of runs is trained for each.
        has_control: whether a control without the technique is trained as well.
        threads: of torch and the engines, None for one a core.
        device: that Ultralytics trains on.
        more: arguments of Ultralytics beside these.
        sandboxed: whether the model is opened only where that can be isolated.
        seed: of what is not trained: which images are measured where there are very many.
    """

    data: Path
    size_hw: tuple[int, int] | None = None
    epochs: int = 30
    batch: int = 16
    lr: float = 0.001
    seeds: tuple[int, ...] = (0,)
    has_control: bool = True
    threads: int | None = None
    device: str = "cpu"
    more: Mapping[str, Any] = field(default_factory=dict)
    sandboxed: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise UsageError("too few", where=name, expected="1 or more", got=getattr(self, name))
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise UsageError("seeds have to differ", where="seeds", expected="one or more", got=self.seeds)

    def arguments(self, data: Path, size_hw: tuple[int, int], epochs: int, seed: int) -> dict[str, Any]:
        """Returns the arguments that Ultralytics is given.

        Args:
            data: as Ultralytics reads it.
            size_hw: height and width; it trains on squares of the longer side.
            epochs: of this part of the run.
            seed: of this run.
        """
        return {
            "data": str(data.resolve()),
            "imgsz": max(size_hw),
            "epochs": epochs,
            "batch": self.batch,
            "optimizer": "AdamW",
            "lr0": self.lr,
            "lrf": 0.02,
            "cos_lr": True,
            "warmup_epochs": 1.0,
            "close_mosaic": max(epochs // 3, 1),
            "seed": seed,
            "device": self.device,
            **self.more,
        }


@dataclass(frozen=True)
class PruneOptions:
    """How much goes.

    Attributes:
        share: of the multiply-adds that is left, above 0 and below 1; None where `latency_ms` says it.
        latency_ms: median of one inference that is wanted of OpenVINO in float32 on this machine; None where `share` says it.
        multiple: of which numbers of channels are one: vector registers are filled by 16.
        steps: in how many the network is pruned, each with its part of the epochs.
        images: that sensitivity is measured on.
    """

    share: float | None = 0.55
    latency_ms: float | None = None
    multiple: int = 16
    steps: int = 1
    images: int = 64

    def __post_init__(self) -> None:
        if (self.share is None) == (self.latency_ms is None):
            raise UsageError("one target is needed", where="share, latency_ms", expected="one of the two")
        if self.share is not None and not 0 < self.share < 1:
            raise UsageError("not a share", where="share", expected="above 0, below 1", got=self.share)
        for name in ("multiple", "steps", "images"):
            if getattr(self, name) < 1:
                raise UsageError("too few", where=name, expected="1 or more", got=getattr(self, name))
