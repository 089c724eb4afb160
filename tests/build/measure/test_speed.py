# SPDX-License-Identifier: Apache-2.0
"""Speed of a variant against a clock that the test drives; cold start with real processes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shipsight.build.measure import (
    ColdStart,
    Percentiles,
    Speed,
    SpeedSubject,
    measure_cold_start,
    measure_size_mb,
    measure_speed,
)
from shipsight.engines import EngineOptions, EngineSession, PrecisionReport
from shipsight.engines.contract import TensorSpec
from shipsight.errors import CorruptError, InternalError, TensorError, UsageError
from shipsight.model import (
    Card,
    Head,
    InputContract,
    OutputContract,
    OutputForm,
    Precision,
    Task,
    TensorLayout,
    Variant,
)

ENGINE_S, REST_S = 0.002, 0.003
SIZE = (256, 256)
SPEED = Speed(
    latency_ms=Percentiles(5.0, 6.0, 7.0),
    engine_ms=Percentiles(2.0, 3.0, 4.0),
    throughput_ips=200.0,
    requests=2,
    threads=None,
    is_steady=True,
    warmup_runs=20,
    counted_runs=100,
)


class Machine:
    """A machine with one core and a clock: whatever runs takes its time from everything else."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.opened: list[FakeSession] = []
        self._lock = threading.Lock()

    def clock(self) -> float:
        return self.now_s

    def spend(self, seconds: float) -> None:
        with self._lock:
            self.now_s += seconds

    def open(self, options: EngineOptions) -> EngineSession:
        self.opened.append(FakeSession(self, options))
        return self.opened[-1]

    def predict(self, session: EngineSession) -> object:
        self.spend(REST_S)
        return session.infer(np.zeros(session.input.shape, session.input.dtype))


class FakeSession(EngineSession):
    """Takes the time that it is told, and remembers what it was fed."""

    def __init__(self, machine: Machine, options: EngineOptions, dtype: str = "uint8", slower: float = 1.0) -> None:
        self.input = TensorSpec("images", dtype, (1, 4, 6, 3))
        self.outputs = (TensorSpec("output0", "float32", (1,)),)
        self.options = options
        self.fed: dict[bytes, NDArray[Any]] = {}
        self.threads: set[int] = set()
        self.is_closed = False
        self._machine = machine
        self._seconds = ENGINE_S
        self._slower = slower

    def infer(self, tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        array = self.check(tensor)
        assert not self.is_closed
        self.fed.setdefault(array.tobytes(), array)
        self.threads.add(threading.get_ident())
        self._machine.spend(self._seconds)
        self._seconds *= self._slower
        return {"output0": np.zeros(1, np.float32)}

    def precision(self) -> PrecisionReport:
        return PrecisionReport(convolutions=0, integer_convolutions=0, float_type="f32", detail={})

    def close(self) -> None:
        self.is_closed = True


def measure(machine: Machine, predict: Callable[[EngineSession], object] | None = None, **settings: Any) -> Speed:
    subject = SpeedSubject(settings.pop("open_session", machine.open), predict or machine.predict)
    return measure_speed({"one": subject}, clock=machine.clock, **settings)["one"]


def test_speed_tells_the_engine_from_the_whole_and_counts_what_runs_at_once() -> None:
    found = measure(Machine(), requests=2, threads=3, counted_runs=50)
    whole_ms, engine_ms = (ENGINE_S + REST_S) * 1e3, ENGINE_S * 1e3
    assert found.latency_ms.to_dict() == pytest.approx(dict.fromkeys(("p50", "p95", "p99"), whole_ms))
    assert found.engine_ms.to_dict() == pytest.approx(dict.fromkeys(("p50", "p95", "p99"), engine_ms))
    assert found.throughput_ips == pytest.approx(1e3 / whole_ms), "one core, whatever is in flight"
    assert (found.requests, found.threads, found.is_steady) == (2, 3, True)
    assert (found.warmup_runs, found.counted_runs) == (20, 50)
    assert (found.cold_start_ms, found.memory_mb, found.size_mb) == (None, None, None)


def test_load_that_comes_and_goes_falls_on_all_variants_alike() -> None:
    machine = Machine()

    def open_loaded(options: EngineOptions) -> EngineSession:
        # Whatever runs in the second half of each two seconds takes ten times as long.
        class Loaded(FakeSession):
            def infer(self, tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
                machine.spend(9 * ENGINE_S if machine.now_s % 2 > 1 else 0.0)
                return super().infer(tensor)

        machine.opened.append(Loaded(machine, options))
        return machine.opened[-1]

    subjects = {name: SpeedSubject(open_loaded, machine.predict) for name in ("a", "b", "c")}
    found = measure_speed(subjects, requests=1, counted_runs=300, throughput_seconds=0.1, clock=machine.clock)
    medians = [one.latency_ms.p50 for one in found.values()]
    means = [one.latency_ms.p95 for one in found.values()]
    assert max(medians) == pytest.approx(min(medians), rel=0.01)
    assert max(means) == pytest.approx(min(means), rel=0.01)


def test_speed_opens_one_session_for_latency_and_one_for_throughput_and_closes_both() -> None:
    machine = Machine()
    measure(machine, requests=3, threads=1, device="cpu")
    latency, throughput = machine.opened
    assert latency.options == EngineOptions(threads=1, requests=1)
    assert throughput.options == EngineOptions(threads=1, requests=3)
    assert latency.is_closed
    assert throughput.is_closed
    assert latency.threads == {threading.get_ident()}, "latency is measured with nothing else in flight"
    assert len(throughput.threads) == 3


def test_speed_closes_its_sessions_when_a_prediction_fails() -> None:
    machine = Machine()

    def fail(session: EngineSession) -> object:
        raise TensorError("broken")

    with pytest.raises(TensorError, match="broken"):
        measure_speed(
            {"a": SpeedSubject(machine.open, machine.predict), "b": SpeedSubject(machine.open, fail)},
            clock=machine.clock,
        )
    assert [session.is_closed for session in machine.opened] == [True, True]


def test_speed_puts_at_least_two_in_flight_when_not_told() -> None:
    machine = Machine()
    found = measure(machine)
    assert found.requests == machine.opened[1].options.requests >= 2
    assert found.threads is None


def test_speed_says_when_times_did_not_become_steady() -> None:
    machine = Machine()

    def open_tiring(options: EngineOptions) -> EngineSession:
        return FakeSession(machine, options, slower=1.02)

    found = measure(machine, open_session=open_tiring, requests=1, max_runs=40, counted_runs=10, throughput_seconds=0.1)
    assert not found.is_steady
    assert found.warmup_runs == 40


def test_what_is_slow_is_run_less_often() -> None:
    machine = Machine()
    found = measure(machine, lambda session: (machine.spend(0.5), machine.predict(session)), requests=1)
    assert found.counted_runs == 10, "a hundred runs would take 50 seconds, ten were allowed"


@pytest.mark.parametrize("wrong", [{"subjects": {}}, {"counted_runs": 9}], ids=str)
def test_nothing_to_time_is_refused(wrong: dict[str, Any]) -> None:
    machine = Machine()
    given = {"subjects": {"one": SpeedSubject(machine.open, machine.predict)}, **wrong}
    with pytest.raises(UsageError):
        measure_speed(given.pop("subjects"), clock=machine.clock, **given)


def test_speed_comes_back_through_json() -> None:
    full = SPEED.with_cold_start(ColdStart(wall_ms=900.5, memory_mb=180.25))
    assert (full.cold_start_ms, full.memory_mb) == (900.5, 180.25)
    for speed in (SPEED, full):
        assert Speed.from_dict(json.loads(json.dumps(speed.to_dict()))) == speed


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.pop("requests"),
        lambda data: data.update(surprise=1),
        lambda data: data.update(throughput_ips="fast"),
        lambda data: data.update(requests=None),
        lambda data: data.update(latency_ms={"p50": 1}),
        lambda data: data.update(engine_ms=None),
        lambda data: data.update(size_mb=[]),
    ],
    ids=["missing", "unknown", "text", "none", "percentiles", "no-percentiles", "list"],
)
def test_speed_is_refused_when_it_does_not_fit(damage: Callable[[dict[str, Any]], object]) -> None:
    data = SPEED.to_dict()
    damage(data)
    with pytest.raises(CorruptError):
        Speed.from_dict(data)


def test_size_is_in_millions_of_bytes(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("model.xml", "model.bin")]
    for file, count in zip(files, (250_000, 1_000_000), strict=True):
        file.write_bytes(bytes(count))
    assert measure_size_mb(files) == 1.25
    assert measure_size_mb([]) == 0


DIGITS_CARD = Card(
    name="digits",
    version="1",
    task=Task.DETECT,
    class_names=tuple("0123456789"),
    input=InputContract(SIZE),
    output=OutputContract(Head.YOLOV8),
)


def digits_variant(file: str) -> Variant:
    return Variant(
        name="onnxruntime-fp32-256",
        engine="onnxruntime",
        precision=Precision.FP32,
        size_hw=SIZE,
        layout=TensorLayout.FLOAT_NCHW,
        form=OutputForm.RAW,
        files=(file,),
        rest=Precision.FP32,
    )


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    begin = time.perf_counter()
    yield lambda: (time.perf_counter() - begin) * 1e3


def test_cold_start_is_that_of_a_process_that_opens_the_sample_and_predicts(
    sample_dir: Path, tmp_path: Path, write_image: Callable[[Path, int], Path]
) -> None:
    image = write_image(tmp_path / "a.png", 0)
    with stopwatch() as elapsed_ms:
        found = measure_cold_start(sample_dir, digits_variant("digits.onnx"), DIGITS_CARD, image, runs=1)
        assert 50 < found.wall_ms <= elapsed_ms(), "imports alone take longer than 50 ms"
    model_mb = measure_size_mb([sample_dir / "digits.onnx"])
    assert 30 + model_mb < found.memory_mb < 2000, "an interpreter, NumPy, the runtime and the weights"


def test_cold_start_hands_on_the_last_words_of_a_process_that_failed(
    tmp_path: Path, write_image: Callable[[Path, int], Path]
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    image = write_image(tmp_path / "a.png", 0)
    with pytest.raises(InternalError, match=r"broken\.onnx") as caught:
        measure_cold_start(tmp_path, digits_variant("broken.onnx"), DIGITS_CARD, image, runs=1)
    assert caught.value.got is not None
    assert "CorruptError" in caught.value.got


def test_cold_start_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too few runs"):
        measure_cold_start(tmp_path, digits_variant("a"), DIGITS_CARD, tmp_path / "a.png", runs=0)
