# SPDX-License-Identifier: Apache-2.0
"""ONNX files that are refused before a runtime sees them (notes on attacks: M6, M7), without a process around the checks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.build.sources import hostile_onnx as make

from shipsight.build.sources._onnx_checks import check_structure, parse_model
from shipsight.errors import CorruptError, LimitError, ShipsightError, UnsupportedError, UntrustedError

CASES: dict[str, tuple[Callable[[], Any], type[ShipsightError]]] = {
    "external-parent": (lambda: make.with_external("../x"), UntrustedError),
    "external-hidden-parent": (lambda: make.with_external("junk/../../x"), UntrustedError),
    "external-absolute": (lambda: make.with_external("/etc/passwd"), UntrustedError),
    "external-plain-name": (lambda: make.with_external("weights.bin"), UntrustedError),
    "external-device": (lambda: make.with_external("/dev/zero"), UntrustedError),
    "external-negative-offset": (lambda: make.with_external("w", offset="-1", length="-1"), UntrustedError),
    "external-petabyte": (lambda: make.with_external("w", length=str(1 << 50)), UntrustedError),
    "external-dunder-key": (lambda: make.with_external("w", __class__="x"), UntrustedError),
    "external-in-attribute": (make.with_external_in_attribute, UntrustedError),
    "custom-domain": (lambda: make.custom_operator("evil"), UntrustedError),
    "microsoft-operator-not-listed": (lambda: make.custom_operator("com.microsoft"), UntrustedError),
    "functions": (make.with_functions, UnsupportedError),
    "loop": (make.loop, UnsupportedError),
    "nested": (lambda: make.nested(5), LimitError),
    "dimension-2-31": (lambda: make.huge_dimension(2**31), LimitError),
    "dimension-negative": (lambda: make.huge_dimension(-1), CorruptError),
    "dimension-zero": (lambda: make.huge_dimension(0), CorruptError),
    "dimension-product": (lambda: make.huge_dimension(2**62), LimitError),
    "constant-6-gb": (make.huge_constant, LimitError),
    "cyclic": (make.cyclic, CorruptError),
    "many-nodes": (lambda: make.many_nodes(20_001), LimitError),
    "opset-too-old": (lambda: make.detector(opset=3), UnsupportedError),
    "opset-too-new": (lambda: make.detector(opset=9999), UnsupportedError),
}


@pytest.mark.parametrize("case", CASES)
def test_model_is_refused_when(case: str) -> None:
    build, error = CASES[case]
    with pytest.raises(error):
        check_structure(parse_model(build().SerializeToString(), where="m.onnx"), where="m.onnx")


def test_model_passes_when_sound() -> None:
    check_structure(parse_model(make.detector().SerializeToString(), where="m.onnx"), where="m.onnx")


def test_only_named_errors_come_when_model_is_cut_anywhere() -> None:
    data = make.detector(rows=5).SerializeToString()
    refused = 0
    steps = [*range(0, 200, 3), *range(200, len(data), max(1, len(data) // 60))]
    for cut in steps:
        try:
            check_structure(parse_model(data[:cut], where="m.onnx"), where="m.onnx")
        except (CorruptError, UnsupportedError, LimitError):
            refused += 1
    assert refused == len(steps)


def test_external_data_is_not_read_when_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(6 * 3 * 32 * 32 * 4))
    with pytest.raises(UntrustedError, match=r"weights\.bin"):
        check_structure(
            parse_model(make.with_external("weights.bin").SerializeToString(), where="m.onnx"), where="m.onnx"
        )
