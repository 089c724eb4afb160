# SPDX-License-Identifier: Apache-2.0
"""The folder beside an unfinished bundle, so that a killed build goes on where it was.

A step's result is stored under a key: the digest of everything that determines it. A result is written to a temporary
name and renamed, so one that exists is whole. The folder is removed when the bundle is written. Nothing here ends up
in the bundle unchecked: a result read back is the bytes whose digest its name carries. Private to `build`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Workspace", "digest_of"]


def digest_of(*parts: object) -> str:
    """Returns one SHA-256 over parts: bytes as they are, all else as canonical JSON."""
    whole = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, default=str).encode()
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()


class Workspace:
    """Results of finished steps of one build.

    Args:
        folder: where they lie; created on first use.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self, key: str, make: Callable[[], Mapping[str, bytes]]) -> dict[str, bytes]:
        """Returns the files stored under a key, made now where there are none."""
        place = self.folder / key
        index = place / "index.json"
        if index.is_file():
            stored: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))
            found = {
                name: (place / digest).read_bytes() for name, digest in stored.items() if (place / digest).is_file()
            }
            if len(found) == len(stored) and all(
                hashlib.sha256(data).hexdigest() == stored[name] for name, data in found.items()
            ):
                return found
        made = dict(make())
        self._write(key, made)
        return made

    def value(self, key: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever JSON holds
        """Returns the JSON value stored under a key, made now where there is none."""
        stored = self.files(key, lambda: {"value.json": json.dumps(make()).encode()})
        return json.loads(stored["value.json"])

    def remove(self) -> None:
        """Removes everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, key: str, files: Mapping[str, bytes]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        half_made = Path(tempfile.mkdtemp(dir=self.folder, prefix="half-made-"))
        index = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        for name, data in files.items():
            (half_made / index[name]).write_bytes(data)
        (half_made / "index.json").write_text(json.dumps(index), encoding="utf-8")
        place = self.folder / key
        if place.exists():
            shutil.rmtree(place)
        half_made.rename(place)
