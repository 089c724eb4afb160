# SPDX-License-Identifier: Apache-2.0
"""Ray Serve around `detector`. Run by `bench/serve.py`.

One replica with several streams: its threads share one compiled model, and the router has one place to send to. The
dashboard, access logs and usage statistics are off, and Ray Serve's own throughput settings are on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import threading

# Ray authenticates its own processes to each other; given a token, it writes none into the home folder.
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

import ray
from detector import Detector
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=1, max_ongoing_requests=64)
class Service:
    """Takes a JPEG as the body of a POST; a GET tells that it is there, the proxy alone is healthy before."""

    def __init__(self, model: str) -> None:
        self.detector = Detector(model)

    async def __call__(self, request: Request) -> Response:
        if request.method == "GET":
            return Response("ready")
        found = await asyncio.to_thread(self.detector.predict, await request.body())
        return Response(json.dumps(found), media_type="application/json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    leave = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave.set())
    with contextlib.ExitStack() as stack:
        stack.callback(ray.shutdown)
        ray.init(
            num_cpus=max(2, len(os.sched_getaffinity(0))),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="warning",
            _node_ip_address="127.0.0.1",
            _temp_dir=os.environ["BENCH_SCRATCH"],  # must be short: sockets lie in it
        )
        stack.callback(serve.shutdown)
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=arguments.port))
        serve.run(
            Service.bind(arguments.model),
            route_prefix="/predict",
            logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
        )
        leave.wait()


if __name__ == "__main__":
    main()
