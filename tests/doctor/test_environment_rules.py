# SPDX-License-Identifier: Apache-2.0
"""The rules of the environment, over made-up evidence, and the table of versions."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import REPOSITORY

from shipsight.doctor import Finding, Severity
from shipsight.doctor.accuracy import EXAMINATIONS
from shipsight.doctor.environment import EnvironmentEvidence, EnvironmentExamination, Precision, Timing
from shipsight.doctor.environment.collecting import read_known
from shipsight.doctor.environment.rules import version_key

SAME = EnvironmentEvidence(
    engine="onnxruntime",
    precision="int8",
    here={"onnxruntime": "1.31.1"},
    built={"onnxruntime": "1.31.1"},
    flags=frozenset({"avx2", "fma"}),
    built_flags=frozenset({"avx2", "fma"}),
    cpu="x86-avx2",
    built_cpu="x86-avx2",
    system="Linux",
    machine="x86_64",
    known=read_known(),
    runs=Precision(88, 81, "f32"),
    ran=Precision(88, 81, "f32"),
    cores=4,
)


def look(evidence: EnvironmentEvidence) -> list[Finding]:
    return [one for rule in EnvironmentExamination.rules for one in rule.look(evidence)]


def test_same_environment_has_no_finding() -> None:
    assert look(SAME) == []


@pytest.mark.parametrize(
    ("change", "rule", "severity"),
    [
        ({"here": {"onnxruntime": "1.30.0"}}, "engine-version-other", Severity.NOTE),
        ({"here": {"onnxruntime": "1.21.0"}, "built": {}}, "engine-version-known-bad", Severity.WARNING),
        ({"runs": Precision(88, 0, "f32")}, "precision-not-as-built", Severity.WARNING),
        ({"runs": Precision(88, 81, "bf16")}, "precision-not-as-built", Severity.NOTE),
        ({"caps": {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}}, "precision-not-as-built", Severity.WARNING),
        ({"built_flags": frozenset({"avx2", "avx512_vnni"})}, "cpu-features-missing", Severity.NOTE),
        ({"caps": {"ONEDNN_MAX_CPU_ISA": "SSE41"}}, "cpu-features-missing", Severity.WARNING),
        ({"saturation": 0.7, "saturation_images": 4}, "int8-saturates", Severity.ERROR),
        ({"threads": 16, "timing": Timing(50.0, 25.0, 7)}, "threads-oversubscribed", Severity.WARNING),
        ({"caps": {"OMP_NUM_THREADS": "64"}}, "threads-oversubscribed", Severity.WARNING),
        ({"limit_cores": 1.5}, "cpu-limited", Severity.WARNING),
        ({"subnormal_share": 0.05, "flush_timing": Timing(50.0, 10.0, 7)}, "denormals-slow", Severity.WARNING),
        ({"subnormal_share": 0.05, "flush_timing": Timing(50.0, 50.0, 7)}, "denormals-slow", Severity.NOTE),
        ({"changed": ("variants/a/model.onnx",)}, "model-file-differs", Severity.ERROR),
        ({"is_of_bundle": False}, "model-file-differs", Severity.NOTE),
        ({"opset": 21, "ir_version": 10}, "runtime-newer-format", Severity.NOTE),
        ({"opset": 99, "ir_version": 14, "refused": "no"}, "runtime-newer-format", Severity.ERROR),
    ],
)
def test_each_difference_gives_its_one_finding(change: dict[str, object], rule: str, severity: Severity) -> None:
    found = look(replace(SAME, **change))  # type: ignore[arg-type]  # fields by name
    assert [(one.rule, one.severity) for one in found] == [(rule, severity)]


@given(st.integers(1, 64), st.integers(1, 64))
def test_threads_are_too_many_only_beyond_the_cores(threads: int, cores: int) -> None:
    rules = [one.rule for one in look(replace(SAME, threads=threads, cores=cores))]
    assert ("threads-oversubscribed" in rules) == (threads > cores)


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=4), st.sampled_from(["", "rc1", "+cpu", ".dev3"]))
def test_version_is_compared_by_its_numbers(parts: list[int], rest: str) -> None:
    text = ".".join(map(str, parts))
    assert version_key(text + ("" if rest == ".dev3" else rest))[: len(parts)] == tuple(parts)


def test_table_of_versions_has_its_form() -> None:
    for one in read_known():
        assert version_key(one.first) <= version_key(one.last)
        assert one.effect in ("wrong", "slow")
        assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+", one.source)
        assert dt.date.fromisoformat(one.date)
        assert one.what.endswith(".")


def test_every_rule_has_its_page() -> None:
    for examination in EXAMINATIONS:
        for rule in examination.rules:
            page = REPOSITORY / "docs" / "doctor" / f"{rule.id}.md"
            assert page.is_file(), rule.id
            lines = page.read_text(encoding="utf-8").splitlines()
            assert lines[0] == f"# {rule.id}"
            assert 15 <= len(lines) <= 60
