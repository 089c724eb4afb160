# SPDX-License-Identifier: Apache-2.0
"""YOLO26's end-to-end heads against Ultralytics' own reading of the same ONNX export, all tasks that have one.

There is no trained checkpoint: the networks come from their YAML, with weights drawn so that scores spread.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from shipsight.model import Card, Head, InputContract, OutputContract, OutputForm, Task, TensorLayout
from shipsight.proof.scenes import make_scene
from shipsight.vision import PredictSettings, postprocess, prepare, to_tensor

pytestmark = [pytest.mark.torch, pytest.mark.slow]

SIDE, CONF = 160, 0.3
TASKS = {"": Task.DETECT, "-seg": Task.SEGMENT, "-pose": Task.POSE, "-obb": Task.OBB}


def export(folder: Path, name: str) -> tuple[Any, Any]:
    """Returns a predictor of Ultralytics on the ONNX export of a network, and the network."""
    import torch
    from ultralytics import YOLO

    torch.manual_seed(1)
    model = YOLO(f"{name}.yaml", verbose=False)
    # Statistics of a batch of scenes for those of no image at all: else every score is the bias.
    scenes = [cv2.resize(make_scene(subject), (SIDE, SIDE)) for subject in range(8)]
    for layer in model.model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        model.model.train()(torch.from_numpy(np.stack(scenes).transpose(0, 3, 1, 2) / np.float32(255)))
        model.model.eval()
        for key, value in model.model.state_dict().items():
            if "one2one_cv3" in key and key.endswith(".2.bias"):
                value.fill_(0.0)
            elif "one2one_cv3" in key and key.endswith(".2.weight"):
                value.mul_(8.0)
    model.save(folder / f"{name}.pt")
    exported = YOLO(folder / f"{name}.pt").export(format="onnx", imgsz=SIDE, simplify=False, verbose=False, nms=False)
    opened = YOLO(exported)
    opened.predict(np.zeros((SIDE, SIDE, 3), np.uint8), imgsz=SIDE, rect=False, verbose=False, retina_masks=True)
    return opened.predictor, model.model


@pytest.mark.parametrize("suffix", TASKS)
def test_end_to_end_heads_are_read_as_ultralytics_reads_them(tmp_path: Path, suffix: str) -> None:
    import torch

    task = TASKS[suffix]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's and the exporter's own deprecations
        predictor, network = export(tmp_path, f"yolo26n{suffix}")
    card = Card(
        name="yolo26n",
        version="1",
        task=task,
        class_names=tuple(network.names[index] for index in range(len(network.names))),
        input=InputContract((SIDE, SIDE)),
        output=OutputContract(
            head=Head.END2END,
            keypoint_shape=tuple(network.kpt_shape) if task is Task.POSE else None,
            mask_channels=32 if task is Task.SEGMENT else 0,
        ),
    )
    found = 0
    for subject in range(3):
        image_rgb = cv2.resize(make_scene(subject), (200, 120))
        prepared, geometry = prepare(image_rgb, card.input)
        tensor = to_tensor(prepared, card.input, TensorLayout.FLOAT_NCHW)
        with torch.inference_mode():
            raw = predictor.model(torch.from_numpy(tensor))
            predictor.args.conf, predictor.args.max_det = CONF, 300
            predictor.batch = (["image"], None, None)
            bgr = np.ascontiguousarray(image_rgb[..., ::-1])
            theirs = predictor.postprocess(raw, torch.from_numpy(tensor), [bgr])[0]
        arrays = raw if isinstance(raw, list | tuple) else [raw]
        outputs = {f"output{position}": np.asarray(one) for position, one in enumerate(arrays)}
        ours = postprocess(
            outputs, card=card, form=OutputForm.RAW, geometry=geometry, settings=PredictSettings(conf=CONF)
        )
        boxes = theirs.obb if task is Task.OBB else theirs.boxes
        assert ours.class_ids.tolist() == boxes.cls.int().tolist()
        np.testing.assert_allclose(ours.scores, boxes.conf.numpy(), rtol=0, atol=1e-6)
        if task is Task.OBB:
            np.testing.assert_allclose(ours.corners_xy, boxes.xyxyxyxy.numpy(), rtol=0, atol=0.05)
        else:
            np.testing.assert_allclose(ours.boxes_xyxy, boxes.xyxy.numpy(), rtol=0, atol=0.05)
        if task is Task.POSE:
            np.testing.assert_allclose(ours.keypoints_xyc, theirs.keypoints.data.numpy(), rtol=0, atol=0.05)
        if task is Task.SEGMENT and len(ours):
            masks = theirs.masks.data.numpy().astype(bool)
            both, either = (ours.masks & masks).sum(axis=(1, 2)), (ours.masks | masks).sum(axis=(1, 2))
            assert (both[either > 0] / either[either > 0]).min() >= 0.995
        found += len(ours)
    assert found >= 3, "the drawn weights must predict something"
