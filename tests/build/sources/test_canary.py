# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that carry code are refused, and the code has not run (notes on attacks: M1 to M3)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.build.sources.hostile_checkpoints import archive, touching

from shipsight.build.sources import Limits, Sandbox, open_source
from shipsight.errors import UntrustedError

NAMES = {
    "reduce-os-system": "posix.system",
    "reduce-protocol-4": "posix.system",
    "builtins-eval": "builtins.eval",
    "builtins-exec-python-2-name": "__builtin__.exec",
    "getattr-chain": "builtins.getattr",
    "pkgutil-resolve-name": "pkgutil.resolve_name",
    "torch-callable": "torch.hub.load",
    "torch-load-again": "torch.serialization.load",
    "ultralytics-callable": "ultralytics.utils.downloads.safe_download",
    "allowed-class-called": "ultralytics.nn.tasks.DetectionModel",
    "allowed-class-made-with-arguments": "ultralytics.nn.tasks.DetectionModel",
    "inst-opcode": "posix system",
    "extension-code": "EXT1",
    "stack-global": "posix.system",
    "computed-global": "computes the name",
    "build-on-class": "DetectionModel",
    "codecs-other-than-latin1": "_codecs.encode",
    "object-dtype": "numpy.dtype",
    "nested-pickle": "pickle.loads",
    "second-pickle-behind-stop": "follow the first",
    "second-pickle-member": "other.pkl",
    "hidden-data-pkl": "inner/data.pkl",
    "bare-pickle": "posix.system",
    "bare-pickle-second": "posix.system",
    "legacy-tar": "posix.system",
    "source-code-member": "source code",
    "foreign-setstate": "codeop.Compile",
}


@pytest.mark.parametrize("disguise", NAMES)
def test_checkpoint_is_refused_and_names_it_when_it_carries_code(tmp_path: Path, disguise: str) -> None:
    canary = tmp_path / "canary"
    file = tmp_path / "best.pt"
    file.write_bytes(touching(canary)[disguise])
    with pytest.raises(UntrustedError) as caught:
        open_source(file)
    assert NAMES[disguise] in str(caught.value)
    assert not canary.exists()


def test_table_names_every_disguise(tmp_path: Path) -> None:
    assert set(NAMES) == set(touching(tmp_path))


@pytest.mark.parametrize("suffix", [".onnx", ".txt", ".jpg", ""])
def test_checkpoint_is_refused_when_it_has_another_suffix(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"model{suffix}"
    file.write_bytes(archive(b"N."))
    with pytest.raises(UntrustedError, match="under another name"):
        open_source(file)


def test_code_is_refused_without_running_when_sandbox_is_off(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    file = tmp_path / "best.pt"
    file.write_bytes(touching(canary)["reduce-os-system"])
    with pytest.raises(UntrustedError, match=r"posix\.system"):
        open_source(file, sandbox=Sandbox.OFF, limits=Limits())
    assert not canary.exists()
