# SPDX-License-Identifier: Apache-2.0
"""What the peers run: bytes of a JPEG to boxes, written for speed around a published OpenVINO export.

The steps are those that a team would reach that cares: libjpeg-turbo straight to RGB, pixels into the graph as uint8 with
scaling and transposition folded in, infer requests that wait in a queue while others run, candidates cut to a handful before
anything is computed on them, OpenCV's suppression. Safe to call from several threads; only Python's share holds the lock.
"""

from __future__ import annotations

import os
import queue
import re
from pathlib import Path

import cv2
import numpy as np
import openvino
import simplejpeg
from openvino.preprocess import PrePostProcessor

CONF, IOU, MOST = 0.25, 0.7, 300
"""Ultralytics' defaults, and shipsight's."""


class Detector:
    """An export opened with OpenVINO's throughput hint."""

    def __init__(self, folder: str, *, processes: int = 1) -> None:
        """Opens the export.

        Args:
            folder: of the export, with one `.xml` and `metadata.yaml`.
            processes: how many of these share the machine; with more than one, each has its share of the cores as one stream.
        """
        xml = next(Path(folder).glob("*.xml"))
        self.names = _class_names(xml.with_name("metadata.yaml"))
        core = openvino.Core()
        steps = PrePostProcessor(core.read_model(xml))
        steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        steps.input().preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
        config: dict[str, object] = {"PERFORMANCE_HINT": "THROUGHPUT"}
        if processes > 1:
            # Pinned, streams of several processes would all sit on the first cores.
            threads = max(1, len(os.sched_getaffinity(0)) // processes)
            config |= {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        compiled = core.compile_model(steps.build(), "CPU", config)
        self.size = int(compiled.input(0).shape[1])
        self._requests: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()
        for _ in range(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")):
            self._requests.put(compiled.create_infer_request())
        self.predict(cv2.imencode(".jpg", np.zeros((480, 640, 3), np.uint8))[1].tobytes())

    def predict(self, data: bytes) -> list[dict[str, object]]:
        """Returns the boxes of one JPEG, best first, in its own pixels."""
        image = simplejpeg.decode_jpeg(data, "RGB")
        square, scale, left, top = self._letterbox(image)
        request = self._requests.get()
        try:
            request.infer({0: square[None]}, share_inputs=True, share_outputs=True)
            candidates, scores, kinds = _cut(request.get_output_tensor(0).data[0])
        finally:
            self._requests.put(request)
        return self._boxes(candidates, scores, kinds, scale, left, top, image.shape[:2])

    def _letterbox(self, image: np.ndarray) -> tuple[np.ndarray, float, int, int]:
        height, width = image.shape[:2]
        scale = min(self.size / height, self.size / width)
        inner_w, inner_h = round(width * scale), round(height * scale)
        if (inner_w, inner_h) != (width, height):
            image = cv2.resize(image, (inner_w, inner_h), interpolation=cv2.INTER_LINEAR)
        left, top = (self.size - inner_w) // 2, (self.size - inner_h) // 2
        square = np.full((self.size, self.size, 3), 114, np.uint8)
        square[top : top + inner_h, left : left + inner_w] = image
        return square, scale, left, top

    def _boxes(
        self,
        candidates: np.ndarray,
        scores: np.ndarray,
        kinds: np.ndarray,
        scale: float,
        left: int,
        top: int,
        size_hw: tuple[int, int],
    ) -> list[dict[str, object]]:
        if not len(scores):
            return []
        corners = np.empty_like(candidates)
        corners[:, :2] = candidates[:, :2] - candidates[:, 2:] / 2
        corners[:, 2:] = candidates[:, :2] + candidates[:, 2:] / 2
        xywh = np.concatenate([corners[:, :2], candidates[:, 2:]], axis=1)
        kept = np.asarray(cv2.dnn.NMSBoxesBatched(xywh, scores, kinds, CONF, IOU), dtype=np.int64).reshape(-1)[:MOST]
        boxes = (corners[kept] - (left, top, left, top)) / scale
        boxes = boxes.clip(0, (size_hw[1], size_hw[0], size_hw[1], size_hw[0]))
        return [
            {"class_id": kind, "class_name": self.names[kind], "score": score, "box_xyxy": box}
            for kind, score, box in zip(kinds[kept].tolist(), scores[kept].tolist(), boxes.tolist(), strict=True)
        ]


def _cut(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns centre boxes, scores and classes of the anchors above the threshold, copied; `raw` is (4 + classes, anchors)."""
    found = np.flatnonzero(raw[4:].max(axis=0) > CONF)
    cut = np.ascontiguousarray(raw[:, found].T)
    kinds = cut[:, 4:].argmax(axis=1)
    return cut[:, :4], cut[np.arange(len(cut)), 4 + kinds], kinds


def _class_names(metadata: Path) -> list[str]:
    """Reads the names from the export's metadata, lines of `  0: person` below `names:`."""
    _, _, names = metadata.read_text(encoding="utf-8").partition("names:\n")
    return [name.strip("'\"") for name in re.findall(r"^  \d+: (.+)$", names, re.MULTILINE)]
