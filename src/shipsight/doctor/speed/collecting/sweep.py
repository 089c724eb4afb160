# SPDX-License-Identifier: Apache-2.0
"""Times a variant against other ways to run it, each in turns with it. Private to the room."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.progress import Progress
from shipsight.doctor.speed.case import SpeedCase
from shipsight.doctor.speed.collecting.batches import open_batch
from shipsight.doctor.speed.collecting.profile import run_stages
from shipsight.doctor.speed.racing import Call, race, race_throughput
from shipsight.doctor.speed.sweep import SweepEvidence, VariantWay, Way
from shipsight.engines import EngineOptions
from shipsight.errors import EnvironmentLackError
from shipsight.model import format_size
from shipsight.predictor import Predictor
from shipsight.vision import PredictSettings, decode_image, prepare, to_tensor

__all__ = ["collect_sweep"]

_BATCHES = (2, 4)
_DYNAMIC = ("DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
_SHARES = {"threads": 0.2, "variants": 0.35, "streams": 0.3, "batches": 0.15}


@dataclass(frozen=True)
class _Accuracies:
    """What the proof says of the variants' accuracy: name -> value, the metric, and the drop that was allowed."""

    values: Mapping[str, float]
    metric: str
    max_drop: float


def collect_sweep(case: SpeedCase, seconds: float, progress: Progress) -> SweepEvidence:
    """Collects the evidence of a case.

    Args:
        case: what is examined.
        seconds: that it may take, roughly; opening the variants comes to it.
        progress: is told of parts.

    Raises:
        ShipsightError: the variant cannot be opened, or an image cannot be decoded.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    left_out: dict[str, str] = {}
    found: dict[str, Any] = {}
    steps: dict[str, Callable[[SpeedCase, float, int, dict[str, str]], dict[str, Any]]] = {
        "threads": _sweep_threads,
        "variants": _sweep_variants,
        "streams": _sweep_streams,
        "batches": _sweep_batches,
    }
    for number, (name, step) in enumerate(steps.items()):
        found |= step(case, seconds * _SHARES[name], cores, left_out)
        progress.part(number + 1, len(steps))
    return SweepEvidence(
        variant=case.variant.name,
        engine=case.variant.engine,
        precision=case.variant.precision.value,
        size=format_size(case.variant.size_hw),
        cores=cores,
        asked=case.threads,
        left_out=left_out,
        **found,
    )


def _tensor(case: SpeedCase) -> NDArray[Any]:
    sized = case.card.with_size(case.variant.size_hw)
    prepared, _ = prepare(decode_image(case.encoded[0].content), sized.input)
    return to_tensor(prepared, sized.input, case.variant.layout)


def _sweep_threads(case: SpeedCase, seconds: float, cores: int, left_out: dict[str, str]) -> dict[str, Any]:
    now = case.threads or cores
    counts = sorted({1, max(1, cores // 2), cores} - {now})
    if not counts:
        left_out["threads"] = "There is one core."
        return {}
    tensor = _tensor(case)
    with contextlib.ExitStack() as stack:
        calls: dict[str, Call] = {}
        for name, count in [("now", case.threads), *((str(count), count) for count in counts)]:
            session = stack.enter_context(case.open(EngineOptions(threads=count)))
            calls[name] = partial(session.infer, tensor)
        found = race(calls, seconds=seconds, clock=time.perf_counter)
    return {"threads": tuple(Way(count, found.values[str(count)], found.gains[str(count)]) for count in counts)}


def _sweep_variants(case: SpeedCase, seconds: float, _: int, left_out: dict[str, str]) -> dict[str, Any]:
    pixels = [decode_image(one.content) for one in case.encoded[:4]]
    accuracies = _read_accuracies(case)
    others = [one for one in case.bundle.variants if one.name != case.variant.name]
    with contextlib.ExitStack() as stack:
        calls: dict[str, Call] = {}
        is_dynamic = False
        for variant in (case.variant, *others):
            try:
                session = stack.enter_context(case.open(EngineOptions(threads=case.threads), variant))
            except EnvironmentLackError as error:
                if variant is case.variant:
                    raise
                left_out[variant.engine] = error.what
                continue
            if variant is case.variant:
                is_dynamic = any(kind in key for key in session.precision().detail for kind in _DYNAMIC)
            predictor = Predictor(session, case.card, variant)
            calls[variant.name] = partial(_predict_next, predictor, itertools.cycle(pixels))
        found = race(calls, seconds=seconds, clock=time.perf_counter)
    now = accuracies.values.get(case.variant.name)
    ways = []
    for variant in others:
        if variant.name not in calls:
            continue
        other = accuracies.values.get(variant.name)
        ways.append(
            VariantWay(
                name=variant.name,
                engine=variant.engine,
                precision=variant.precision.value,
                size=format_size(variant.size_hw),
                value_ms=found.values[variant.name],
                gain=found.gains[variant.name],
                drop=None if now is None or other is None else now - other,
                metric=accuracies.metric,
            )
        )
    return {
        "variants": tuple(ways),
        "variant_ms": found.values[case.variant.name],
        "dynamic": is_dynamic,
        "max_drop": accuracies.max_drop,
    }


def _predict_next(predictor: Predictor, turn: Iterator[NDArray[np.uint8]]) -> object:
    return predictor.predict_one(None, next(turn), PredictSettings())


def _read_accuracies(case: SpeedCase) -> _Accuracies:
    place = "proof/reference.json"
    told = case.bundle.read_json(place) if place in case.bundle.names else {}
    values: dict[str, float] = {}
    metric = ""
    for name, one in (told.get("variants") or {}).items():
        metric = str(one.get("metric") or metric)
        value = one.get(metric) if metric else None
        if value is not None:
            values[name] = float(value)
    return _Accuracies(values, metric, float(told.get("max_drop") or 0.0))


def _sweep_streams(case: SpeedCase, seconds: float, cores: int, left_out: dict[str, str]) -> dict[str, Any]:
    """Images a second of the whole pipeline, one after another against several at once."""
    counts = sorted({2, cores} - {1}) if cores > 1 else []
    with contextlib.ExitStack() as stack:

        def open_predictor(streams: int) -> Predictor:
            session = case.open(EngineOptions(threads=case.threads, requests=streams))
            return stack.enter_context(Predictor(session, case.card, case.variant))

        def answer(predictor: Predictor, turn: Iterator[int]) -> object:
            return run_stages(predictor, case.encoded[next(turn) % len(case.encoded)])

        alone = open_predictor(1)
        ways: dict[str, tuple[Call, int]] = {"alone": (partial(answer, alone, itertools.count()), 1)}
        if cores > 1:
            ways["callers"] = (partial(answer, alone, itertools.count()), cores)
        else:
            left_out["streams"] = "There is one core."
        for count in counts:
            ways[f"streams {count}"] = (partial(answer, open_predictor(count), itertools.count()), count)
        found = race_throughput(ways, seconds=seconds, clock=time.perf_counter)
    streams = tuple(Way(one, found.values[f"streams {one}"], found.gains[f"streams {one}"]) for one in counts)
    callers = Way(cores, found.values["callers"], found.gains["callers"]) if "callers" in ways else None
    return {"streams": streams, "callers": callers, "alone_ips": found.values["alone"]}


def _sweep_batches(case: SpeedCase, seconds: float, _: int, left_out: dict[str, str]) -> dict[str, Any]:
    if case.variant.engine != "openvino":
        left_out["batches"] = "Graphs are rewritten for batches in OpenVINO alone."
        return {}
    tensor = _tensor(case)
    calls: dict[str, Call] = {}
    for count in (1, *_BATCHES):
        run = open_batch(case, count)
        if run is None:
            left_out["batches"] = "The graph cannot be rewritten for several images."
            return {}
        calls[str(count)] = partial(run, np.repeat(tensor, count, axis=0))
    found = race(calls, seconds=seconds, clock=time.perf_counter)
    # A run of n images that takes as long as n runs gains nothing.
    ways = []
    for count in _BATCHES:
        gain = found.gains[str(count)]
        each = type(gain)(gain.value * count, gain.low * count, gain.high * count)
        ways.append(Way(count, count / found.values[str(count)] * 1e3, each))
    return {"batches": tuple(ways)}
