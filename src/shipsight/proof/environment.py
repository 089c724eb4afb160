# SPDX-License-Identifier: Apache-2.0
"""Where something was measured: versions, processor, limits. What `proof/environment.json` holds.

Leaves to others: what an engine really runs in (`engines`), which the pipeline adds. Invariants: plain values only; no
host name, user, path or other name of the machine's owner; nothing heavy is imported, versions are read from package
metadata. Stable. Sources: proc(5), cgroups(7), Linux `cgroup-v2.rst` (cpu.max, memory.max).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from shipsight.proof.control_group import read_control_group

__all__ = ["cpu_class", "cpu_flags", "describe_environment", "runtime_key"]

_PACKAGES = (
    "shipsight",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "nncf",
    "onnx",
    "onnxslim",
    "opencv-python-headless",
    "simplejpeg",
    "faster-coco-eval",
    "torch",
    "ultralytics",
    "ultralytics-opencv-headless",
)
_CLASSES = (  # strongest first: which kernels a runtime picks for 8-bit and float convolutions
    ("x86-amx", ("amx_int8", "amx_tile")),
    ("x86-avx512-vnni", ("avx512f", "avx512_vnni")),
    ("x86-avx512", ("avx512f",)),
    ("x86-avx-vnni", ("avx2", "avx_vnni")),
    ("x86-avx2", ("avx2", "fma")),
    ("x86-sse4", ("sse4_2",)),
    ("arm-sve2", ("sve2",)),
    ("arm-i8mm", ("i8mm",)),
    ("arm-dotprod", ("asimddp",)),
    ("arm-neon", ("asimd",)),
    ("arm-neon", ("neon",)),
)
_SHOWN_FLAGS = frozenset(
    {"sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"}
    | {"avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "neon", "asimd", "asimddp", "asimdhp"}
    | {"fphp", "i8mm", "bf16", "sve", "sve2"}
)


def cpu_flags(cpuinfo: str | None = None) -> frozenset[str]:
    """Returns the processor's feature flags as Linux names them.

    Args:
        cpuinfo: text of `/proc/cpuinfo`; None reads it.
    """
    for line in (_read(Path("/proc/cpuinfo")) if cpuinfo is None else cpuinfo).splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return frozenset(value.split())
    return frozenset()


def cpu_class(flags: frozenset[str] | None = None) -> str:
    """Returns the class of processors that run the same kernels, for example `x86-avx2` or `arm-dotprod`.

    bf16 is told apart (`x86-avx512-vnni+bf16`), since it changes what a runtime computes in by default.

    Args:
        flags: feature flags; None reads this machine's.
    """
    flags = cpu_flags() if flags is None else flags
    for name, needed in _CLASSES:
        if flags.issuperset(needed):
            has_bf16 = bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
            return f"{name}+bf16" if has_bf16 else name
    return f"{platform.machine() or 'unknown'}-plain"


def runtime_key(engine: str) -> str:
    """Returns the name and version of an engine's runtime: `openvino 2026.4.1`."""
    packages = {"pytorch": ("torch",), "onnxruntime": ("onnxruntime", "onnxruntime-gpu")}.get(engine, (engine,))
    for package in packages:
        version = _version(package)
        if version is not None:
            return f"{engine} {version}"
    return f"{engine} unknown"


def describe_environment(extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Describes this machine and installation in plain values.

    Args:
        extra: further entries, for example the precision each variant ran in.

    Returns:
        `versions`, `cpu` (model, class, flags, logical cores, cores this process may use), `limits` (CPU cores and
        bytes of memory the control group allows, None where none), `memory_bytes`, `os`, and what `extra` names.
    """
    cpuinfo = _read(Path("/proc/cpuinfo"))
    flags = cpu_flags(cpuinfo)
    versions = {"python": platform.python_version()}
    versions |= {name: version for name in _PACKAGES if (version := _version(name)) is not None}
    return {
        "versions": versions,
        "cpu": {
            "model": _cpu_model(cpuinfo),
            "class": cpu_class(flags),
            "flags": sorted(flags & _SHOWN_FLAGS),
            "logical_cores": os.cpu_count() or 1,
            "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        },
        "limits": {"cpu_cores": read_control_group().limit_cores, "memory_bytes": _cgroup_memory()},
        "memory_bytes": _memory_bytes(),
        "os": {"system": platform.system(), "kernel": platform.release(), "machine": platform.machine()}
        | {"distribution": _distribution()},
        **(extra or {}),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read(path: Path) -> str:
    """Returns a file of the kernel's, empty where this system has none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _cpu_model(cpuinfo: str) -> str:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return " ".join(value.split())
    return platform.processor() or "unknown"


def _cgroup_memory() -> int | None:
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(Path("/sys/fs/cgroup") / name).strip()
        if text.isdigit() and int(text) < 2**60:
            return int(text)
    return None


def _memory_bytes() -> int | None:
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    except OSError:
        return "unknown"
