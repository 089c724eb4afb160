# SPDX-License-Identifier: Apache-2.0
"""A session in a worker process does what every session does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from engine_suite import SessionSuite
from tiny_models import noise, variant_of, yolov8_model

from shipsight.engines import EngineOptions, EngineSession
from shipsight.errors import CorruptError, EngineDiedError, MissingDependencyError
from shipsight.serve.isolation import ENGINE_WORKER, WorkerProcess, open_session

FILES = {"model.onnx": yolov8_model()}


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    started = WorkerProcess(ENGINE_WORKER, "conformance", on_end=lambda one: None)
    yield started
    started.close()


@pytest.mark.parametrize("engine_name", ["onnxruntime", "openvino"])
class TestIsolatedSession(SessionSuite):
    @pytest.fixture
    def session(self, worker: WorkerProcess, engine_name: str) -> Iterator[EngineSession]:
        variant = variant_of(engine_name, tuple(FILES))
        with open_session(worker, FILES, variant, EngineOptions(threads=2, requests=2), stuck_s=60) as opened:
            yield opened

    @pytest.fixture
    def tensor(self) -> np.ndarray:
        return np.ascontiguousarray(noise().transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))


def test_errors_of_the_engine_come_back_as_they_are(worker: WorkerProcess) -> None:
    variant = variant_of("onnxruntime", tuple(FILES))
    with pytest.raises(CorruptError, match=r"model\.onnx"):
        open_session(worker, {"model.onnx": b"garbage"}, variant, EngineOptions(), stuck_s=60)
    with pytest.raises(MissingDependencyError, match="cuda"):
        open_session(worker, FILES, variant, EngineOptions(device="cuda:117"), stuck_s=60)


def test_an_inference_in_a_worker_that_has_ended_is_a_named_error() -> None:
    own = WorkerProcess(ENGINE_WORKER, "ends", on_end=lambda one: None)
    session = open_session(own, FILES, variant_of("onnxruntime", tuple(FILES)), EngineOptions(), stuck_s=60)
    tensor = np.zeros(session.input.shape, np.float32)
    assert session.infer(tensor)
    own.kill("a test")
    with pytest.raises(EngineDiedError, match="a test"):
        session.infer(tensor)
    session.close()
    session.close()
    own.close()
