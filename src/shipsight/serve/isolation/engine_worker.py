# SPDX-License-Identifier: Apache-2.0
"""The worker process that a model's engines run in. Run as `python -m shipsight.serve.isolation.engine_worker FD LABEL`.

Not for direct use. It is given variants as bytes and keeps what it opened under numbers; what is asked is described by
its other end, `engine`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from numpy.typing import NDArray

from shipsight.engines import EngineSession, get_engine
from shipsight.errors import UsageError
from shipsight.model import Variant
from shipsight.serve.isolation.channel import Arrays
from shipsight.serve.isolation.engine import options_of
from shipsight.serve.isolation.worker import answer_connections

__all__ = ["EngineHost", "main"]


class EngineHost:
    """The sessions that are open here."""

    def __init__(self) -> None:
        self._sessions: dict[int, EngineSession] = {}
        self._numbers = itertools.count(1)
        self._verbs: dict[str, Callable[[dict[str, Any], dict[str, NDArray[Any]]], tuple[Any, Arrays]]] = {
            "open": self._open,
            "infer": self._infer,
            "precision": self._precision,
            "close": self._close,
        }

    def handle(self, message: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> tuple[Any, Arrays]:
        """Answers one request.

        Raises:
            ShipsightError: as the engine.
        """
        return self._verbs[message["verb"]](message, arrays)

    def _open(self, message: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> tuple[Any, Arrays]:
        variant = Variant.from_dict(message["variant"])
        files = {name: array.tobytes() for name, array in arrays.items()}
        session = get_engine(variant.engine).open(files, variant, options_of(message["options"]))
        key = next(self._numbers)
        self._sessions[key] = session
        return {
            "session": key,
            "input": asdict(session.input),
            "outputs": [asdict(one) for one in session.outputs],
        }, {}

    def _infer(self, message: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> tuple[Any, Arrays]:
        session = self._session(message)
        outputs = session.infer(arrays["tensor"])
        # By position: names come from a file and may be long.
        return None, {str(position): outputs[one.name] for position, one in enumerate(session.outputs)}

    def _precision(self, message: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> tuple[Any, Arrays]:
        return asdict(self._session(message).precision()), {}

    def _close(self, message: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> tuple[Any, Arrays]:
        session = self._sessions.pop(message["session"], None)
        if session is not None:
            session.close()
        return None, {}

    def _session(self, message: dict[str, Any]) -> EngineSession:
        found = self._sessions.get(message["session"])
        if found is None:
            raise UsageError("the session is closed", where="session", got=message["session"])
        return found


def main(arguments: list[str]) -> None:
    """Answers until the server is done with it."""
    answer_connections(int(arguments[0]), EngineHost().handle)


if __name__ == "__main__":
    main(sys.argv[1:])
