# SPDX-License-Identifier: Apache-2.0
"""Heads and tasks on small outputs made by hand; equality with Ultralytics is in `test_ultralytics_parity`."""

from __future__ import annotations

import dataclasses
import time
from functools import partial

import cv2
import numpy as np
import pytest

from shipsight.errors import CardError, LimitError, TensorError, UsageError
from shipsight.model import Fit, Head, OutputForm, Task
from shipsight.vision import Geometry, PredictSettings, postprocess, segment

SAME = Geometry((64, 96), (64, 96), (1.0, 1.0), pad_left=0, pad_top=0)
ANCHORS = 126


def raw(card, *rows):
    """A `yolov8` head's output: one (anchor, box cxcywh, class scores, extras) a row, all else zero."""
    classes = len(card.class_names)
    extras = len(rows[0][3]) if rows else 0
    output = np.zeros((1, 4 + classes + extras, ANCHORS), np.float32)
    for anchor, box, scores, extra in rows:
        output[0, :, anchor] = (*box, *scores, *extra)
    return {"output0": output}


def run(outputs, card, *, form=OutputForm.RAW, geometry=SAME, **settings):
    return postprocess(
        outputs, card=card, form=form, geometry=geometry, settings=PredictSettings(**settings), source="a"
    )


TWO = ((5, (20, 20, 10, 20), (0.1, 0.8, 0.0), ()), (9, (60, 30, 20, 10), (0.9, 0.0, 0.3), ()))


def test_boxes_fall_by_score_in_original_pixels(make_card, best_class):
    card = make_card()
    geometry = Geometry((128, 100), (64, 96), (0.5, 0.5), pad_left=23, pad_top=0)
    outputs = raw(card, *TWO)
    found = run(outputs, card, geometry=geometry)
    assert found.class_ids.tolist() == [0, 1]
    np.testing.assert_allclose(found.scores, [0.9, 0.8])
    np.testing.assert_allclose(found.boxes_xyxy, [[54, 50, 94, 70], [0, 20, 4, 60]])
    trimmed = run(best_class(outputs, card), card, form=OutputForm.BEST_CLASS, geometry=geometry)
    assert trimmed.to_dict() == found.to_dict()


@pytest.mark.parametrize("task", [Task.DETECT, Task.SEGMENT, Task.POSE, Task.OBB])
def test_nothing_is_found_when_all_scores_are_low(make_card, best_class, task):
    card = make_card(task)
    extras = {Task.SEGMENT: 8, Task.POSE: 12, Task.OBB: 1}.get(task, 0)
    outputs = raw(card, (0, (9, 9, 9, 9), (0.25, 0.2, 0.1), (0.0,) * extras))  # the threshold itself is not above it
    if task is Task.SEGMENT:
        outputs["output1"] = np.zeros((1, 8, 16, 24), np.float32)
    for form, given in ((OutputForm.RAW, outputs), (OutputForm.BEST_CLASS, best_class(outputs, card))):
        found = run(given, card, form=form)
        assert len(found) == 0
        assert found.to_dict()["predictions"] == []


def test_settings_filter_as_users_know_them(make_card):
    card = make_card()
    crowd = raw(card, *TWO, (7, (20, 21, 10, 20), (0.6, 0.0, 0.0), ()))
    assert run(crowd, card).class_ids.tolist() == [0, 1, 0]
    assert run(crowd, card, agnostic_nms=True).class_ids.tolist() == [0, 1]
    assert run(crowd, card, agnostic_nms=True, iou=0.95).class_ids.tolist() == [0, 1, 0]
    assert run(crowd, card, classes=(1, 2)).class_ids.tolist() == [1]
    assert run(crowd, card, classes=()).class_ids.tolist() == []
    assert run(crowd, card, max_det=1).class_ids.tolist() == [0]
    assert run(crowd, card, conf=0.85).class_ids.tolist() == [0]
    assert run(crowd, card, multi_label=True).class_ids.tolist() == [0, 1, 0, 2]


def test_multi_label_is_refused_when_one_class_a_box_is_left(make_card, best_class):
    card = make_card()
    with pytest.raises(UsageError, match="raw"):
        run(best_class(raw(card, *TWO), card), card, form=OutputForm.BEST_CLASS, multi_label=True)
    final = make_card(head=Head.END2END)
    with pytest.raises(UsageError, match="raw"):
        run({"output0": np.zeros((1, 5, 6), np.float32)}, final, multi_label=True)


def test_end2end_rows_are_taken_as_they_are(make_card):
    card = make_card(head=Head.END2END)
    rows = [[10, 10, 20, 20, 0.5, 2], [10, 10, 20, 20, 0.9, 2], [1, 2, 3, 4, 0.25, 0]]
    found = run({"output0": np.array([rows], np.float32)}, card, iou=0.1)
    np.testing.assert_allclose(found.scores, [0.9, 0.5])
    assert found.boxes_xyxy.tolist() == [[10, 10, 20, 20]] * 2


def test_yolox_head_is_decoded_on_its_grid(make_card):
    card = make_card(head=Head.YOLOX, colour="bgr", scale=1.0, fit=Fit.LETTERBOX_TOP_LEFT)
    output = np.zeros((1, ANCHORS, 8), np.float32)
    # stride 8 has 8 rows of 12 anchors, stride 16 4 rows of 6: this one is row 2, column 3
    output[0, 96 + 2 * 6 + 3] = (0.5, 0.25, np.log(2), np.log(1.5), 0.8, 0.1, 0.5, 0.9)
    found = run({"output": output}, card)
    np.testing.assert_allclose(found.scores, [0.72], rtol=1e-6)
    assert found.class_ids.tolist() == [2]
    np.testing.assert_allclose(found.boxes_xyxy, [[56 - 16, 36 - 12, 56 + 16, 36 + 12]], rtol=1e-6)


def test_keypoints_get_confidence_one_when_a_model_gives_none(make_card):
    card = make_card(Task.POSE, classes=1)
    card = dataclasses.replace(card, output=dataclasses.replace(card.output, keypoint_shape=(2, 2)))
    found = run(raw(card, (3, (30, 30, 20, 20), (0.9,), (25, 26, 200, 28))), card)
    assert found.keypoints_xyc.tolist() == [[[25, 26, 1], [96, 28, 1]]]
    bare = dataclasses.replace(card, output=dataclasses.replace(card.output, keypoint_shape=None))
    with pytest.raises(CardError):
        run(raw(bare, (3, (30, 30, 20, 20), (0.9,), ())), bare)


def test_rotated_box_gives_corners_in_outline_order(make_card):
    card = make_card(Task.OBB, classes=1)
    found = run(raw(card, (3, (40, 30, 20, 10), (0.9,), (np.pi / 2,))), card)
    assert found.boxes_xyxy is None
    np.testing.assert_allclose(found.corners_xy, [[[35, 40], [45, 40], [45, 20], [35, 20]]], atol=1e-4)


def test_mask_lies_within_its_box_and_an_empty_one_is_dropped(make_card):
    card = make_card(Task.SEGMENT, classes=1)
    positive, negative = (1,) + (0,) * 7, (-1,) + (0,) * 7
    boxes = (3, (30, 30, 20, 20), (0.9,), positive), (4, (70, 30, 20, 20), (0.8,), negative)
    outputs = {**raw(card, *boxes), "output1": np.ones((1, 8, 16, 24), np.float32)}
    found = run(outputs, card)
    assert len(found) == 1
    expected = np.zeros((64, 96), bool)
    expected[20:40, 20:40] = True
    assert np.array_equal(found.masks[0], expected)


def test_masks_are_refused_when_they_would_fill_memory(make_card, monkeypatch):
    monkeypatch.setattr(segment, "MASK_LIMIT_BYTES", 100)
    card = make_card(Task.SEGMENT, classes=1)
    outputs = {**raw(card, (3, (30, 30, 20, 20), (0.9,), (1,) * 8)), "output1": np.ones((1, 8, 16, 24), np.float32)}
    with pytest.raises(LimitError, match="max_det"):
        run(outputs, card)


def test_classifier_gives_probabilities_and_no_predictions(make_card):
    card = make_card(Task.CLASSIFY, head=Head.CLASSIFY, fit=Fit.CENTRE_CROP)
    found = run({"output0": np.array([[0.2, 0.7, 0.1]], np.float32)}, card)
    assert found.to_dict()["probabilities"] == pytest.approx([0.2, 0.7, 0.1])
    with pytest.raises(TensorError):
        run({"output0": np.zeros((1, 4), np.float32)}, card)


@pytest.mark.parametrize(
    ("outputs", "form"),
    [
        pytest.param({}, OutputForm.RAW, id="none"),
        pytest.param({"output0": np.zeros((1, 9, 5), np.float32)}, OutputForm.RAW, id="channels"),
        pytest.param({"output0": np.zeros((2, 7, 5), np.float32)}, OutputForm.RAW, id="batch"),
        pytest.param({"output0": np.zeros((7, 5), np.float32)}, OutputForm.RAW, id="dimensions"),
        pytest.param({"boxes": np.zeros((1, 5, 4))}, OutputForm.BEST_CLASS, id="missing"),
        pytest.param(
            {"boxes": np.zeros((1, 5, 4)), "scores": np.zeros((1, 6)), "class_ids": np.zeros((1, 6), np.int32)},
            OutputForm.BEST_CLASS,
            id="lengths",
        ),
    ],
)
def test_outputs_are_refused_when_they_do_not_fit_the_card(make_card, outputs, form):
    with pytest.raises(TensorError):
        run(outputs, make_card(), form=form)


@pytest.mark.parametrize("task", [Task.SEGMENT, Task.POSE, Task.OBB])
def test_best_class_outputs_are_refused_when_extras_are_missing(make_card, task):
    outputs = {"boxes": np.zeros((1, 5, 4)), "scores": np.zeros((1, 5)), "class_ids": np.zeros((1, 5), np.int32)}
    with pytest.raises(TensorError, match="extras"):
        run(outputs, make_card(task), form=OutputForm.BEST_CLASS)


def test_predictions_are_refused_when_a_variant_overflows(make_card):
    card = make_card()
    with pytest.raises(TensorError, match="finite"):
        run(raw(card, (3, (np.nan, 30, 20, 20), (0.9, 0, 0), ())), card)


def test_postprocessing_a_detector_costs_little_beside_decoding_its_image(make_card):
    card = make_card(classes=80, size_hw=(640, 640))
    rng = np.random.default_rng(0)
    boxes = (rng.random((1, 8400, 4)) * 300).astype(np.float32)
    best = (rng.random((1, 8400)) ** 60).astype(np.float32)
    assert 100 < (best > 0.25).sum() < 300
    class_ids = rng.integers(0, 80, (1, 8400)).astype(np.int32)
    scores = np.zeros((80, 8400), np.float32)
    scores[class_ids[0], np.arange(8400)] = best[0]
    given = {
        OutputForm.RAW: {"output0": np.concatenate([boxes.transpose(0, 2, 1), scores[None]], axis=1)},
        OutputForm.BEST_CLASS: {"boxes": boxes, "scores": best, "class_ids": class_ids},
    }
    geometry = Geometry((480, 640), (640, 640), (1.0, 1.0), pad_left=0, pad_top=80)
    _, jpeg = cv2.imencode(".jpg", rng.integers(0, 255, (480, 640, 3), np.uint8))
    work = {form: partial(run, outputs, card, form=form, geometry=geometry) for form, outputs in given.items()}
    work["decode"] = partial(cv2.imdecode, jpeg, cv2.IMREAD_COLOR)
    times = {what: [] for what in work}
    for _ in range(100):
        for what, do in work.items():
            start = time.thread_time()
            do()
            times[what].append(time.thread_time() - start)
    # Of each the calmest, in turn: the machine may be slow or busy.
    calmest = {what: min(taken) for what, taken in times.items()}
    assert max(calmest[form] for form in given) < 0.5 * calmest["decode"], calmest


@pytest.mark.parametrize(
    "wrong",
    [
        {"conf": "0.5"},
        {"conf": True},
        {"iou": None},
        {"max_det": 1.5},
        {"classes": ("a",)},
        {"classes": 3},
        {"agnostic_nms": "yes"},
    ],
    ids=str,
)
def test_settings_of_another_type_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        PredictSettings(**wrong)


def test_settings_take_numbers_of_numpy():
    settings = PredictSettings(conf=np.float32(0.5), max_det=np.int64(3), classes=tuple(np.arange(2)))
    assert settings == PredictSettings(conf=0.5, max_det=3, classes=(0, 1))
