# SPDX-License-Identifier: Apache-2.0
"""The process that imports the operator's file and runs its steps. Run as `python -m shipsight.serve.steps.worker FD LABEL`.

Not for direct use. What is asked is described by its other end, `pool`. Steps run in the order in which the file defines
them. The folder of the file is searched for modules that it imports.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import StepError
from shipsight.serve.isolation import answer_connections
from shipsight.steps import kind_of

__all__ = ["StepHost", "main"]

Arrays = dict[str, NDArray[Any]]
Matrix = NDArray[np.float64]
_MODULE = "shipsight_operator_steps"


class StepHost:
    """The steps of one file."""

    def __init__(self) -> None:
        self._steps: dict[str, list[Callable[..., Any]]] = {"before": [], "after": []}
        self._verbs: dict[str, Callable[[dict[str, Any], Arrays], tuple[Any, Arrays]]] = {
            "load": self._load,
            "before": self._before,
            "after": self._after,
        }

    def handle(self, message: dict[str, Any], arrays: Arrays) -> tuple[Any, Arrays]:
        """Answers one request.

        Raises:
            StepError: a step failed.
        """
        return self._verbs[message["verb"]](message, arrays)

    def _load(self, message: dict[str, Any], arrays: Arrays) -> tuple[Any, Arrays]:
        path = Path(message["path"])
        sys.path.insert(0, str(path.parent))
        sys.dont_write_bytecode = True  # the folder is the operator's
        spec = importlib.util.spec_from_file_location(_MODULE, path)
        if spec is None or spec.loader is None:
            raise StepError("not a Python file", where=path, expected="a name that ends in .py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[_MODULE] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:  # the file may do anything
            raise StepError("the file of steps cannot be imported", where=path, got=_said(error)) from error
        for value in dict.fromkeys(one for one in vars(module).values() if kind_of(one) is not None):
            self._steps[str(kind_of(value))].append(value)
        if not any(self._steps.values()):
            raise StepError(
                "the file has no step",
                where=path,
                hint="Mark functions with @before or @after from shipsight.steps.",
            )
        return {kind: [_name(one) for one in steps] for kind, steps in self._steps.items()}, {}

    def _before(self, message: dict[str, Any], arrays: Arrays) -> tuple[Any, Arrays]:
        image: NDArray[Any] = arrays["image"]
        base: NDArray[Any] | None = None  # the image that predictions will be in, None for the one that came
        matrix: Matrix | None = None
        for step in self._steps["before"]:
            given = _call(step, image)
            if isinstance(given, tuple):
                image, back = _image_and_matrix(given, _name(step))
                matrix = back if matrix is None else _joined(matrix, back)
            else:
                image, matrix = _image(given, _name(step)), None
                base = image
        if matrix is None:
            return {"matrix": None}, {"image": image}
        return {"matrix": matrix.tolist()}, {"image": image} | ({} if base is None else {"base": base})

    def _after(self, message: dict[str, Any], arrays: Arrays) -> tuple[Any, Arrays]:
        text = arrays["predictions"].tobytes()
        for step in self._steps["after"]:
            given = _call(step, arrays["image"], json.loads(text))
            try:
                if not isinstance(given, dict):
                    raise TypeError(f"got {type(given).__name__}")
                text = json.dumps(given, allow_nan=False).encode()
            except (TypeError, ValueError, RecursionError) as error:
                raise StepError(
                    f"the step {_name(step)} returned no predictions",
                    expected="the dict that it was given, changed or not",
                    got=error,
                ) from error
        return None, {"predictions": np.frombuffer(text, np.uint8)}


def _call(step: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - whatever the operator's code gives
    try:
        return step(*arguments)
    except (Exception, SystemExit) as error:  # the operator's code
        # Its text may hold what no client should read: it is in the traceback, which goes to the log.
        raise StepError(f"the step {_name(step)} raised {type(error).__name__}") from error


def _name(step: Callable[..., Any]) -> str:
    return str(getattr(step, "__name__", type(step).__name__))


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]


def _image(value: object, name: str) -> NDArray[np.uint8]:
    is_image = isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3
    if not is_image or value.shape[2] != 3 or 0 in value.shape:  # type: ignore[attr-defined]
        got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise StepError(f"the step {name} returned no image", expected="uint8 (height, width, 3), RGB", got=got)
    return value  # type: ignore[return-value]


def _image_and_matrix(given: tuple[Any, ...], name: str) -> tuple[NDArray[np.uint8], Matrix]:
    if len(given) != 2:
        raise StepError(f"the step {name} returned no image", expected="an image, or image and matrix", got=len(given))
    image = _image(given[0], name)
    try:
        matrix = np.asarray(given[1], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StepError(f"the step {name} returned no matrix", expected="2 x 3 numbers", got=_said(error)) from error
    if matrix.shape != (2, 3) or not np.isfinite(matrix).all():
        raise StepError(f"the step {name} returned no matrix", expected="2 x 3 finite numbers", got=matrix.shape)
    return image, matrix


def _joined(outer: Matrix, inner: Matrix) -> Matrix:
    """Returns the matrix that does what `inner` and then `outer` do."""
    row = np.array([[0.0, 0.0, 1.0]])
    joined: Matrix = (np.concatenate((outer, row)) @ np.concatenate((inner, row)))[:2]
    return joined


def main(arguments: list[str]) -> None:
    """Answers until the server is done with it."""
    answer_connections(int(arguments[0]), StepHost().handle)


if __name__ == "__main__":
    main(sys.argv[1:])
