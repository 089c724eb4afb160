# SPDX-License-Identifier: Apache-2.0
"""Trains the sample model: YOLO11n from scratch on drawn scenes, with Ultralytics.

Needs `pip install 'shipsight[ultralytics]'` and the scenes of `generate.py`. Ultralytics is AGPL-3.0 and so are the
weights it trains: see `LICENSE-WEIGHTS.md` beside this file.

    python examples/digits/generate.py --out /tmp/digits
    python examples/digits/train.py --data /tmp/digits/data.yaml --out /tmp/digits-run

About 25 minutes on two cores. The committed `digits.pt` came of exactly this (2026-11-22, Ultralytics 8.4.190, torch
2.14.1): mAP50-95 0.882 on the 300 held-out scenes by Ultralytics' own validation at the end of training.
`digits.onnx` is its float export: `python examples/digits/export.py`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description="Train the digits sample from scratch.")
    parser.add_argument("--data", type=Path, required=True, help="data.yaml written by generate.py")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run")
    parser.add_argument("--epochs", type=int, default=14, help="epochs over the training scenes (default 14)")
    options = parser.parse_args()

    import torch
    from ultralytics import YOLO, settings

    settings.update({"sync": False})
    model = YOLO("yolo11n.yaml")
    # Ultralytics leaves one core idle, which is half of a machine with two.
    model.add_callback("on_train_start", lambda trainer: torch.set_num_threads(os.cpu_count() or 1))
    model.train(
        data=str(options.data),
        epochs=options.epochs,
        imgsz=256,
        batch=16,
        seed=0,
        deterministic=True,
        optimizer="AdamW",
        lr0=0.002,
        lrf=0.02,
        cos_lr=True,
        warmup_epochs=2,
        close_mosaic=4,
        # A mirrored digit is another digit.
        fliplr=0.0,
        cache="ram",
        device="cpu",
        workers=1,
        plots=False,
        amp=False,
        project=str(options.out.parent),
        name=options.out.name,
        exist_ok=True,
    )
    checkpoint = torch.load(options.out / "weights" / "best.pt", weights_only=False)
    # Ultralytics notes the folder of the repository it was started in; the weights are everybody's.
    checkpoint.pop("git", None)
    torch.save(checkpoint, options.out / "digits.pt")
    print(f"Weights: {options.out / 'digits.pt'}")


if __name__ == "__main__":
    main()
