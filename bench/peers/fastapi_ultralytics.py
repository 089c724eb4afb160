# SPDX-License-Identifier: Apache-2.0
"""The server that most teams write: FastAPI around Ultralytics. Run by `bench/serve.py`.

Decoding runs outside the event loop; the model is not safe to call from several threads, so a lock guards it.
"""

from __future__ import annotations

import argparse
import threading

import cv2
import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from ultralytics import YOLO


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    model, lock, app = YOLO(arguments.model, task="detect"), threading.Lock(), FastAPI()

    def infer(data: bytes) -> list[dict[str, object]]:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        with lock:
            result = model.predict(image, imgsz=640, verbose=False)[0]
        return [
            {"class_id": int(kind), "class_name": result.names[int(kind)], "score": score, "box_xyxy": box}
            for box, score, kind in zip(
                result.boxes.xyxy.tolist(), result.boxes.conf.tolist(), result.boxes.cls.tolist(), strict=True
            )
        ]

    @app.post("/predict")
    async def predict(request: Request) -> list[dict[str, object]]:
        return await run_in_threadpool(infer, await request.body())

    @app.get("/ready")
    def ready() -> str:
        return "ready"

    infer(cv2.imencode(".jpg", np.zeros((480, 640, 3), np.uint8))[1].tobytes())
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
