# SPDX-License-Identifier: Apache-2.0
"""The reference engine for checkpoints: PyTorch, in the sandboxed child that opened the file.

Leaves to others: loading (`_checkpoint`), the contract (`engines.contract`). Invariants: float32, evaluation mode, fused as
Ultralytics fuses; requests are answered one after the other; closing the last session and the source stops the child.
Stable: the engine's name `pytorch`; the rest private.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.sources._process import ChildProcess
from shipsight.engines.contract import EngineSession, PrecisionReport, TensorSpec
from shipsight.errors import CorruptError, UsageError

__all__ = ["PyTorchSession"]


class PyTorchSession(EngineSession):
    """A checkpoint, run by PyTorch.

    Args:
        child: the process that loaded it; kept alive until `close`.
        size_hw: input height and width in pixels.
        what: the model's name, for messages.
        threads: of PyTorch, None for one a core.
        infer_s: wall-clock limit of one inference.
    """

    def __init__(
        self, child: ChildProcess, size_hw: tuple[int, int], *, what: str, threads: int | None, infer_s: float
    ) -> None:
        if threads is not None and not 1 <= threads <= 1024:
            raise UsageError("number of threads out of range", where="threads", expected="1 to 1024", got=threads)
        self._child: ChildProcess | None = child
        self._what = what
        self._threads = threads or len(os.sched_getaffinity(0))
        self._infer_s = infer_s
        self._close_lock = threading.Lock()
        self.input = TensorSpec("images", "float32", (1, 3, *size_hw))
        child.retain()
        try:
            first = self._run(np.zeros(self.input.shape, np.float32))
            self._convolutions = self._count_convolutions()
        except BaseException:
            self.close()
            raise
        self.outputs = tuple(TensorSpec(f"output{i}", "float32", array.shape) for i, array in enumerate(first))

    def infer(self, tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Runs one image; see the contract.

        Raises:
            TensorError: shape or type differ from `input`.
            LimitError: it took too long or too much memory.
        """
        arrays = self._run(self.check(tensor))
        return {spec.name: array for spec, array in zip(self.outputs, arrays, strict=True)}

    def precision(self) -> PrecisionReport:
        """Returns float32 throughout, with the number of convolutions of the fused network."""
        count = self._convolutions
        return PrecisionReport(count, 0, "f32", {"Conv2d f32": count})

    def close(self) -> None:
        """Lets go of the child process."""
        with self._close_lock:
            child, self._child = self._child, None
        if child is not None:
            child.release()

    def _run(self, tensor: NDArray[Any]) -> list[NDArray[Any]]:
        header, blobs = self._ask("infer", {"shape": list(tensor.shape), "threads": self._threads}, tensor)
        arrays = []
        for shape, blob in zip(header.get("shapes", ()), blobs, strict=True):
            sides = [int(side) for side in shape]
            if min(sides, default=0) < 0 or 4 * int(np.prod(sides, dtype=object)) != len(blob):
                raise CorruptError("the child process answered with a malformed tensor", where=self._what, got=sides)
            arrays.append(np.frombuffer(blob, "<f4").astype(np.float32).reshape(sides))
        return arrays

    def _count_convolutions(self) -> int:
        header, _ = self._ask("count", {}, None)
        return int(header["convolutions"])

    def _ask(
        self, operation: str, parameters: dict[str, Any], tensor: NDArray[Any] | None
    ) -> tuple[dict[str, Any], list[bytes]]:
        if self._child is None:
            raise UsageError("the session has been closed", where=self._what)
        blobs = [] if tensor is None else [np.ascontiguousarray(tensor, "<f4").data.cast("B")]
        return self._child.call(operation, parameters, blobs, what=f"running {self._what}", timeout_s=self._infer_s)
