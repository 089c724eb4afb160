# SPDX-License-Identifier: Apache-2.0
"""LitServe around Ultralytics, as its examples show it. Run by `bench/serve.py`."""

from __future__ import annotations

import argparse

import cv2
import litserve
import numpy as np
from fastapi import Request
from ultralytics import YOLO


class Detector(litserve.LitAPI):
    """Decodes, predicts, answers boxes."""

    model_path = ""

    def setup(self, device: str) -> None:
        self.model = YOLO(self.model_path, task="detect")

    async def decode_request(self, request: Request) -> bytes:
        return await request.body() if isinstance(request, Request) else bytes(request)

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
    Detector.model_path = arguments.model
    litserve.LitServer(Detector(), accelerator="cpu", timeout=60).run(
        port=arguments.port, host="127.0.0.1", generate_client_file=False, log_level="warning"
    )
