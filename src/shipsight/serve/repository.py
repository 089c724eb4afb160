# SPDX-License-Identifier: Apache-2.0
"""A folder of bundles, known by name and version: clients name a model, never a path.

The folder is the operator's: bundles may be put there and taken away while the server runs. Each child that is a folder
with a manifest, or a zip file, is looked at when somebody asks, and read again only where it has changed. Leaves to others:
loading (`models`). Stable.
"""

from __future__ import annotations

import logging
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from shipsight.errors import NotFoundError, ShipsightError, UsageError
from shipsight.model.bundle import open_bundle
from shipsight.model.manifest import MANIFEST_NAME

__all__ = ["Repository", "StoredModel", "version_order"]

_log = logging.getLogger("shipsight.serve")
_Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class StoredModel:
    """A bundle of the folder.

    Attributes:
        name: of its model.
        version: of its model.
        path: where it lies.
    """

    name: str
    version: str
    path: Path


class Repository:
    """A folder of bundles.

    Args:
        folder: where they lie.

    Raises:
        UsageError: there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UsageError("no such folder", where="--repository", got=folder)
        self._folder = folder
        self._lock = threading.Lock()
        self._seen: dict[Path, tuple[_Stamp, StoredModel | None]] = {}

    def list(self) -> list[StoredModel]:
        """Returns the bundles that lie there now, by name and version; what cannot be read is told in the log."""
        with self._lock:
            seen: dict[Path, tuple[_Stamp, StoredModel | None]] = {}
            for path in sorted(self._folder.iterdir()):
                stamp = _stamp(path)
                if stamp is None:
                    continue
                before = self._seen.get(path)
                seen[path] = before if before is not None and before[0] == stamp else (stamp, _look(path))
            self._seen = seen
            found = [one for _, one in seen.values() if one is not None]
        return sorted(found, key=lambda one: (one.name, version_order(one.version)))

    def find(self, name: str, version: str | None = None) -> StoredModel:
        """Returns a bundle, the highest version where none is named.

        Raises:
            NotFoundError: there is none.
            UsageError: there are two.
        """
        stored = self.list()
        found = [one for one in stored if one.name == name and version in (None, one.version)]
        if not found:
            known = sorted({one.name for one in stored}) if version is None else [
                one.version for one in stored if one.name == name
            ]  # fmt: skip
            raise NotFoundError(
                "the repository has no such model" if version is None else "the repository has no such version",
                where=name[:100],
                expected=", ".join(known) or None,
                got=version,
            )
        best = found[-1]
        same = [one.path.name for one in found if one.version == best.version]
        if len(same) > 1:
            raise UsageError(
                "two bundles are the same version of a model", where=f"{name} {best.version}", got=", ".join(same)
            )
        return best


def version_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """Returns a key by which versions are ordered: numbers in them by size, so that 10 comes after 9."""
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.findall(r"\d+|\D+", version, re.ASCII)
    )


def _stamp(path: Path) -> _Stamp | None:
    """Returns what changes with a bundle, None where there is none (a file being copied, anything else)."""
    if path.name.startswith("."):
        return None
    manifest = path / MANIFEST_NAME if path.is_dir() else path
    if manifest is path and path.suffix != ".zip":
        return None
    try:
        status = manifest.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _look(path: Path) -> StoredModel | None:
    try:
        card = open_bundle(path).card
    except ShipsightError as error:
        _log.warning("the repository holds something that is no bundle: %s", error)
        return None
    return StoredModel(card.name, card.version, path)
