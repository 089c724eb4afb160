# SPDX-License-Identifier: Apache-2.0
"""The contract of `build.formats.contract` as tests; every format inherits them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import as_float, card_of, classify_model, noise, variant_of, yolov8_model, yolox_model

from shipsight.build.formats import FORMATS, Format, FormatOptions, get_format, trim_onnx
from shipsight.engines import ENGINES, EngineOptions, get_engine
from shipsight.errors import CorruptError
from shipsight.model import Head

_MODELS = {Head.YOLOV8: yolov8_model, Head.YOLOX: yolox_model, Head.CLASSIFY: classify_model}

_MAKE = """
import hashlib, sys
from shipsight.build.formats import FormatOptions, get_format
model = sys.stdin.buffer.read()
for name, content in get_format(sys.argv[1]).make(model, FormatOptions()).items():
    print(name, hashlib.sha256(content).hexdigest())
"""


class FormatSuite:
    """What every format does. Subclasses name the format."""

    format_name: str

    @property
    def format(self) -> Format:
        return get_format(self.format_name)

    def test_format_is_registered_under_its_name_and_names_known_engines(self) -> None:
        assert self.format_name in FORMATS
        assert self.format.name == self.format_name
        assert self.format.engines
        assert set(self.format.engines) <= set(ENGINES)

    @pytest.mark.parametrize("half", [False, True], ids=["f32", "f16"])
    def test_make_gives_the_same_bytes_when_run_twice(self, half: bool) -> None:
        model = trim_onnx(yolov8_model(), card_of(Head.YOLOV8))
        options = FormatOptions(half_weights=half)
        first = self.format.make(model, options)
        assert self.format.make(model, options) == first
        assert list(self.format.make(model, options)) == list(first)

    def test_make_gives_the_same_bytes_in_another_process_and_folder(self, tmp_path: Path) -> None:
        outputs = []
        for folder in ("one", "another"):
            (tmp_path / folder).mkdir()
            done = subprocess.run(
                [sys.executable, "-c", _MAKE, self.format_name],
                input=yolov8_model(),
                capture_output=True,
                cwd=tmp_path / folder,
                timeout=240,
                check=True,
            )
            outputs.append(done.stdout)
            assert list((tmp_path / folder).iterdir()) == []
        assert outputs[0]
        assert outputs[1] == outputs[0]

    def test_make_writes_no_path_of_this_machine(self) -> None:
        for content in self.format.make(yolov8_model(), FormatOptions()).values():
            for trace in (
                b"/tmp/",
                b"/home/",
                b"/root/",
                bytes(Path(__file__).parents[2]),
                bytes(Path.cwd()),
            ):
                assert trace not in content

    @pytest.mark.parametrize("head", list(_MODELS), ids=str)
    def test_every_named_engine_opens_the_files_and_agrees_with_the_reference(self, head: Head) -> None:
        model, card = _MODELS[head](), card_of(head)
        tensor = as_float(noise(), card)
        with get_engine("onnxruntime").open({"m": model}, variant_of("onnxruntime", ("m",))) as session:
            expected = session.infer(tensor)
        files = self.format.make(model, FormatOptions())
        for name in self.format.engines:
            with get_engine(name).open(files, variant_of(name, tuple(files)), EngineOptions(threads=1)) as session:
                outputs = session.infer(tensor)
            assert set(outputs) == set(expected)
            for output, array in outputs.items():
                # float32 kernels sum in another order: 1e-4 is 30 times what was seen
                np.testing.assert_allclose(array, expected[output], rtol=1e-4, atol=1e-4)

    def test_make_halves_the_weights_when_asked_and_stays_near_the_reference(self) -> None:
        model, card = yolov8_model(), card_of(Head.YOLOV8)
        trimmed, pixels = trim_onnx(model, card), noise()
        whole = self.format.make(trimmed, FormatOptions())
        half = self.format.make(trimmed, FormatOptions(half_weights=True))
        weights = list(whole)[-1]
        assert len(half[weights]) < 0.7 * len(whole[weights])
        name = self.format.engines[0]
        answers = []
        for files in (whole, half):
            variant = variant_of(name, tuple(files), is_trimmed=True)
            with get_engine(name).open(files, variant, EngineOptions(threads=1)) as session:
                answers.append(session.infer(pixels))
        # 11 bits of mantissa, about ten layers
        np.testing.assert_allclose(answers[1]["scores"], answers[0]["scores"], atol=0.01)
        np.testing.assert_allclose(answers[1]["boxes"], answers[0]["boxes"], rtol=0.02, atol=0.1)

    @pytest.mark.parametrize("content", [b"", b"garbage", yolov8_model()[:1000]], ids=["empty", "garbage", "cut"])
    def test_make_refuses_what_is_no_onnx(self, content: bytes) -> None:
        with pytest.raises(CorruptError):
            self.format.make(content, FormatOptions())
