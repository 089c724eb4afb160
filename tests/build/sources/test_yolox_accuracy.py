# SPDX-License-Identifier: Apache-2.0
"""YOLOX from a plain ONNX file and a card: as accurate as an independent decode and evaluation says it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from shipsight.build.sources import open_source
from shipsight.model import OutputForm, TensorLayout
from shipsight.vision import PredictSettings, decode_image, postprocess, prepare, to_tensor

SIDE, CONF, IOU, MOST = 416, 0.001, 0.7, 300


def _labels(data: Path) -> tuple[list[Path], list[str], list[dict[str, Any]]]:
    said = yaml.safe_load((data / "data.yaml").read_text())
    names = said["names"]
    images = sorted((data / said["val"]).glob("*.jpg"))
    truth: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        height, width = cv2.imread(str(image)).shape[:2]
        file = Path(str(image.parent).replace("images", "labels")) / f"{image.stem}.txt"
        for line in file.read_text().splitlines() if file.exists() else []:
            kind, x, y, w, h = (float(part) for part in line.split())
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": number,
                    "category_id": int(kind),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    return images, [names[i] for i in range(len(names))], truth


def _mean_average_precision(
    count: int, classes: int, truth: list[dict[str, Any]], found: list[dict[str, Any]]
) -> float:
    from faster_coco_eval import COCO, COCOeval_faster

    reference = COCO(
        {
            "images": [{"id": i} for i in range(count)],
            "categories": [{"id": i, "name": str(i)} for i in range(classes)],
            "annotations": truth,
        }
    )
    evaluation = COCOeval_faster(reference, reference.loadRes(found), "bbox")
    evaluation.params.maxDets = [1, 10, MOST]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    return float(precision[precision > -1].mean())


def _rows(number: int, boxes_xyxy: Any, scores: Any, classes: Any) -> list[dict[str, Any]]:
    return [
        {
            "image_id": number,
            "category_id": int(kind),
            "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
            "score": float(score),
        }
        for (x0, y0, x1, y1), score, kind in zip(boxes_xyxy, scores, classes, strict=True)
    ]


def _decode_independently(session: Any, image: Path) -> tuple[Any, Any, Any]:
    """Decodes as Megvii's own evaluation does: sides rounded down, boxes not clipped (clipping gives 0.3468 instead).

    BGR, scaled to fit, top left, 114; offsets on grids of stride 8, 16, 32; each class of each anchor; OpenCV's NMS.
    """
    bgr = cv2.imread(str(image))
    height, width = bgr.shape[:2]
    gain = min(SIDE / height, SIDE / width)
    canvas = np.full((SIDE, SIDE, 3), 114, np.uint8)
    small = cv2.resize(bgr, (int(width * gain), int(height * gain)), interpolation=cv2.INTER_LINEAR)
    canvas[: small.shape[0], : small.shape[1]] = small
    raw = session.run(None, {session.get_inputs()[0].name: canvas.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
    centres, sizes, start = [], [], 0
    for stride in (8, 16, 32):
        cells = SIDE // stride
        part = raw[start : start + cells * cells]
        column, row = np.arange(cells * cells) % cells, np.arange(cells * cells) // cells
        centres.append((part[:, :2] + np.stack([column, row], 1)) * stride)
        sizes.append(np.exp(part[:, 2:4]) * stride)
        start += cells * cells
    centre, size = np.concatenate(centres), np.concatenate(sizes)
    boxes = np.concatenate([centre - size / 2, centre + size / 2], 1) / gain
    scores = raw[:, 4:5] * raw[:, 5:]
    anchor, kind = np.nonzero(scores > CONF)
    values = scores[anchor, kind]
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)[anchor]
    kept = np.asarray(cv2.dnn.NMSBoxesBatched(xywh.tolist(), values.tolist(), kind.tolist(), CONF, IOU), int).ravel()
    kept = kept[np.argsort(-values[kept], kind="stable")][:MOST]
    return boxes[anchor[kept]], values[kept], kind[kept]


@pytest.mark.slow
@pytest.mark.shared
def test_yolox_is_as_accurate_as_independent_evaluation_when_opened_with_a_card(
    shared_data: Path, tmp_path: Path
) -> None:
    import onnxruntime

    file = shared_data / "models" / "yolox_nano.onnx"
    images, names, truth = _labels(shared_data / "coco128")
    card_file = tmp_path / "card.yaml"
    said = {"task": "detect", "head": "yolox", "names": names, "fit": "letterbox-top-left"}
    card_file.write_text(yaml.safe_dump(said | {"normalisation": {"colour": "bgr", "scale": 1}}))
    plain = onnxruntime.InferenceSession(str(file))
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    settings = PredictSettings(conf=CONF, iou=IOU, max_det=MOST, multi_label=True)
    with open_source(file, card_file=card_file) as source, source.open_reference((SIDE, SIDE)) as session:
        card = source.card
        for number, image in enumerate(images):
            theirs += _rows(number, *_decode_independently(plain, image))
            prepared, geometry = prepare(decode_image(image), card.input)
            outputs = session.infer(to_tensor(prepared, card.input, TensorLayout.FLOAT_NCHW))
            found = postprocess(outputs, card=card, form=OutputForm.RAW, geometry=geometry, settings=settings)
            assert found.boxes_xyxy is not None
            ours += _rows(number, found.boxes_xyxy, found.scores, found.class_ids)
    assert len(images) == 64
    independent = _mean_average_precision(len(images), len(names), truth, theirs)
    assert independent == pytest.approx(0.345, abs=0.002)
    assert _mean_average_precision(len(images), len(names), truth, ours) == pytest.approx(independent, abs=0.002)
