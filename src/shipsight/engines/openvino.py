# SPDX-License-Identifier: Apache-2.0
"""OpenVINO as an engine: IR or ONNX, on the CPU.

Leaves to others: making IR (`build.formats.openvino`), quantizing it (`build.optimize`). Invariants: those of
`engines.contract`; the precision is always asked for by name, because OpenVINO left alone runs float models in bf16 on
CPUs that have it. Sources: OpenVINO 2026 documentation, "CPU device" and "Precision control". Stable.
"""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from shipsight.engines._openvino_import import import_openvino
from shipsight.engines._turns import Turns
from shipsight.engines._variant_files import parse_device, read_variant_file
from shipsight.engines.contract import (
    Engine,
    EngineOptions,
    EngineSession,
    LayerTime,
    PrecisionReport,
    TensorSpec,
    VariantFiles,
)
from shipsight.errors import CorruptError, MissingDependencyError, UnsupportedError, UsageError
from shipsight.model import Precision, Variant

__all__ = ["OpenVinoEngine"]

_DEFAULTS = EngineOptions()
_HINTS = {Precision.FP32: "f32", Precision.FP16: "f16", Precision.BF16: "bf16"}
_INTEGERS = frozenset({"u8", "i8"})
_KERNEL_TYPES = frozenset({"i8", "u8", "f32", "bf16", "f16"})
_MATRIX_LAYERS = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
_CONVOLUTIONS = frozenset({"Convolution", "Deconvolution"})
_MOVING_LAYERS = frozenset({"Input", "Output", "Const", "Reorder", "Convert", "Reshape"})


@functools.cache
def _core() -> Any:  # noqa: ANN401 - openvino has no types we follow
    """The process's one core: loading plugins takes longer than opening a small model."""
    return import_openvino().Core()


class OpenVinoEngine(Engine):
    """OpenVINO's CPU plugin."""

    name: ClassVar[str] = "openvino"
    formats: ClassVar[tuple[str, ...]] = ("openvino", "onnx")

    def open(self, files: VariantFiles, variant: Variant, options: EngineOptions = _DEFAULTS) -> EngineSession:
        """Opens a variant; see `Engine.open`.

        Raises:
            MissingDependencyError: OpenVINO is not installed, or the CPU lacks the variant's precision, or `cuda`.
            CorruptError: the files are neither IR nor ONNX.
            UnsupportedError: the graph is sound but has several or changing inputs, or OpenVINO cannot compile it.
        """
        _require_cpu(options.device)
        core = _core()
        config = _config(core, variant, options)
        model = _read(core, files, variant)
        if len(model.inputs) != 1 or model.inputs[0].get_partial_shape().is_dynamic:
            shapes = [str(port.get_partial_shape()) for port in model.inputs]
            raise UnsupportedError(
                "only graphs with one input of fixed shape can be run", where=variant.name, got=", ".join(shapes)
            )
        with _translated(UnsupportedError, "OpenVINO cannot compile this graph", variant.name):
            compiled = core.compile_model(model, "CPU", config)
        return _OpenVinoSession(compiled, options)

    def version(self) -> str:
        """Returns the version, without the build's hash."""
        return str(import_openvino().get_version()).split("-", maxsplit=1)[0]


def _require_cpu(device: str) -> None:
    if parse_device(device).kind != "cpu":
        raise MissingDependencyError(
            "OpenVINO has no CUDA device",
            where="device",
            got=device,
            hint="Use an onnxruntime variant with pip install 'shipsight[cuda]', or --device cpu.",
        )


def _config(core: Any, variant: Variant, options: EngineOptions) -> dict[str, Any]:  # noqa: ANN401 - no types
    hint = _hint(core, variant)
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY" if options.requests == 1 else "THROUGHPUT",
        "NUM_STREAMS": options.requests,
        "PERF_COUNT": options.profile,
    }
    if options.threads is not None:
        config["INFERENCE_NUM_THREADS"] = options.threads
    if options.cache_dir is not None:
        config["CACHE_DIR"] = str(options.cache_dir)
    return config


def _hint(core: Any, variant: Variant) -> str:  # noqa: ANN401 - no types
    """Returns the precision to ask for: of the whole variant, or of what is not integer in it."""
    precision = variant.rest if variant.precision is Precision.INT8 else variant.precision
    if precision not in _HINTS:
        raise UnsupportedError(
            "layers beside integers must be float", where=variant.name, expected="fp32, fp16 or bf16", got=precision
        )
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision is not Precision.FP32 and precision.value.upper() not in capabilities:
        raise MissingDependencyError(
            f"this CPU does not compute in {precision.value}",
            where=variant.name,
            got=", ".join(capabilities),
            hint="Choose an fp32 or int8 variant, or a machine that has it.",
        )
    return _HINTS[precision]


def _read(core: Any, files: VariantFiles, variant: Variant) -> Any:  # noqa: ANN401 - no types
    name, content = read_variant_file(files, variant, 0)
    if not content:
        raise CorruptError("a file of the variant is empty", where=name)
    with _translated(CorruptError, "OpenVINO cannot read this file", name):
        if not name.endswith(".xml"):
            return core.read_model(content)
        _, weights = read_variant_file(files, variant, 1)
        tensor = import_openvino().Tensor(np.frombuffer(weights, np.uint8), shared_memory=False)
        return core.read_model(content, tensor)


@contextmanager
def _translated(error_class: type[CorruptError | UnsupportedError], what: str, where: str) -> Iterator[None]:
    """Turns the runtime's errors into ours; their first line is a source file's name, the last one says what."""
    try:
        yield
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise error_class(what, where=where, got=lines[-1][:300] if lines else "no message") from error


class _OpenVinoSession(EngineSession):
    def __init__(self, compiled: Any, options: EngineOptions) -> None:  # noqa: ANN401 - no types
        self._compiled: Any = compiled
        self._profile = options.profile
        self._requests = [compiled.create_infer_request() for _ in range(options.requests)]
        # None: for those who still wait when the session closes.
        self._waiting: Turns[Any | None] = Turns(self._requests)
        self._closing = threading.Lock()
        self.input = _spec(compiled.inputs[0], "input")
        self.outputs = tuple(_spec(port, f"output{i}") for i, port in enumerate(compiled.outputs))

    def infer(self, tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        array = self.check(tensor)
        request = self._waiting.get()
        if request is None:
            self._waiting.put(None)
            raise UsageError("the session is closed", where=self.input.name)
        try:
            # Shared: the runtime reads the caller's array in place; our copies below are the only ones made.
            request.infer({0: array}, share_inputs=True, share_outputs=True)
            return {spec.name: np.array(request.get_output_tensor(i).data) for i, spec in enumerate(self.outputs)}
        finally:
            self._waiting.put(request)

    def precision(self) -> PrecisionReport:
        layers: Counter[tuple[str, str]] = Counter()
        for node in self._opened().get_runtime_model().get_ops():
            info = node.rt_info
            kind, computed = info["layerType"].astype(str), info["runtimePrecision"].astype(str)
            if kind != "Const":
                layers[kind, computed] += 1
        convolutions = {key: count for key, count in layers.items() if key[0] in _CONVOLUTIONS}
        return PrecisionReport(
            convolutions=sum(convolutions.values()),
            integer_convolutions=sum(count for key, count in convolutions.items() if key[1] in _INTEGERS),
            float_type=_float_type(layers),
            detail={f"{kind}:{computed}": count for (kind, computed), count in sorted(layers.items())},
        )

    def layer_times(self) -> tuple[LayerTime, ...]:
        if not self._profile:
            raise UsageError("the session was not opened for profiling", where="EngineOptions.profile")
        self._opened()
        times: dict[tuple[str, str, str], list[float]] = {}
        for request in self._requests:
            for info in request.profiling_info:
                if info.status == type(info.status).EXECUTED:
                    # The kernel's name ends in its precision: `brgconv_avx512_I8`.
                    computed = info.exec_type.rpartition("_")[2].lower()
                    key = info.node_name, info.node_type, computed if computed in _KERNEL_TYPES else ""
                    times.setdefault(key, []).append(info.real_time.total_seconds() * 1e3)
        if not times:
            raise UsageError("nothing has run yet", where=self.input.name)
        return tuple(
            LayerTime(name, kind, sum(each) / len(each), computed) for (name, kind, computed), each in times.items()
        )

    def close(self) -> None:
        """Waits for runs in flight, then lets go of the model; calls of `infer` that wait get `UsageError`."""
        with self._closing:
            if self._compiled is None:
                return
            for _ in self._requests:
                self._waiting.get()
            self._waiting.put(None)
            self._requests.clear()
            self._compiled = None

    def _opened(self) -> Any:  # noqa: ANN401 - no types
        if self._compiled is None:
            raise UsageError("the session is closed", where=self.input.name)
        return self._compiled


def _float_type(layers: Counter[tuple[str, str]]) -> str:
    """Returns what most float matrix layers run in; where there is none, what most other layers run in."""
    floats = {key: count for key, count in layers.items() if key[1] in ("f32", "f16", "bf16")}
    matrix = {key: count for key, count in floats.items() if key[0] in _MATRIX_LAYERS}
    others = {key: count for key, count in floats.items() if key[0] not in _MOVING_LAYERS}
    votes: Counter[str] = Counter()
    for (_, computed), count in (matrix or others or floats).items():
        votes[computed] += count
    return votes.most_common(1)[0][0] if votes else "f32"


def _spec(port: Any, unnamed: str) -> TensorSpec:  # noqa: ANN401 - no types
    """Describes a port; an IR may leave ports without a name, as Ultralytics' own exports do."""
    shape = tuple(-1 if side.is_dynamic else side.get_length() for side in port.get_partial_shape())
    name = port.get_any_name() if port.get_names() else unnamed
    return TensorSpec(name, np.dtype(port.get_element_type().to_dtype()).name, shape)
