# SPDX-License-Identifier: Apache-2.0
"""The steps of one file, run in several processes, one image in each at a time.

Invariants: this process never imports the file; a step that raises, takes too long, ends its process or gives garbage
becomes a `StepError` of that image alone, told without its traceback, which is in the log; a process that ends is
replaced. Stable.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import EngineDiedError, ShipsightError, StepError
from shipsight.model import ImagePredictions
from shipsight.serve.isolation import Keeper, Pauses, WorkerEndedError, WorkerProcess
from shipsight.serve.steps.mapping import map_predictions
from shipsight.serve.steps.reading import read_predictions

__all__ = ["STEPS_WORKER", "Seen", "StepPool"]

STEPS_WORKER = "shipsight.serve.steps.worker"
T = TypeVar("T")
Pixels = NDArray[np.uint8]
_log = logging.getLogger("shipsight.serve")
_LOAD_S = 120.0  # importing what a user's file imports


@dataclass(frozen=True, eq=False)
class Seen:
    """An image on its way to a model.

    Attributes:
        image_rgb: what the model is given.
        shown_rgb: the image that predictions will be in the pixels of.
        matrix: 2 x 3, from pixels of `image_rgb` to those of `shown_rgb`; None where they are the same image.
    """

    image_rgb: Pixels
    shown_rgb: Pixels
    matrix: NDArray[np.float64] | None = None

    def place(self, predictions: ImagePredictions) -> ImagePredictions:
        """Returns predictions on `image_rgb` in the pixels of `shown_rgb`."""
        if self.matrix is None:
            return predictions
        height, width = self.shown_rgb.shape[:2]
        return map_predictions(predictions, self.matrix, (height, width))


class StepPool:
    """Runs the steps of a file.

    Args:
        path: of the file.
        workers: processes, 1 and more.
        timeout_s: seconds that the steps before, or those after, may take for an image.
        max_pixels: most pixels of an image that a step may return.
    """

    def __init__(self, path: Path, *, workers: int = 2, timeout_s: float = 5.0, max_pixels: int = 50_000_000) -> None:
        self.path = path
        self.before_steps: tuple[str, ...] = ()
        self.after_steps: tuple[str, ...] = ()
        self._timeout_s = timeout_s
        self._max_pixels = max_pixels
        self._changed = threading.Condition()
        self._idle: list[WorkerProcess] = []
        self._keepers = [
            Keeper(
                STEPS_WORKER,
                f"steps {path.name}",
                self._prepare,
                on_down=lambda error: None,  # told in the log; who was in it is told by its own error
                on_up=self._put_back,
                pauses=Pauses(longest_s=5.0, calm_s=10.0),
            )
            for _ in range(workers)
        ]

    def open(self) -> None:
        """Starts the processes and imports the file in each.

        Raises:
            StepError: the file cannot be imported, or has no step.
        """
        try:
            with ThreadPoolExecutor(len(self._keepers)) as threads:
                for started in [threads.submit(keeper.open) for keeper in self._keepers]:
                    started.result()
        except EngineDiedError as error:
            self.close()
            raise StepError("the file of steps ends its process at import", where=self.path, got=error.got) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the processes."""
        for keeper in self._keepers:
            keeper.close()

    def before(self, image_rgb: Pixels) -> Seen:
        """Runs the steps that come before the model.

        Args:
            image_rgb: (height, width, 3) uint8 RGB.

        Raises:
            StepError: a step failed.
        """
        if not self.before_steps:
            return Seen(image_rgb, image_rgb)

        def read(told: Any, given: dict[str, NDArray[Any]]) -> Seen:  # noqa: ANN401 - JSON
            image = self._image(given["image"])
            if told["matrix"] is None:
                return Seen(image, image)
            shown = self._image(given["base"]) if "base" in given else image_rgb
            return Seen(image, shown, np.asarray(told["matrix"], dtype=np.float64).reshape(2, 3))

        return self._run({"verb": "before"}, {"image": image_rgb}, self.before_steps, read)

    def after(self, image_rgb: Pixels, predictions: ImagePredictions) -> ImagePredictions:
        """Runs the steps that come after the model.

        Args:
            image_rgb: what the predictions are in the pixels of.
            predictions: of the model.

        Raises:
            StepError: a step failed, or what it returned are no predictions of this model.
        """
        if not self.after_steps:
            return predictions
        text = json.dumps(predictions.to_dict(), allow_nan=False).encode()

        def read(told: Any, given: dict[str, NDArray[Any]]) -> ImagePredictions:  # noqa: ANN401 - JSON
            return read_predictions(json.loads(given["predictions"].tobytes()), predictions)

        arrays = {"image": image_rgb, "predictions": np.frombuffer(text, np.uint8)}
        return self._run({"verb": "after"}, arrays, self.after_steps, read)

    def _prepare(self, worker: WorkerProcess) -> WorkerProcess:
        def read(told: Any, given: dict[str, NDArray[Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:  # noqa: ANN401
            return tuple(told["before"]), tuple(told["after"])

        self.before_steps, self.after_steps = worker.call(
            {"verb": "load", "path": str(self.path.resolve())}, timeout_s=_LOAD_S, read=read
        )
        return worker

    def _run(
        self,
        message: dict[str, Any],
        arrays: dict[str, NDArray[Any]],
        names: tuple[str, ...],
        read: Callable[[Any, dict[str, NDArray[Any]]], T],
    ) -> T:
        worker = self._take()
        try:
            made = worker.call(message, arrays, timeout_s=self._timeout_s, read=read)
        except WorkerEndedError as error:
            _log.error("steps %s of %s: %s", ", ".join(names), self.path, error)
            raise StepError(f"a step ({', '.join(names)}) ended its process or took too long", got=error) from None
        except ShipsightError as error:
            self._put_back(worker)
            _log.error("steps of %s: %s", self.path, error)
            raise error if isinstance(error, StepError) else StepError("a step failed", got=error) from error
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            # What came back is not what a worker of ours says: the step may have written over it.
            worker.kill("it gave something else than an answer")
            _log.error("steps of %s: %s", self.path, error)
            raise StepError("a step spoilt its process", got=error) from error
        self._put_back(worker)
        return made

    def _take(self) -> WorkerProcess:
        until = time.monotonic() + self._timeout_s
        with self._changed:
            while True:
                while self._idle:
                    worker = self._idle.pop()
                    if worker.is_alive:
                        return worker
                left = until - time.monotonic()
                if left <= 0:
                    raise StepError("no process for steps came free in time", got=f"{self._timeout_s:g} s")
                self._changed.wait(left)

    def _put_back(self, worker: WorkerProcess) -> None:
        with self._changed:
            self._idle.append(worker)
            self._changed.notify()

    def _image(self, image: NDArray[Any]) -> Pixels:
        """Returns a copy of an image that a worker gave."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise StepError("a step returned no image", got=f"{image.dtype} {image.shape}")
        if image.shape[0] * image.shape[1] > self._max_pixels:
            raise StepError("a step returned too large an image", expected=self._max_pixels, got=image.shape[:2])
        return image.copy()
