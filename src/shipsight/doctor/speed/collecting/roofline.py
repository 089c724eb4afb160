# SPDX-License-Identifier: Apache-2.0
"""Measures what this machine does in matrix products and in copying memory, and counts what a model asks of it. Private to the room."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.progress import Progress
from shipsight.doctor.speed.case import SpeedCase
from shipsight.doctor.speed.collecting.batches import read_model
from shipsight.doctor.speed.racing import Call, race
from shipsight.doctor.speed.roofline import Peak, RooflineEvidence
from shipsight.engines import EngineOptions
from shipsight.engines._openvino_import import import_openvino
from shipsight.errors import UnsupportedError
from shipsight.vision import decode_image, prepare, to_tensor

__all__ = ["collect_roofline", "count_work"]

_SIDE = 1024
_COPY_BYTES = 128 * 2**20
"""Well beyond the last cache of machines that serve models."""
_CONVOLUTIONS = frozenset({"Convolution", "GroupConvolution"})
_BACKWARDS = "ConvolutionBackpropData"
_INTEGER_BYTES, _HALF_BYTES, _FLOAT_BYTES = 1, 2, 4
_BYTES = {"int8": _INTEGER_BYTES, "fp16": _HALF_BYTES, "bf16": _HALF_BYTES, "fp32": _FLOAT_BYTES}


def collect_roofline(case: SpeedCase, seconds: float, progress: Progress) -> RooflineEvidence:
    """Collects the evidence of a case.

    Args:
        case: what is examined.
        seconds: that it may take, roughly.
        progress: is told of parts.

    Raises:
        ShipsightError: the variant cannot be opened.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = case.threads or cores
    peaks = tuple(Peak(name, gflops) for name, gflops in _measure_products(threads, seconds * 0.4).items())
    progress.part(1, 3)
    bandwidth_gbs = _measure_copying(threads, seconds * 0.3)
    progress.part(2, 3)
    try:
        gflop, megabytes = count_work(read_model(case), _BYTES[case.variant.precision.value])
    except UnsupportedError:
        gflop = megabytes = 0.0  # the evidence says so: operators that OpenVINO does not know
    sized = case.card.with_size(case.variant.size_hw)
    prepared, _ = prepare(decode_image(case.encoded[0].content), sized.input)
    tensor = to_tensor(prepared, sized.input, case.variant.layout)
    with case.open(EngineOptions(threads=case.threads)) as session:
        engine_s = _median_s(lambda: session.infer(tensor), seconds * 0.3)
    return RooflineEvidence(
        precision=case.variant.precision.value,
        model_gflop=gflop,
        model_mb=megabytes,
        engine_ms=engine_s * 1e3,
        peaks=peaks,
        bandwidth_gbs=bandwidth_gbs,
        threads=threads,
    )


def count_work(graph: Any, number_bytes: int) -> tuple[float, float]:  # noqa: ANN401 - an OpenVINO model has no types
    """Counts what convolutions and matrix products of a graph compute and move.

    Args:
        graph: as OpenVINO reads it, of fixed shape.
        number_bytes: bytes of a number that the model computes in: 1, 2 or 4.

    Returns:
        10^9 additions and multiplications, and 10^6 bytes of weights, inputs and outputs of these layers.
    """
    flop = numbers = 0
    for node in graph.get_ops():
        kind = node.get_type_name()
        if kind not in (*_CONVOLUTIONS, _BACKWARDS, "MatMul"):
            continue
        first, second = list(node.input(0).get_shape()), list(node.input(1).get_shape())
        out = math.prod(node.output(0).get_shape())
        # Weights: (out, in, ...) or (groups, out, in, ...); each output number sums over what is behind its own channel.
        if kind in _CONVOLUTIONS:
            depth = math.prod(second[2:] if kind == "GroupConvolution" else second[1:])
        elif kind == _BACKWARDS:
            out, depth = (
                math.prod(first),
                math.prod(second[1:]),
            )  # each input number is spread over what is behind its channel
        else:
            is_turned = bool(node.get_attributes().get("transpose_a", False))
            depth = first[-2] if is_turned and len(first) > 1 else first[-1]
        flop += 2 * out * depth
        numbers += math.prod(first) + math.prod(second) + math.prod(node.output(0).get_shape())
    return flop / 1e9, numbers * number_bytes / 1e6


def _measure_products(threads: int, seconds: float) -> dict[str, float]:
    """Returns precision -> GFLOP/s of a large matrix product, in fp32 and where the processor has it in bf16."""
    openvino = import_openvino()
    core = openvino.Core()
    wanted = {"fp32": "f32"}
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        wanted["bf16"] = "bf16"
    random = np.random.default_rng(0)
    values = random.standard_normal((_SIDE, _SIDE), dtype=np.float32)
    parameter = openvino.opset13.parameter([_SIDE, _SIDE], np.float32)
    product = openvino.opset13.matmul(parameter, openvino.opset13.constant(values), False, False)
    graph = openvino.Model([product], [parameter])
    calls: dict[str, Call] = {}
    for name, hint in wanted.items():
        config = {
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
        }
        request = core.compile_model(graph, "CPU", config).create_infer_request()
        calls[name] = partial(request.infer, {0: values}, share_inputs=True, share_outputs=True)
    taken_ms = race(calls, seconds=seconds, clock=time.perf_counter).values
    return {name: 2 * _SIDE**3 / 1e6 / one_ms for name, one_ms in taken_ms.items()}


def _measure_copying(threads: int, seconds: float) -> float:
    """Returns GB/s of copying, read and written bytes together, with as many threads as the engine has."""
    source = np.ones(_COPY_BYTES // 8)
    target = np.empty_like(source)
    parts: list[tuple[NDArray[Any], NDArray[Any]]] = list(
        zip(np.array_split(target, threads), np.array_split(source, threads), strict=True)
    )

    def copy(part: tuple[NDArray[Any], NDArray[Any]]) -> None:
        np.copyto(part[0], part[1])

    with ThreadPoolExecutor(threads) as pool:

        def run() -> object:
            return list(pool.map(copy, parts))

        return 2 * source.nbytes / _median_s(run, seconds) / 1e9


def _median_s(call: Callable[[], object], seconds: float) -> float:
    for _ in range(3):
        call()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < 7 or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return median(taken)
