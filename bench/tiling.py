# SPDX-License-Identifier: Apache-2.0
"""What tiling brings: accuracy on large images with many small objects, with and without windows.

    python bench/tiling.py --bundle yolo11n.bundle --data coco128/data.yaml --log bench/results/tiling-DATE.md

Validation images are laid side by side at their own size, 4 x 4 to a large image; their labels move along. An object that is
60 px high in its photograph is 15 px high for a model that sees the large image at 640 px.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import shipsight

CELL = 640
SIDE = 4
RUNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("whole image", {}),
    ("640, overlap 0.2, and the whole", {"tile": 640, "overlap": 0.2}),
    ("640, overlap 0.2", {"tile": 640, "overlap": 0.2, "whole": False}),
    ("640, no overlap", {"tile": 640, "overlap": 0.0, "whole": False}),
    ("960, overlap 0.2, and the whole", {"tile": 960, "overlap": 0.2}),
)


def compose(paths: Sequence[Path]) -> tuple[np.ndarray, list[tuple[int, float, float, float, float]]]:
    """Lays images side by side; returns RGB pixels and (class id, x, y, width, height) an object.

    Cells are shifted by half of themselves in every second row, so that windows of the cells' size cut photographs.
    """
    canvas = np.full((SIDE * CELL, SIDE * CELL + CELL // 2, 3), 114, dtype=np.uint8)
    objects = []
    for place, path in enumerate(paths):
        row, column = divmod(place, SIDE)
        image = cv2.imread(str(path))[..., ::-1]
        height, width = image.shape[:2]
        top, left = row * CELL, column * CELL + (row % 2) * CELL // 2
        canvas[top : top + height, left : left + width] = image
        label = path.parents[2] / "labels" / path.parent.name / f"{path.stem}.txt"
        for line in label.read_text().splitlines() if label.exists() else ():
            class_id, x, y, w, h = map(float, line.split())
            objects.append(
                (int(class_id), left + (x - w / 2) * width, top + (y - h / 2) * height, w * width, h * height)
            )
    return canvas, objects


def truth_of(composed: Sequence[tuple[np.ndarray, list[Any]]], classes: int) -> COCO:
    annotations = []
    for image_id, (_, objects) in enumerate(composed):
        for class_id, x, y, w, h in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": class_id,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    truth = COCO()
    truth.dataset = {
        "images": [{"id": i, "width": c.shape[1], "height": c.shape[0]} for i, (c, _) in enumerate(composed)],
        "categories": [{"id": i} for i in range(classes)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def measure(truth: COCO, answers: Sequence[Any]) -> dict[str, float]:
    results = []
    for image_id, told in enumerate(answers):
        for class_id, score, (x0, y0, x1, y1) in zip(told.class_ids, told.scores, told.boxes_xyxy, strict=True):
            box = [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]
            results.append({"image_id": image_id, "category_id": int(class_id), "bbox": box, "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(truth, truth.loadRes(results), "bbox")
        judge.params.maxDets = [1, 100, 1000]
        judge.evaluate()
        judge.accumulate()
    # [iou, recall, class, area, most]: area 1 is COCO's small, under 32 x 32 px
    precision, recall = judge.eval["precision"], judge.eval["recall"]

    def mean(values: np.ndarray) -> float:
        return float(values[values > -1].mean())

    return {
        "map": mean(precision[:, :, :, 0, -1]),
        "map50": mean(precision[0, :, :, 0, -1]),
        "map_small": mean(precision[:, :, :, 1, -1]),
        "recall50": mean(recall[0, :, 0, -1]),
        "recall50_small": mean(recall[0, :, 1, -1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="data.yaml of an Ultralytics data set")
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    told = yaml.safe_load(options.data.read_text())
    paths = sorted((options.data.parent / told["val"]).glob("*.jpg"))
    size = SIDE * SIDE
    composed = [compose(paths[start : start + size]) for start in range(0, len(paths) - size + 1, size)]
    truth = truth_of(composed, len(told["names"]))
    count = sum(len(objects) for _, objects in composed)
    small = sum(w * h < 32 * 32 for _, objects in composed for _, _, _, w, h in objects)
    lines = []
    with shipsight.load(options.bundle) as model:
        about = f"{model.card.name}, {model.variant.name}"
        for name, how in RUNS:
            begin = time.perf_counter()
            answers = [model.predict(image, conf=0.001, max_det=1000, **how)[0] for image, _ in composed]
            seconds = (time.perf_counter() - begin) / len(composed)
            found = measure(truth, answers)
            lines.append(
                f"| {name} | {found['map']:.3f} | {found['map50']:.3f} | {found['map_small']:.3f} | "
                f"{found['recall50']:.3f} | {found['recall50_small']:.3f} | {seconds:.2f} |"
            )
            print(json.dumps({"run": name, **found, "seconds": seconds}), flush=True)
    height, width = composed[0][0].shape[:2]
    page = f"""# Tiling, measured

    python bench/tiling.py --bundle yolo11n.bundle --data coco128/data.yaml

{about}; {len(composed)} images of {width} x {height} px, each of {size} COCO val2017 photographs at their own size ({len(composed) * size} in all); {count}
objects, {small} of them smaller than 32 x 32 px. pycocotools, at most 1000 predictions an image, threshold 0.001. {platform.machine()}, shared with other work:
the seconds are for orientation only. Every second row of photographs falls on windows of 640 px without overlap, which cut nothing there.

| windows | mAP50-95 | mAP50 | mAP50-95 small | recall50 | recall50 small | s an image |
|---|---|---|---|---|---|---|
""" + "\n".join(lines)
    print(page)
    if options.log:
        options.log.write_text(page + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
