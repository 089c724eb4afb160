# SPDX-License-Identifier: Apache-2.0
"""BentoML around `detector`, the JPEG as the request's body. Run by `bench/serve.py`.

One worker whose threads share one compiled model with several streams. Access logs and usage tracking are off.
"""

# No `from __future__ import annotations`: BentoML makes its request model from the annotations of `predict`.
import argparse
import os
import sys
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from detector import Detector


@bentoml.service(name="detector", workers=1, threads=8, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Service:
    """Takes a JPEG as the body."""

    def __init__(self) -> None:
        self.detector = Detector(os.environ["BENCH_MODEL"])

    @bentoml.api(route="/predict")
    def predict(self, image: Annotated[Path, ContentType("image/jpeg")], /) -> list[dict[str, object]]:
        return self.detector.predict(image.read_bytes())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    os.environ["BENCH_MODEL"] = arguments.model
    command = [sys.executable, "-m", "bentoml", "serve", "bentoml_openvino:Service", "--host", "127.0.0.1"]
    command += ["--port", str(arguments.port), "--working-dir", str(Path(__file__).parent)]
    os.execv(sys.executable, command)
