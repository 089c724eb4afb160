# SPDX-License-Identifier: Apache-2.0
"""All identities in one encrypted file, and back: from SQLite or PostgreSQL, into either.

The file holds what lasts: people, their factors, roles, grants, keys, certificates. Not in it is what lives for a
while alone (sessions, challenges, invitations, throttles, known browsers). Secrets are opened before they go in and
encrypted with the key of the place where they are restored, so that a file and what opens it are enough. Invariants:
a file of which any byte was changed is refused; a restore happens whole or not at all; servers see it as a change of
rights. Leaves to others: where the file lies, who may read it. The form is described in
`docs/formats/access-backup.md`. Stable. Sources: RFC 9106 (Argon2id), RFC 5869 (HKDF), NIST SP 800-38D (AES-GCM).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Column, Connection, Engine, LargeBinary, MetaData, Table, insert, select
from sqlalchemy.exc import SQLAlchemyError

from shipsight.access.directory import keep_known_in, knows_anyone_in
from shipsight.access.events import Event, EventKind, EventSink, Outcome
from shipsight.access.permissions import Action
from shipsight.access.principal import Principal
from shipsight.access.store import Database, SecretBox, grow_revision, read_revision, tables, write_revision
from shipsight.access.store.database import memory_engine
from shipsight.access.store.migrating import known_revisions, newest_revision, upgrade
from shipsight.errors import CorruptError, LimitError, UnsupportedError, UsageError

__all__ = [
    "BY_KEY",
    "BY_PASSPHRASE",
    "LEAST_PASSPHRASE",
    "MOST_BYTES",
    "Backup",
    "BackupLock",
    "check_backup",
    "ciphers_of",
    "create_backup",
    "open_backup",
    "restore_backup",
]

LEAST_PASSPHRASE = 12
MOST_BYTES = 1 << 30
"""Of a file, and of what is in it."""

_MAGIC = b"shipsight-access-backup\n"
_VERSION = b"\x01"
BY_PASSPHRASE, BY_KEY = b"\x01", b"\x02"
_SALT, _NONCE, _TAG, _DIGEST = 16, 12, 16, 32
_HEAD = len(_MAGIC) + 2 + _SALT + _NONCE
_INFO = b"shipsight access backup 1"
# RFC 9106, section 4, second recommended option. Of the version, not of the file: else a file says how much memory is taken.
_PASSES, _MEMORY_KIB, _LANES = 3, 64 * 1024, 4


@dataclass(frozen=True)
class BackupLock:
    """What opens a file: a passphrase, or keys of 32 bytes, of which the first encrypts and all open."""

    passphrase: str | None = field(default=None, repr=False)
    keys: tuple[bytes, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if (self.passphrase is None) == (not self.keys):
            raise UsageError("a backup is opened by a passphrase or a key", expected="one of the two")
        # What is no UTF-8 in a file or a variable comes here as halves of surrogate pairs.
        if self.passphrase is not None and any("\ud800" <= letter <= "\udfff" for letter in self.passphrase):
            raise UsageError("not text in UTF-8", where="passphrase")


@dataclass(frozen=True)
class Backup:
    """What is in a file.

    Attributes:
        made_at: when it was made, ISO 8601.
        made_by: who made it, as `Principal.told` says it.
        made_from: `sqlite` or `postgresql`.
        revision: of the tables then.
        digest: SHA-256 of the file, in hexadecimal.
        rows: how many there are of each table, in the shape of now.
        held: the rows of each, with secrets that are not encrypted; never told.
    """

    made_at: str
    made_by: str
    made_from: str
    revision: str
    digest: str
    rows: Mapping[str, int]
    held: Mapping[str, Sequence[Mapping[str, Any]]] = field(repr=False, default_factory=dict)


def create_backup(
    database: Database,
    box: SecretBox,
    *,
    lock: BackupLock,
    actor: Principal,
    events: EventSink,
    now: Callable[[], datetime],
) -> bytes:
    """Returns a file of all identities, as they are at one moment.

    Raises:
        ForbiddenError: the actor may not change access.
        UsageError: the passphrase is too short.
        CorruptError: a secret cannot be opened by the box.
        LimitError: there is more than a file may hold.
    """
    actor.require(Action.ACCESS_CHANGE)
    if lock.passphrase is not None and len(lock.passphrase) < LEAST_PASSPHRASE:
        raise UsageError("too short", where="passphrase", expected=f"at least {LEAST_PASSPHRASE} characters")
    kind = BY_KEY if lock.passphrase is None else BY_PASSPHRASE
    salt, nonce = os.urandom(_SALT), os.urandom(_NONCE)
    head = _MAGIC + _VERSION + kind + salt + nonce
    cipher = ciphers_of(lock, kind, salt)[0]
    # The lock of those who write: nothing changes while it is read.
    with database.write() as connection:
        told = {
            "made_at": now().isoformat(),
            "made_by": actor.told(),
            "made_from": database.kind,
            "revision": newest_revision(),
            "tables": {table.name: _dump(connection, table, box) for table in _lasting()},
        }
        plain = json.dumps(told, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        if len(plain) > MOST_BYTES:
            raise LimitError("more than a backup may hold", expected=f"at most {MOST_BYTES} bytes", got=len(plain))
        body = head + cipher.encrypt(nonce, zlib.compress(plain, 6), head)
        data = body + hashlib.sha256(body).digest()
        digest = hashlib.sha256(data).hexdigest()
        events.record(
            Event(
                now(),
                EventKind.BACKED_UP,
                Outcome.DONE,
                actor.told(),
                details={"digest": digest, "bytes": len(data)},
            )
        )
    return data


def check_backup(data: bytes) -> None:
    """Finds what is no backup, of a newer version, or damaged, before anybody is asked for what opens it.

    Raises:
        UsageError, CorruptError, UnsupportedError, LimitError: as of `open_backup`.
    """
    if len(data) > MOST_BYTES:
        raise LimitError("too large for a backup", expected=f"at most {MOST_BYTES} bytes", got=len(data))
    if not data.startswith(_MAGIC):
        raise UsageError("not a backup of identities")
    if len(data) < _HEAD + _TAG + _DIGEST:
        raise CorruptError("a backup that was cut", got=f"{len(data)} bytes")
    if data[len(_MAGIC) : len(_MAGIC) + 1] != _VERSION:
        raise UnsupportedError("a newer kind of backup", hint="Use the version of shipsight that made it.")
    if not hmac.compare_digest(hashlib.sha256(data[:-_DIGEST]).digest(), data[-_DIGEST:]):
        raise CorruptError("a backup that was changed or cut", hint="Fetch it again, or take another.")


def open_backup(data: bytes, *, lock: BackupLock) -> Backup:
    """Reads a file whole, and brings what is in it to the shape of now; changes nothing.

    Raises:
        UsageError: it is no backup, or not opened by this passphrase or key.
        CorruptError: it was changed or cut.
        UnsupportedError: a newer version made it.
        LimitError: it is too large.
    """
    told = _decrypt(data, lock)
    try:
        revision, made = told["revision"], {name: str(told[name]) for name in ("made_at", "made_by", "made_from")}
        if revision not in known_revisions():
            raise UnsupportedError(
                "a newer version made this backup",
                expected=newest_revision(),
                got=revision,
                hint="Use the version of shipsight that made it.",
            )
        rows = _modernize(told["tables"], revision)
    except (KeyError, TypeError, ValueError, binascii.Error, SQLAlchemyError) as error:
        # Whoever could encrypt it wrote something else than we do.
        raise CorruptError("not what a backup holds", got=type(error).__name__) from error
    counts = {name: len(found) for name, found in rows.items()}
    return Backup(**made, revision=revision, digest=hashlib.sha256(data).hexdigest(), rows=counts, held=rows)


def restore_backup(
    database: Database,
    box: SecretBox,
    backup: Backup,
    *,
    actor: Principal,
    events: EventSink,
    now: Callable[[], datetime],
    replace: bool = False,
) -> None:
    """Puts what is in a file in place of all that is known, whole or not at all; everybody has to sign in again.

    Args:
        database: where to; its tables have the shape of now.
        box: encrypts secrets there.
        backup: what `open_backup` returned.
        actor: who does it.
        events: takes that it was done.
        now: tells the time.
        replace: whether it may be done where somebody is known.

    Raises:
        ForbiddenError: the actor may not change access.
        UsageError: somebody is known, and may not be replaced.
    """
    actor.require(Action.ACCESS_CHANGE)
    with database.write() as connection:
        is_known = knows_anyone_in(connection)
        if is_known and not replace:
            raise UsageError("somebody is known here", hint="Give --force to replace all of them.")
        revision = read_revision(connection)
        for table in reversed(tables.metadata.sorted_tables):
            connection.execute(table.delete())
        for table in _lasting():
            rows = [_seal(table, row, box) for row in backup.held[table.name]]
            if rows:
                connection.execute(insert(table), rows)
        if is_known:
            keep_known_in(connection)
        # Above both, so that whoever knows one of the two looks again.
        write_revision(connection, max(revision, read_revision(connection)))
        grow_revision(connection)
        details = {"digest": backup.digest, "made_at": backup.made_at, "made_by": backup.made_by}
        events.record(Event(now(), EventKind.RESTORED, Outcome.DONE, actor.told(), details=details))


def _decrypt(data: bytes, lock: BackupLock) -> Any:  # noqa: ANN401 - JSON
    check_backup(data)
    head, sealed, kind = data[:_HEAD], data[_HEAD:-_DIGEST], data[len(_MAGIC) + 1 : len(_MAGIC) + 2]
    salt, nonce = head[-_NONCE - _SALT : -_NONCE], head[-_NONCE:]
    for cipher in ciphers_of(lock, kind, salt):
        try:
            packed = cipher.decrypt(nonce, sealed, head)
        except InvalidTag:
            continue
        unpacking = zlib.decompressobj()
        try:
            plain = unpacking.decompress(packed, MOST_BYTES)
            if unpacking.eof:
                return json.loads(plain)
        except (zlib.error, ValueError) as error:
            raise CorruptError("not what a backup holds", got=type(error).__name__) from error
        raise LimitError("more than a backup may hold", expected=f"at most {MOST_BYTES} bytes")
    raise UsageError("not opened by this passphrase or key", hint="Or somebody changed it who has neither.")


def ciphers_of(lock: BackupLock, kind: bytes, salt: bytes, *, info: bytes = _INFO) -> list[AESGCM]:
    """Returns what may open a file, the one that encrypts first.

    Args:
        lock: the passphrase or the keys.
        kind: which of them the file says it is opened by.
        salt: of the file, 16 bytes.
        info: what a key is derived for.

    Raises:
        UsageError: it is opened by the other.
        UnsupportedError: it is opened by something that this version does not know.
    """
    if kind == BY_PASSPHRASE and lock.passphrase is not None:
        given = lock.passphrase.encode()
        return [AESGCM(hash_secret_raw(given, salt, _PASSES, _MEMORY_KIB, _LANES, hash_len=32, type=Type.ID))]
    if kind == BY_KEY and lock.keys:
        return [AESGCM(HKDF(SHA256(), 32, salt, info).derive(key)) for key in lock.keys]
    wanted = {BY_PASSPHRASE: "a passphrase", BY_KEY: "a key file"}.get(kind)
    if wanted is None:
        raise UnsupportedError("a newer kind of backup", hint="Use the version of shipsight that made it.")
    raise UsageError("the backup is opened by something else", expected=wanted)


def _lasting() -> list[Table]:
    """Returns the tables that are in a file, those that others point to first."""
    return [one for one in tables.metadata.sorted_tables if one.info.get("backed_up", True)]


def _dump(connection: Connection, table: Table, box: SecretBox) -> dict[str, Any]:
    """Returns a table as JSON has it: its columns, and a list of values a row."""
    columns = list(table.columns)
    rows = connection.execute(select(*columns).order_by(*table.primary_key.columns)).all()
    return {
        "columns": [one.name for one in columns],
        "rows": [[_plain(one, row[place], row, box) for place, one in enumerate(columns)] for row in rows],
    }


def _plain(column: Column[Any], value: Any, row: Any, box: SecretBox) -> Any:  # noqa: ANN401 - of any column
    if value is None:
        return None
    if column.info.get("sealed"):
        value = box.open(value, belongs_to=row.id)
    if isinstance(column.type, LargeBinary):
        return base64.b64encode(value).decode()
    return tables.milliseconds(value) if isinstance(column.type, tables.UtcTime) else value


def _seal(table: Table, row: Mapping[str, Any], box: SecretBox) -> dict[str, Any]:
    sealed = {
        column.name: box.seal(row[column.name], belongs_to=row["id"])
        for column in table.columns
        if column.info.get("sealed") and row[column.name] is not None
    }
    return {**row, **sealed}


def _modernize(told: Mapping[str, Any], revision: str) -> dict[str, list[dict[str, Any]]]:
    """Brings rows of an older shape to that of now, by the same steps as a database; in memory."""
    engine = memory_engine()
    try:
        upgrade(engine, revision)
        _load(engine, told)
        upgrade(engine)
        with engine.connect() as connection:
            return {
                table.name: [dict(row) for row in connection.execute(select(table)).mappings()] for table in _lasting()
            }
    finally:
        engine.dispose()


def _load(engine: Engine, told: Mapping[str, Any]) -> None:
    found = MetaData()
    with engine.begin() as connection:
        found.reflect(connection)
        unknown = told.keys() - found.tables.keys()
        if unknown:
            raise ValueError(f"unknown tables: {sorted(unknown)}")
        for table in found.sorted_tables:
            if table.name not in told:
                continue
            columns = [table.columns[name] for name in told[table.name]["columns"]]
            rows = [
                {one.name: _raw(one, value) for one, value in zip(columns, row, strict=True)}
                for row in told[table.name]["rows"]
            ]
            if rows:
                connection.execute(insert(table), rows)


def _raw(column: Column[Any], value: Any) -> Any:  # noqa: ANN401 - of any column
    return (
        base64.b64decode(value, validate=True) if value is not None and isinstance(column.type, LargeBinary) else value
    )
