# SPDX-License-Identifier: Apache-2.0
"""LitServe around Ultralytics, images as base64 in JSON as its examples send them. Run by `bench/serve.py`."""

from __future__ import annotations

import argparse
import base64
import os

import cv2
import litserve
import numpy as np
from ultralytics import YOLO


class Detector(litserve.LitAPI):
    """Decodes, predicts, answers boxes."""

    def setup(self, device: str) -> None:
        self.model = YOLO(os.environ["BENCH_MODEL"], task="detect")

    def decode_request(self, request: dict[str, str]) -> bytes:
        return base64.b64decode(request["content"])

    def predict(self, data: bytes) -> list[dict[str, object]]:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        result = self.model.predict(image, imgsz=640, verbose=False)[0]
        return [
            {"class_id": int(kind), "class_name": result.names[int(kind)], "score": score, "box_xyxy": box}
            for box, score, kind in zip(
                result.boxes.xyxy.tolist(), result.boxes.conf.tolist(), result.boxes.cls.tolist(), strict=True
            )
        ]

    def encode_response(self, output: list[dict[str, object]]) -> dict[str, object]:
        return {"predictions": output}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    os.environ["BENCH_MODEL"] = arguments.model  # its worker is a process of its own
    litserve.LitServer(Detector(), accelerator="cpu", timeout=60).run(
        port=arguments.port, host="127.0.0.1", generate_client_file=False, log_level="warning"
    )
