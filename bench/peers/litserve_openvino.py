# SPDX-License-Identifier: Apache-2.0
"""LitServe around `detector`, the JPEG as the request's body. Run by `bench/serve.py`.

One worker process a core, each with one stream; requests reach them over ZeroMQ (`fast_queue`), its faster transport.
"""

# No `from __future__ import annotations`: LitServe reads the annotation of `decode_request` as an object.
import argparse
import os
from typing import Annotated

import litserve
from detector import Detector
from fastapi import Body

WORKERS = len(os.sched_getaffinity(0))


class Service(litserve.LitAPI):
    """Predicts, answers boxes."""

    def setup(self, device: str) -> None:
        self.detector = Detector(os.environ["BENCH_MODEL"], processes=WORKERS)

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> bytes:
        return request

    def predict(self, data: bytes) -> list[dict[str, object]]:
        return self.detector.predict(data)

    def encode_response(self, output: list[dict[str, object]]) -> list[dict[str, object]]:
        return output


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    os.environ["BENCH_MODEL"] = arguments.model  # its workers are processes of their own
    litserve.LitServer(Service(), accelerator="cpu", workers_per_device=WORKERS, fast_queue=True, timeout=60).run(
        port=arguments.port,
        host="127.0.0.1",
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
