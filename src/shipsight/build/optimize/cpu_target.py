# SPDX-License-Identifier: Apache-2.0
"""Which 8-bit arithmetic the processor has, and what a quantized file must therefore avoid.

x86 before VNNI multiplies unsigned activations by signed weights in pairs whose sum is clamped to 16 bits (`vpmaddubsw`):
two full-range products overflow. Weights kept in 7 bits cannot. A file made that way runs right on every processor; one
made with 8-bit weights is right only where VNNI (or AMX) is. Arm multiplies signed by signed without that clamp.

Leaves to others: applying it (`int8_openvino`, `int8_onnx`). Stable. Sources: ONNX Runtime, "Quantize ONNX models",
section "When and why do I need to try U8U8"; NNCF, `OverflowFix`.
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from enum import StrEnum
from pathlib import Path

__all__ = ["Int8Target", "detect_target", "target_from_flags"]

_VNNI_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_X86_MACHINES = frozenset({"x86_64", "amd64", "i386", "i686"})
_ARM_MACHINES = frozenset({"aarch64", "arm64", "armv7l", "armv8l"})


class Int8Target(StrEnum):
    """The kind of processor that a quantized file is made for.

    `x86-vnni`: 8-bit weights, except in the first layer for OpenVINO. `x86`: no VNNI, so 7-bit weights; such a file runs
    right on the others too. `arm`: signed activations and weights, 8 bits.
    """

    X86_VNNI = "x86-vnni"
    X86 = "x86"
    ARM = "arm"

    @property
    def reduces_weight_range(self) -> bool:
        """Whether weights are kept in 7 bits so that pairs of products cannot overflow 16 bits."""
        return self is Int8Target.X86

    @property
    def overflow_fix(self) -> str:
        """NNCF's name for it: `enable`, `first_layer_only` or `disable`."""
        return {Int8Target.X86: "enable", Int8Target.X86_VNNI: "first_layer_only", Int8Target.ARM: "disable"}[self]

    @property
    def signed_activations(self) -> bool:
        """Whether ONNX Runtime's kernels want signed activations."""
        return self is Int8Target.ARM

    @property
    def note(self) -> str:
        """One sentence for the report."""
        if self is Int8Target.X86:
            return (
                "INT8 weights are kept in 7 bits: this processor has no VNNI and would clamp sums of 8-bit products. "
                "The file is right on processors with VNNI too"
            )
        if self is Int8Target.X86_VNNI:
            return (
                "INT8 weights use all 8 bits: on an x86 processor without VNNI, sums of products can be clamped and "
                "predictions differ from those measured here. For such processors, build on one of them"
            )
        return "INT8 activations and weights are signed, as Arm's kernels want them"


def target_from_flags(machine: str, flags: Collection[str]) -> Int8Target:
    """Returns the target for a machine name (as `platform.machine()` gives it) and its processor flags.

    Flags are Linux's names (`/proc/cpuinfo`). An unknown machine is treated as `x86`: 7-bit weights are right everywhere.
    """
    if machine.lower() in _ARM_MACHINES:
        return Int8Target.ARM
    if machine.lower() in _X86_MACHINES and not _VNNI_FLAGS.isdisjoint(flags):
        return Int8Target.X86_VNNI
    return Int8Target.X86


def detect_target(cpuinfo: Path = Path("/proc/cpuinfo")) -> Int8Target:
    """Returns the target of this machine; where `cpuinfo` cannot be read, no flag is assumed."""
    flags: set[str] = set()
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("flags", "Features"):
                flags.update(value.split())
                break
    return target_from_flags(platform.machine(), flags)
