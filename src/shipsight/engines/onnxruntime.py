# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime as an engine: ONNX, on the CPU or an NVIDIA GPU.

Leaves to others: making ONNX files (`build.formats.onnx`), quantizing them (`build.optimize`). Invariants: those of
`engines.contract`; with `cuda` nothing that computes runs elsewhere: the provider is the only one that may refuse, and a
session that did not get it is an error. What a file's layers compute in stands in the file, so that the precision of a
variant is not asked for but read, from the graph after ONNX Runtime's optimizer, which is written to memory
(`memfd_create`), never to a disk. Sources: ONNX Runtime documentation, "Execution Providers", "Thread management". Stable.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from shipsight.engines._onnx_nodes import OnnxGraph, read_graph
from shipsight.engines._onnxruntime_import import import_onnxruntime
from shipsight.engines._turns import Turns
from shipsight.engines._variant_files import Device, parse_device, read_variant_file
from shipsight.engines.contract import (
    Engine,
    EngineOptions,
    EngineSession,
    LayerTime,
    PrecisionReport,
    TensorSpec,
    VariantFiles,
)
from shipsight.errors import (
    CorruptError,
    MissingDependencyError,
    ShipsightError,
    UnsupportedError,
    UntrustedError,
    UsageError,
)
from shipsight.model import Precision, Variant

__all__ = ["OnnxRuntimeEngine"]

_DEFAULTS = EngineOptions()
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_FLOAT_CONVOLUTIONS = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose"})
_INTEGER_CONVOLUTIONS = frozenset({"QLinearConv", "ConvInteger"})
_FLOAT_TYPES = {1: "f32", 10: "f16", 16: "bf16"}
_DISABLED_OPTIMIZERS = ("WeightBiasQuantization",)
"""Quantizes float weights between quantized activations: layers that the file keeps in float would run in integers."""


class OnnxRuntimeEngine(Engine):
    """ONNX Runtime with its CPU provider, or its CUDA provider where `shipsight[cuda]` is installed."""

    name: ClassVar[str] = "onnxruntime"
    formats: ClassVar[tuple[str, ...]] = ("onnx",)

    def open(self, files: VariantFiles, variant: Variant, options: EngineOptions = _DEFAULTS) -> EngineSession:
        """Opens a variant; see `Engine.open`. `cache_dir` is unused: nothing is compiled that could be kept.

        Raises:
            MissingDependencyError: ONNX Runtime, or the CUDA provider or device that was asked for, is not there.
            CorruptError: the file is not ONNX.
            UntrustedError: the file keeps weights in other files.
            UnsupportedError: the graph is sound but has several or changing inputs, or operators it does not know.
        """
        device = parse_device(options.device)
        if Precision.BF16 in (variant.precision, variant.rest):
            raise UnsupportedError("ONNX Runtime runs no bf16 variants", where=variant.name)
        runtime = import_onnxruntime()
        providers = _providers(runtime, device)
        name, content = read_variant_file(files, variant, 0)
        _check_file(name, content)
        with contextlib.ExitStack() as stack:
            settings = _settings(runtime, options, device)
            if options.profile:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="shipsight-profile-"))
                settings.enable_profiling = True
                settings.profile_file_prefix = str(Path(folder) / "run")
            session = _open(runtime, content, settings, providers, name)
            if device.kind == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
                raise _missing_cuda(f"got {', '.join(session.get_providers())}")
            return _OnnxRuntimeSession(session, files, variant, options, stack.pop_all())

    def version(self) -> str:
        """Returns the version of the installed package, GPU build or not."""
        return str(import_onnxruntime().__version__)


def _providers(runtime: Any, device: Device) -> list[Any]:  # noqa: ANN401 - onnxruntime has no types
    if device.kind == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise _missing_cuda("this build of ONNX Runtime has no CUDA provider")
    # TF32 would round float32 convolutions to 10 bits of mantissa behind the back of an `fp32` variant.
    return [("CUDAExecutionProvider", {"device_id": str(device.index), "use_tf32": "0"})]


def _missing_cuda(got: str) -> MissingDependencyError:
    return MissingDependencyError(
        "CUDA was asked for and is not available",
        where="device",
        got=got,
        hint="Install pip install 'shipsight[cuda]' on a machine with an NVIDIA driver, or use --device cpu.",
    )


def _check_file(name: str, content: bytes) -> None:
    try:
        graph = read_graph(content)
    except CorruptError as error:
        raise CorruptError(error.what, where=name, expected=error.expected, got=error.got) from error
    if graph.has_external_data:
        raise UntrustedError("the model keeps weights outside its file", where=name)


def _settings(runtime: Any, options: EngineOptions, device: Device) -> Any:  # noqa: ANN401 - no types
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = _pool_threads(options)
    settings.inter_op_num_threads = 1
    if options.requests > 1:
        # With several callers a thread that spins while it waits takes its core from another request.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if device.kind == "cuda":
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return settings


def _pool_threads(options: EngineOptions) -> int:
    """Returns the size of the pool that all requests share; each caller's own thread computes too. 0: one per core."""
    if options.requests == 1:
        return options.threads or 0
    return max(1, (options.threads or len(os.sched_getaffinity(0))) - options.requests + 1)


def _open(runtime: Any, content: bytes, settings: Any, providers: list[Any], where: str) -> Any:  # noqa: ANN401
    with _translated(where):
        return runtime.InferenceSession(
            content,
            settings,
            providers=providers,
            enable_fallback=0,
            disabled_optimizers=_DISABLED_OPTIMIZERS,
        )


@contextlib.contextmanager
def _translated(where: str) -> Iterator[None]:
    """Turns the runtime's errors into ours, by their class."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        yield
    except (state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument, state.NoModel) as error:
        raise CorruptError("ONNX Runtime cannot read this file", where=where, got=_first_line(error)) from error
    except (state.NotImplemented, state.Fail, state.RuntimeException, state.EPFail, RuntimeError) as error:
        raise _unrunnable(error, where) from error


def _unrunnable(error: Exception, where: str) -> ShipsightError:
    text = _first_line(error)
    if "CUDA" in text and "fallback" not in text:
        return _missing_cuda(text)
    return UnsupportedError("ONNX Runtime cannot run this graph here", where=where, got=text)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:300] if lines else type(error).__name__


class _OnnxRuntimeSession(EngineSession):
    def __init__(
        self,
        session: Any,  # noqa: ANN401 - no types
        files: VariantFiles,
        variant: Variant,
        options: EngineOptions,
        held: contextlib.ExitStack,
    ) -> None:
        self._session: Any = session
        self._files = files
        self._variant = variant
        self._options = options
        self._held = held
        self._slots = Turns(range(options.requests))
        self._state = threading.Lock()
        self._times: tuple[LayerTime, ...] | None = None
        self.input = _only_input(session, variant)
        self.outputs = tuple(_spec(node) for node in session.get_outputs())
        self._names = [spec.name for spec in self.outputs]

    def infer(self, tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        array = self.check(tensor)
        slot = self._slots.get()
        try:
            session = self._opened()
            with _translated(self._variant.name):
                values = session.run(self._names, {self.input.name: array})
        finally:
            self._slots.put(slot)
        return {name: np.asarray(value) for name, value in zip(self._names, values, strict=True)}

    def precision(self) -> PrecisionReport:
        self._opened()
        graph = read_graph(self._optimized())
        layers: Counter[str] = Counter()
        floats: Counter[str] = Counter()
        convolutions = integers = 0
        for node in graph.nodes:
            computed = "i8" if node.op_type in _INTEGER_CONVOLUTIONS else ""
            if node.op_type in _FLOAT_CONVOLUTIONS:
                computed = _weight_type(graph, node.inputs)
                floats[computed] += 1
            convolutions += bool(computed)
            integers += computed == "i8"
            kind = f"{node.domain}.{node.op_type}".lstrip(".")
            layers[f"{kind}:{computed}" if computed else kind] += 1
        float_type = floats.most_common(1)[0][0] if floats else _rest_type(graph)
        return PrecisionReport(convolutions, integers, float_type, dict(sorted(layers.items())))

    def _optimized(self) -> bytes:
        """Returns the graph as ONNX Runtime's optimizer leaves it, written to memory by a second, short session."""
        runtime = import_onnxruntime()
        device = parse_device(self._options.device)
        name, content = read_variant_file(self._files, self._variant, 0)
        handle = os.memfd_create("shipsight-optimized")
        try:
            settings = _settings(runtime, self._options, device)
            settings.optimized_model_filepath = f"/proc/self/fd/{handle}"
            _open(runtime, content, settings, _providers(runtime, device), name)
            return os.pread(handle, os.fstat(handle).st_size, 0)
        finally:
            os.close(handle)

    def layer_times(self) -> tuple[LayerTime, ...]:
        """See `EngineSession.layer_times`; the first call ends the collection, later ones return the same."""
        if not self._options.profile:
            raise UsageError("the session was not opened for profiling", where="EngineOptions.profile")
        with self._state:
            if self._times is None:
                path = Path(self._opened().end_profiling())
                self._times = _read_times(json.loads(path.read_text(encoding="utf-8")))
                path.unlink()
        if not self._times:
            raise UsageError("nothing has run yet", where=self.input.name)
        return self._times

    def close(self) -> None:
        with self._state:
            self._session = None
            self._held.close()

    def _opened(self) -> Any:  # noqa: ANN401 - no types
        session = self._session
        if session is None:
            raise UsageError("the session is closed", where=self.input.name)
        return session


def _only_input(session: Any, variant: Variant) -> TensorSpec:  # noqa: ANN401 - no types
    specs = [_spec(node) for node in session.get_inputs()]
    if len(specs) != 1 or -1 in specs[0].shape:
        got = ", ".join(f"{spec.name} {spec.shape}" for spec in specs)
        raise UnsupportedError("only graphs with one input of fixed shape can be run", where=variant.name, got=got)
    return specs[0]


def _spec(node: Any) -> TensorSpec:  # noqa: ANN401 - no types
    if node.type not in _DTYPES:
        raise UnsupportedError(
            "a tensor of this type cannot be handed over", where=node.name, expected=", ".join(_DTYPES), got=node.type
        )
    return TensorSpec(node.name, _DTYPES[node.type], tuple(s if isinstance(s, int) else -1 for s in node.shape))


def _weight_type(graph: OnnxGraph, inputs: tuple[str, ...]) -> str:
    """Returns what a float convolution computes in: the type of its weights, f32 where an operator makes them."""
    return _FLOAT_TYPES.get(graph.initializer_types.get(inputs[1], 1), "f32")


def _rest_type(graph: OnnxGraph) -> str:
    """Returns the commonest float type of weights in a graph without float convolutions."""
    votes = Counter(_FLOAT_TYPES[number] for number in graph.initializer_types.values() if number in _FLOAT_TYPES)
    return votes.most_common(1)[0][0] if votes else "f32"


def _read_times(events: list[Mapping[str, Any]]) -> tuple[LayerTime, ...]:
    """Reads ONNX Runtime's trace: per node one event a run, `dur` in microseconds."""
    totals: dict[tuple[str, str], list[float]] = {}
    for event in events:
        name, kind = str(event.get("name", "")), event.get("args", {}).get("op_name")
        if event.get("cat") == "Node" and kind and name.endswith("_kernel_time"):
            totals.setdefault((name.removesuffix("_kernel_time"), str(kind)), []).append(float(event["dur"]) / 1e3)
    return tuple(
        LayerTime(name, kind, sum(times) / len(times), _computed_in(kind)) for (name, kind), times in totals.items()
    )


def _computed_in(kind: str) -> str:
    if kind in _INTEGER_CONVOLUTIONS:
        return "i8"
    return "f32" if kind in _FLOAT_CONVOLUTIONS else ""  # the CPU has float kernels of 32 bits alone
