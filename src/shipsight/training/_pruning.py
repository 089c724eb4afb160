# SPDX-License-Identifier: Apache-2.0
"""Pruning a network: how much each part of it matters is measured, then what matters least goes. Runs in the child process. Private."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shipsight.training._channels import Channels
from shipsight.training._trainers import Tell, batches, loss_of, trainer_class
from shipsight.training._unfolding import fold, unfold
from shipsight.training.planning import multiply_adds, plan_channels

__all__ = ["prune_network"]

_BATCH = 16
_FLOOR = 1e-4
"""Of the whole network's loss: what seems to cost less than that is noise of few images."""


def prune_network(network: Any, folder: Path, job: dict[str, Any], tell: Tell) -> dict[str, Any]:  # noqa: ANN401
    """Prunes a network in place and has its normalization see images again.

    Args:
        network: of Ultralytics, float.
        folder: of the run.
        job: `task, size_hw, multiple, share, images, arguments, threads`, and `sensitivities` of the groups where they were
            measured before, else None.
        tell: is told of the progress.

    Returns:
        `units` with their sensitivity and what was kept, `multiply_adds` before and after, `loss` before and after.
    """
    torch.set_num_threads(job["threads"])
    size_hw = (int(job["size_hw"][0]), int(job["size_hw"][1]))
    arguments = {**job["arguments"], "project": str(folder), "name": "pruning", "exist_ok": True, "plots": False}
    trainer = trainer_class(job["task"])(
        overrides={**arguments, "workers": 0, "verbose": False, "model": str(folder / "given.pt")}
    )
    network.args = trainer.args
    trainer.model = network
    seen = batches(trainer, -(-job["images"] // _BATCH), _BATCH)
    before = loss_of(network, seen)
    unfold(network)
    channels = Channels(network, size_hw=size_hw, multiple=job["multiple"])
    known = job["sensitivities"]
    if known is None:
        known = list(_sensitivities(network, channels, seen, before, tell))
    units = tuple(replace(unit, sensitivity=one) for unit, one in zip(channels.units, known, strict=True))
    kept = plan_channels(units, channels.layers, share=job["share"]).kept
    whole = multiply_adds(channels.layers, [unit.channels for unit in units])
    left = multiply_adds(channels.layers, kept)
    channels.prune(kept)
    fold(network)
    network.criterion = None
    raw = loss_of(network, seen)
    _recalibrate(network, seen)
    after = loss_of(network, seen)
    network.criterion = None
    network.args = {}
    return {
        "units": [
            {"name": unit.name, "channels": unit.channels, "kept": count, "sensitivity": unit.sensitivity}
            for unit, count in zip(units, kept, strict=True)
        ],
        "multiply_adds": [whole, left],
        "loss": {"before": before, "pruned": raw, "recalibrated": after},
        "images": sum(len(batch["img"]) for batch in seen),
    }


def _sensitivities(
    network: Any,  # noqa: ANN401
    channels: Channels,
    seen: list[dict[str, Any]],
    whole: float,
    tell: Tell,
) -> Iterator[float]:
    """Yields what the loss grows by where half of a unit's channels are silent."""
    for place, unit in enumerate(channels.units):
        with _silenced(network, channels.removed(place, unit.channels - unit.channels // 2)):
            grown = loss_of(network, seen) - whole
        tell({"unit": place + 1, "units": len(channels.units)})
        yield max(grown, _FLOOR * whole)


@contextmanager
def _silenced(network: nn.Module, removed: Sequence[tuple[nn.Module, list[int]]]) -> Iterator[None]:
    """Has channels give nothing while the block runs."""
    parents = {child: parent for parent in network.modules() for child in parent.children()}
    held = []
    for module, indices in removed:
        norm = getattr(parents.get(module), "bn", None)
        target = norm if isinstance(norm, nn.BatchNorm2d) else module
        axis = 1 if isinstance(target, nn.ConvTranspose2d) else 0
        for parameter in (target.weight, target.bias):
            if parameter is None:
                continue
            values = parameter.data
            held.append((parameter, values))
            silent = values.clone()
            silent.index_fill_(axis if silent.dim() > 1 else 0, torch.tensor(indices, dtype=torch.long), 0.0)
            parameter.data = silent
    try:
        yield
    finally:
        for parameter, values in reversed(held):
            parameter.data = values


def _recalibrate(network: nn.Module, seen: Sequence[dict[str, Any]]) -> None:
    """Has the normalization layers measure mean and variance anew, on images as they are deployed."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
    network.train()
    with torch.no_grad():
        for batch in seen:
            network(batch["img"])
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
