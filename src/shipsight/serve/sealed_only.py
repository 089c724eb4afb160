# SPDX-License-Identifier: Apache-2.0
"""Which models take sealed requests only, whatever wire a request comes over. Private to the room."""

from __future__ import annotations

from collections.abc import Collection

from shipsight.errors import SealingRequiredError, SealingUnsupportedError, UsageError
from shipsight.serve.request_notes import current_note

__all__ = ["SealedOnly"]

_ALL = "all"
_SEALED = b"SSL1"  # no image begins so


class SealedOnly:
    """Refuses what is not sealed, and what is sealed where nobody opens it.

    Args:
        models: names of those that take sealed requests only; `all` for all.
    """

    def __init__(self, models: Collection[str] = ()) -> None:
        self._models = frozenset(models)

    def check_known(self, names: Collection[str]) -> None:
        """Refuses names of models that there are not: a mistyped one would leave its model open.

        Args:
            names: of all models that are or can be served.

        Raises:
            UsageError: one is not among them.
        """
        unknown = sorted(self._models - {_ALL} - set(names))
        if unknown:
            raise UsageError(
                "no such model", where="--require-sealed", expected=", ".join(sorted(names)), got=", ".join(unknown)
            )

    def check(self, model: str, images: Collection[bytes | memoryview] = ()) -> None:
        """Lets a request pass; that of the task at hand.

        Args:
            model: that it asks.
            images: of it, as they came.

        Raises:
            SealingRequiredError: it came in the clear, and this model takes no such.
            SealingUnsupportedError: an image is a sealed request, sent as if it were plain.
        """
        if self._models and not self._models.isdisjoint((model, _ALL)):
            note = current_note()
            if note is None or not note.is_sealed:
                raise SealingRequiredError(
                    "this model takes sealed requests only",
                    where=model,
                    expected="application/vnd.shipsight.sealed",
                    hint="Seal the request to a key of /v1/sealing-keys.",
                )
        if any(image[:4] == _SEALED for image in images):
            raise SealingUnsupportedError(
                "a sealed request where a plain one is taken",
                where="body",
                expected="Content-Type: application/vnd.shipsight.sealed, on a route that takes it",
            )
