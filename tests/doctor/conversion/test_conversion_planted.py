# SPDX-License-Identifier: Apache-2.0
"""Faults planted in real graphs of the sample, and the same graph with nothing wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shipsight.build.progress import Silent
from shipsight.doctor import Case, Severity, by_weight
from shipsight.doctor.conversion import ConversionExamination
from shipsight.model import open_bundle

onnx = pytest.importorskip("onnx", reason="needs the extra build")
pytest.importorskip("onnx.numpy_helper", reason="needs the extra build")


def _change(model: Any, name: str, change: Callable[[Any], Any]) -> None:
    for one in model.graph.initializer:
        if one.name == name:
            values = change(onnx.numpy_helper.to_array(one)).astype(np.float32)
            one.CopyFrom(onnx.numpy_helper.from_array(values, name))
            return
    raise KeyError(name)


def _zero(model: Any) -> None:
    _change(model, "model.4.cv1.conv.weight", lambda values: values * 0)


def _retrain(model: Any) -> None:
    rng = np.random.default_rng(5)
    for one in list(model.graph.initializer):
        if one.name.endswith("conv.weight"):
            _change(model, one.name, lambda values: values * (1 + 0.1 * rng.standard_normal(values.shape)))


def _permute(model: Any) -> None:
    for level in range(3):
        for kind in ("weight", "bias"):
            _change(model, f"model.23.cv3.{level}.2.{kind}", lambda values: np.roll(values, 1, axis=0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "manner"),
    [(None, ""), (_zero, "zeroed"), (_retrain, ""), (_permute, "permuted")],
    ids=["faithful", "zeroed", "retrained", "permuted"],
)
def test_fault_in_the_weights_comes_first_and_a_faithful_export_has_none(
    digits_bundle: Path, tmp_path: Path, change: Callable[[Any], None] | None, manner: str
) -> None:
    bundle = open_bundle(digits_bundle)
    reference = next(one for one in bundle.variants if one.is_reference)
    model = onnx.load_model_from_string(bundle.variant_files(reference.name)[reference.files[0]])
    if change is not None:
        change(model)
    path = tmp_path / "exported.onnx"
    onnx.save(model, path)
    examination = ConversionExamination()
    evidence = examination.collect(Case(bundle, reference, against=str(path)), Silent())
    found = by_weight(one for rule in examination.rules for one in rule.look(evidence))
    if change is None:
        assert not [one for one in found if one.severity is not Severity.NOTE]
        return
    assert (found[0].rule, found[0].severity) == ("weights-differ", Severity.ERROR)
    if manner:
        assert found[0].figures[f"layers_{manner}"]
