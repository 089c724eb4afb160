# SPDX-License-Identifier: Apache-2.0
"""FastAPI around `detector`: what a team writes that has outgrown Ultralytics' wrapper. Run by `bench/serve.py`."""

from __future__ import annotations

import argparse
import json

import uvicorn
from detector import Detector
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    detector, app = Detector(arguments.model), FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        found = await run_in_threadpool(detector.predict, await request.body())
        return Response(json.dumps(found), media_type="application/json")

    @app.get("/ready")
    def ready() -> str:
        return "ready"

    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
