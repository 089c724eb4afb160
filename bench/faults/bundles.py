# SPDX-License-Identifier: Apache-2.0
"""Bundles in which a file was replaced, with and without the manifest written anew."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

__all__ = ["spoiled", "with_file"]


def with_file(bundle: Path, name: str, content: bytes, out: Path) -> Path:
    """Copies a bundle with another file in place of one, and a manifest that says so."""
    shutil.copytree(bundle, out)
    (out / name).write_bytes(content)
    manifest = (out / "bundle.yaml").read_text(encoding="utf-8")
    entry = re.compile(rf'(name: "{re.escape(name)}"\s+size: )\d+(\s+sha256: ")[0-9a-f]{{64}}')
    digest = hashlib.sha256(content).hexdigest()
    written, count = entry.subn(lambda found: f"{found[1]}{len(content)}{found[2]}{digest}", manifest)
    if count != 1:
        raise ValueError(f"{name} stands {count} times in the manifest of {bundle}")
    (out / "bundle.yaml").write_text(written, encoding="utf-8")
    return out


def spoiled(bundle: Path, name: str, out: Path) -> Path:
    """Copies a bundle as a disk with an error does: a part of a file became zeros."""
    shutil.copytree(bundle, out)
    content = bytearray((out / name).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = bytes(min(4096, len(content) - middle))
    (out / name).write_bytes(bytes(content))
    return out
