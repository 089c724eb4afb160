# SPDX-License-Identifier: Apache-2.0
"""Decisions on measurements: what stays, what lies on the front, what is the default."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipsight.build.choose import choose, mark_front
from shipsight.build.options import BuildOptions, Constraints, Objective
from shipsight.build.result import VariantResult
from shipsight.model import OutputForm, Precision, TensorLayout, Variant


def variant_result(
    name: str,
    *,
    engine: str = "openvino",
    precision: Precision = Precision.FP32,
    latency_ms: float = 10.0,
    metric: float | None = 0.5,
    drop: float = 0.0,
    outcome: str = "passed",
    throughput_ips: float = 100.0,
    size_mb: float = 5.0,
    is_reference: bool = False,
    size_hw: tuple[int, int] = (64, 64),
    float_ratio: float | None = None,
) -> VariantResult:
    variant = Variant(
        name=name,
        engine=engine,
        precision=precision,
        size_hw=size_hw,
        layout=TensorLayout.UINT8_NHWC,
        form=OutputForm.BEST_CLASS,
        files=("model.xml",),
        rest=Precision.FP32,
        is_reference=is_reference,
    )
    latency = {"p50": latency_ms, "p95": latency_ms, "p99": latency_ms}
    return VariantResult(
        variant=variant,
        accuracy=None if metric is None else {"map50_95": metric, "map50": metric},
        drop=None if metric is None else {"value": drop, "low": drop - 0.001, "high": drop + 0.001},
        outcome=outcome,
        threshold=0.3,
        speed={
            "latency_ms": latency,
            "engine_ms": latency,
            "throughput_ips": throughput_ips,
            "cold_start_ms": 1.0,
            "memory_mb": 100.0,
            "is_steady": True,
        },
        size_mb=size_mb,
        int8_layers=(0, 88),
        float_type="f32",
        float_ratio=float_ratio,
    )


REFERENCE = variant_result(
    "onnxruntime-fp32-64", engine="onnxruntime", latency_ms=20, outcome="reference", is_reference=True
)


def by_name(results: list[VariantResult]) -> dict[str, VariantResult]:
    return {one.variant.name: one for one in results}


def test_choose_takes_the_fastest_that_passed_when_the_objective_is_latency() -> None:
    fast = variant_result("openvino-int8-64", precision=Precision.INT8, latency_ms=5)
    slow = variant_result("openvino-fp32-64", latency_ms=10)
    marked, reason, warnings, unmet = choose([REFERENCE, slow, fast], BuildOptions())
    assert [one.variant.name for one in marked if one.is_default] == ["openvino-int8-64"]
    assert "lowest latency" in reason
    assert (warnings, unmet) == ([], [])


def test_choose_drops_int8_when_it_is_not_faster_than_float() -> None:
    int8 = variant_result("openvino-int8-64", precision=Precision.INT8, latency_ms=11, float_ratio=0.9)
    marked, *_ = choose([REFERENCE, variant_result("openvino-fp32-64", latency_ms=10), int8], BuildOptions())
    found = by_name(marked)["openvino-int8-64"]
    assert not found.kept
    assert "not faster" in found.dropped_because


def test_choose_never_takes_an_int8_that_is_slower_than_float_when_the_objective_is_size() -> None:
    int8 = variant_result("openvino-int8-64", precision=Precision.INT8, latency_ms=11, size_mb=1, float_ratio=0.9)
    marked, *_ = choose(
        [REFERENCE, variant_result("openvino-fp32-64", latency_ms=10), int8], BuildOptions(objective=Objective.SIZE)
    )
    assert not by_name(marked)["openvino-int8-64"].is_default


def test_choose_drops_what_failed_and_exits_unmet_when_it_was_required() -> None:
    failed = variant_result("openvino-int8-64", precision=Precision.INT8, latency_ms=5, drop=0.1, outcome="failed")
    marked, _, _, unmet = choose([REFERENCE, failed], BuildOptions(required=(Precision.INT8,)))
    assert not by_name(marked)["openvino-int8-64"].kept
    assert unmet == ["no int8 variant is acceptable"]


@pytest.mark.parametrize(
    ("drop", "accept", "expected"),
    [
        pytest.param(0.005, False, "openvino-int8-64", id="estimate within the limit"),
        pytest.param(0.02, False, "onnxruntime-fp32-64", id="estimate beyond the limit"),
        pytest.param(0.02, True, "openvino-int8-64", id="accepted all the same"),
    ],
)
def test_choose_takes_an_undecided_variant_only_within_the_limit_or_when_told(
    drop: float, accept: bool, expected: str
) -> None:
    undecided = variant_result(
        "openvino-int8-64", precision=Precision.INT8, latency_ms=5, drop=drop, outcome="undecided"
    )
    marked, *_ = choose([REFERENCE, undecided], BuildOptions(accept_undecided=accept))
    assert [one.variant.name for one in marked if one.is_default] == [expected]
    assert by_name(marked)["openvino-int8-64"].kept


def test_choose_keeps_one_of_each_engine_and_precision_unless_told_to_keep_all() -> None:
    large = variant_result("openvino-fp32-640", latency_ms=10)
    small = variant_result("openvino-fp32-320", latency_ms=4, size_hw=(32, 32))
    marked, *_ = choose([REFERENCE, large, small], BuildOptions())
    assert {one.variant.name for one in marked if one.kept} == {"onnxruntime-fp32-64", "openvino-fp32-320"}
    everything, *_ = choose([REFERENCE, large, small], BuildOptions(keep_all=True))
    assert all(one.kept for one in everything)


def test_choose_meets_constraints_before_the_objective() -> None:
    accurate = variant_result("openvino-fp32-64", latency_ms=10, metric=0.6)
    fast = variant_result(
        "onnxruntime-fp16-64", engine="onnxruntime", latency_ms=3, metric=0.3, precision=Precision.FP16
    )
    options = BuildOptions(constraints=Constraints(min_map=0.5))
    marked, reason, _, unmet = choose([REFERENCE, accurate, fast], options)
    assert [one.variant.name for one in marked if one.is_default] == ["openvino-fp32-64"]
    assert "meets the constraints" in reason
    assert unmet == []


def test_choose_warns_and_reports_unmet_when_no_variant_meets_a_constraint() -> None:
    options = BuildOptions(constraints=Constraints(max_latency_ms=1))
    _, _, warnings, unmet = choose([REFERENCE, variant_result("openvino-fp32-64")], options)
    assert [one.code for one in warnings] == ["constraints-unmet"]
    assert unmet == ["latency 10.00 ms > 1 ms"]


def test_choose_works_without_accuracy() -> None:
    fast = variant_result("openvino-fp32-64", latency_ms=5, metric=None, outcome="not measured")
    reference = replace(REFERENCE, accuracy=None, drop=None)
    marked, reason, _, _ = choose([reference, fast], BuildOptions())
    assert by_name(marked)["openvino-fp32-64"].is_default
    assert "not measured" in reason


@given(
    st.lists(
        st.tuples(st.floats(1, 100), st.floats(0, 1), st.sampled_from(["passed", "undecided", "failed"])),
        min_size=1,
        max_size=12,
    )
)
def test_front_holds_exactly_what_nothing_beats(rows: list[tuple[float, float, str]]) -> None:
    results = [
        variant_result(f"openvino-fp32-{32 * (i + 1)}", latency_ms=ms, metric=metric, outcome=outcome)
        for i, (ms, metric, outcome) in enumerate(rows)
    ]
    marked = mark_front(results)
    standing = [one for one in marked if one.outcome != "failed"]
    front = [one for one in marked if one.on_front]
    assert bool(front) == bool(standing)
    for one in standing:
        beaten = any(
            other.latency_ms <= one.latency_ms
            and (other.main_metric or 0) >= (one.main_metric or 0)
            and (other.latency_ms < one.latency_ms or (other.main_metric or 0) > (one.main_metric or 0) + 1e-9)
            for other in standing
        )
        assert one.on_front is not beaten


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["onnxruntime", "openvino"]),
            st.sampled_from(list(Precision)),
            st.floats(1, 100),
            st.floats(-0.05, 0.1),
            st.sampled_from(["passed", "undecided", "failed"]),
        ),
        max_size=10,
    ),
    st.sampled_from(list(Objective)),
)
def test_default_is_kept_single_and_never_failed(
    rows: list[tuple[str, Precision, float, float, str]], objective
) -> None:
    results = [REFERENCE] + [
        variant_result(
            f"{engine}-{precision}-{32 * (i + 10)}",
            engine=engine,
            precision=precision,
            latency_ms=ms,
            drop=drop,
            outcome=outcome,
        )
        for i, (engine, precision, ms, drop, outcome) in enumerate(rows)
    ]
    marked, *_ = choose(results, BuildOptions(objective=objective))
    defaults = [one for one in marked if one.is_default]
    assert len(defaults) == 1
    assert defaults[0].kept
    assert defaults[0].outcome != "failed"
    assert by_name(marked)[REFERENCE.variant.name].kept
