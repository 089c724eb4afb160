# SPDX-License-Identifier: Apache-2.0
"""One walk over entries in their order, with all that is verified on the way. Private to the room.

Holds what does not grow with the log: the frontier, the hash of the entry before, keys, and for each erasure a count and a hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shipsight.access.audit.archive import ArchiveSeal
from shipsight.access.audit.checkpoint import Checkpoint, KeyKind, VerifierKey, open_checkpoint
from shipsight.access.audit.log_keys import is_endorsed
from shipsight.access.audit.merkle import Frontier
from shipsight.access.audit.notes import open_note
from shipsight.access.audit.record import FIELDS, SALT_BYTES, Record, Row, canonical, parse_record, write_time
from shipsight.access.audit.store.rows import KeptCheckpoint
from shipsight.access.audit.verification import Verification
from shipsight.access.events import EventKind
from shipsight.errors import AuditProofError, CorruptError, UsageError

__all__ = ["Erasures", "Walk"]

_OWN = "audit-"
_NO_SALT = bytes(SALT_BYTES)
_SPECIAL = frozenset(
    {
        EventKind.AUDIT_KEY_ADDED.value,
        EventKind.AUDIT_KEY_RETIRED.value,
        EventKind.AUDIT_ARCHIVED.value,
        EventKind.AUDIT_ERASED.value,
        EventKind.AUDIT_STARTED.value,
        EventKind.AUDIT_RECOVERED.value,
        EventKind.STOPPED.value,
    }
)
_HEARTBEAT_S = 900.0
_LONGEST_S = 1e8


class Erasures:
    """What one entry tells was erased: how many values, and a hash over their places in order."""

    def __init__(self) -> None:
        self.values = 0
        self.lowest: int | None = None
        self.highest = -1
        self._hash = hashlib.sha256()

    def add(self, seq: int, field: str) -> None:
        """Takes a place."""
        self.values += 1
        self.lowest = seq if self.lowest is None else min(self.lowest, seq)
        self.highest = max(self.highest, seq)
        self._hash.update(f"{seq} {field}\n".encode())

    @property
    def digest(self) -> str:
        """The hash, in hexadecimal."""
        return self._hash.hexdigest()


@dataclass(frozen=True)
class _ToldErasure:
    """What an entry tells was erased: how many values, a hash over their places, and of which entries' archive, None for the log."""

    values: int
    digest: str
    archive: tuple[int, int] | None

    @classmethod
    def of(cls, told: dict[str, Any]) -> _ToldErasure:
        first, _, last = str(told.get("archive", "")).partition("-")
        return cls(int(told["values"]), str(told["digest"]), (int(first), int(last)) if first else None)


class Walk:
    """Takes entries and checkpoints in their order; what it finds is in `result`, and when the newest checkpoint was signed in `lived_at`.

    Args:
        result: takes what is found.
        keys: that are trusted.
        signed: text of the checkpoint that was signed for this verification itself: it shows nothing of when servers lived.
    """

    def __init__(self, result: Verification, keys: Sequence[VerifierKey], *, signed: str | None = None) -> None:
        self.result = result
        self.size = 0
        self.lived_at: datetime | None = None
        self.sessions: dict[str, float] = {}
        self._given = list(keys)
        self._trusted = {one.text: one for one in keys if one.kind is KeyKind.NOTE}
        self._named: dict[str, VerifierKey] = {}
        self._retired: dict[str, int] = {}
        self._frontier = Frontier()
        self._prev = ""
        self._log = ""
        self._has_begun = False
        self._is_torn = False  # entries are missing, so that the tree cannot be followed
        self._outside: list[tuple[int, str]] = []
        self._outside_at = 0
        self._erased: dict[int, Erasures] = {}
        self._told: dict[int, _ToldErasure] = {}
        self._taken: dict[int, dict[int, int]] = {}
        self._archived: dict[int, str] = {}
        self._sealed: dict[tuple[int, int], str] = {}
        self._seals: list[ArchiveSeal] = []
        self._started: set[str] = set()
        self._signed = signed
        self._newest: tuple[int, bool] | None = None

    def know_keys(self, texts: Iterable[str]) -> None:
        """Takes keys that the log's place names: to read checkpoints by, not to trust them."""
        for text in texts:
            try:
                key = VerifierKey.parse(text)
            except (UsageError, AttributeError, TypeError) as error:
                self.result.find("key-changed", None, f"not a key: {error}")
            else:
                self._named.setdefault(key.text, key)

    def take_outside(self, texts: Iterable[str]) -> None:
        """Takes checkpoints that lay elsewhere."""
        for text in texts:
            with contextlib.suppress(AuditProofError):
                found = open_checkpoint(text, self._given, needs_log=False)
                self._outside.append((found.size, text))
                continue
            self.result.find(
                "outside-checkpoint", None, f"no trusted key has signed this checkpoint from elsewhere: {text[:80]!r}"
            )
        self._outside.sort(key=lambda one: one[0])

    def begin(self, origin: str, first: int, frontier: bytes, prev: str, *, name: str) -> None:
        """Begins a part: an archive, or what is in the log's place."""
        try:
            given: Frontier | None = Frontier.from_bytes(frontier)
        except AuditProofError as error:
            self.result.find("head-changed", first, f"{name}: {error}")
            given = None
        if not self._has_begun:
            self.result.origin, self.result.first, self.size = origin, first, first
            self._has_begun, self._log, self._prev = True, origin.removeprefix("shipsight/"), prev
            if given is None or given.size != first:
                self.result.find("head-changed", first, f"{name} does not begin where its tree does")
                self._is_torn = True
            else:
                self._frontier = given
            return
        if origin != self.result.origin:
            self.result.find("other-log", first, f"{name} is of {origin}, what was before of {self.result.origin}")
            return
        if first != self.size:
            self.result.find(
                "archive-missing", self.size, f"{name} begins at {first}, what was before ends at {self.size}"
            )
            self._is_torn = given is None
            self.size, self._prev = first, prev
            self.sessions.clear()  # how they ended stands in what is missing
            self._frontier = given or self._frontier
        elif given is None or given.hashes != self._frontier.hashes or prev != self._prev:
            self.result.find("chain-broken", first, f"{name} does not go on where what was before it ends")

    # Long, since a million entries come through here: each check stands where it is made.
    def row(self, row: Row) -> None:
        """Takes the next entry."""
        find, seq = self.result.find, row.seq
        if seq != self.size:
            self._misplaced(seq)
        text = row.record
        try:
            leaf = hashlib.sha256(b"\x00" + text.encode("ascii")).digest()
            record = parse_record(text)
        except (CorruptError, UnicodeEncodeError) as error:
            find("record-changed", seq, f"not a record: {error}")
            leaf = hashlib.sha256(b"\x00" + text.encode("utf-8", "surrogatepass")).digest()
            record = None
        if record is not None:
            if record.seq != seq:
                find("record-moved", seq, f"stands at {seq}, and says that it is entry {record.seq}")
            if record.prev != self._prev:
                find("chain-broken", seq, "does not name the hash of the entry before: one of the two was changed")
            if record.log != self._log:
                find("other-log", seq, f"is an entry of the log {record.log}")
            if (record.at, record.kind, record.outcome, record.server) != (row.at, row.kind, row.outcome, row.server):
                find("copy-changed", seq, "what filters look at is not what the record says")
            if seq == 0 and record.kind != EventKind.AUDIT_KEY_ADDED:
                find("log-cut", seq, "a log begins with the key that signs it: this is another's beginning")
            if record.is_back:
                self.result.note("clock-back", seq, f"the server's clock went back, to {record.written}")
            if row.erased is not None or not _fits(row.values, row.salts, record.commitments):
                self._values(row, record)
        self._frontier.append(leaf)
        self._prev = leaf.hex()
        self.size = seq + 1
        if record is not None and record.kind in _SPECIAL:
            self._special(row, record)
        while self._outside_at < len(self._outside) and self._outside[self._outside_at][0] <= self.size:
            self._check_outside()

    # Long, since each way in which a checkpoint can be wrong is told apart.
    def checkpoint(self, kept: KeptCheckpoint) -> None:
        """Takes a checkpoint of the size that was reached, or of one that is none."""
        find = self.result.find
        try:
            found = open_checkpoint(
                kept.text, [*self._trusted.values(), *self._named.values()], origin=self.result.origin
            )
        except AuditProofError as error:
            find("checkpoint-changed", kept.size, str(error))
            return
        signers = [one.key.text for one in found.signatures if one.key.kind is KeyKind.NOTE]
        is_trusted = any(one in self._trusted for one in signers)
        if (kept.size, kept.at) != (found.size, write_time(found.at)):
            find("checkpoint-changed", kept.size, "what is noted beside it is not what was signed")
        if all(self._retired.get(one, found.size) < found.size for one in signers):
            find("retired-key", found.size, "a checkpoint is signed by a key that was retired before")
            return
        if self._newest is None or found.size >= self._newest[0]:
            self._newest = (found.size, is_trusted)
        if found.size > self.size:
            find("log-cut", found.size, f"a checkpoint tells of {found.size} entries, there are {self.size}")
        elif found.size < self.size:
            find("checkpoint-changed", found.size, "a checkpoint of a size between entries that are not here")
        elif self._is_torn:
            pass  # already found, and every root after it is another
        elif found.root != self._frontier.root():
            find("wrong-root", found.size, "the entries up to here are not those that were signed")
        elif kept.frontier != self._frontier.to_bytes():
            find("checkpoint-changed", found.size, "the frontier beside it is another")
        elif is_trusted and found.size >= self.result.covered:
            self.result.covered, self.result.covered_at = found.size, found.at
            if found.text != self._signed:
                self.lived_at = found.at

    def end_part(self, size: int, frontier: bytes | None, leaf: str | None, *, name: str) -> None:
        """Ends a part."""
        if self.size != size:
            self.result.find("log-cut", self.size, f"{name} ends at {self.size}, and says that it has {size} entries")
        elif (frontier is not None and frontier != self._frontier.to_bytes() and not self._is_torn) or (
            leaf is not None and leaf != self._prev
        ):
            self.result.find("head-changed", None, f"{name} ends otherwise than it says")

    def end(self, *, is_whole_log: bool) -> None:
        """Ends the walk."""
        result = self.result
        result.size = self.size
        if not self.size:
            result.find("log-cut", 0, "nothing is here, not even the entry that every log begins with: it was emptied")
        for size, _ in self._outside[self._outside_at :]:
            if is_whole_log:
                what = f"a checkpoint from elsewhere tells of {size} entries, there are {self.size}: it was cut, or is an older one"
                result.find("log-cut", self.size, what)
        if result.first and is_whole_log and result.first not in self._archived:
            result.find(
                "beginning-missing",
                0,
                f"entries before {result.first} are not here, and no entry tells of their archive",
            )
        elif result.first:
            result.note("archived", 0, f"entries before {result.first} are in archives that were not given")
        if self._newest is not None and not self._newest[1]:
            result.find("foreign-key", self._newest[0], "the newest checkpoint is signed by no trusted key")
        self._end_erasures(is_whole_log=is_whole_log)
        self._end_seals()
        if self.size > result.covered and result.tail is None:
            result.tail = f"{self.size - result.covered} entries after the newest checkpoint are signed by nobody yet"

    def damaged(self, seq: object, why: CorruptError) -> None:
        """Takes that an entry cannot be read."""
        if isinstance(seq, int):
            if seq != self.size:
                self._misplaced(seq)
            self.result.find("record-changed", seq, str(why))
            self.size = seq + 1
        else:
            self.result.find("record-changed", self.size, str(why))
        self._is_torn = True

    def seal(self, seal: ArchiveSeal) -> None:
        """Takes what an archive is sealed with; who sealed it is looked at when all keys are known."""
        self._seals.append(seal)

    def _end_seals(self) -> None:
        """Finds archives that are not the files that entries tell of; where none tells of one, a trusted key must have sealed it."""
        for seal in self._seals:
            # Who erased values from an archive wrote it anew, and tells what it came to.
            told = self._sealed.get((seal.first, seal.end - 1), self._archived.get(seal.end))
            if told == seal.digest:
                continue
            if told is not None:
                self.result.find("archive-changed", seal.first, f"{seal.name} is not the file that an entry tells of")
                continue
            try:
                open_note(seal.note, list(self._trusted.values()))
            except AuditProofError as error:
                what = f"{seal.name}: no trusted key has sealed it, and no entry here tells of it: {error}"
                self.result.find("foreign-key", seal.first, what)

    def _misplaced(self, seq: int) -> None:
        if seq < self.size:
            self.result.find("duplicate", seq, "there is more than one entry of this number")
        else:
            self.result.find("record-missing", self.size, f"entries {self.size} to {seq - 1} are missing")
        self._is_torn = True

    def _values(self, row: Row, record: Record) -> None:
        """Verifies the personal values beside a record."""
        find, seq, salts = self.result.find, row.seq, row.salts
        erasures: dict[str, int] = {}
        if row.erased is not None:
            try:
                erasures = row.erasures()
            except CorruptError as error:
                find("value-changed", seq, str(error))
        if len(salts) != SALT_BYTES * len(FIELDS):
            find("value-changed", seq, "its salts are not those that were written")
            return
        place = 0
        for name, value, committed in zip(FIELDS, row.values, record.commitments, strict=True):
            salt = salts[place : place + SALT_BYTES]
            place += SALT_BYTES
            if value is not None:
                # Not ASCII: nothing that was ever committed to.
                if f'"{hashlib.sha256(salt + value.encode("utf-8", "surrogatepass")).hexdigest()}"' != committed:
                    find("value-changed", seq, f"{name} is not what was written")
                elif name in erasures:
                    find("value-changed", seq, f"{name} is there, and said to be erased")
            elif salt != _NO_SALT:
                find("value-changed", seq, f"{name} is not there, and has a salt")
            elif name in erasures and erasures[name] <= seq:
                find("value-missing", seq, f"{name} is not there, and said to be erased by an entry before")
            elif name in erasures and committed != "null":
                self._erased.setdefault(erasures[name], Erasures()).add(seq, name)
            elif name in erasures or committed != "null":
                find("value-missing", seq, f"{name} is not there, and no entry tells that it was erased")

    def _special(self, row: Row, record: Record) -> None:
        """Takes what the log tells of itself."""
        value = row.values[2]
        if value is None:
            if record.kind.startswith(_OWN):
                self.result.find("value-missing", row.seq, "what the log tells of itself cannot be erased")
            return
        try:
            told = json.loads(value)
            self._take_special(record, row.seq, told)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, UsageError) as error:
            self.result.find("value-changed", row.seq, f"not what the log tells of itself: {type(error).__name__}")

    def _take_special(self, record: Record, seq: int, told: dict[str, Any]) -> None:
        kind = EventKind(record.kind)
        if kind is EventKind.AUDIT_KEY_ADDED:
            self._add_key(VerifierKey.parse(told["key"]), seq, told.get("endorsement"))
        elif kind is EventKind.AUDIT_KEY_RETIRED:
            key = VerifierKey.parse(told["key"])
            self._named.setdefault(key.text, key)
            self._retired.setdefault(key.text, seq + 1)
        elif kind is EventKind.AUDIT_ARCHIVED:
            self._archived[int(told["size"])] = told["digest"]
            if "erased" in told:
                pairs = [one.split() for one in told["erased"]]
                self._taken[int(told["size"])] = {int(erasure): int(values) for erasure, values in pairs}
            for one in told["sessions"]:
                server, _, heartbeat_s = one.rpartition(" ")
                self.sessions.setdefault(canonical(server), _seconds(heartbeat_s))
        elif kind is EventKind.AUDIT_ERASED:
            self._told[seq] = erasure = _ToldErasure.of(told)
            if erasure.archive is not None:
                self._sealed[erasure.archive] = str(told["sealed"])
        elif kind is EventKind.AUDIT_STARTED:
            self._start(record, seq, told)
        else:
            self.sessions.pop(record.server, None)
            if kind is EventKind.AUDIT_RECOVERED and told.get("unsigned"):
                what = f"server {record.server} ended without a word: the {told['unsigned']} entries before this were signed by nobody till then"
                self.result.note("recovered", seq, what)

    def _start(self, record: Record, seq: int, told: dict[str, Any]) -> None:
        """Takes that a server began a session."""
        server = record.server
        if server in self.sessions:
            what = f"server {server} begins again, and no entry tells how it ended: entries before this were taken away"
            self.result.find("session-torn", seq, what)
        if server in self._started and told.get("known", seq) is None:
            what = f"server {server} began again without its newest checkpoint beside the key: whether the log was cut before could not be told"
            self.result.note("checkpoint-unknown", seq, what)
        self.sessions[server] = _seconds(told.get("heartbeat_s", _HEARTBEAT_S))
        self._started.add(server)

    def _add_key(self, key: VerifierKey, seq: int, endorsement: str | None) -> None:
        self._named.setdefault(key.text, key)
        good = [one for text, one in self._trusted.items() if self._retired.get(text, seq + 1) > seq]
        if key.text not in self._trusted and endorsement is not None and is_endorsed(endorsement, key, good):
            self._trusted[key.text] = key

    def _check_outside(self) -> None:
        """Compares a checkpoint that lay elsewhere with the entries up to its size."""
        size, text = self._outside[self._outside_at]
        self._outside_at += 1
        if size < self.size or (size == self.size and self._is_torn):
            return  # of entries in an archive that was not given, or after a gap, which was found
        found: Checkpoint = open_checkpoint(text, self._given, needs_log=False)
        if found.origin != self.result.origin:
            self.result.find("other-log", size, f"a checkpoint from elsewhere is of {found.origin}")
        elif found.root != self._frontier.root():
            what = "a checkpoint from elsewhere was signed over other entries: the log was written anew, or forked"
            self.result.find("fork", size, what)
        elif size >= self.result.covered:
            self.result.covered, self.result.covered_at = size, found.at
            if text != self._signed:
                self.lived_at = found.at

    def _end_erasures(self, *, is_whole_log: bool) -> None:
        """Compares what is not there with what entries tell was erased."""
        for seq, found in sorted(self._erased.items()):
            if seq not in self._told:
                if is_whole_log and seq >= self.result.first:
                    self.result.find(
                        "value-missing",
                        seq,
                        f"{found.values} values are said to be erased by an entry that tells no such thing",
                    )
                else:
                    self.result.note("erased", seq, f"{found.values} values were erased by an entry that is not here")
        for seq, told in sorted(self._told.items()):
            self._end_erasure(seq, told, self._erased.get(seq, Erasures()))

    def _end_erasure(self, seq: int, told: _ToldErasure, got: Erasures) -> None:
        """Compares what one entry tells was erased with what is not there: it must not do for erasing anything else."""
        values, first = told.values, self.result.first
        if got.values > values or (got.values == values and got.digest != told.digest):
            self.result.find("value-missing", seq, f"tells of {values} values, and {got.values} others are not there")
        elif told.archive is not None:
            if got.lowest is not None and (got.lowest < told.archive[0] or got.highest > told.archive[1]):
                self.result.find("value-missing", seq, "tells of an archive, and values of other entries are not there")
        elif got.values < values:
            # Those before the first entry here went into archives, and the entry that tells of the newest says how many.
            taken = {} if not first else self._taken.get(first)
            gone = values if taken is None else got.values + taken.get(seq, 0)
            if gone != values:
                what = f"tells of {values} erased values, and {gone} are not there, those in archives included"
                self.result.find("value-missing" if gone > values else "value-changed", seq, what)
                return
        if got.values < values:
            what = f"tells of {values} erased values, {got.values} are missing here: the others are in archives, or there still"
            self.result.note("erased", seq, what)


def _seconds(value: str | float) -> float:
    seconds = float(value)
    if not 0 < seconds < _LONGEST_S:
        raise ValueError("not a number of seconds")
    return seconds


def _fits(values: tuple[str | None, ...], salts: bytes, commitments: tuple[str, ...]) -> bool:
    """Whether values are what was committed to: the quick way, for those that are as they should be."""
    place = 0
    for value, committed in zip(values, commitments, strict=True):
        salt = salts[place : place + SALT_BYTES]
        place += SALT_BYTES
        if value is None:
            if committed != "null" or salt != _NO_SALT:
                return False
        elif not value.isascii() or hashlib.sha256(salt + value.encode()).hexdigest() != committed[1:-1]:
            return False
    return len(salts) == place
