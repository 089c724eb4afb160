# SPDX-License-Identifier: Apache-2.0
"""Draws predictions onto a copy of an image: boxes, masks, keypoints, rotated boxes, the five likeliest classes.

Leaves to others: reading and writing files. Rules: one colour a class, the same in every picture; line width and text
grow with the image; weaker predictions are drawn first, labels last and best first, each where it hides no other if it
can. OpenCV's stroke
fonts know ASCII alone: other characters appear as `?`. The look may change with any release. Stable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import TensorError
from shipsight.model import ImagePredictions
from shipsight.vision._opencv import import_cv2

__all__ = ["draw"]

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

_PALETTE: tuple[Colour, ...] = (
    (255, 99, 72), (30, 144, 255), (46, 213, 115), (255, 184, 0), (165, 94, 234),
    (0, 210, 211), (255, 107, 181), (123, 167, 0), (255, 140, 26), (72, 126, 255),
    (0, 168, 107), (214, 48, 49), (129, 99, 255), (181, 137, 0), (0, 151, 230),
    (232, 67, 147), (106, 176, 76), (225, 112, 85), (9, 132, 227), (108, 92, 231),
)  # fmt: skip
_MASK_OPACITY = 0.45
_LEAST_KEYPOINT_CONFIDENCE = 0.5
_SMALLEST_CLASSIFIED_SIDE = 320
_TOP = 5

# COCO's 17 keypoints: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles (left before right)
_COCO_BONES = (
    (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10),
    (5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16),
)  # fmt: skip
_LEFT, _RIGHT, _MIDDLE = (0, 210, 211), (255, 159, 26), (240, 240, 240)


@dataclass(frozen=True)
class _Pen:
    """Sizes that fit an image, in pixels but for the font's scale."""

    cv2: ModuleType
    line: int
    font_scale: float
    stroke: int

    @classmethod
    def fit(cls, cv2: ModuleType, height: int, width: int) -> _Pen:
        size = (height + width) / 2
        line = max(round(size * 0.004), 1)
        return cls(cv2=cv2, line=line, font_scale=max(size / 1100, 0.4), stroke=max(round(size / 700), 1))


@dataclass(frozen=True)
class _Plate:
    """The rectangle behind a label, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def meets(self, other: _Plate) -> bool:
        """Tells whether two plates overlap."""
        return (
            self.left < other.left + other.width
            and other.left < self.left + self.width
            and self.top < other.top + other.height
            and other.top < self.top + self.height
        )


def draw(image_rgb: Image, predictions: ImagePredictions) -> Image:
    """Draws predictions.

    Args:
        image_rgb: (H, W, 3) uint8 RGB, the image that the predictions are of, after EXIF orientation.
        predictions: in its pixels.

    Returns:
        A new (H, W, 3) uint8 RGB; a classified image smaller than 320 px comes back enlarged, to hold its list.

    Raises:
        TensorError: the image is not of the size that the predictions are for.
    """
    expected = (predictions.height, predictions.width, 3)
    if image_rgb.shape != expected or image_rgb.dtype != np.uint8:
        got = f"{image_rgb.dtype} {image_rgb.shape}"
        raise TensorError(
            "not the image of these predictions", where="image_rgb", expected=f"uint8 {expected}", got=got
        )
    cv2 = import_cv2()
    canvas = np.array(image_rgb, order="C")
    if predictions.probabilities is not None:
        return _draw_classes(cv2, canvas, predictions)
    pen = _Pen.fit(cv2, *canvas.shape[:2])
    weakest_first = np.argsort(predictions.scores, kind="stable")
    _draw_masks(pen, canvas, predictions, weakest_first)
    for i in weakest_first.tolist():
        outline = _outline(predictions, i)
        if outline is not None:
            colour = _colour(int(predictions.class_ids[i]))
            cv2.polylines(canvas, [outline], True, colour, pen.line, cv2.LINE_AA)
    if predictions.keypoints_xyc is not None:
        for i in weakest_first.tolist():
            _draw_keypoints(pen, canvas, predictions.keypoints_xyc[i])
    _draw_labels(pen, canvas, predictions, weakest_first[::-1])
    return canvas


def _colour(class_id: int) -> Colour:
    return _PALETTE[class_id % len(_PALETTE)]


def _outline(predictions: ImagePredictions, i: int) -> NDArray[np.int32] | None:
    """Returns (4, 2) int32 corners of a prediction's box."""
    if predictions.corners_xy is not None:
        corners = predictions.corners_xy[i]
    elif predictions.boxes_xyxy is not None:
        x0, y0, x1, y1 = predictions.boxes_xyxy[i]
        corners = np.array(((x0, y0), (x1, y0), (x1, y1), (x0, y1)))
    else:
        return None
    reach = 4 * max(predictions.height, predictions.width)  # OpenCV draws in 16-bit fixed point
    result: NDArray[np.int32] = np.clip(np.round(corners), -reach, reach).astype(np.int32)
    return result


def _draw_masks(pen: _Pen, canvas: Image, predictions: ImagePredictions, order: NDArray[np.int64]) -> None:
    if predictions.masks is None:
        return
    cv2 = pen.cv2
    for i in order.tolist():
        mask = predictions.masks[i]
        colour = np.array(_colour(int(predictions.class_ids[i])), dtype=np.float32)
        canvas[mask] = (canvas[mask] * (1 - _MASK_OPACITY) + colour * _MASK_OPACITY).astype(np.uint8)
        edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, edges, -1, tuple(colour.tolist()), max(pen.line // 2, 1), cv2.LINE_AA)


def _draw_keypoints(pen: _Pen, canvas: Image, keypoints_xyc: NDArray[np.float32]) -> None:
    cv2 = pen.cv2
    points = [(round(float(x)), round(float(y))) for x, y, _ in keypoints_xyc]
    is_shown = (keypoints_xyc[:, 2] >= _LEAST_KEYPOINT_CONFIDENCE).tolist()
    bones = _COCO_BONES if len(points) == 17 else ()
    for start, end in bones:
        if is_shown[start] and is_shown[end]:
            same_side = start % 2 == end % 2 and start > 0
            colour = (_LEFT if end % 2 else _RIGHT) if same_side or start == 0 else _MIDDLE
            cv2.line(canvas, points[start], points[end], colour, pen.line, cv2.LINE_AA)
    for number, (point, shown) in enumerate(zip(points, is_shown, strict=True)):
        if shown:
            colour = _MIDDLE if number == 0 else (_LEFT if number % 2 else _RIGHT)
            cv2.circle(canvas, point, pen.line + 2, (30, 30, 30), -1, cv2.LINE_AA)
            cv2.circle(canvas, point, pen.line + 1, colour, -1, cv2.LINE_AA)


def _draw_labels(pen: _Pen, canvas: Image, predictions: ImagePredictions, order: NDArray[np.int64]) -> None:
    """Writes labels, the best first: it has its choice of place, later ones avoid those that stand."""
    taken: list[_Plate] = []
    for i in order.tolist():
        outline = _outline(predictions, i)
        if outline is None:
            continue
        class_id = int(predictions.class_ids[i])
        number = "" if predictions.track_ids is None else f"#{predictions.track_ids[i]} "
        text = f"{number}{_ascii(predictions.class_names[class_id])} {predictions.scores[i]:.2f}"
        font = pen.cv2.FONT_HERSHEY_SIMPLEX
        (text_width, text_height), baseline = pen.cv2.getTextSize(text, font, pen.font_scale, pen.stroke)
        margin = max(text_height // 4, 2)
        size = (text_width + 2 * margin, text_height + baseline + margin)
        places = _places(outline, size, canvas.shape[:2], pen.line)
        plate = next((place for place in places if not any(map(place.meets, taken))), places[0])
        taken.append(plate)
        colour = _colour(class_id)
        corner = (plate.left + plate.width, plate.top + plate.height)
        pen.cv2.rectangle(canvas, (plate.left, plate.top), corner, colour, -1)
        _write(pen, canvas, text, (plate.left + margin, plate.top + text_height + margin), _readable_on(colour))


def _places(outline: NDArray[np.int32], size: tuple[int, int], canvas_hw: tuple[int, ...], line: int) -> list[_Plate]:
    """Returns where a label may stand within the image: above its box, inside its top, below it, inside its bottom."""
    width, height = size
    highest, lowest = outline[outline[:, 1].argmin()].tolist(), outline[outline[:, 1].argmax()].tolist()
    is_upright = outline[0, 1] == outline[1, 1]
    lefts = (int(outline[0, 0]),) * 2 if is_upright else (highest[0], lowest[0])
    wanted = (
        (lefts[0], highest[1] - height),
        (lefts[0], highest[1]),
        (lefts[1], lowest[1]),
        (lefts[1], lowest[1] - height),
    )
    most_left, most_top = max(canvas_hw[1] - width, 0), max(canvas_hw[0] - height, 0)
    places = [_Plate(min(max(left - line // 2, 0), most_left), top, width, height) for left, top in wanted]
    inside = [place for place in places if 0 <= place.top <= most_top]
    return inside or [replace(places[1], top=min(max(places[1].top, 0), most_top))]


def _draw_classes(cv2: ModuleType, canvas: Image, predictions: ImagePredictions) -> Image:
    """Returns the image with a dark list of the likeliest classes and their bars."""
    assert predictions.probabilities is not None  # the caller asked
    smallest = min(canvas.shape[:2])
    if smallest < _SMALLEST_CLASSIFIED_SIDE:
        factor = -(-_SMALLEST_CLASSIFIED_SIDE // smallest)
        canvas = cv2.resize(canvas, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    pen = _Pen.fit(cv2, *canvas.shape[:2])
    best = np.argsort(-predictions.probabilities, kind="stable")[:_TOP].tolist()
    texts = [f"{predictions.probabilities[i]:.2f} {_ascii(predictions.class_names[i])}" for i in best]
    sizes = [cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, pen.font_scale, pen.stroke)[0] for text in texts]
    text_height = max(size[1] for size in sizes)
    row, margin = round(text_height * 2.1), text_height
    panel_width = min(max(size[0] for size in sizes) + 2 * margin, canvas.shape[1])
    panel = canvas[: row * len(best) + margin, :panel_width]
    panel[...] = (panel * 0.3).astype(np.uint8)
    room = panel_width - 2 * margin
    for line, (i, text) in enumerate(zip(best, texts, strict=True)):
        baseline = margin + line * row + text_height
        _write(pen, canvas, text, (margin, baseline), (255, 255, 255))
        bar_end = margin + max(round(room * float(predictions.probabilities[i])), 1)
        bar_top = baseline + text_height // 3
        cv2.rectangle(canvas, (margin, bar_top), (bar_end, bar_top + max(pen.line // 2, 1)), _colour(i), -1)
    return canvas


def _write(pen: _Pen, canvas: Image, text: str, position: tuple[int, int], colour: Colour) -> None:
    cv2 = pen.cv2
    cv2.putText(canvas, text, position, cv2.FONT_HERSHEY_SIMPLEX, pen.font_scale, colour, pen.stroke, cv2.LINE_AA)


def _readable_on(colour: Colour) -> Colour:
    """Returns black or white, whichever stands out more."""
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (20, 20, 20) if luminance > 140 else (255, 255, 255)


def _ascii(name: str) -> str:
    return name.encode("ascii", "replace").decode("ascii")
