# SPDX-License-Identifier: Apache-2.0
"""Draws labelled scenes of handwritten digits: the data behind the sample model.

The handwriting is real: the 1,797 digits of 8 x 8 pixels that scikit-learn ships (from the UCI
"Optical Recognition of Handwritten Digits" set, CC BY 4.0). Each is enlarged, turned, inked and
pasted on a background that is drawn, so that a scene of any seed is the same on every machine
with the same library versions.

Rules:
    - No digit image stands in both the training and the held-out scenes: the images are divided
      once, by class, before a scene is drawn (`split_digits`).
    - Scene `i` of a split depends on the seed, the split and `i` alone, so 400 scenes are the first
      400 of 1,500.

Written as Ultralytics expects it:

    OUT/data.yaml
    OUT/images/{train,val}/00000.jpg   RGB, 256 x 256
    OUT/labels/{train,val}/00000.txt   class x_center y_center width height, fractions of the image
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

SCENE_SIZE_PX = 256
HELD_OUT_SHARE = 0.3
SPLITS = ("train", "val")
INK_VISIBLE = 0.35
"""Opacity from which a pixel of ink counts into the box of its digit."""

Image = NDArray[np.uint8]
Ink = NDArray[np.float32]


def split_digits(split: str) -> tuple[Ink, NDArray[np.int64]]:
    """Returns the digits that scenes of a split may show.

    Args:
        split: `train` or `val`.

    Returns:
        Ink of shape (N, 8, 8), float32 in [0, 1], and the N class ids, 0 to 9.
    """
    digits = load_digits()
    rng = np.random.default_rng(20240607)
    held_out = np.zeros(len(digits.target), dtype=bool)
    for class_id in range(10):
        members = rng.permutation(np.flatnonzero(digits.target == class_id))
        held_out[members[: round(len(members) * HELD_OUT_SHARE)]] = True
    chosen = held_out if split == "val" else ~held_out
    return (digits.images[chosen] / 16.0).astype(np.float32), digits.target[chosen]


def draw_background(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Draws a surface: a lit plane with texture and clutter, (size, size, 3) float32 in [0, 255]."""
    base = rng.uniform(20, 235, size=3)
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = base
    cells = int(rng.integers(2, 9))
    light = rng.normal(0, rng.uniform(5, 28), (cells, cells, 1)) + rng.normal(0, 8, (cells, cells, 3))
    canvas += cv2.resize(light.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.35:
        period = rng.uniform(10, 50)
        angle = rng.uniform(0, np.pi)
        ys, xs = np.mgrid[0:size, 0:size]
        wave = np.sin((xs * np.cos(angle) + ys * np.sin(angle)) * 2 * np.pi / period)
        canvas += (wave * rng.uniform(3, 14)).astype(np.float32)[..., None]
    for _ in range(int(rng.integers(0, 7))):
        colour = tuple(float(v) for v in np.clip(base + rng.normal(0, 40, 3), 0, 255))
        a, b = rng.integers(0, size, 2), rng.integers(0, size, 2)
        if rng.random() < 0.5:
            cv2.line(canvas, a.tolist(), b.tolist(), colour, int(rng.integers(1, 5)), cv2.LINE_AA)
        else:
            cv2.circle(canvas, a.tolist(), int(rng.integers(5, 50)), colour, -1, cv2.LINE_AA)
    return np.clip(canvas, 0, 255)


def draw_ink(rng: np.random.Generator, digit: Ink) -> Ink:
    """Enlarges and turns one digit; returns its opacity, cropped to the visible ink."""
    side = round(float(np.exp(rng.uniform(np.log(28), np.log(84)))))
    padded = np.pad(digit, 2)
    large = cv2.resize(padded, (side * 12 // 8, side * 12 // 8), interpolation=cv2.INTER_CUBIC)
    height, width = large.shape
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), rng.uniform(-22, 22), 1.0)
    turned = cv2.warpAffine(large, turn, (width, height), flags=cv2.INTER_LINEAR)
    sharpened = np.clip((turned - 0.25) * rng.uniform(1.5, 3.5), 0, 1).astype(np.float32)
    ys, xs = np.nonzero(sharpened > INK_VISIBLE)
    return sharpened[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]


def find_place(
    rng: np.random.Generator, taken_xyxy: list[tuple[int, int, int, int]], width: int, height: int, size: int
) -> tuple[int, int] | None:
    """Finds a top-left corner whose box overlaps none that is taken; None where 40 tries fail."""
    for _ in range(40):
        x, y = int(rng.integers(0, size - width)), int(rng.integers(0, size - height))
        if all(x + width <= x0 or x1 <= x or y + height <= y0 or y1 <= y for x0, y0, x1, y1 in taken_xyxy):
            return x, y
    return None


def ink_colour(rng: np.random.Generator, under: NDArray[np.float32]) -> NDArray[np.float64]:
    """Chooses an ink darker or lighter than the surface under it, by 50 levels at least."""
    level = float(under.mean())
    darker = rng.random() < (0.9 if level > 150 else 0.1 if level < 100 else 0.5)
    reach = max(60.0, level if darker else 255.0 - level)
    contrast = rng.uniform(50.0, reach)
    target = level - contrast if darker else level + contrast
    return np.clip(target + rng.normal(0, 18, 3), 0, 255)


def draw_scene(
    rng: np.random.Generator, digits: Ink, class_ids: NDArray[np.int64], size: int = SCENE_SIZE_PX
) -> tuple[Image, list[tuple[int, int, int, int, int]]]:
    """Draws one scene.

    Returns:
        The picture, (size, size, 3) uint8 RGB, and one (class id, x0, y0, x1, y1) a digit, in pixels.
    """
    canvas = draw_background(rng, size)
    labels: list[tuple[int, int, int, int, int]] = []
    taken: list[tuple[int, int, int, int]] = []
    for _ in range(int(rng.integers(2, 9))):
        chosen = int(rng.integers(len(digits)))
        ink = draw_ink(rng, digits[chosen])
        height, width = ink.shape
        place = find_place(rng, taken, width, height, size)
        if place is None:
            continue
        x, y = place
        region = canvas[y : y + height, x : x + width]
        colour = ink_colour(rng, region)
        opacity = ink[..., None]
        region[:] = region * (1 - opacity) + colour.astype(np.float32) * opacity
        taken.append((x, y, x + width, y + height))
        labels.append((int(class_ids[chosen]), x, y, x + width, y + height))
    if rng.random() < 0.3:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 1.1))
    canvas = canvas + rng.normal(0, rng.uniform(0, 7), canvas.shape)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8), labels


def write_split(out: Path, split: str, count: int, seed: int) -> None:
    """Writes `count` scenes of a split with their labels under `out`."""
    images, labels = out / "images" / split, out / "labels" / split
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    digits, class_ids = split_digits(split)
    for index in range(count):
        rng = np.random.default_rng([seed, SPLITS.index(split), index])
        picture_rgb, boxes = draw_scene(rng, digits, class_ids)
        cv2.imwrite(str(images / f"{index:05d}.jpg"), picture_rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
        rows = (
            f"{c} {(x0 + x1) / 2 / SCENE_SIZE_PX:.6f} {(y0 + y1) / 2 / SCENE_SIZE_PX:.6f} "
            f"{(x1 - x0) / SCENE_SIZE_PX:.6f} {(y1 - y0) / SCENE_SIZE_PX:.6f}\n"
            for c, x0, y0, x1, y1 in boxes
        )
        (labels / f"{index:05d}.txt").write_text("".join(rows), encoding="utf-8")


def main() -> None:
    """Reads the command line and writes the data set."""
    parser = argparse.ArgumentParser(description="Draw labelled scenes of handwritten digits.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--train", type=int, default=1500, help="number of training scenes (default 1500)")
    parser.add_argument("--val", type=int, default=300, help="number of held-out scenes (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes (default 0)")
    options = parser.parse_args()
    for split, count in (("train", options.train), ("val", options.val)):
        write_split(options.out, split, count, options.seed)
    names = "".join(f"  {digit}: '{digit}'\n" for digit in range(10))
    data = f"# Handwritten digits in drawn scenes, seed {options.seed}.\ntrain: images/train\nval: images/val\nnames:\n{names}"
    (options.out / "data.yaml").write_text(data, encoding="utf-8")


if __name__ == "__main__":
    main()
