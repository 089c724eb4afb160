# SPDX-License-Identifier: Apache-2.0
"""Suppression against torchvision's and Ultralytics', and its own laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipsight.vision import suppress, suppress_rotated

SEEDS = st.integers(0, 2**32 - 1)


def upright(count, seed, *, crowd=60):
    rng = np.random.default_rng(seed)
    corner = rng.random((count, 2)) * crowd
    boxes = np.concatenate((corner, corner + 1 + rng.random((count, 2)) * 40), axis=1).astype(np.float32)
    return boxes, rng.permutation(count).astype(np.float32) / max(count, 1), rng.integers(0, 4, count)


def rotated(count, seed):
    boxes, scores, class_ids = upright(count, seed)
    angles = np.random.default_rng(seed).random((count, 1), dtype=np.float32) * 3
    return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2], angles), axis=1), scores, class_ids


@pytest.mark.torch
@settings(max_examples=30, deadline=None, derandomize=True)
@given(count=st.integers(0, 400), seed=SEEDS, iou=st.sampled_from([0.0, 0.3, 0.45, 0.7, 1.0]))
def test_kept_boxes_equal_torchvision(count, seed, iou):
    import torch
    from torchvision.ops import nms

    boxes, scores, class_ids = upright(count, seed)
    apart = torch.from_numpy(boxes) + torch.from_numpy(class_ids.astype(np.float32))[:, None] * 7680
    expected = nms(apart, torch.from_numpy(scores), iou)
    assert suppress(boxes, scores, class_ids=class_ids, iou=iou, max_det=30000).tolist() == expected.tolist()
    agnostic = nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou)
    assert suppress(boxes, scores, class_ids=None, iou=iou, max_det=30000).tolist() == agnostic.tolist()


@pytest.mark.torch
@settings(max_examples=30, deadline=None, derandomize=True)
@given(count=st.integers(1, 300), seed=SEEDS, iou=st.sampled_from([0.2, 0.45, 0.7]))
def test_kept_rotated_boxes_equal_ultralytics(count, seed, iou):
    import torch
    from ultralytics.utils.metrics import batch_probiou
    from ultralytics.utils.nms import TorchNMS

    boxes, scores, _ = rotated(count, seed)
    expected = TorchNMS.fast_nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou, iou_func=batch_probiou)
    kept = suppress_rotated(boxes, scores, class_ids=None, iou=iou, max_det=30000)
    assert kept.tolist() == expected.tolist()


@pytest.mark.parametrize(("function", "make"), [(suppress, upright), (suppress_rotated, rotated)])
@settings(max_examples=30, deadline=None, derandomize=True)
@given(count=st.integers(0, 200), seed=SEEDS)
def test_suppression_obeys_its_laws(function, make, count, seed):
    boxes, scores, class_ids = make(count, seed)
    kept = function(boxes, scores, class_ids=class_ids, iou=0.5, max_det=1000)
    assert (np.diff(scores[kept]) <= 0).all()
    # idempotent: what is kept stays
    again = function(boxes[kept], scores[kept], class_ids=class_ids[kept], iou=0.5, max_det=1000)
    assert again.tolist() == list(range(len(kept)))
    # order does not matter
    order = np.random.default_rng(seed).permutation(count)
    shuffled = function(boxes[order], scores[order], class_ids=class_ids[order], iou=0.5, max_det=1000)
    assert order[shuffled].tolist() == kept.tolist()
    # a limit keeps the best
    few = function(boxes, scores, class_ids=class_ids, iou=0.5, max_det=5)
    assert few.tolist() == kept[:5].tolist()


def test_ties_keep_their_order_and_classes_stand_apart():
    boxes = np.array([[0, 0, 10, 10]] * 4, np.float32)
    scores = np.full(4, 0.5, np.float32)
    kept = suppress(boxes, scores, class_ids=np.array([1, 0, 1, 0]), iou=0.5, max_det=10)
    assert kept.tolist() == [0, 1]


def test_empty_boxes_do_not_suppress():
    boxes = np.array([[5, 5, 5, 5], [5, 5, 5, 5]], np.float32)
    kept = suppress(boxes, np.array([0.2, 0.9], np.float32), class_ids=None, iou=0.5, max_det=10)
    assert kept.tolist() == [1, 0]
