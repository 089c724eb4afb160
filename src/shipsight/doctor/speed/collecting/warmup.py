# SPDX-License-Identifier: Apache-2.0
"""Times cold starts, with and without kept kernels, and the runs that follow. Private to the room."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from shipsight.build.measure.timing import is_steady
from shipsight.build.progress import Progress
from shipsight.doctor.speed.case import SpeedCase
from shipsight.doctor.speed.racing import race_once
from shipsight.doctor.speed.warmup import WarmUpEvidence
from shipsight.engines import EngineOptions, get_engine
from shipsight.engines._onnxruntime_import import import_onnxruntime
from shipsight.predictor import Predictor
from shipsight.vision import PredictSettings, decode_image

__all__ = ["collect_warm_up"]

_FEWEST_RUNS, _MOST_RUNS = 50, 300
_NEAR = 1.1
_WINDOW = 5


def collect_warm_up(case: SpeedCase, seconds: float, progress: Progress) -> WarmUpEvidence:
    """Collects the evidence of a case.

    Args:
        case: what is examined.
        seconds: that it may take, roughly.
        progress: is told of parts.

    Raises:
        ShipsightError: the variant cannot be opened.
    """
    pixels = decode_image(case.encoded[0].content)
    settings = PredictSettings()

    files = case.bundle.variant_files(case.variant.name)
    engine = get_engine(case.variant.engine)

    def start(model: Mapping[str, bytes], cache_dir: Path | None = None) -> None:
        session = engine.open(model, case.variant, EngineOptions(threads=case.threads, cache_dir=cache_dir))
        with Predictor(session, case.card, case.variant) as predictor:
            predictor.predict_one(None, pixels, settings)

    # The very first opening of the process loads the runtime too: that is the process's cost, not the model's.
    start(files)
    cached_s = gain = None
    with tempfile.TemporaryDirectory(prefix="shipsight-kernels-") as folder:
        keep = _KEEPS.get(case.variant.engine)
        if keep is None:
            first_s = median(_time(lambda: start(files)) for _ in range(3))
        else:
            kept, cache_dir = keep(files, Path(folder))
            found = race_once(
                {"anew": lambda: start(files), "kept": lambda: start(kept, cache_dir)}, clock=time.perf_counter
            )
            first_s, cached_s, gain = found.values["anew"] / 1e3, found.values["kept"] / 1e3, found.gains["kept"]
    progress.part(2, 3)
    session = case.open(EngineOptions(threads=case.threads))
    with Predictor(session, case.card, case.variant) as predictor:
        times_s = _run_until_steady(lambda: predictor.predict_one(None, pixels, settings), seconds * 0.4)
    return WarmUpEvidence(
        engine=case.variant.engine,
        first_s=first_s,
        cached_s=cached_s,
        cache_gain=gain,
        times_ms=tuple(one * 1e3 for one in times_s),
        steady_after=_steady_after(times_s),
        is_steady=is_steady(times_s),
    )


def _time(call: Callable[[], None]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _keep_kernels(files: Mapping[str, bytes], folder: Path) -> tuple[Mapping[str, bytes], Path | None]:
    return files, folder


def _keep_graph(files: Mapping[str, bytes], folder: Path) -> tuple[Mapping[str, bytes], Path | None]:
    """Has ONNX Runtime write the graph as its optimizer leaves it for this processor."""
    runtime = import_onnxruntime()
    [name] = [one for one in files if one.endswith(".onnx")]
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # it warns that the graph is for this processor alone, which is what is wanted
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    runtime.InferenceSession(files[name], options, providers=["CPUExecutionProvider"])
    return {**files, name: (folder / "optimized.onnx").read_bytes()}, None


_KEEPS = {"openvino": _keep_kernels, "onnxruntime": _keep_graph}
"""Engine -> what it can keep of an opening for the next: the model's files then, and the folder that it is given."""


def _run_until_steady(call: Callable[[], object], seconds: float) -> list[float]:
    times_s: list[float] = []
    begin = time.perf_counter()
    while len(times_s) < _FEWEST_RUNS or not is_steady(times_s):
        if len(times_s) >= _MOST_RUNS or (len(times_s) >= 2 * _WINDOW and time.perf_counter() - begin > seconds):
            break
        start = time.perf_counter()
        call()
        times_s.append(time.perf_counter() - start)
    return times_s


def _steady_after(times_s: Sequence[float]) -> int:
    """Returns the runs before the first five in a row whose median is near that of the last ten."""
    end = median(times_s[-2 * _WINDOW :]) * _NEAR
    for begin in range(len(times_s) - _WINDOW + 1):
        if median(times_s[begin : begin + _WINDOW]) <= end and times_s[begin] <= end * _NEAR:
            return begin
    return len(times_s)
