# SPDX-License-Identifier: Apache-2.0
"""The child process that prunes and trains, from the inside.

Run as `python -m shipsight.training._worker FOLDER`. Reads `job.json` in the folder, isolates itself, does the job, and writes
what was made beside it under its final name only once it is whole. Lines of JSON about its progress go to what was standard output;
prints of libraries land on standard error. Private.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shipsight.build.sources.network import check_checkpoint, import_framework, load_network
from shipsight.build.sources.sandbox import Limits, Sandbox, isolate
from shipsight.errors import MissingDependencyError, ShipsightError, UnsupportedError

__all__ = ["main"]

# A training may take what it takes: who began it ends it, and the machine is theirs.
_NO_LIMITS = Limits(cpu_s=365 * 86_400, library_memory_bytes=1 << 44, file_bytes=1 << 40, open_files=4096, threads=4096)


def main(folder: Path) -> None:
    """Does the job in a folder."""
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def tell(line: dict[str, Any]) -> None:
        lines.write(json.dumps(line) + "\n")

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    try:
        isolate(Sandbox(job["sandbox"]), _NO_LIMITS)
        import_framework()
        made = {"prune": _prune, "train": _train}[job["kind"]](folder, job, tell)
    except ShipsightError as error:
        tell({"error": error.to_dict()})
        return
    half = folder / "result.half"
    half.write_text(json.dumps(made), encoding="utf-8")
    half.replace(folder / "result.json")
    tell({"done": True})


def _open(path: Path) -> tuple[Any, dict[str, Any]]:
    network, checkpoint = load_network(check_checkpoint(path.read_bytes(), path.name), path.name)
    network = network.float()
    if getattr(network, "criterion", None) is not None:
        network.criterion = None
    return network, checkpoint


def _save(network: Any, checkpoint: dict[str, Any], place: Path) -> None:  # noqa: ANN401
    """Writes a network as Ultralytics writes one, in float32: nothing is rounded between two steps of a chain."""
    import torch
    from ultralytics import __version__

    network.eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    kept = {
        "epoch": -1,
        "best_fitness": None,
        "model": network,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "train_args": checkpoint.get("train_args") or {},
        "train_metrics": None,
        "date": datetime.now(UTC).isoformat(),
        "version": __version__,
        "license": "AGPL-3.0 (https://ultralytics.com/license)",
    }
    half = place.with_suffix(".half")
    torch.save(kept, half)
    half.replace(place)


def _prune(folder: Path, job: dict[str, Any], tell: Any) -> dict[str, Any]:  # noqa: ANN401
    try:
        import torch_pruning  # noqa: F401 - asked for here, so that its lack has a name
    except ImportError as error:
        raise MissingDependencyError(
            "torch-pruning is needed to prune", got=error, hint="pip install 'shipsight[ultralytics]'"
        ) from error
    from shipsight.training._pruning import prune_network

    network, checkpoint = _open(folder / "given.pt")
    made = prune_network(network, folder, job, tell)
    _save(network, checkpoint, folder / "made.pt")
    return made


def _train(folder: Path, job: dict[str, Any], tell: Any) -> dict[str, Any]:  # noqa: ANN401
    import torch
    from ultralytics.utils.torch_utils import strip_optimizer

    from shipsight.training._trainers import last_epoch, make_trainer

    torch.set_num_threads(job["threads"])
    network, checkpoint = _open(folder / "given.pt")
    start = folder / "start.pt"
    if not start.exists():
        _save(network, checkpoint, start)
    done, _ = last_epoch(folder)
    if done < job["arguments"]["epochs"]:
        trainer = make_trainer(job["task"], folder, {**job["arguments"], "model": str(start)}, tell)
        trainer.train()
    _, kept = last_epoch(folder)
    if kept is None:
        raise UnsupportedError("the training made no network", where=folder.name, hint="Its log lies beside it.")
    made = folder / "made.pt"
    half = made.with_suffix(".half")
    half.write_bytes(kept.read_bytes())
    strip_optimizer(half)
    half.replace(made)
    return {"epochs": job["arguments"]["epochs"]}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
