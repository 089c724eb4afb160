# SPDX-License-Identifier: Apache-2.0
"""Pictures that convince: production beside golden images, and how a measure lies here against training. Pure. Private."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.data.correcting import MISTAKES
from shipsight.doctor.data.evidence import DataEvidence
from shipsight.doctor.data.training import SCALES, Distribution, Training
from shipsight.doctor.finding import Picture
from shipsight.proof.arrays import write_png
from shipsight.vision import import_cv2

__all__ = ["draw_histogram", "draw_pairs", "show"]

Image = NDArray[np.uint8]
_PAIRS = 3
_SIDE = 200
_GAP = 8
_BINS = 20
_SHOWN = {
    "images-darker": "brightness",
    "images-brighter": "brightness",
    "contrast-lower": "contrast",
    "contrast-higher": "contrast",
    "images-blurred": "sharpness",
    "images-noisier": "noise",
    "colour-cast": "blue",
    "colour-lost": "saturation",
    "compression-stronger": "jpeg_quality",
    "images-smaller": "width",
    "images-larger": "width",
    "aspect-changed": "aspect",
    "orientation-ignored": "aspect",
}


def show(
    evidence: DataEvidence,
    images: Sequence[Image],
    golden: Sequence[Image],
    values: Mapping[str, Sequence[float]],
    training: Training,
) -> DataEvidence:
    """Returns the evidence with pictures for what was found."""
    rules = [cause.rule for cause in evidence.explanation.causes]
    if evidence.correction is not None:
        rules.append(MISTAKES[evidence.correction.mistake].rule)
    if evidence.border is not None:
        rules.append("borders-added")
    rules.append("unknown-scenes")
    pair = draw_pairs(images, golden) if len(rules) > 1 or _is_strange(evidence) else None
    pictures: dict[str, tuple[Picture, ...]] = {}
    for rule in rules:
        found = [] if pair is None else [pair]
        measure = _SHOWN.get(rule)
        if measure in values and measure in training.measures and measure is not None:
            found.append(draw_histogram(measure, values[measure], training.measures[measure]))
        pictures[rule] = tuple(found)
    return replace(evidence, pictures=pictures)


def _is_strange(evidence: DataEvidence) -> bool:
    return evidence.strangeness is not None and evidence.strangeness.left > 0.2


def draw_pairs(images: Sequence[Image], golden: Sequence[Image]) -> Picture | None:
    """Draws up to three production images above golden ones, each 200 px at most, with no more space than they need; None where one side has none."""
    if not images or not golden:
        return None
    step = max(1, len(images) // _PAIRS)
    rows = [list(images[::step])[:_PAIRS], list(golden)[:_PAIRS]]
    small = [[_thumbnail(image) for image in row] for row in rows]
    heights = [max(one.shape[0] for one in row) for row in small]
    widths = [max((row[at].shape[1] for row in small if at < len(row)), default=0) for at in range(_PAIRS)]
    widths = [one for one in widths if one]
    canvas = np.full((sum(heights) + _GAP, sum(widths) + _GAP * (len(widths) - 1), 3), 255, dtype=np.uint8)
    for number, row in enumerate(small):
        top = number * (heights[0] + _GAP)
        for column, image in enumerate(row):
            left = sum(widths[:column]) + column * _GAP
            canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return Picture("Above: images of production; below: golden images of the bundle.", png=write_png(canvas))


def _thumbnail(image: Image) -> Image:
    cv2 = import_cv2()
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def draw_histogram(measure: str, values: Sequence[float], training: Distribution) -> Picture:
    """Draws shares of the images here as bars, and training's middle half, middle nine tenths and median beneath."""
    scale = SCALES[measure]
    low = float(min(min(values), training.quantiles[0]))
    high = float(max(max(values), training.quantiles[-1]))
    span = max(high - low, 1e-9)
    counts, _ = np.histogram(np.asarray(values), bins=_BINS, range=(low, low + span))
    most = max(int(counts.max()), 1)

    def x(value: float) -> float:
        return 20 + 360 * (value - low) / span

    bars = "".join(
        f'<rect x="{20 + 18 * at}" y="{110 - 90 * count / most:.1f}" width="17" height="{90 * count / most:.1f}" fill="#c2410c"/>'
        for at, count in enumerate(counts.tolist())
    )
    q05, q25, q50, q75, q95 = (float(training.quantiles[at]) for at in (2, 3, 4, 5, 6))
    band = (
        f'<rect x="{x(q05):.1f}" y="121" width="{max(x(q95) - x(q05), 4):.1f}" height="6" fill="#93c5fd"/>'
        f'<rect x="{x(q25):.1f}" y="118" width="{max(x(q75) - x(q25), 1):.1f}" height="12" fill="#2563eb"/>'
        f'<rect x="{x(q50) - 1:.1f}" y="115" width="2" height="18" fill="#111"/>'
    )
    name = escape(scale.word + (f" ({scale.unit})" if scale.unit else ""))
    text = (
        f'<text x="20" y="150">{low:.4g}</text><text x="380" y="150" text-anchor="end">{high:.4g}</text>'
        f'<text x="200" y="150" text-anchor="middle">{name}</text>'
    )
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 160" width="400" height="160" font-family="sans-serif" '
        f'font-size="12" role="img"><title>{name}</title>{bars}{band}{text}</svg>'
    )
    return Picture(
        f"Bars: {scale.word} of the production images; blue: training's middle half and nine tenths, with its median.",
        svg=svg,
    )
