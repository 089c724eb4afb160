# SPDX-License-Identifier: Apache-2.0
"""A backup of recordings: sealed files and their entries, and no keys.

The keys stay in the store, and are in no backup: so what is erased in the store is erased in every backup that was ever made, wherever it lies,
and a restore brings back what was lost, not what was erased. A store whose keys are lost is lost; `docs/recording.md` says why that is the
better of the two. Form: `docs/formats/recording-store.md`. Leaves to others: where the key table is mirrored. Stable.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from shipsight.access import Action, Event, EventKind, EventSink, Outcome, Principal
from shipsight.errors import CorruptError, EnvironmentLackError, NotFoundError, UnsupportedError, UsageError
from shipsight.monitor.recording.erasing import SUBJECT
from shipsight.monitor.recording.index import Entry
from shipsight.monitor.recording.policy import Policy
from shipsight.monitor.recording.record import Label, read_time, write_time
from shipsight.monitor.recording.store import Store

__all__ = ["BackedUp", "Restored", "back_up", "restore"]

_MAGIC = b"shipsight-recordings-backup\n"
_VERSION = b"\x01"
_SEAL = 32
_MOST_HEAD, _MOST_BODY = 1 << 20, 1 << 30
_PIECE = 1 << 20


@dataclass(frozen=True)
class BackedUp:
    """A backup that was made.

    Attributes:
        records: in it.
        size: bytes of the file.
        sha256: of the file, in hexadecimal.
    """

    records: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Restored:
    """What a restore did with the recordings of a backup.

    Attributes:
        restored: came back.
        present: were there.
        erased: have no key any more: they were erased, or their time had passed.
        expired: have one, and their time has passed.
    """

    restored: int
    present: int
    erased: int
    expired: int


def back_up(store: Store, out: Path, *, actor: Principal, events: EventSink) -> BackedUp:
    """Writes a backup, whole or not at all, for its owner alone.

    Args:
        store: of recordings.
        out: file; one that is there is refused.
        actor: who does it.
        events: takes that it is done.

    Raises:
        ForbiddenError: they may not read recordings.
        UsageError: the file is there, or the policy does not let recordings lie in that folder.
        EnvironmentLackError: it cannot be written.
    """
    actor.require(Action.RECORDINGS_READ)
    store.enforcement.check_place(out.absolute().parent)
    if out.exists():
        raise UsageError("is there already", where=out)
    new = out.with_name(f".{out.name}.{secrets.token_hex(4)}.new")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            count = _write(store, _Hashed(file), made_by=actor.told())
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        digest = _digest_of(new)
        details: dict[str, str | int] = {"what": "backup", "records": count, "digest": digest}
        told = Event(store.now(), EventKind.RECORDINGS_CHANGED, Outcome.DONE, actor.told(), SUBJECT, details=details)
        events.record(told)
        new.replace(out)
    except OSError as error:
        raise EnvironmentLackError("the backup cannot be written", where=out, got=error.strerror) from error
    finally:
        new.unlink(missing_ok=True)
    return BackedUp(count, size, digest)


def restore(store: Store, file: Path, *, actor: Principal, events: EventSink) -> Restored:
    """Brings back what a backup holds and the store has a key of; no server may record there meanwhile.

    Args:
        store: that the backup was made of.
        file: what `back_up` wrote.
        actor: who does it.
        events: takes that it is done.

    Raises:
        ForbiddenError, StepUpError: they may not change recordings.
        UsageError: it is no backup, one of another store, or a server records.
        CorruptError: a byte of it was changed, or it is cut; nothing is restored then.
        UnsupportedError: a newer version made it.
        EnvironmentLackError: there is no room.
    """
    actor.require(Action.RECORDINGS_CHANGE, now=store.now())
    with store.writer(tidies=False), _opened(file) as source:
        head = _check(store, source, file)
        details = {"what": "restore", "made_at": head["made_at"], "made_by": head["made_by"]}
        told = Event(store.now(), EventKind.RECORDINGS_CHANGED, Outcome.DONE, actor.told(), SUBJECT, details=details)
        events.record(told)
        store.index.keep_policies((read_time(since), Policy.from_dict(one)) for since, one in head["policies"])
        done = _bring_back(store, source)
        store.end_restore()
        return done


def _bring_back(store: Store, source: IO[bytes]) -> Restored:
    there = {one.label.id for one in store.entries() if store.has_file(one)}
    promised = {policy.digest: policy for _, policy in store.index.policies()}
    restored = present = erased = expired = 0
    for entry, sealed in _members(source):
        label = entry.label
        if label.id in there:
            present += 1
        elif store.enforcement.is_expired(label.at, store.now(), promised.get(label.policy)):
            expired += 1
        else:
            try:
                store.put_back(entry, sealed)
                restored += 1
            except NotFoundError:
                erased += 1
    return Restored(restored, present, erased, expired)


class _Hashed:
    """Writes, and reckons a digest of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self._file.write(data)

    def frame(self, head: dict[str, Any], body: bytes = b"") -> None:
        told = json.dumps({**head, "size": len(body)}, ensure_ascii=False).encode()
        self.write(len(told).to_bytes(4, "big") + told + body)

    def end(self, seal: bytes) -> None:
        self._file.write(seal)


def _write(store: Store, out: _Hashed, *, made_by: str) -> int:
    entries = store.entries()
    out.write(_MAGIC + _VERSION)
    policies = [[write_time(since), policy.to_dict()] for since, policy in store.index.policies()]
    head = {"store": store.keys.store, "region": store.region, "made_at": write_time(store.now()), "made_by": made_by}
    out.frame({**head, "policies": policies})
    count = 0
    for one in entries:
        try:
            body = store.sealed(one)
        except NotFoundError:  # erased meanwhile
            continue
        out.frame({"label": one.label.to_dict()}, body)
        count += 1
    out.end(store.keys.seal_of(out.digest.digest()))
    return count


def _check(store: Store, source: IO[bytes], where: Path) -> dict[str, Any]:
    """Refuses what this store did not write, before anything of it is believed; returns its head."""
    begin = source.read(len(_MAGIC) + 1)
    if not begin.startswith(_MAGIC):
        raise UsageError("not a backup of recordings", where=where)
    if begin[-1:] != _VERSION:
        raise UnsupportedError("a newer kind of backup", where=where, hint="Use the version of shipsight that made it.")
    head, _ = _frame(source, where)
    if head.get("store") != store.keys.store:
        raise UsageError(
            "a backup of another store, whose keys are not here",
            where=where,
            expected=store.keys.store,
            got=head.get("store"),
        )
    source.seek(0, os.SEEK_END)
    left = source.tell() - _SEAL
    source.seek(0)
    digest = hashlib.sha256()
    while left > 0 and (piece := source.read(min(_PIECE, left))):
        digest.update(piece)
        left -= len(piece)
    if not hmac.compare_digest(store.keys.seal_of(digest.digest()), source.read()):
        raise CorruptError("a backup that was changed or cut", where=where, hint="Take another.")
    source.seek(len(begin))
    _frame(source, where)
    return head


def _members(source: IO[bytes]) -> Iterator[tuple[Entry, bytes]]:
    end = os.fstat(source.fileno()).st_size - _SEAL
    while source.tell() < end:
        head, body = _frame(source, Path(source.name))
        yield Entry(Label.from_dict(head["label"]), len(body)), body


def _frame(source: IO[bytes], where: Path) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(source.read(4), "big")
    try:
        if not 0 < size <= _MOST_HEAD:
            raise ValueError("no head")
        head = json.loads(source.read(size))
        if type(head["size"]) is not int or not 0 <= head["size"] <= _MOST_BODY:
            raise ValueError("no size")
        body = source.read(head["size"])
        if len(body) != head["size"]:
            raise ValueError("cut")
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError("a backup that was changed or cut", where=where) from error
    return head, body


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise UsageError("not a file that can be read", where=path, got=error.strerror) from error


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
