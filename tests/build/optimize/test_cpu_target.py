# SPDX-License-Identifier: Apache-2.0
"""Which 8-bit arithmetic a processor is taken to have."""

from __future__ import annotations

import platform

import pytest

from shipsight.build.optimize import Int8Target, detect_target, target_from_flags


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        pytest.param("x86_64", {"avx2", "fma"}, Int8Target.X86, id="avx2"),
        pytest.param("x86_64", {"avx512f", "avx512bw"}, Int8Target.X86, id="avx512-without-vnni"),
        pytest.param("x86_64", {"avx2", "avx512_vnni"}, Int8Target.X86_VNNI, id="avx512-vnni"),
        pytest.param("AMD64", {"avx2", "avx_vnni"}, Int8Target.X86_VNNI, id="avx-vnni"),
        pytest.param("aarch64", {"asimddp"}, Int8Target.ARM, id="arm"),
        pytest.param("riscv64", set(), Int8Target.X86, id="unknown-is-treated-with-care"),
    ],
)
def test_target_follows_machine_and_flags(machine, flags, expected):
    assert target_from_flags(machine, flags) is expected


@pytest.mark.parametrize(("line", "expected"), [("avx2 avx512_vnni", Int8Target.X86_VNNI), ("avx2", Int8Target.X86)])
def test_detection_reads_the_flags_line(tmp_path, monkeypatch, line, expected):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: X\nflags\t\t: fpu {line}\n\n")
    assert detect_target(cpuinfo) is expected


def test_detection_assumes_no_flag_when_cpuinfo_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert detect_target(tmp_path / "nothing") is Int8Target.X86


def test_targets_state_what_the_quantizers_do():
    assert [target.reduces_weight_range for target in Int8Target] == [False, True, False]
    assert [target.signed_activations for target in Int8Target] == [False, False, True]
    assert [target.overflow_fix for target in Int8Target] == ["first_layer_only", "enable", "disable"]
    assert all(target.note for target in Int8Target)
