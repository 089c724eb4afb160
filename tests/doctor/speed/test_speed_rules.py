# SPDX-License-Identifier: Apache-2.0
"""The rules of speed, over made-up evidence: each finds its own, with the gain that was measured, and is silent where all is well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doctor.rules import RuleSuite

from shipsight.build.measure import Interval
from shipsight.doctor import Finding, Rule, Severity
from shipsight.doctor.environment import Timing
from shipsight.doctor.page.drawings import check_svg
from shipsight.doctor.speed import SERVER_EXAMINATIONS, SPEED_EXAMINATIONS
from shipsight.doctor.speed.images import (
    ImagesEvidence,
    ImagesExamination,
    ImagesOversized,
    ImagesSlowFormat,
    OtherForm,
)
from shipsight.doctor.speed.machine import (
    AffinityNarrow,
    CpuBusy,
    CpuSlowed,
    CpuStolen,
    MachineEvidence,
    MachineExamination,
)
from shipsight.doctor.speed.profile import (
    LayersInFloat,
    OutsideEngine,
    ProfileEvidence,
    ProfileExamination,
    ReordersCostly,
)
from shipsight.doctor.speed.roofline import EngineOverhead, Peak, RooflineEvidence, RooflineExamination
from shipsight.doctor.speed.server import (
    ConnectionAnew,
    Payload,
    PayloadJson,
    ServerEvidence,
    ServerExamination,
    ServerOverhead,
    ServerQueueing,
)
from shipsight.doctor.speed.sweep import (
    BatchFaster,
    Int8Slower,
    StreamsFaster,
    SweepEvidence,
    SweepExamination,
    ThreadsNotBest,
    VariantFaster,
    VariantWay,
    Way,
)
from shipsight.doctor.speed.warmup import FirstRunSlow, LatencyUnsteady, WarmUpEvidence, WarmUpExamination
from shipsight.engines import LayerTime

SURE = Interval(1.6, 1.5, 1.7)
UNSURE = Interval(1.6, 1.05, 2.3)
SAME = Interval(1.0, 0.97, 1.03)
SLOWER = Interval(0.5, 0.45, 0.55)

WARM = WarmUpEvidence(
    engine="openvino",
    first_s=0.4,
    cached_s=0.38,
    cache_gain=SAME,
    times_ms=(30.0, 14.0, *[10.0, 10.3, 10.1] * 20),
    steady_after=2,
    is_steady=True,
)
PROFILE = ProfileEvidence(
    precision="int8",
    stages_ms={"read": 0.1, "decode": 1.5, "prepare": 0.2, "infer": 9.0, "postprocess": 0.4, "serialise": 0.1},
    images=16,
    runs=8,
    layers=(
        LayerTime("a", "Convolution", 6.0, "i8"),
        LayerTime("b", "Convolution", 1.0, "f32"),
        LayerTime("c", "Reorder", 0.5, "f32"),
        LayerTime("d", "Eltwise", 0.5, ""),
    ),
)
SWEEP = SweepEvidence(
    variant="openvino-int8-640",
    engine="openvino",
    precision="int8",
    size="640",
    cores=4,
    variant_ms=10.0,
    alone_ips=80.0,
    threads=(Way(1, 20.0, SLOWER), Way(2, 12.0, SLOWER)),
    variants=(VariantWay("openvino-fp32-640", "openvino", "fp32", "640", 20.0, SLOWER, -0.01, "map50_95"),),
    streams=(Way(4, 84.0, SAME),),
    callers=Way(4, 82.0, SAME),
    batches=(Way(2, 100.0, SAME), Way(4, 104.0, SAME)),
)
ROOF = RooflineEvidence(
    precision="fp32",
    model_gflop=6.5,
    model_mb=60.0,
    engine_ms=40.0,
    peaks=(Peak("fp32", 250.0), Peak("bf16", 500.0)),
    bandwidth_gbs=20.0,
    threads=2,
)
MACHINE = MachineEvidence(
    engine="openvino",
    precision="int8",
    cores=4,
    logical_cores=4,
    window_s=2.0,
    stolen_share=0.0,
    others_share=0.02,
    clock_share=0.95,
    throttle_events=0,
)
IMAGES = ImagesEvidence(
    images=16, formats={"JPEG": 16}, megapixels=0.3, input_megapixels=0.41, decode_ms=1.5, reduced=None, as_jpeg=None
)
SERVER = ServerEvidence(
    is_tls=True,
    speaks="image",
    latency_ms=20.0,
    stages_ms={"queue": 0.05, "decode": 1.5, "prepare": 0.3, "infer": 16.0, "postprocess": 0.4},
    connect_ms=1.0,
    tls_ms=0.8,
    closes=False,
    anew=Interval(1.05, 1.02, 1.08),
    requests=50,
    connections=4,
    crowded_ms=45.0,
    crowded_queue_ms=15.0,
    crowded_gain=Interval(1.8, 1.7, 1.9),
    payloads=(),
)
JSON_WAYS = (
    Payload("tensor-json", 9000.0, 900.0, None),
    Payload("tensor-binary", 1200.0, 30.0, Interval(30.0, 25.0, 35.0)),
)
WAY = SWEEP.variants[0]
HEALTHY = [
    (WarmUpExamination(), WARM),
    (ProfileExamination(), PROFILE),
    (SweepExamination(), SWEEP),
    (RooflineExamination(), ROOF),
    (MachineExamination(), MACHINE),
    (ImagesExamination(), IMAGES),
    (ServerExamination(), SERVER),
]


class TestSpeedRules(RuleSuite):
    def cases(self) -> Sequence[tuple[Rule[Any], Any, bool]]:
        return [
            (FirstRunSlow(), replace(WARM, first_s=2.5, cached_s=0.9, cache_gain=SURE), True),
            (FirstRunSlow(), replace(WARM, first_s=2.5, cached_s=0.9, cache_gain=UNSURE), False),
            (FirstRunSlow(), replace(WARM, engine="onnxruntime", first_s=0.9, cached_s=0.4, cache_gain=SURE), True),
            (FirstRunSlow(), replace(WARM, engine="onnxruntime", first_s=0.09, cached_s=0.04, cache_gain=SURE), False),
            (FirstRunSlow(), replace(WARM, cached_s=None, cache_gain=None), False),
            (LatencyUnsteady(), replace(WARM, times_ms=(*[10.0] * 40, *[35.0] * 20), steady_after=0), True),
            (LatencyUnsteady(), replace(WARM, times_ms=(10.0, 35.0, 10.0)), False),
            (OutsideEngine(), replace(PROFILE, stages_ms={"decode": 60.0, "infer": 10.0}), True),
            (ReordersCostly(), replace(PROFILE, layers=(*PROFILE.layers, LayerTime("e", "Convert", 5.0))), True),
            (
                LayersInFloat(),
                replace(PROFILE, layers=(*PROFILE.layers, LayerTime("e", "Convolution", 8.0, "bf16"))),
                True,
            ),
            (LayersInFloat(), replace(PROFILE, precision="fp32", layers=(LayerTime("e", "Conv", 8.0, "f32"),)), False),
            (LayersInFloat(), replace(PROFILE, layers=()), False),
            (ThreadsNotBest(), replace(SWEEP, threads=(Way(2, 6.0, SURE),)), True),
            (ThreadsNotBest(), replace(SWEEP, threads=(Way(2, 6.0, UNSURE),)), False),
            (ThreadsNotBest(), replace(SWEEP, threads=(Way(4, 6.0, SURE),), asked=16), False),
            (
                VariantFaster(),
                replace(SWEEP, variants=(replace(WAY, engine="onnxruntime", gain=SURE, drop=0.005),)),
                True,
            ),
            (VariantFaster(), replace(SWEEP, variants=(replace(WAY, engine="onnxruntime", gain=UNSURE),)), False),
            (VariantFaster(), replace(SWEEP, variants=(replace(WAY, gain=SURE),)), False),
            (Int8Slower(), replace(SWEEP, variants=(replace(WAY, gain=SURE),)), True),
            (Int8Slower(), replace(SWEEP, precision="fp32", variants=(replace(WAY, gain=SURE),)), False),
            (Int8Slower(), replace(SWEEP, variants=(replace(WAY, gain=SURE, size="320"),)), False),
            (StreamsFaster(), replace(SWEEP, streams=(Way(4, 130.0, SURE),)), True),
            (StreamsFaster(), replace(SWEEP, streams=()), False),
            (BatchFaster(), replace(SWEEP, batches=(Way(4, 130.0, SURE),)), True),
            (EngineOverhead(), replace(ROOF, engine_ms=400.0), True),
            (CpuStolen(), replace(MACHINE, stolen_share=0.2), True),
            (CpuStolen(), replace(MACHINE, stolen_share=None), False),
            (CpuBusy(), replace(MACHINE, others_share=0.4), True),
            (CpuBusy(), replace(MACHINE, others_share=None), False),
            (AffinityNarrow(), replace(MACHINE, cores=1), True),
            (CpuSlowed(), replace(MACHINE, clock_share=0.4), True),
            (CpuSlowed(), replace(MACHINE, clock_share=None, throttle_events=12), True),
            (CpuSlowed(), replace(MACHINE, clock_share=None, throttle_events=None), False),
            (ImagesOversized(), replace(IMAGES, megapixels=12.0, reduced=OtherForm(16, 70.0, 30.0, SURE)), True),
            (ImagesOversized(), replace(IMAGES, reduced=OtherForm(16, 70.0, 30.0, UNSURE)), False),
            (ImagesSlowFormat(), replace(IMAGES, formats={"PNG": 16}, as_jpeg=OtherForm(16, 30.0, 12.0, SURE)), True),
            (ConnectionAnew(), replace(SERVER, closes=True, anew=None), True),
            (ConnectionAnew(), replace(SERVER, is_tls=False, anew=SURE), True),
            (ServerQueueing(), replace(SERVER, stages_ms={"queue": 12.0, "infer": 6.0}), True),
            (ServerQueueing(), replace(SERVER, crowded_queue_ms=40.0), True),
            (ServerQueueing(), replace(SERVER, stages_ms={}, crowded_queue_ms=None), False),
            (ServerOverhead(), replace(SERVER, latency_ms=60.0), True),
            (ServerOverhead(), replace(SERVER, latency_ms=60.0, stages_ms={}), False),
            (PayloadJson(), replace(SERVER, speaks="tensor", payloads=JSON_WAYS), True),
            (PayloadJson(), replace(SERVER, speaks="image", payloads=JSON_WAYS), False),
            (PayloadJson(), replace(SERVER, speaks="tensor", payloads=JSON_WAYS[1:]), False),
        ]

    def test_every_rule_of_speed_finds_something_here(self) -> None:
        found = {type(rule) for rule, _, finds in self.cases() if finds}
        own = {type(rule) for one in (*SPEED_EXAMINATIONS, *SERVER_EXAMINATIONS) for rule in one.rules}
        assert {one for one in own if ".speed." in one.__module__} == found


def look(examination: Any, evidence: Any) -> list[Finding]:
    return [one for rule in examination.rules for one in rule.look(evidence)]


@pytest.mark.parametrize(("examination", "evidence"), HEALTHY, ids=lambda one: getattr(one, "name", ""))
def test_healthy_evidence_has_no_finding_and_can_be_drawn_and_told(examination: Any, evidence: Any) -> None:
    assert look(examination, evidence) == []
    for picture in examination.pictures(evidence):
        assert picture.caption
        check_svg(picture.svg)
    for key, value in examination.figures(evidence).items():
        assert key == key.lower()
        assert value is None or isinstance(value, bool | int | float | str | list)


def test_what_was_not_timed_is_told_with_its_reason() -> None:
    evidence = SweepEvidence("v", "onnxruntime", "fp32", "64", 1, left_out={"threads": "There is one core."})
    assert SweepExamination().not_told(evidence) == ("Not timed: threads. There is one core.",)
    refused = replace(SERVER, left_out={"tensor": "status 404"})
    assert ServerExamination().not_told(refused) == ("Sending by tensor was not timed: status 404.",)


@pytest.mark.parametrize(
    ("change", "rule", "severity"),
    [
        ({"threads": 16, "timing": Timing(50.0, 25.0, 7)}, "threads-oversubscribed", Severity.WARNING),
        ({"caps": {"OPENBLAS_NUM_THREADS": "64"}}, "threads-oversubscribed", Severity.WARNING),
        ({"limit_cores": 1.5, "limit_timing": Timing(50.0, 25.0, 6)}, "cpu-limited", Severity.WARNING),
    ],
)
def test_machine_has_the_rules_of_the_environment(change: Any, rule: str, severity: Severity) -> None:
    found = look(MachineExamination(), replace(MACHINE, **change))
    assert [(one.rule, one.severity, round(one.weight, 6)) for one in found] == [
        (rule, severity, 0.0 if "caps" in change else 0.5)
    ]


def test_limit_that_costs_nothing_here_has_no_weight() -> None:
    (found,) = look(MachineExamination(), replace(MACHINE, limit_cores=1.0, limit_timing=Timing(50.0, 49.0, 6)))
    assert found.weight == 0.0
    assert "49.0 ms" in found.evidence


def test_faster_variant_that_loses_more_than_was_allowed_is_a_note_that_says_how_much() -> None:
    way = replace(WAY, engine="onnxruntime", gain=SURE, drop=0.05)
    (found,) = look(SweepExamination(), replace(SWEEP, variants=(way,)))
    assert found.severity is Severity.NOTE
    assert "map50_95 -0.0500" in found.evidence
    (kept,) = look(SweepExamination(), replace(SWEEP, variants=(way, replace(way, name="kept", drop=0.0))))
    assert (kept.severity, kept.evidence.split(":")[0]) == (Severity.WARNING, "kept")


def test_dynamic_quantization_is_named() -> None:
    (found,) = look(SweepExamination(), replace(SWEEP, variants=(replace(WAY, gain=SURE),), dynamic=True))
    assert "anew in every run" in found.what


def test_connection_of_a_server_that_closes_is_not_counted_twice() -> None:
    evidence = replace(SERVER, closes=True, anew=None, latency_ms=28.0, connect_ms=9.0)
    assert [one.rule for one in look(ServerExamination(), evidence)] == ["connection-anew"]


gains = st.floats(0.2, 5).flatmap(
    lambda value: st.builds(Interval, st.just(value), st.floats(0.1, value), st.floats(value, 9))
)


@given(gains)
def test_gain_is_told_only_where_its_lower_bound_reaches_the_limit(gain: Interval) -> None:
    found = look(SweepExamination(), replace(SWEEP, threads=(Way(2, 5.0, gain),)))
    assert bool(found) == (gain.low >= 1.1)
    for one in found:
        assert f"{gain.value:.2f} times" in one.evidence
        assert one.weight == pytest.approx(1 - 1 / gain.value)
