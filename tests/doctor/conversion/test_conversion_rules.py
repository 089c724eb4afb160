# SPDX-License-Identifier: Apache-2.0
"""The rules of the conversion on made-up evidence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipsight.doctor import Severity, by_weight
from shipsight.doctor.conversion import (
    Agreement,
    ConversionEvidence,
    ConversionExamination,
    GraphFacts,
    Layer,
    Nms,
    Repair,
    Weight,
)
from shipsight.doctor.conversion.weights import LayerWeights, compare_weights


def _evidence(share: float = 1.0, **changes: object) -> ConversionEvidence:
    agreement = Agreement(share, max(share - 0.03, 0.0), min(share + 0.03, 1.0), 200, 24)
    given_: dict[str, object] = {
        "kind": "onnx",
        "precision": "fp32",
        "float_type": "f32",
        "executed": 0,
        "agreement": agreement,
        "facts": GraphFacts(opset=17, ir_version=8, layers=88),
        "compared": 88,
    }
    return ConversionEvidence(**{**given_, **changes})  # type: ignore[arg-type]  # a table of fields


def _look(evidence: ConversionEvidence) -> list[tuple[str, Severity]]:
    found = by_weight(one for rule in ConversionExamination.rules for one in rule.look(evidence))
    return [(one.rule, one.severity) for one in found]


def test_rules_say_nothing_when_the_conversion_is_healthy() -> None:
    assert _look(_evidence()) == []


@given(st.floats(0.9, 1.0), st.integers(1, 90))
def test_rules_find_nothing_of_weight_when_int8_loses_no_more_than_healthy_ones(share: float, quantized: int) -> None:
    facts = GraphFacts(opset=17, ir_version=8, layers=90, quantized=quantized, unsigned=200)
    found = _look(_evidence(share, facts=facts, executed=quantized))
    assert all(severity is not Severity.ERROR for _, severity in found)


@given(st.floats(0.0, 0.8), st.floats(0.05, 0.2))
def test_costliest_part_comes_first_and_the_others_are_notes(share: float, gain: float) -> None:
    facts = GraphFacts(opset=17, ir_version=8, layers=90, quantized=88, unsigned=200)
    repairs = (
        Repair("int8-dfl", 4, share + gain / 2, gain / 2 + 0.01, 0.01),
        Repair("int8-scale-spans-boxes-and-scores", 2, share + gain, gain + 0.01, 0.02),
    )
    found = _look(_evidence(share, facts=facts, executed=88, repairs=repairs))
    assert found[0] == ("int8-scale-spans-boxes-and-scores", Severity.ERROR)
    assert all(severity is Severity.NOTE for _, severity in found[1:])


def test_other_weights_explain_all_that_follows_from_them() -> None:
    layers = (Layer("model.0", "backbone", 3.0, 0.5),)
    found = _look(_evidence(0.1, weights=(Weight("model.0", "other", 0.5),), layers=layers))
    assert found == [("weights-differ", Severity.ERROR)]


def test_first_broken_layer_is_named_when_nothing_else_explains_the_loss() -> None:
    layers = (
        Layer("model.0", "backbone", 90.0, 1.0),
        Layer("model.1", "backbone", 4.0, 0.5),
        Layer("model.2", "head", 1.0, 0.2),
    )
    evidence = _evidence(0.3, layers=layers)
    found = [one for rule in ConversionExamination.rules for one in rule.look(evidence)]
    assert [one.rule for one in found] == ["layer-broken"]
    assert found[0].figures["layer"] == "model.1"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"facts": GraphFacts(opset=22, ir_version=11)}, "opset-too-new"),
        ({"facts": GraphFacts(opset=17, ir_version=8, nms=(Nms(0.25, 0.45, 300),)), "below_baked": 0.4}, "nms-baked"),
        ({"facts": GraphFacts(half_output=True, is_half=True), "classes": 3000}, "fp16-class-ids"),
        ({"facts": GraphFacts(is_half=True), "not_finite": True}, "fp16-overflow"),
        ({"facts": GraphFacts(has_free_shape=True)}, "shape-dynamic"),
        ({"facts": GraphFacts(dynamic=5)}, "int8-dynamic"),
        ({"facts": GraphFacts(quantized=80)}, "int8-not-executed"),
        ({"float_type": "bf16"}, "precision-bf16-default"),
        (
            {"facts": GraphFacts(quantized=9), "repairs": (Repair("int8-saturation", 9, 0.9, 0.3, 0.2),)},
            "int8-saturation",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rule_is_found_when_the_graph_shows_it(changes: dict[str, object], rule: str) -> None:
    assert rule in [name for name, _ in _look(_evidence(**changes))]  # type: ignore[arg-type]  # a table of fields


@given(st.integers(0, 2**32 - 1), st.sampled_from(["zeroed", "permuted", "scaled", "other"]))
def test_manner_of_a_difference_is_told(seed: int, how: str) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((8, 4, 3, 3)).astype(np.float32)
    changed = {
        "zeroed": values * 0,
        "permuted": np.roll(values, 1, axis=0),
        "scaled": values * np.linspace(0.7, 1.3, 8, dtype=np.float32).reshape(-1, 1, 1, 1),
        "other": rng.standard_normal(values.shape).astype(np.float32),
    }[how]
    found, compared = compare_weights([LayerWeights("a", values)], [LayerWeights("a", changed)], skips_scale=False)
    assert compared == 1
    assert [one.how for one in found] == [how]


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 10.0))
def test_weights_agree_when_only_rounding_or_the_scale_of_pixels_differs(seed: int, factor: float) -> None:
    values = np.random.default_rng(seed).standard_normal((8, 4, 3, 3)).astype(np.float32)
    step = (np.abs(values).reshape(8, -1).max(axis=1) / 127).reshape(-1, 1, 1, 1).astype(np.float32)
    rounded = (np.round(values / step) * step * np.float32(factor)).astype(np.float32)
    given_ = LayerWeights("a", rounded, (step * factor).astype(np.float32))
    assert compare_weights([LayerWeights("a", values)], [given_], skips_scale=True) == ([], 1)
