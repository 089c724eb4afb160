# SPDX-License-Identifier: Apache-2.0
"""Our postprocessing of the float ONNX export against Ultralytics' own, at the same square input tensor.

Tolerances are the project's promise; PyTorch against ONNX Runtime differ by 5e-6 in score and 5e-4 px on these models.
"""

from __future__ import annotations

import numpy as np
import pytest

from shipsight.model import OutputForm, Task
from shipsight.vision import PredictSettings, decode_image, postprocess

pytestmark = [pytest.mark.shared, pytest.mark.torch]

SCORE_TOLERANCE = 1e-4
PIXEL_TOLERANCE = 0.05
LEAST_MASK_IOU = 0.995
PROBABILITY_TOLERANCE = 1e-5
QUICK = ("bccd", "pose", "seg", "obb", "cls")


def assert_equal(ours, theirs, task):
    if task is Task.CLASSIFY:
        np.testing.assert_allclose(ours.probabilities, theirs.probs.data.numpy(), rtol=0, atol=PROBABILITY_TOLERANCE)
        return
    boxes = theirs.obb if task is Task.OBB else theirs.boxes
    assert len(ours) == len(boxes)
    assert (ours.height, ours.width) == theirs.orig_shape
    assert ours.class_ids.tolist() == boxes.cls.int().tolist()
    np.testing.assert_allclose(ours.scores, boxes.conf.numpy(), rtol=0, atol=SCORE_TOLERANCE)
    if task is Task.OBB:
        np.testing.assert_allclose(ours.corners_xy, boxes.xyxyxyxy.numpy(), rtol=0, atol=PIXEL_TOLERANCE)
        return
    np.testing.assert_allclose(ours.boxes_xyxy, boxes.xyxy.numpy(), rtol=0, atol=PIXEL_TOLERANCE)
    if task is Task.POSE:
        points = theirs.keypoints.data.numpy()
        np.testing.assert_allclose(ours.keypoints_xyc[..., :2], points[..., :2], rtol=0, atol=PIXEL_TOLERANCE)
        np.testing.assert_allclose(ours.keypoints_xyc[..., 2], points[..., 2], rtol=0, atol=SCORE_TOLERANCE)
    if task is Task.SEGMENT and len(ours):
        masks = theirs.masks.data.numpy().astype(bool)
        both, either = (ours.masks & masks).sum(axis=(1, 2)), (ours.masks | masks).sum(axis=(1, 2))
        assert (both / either).min() >= LEAST_MASK_IOU


def check(pair, path, settings, best_class):
    image = decode_image(path)
    tensor, geometry = pair.tensor(image)
    outputs = pair.onnx(tensor)
    theirs = pair.ultralytics(tensor, image, settings)
    ours = postprocess(outputs, card=pair.card, form=OutputForm.RAW, geometry=geometry, settings=settings)
    assert_equal(ours, theirs, pair.card.task)
    if pair.card.task is not Task.CLASSIFY:
        trimmed = best_class(outputs, pair.card)
        form = OutputForm.BEST_CLASS
        same = postprocess(trimmed, card=pair.card, form=form, geometry=geometry, settings=settings)
        assert same.to_dict() == ours.to_dict()
    return len(ours)


@pytest.mark.parametrize("name", QUICK)
def test_predictions_equal_ultralytics_on_some_images(side_by_side, best_class, name):
    pair = side_by_side(name)
    images = pair.images[:: max(len(pair.images) // 4, 1)][:4]
    found = sum(check(pair, path, PredictSettings(), best_class) for path in images)
    assert found or pair.card.task is Task.CLASSIFY


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolo11n", *QUICK])
def test_predictions_equal_ultralytics_on_every_validation_image(side_by_side, best_class, name):
    pair = side_by_side(name)
    assert len(pair.images) >= 50
    found = sum(check(pair, path, PredictSettings(), best_class) for path in pair.images)
    assert found >= 100 or pair.card.task is Task.CLASSIFY


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(PredictSettings(conf=0.4, iou=0.3), id="other-thresholds"),
        pytest.param(PredictSettings(agnostic_nms=True, iou=0.4), id="agnostic"),
        pytest.param(PredictSettings(classes=(0, 2)), id="class-filter"),
        pytest.param(PredictSettings(max_det=3), id="max-det"),
    ],
)
@pytest.mark.parametrize("name", ["bccd", "obb"])
def test_predictions_equal_ultralytics_when_settings_differ(side_by_side, best_class, name, settings):
    pair = side_by_side(name)
    for path in pair.images[:2]:
        check(pair, path, settings, best_class)


@pytest.mark.parametrize("multi_label", [False, True], ids=["best-class", "multi-label"])
def test_low_threshold_predictions_equal_ultralytics_at_the_same_raw_output(side_by_side, multi_label):
    import torch
    from ultralytics.utils.nms import non_max_suppression
    from ultralytics.utils.ops import scale_boxes

    pair = side_by_side("bccd")
    settings = PredictSettings(conf=0.001, iou=0.7, max_det=300, multi_label=multi_label)
    for path in pair.images[:3]:
        image = decode_image(path)
        tensor, geometry = pair.tensor(image)
        outputs = pair.onnx(tensor)
        ours = postprocess(outputs, card=pair.card, form=OutputForm.RAW, geometry=geometry, settings=settings)
        raw = torch.from_numpy(outputs["output0"].copy())
        theirs = non_max_suppression(raw, 0.001, 0.7, multi_label=multi_label, max_det=300)[0]
        boxes = scale_boxes(tensor.shape[2:], theirs[:, :4], image.shape[:2]).numpy()
        assert ours.class_ids.tolist() == theirs[:, 5].int().tolist()
        assert np.array_equal(ours.scores, theirs[:, 4].numpy())
        np.testing.assert_allclose(ours.boxes_xyxy, boxes, rtol=0, atol=1e-3)  # the last bit of float32 at 640 px
