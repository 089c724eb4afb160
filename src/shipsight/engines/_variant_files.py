# SPDX-License-Identifier: Apache-2.0
"""Reading a variant's files, in memory or in a folder, and what a device is called. Private to `engines`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from shipsight.engines.contract import VariantFiles
from shipsight.errors import CorruptError, UsageError
from shipsight.model import Variant

__all__ = ["Device", "parse_device", "read_variant_file"]


@dataclass(frozen=True)
class Device:
    """Where an engine runs.

    Attributes:
        kind: `cpu` or `cuda`.
        index: of the accelerator, 0 for the CPU.
    """

    kind: str
    index: int = 0


def parse_device(text: str) -> Device:
    """Reads a device written `cpu`, `cuda` or `cuda:1`.

    Raises:
        UsageError: it is written otherwise.
    """
    found = re.fullmatch(r"(cpu)|cuda(?::(\d{1,3}))?", text)
    if found is None:
        raise UsageError("unknown device", where="device", expected="cpu, cuda or cuda:INDEX", got=repr(text))
    return Device("cpu") if found[1] else Device("cuda", int(found[2] or 0))


def read_variant_file(files: VariantFiles, variant: Variant, position: int) -> tuple[str, bytes]:
    """Returns name and content of a variant's file.

    Args:
        files: folder or content by name.
        variant: whose file.
        position: in `variant.files`.

    Raises:
        CorruptError: the variant names no such file, or it is not there. Hashes are checked by who opens the bundle.
    """
    if position >= len(variant.files):
        raise CorruptError(
            "the variant names too few files", where=variant.name, expected=position + 1, got=len(variant.files)
        )
    name = variant.files[position]
    if not isinstance(files, Path):
        if name not in files:
            raise CorruptError("a file of the variant is missing", where=name, got=sorted(files))
        return name, bytes(files[name])
    try:
        return name, (files / name).read_bytes()
    except OSError as error:
        raise CorruptError("a file of the variant cannot be read", where=files / name, got=error.strerror) from error
