# SPDX-License-Identifier: Apache-2.0
"""What an engine must do: open a variant from a folder or from bytes, say what it truly runs, infer.

Leaves to others: pixels to tensors and tensors to predictions (`vision`), timing (`build.measure`). Invariants that
the conformance suite (`tests/conformance/test_engines.py`) holds for every engine:

    - Opening from bytes touches no disk.
    - `infer` may be called from several threads at once; `EngineOptions.requests` run in parallel, more wait.
    - The same tensor gives the same outputs, alone or beside others, and the caller owns the arrays returned.
    - A tensor of another shape or type is refused with `TensorError` before the runtime sees it.
    - Nothing falls back: a device or precision that the machine lacks is a named error.

Adding an engine is one file and one line in `engines.ENGINES`. Stable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import TensorError, UsageError
from shipsight.model import Variant

__all__ = [
    "Engine",
    "EngineOptions",
    "EngineSession",
    "LayerTime",
    "PrecisionReport",
    "TensorSpec",
    "VariantFiles",
]

VariantFiles = Path | Mapping[str, bytes]
"""A variant's folder, or its files in memory by name."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a graph.

    Attributes:
        name: in the graph.
        dtype: numpy's name, for example `float32`.
        shape: static shape; -1 stands for an output's side that the runtime only knows after a run.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class PrecisionReport:
    """What an opened variant truly computes in, read from the runtime's own compiled graph.

    Attributes:
        convolutions: number of convolutions (matrix products counted apart) that run.
        integer_convolutions: those of them that run in 8-bit integers.
        float_type: what the other layers run in: `f32`, `bf16` or `f16`.
        detail: number of executed layers by type name and precision, as the runtime names them.
    """

    convolutions: int
    integer_convolutions: int
    float_type: str
    detail: Mapping[str, int]


@dataclass(frozen=True)
class LayerTime:
    """What one executed layer cost.

    Attributes:
        name: of the layer, as the runtime names it.
        kind: type of the layer, as the runtime names it.
        mean_ms: mean time a run in milliseconds, 0 and more.
        computed: what it computed in: `f32`, `bf16`, `f16`, `i8`, `u8`; empty where the runtime does not tell.
    """

    name: str
    kind: str
    mean_ms: float
    computed: str = ""


@dataclass(frozen=True)
class EngineOptions:
    """How a variant is opened.

    Attributes:
        device: `cpu` or `cuda[:index]`.
        threads: of the engine, 1 and more; None leaves the choice to the engine: one per core.
        requests: infer requests that run in parallel; 1 (default) is tuned for latency, more for throughput.
        cache_dir: folder for compiled kernels, None (default) for none.
        profile: whether per-layer times are collected (costs speed).
    """

    device: str = "cpu"
    threads: int | None = None
    requests: int = 1
    cache_dir: Path | None = None
    profile: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError("too few threads", where="threads", expected="1 or more", got=self.threads)
        if not 1 <= self.requests <= 256:
            raise UsageError(
                "number of requests out of range", where="requests", expected="1 to 256", got=self.requests
            )


class EngineSession(ABC):
    """An opened variant.

    Attributes:
        input: the one input.
        outputs: all outputs, in graph order.
    """

    input: TensorSpec
    outputs: tuple[TensorSpec, ...]

    @abstractmethod
    def infer(self, tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Runs one batch.

        Args:
            tensor: of the shape and type of `input`, C-contiguous or not.

        Returns:
            Output name -> array owned by the caller.

        Raises:
            TensorError: shape or type differ from `input`.
        """

    @abstractmethod
    def precision(self) -> PrecisionReport:
        """Returns what this session truly computes in."""

    def layer_times(self) -> tuple[LayerTime, ...]:
        """Returns what each executed layer cost, in the runtime's order, over the runs since the session was opened.

        Raises:
            UsageError: the session was not opened with `EngineOptions.profile`, nothing has run yet, or the engine
                collects no such times.
        """
        raise UsageError("this engine collects no times of layers", where=type(self).__name__)

    @abstractmethod
    def close(self) -> None:
        """Gives back what the session holds; calling it twice is harmless."""

    def check(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Returns the tensor, C-contiguous, or refuses it.

        Raises:
            TensorError: shape or type differ from `input`.
        """
        if tensor.shape != self.input.shape or tensor.dtype.name != self.input.dtype:
            raise TensorError(
                "the model takes another tensor",
                where=self.input.name,
                expected=f"{self.input.dtype} {self.input.shape}",
                got=f"{tensor.dtype.name} {tensor.shape}",
            )
        return np.ascontiguousarray(tensor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Engine(ABC):
    """A runtime.

    Attributes:
        name: as in variant names.
        formats: file formats that it runs: `onnx`, `openvino`, `ultralytics`.
    """

    name: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]

    @abstractmethod
    def open(self, files: VariantFiles, variant: Variant, options: EngineOptions = EngineOptions()) -> EngineSession:
        """Opens a variant.

        Raises:
            MissingDependencyError: the runtime is not installed, or the machine lacks the device or precision.
            CorruptError: the files cannot be read as the variant's format.
        """

    @abstractmethod
    def version(self) -> str:
        """Returns the runtime's version.

        Raises:
            MissingDependencyError: it is not installed.
        """
