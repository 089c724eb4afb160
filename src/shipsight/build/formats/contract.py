# SPDX-License-Identifier: Apache-2.0
"""What a format must do: make a variant's files from the reference ONNX, and name the engines that run them.

Every source gives one canonical ONNX (`build.sources`), so that a format is a function of its bytes. Leaves to others:
which precision pays (`build.optimize`, `build.measure`). Invariants that the conformance suite
(`tests/conformance/test_formats.py`) holds for every format:

    - The same bytes and options give the same files, byte by byte.
    - Every engine that a format names opens its files and gives the model's outputs.
    - The first file is the one an engine opens.

Adding a format is one file and one line in `formats.FORMATS`. Stable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

__all__ = ["Format", "FormatOptions"]


@dataclass(frozen=True)
class FormatOptions:
    """How a model is written.

    Attributes:
        half_weights: whether float weights are stored in 16 bits (default no). OpenVINO computes in what the engine is
            asked for all the same; ONNX computes in 16 bits.
    """

    half_weights: bool = False


class Format(ABC):
    """A file format that models are exported to.

    Attributes:
        name: as in the registry.
        engines: names of the engines that run it.
    """

    name: ClassVar[str]
    engines: ClassVar[tuple[str, ...]]

    @abstractmethod
    def make(self, model: bytes, options: FormatOptions) -> dict[str, bytes]:
        """Makes the files of a variant.

        Args:
            model: ONNX file, float or uint8 input, raw or trimmed.
            options: how it is written.

        Returns:
            File name -> content, the file that an engine opens first.

        Raises:
            CorruptError: the bytes are not ONNX.
            UnsupportedError: the model cannot be written so.
        """
