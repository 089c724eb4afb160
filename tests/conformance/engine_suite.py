# SPDX-License-Identifier: Apache-2.0
"""The contract of `engines.contract` as tests; every engine inherits them.

`SessionSuite` holds for whatever gives an `EngineSession`, `EngineSuite` also for what opens one from files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny_models import dynamic_model, matmul_model, noise, variant_of, yolov8_model

from shipsight.engines import Engine, EngineOptions, EngineSession, get_engine
from shipsight.errors import (
    CorruptError,
    MissingDependencyError,
    ShipsightError,
    TensorError,
    UnsupportedError,
    UsageError,
)
from shipsight.model import Precision


class SessionSuite:
    """What every opened session does. Subclasses give the fixtures `session` and `tensor`."""

    def test_infer_gives_every_output_in_its_shape_and_type(self, session: EngineSession, tensor: np.ndarray) -> None:
        outputs = session.infer(tensor)
        assert list(outputs) == [spec.name for spec in session.outputs]
        for spec in session.outputs:
            array = outputs[spec.name]
            assert array.dtype.name == spec.dtype
            assert len(array.shape) == len(spec.shape)
            assert all(wanted in (-1, got) for wanted, got in zip(spec.shape, array.shape, strict=True))

    def test_infer_gives_the_same_outputs_when_8_threads_call_at_once(
        self, session: EngineSession, tensor: np.ndarray
    ) -> None:
        tensors = [np.roll(tensor, shift, axis=-1) for shift in range(8)]
        alone = [session.infer(each) for each in tensors]
        with ThreadPoolExecutor(8) as pool:
            beside = list(pool.map(session.infer, tensors * 3))
        for i, outputs in enumerate(beside):
            for name, array in outputs.items():
                np.testing.assert_array_equal(array, alone[i % 8][name])
        first = next(iter(alone[0]))
        assert not np.array_equal(alone[0][first], alone[1][first]), "the inputs must differ for this to say anything"

    def test_infer_keeps_no_caller_waiting_for_long_when_others_call_again_and_again(
        self, session: EngineSession, tensor: np.ndarray
    ) -> None:
        # Enough that one pause of the machine, in which a caller does not ask, is a small part of all.
        callers, calls = 6, 1000
        order: list[int] = []
        has_begun = [False] * callers
        is_over = threading.Event()

        def call(index: int) -> None:
            while not is_over.is_set():
                session.infer(tensor)
                has_begun[index] = True
                # Counted once all are there: a busy machine starts threads when it likes.
                if all(has_begun):
                    order.append(index)
                if len(order) >= callers * calls:
                    is_over.set()

        with ThreadPoolExecutor(callers) as pool:
            for done in [pool.submit(call, index) for index in range(callers)]:
                done.result()
        counts = [order.count(index) for index in range(callers)]
        assert min(counts) >= calls // 2, counts

    def test_infer_leaves_earlier_outputs_alone_when_called_again(
        self, session: EngineSession, tensor: np.ndarray
    ) -> None:
        outputs = session.infer(tensor)
        kept = {name: array.copy() for name, array in outputs.items()}
        session.infer(np.roll(tensor, 3, axis=-1))
        for name, array in outputs.items():
            np.testing.assert_array_equal(array, kept[name])
            array[...] = 0  # the caller's to write
        again = session.infer(tensor)
        for name, array in kept.items():
            np.testing.assert_array_equal(again[name], array)

    def test_infer_does_not_change_its_input_when_it_is_read_only(
        self, session: EngineSession, tensor: np.ndarray
    ) -> None:
        before = tensor.copy()
        frozen = tensor.copy()
        frozen.flags.writeable = False
        outputs = session.infer(frozen)
        np.testing.assert_array_equal(frozen, before)
        for name, array in session.infer(tensor).items():
            np.testing.assert_array_equal(array, outputs[name])

    def test_infer_takes_a_tensor_that_is_not_contiguous(self, session: EngineSession, tensor: np.ndarray) -> None:
        strided = np.repeat(tensor, 2, axis=-1)[..., ::2]
        assert not strided.flags.c_contiguous
        expected = session.infer(tensor)
        for name, array in session.infer(strided).items():
            np.testing.assert_array_equal(array, expected[name])

    @pytest.mark.parametrize("change", ["shape", "batch", "dtype", "rank"])
    def test_infer_refuses_a_tensor_of_another_kind(
        self, session: EngineSession, tensor: np.ndarray, change: str
    ) -> None:
        wrong = {
            "shape": tensor[..., :-1],
            "batch": np.concatenate([tensor, tensor]),
            "dtype": tensor.astype(np.float64),
            "rank": tensor[0],
        }[change]
        with pytest.raises(TensorError) as caught:
            session.infer(wrong)
        assert caught.value.expected == f"{session.input.dtype} {session.input.shape}"
        assert session.infer(tensor), "a refused tensor costs the next one nothing"

    def test_close_is_harmless_when_called_twice(self, session: EngineSession, tensor: np.ndarray) -> None:
        session.infer(tensor)
        session.close()
        session.close()
        with pytest.raises(UsageError, match="closed"):
            session.infer(tensor)

    def test_precision_has_no_integer_convolution_when_the_model_is_float(self, session: EngineSession) -> None:
        report = session.precision()
        assert report.convolutions > 0
        assert report.integer_convolutions == 0
        assert report.float_type == "f32"
        assert sum(report.detail.values()) >= report.convolutions


class EngineSuite(SessionSuite):
    """What every engine does. Subclasses name the engine and how a model becomes its files."""

    engine_name: str
    device = "cpu"

    def files(self, model: bytes) -> dict[str, bytes]:
        """The engine's files for an ONNX model, the one it opens first."""
        return {"model.onnx": model}

    def open(self, model: bytes, options: EngineOptions | None = None) -> EngineSession:
        files = self.files(model)
        return self.engine.open(files, self.variant(files), options or EngineOptions(device=self.device))

    def variant(self, files: dict[str, bytes], **changes: Precision):
        return variant_of(self.engine_name, tuple(files), **changes)

    @property
    def engine(self) -> Engine:
        return get_engine(self.engine_name)

    @pytest.fixture
    def session(self) -> Iterator[EngineSession]:
        with self.open(yolov8_model(), EngineOptions(device=self.device, threads=2, requests=2)) as session:
            yield session

    @pytest.fixture
    def tensor(self) -> np.ndarray:
        return np.ascontiguousarray(noise().transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))

    def test_version_is_that_of_the_runtime(self) -> None:
        assert self.engine.name == self.engine_name
        assert self.engine.version()[0].isdigit()

    def test_open_gives_the_same_from_bytes_and_from_a_folder(self, tmp_path: Path, tensor: np.ndarray) -> None:
        files = self.files(yolov8_model())
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        options = EngineOptions(device=self.device, threads=1)
        with (
            self.engine.open(files, self.variant(files), options) as memory,
            self.engine.open(tmp_path, self.variant(files), options) as folder,
        ):
            assert (memory.input, memory.outputs) == (folder.input, folder.outputs)
            from_folder = folder.infer(tensor)
            for name, array in memory.infer(tensor).items():
                np.testing.assert_array_equal(array, from_folder[name])
            assert memory.precision() == folder.precision()

    def test_open_touches_no_disk_when_given_bytes(self, disk_writes: Callable[[], list[str]]) -> None:
        files = self.files(yolov8_model())
        engine = self.engine
        tensor = np.zeros((1, 3, 64, 64), np.float32)
        before = disk_writes()
        with engine.open(files, self.variant(files), EngineOptions(device=self.device)) as session:
            session.infer(tensor)
            session.precision()
            written = [what for what in disk_writes() if what not in before and not what.startswith("/proc/self/fd/")]
        assert written == []

    @pytest.mark.parametrize("damage", ["empty", "garbage", "half", "text"])
    def test_open_refuses_a_file_that_is_no_model(self, damage: str) -> None:
        files = self.files(yolov8_model())
        name = next(iter(files))
        content = {
            "empty": b"",
            "garbage": np.random.default_rng(0).bytes(5000),
            "half": files[name][: len(files[name]) // 2],
            "text": b"<html>not found</html>",
        }[damage]
        with pytest.raises(CorruptError) as caught:
            self.engine.open({**files, name: content}, self.variant(files), EngineOptions(device=self.device))
        assert name in (caught.value.where or "")

    def test_open_refuses_a_variant_whose_file_is_missing(self, tmp_path: Path) -> None:
        files = self.files(yolov8_model())
        for source in ({}, tmp_path):
            with pytest.raises(CorruptError, match=next(iter(files))):
                self.engine.open(source, self.variant(files), EngineOptions(device=self.device))

    def test_open_refuses_a_graph_whose_input_is_not_fixed(self) -> None:
        with pytest.raises(UnsupportedError, match="fixed shape"):
            self.open(dynamic_model())

    def test_open_refuses_a_device_that_is_not_there(self) -> None:
        with pytest.raises(MissingDependencyError, match="cuda"):
            self.open(yolov8_model(), EngineOptions(device="cuda:117"))

    @pytest.mark.parametrize("device", ["tpu", "cuda:x", "", "CPU", "cuda:-1"])
    def test_open_refuses_a_device_it_does_not_know(self, device: str) -> None:
        with pytest.raises(UsageError, match="unknown device"):
            self.open(yolov8_model(), EngineOptions(device=device))

    def test_open_gives_one_answer_whatever_the_threads_and_requests(self, tensor: np.ndarray) -> None:
        answers = []
        for threads, requests in ((1, 1), (2, 1), (None, 3), (2, 4)):
            options = EngineOptions(device=self.device, threads=threads, requests=requests)
            with self.open(yolov8_model(), options) as session:
                answers.append(session.infer(tensor)["output0"])
        for answer in answers[1:]:
            np.testing.assert_allclose(answer, answers[0], rtol=1e-5, atol=1e-5)  # order of float32 sums

    def test_layer_times_name_the_layers_that_ran_when_profiling(self, tensor: np.ndarray) -> None:
        with self.open(yolov8_model(), EngineOptions(device=self.device, profile=True)) as session:
            for _ in range(3):
                session.infer(tensor)
            times = session.layer_times()
            assert session.layer_times() == times
        assert sum("Conv" in layer.kind for layer in times) >= 10
        float_kinds = {"Conv", "Convolution", "FusedConv", "NhwcFusedConv"}
        assert {layer.computed for layer in times if layer.kind in float_kinds} == {"f32"}
        assert all(layer.mean_ms >= 0 for layer in times)
        assert sum(layer.mean_ms for layer in times) > 0

    def test_layer_times_are_refused_without_profiling(self, session: EngineSession) -> None:
        with pytest.raises(UsageError, match="profil"):
            session.layer_times()

    def test_precision_counts_no_convolution_when_there_is_none(self) -> None:
        with self.open(matmul_model()) as session:
            report = session.precision()
        assert (report.convolutions, report.integer_convolutions, report.float_type) == (0, 0, "f32")

    def test_precision_is_refused_after_close(self, session: EngineSession) -> None:
        session.close()
        with pytest.raises(ShipsightError, match="closed"):
            session.precision()
