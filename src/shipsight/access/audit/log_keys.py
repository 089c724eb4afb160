# SPDX-License-Identifier: Apache-2.0
"""The key that signs a log's checkpoints: begun with the log, changed while it goes on. Private to the room.

A key's name is the log that it signs, so that a log that was taken away, and a server that would quietly begin another in its
place, are found at the start. Servers of one log share its key's file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from shipsight.access.audit.appending import append
from shipsight.access.audit.checkpoint import Signer, sign_note
from shipsight.access.audit.notes import VerifierKey, open_note
from shipsight.access.audit.record import FIRST, prepare
from shipsight.access.audit.store.rows import Head, begin_log, keep_key, read_head, read_keys
from shipsight.access.events import Event, EventKind, Outcome
from shipsight.access.store import Database
from shipsight.errors import AuditError, AuditProofError, EnvironmentLackError

__all__ = ["admit", "endorse", "is_endorsed", "new_key_path", "put_key", "signer_of_now"]

_ENDORSED = "shipsight audit key\n"
_NEXT = ".next"


def admit(database: Database, path: Path, *, server: str, now: datetime) -> Signer:
    """Returns what signs a log; begins the log, and makes its key, where neither is there.

    Raises:
        AuditError: one is there without the other, or the key is another log's or was retired.
        EnvironmentLackError: the key's file cannot be used.
    """
    with database.write() as connection:
        head = read_head(connection)
        if head is None:
            if path.exists():
                raise AuditError(
                    "the log that this key signs is not here",
                    where=path,
                    hint="Name the place where it is. To begin another log, move this key away first.",
                )
            begin_log(connection, secrets.token_hex(16), FIRST)
    # Apart from it: a key that was made is never without its log, even where the process ends in between.
    with database.write() as connection:
        head = read_head(connection)
        assert head is not None
        if not head.size and (read_keys(connection) or path.exists()):
            raise AuditError(
                "the log that this key signs was emptied",
                where=path,
                hint="Put back its last copy. To begin another log, move this key and the empty log away first.",
            )
        if not read_keys(connection):
            _make_key(connection, head, path, server=server, now=now)
    # The key is put in its place after its entry is kept: whoever finds it there knows that its log had begun.
    with database.write() as connection:
        head = read_head(connection)
        assert head is not None
        return signer_of_now(connection, head, path)


def signer_of_now(connection: Connection, head: Head, path: Path) -> Signer:
    """Returns what signs now; where the process that changed keys ended before it was done, finishes it.

    Raises:
        AuditError: the file's key is another log's, unknown to it, or retired.
        EnvironmentLackError: the file cannot be used.
    """
    live = {one.key for one in read_keys(connection) if one.retired is None}
    if not path.exists() and new_key_path(path).exists() and Signer.load(new_key_path(path)).key.text in live:
        put_key(path)
    if not path.exists():
        raise AuditError(
            "the key that signs this log is not here", where=path, hint="Copy it from the server that began the log."
        )
    signer = Signer.load(path)
    if signer.key.text not in live and new_key_path(path).exists():
        waiting = Signer.load(new_key_path(path))
        if waiting.key.text in live:
            put_key(path)
            signer = waiting
    if signer.key.name != head.origin or signer.key.text not in live:
        raise AuditError(
            "this key does not sign this log",
            where=path,
            expected=head.origin,
            got=f"{signer.key.text} (another's, or retired)",
        )
    return signer


def new_key_path(path: Path) -> Path:
    """Returns where a key waits that is not the log's yet."""
    return path.with_name(path.name + _NEXT)


def put_key(path: Path) -> None:
    """Puts the key that waits in place of the one before.

    Raises:
        EnvironmentLackError: it cannot be written.
    """
    try:
        new_key_path(path).replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise EnvironmentLackError("the key that signs cannot be written", where=path, got=error.strerror) from error


def endorse(signer: Signer, new: VerifierKey, *, now: datetime) -> str:
    """Returns a note by which one key says that another comes after it."""
    return sign_note(f"{_ENDORSED}{signer.key.name}\n{new.text}\n", signer, at=now)


def is_endorsed(note: str, new: VerifierKey, keys: list[VerifierKey]) -> bool:
    """Whether one of some keys said that another comes after it."""
    with contextlib.suppress(AuditProofError):
        return open_note(note, keys).text == f"{_ENDORSED}{new.name}\n{new.text}\n"
    return False


def _make_key(connection: Connection, head: Head, path: Path, *, server: str, now: datetime) -> None:
    if head.size:
        raise AuditError("the log's keys are not there", where=path, hint="Verify it with the key that you kept.")
    signer = Signer.load(new_key_path(path), make=True, name=head.origin)
    if signer.key.name != head.origin:
        raise AuditError("this key is another log's", where=path, expected=head.origin, got=signer.key.name)
    told = Event(now, EventKind.AUDIT_KEY_ADDED, Outcome.DONE, f"server:{server}", details={"key": signer.key.text})
    object.__setattr__(told, "address", None)
    append(connection, head, [prepare(told)], server=server, now=now)
    keep_key(connection, signer.key.text, 0)
