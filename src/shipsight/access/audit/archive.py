# SPDX-License-Identifier: Apache-2.0
"""Archives: the beginning of a log in a file that verifies alone, and together with the rest.

A file is lines of JSON: a head with the frontier of the tree before it, entries with the values beside them, checkpoints where
they were signed, and a last line with the frontier after it and a seal, signed, over every byte before. Invariants: a file of which
any byte was changed is refused; erasing values from one changes no record. Described in `docs/formats/audit-log.md`. Stable.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shipsight.access.audit.boxed_file import LineReader, LineWriter
from shipsight.access.audit.checkpoint import Signer, VerifierKey, sign_note
from shipsight.access.audit.merkle import Frontier, leaf_hash
from shipsight.access.audit.notes import open_note
from shipsight.access.audit.record import FIELDS, SALT_BYTES, Row, canonical, parse_record
from shipsight.access.audit.store.rows import KeptCheckpoint
from shipsight.errors import AuditProofError, CorruptError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from shipsight.access.backup import BackupLock

__all__ = ["ArchiveHead", "ArchiveReader", "ArchiveSeal", "write_archive"]

_FORMAT = "shipsight-audit"
_SEAL = "shipsight audit archive\n"
_NO_SALT = bytes(SALT_BYTES)


@dataclass(frozen=True)
class ArchiveHead:
    """What the first line says.

    Attributes:
        origin: which log.
        first: first entry.
        end: number after the last.
        frontier: of the tree over the entries before.
        prev: leaf hash of the entry before, in hexadecimal.
        made_at: when, as `write_time` has it.
    """

    origin: str
    first: int
    end: int
    frontier: bytes
    prev: str
    made_at: str

    def line(self) -> str:
        """Returns the line."""
        told = {**vars(self), "frontier": self.frontier.hex(), "archive": _FORMAT, "v": 1}
        return canonical(told)


@dataclass(frozen=True)
class ArchiveSeal:
    """What an archive is sealed with.

    Attributes:
        name: of its file.
        first: first entry.
        end: number after the last.
        digest: SHA-256 of what the seal is over, in hexadecimal.
        note: the seal, which is over that; by whom is for others to find out.
    """

    name: str
    first: int
    end: int
    digest: str
    note: str


class ArchiveReader:
    """An archive's file.

    Args:
        path: of it.
        lock: what opens it, None where it is in clear.

    Raises:
        UsageError: it cannot be read, is none, or is not opened by this.
        CorruptError: its first line is not what we write.
        UnsupportedError: a newer version wrote it.
    """

    def __init__(self, path: Path, *, lock: BackupLock | None = None) -> None:
        self.path = path
        self._lines = LineReader(path, lock=lock)
        self.head = self._read_head()
        self.end_frontier: bytes | None = None
        """As the last line has it, once all was read."""
        self.seal: ArchiveSeal | None = None
        """What it is sealed with, once all was read."""

    def items(self, keys: Sequence[VerifierKey] | None) -> Iterator[Row | KeptCheckpoint]:
        """Yields entries, and checkpoints after the entry that they reach to; the seal is verified at the end.

        Args:
            keys: that may have sealed it; None leaves open who did (`seal`).

        Raises:
            CorruptError: a line is not what we write, or the end is missing.
            AuditProofError: the seal is not over these bytes, or none of the keys' own.
        """
        digest = hashlib.sha256()
        last: bytes | None = None
        for place, line in enumerate(self._lines.lines()):
            if last is not None:
                raise CorruptError("something stands after the end", where=self.path)
            if place and line.startswith(b'{"end"'):
                last = line
                continue
            digest.update(line)
            if not place:
                continue
            yield _read_line(line, self.path)
        if last is None:
            raise CorruptError("an archive that was cut", where=self.path, expected="its last line")
        self._end(last, digest.hexdigest(), keys)

    def _end(self, last: bytes, digest: str, keys: Sequence[VerifierKey] | None) -> None:
        told = _parse(last, self.path)
        try:
            end, frontier, seal = told["end"], bytes.fromhex(told["frontier"]), str(told["seal"])
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptError("not the end of an archive", where=self.path) from error
        if end != self.head.end or told.keys() != {"end", "frontier", "seal"}:
            raise CorruptError("the end of another archive", where=self.path)
        self.end_frontier = frontier
        text = _seal_text(self.head, frontier, digest)
        if not seal.startswith(text + "\n"):
            raise AuditProofError("the seal is not over these bytes", where=self.path)
        if keys is not None and open_note(seal, keys).text != text:
            raise AuditProofError("the seal is not over these bytes", where=self.path)
        self.seal = ArchiveSeal(str(self.path), self.head.first, self.head.end, digest, seal)

    def _read_head(self) -> ArchiveHead:
        line = next(self._lines.lines(), b"")
        if not line.startswith(b'{"archive":"shipsight-audit"'):
            raise UsageError("not an archive of an audit log", where=self.path)
        told = _parse(line, self.path)
        if told.pop("v", None) != 1:
            raise UnsupportedError("a newer kind of archive", where=self.path)
        told.pop("archive")
        try:
            head = ArchiveHead(**{**told, "frontier": bytes.fromhex(told["frontier"])})
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptError("not the head of an archive", where=self.path) from error
        if not (isinstance(head.first, int) and isinstance(head.end, int) and 0 <= head.first < head.end):
            raise CorruptError("not the head of an archive", where=self.path)
        return head


# Long in arguments alone.
def write_archive(
    path: Path,
    items: Iterable[Row | KeptCheckpoint],
    *,
    head: ArchiveHead,
    signer: Signer,
    now: datetime,
    lock: BackupLock | None,
) -> str:
    """Writes an archive, whole or not at all.

    Args:
        path: of a file that is not there.
        items: entries and checkpoints in their order.
        head: what the first line says.
        signer: seals it.
        now: UTC.
        lock: what it is encrypted for, None for a file in clear.

    Returns:
        SHA-256 of its lines before the last, in hexadecimal: what the seal is over.
    """
    with LineWriter(path, lock=lock) as writer:
        writer.line(head.line())
        frontier = Frontier.from_bytes(head.frontier)
        for item in items:
            if isinstance(item, Row):
                frontier.append(leaf_hash(item.record.encode("ascii")))
            writer.line(_write_line(item))
        digest = writer.digest.hexdigest()
        seal = sign_note(_seal_text(head, frontier.to_bytes(), digest), signer, at=now)
        writer.line(canonical({"end": head.end, "frontier": frontier.to_bytes().hex(), "seal": seal}))
        writer.finish()
    return digest


def _seal_text(head: ArchiveHead, frontier: bytes, digest: str) -> str:
    return f"{_SEAL}{head.origin}\n{head.first} {head.end}\n{frontier.hex()}\n{digest}\n"


def _write_line(item: Row | KeptCheckpoint) -> str:
    if isinstance(item, KeptCheckpoint):
        told: dict[str, Any] = {
            "at": item.at,
            "checkpoint": item.text,
            "frontier": item.frontier.hex(),
            "size": item.size,
        }
        return canonical(told)
    values = {}
    for place, (name, value) in enumerate(zip(FIELDS, item.values, strict=True)):
        if value is not None:
            values[name] = {"salt": item.salts[place * SALT_BYTES : (place + 1) * SALT_BYTES].hex(), "value": value}
    return canonical({"erased": item.erased, "record": item.record, "values": values})


def _read_line(line: bytes, path: Path) -> Row | KeptCheckpoint:
    told = _parse(line, path)
    try:
        if "checkpoint" in told:
            return KeptCheckpoint(0, told["size"], told["at"], told["checkpoint"], bytes.fromhex(told["frontier"]))
        values, salts = [], b""
        for name in FIELDS:
            one = told["values"].get(name)
            values.append(None if one is None else str(one["value"]))
            salts += _NO_SALT if one is None else bytes.fromhex(one["salt"])
        text, erased = str(told["record"]), told["erased"]
        record = parse_record(text)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptError("not the line of an archive", where=path, got=line[:200]) from error
    return Row(record.seq, text, tuple(values), salts, erased, record.at, record.kind, record.outcome, record.server)


def _parse(line: bytes, path: Path) -> dict[str, Any]:
    """Reads a line, which must be written as we write it."""
    try:
        text = line.decode("ascii")
        told = json.loads(text)
        if isinstance(told, dict) and canonical(told) + "\n" == text:
            return told
    except (ValueError, RecursionError) as error:
        raise CorruptError("not the line of an archive", where=path, got=line[:200]) from error
    raise CorruptError("not the line of an archive", where=path, got=line[:200])
