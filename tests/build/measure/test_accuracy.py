# SPDX-License-Identifier: Apache-2.0
"""Accuracy equals pycocotools, which shares no code with what is measured with."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shipsight.build.measure import Accuracy, Labels, Sample, evaluate
from shipsight.build.measure.average_precision import mean_average_precision
from shipsight.build.measure.overlap import COCO_SIGMAS, rotated_iou
from shipsight.build.measure.task_matching import POSE_AREA_SHARE
from shipsight.errors import CorruptError, DatasetError, UsageError
from shipsight.model import ImagePredictions, Task

NAMES = ("a", "b", "c", "d", "e")
MakeSamples = Callable[..., list[Sample]]
MakePredictions = Callable[..., list[ImagePredictions]]


def pycocotools_map(
    kind: str, labels: list[dict[str, Any]], predictions: list[dict[str, Any]], image_count: int, hw: tuple[int, int]
) -> dict[str, float]:
    """Evaluates with pycocotools, at most 300 detections an image and class; returns mAPs by name."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i, "height": hw[0], "width": hw[1]} for i in range(image_count)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES)],
        "annotations": [{"id": i + 1, "iscrowd": 0, **label} for i, label in enumerate(labels)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(predictions), kind)
        run.params.maxDets = [300]
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][..., 0]
    areas = run.params.areaRngLbl

    def mean(values: NDArray[np.float64]) -> float:
        return float(values[values > -1].mean()) if (values > -1).any() else -1.0

    result = {
        "map50_95": mean(precision[..., 0]),
        "map50": mean(precision[0, ..., 0]),
        "map75": mean(precision[5, ..., 0]),
    }
    return result | {name: mean(precision[..., i]) for i, name in enumerate(areas) if i}


def check_equal(accuracy: Accuracy, expected: dict[str, float]) -> None:
    assert 0.05 < expected["map50_95"] < 0.95, "a comparison at the ends would say little"
    for name in ("map50_95", "map50", "map75"):
        assert getattr(accuracy, name) == pytest.approx(expected.pop(name), abs=1e-4), name
    for size, value in expected.items():
        assert accuracy.by_size[size] == pytest.approx(value, abs=1e-4), size


def check_own_matches(accuracy: Accuracy) -> None:
    """What is resampled gives, unresampled, the headline (faster-coco-eval's) to 1e-6."""
    assert accuracy.table is not None
    own = mean_average_precision(accuracy.table, np.ones((1, accuracy.image_count)))[0]
    assert own.mean() == pytest.approx(accuracy.map50_95, abs=1e-6)
    assert own[0] == pytest.approx(accuracy.map50, abs=1e-6)


def label_boxes(sample: Sample, size_wh: tuple[int, int]) -> NDArray[np.float64]:
    boxes = sample.labels.boxes_cxcywh * [*size_wh, *size_wh]
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)


def box_rows(predictions: Sequence[ImagePredictions]) -> list[dict[str, Any]]:
    rows = []
    for i, image in enumerate(predictions):
        assert image.boxes_xyxy is not None
        for class_id, score, box in zip(image.class_ids, image.scores, image.boxes_xyxy.astype(float), strict=True):
            bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            rows.append({"image_id": i, "category_id": int(class_id), "score": float(score), "bbox": bbox})
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_boxes_equal_pycocotools(box_samples: MakeSamples, perturbed_boxes: MakePredictions, seed: int) -> None:
    samples = box_samples(25, seed=seed)
    predictions = perturbed_boxes(samples, seed=seed)
    accuracy = evaluate(iter(predictions), samples, task=Task.DETECT, class_names=NAMES)
    size = predictions[0].width, predictions[0].height
    labels = [
        {"image_id": i, "category_id": int(class_id), "bbox": box.tolist(), "area": float(box[2] * box[3])}
        for i, sample in enumerate(samples)
        for class_id, box in zip(sample.labels.class_ids, label_boxes(sample, size), strict=True)
    ]
    check_equal(accuracy, pycocotools_map("bbox", labels, box_rows(predictions), len(samples), size[::-1]))
    check_own_matches(accuracy)


def test_masks_equal_pycocotools() -> None:
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(5)
    height, width = 90, 120
    ys, xs = np.mgrid[:height, :width]
    samples, predictions, labels, rows = [], [], [], []
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    for i in range(12):
        count = int(rng.integers(1, 6))
        centre, radius = rng.uniform(20, 80, (count, 2)), rng.uniform(6, 40, (count, 2))
        class_ids = rng.integers(0, 3, count)
        polygons = [
            c + r * np.stack([np.cos(angles), np.sin(angles)], axis=1) for c, r in zip(centre, radius, strict=True)
        ]
        polygons = [np.clip(polygon, 0, [width, height]) for polygon in polygons]
        samples.append(
            Sample(
                Path(f"{i}.jpg"),
                Labels(class_ids, np.full((count, 4), 0.5), tuple(polygon / [width, height] for polygon in polygons)),
            )
        )
        for class_id, polygon in zip(class_ids, polygons, strict=True):
            flat = [(polygon / [width, height] * [width, height]).reshape(-1).tolist()]
            area = float(coco_mask.area(coco_mask.frPyObjects(flat, height, width))[0])
            labels.append(
                {"image_id": i, "category_id": int(class_id), "segmentation": flat, "area": area, "bbox": [0, 0, 9, 9]}
            )
        centre = np.repeat(centre, 2, axis=0) + rng.normal(0, 2, (2 * count, 2))
        radius = np.repeat(radius, 2, axis=0) * rng.uniform(0.7, 1.3, (2 * count, 2))
        masks = np.stack(
            [((xs - c[0]) / r[0]) ** 2 + ((ys - c[1]) / r[1]) ** 2 <= 1 for c, r in zip(centre, radius, strict=True)]
        )
        scores = rng.random(2 * count).astype(np.float32)
        found_ids = np.where(rng.random(2 * count) < 0.15, 2, np.repeat(class_ids, 2)).astype(np.int64)
        boxes = np.concatenate([centre - radius, centre + radius], axis=1).astype(np.float32)
        predictions.append(
            ImagePredictions(f"{i}.jpg", width, height, NAMES, found_ids, scores, boxes_xyxy=boxes, masks=masks)
        )
        for class_id, score, one in zip(found_ids, scores, masks, strict=True):
            rle = coco_mask.encode(np.asfortranarray(one, dtype=np.uint8))
            rows.append({"image_id": i, "category_id": int(class_id), "score": float(score), "segmentation": rle})
    accuracy = evaluate(predictions, samples, task=Task.SEGMENT, class_names=NAMES)
    assert accuracy.by_size["large"] is None, "no such object in so small an image"
    assert accuracy.box is not None
    check_own_matches(accuracy)
    check_own_matches(accuracy.box)
    expected = pycocotools_map("segm", labels, rows, len(samples), (height, width))
    assert expected.pop("large") == -1.0
    check_equal(accuracy, expected)


@pytest.mark.parametrize("seed", range(3))
def test_keypoints_equal_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = 400, 300
    samples, predictions, labels, rows = [], [], [], []
    for i in range(20):
        count = int(rng.integers(1, 5))
        size = rng.uniform(0.15, 0.5, (count, 2))
        centre = size / 2 + rng.random((count, 2)) * (1 - size)
        points = centre[:, None] + (rng.random((count, 17, 2)) - 0.5) * size[:, None]
        visible = rng.integers(0, 3, (count, 17)).astype(float)
        visible[rng.random(count) < 0.15] = 0
        xyv = np.concatenate([points, visible[..., None]], axis=2)
        boxes = np.concatenate([centre, size], axis=1)
        samples.append(Sample(Path(f"{i}.jpg"), Labels(np.zeros(count, np.int64), boxes, keypoints_xyv=xyv)))
        pixels = xyv * [width, height, 1]
        for one, box in zip(pixels, boxes * [width, height, width, height], strict=True):
            labels.append(
                {
                    "image_id": i,
                    "category_id": 0,
                    "keypoints": one.reshape(-1).tolist(),
                    "num_keypoints": int((one[:, 2] > 0).sum()),
                    "area": float(box[2] * box[3] * POSE_AREA_SHARE),
                    "bbox": [float(v) for v in (box[0] - box[2] / 2, box[1] - box[3] / 2, box[2], box[3])],
                }
            )
        moved = np.repeat(pixels[..., :2], 2, axis=0)
        spread = rng.choice([1.0, 4.0, 10.0], (2 * count, 1, 1))
        moved = np.concatenate(
            [moved + rng.normal(0, 1, moved.shape) * spread, rng.random((3, 17, 2)) * [width, height]]
        )
        moved = moved.astype(np.float32)
        scores = rng.random(len(moved)).astype(np.float32)
        xyc = np.concatenate([moved, np.ones((*moved.shape[:2], 1), np.float32)], axis=2)
        found_boxes = np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1)
        predictions.append(
            ImagePredictions(
                f"{i}.jpg", width, height, NAMES[:1], np.zeros(len(moved), np.int64), scores,
                boxes_xyxy=found_boxes, keypoints_xyc=xyc,
            )
        )  # fmt: skip
        rows += [
            {"image_id": i, "category_id": 0, "score": float(s), "keypoints": one.astype(float).reshape(-1).tolist()}
            for s, one in zip(scores, xyc, strict=True)
        ]
    accuracy = evaluate(predictions, samples, task=Task.POSE, class_names=NAMES[:1])
    check_equal(accuracy, pycocotools_map("keypoints", labels, rows, len(samples), (height, width)))
    assert accuracy.box is not None
    assert len(COCO_SIGMAS) == 17


def test_rotated_boxes_equal_pycocotools_when_nothing_is_rotated(
    box_samples: MakeSamples, perturbed_boxes: MakePredictions
) -> None:
    samples = box_samples(20, seed=9)
    predictions = perturbed_boxes(samples, seed=9)
    size = predictions[0].width, predictions[0].height
    straight = evaluate(predictions, samples, task=Task.DETECT, class_names=NAMES)

    def corners(xyxy: NDArray[Any]) -> NDArray[Any]:
        return np.stack([xyxy[:, [0, 1]], xyxy[:, [2, 1]], xyxy[:, [2, 3]], xyxy[:, [0, 3]]], axis=1)

    turned_samples = []
    for sample in samples:
        xywh = label_boxes(sample, size)
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        relative = corners(xyxy) / np.array(size)
        turned_samples.append(Sample(sample.image, replace(sample.labels, corners_xy=relative)))
    turned = [replace(one, boxes_xyxy=None, corners_xy=corners(one.boxes_xyxy)) for one in predictions]
    rotated = evaluate(turned, turned_samples, task=Task.OBB, class_names=NAMES)
    # Labels pass through float32 rectangles, so an overlap next to a threshold may fall on its other side.
    assert rotated.map50_95 == pytest.approx(straight.map50_95, abs=2e-3)
    assert rotated.map50 == pytest.approx(straight.map50, abs=2e-3)


def test_perfect_rotated_boxes_score_one() -> None:
    rng = np.random.default_rng(0)
    samples, predictions = [], []
    for i in range(5):
        angle = rng.uniform(0, np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = (np.array([[-30, -10], [30, -10], [30, 10], [-30, 10]]) @ turn.T + 60)[None]
        labels = Labels(np.array([1]), np.full((1, 4), 0.5), corners_xy=corners / [120, 160])
        samples.append(Sample(Path(f"{i}.jpg"), labels))
        ids, scores = np.array([1], dtype=np.int64), np.array([0.5], dtype=np.float32)
        predictions.append(
            ImagePredictions(None, 120, 160, NAMES, ids, scores, corners_xy=corners[:, ::-1].astype(np.float32))
        )
    accuracy = evaluate(predictions, samples, task=Task.OBB, class_names=NAMES)
    assert accuracy.map50_95 == pytest.approx(1.0)
    assert accuracy.by_size == {"small": None, "medium": 1.0, "large": None}


def test_top1_and_top5_are_counted_by_class() -> None:
    names = tuple("abcdefg")
    truth = [0, 1, 2, 6]
    rows = [[9, 8, 7, 6, 5, 4, 3], [9, 8, 7, 6, 5, 4, 3], [9, 8, 7, 6, 5, 4, 3], [9, 8, 7, 6, 5, 4, 3]]
    samples = [Sample(Path(f"{i}.jpg"), Labels(np.array([label]), np.zeros((1, 4)))) for i, label in enumerate(truth)]
    nothing = np.zeros(0, np.int64), np.zeros(0, np.float32)
    predictions = [
        ImagePredictions(str(i), 8, 8, names, *nothing, probabilities=np.array(row, np.float32))
        for i, row in enumerate(rows)
    ]
    accuracy = evaluate(predictions, samples, task=Task.CLASSIFY, class_names=names)
    assert (accuracy.top1, accuracy.top5, accuracy.value, accuracy.metric) == (0.25, 0.75, 0.25, "top1")
    assert (accuracy.by_class[0].precision, accuracy.by_class[0].recall) == (0.25, 1.0)
    assert accuracy.by_class[4].recall is None
    assert Accuracy.from_dict(accuracy.to_dict()).to_dict() == accuracy.to_dict()


def one_box(class_ids: list[int], scores: list[float], boxes: list[list[float]]) -> ImagePredictions:
    return ImagePredictions(
        "i", 100, 100, NAMES, np.array(class_ids, dtype=np.int64), np.array(scores, np.float32),
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
    )  # fmt: skip


def test_best_confidence_parts_right_from_wrong() -> None:
    labels = Labels(np.array([0, 0]), np.array([[0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]]))
    right, other, wrong = [10, 10, 30, 30], [60, 60, 80, 80], [30, 60, 40, 90]
    predictions = [one_box([0, 0, 0], [0.9, 0.7, 0.3], [right, other, wrong])]
    accuracy = evaluate(predictions, [Sample(Path("i"), labels)], task=Task.DETECT, class_names=NAMES)
    assert accuracy.best_confidence is not None
    assert 0.3 < accuracy.best_confidence <= 0.7
    assert accuracy.best_f1 == 1.0
    first = accuracy.by_class[0]
    assert (first.precision, first.recall, first.f1, first.labels, first.predictions) == (1.0, 1.0, 1.0, 2, 2)
    assert accuracy.by_class[1].map50_95 is None
    (score,) = accuracy.worst_images(3)
    assert (score.found, score.missed, score.wrong) == (2, 0, 0)


def test_accuracy_round_trips_without_its_matches(box_samples: MakeSamples, perturbed_boxes: MakePredictions) -> None:
    samples = box_samples(6)
    accuracy = evaluate(perturbed_boxes(samples, seed=1), samples, task=Task.DETECT, class_names=NAMES)
    data = accuracy.to_dict()
    assert data["max_detections"] == 300
    back = Accuracy.from_dict(data)
    assert back.to_dict() == data
    assert (back.value, back.table) == (accuracy.value, None)
    for broken in ({**data, "extra": 1}, {**data, "map50": "high"}, {**data, "task": "walk"}, []):
        with pytest.raises(CorruptError):
            Accuracy.from_dict(broken)  # type: ignore[arg-type]  # a damaged file may hold anything


def test_nothing_predicted_scores_zero_and_nothing_labelled_scores_none() -> None:
    labels = Labels(np.array([0]), np.array([[0.5, 0.5, 0.2, 0.2]]))
    nothing = Labels(np.zeros(0, np.int64), np.zeros((0, 4)))
    empty = one_box([], [], [])
    accuracy = evaluate([empty], [Sample(Path("i"), labels)], task=Task.DETECT, class_names=NAMES)
    assert (accuracy.map50_95, accuracy.by_size["small"], accuracy.by_size["large"]) == (0.0, 0.0, None)
    accuracy = evaluate(
        [one_box([0], [0.5], [[1, 1, 5, 5]])], [Sample(Path("i"), nothing)], task=Task.DETECT, class_names=NAMES
    )
    assert (accuracy.map50_95, accuracy.best_confidence, accuracy.label_count) == (None, None, 0)
    assert accuracy.image_scores[0].wrong >= 0
    with pytest.raises(UsageError, match="no labels"):
        _ = accuracy.value


def test_wrong_use_is_refused() -> None:
    labels = Labels(np.array([7]), np.array([[0.5, 0.5, 0.2, 0.2]]))
    sample = Sample(Path("i"), labels)
    empty = one_box([], [], [])
    for predictions, samples, task, error in [
        ([], [], Task.DETECT, "no images"),
        ([], [sample], Task.DETECT, "another number"),
        ([empty, empty], [Sample(Path("i"), Labels(np.zeros(0, np.int64), np.zeros((0, 4))))], Task.DETECT, "got more"),
        ([replace(empty, boxes_xyxy=None)], [sample], Task.DETECT, "lacks boxes"),
        ([empty], [sample], Task.SEGMENT, "model does not know"),
        ([empty], [sample], Task.OBB, "lacks corners"),
        ([empty], [sample], Task.CLASSIFY, "lacks the class probabilities"),
    ]:
        with pytest.raises((UsageError, DatasetError), match=error):
            evaluate(predictions, samples, task=task, class_names=NAMES)


def test_rotated_overlap_equals_hand_counted_cases() -> None:
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], dtype=float)
    diamond = np.array([[1, 0], [2, 1], [1, 2], [0, 1]], dtype=float)
    cases = {
        "itself": (square, 1.0),
        "turned round": (square[::-1], 1.0),
        "half beside": (square + np.array([1, 0]), 1 / 3),
        "touching": (square + np.array([2, 0]), 0.0),
        "apart": (square + np.array([5, 0]), 0.0),
        "diamond inside": (diamond, 0.5),
        "octagon": ((diamond - 1) * 1.5 + 1, 3.5 / 5.0),
        "large around": (square * 10 - 5, 0.01),
        "no area": (square * [1, 0], 0.0),
    }
    for name, (other, expected) in cases.items():
        value = rotated_iou(square[None], other[None])[0, 0]
        assert value == pytest.approx(expected, abs=1e-9), name
        assert rotated_iou(other[None] * 1e3, square[None] * 1e3)[0, 0] == pytest.approx(expected, abs=1e-9), name
    assert rotated_iou(np.zeros((0, 4, 2)), square[None]).shape == (0, 1)


def test_rotated_overlap_equals_opencv_on_random_rectangles() -> None:
    import cv2

    rng = np.random.default_rng(2)
    boxes = [
        ((rng.uniform(0, 60), rng.uniform(0, 60)), (rng.uniform(5, 60), rng.uniform(5, 60)), rng.uniform(0, 180))
        for _ in range(60)
    ]
    corners = np.stack([cv2.boxPoints(box) for box in boxes]).astype(np.float64)
    ours = rotated_iou(corners, corners)
    for i in range(0, 60, 2):
        for j in range(60):
            _, points = cv2.rotatedRectangleIntersection(boxes[i], boxes[j])
            shared = 0.0 if points is None else cv2.contourArea(cv2.convexHull(points))
            areas = [box[1][0] * box[1][1] for box in (boxes[i], boxes[j])]
            # OpenCV computes the intersection in float32 with a tolerance of its own.
            assert ours[i, j] == pytest.approx(shared / (sum(areas) - shared), abs=2e-3)
    np.testing.assert_allclose(ours, ours.T, atol=1e-12)
    np.testing.assert_allclose(np.diag(ours), 1.0, atol=1e-9)
