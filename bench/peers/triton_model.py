# SPDX-License-Identifier: Apache-2.0
"""The model that Triton's Python backend loads: `detector` behind one BYTES input and one BYTES output.

Triton calls an instance with one list of requests at a time; work goes on side by side in several instances, each a process.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

# The backend's interpreter is isolated: it reads no PYTHONPATH and knows no virtual environment.
sys.path[:0] = os.environ["BENCH_PYTHONPATH"].split(os.pathsep)

import numpy as np  # noqa: E402 - found on that path
import triton_python_backend_utils as pb_utils  # noqa: E402 - beside the line above
from detector import Detector  # noqa: E402 - found on that path


class TritonPythonModel:
    """The class that the backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        self.detector = Detector(
            parameters["model"]["string_value"], processes=int(parameters["instances"]["string_value"])
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:  # noqa: ANN401 - Triton's classes exist in its process only
        data = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()[0]
        text = json.dumps(self.detector.predict(data)).encode()
        return pb_utils.InferenceResponse([pb_utils.Tensor("predictions", np.array([text], dtype=object))])
