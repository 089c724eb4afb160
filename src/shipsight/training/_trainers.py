# SPDX-License-Identifier: Apache-2.0
"""Ultralytics' own trainers, which train the network that they are given instead of building one anew from its description.

A pruned network has widths that no YAML file can say, and the stock trainers build from the YAML file: they would silently train a
network of full size from mostly random weights. Runs in the child process, where torch is. Private.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer

__all__ = ["Tell", "batches", "last_epoch", "loss_of", "make_trainer", "trainer_class"]

Tell = Callable[[dict[str, Any]], None]
"""Takes a line about the progress of a training."""

_STOCK = {
    "detect": DetectionTrainer,
    "segment": SegmentationTrainer,
    "pose": PoseTrainer,
    "obb": OBBTrainer,
    "classify": ClassificationTrainer,
}


def trainer_class(task: str) -> Any:  # noqa: ANN401 - ultralytics is untyped
    """Returns a task's trainer that keeps the network it is given: `YOLO("pruned.pt").train(trainer=...)`."""
    stock: Any = _STOCK[task]

    class Keeping(stock):  # type: ignore[misc] # ultralytics is untyped
        """Trains what it is given."""

        def get_model(self, cfg: object = None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:
            """Returns the network of the checkpoint; there is none without."""
            if weights is None:
                return super().get_model(cfg, weights, verbose)
            network: Any = weights.float()
            network.names = self.data["names"]
            for parameter in network.parameters():
                parameter.requires_grad_(True)
            return network

    Keeping.__name__ = Keeping.__qualname__ = stock.__name__
    return Keeping


def make_trainer(task: str, folder: Path, arguments: dict[str, Any], tell: Tell) -> Any:  # noqa: ANN401
    """Makes the trainer of a run.

    Args:
        task: of the network.
        folder: of the run; what a run that was killed goes on from lies there.
        arguments: of Ultralytics: `model`, `data`, `epochs` and so on.
        tell: is told after each epoch.
    """
    settled = {
        "project": str(folder),
        "name": "ultralytics",
        "exist_ok": True,
        "plots": False,
        "val": False,
        "workers": 0,
        "deterministic": True,
        "amp": False,
        "verbose": False,
        "save": True,
    }
    _, kept = last_epoch(folder)
    overrides = {**arguments, **settled}
    if kept is not None:
        overrides["resume"] = str(kept)
    trainer = trainer_class(task)(overrides=overrides)
    trainer.final_eval = lambda: None  # no image is looked at for a choice: what is kept is the last epoch

    def saved(one: Any) -> None:  # noqa: ANN401
        # The stock file is written in place: one that was cut short could not be gone on from.
        _, before = last_epoch(folder)
        half = folder / "resume.half"
        half.write_bytes(Path(one.last).read_bytes())
        now = half.replace(folder / f"resume-{one.epoch + 1}.pt")
        if before is not None and before != now:
            before.unlink()
        losses = one.label_loss_items(one.tloss)
        tell({"epoch": one.epoch + 1, "epochs": one.epochs, "epoch_s": one.epoch_time, "losses": _numbers(losses)})

    trainer.add_callback("on_model_save", saved)
    return trainer


def last_epoch(folder: Path) -> tuple[int, Path | None]:
    """Returns how many epochs of a run are whole, and what it goes on from; 0 and None of one that has not begun."""
    found = {int(file.stem.removeprefix("resume-")): file for file in folder.glob("resume-*.pt")}
    return max(found.items(), default=(0, None))


def _numbers(losses: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in losses.items()}


def batches(trainer: Any, count: int, size: int) -> list[dict[str, Any]]:  # noqa: ANN401
    """Returns batches of training images, letterboxed and not augmented, as the network's loss takes them.

    Args:
        trainer: of the task, with its network, not begun.
        count: of batches, fewer where there are not so many images.
        size: images a batch.
    """
    loader = trainer.get_dataloader(trainer.data["train"], batch_size=size, rank=-1, mode="val")
    return [trainer.preprocess_batch(batch) for batch in itertools.islice(loader, count)]


def loss_of(network: Any, some: list[dict[str, Any]]) -> float:  # noqa: ANN401
    """Returns the network's own loss an image, in evaluation mode, over batches."""
    network.eval()
    total, images = 0.0, 0
    with torch.no_grad():
        for batch in some:
            made = network.loss(batch)
            loss: Tensor = made[0] if isinstance(made, tuple) else made
            count = len(batch["img"])
            # Of Ultralytics' losses those with parts are sums over the batch; the one of classification is a mean.
            total += float(loss.sum()) * (count if loss.dim() == 0 else 1)
            images += count
    return total / max(images, 1)
