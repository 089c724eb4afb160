# SPDX-License-Identifier: Apache-2.0
"""What a source is: a trained model, described by a card, that can be exported to ONNX and run as it was trained.

Leaves to others: which file becomes which source (`opening`), every other format (`build.formats`). Invariants: the card
is complete; `export_onnx` gives the same bytes for the same file, size and versions; after `close` nothing of the source
runs. Stable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from shipsight.engines.contract import EngineSession
from shipsight.model import Card
from shipsight.model.warning import BuildWarning

__all__ = ["Source"]


class Source(ABC):
    """A trained model.

    Attributes:
        path: the file it came from.
        card: what it is; the input size is the one it was trained at.
        warnings: what a person should know of it.
    """

    path: Path
    card: Card
    warnings: tuple[BuildWarning, ...]

    @abstractmethod
    def export_onnx(self, size_hw: tuple[int, int]) -> bytes:
        """Exports the canonical float ONNX model.

        Args:
            size_hw: input height and width in pixels, multiples of the stride.

        Returns:
            A model with one input `images`, float32 (1, 3, height, width) as the card's input contract says, and the raw
            head outputs `output0` (and `output1`, the mask prototypes); opset <= 18, IR <= 10; static shapes;
            deterministic.

        Raises:
            UsageError: the size is no multiple of the stride.
            UnsupportedError: the source has only other sizes.
            LimitError: the export took too long or too much memory.
        """

    @abstractmethod
    def open_reference(self, size_hw: tuple[int, int], *, threads: int | None = None) -> EngineSession:
        """Opens the model in its own runtime: the reference that variants are compared with.

        Args:
            size_hw: input height and width in pixels, multiples of the stride.
            threads: of the runtime, None for one a core.

        Raises:
            As `export_onnx`.
        """

    @abstractmethod
    def close(self) -> None:
        """Gives back what the source holds; calling it twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
