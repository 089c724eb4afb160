# SPDX-License-Identifier: Apache-2.0
"""The sandboxed child process, from the inside: isolate, then answer requests until the pipe closes.

Run as `python -m shipsight.build.sources._worker CONFIG`. Frames come on standard input and go to what was standard
output; prints of libraries land on standard error. Leaves to others: what a request means (`_checkpoint`,
`_onnx_checks`). Invariant: nothing is read from the pipe before isolation holds. Private.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from shipsight.build.sources._wire import Frame, encode_frame, read_frame
from shipsight.build.sources.sandbox import Limits, Sandbox, arm_cpu_limit, isolate
from shipsight.errors import CorruptError, LimitError, ShipsightError

__all__ = ["Operation", "main"]

Operation = Callable[[dict[str, Any], list[bytes]], Frame]
"""A request's parameters and blobs -> the answer's header and blobs."""


def main() -> None:
    """Answers requests until standard input ends."""
    config = json.loads(sys.argv[1])
    limits = Limits(**config["limits"])
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        layers = isolate(Sandbox(config["sandbox"]), limits)
    except ShipsightError as error:
        _send(answers, {"error": error.to_dict()})
        return
    operations = _operations(config["role"], limits)
    _send(answers, {"layers": layers})
    while True:
        try:
            header, blobs = read_frame(_read_exactly)
        except EOFError:
            return
        arm_cpu_limit(limits.cpu_s)
        _send(answers, *_answer(operations[header["operation"]], header["parameters"], blobs))


def _operations(role: str, limits: Limits) -> dict[str, Operation]:
    if role == "checkpoint":
        from shipsight.build.sources._checkpoint import CheckpointWorker

        return CheckpointWorker(limits).operations()
    from shipsight.build.sources._onnx_worker import OnnxWorker

    return OnnxWorker(limits).operations()


def _answer(operation: Operation, parameters: dict[str, Any], blobs: list[bytes]) -> Frame:
    try:
        return operation(parameters, blobs)
    except ShipsightError as error:
        return {"error": error.to_dict()}, []
    except MemoryError:
        return {"error": LimitError("the model file needs more memory than it may have").to_dict()}, []
    except Exception as error:  # noqa: BLE001 - the edge of a process: whatever a hostile file provokes becomes an answer
        text = f"{type(error).__name__}: {error}"
        if "allocate memory" in text:
            return {"error": LimitError("the model file needs more memory than it may have", got=text).to_dict()}, []
        return {"error": CorruptError("the model file cannot be handled", got=text[-600:]).to_dict()}, []


def _send(handle: int, header: dict[str, Any], blobs: list[bytes] | None = None) -> None:
    for part in encode_frame(header, blobs or []):
        view = memoryview(part).cast("B")
        while view:
            view = view[os.write(handle, view) :]


def _read_exactly(count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = os.read(0, min(1 << 20, count - len(parts)))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


if __name__ == "__main__":
    main()
