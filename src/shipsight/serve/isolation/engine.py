# SPDX-License-Identifier: Apache-2.0
"""A model's engine sessions in a worker process, with the contract of `engines.contract`.

The variant's files go over as bytes in memory, checked before by who reads the bundle: the worker opens no file of it.
Leaves to others: starting the worker again (`keeper`). Invariants: whoever waits for an inference when the worker ends
gets `EngineDiedError`; an inference that takes too long ends the worker. Stable.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.engines import EngineOptions, EngineSession, PrecisionReport, TensorSpec
from shipsight.errors import EngineDiedError, UsageError
from shipsight.model import Variant
from shipsight.serve.isolation.channel import Arrays
from shipsight.serve.isolation.process import WorkerEndedError, WorkerProcess

__all__ = ["ENGINE_WORKER", "IsolatedSession", "open_session"]

ENGINE_WORKER = "shipsight.serve.isolation.engine_worker"
_OPEN_S = 600.0  # compiling a large model on a slow machine; one that hangs longer is ended


class IsolatedSession(EngineSession):
    """A variant that is open in a worker.

    Args:
        worker: that it is open in.
        key: names the session there.
        told: what the worker says of its tensors.
        stuck_s: an inference that takes longer ends the worker.
    """

    def __init__(self, worker: WorkerProcess, key: int, told: dict[str, Any], *, stuck_s: float) -> None:
        self._worker = worker
        self._key = key
        self._stuck_s = stuck_s
        self._is_closed = False
        self.input = _spec_of(told["input"])
        self.outputs = tuple(_spec_of(one) for one in told["outputs"])

    def infer(self, tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Runs one batch; see `EngineSession.infer`.

        Raises:
            TensorError: shape or type differ.
            EngineDiedError: the worker ended meanwhile, or was killed because the inference took too long.
        """
        array = self.check(tensor)
        _, given = self._call("infer", {"tensor": array}, self._stuck_s)
        return {spec.name: given[str(position)] for position, spec in enumerate(self.outputs)}

    def precision(self) -> PrecisionReport:
        """See `EngineSession.precision`."""
        told, _ = self._call("precision", {}, _OPEN_S)
        return PrecisionReport(**told)

    def close(self) -> None:
        """Lets the worker give back what it holds; a worker that has ended holds nothing."""
        if self._is_closed:
            return
        with contextlib.suppress(EngineDiedError):
            self._call("close", {}, _OPEN_S)
        self._is_closed = True

    def _call(self, verb: str, arrays: Arrays, timeout_s: float) -> tuple[Any, dict[str, NDArray[Any]]]:
        if self._is_closed:
            raise UsageError("the session is closed", where=self.input.name)
        return _ask(self._worker, {"verb": verb, "session": self._key}, arrays, timeout_s)


def open_session(
    worker: WorkerProcess, files: dict[str, bytes], variant: Variant, options: EngineOptions, *, stuck_s: float
) -> IsolatedSession:
    """Opens a variant in a worker.

    Args:
        worker: started from `ENGINE_WORKER`.
        files: of the variant, by name, already checked.
        variant: which.
        options: how.
        stuck_s: an inference that takes longer ends the worker.

    Raises:
        EngineDiedError: the worker ended over it.
        ShipsightError: as `Engine.open`.
    """
    told_options = {**asdict(options), "cache_dir": None if options.cache_dir is None else str(options.cache_dir)}
    request = {"verb": "open", "variant": variant.to_dict(), "options": told_options}
    told, _ = _ask(worker, request, {name: np.frombuffer(data, np.uint8) for name, data in files.items()}, _OPEN_S)
    return IsolatedSession(worker, told["session"], told, stuck_s=stuck_s)


def options_of(told: dict[str, Any]) -> EngineOptions:
    """Reads options as they travel."""
    return EngineOptions(**{**told, "cache_dir": None if told["cache_dir"] is None else Path(told["cache_dir"])})


def _ask(
    worker: WorkerProcess, request: dict[str, Any], arrays: Arrays, timeout_s: float
) -> tuple[Any, dict[str, NDArray[Any]]]:
    def read(told: Any, given: dict[str, NDArray[Any]]) -> tuple[Any, dict[str, NDArray[Any]]]:  # noqa: ANN401 - JSON
        return told, {name: array.copy() for name, array in given.items()}

    try:
        return worker.call(request, arrays, timeout_s=timeout_s, read=read)
    except WorkerEndedError as error:
        raise EngineDiedError(
            "the model's engine ended before it answered; it is being started again", where=worker.label, got=error
        ) from None


def _spec_of(told: dict[str, Any]) -> TensorSpec:
    return TensorSpec(told["name"], told["dtype"], tuple(told["shape"]))
