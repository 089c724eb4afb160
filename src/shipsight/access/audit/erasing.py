# SPDX-License-Identifier: Apache-2.0
"""A person's data is erased: values beside records go, the records and their hashes stay. Private to the room; `AuditLog` calls it.

What goes: who did it and to whom, where that is the person; the address that they, or somebody not signed in, came from; details that name
them. What stays: when, what, how it ended, and commitments that tell nobody what they were made over, since their salts go, too.
What the log tells of itself is never erased. Source: GDPR, article 17; EDPB guidelines 02/2025 on commitments and hashes.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shipsight.access.audit.appending import append, sign_head
from shipsight.access.audit.archive import ArchiveReader, write_archive
from shipsight.access.audit.record import FIELDS, SALT_BYTES, Row, clean, prepare, write_time
from shipsight.access.audit.store.rows import KeptCheckpoint, read_range, write_values
from shipsight.access.audit.walking import Erasures
from shipsight.access.events import EventKind
from shipsight.errors import UsageError

if TYPE_CHECKING:
    from shipsight.access.audit.log import AuditLog
    from shipsight.access.backup import BackupLock

__all__ = ["Erased", "erase", "erase_archive"]

_PAGE = 2000
_OWN = frozenset(
    one.value
    for one in (
        EventKind.AUDIT_STARTED,
        EventKind.AUDIT_RECOVERED,
        EventKind.AUDIT_LOST,
        EventKind.AUDIT_ARCHIVED,
        EventKind.AUDIT_ERASED,
        EventKind.AUDIT_KEY_ADDED,
        EventKind.AUDIT_KEY_RETIRED,
    )
)
"""What the log tells of itself: details that a verification needs, and nothing of a person but who did it and from where."""
_WAITS_S = (0.1, 0.5, 1.0)
_log = logging.getLogger("shipsight.access")
_NO_SALT = bytes(SALT_BYTES)


@dataclass(frozen=True)
class Erased:
    """What was erased.

    Attributes:
        pseudonym: that the entry gives the person; it says nothing about them.
        entries: of how many entries something was erased.
        values: how many values.
        seq: entry that tells of it.
    """

    pseudonym: str
    entries: int
    values: int
    seq: int


def erase(log: AuditLog, person: str, *, actor: str, now: datetime) -> Erased:
    """Erases what the log holds of a person; archives are not touched.

    Raises:
        UsageError: nothing is there of them.
        AuditError: the log cannot be written.
    """
    choose = _chooser(person)
    head = log.reader.head()
    # Looked for outside, so that nobody who writes waits meanwhile.
    places = [row.seq for row in _rows(log, head.first, head.size) if choose(row)]
    told = Erasures()
    with log.writing() as (connection, current):
        if log.reader.database.kind == "sqlite":
            connection.exec_driver_sql(
                "PRAGMA secure_delete = ON"
            )  # else what is erased stays in the file's free pages
        for begin in range(head.size, current.size, _PAGE):
            found = read_range(connection, begin, min(begin + _PAGE, current.size))
            places += [row.seq for row in found if choose(row)]
        entries = 0
        for seq in places:
            for row in read_range(connection, seq, seq + 1):
                entries += 1
                write_values(connection, without(row, choose(row), current.size, told))
        if not told.values:
            hint = (
                f"Entries before {current.first} are in archives: give these with --archive." if current.first else None
            )
            raise UsageError("nothing is here of this person", got=person, hint=hint)
        pseudonym, details = _tell(told, entries)
        event = log.tell(EventKind.AUDIT_ERASED, actor, details)
        done = append(connection, current, [prepare(event)], server=log.server, now=now)
        signed = sign_head(connection, done.head, log.signer, now=now)
    log.wrote(done.head, 1, signed)
    if log.reader.database.kind == "sqlite":
        _empty_journal(log)
    return Erased(pseudonym, entries, told.values, current.size)


def _empty_journal(log: AuditLog) -> None:
    """Empties SQLite's journal, which holds pages as they were; says so where somebody who reads keeps it from that."""
    for wait_s in (*_WAITS_S, None):
        with log.reader.database.read() as connection:
            connection.rollback()
            busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar()
        if not busy:
            return
        if wait_s is not None:
            time.sleep(wait_s)
    _log.warning(
        "somebody reads the audit log: its journal (-wal) holds what was erased until all have closed it, or erase again"
    )


def erase_archive(
    log: AuditLog, person: str, file: Path, *, actor: str, lock: BackupLock | None, now: datetime
) -> Erased:
    """Writes an archive anew without what it holds of a person; its records stay, and it verifies as before.

    Raises:
        UsageError: nothing is there of them, it is no archive of this log, or is not opened by this.
        CorruptError, AuditProofError: the file was changed.
        AuditError: the log cannot be written.
        EnvironmentLackError: the file cannot be written.
    """
    from shipsight.access.audit.checkpoint import VerifierKey

    source = ArchiveReader(file, lock=lock)
    if source.head.origin != log.origin:
        raise UsageError("an archive of another log", where=file, expected=log.origin, got=source.head.origin)
    keys = [VerifierKey.parse(one.key) for one in log.reader.kept_keys()]
    choose, told, entries = _chooser(person), Erasures(), 0
    new = file.with_name(f".{file.name}.erased")
    new.unlink(missing_ok=True)
    try:
        with log.writing() as (connection, current):

            def items() -> Iterator[Row | KeptCheckpoint]:
                nonlocal entries
                for item in source.items(keys):
                    if isinstance(item, Row) and (chosen := choose(item)):
                        entries += 1
                        yield without(item, chosen, current.size, told)
                    else:
                        yield item

            head = replace(source.head, made_at=write_time(now))
            sealed = write_archive(new, items(), head=head, signer=log.signer, now=now, lock=lock)
            if not told.values:
                raise UsageError("nothing is here of this person", where=file, got=person)
            pseudonym, details = _tell(told, entries)
            event = log.tell(
                EventKind.AUDIT_ERASED, actor, {**details, "archive": f"{head.first}-{head.end - 1}", "sealed": sealed}
            )
            done = append(connection, current, [prepare(event)], server=log.server, now=now)
            signed = sign_head(connection, done.head, log.signer, now=now)
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)
    log.wrote(done.head, 1, signed)
    return Erased(pseudonym, entries, told.values, current.size)


def without(row: Row, fields: tuple[str, ...], seq: int, told: Erasures) -> Row:
    """Returns a row without some values, as an entry tells.

    Args:
        row: as it was.
        fields: whose values go.
        seq: entry that tells of it.
        told: learns which went.
    """
    values, salts, erased = list(row.values), bytearray(row.salts), row.erased or ""
    for place, name in enumerate(FIELDS):
        if name in fields and values[place] is not None:
            values[place] = None
            salts[place * SALT_BYTES : (place + 1) * SALT_BYTES] = _NO_SALT
            erased = f"{erased} {name}:{seq}".strip()
            told.add(row.seq, name)
    return row._replace(values=tuple(values), salts=bytes(salts), erased=erased or None)


def _tell(told: Erasures, entries: int) -> tuple[str, dict[str, Any]]:
    pseudonym = f"person-{secrets.token_hex(4)}"
    return pseudonym, {"person": pseudonym, "entries": entries, "values": told.values, "digest": told.digest}


def _rows(log: AuditLog, begin: int, end: int) -> Iterator[Row]:
    for start in range(begin, end, _PAGE):
        with log.reader.database.read() as connection:
            found = read_range(connection, start, min(start + _PAGE, end))
        yield from found


def _chooser(person: str) -> Callable[[Row], tuple[str, ...]]:
    """Returns what tells which values of a row are a person's.

    Args:
        person: a name, of a person or of a user of the operating system, or who acts as it is told: `person:ada`, `server:ada`,
            `certificate:CN=ada`.
    """
    told = clean(person if ":" in person else f"person:{person}")
    name = told.partition(":")[2]
    # Who runs commands is told as the operating system's user: a name alone means them, too.
    all_told = (told,) if ":" in person else (told, f"server:{name}")
    if not name:
        raise UsageError("names nobody", got=person, expected="a person's name")
    is_named = re.compile(rf"(?<![\w.@-]){re.escape(name)}(?![\w@-]|\.\w)", re.IGNORECASE)

    def choose(row: Row) -> tuple[str, ...]:
        if row.kind in _OWN:
            if not _is(row.values[0], *all_told):
                return ()
            return ("actor",) if row.values[1] is None else ("actor", "address")
        actor, _, details, subject = row.values
        chosen = []
        is_theirs = _is(actor, *all_told)
        is_about = _is(subject, *all_told, name)
        if is_theirs:
            chosen.append("actor")
        if row.values[1] is not None and (is_theirs or (is_about and _is(actor, "nobody"))):
            chosen.append("address")
        if details is not None and any(is_named.search(one) for one in _texts(json.loads(details))):
            chosen.append("details")
        if is_about:
            chosen.append("subject")
        return tuple(chosen)

    return choose


def _is(value: str | None, *texts: str) -> bool:
    return value is not None and json.loads(value) in texts


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401 - of details
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
