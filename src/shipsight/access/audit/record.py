# SPDX-License-Identifier: Apache-2.0
"""A record: the bytes of an entry that are hashed and never change, and the personal values beside it that may be erased.

Pure. A record is canonical JSON in printable ASCII: keys sorted, no blanks, everything else escaped (`canonical`); it holds
commitments, `SHA-256(salt || value)`, in place of who did it, to whom, from where, and the details. Invariants: one event and
its salts have one form; a form that is not canonical is refused, so that no two readers see two things in one record; no text
from outside can begin a line of its own. Described in `docs/formats/audit-log.md`. Stable.
Sources: RFC 8785 for the idea, not the form; OWASP ASVS 5.0, 16.2 and 16.4.1.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from shipsight.access.audit.entry import Entry
from shipsight.access.events import Event, EventKind, Outcome
from shipsight.errors import CorruptError

__all__ = [
    "FIELDS",
    "FIRST",
    "SALT_BYTES",
    "Prepared",
    "Record",
    "Row",
    "canonical",
    "clean",
    "commit",
    "parse_record",
    "prepare",
    "read_entry",
    "read_time",
    "write_time",
]

FIELDS = ("actor", "address", "details", "subject")
"""The personal fields, in the order of their salts."""

FIRST = "0" * 64
"""What the first record says the one before it hashes to."""

SALT_BYTES = 16
_NO_SALT = bytes(SALT_BYTES)
_MOST_TEXT = 4096
_MOST_ITEMS = 1000
_LARGEST = (1 << 53) - 1  # that every reader of JSON takes exactly
_FORM = "%Y-%m-%dT%H:%M:%S.%fZ"

_HEX = "[0-9a-f]{64}"
_TEXT = r'"[ !#-\[\]-~]*"'  # without anything escaped
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
_COMMITTED = f'null|"{_HEX}"'
_RECORD = re.compile(
    rf'\{{"actor":({_COMMITTED}),"address":({_COMMITTED}),"at":"({_TIME})","clock":(null|"back"),'
    rf'"details":({_COMMITTED}),"factor":(null|{_TEXT}),"kind":"([a-z-]+)","log":"([0-9a-f]{{32}})",'
    rf'"outcome":"([a-z-]+)","prev":"({_HEX})","seq":(0|[1-9][0-9]{{0,18}}),"server":({_TEXT}),'
    rf'"subject":({_COMMITTED}),"v":1,"why":(null|{_TEXT}),"written":"({_TIME})"\}}',
    re.ASCII,
)
_NUMBER = re.compile("[0-9]{1,19}", re.ASCII)  # as the database takes them
_ESCAPED = re.compile(r'"(?:[^"\\]|\\.)*"')
_quote = json.encoder.encode_basestring_ascii
_encode = json.JSONEncoder(ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def canonical(value: object) -> str:
    """Returns the one form of a value of texts, whole numbers, booleans, null, lists and mappings: printable ASCII."""
    return _encode(value)


def clean(text: str) -> str:
    """Returns a text that has one form: no longer than 4096 characters, and halves of a character that lie side by side joined.

    Half of a surrogate pair that stands alone stays, and is escaped; a text that was cut says so, and what the whole hashed to.
    """
    if not text.isascii():
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    if len(text) > _MOST_TEXT:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        text = f"{text[:_MOST_TEXT]}... ({len(text)} characters, SHA-256 {digest})"
    return text


def commit(salt: bytes, value: str) -> str:
    """Returns what a record says of a personal value, in hexadecimal.

    Args:
        salt: 16 random bytes.
        value: in its canonical form.
    """
    return hashlib.sha256(salt + value.encode("ascii")).hexdigest()


def write_time(time: datetime) -> str:
    """Returns a time as records have it: UTC, to the microsecond."""
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    # Not strftime: it writes the year 1 as `1`.
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def read_time(text: str) -> datetime:
    """Returns the time that `write_time` wrote.

    Raises:
        CorruptError: it did not write this.
    """
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise CorruptError("not a time", got=text) from error


class Prepared(NamedTuple):
    """An event on its way into the log: all of it that does not hang on its place there.

    Attributes:
        values: the personal ones in their canonical form, None where there is none; in the order of `FIELDS`.
        salts: theirs, 16 bytes each, zeros where there is no value.
        head: of the record: its text from the beginning to what stands before `clock`.
        middle: from `details` to what stands before `log`.
        at: when it happened.
        kind: what happened.
        outcome: how it ended.
        why: of it, canonical.
    """

    values: tuple[str | None, ...]
    salts: bytes
    commitments: tuple[str, ...]
    factor: str
    at: str
    kind: str
    outcome: str
    why: str

    # Long line by line, since the form is one: keys in order, nothing between them.
    def write(self, *, seq: int, log: str, prev: str, server: str, written: str, is_back: bool) -> str:
        """Returns the record's text.

        Args:
            seq: its number.
            log: id of the log.
            prev: leaf hash of the record before, in hexadecimal.
            server: that writes it, canonical.
            written: when, as `write_time` has it.
            is_back: whether the clock went back since the record before.
        """
        actor, address, details, subject = self.commitments
        clock = '"back"' if is_back else "null"
        return (
            f'{{"actor":{actor},"address":{address},"at":"{self.at}","clock":{clock},"details":{details},'
            f'"factor":{self.factor},"kind":"{self.kind}","log":"{log}","outcome":"{self.outcome}","prev":"{prev}",'
            f'"seq":{seq},"server":{server},"subject":{subject},"v":1,"why":{self.why},"written":"{written}"}}'
        )


class Record(NamedTuple):
    """What a record says, as its text has it: `factor`, `server`, `why` and the commitments canonical, `null` for none."""

    commitments: tuple[str, ...]
    at: str
    is_back: bool
    factor: str
    kind: str
    log: str
    outcome: str
    prev: str
    seq: int
    server: str
    why: str
    written: str


class Row(NamedTuple):
    """A record as it is kept, with the values beside it and the copies that filters look at.

    Attributes:
        seq: its number.
        record: its text.
        values: the personal ones in their canonical form, None where there is none or it was erased; as `FIELDS`.
        salts: theirs, zeros where there is no value.
        erased: which entry tells of which value's erasure: `actor:120 details:120`; None where none was erased.
        at: copy of what the record says; likewise `kind`, `outcome`, and `server` in its canonical form.
    """

    seq: int
    record: str
    values: tuple[str | None, ...]
    salts: bytes
    erased: str | None
    at: str
    kind: str
    outcome: str
    server: str

    def erasures(self) -> dict[str, int]:
        """Returns which entry tells of which value's erasure.

        Raises:
            CorruptError: it is not told so.
        """
        found: dict[str, int] = {}
        if self.erased is None:
            return found
        for one in self.erased.split(" "):
            name, _, seq = one.partition(":")
            if name not in FIELDS or _NUMBER.fullmatch(seq) is None or name in found:
                raise CorruptError("not a list of erasures", where=f"entry {self.seq}", got=self.erased)
            found[name] = int(seq)
        return found


def prepare(event: Event) -> Prepared:
    """Returns an event as the log takes it, with fresh salts."""
    details = {clean(str(key)): _plain(one) for key, one in event.details.items()}
    values = (
        _quote(clean(event.actor)),
        None if event.address is None else _quote(clean(event.address)),
        _encode(details) if details else None,
        None if event.subject is None else _quote(clean(event.subject)),
    )
    random = os.urandom(SALT_BYTES * len(FIELDS))
    salts, commitments = [], []
    for place, value in enumerate(values):
        salt = _NO_SALT if value is None else random[place * SALT_BYTES : (place + 1) * SALT_BYTES]
        salts.append(salt)
        commitments.append("null" if value is None else f'"{commit(salt, value)}"')
    return Prepared(
        values,
        b"".join(salts),
        tuple(commitments),
        "null" if event.factor is None else _quote(clean(event.factor)),
        write_time(event.at),
        event.kind.value,
        event.outcome.value,
        "null" if event.why is None else _quote(clean(event.why)),
    )


def parse_record(text: str) -> Record:
    """Reads a record.

    Raises:
        CorruptError: it is none, or is not written in the one form that it has.
    """
    found = _RECORD.fullmatch(text)
    if found is None:
        found = _RECORD.fullmatch(_without_escapes(text))
        if found is None:
            raise CorruptError("not a record in its canonical form", got=text[:200])
        factor, server, why = (_encode(one) for one in _escaped_fields(text))
    else:
        factor, server, why = found[6], found[12], found[14]
    return Record(
        (found[1], found[2], found[5], found[13]),
        found[3],
        found[4] != "null",
        factor,
        found[7],
        found[8],
        found[9],
        found[10],
        int(found[11]),
        server,
        why,
        found[15],
    )


# Long, since each field of an event is looked at.
def read_entry(row: Row) -> Entry:
    """Returns an entry as people read it; not whether it is what was written (`verify`).

    Raises:
        CorruptError: it cannot be read.
    """
    record = parse_record(row.record)
    erasures = row.erasures()
    told: dict[str, Any] = {}
    try:
        for name, value in zip(FIELDS, row.values, strict=True):
            told[name] = None if value is None else json.loads(value)
            if name in erasures:
                text = f"erased:{erasures[name]}"
                told[name] = {"erased": text} if name == "details" else text
        event = Event(
            read_time(record.at),
            EventKind(record.kind),
            Outcome(record.outcome),
            actor=told["actor"] or "",
            subject=told["subject"],
            why=json.loads(record.why),
            factor=json.loads(record.factor),
            # Told, so that an event without one does not take that of the request that reads it.
            address=told["address"] or "",
            details=told["details"] or {},
        )
        server = json.loads(record.server)
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptError("not an entry", where=f"entry {row.seq}", got=error) from error
    if not told["address"]:
        object.__setattr__(event, "address", None)
    return Entry(
        row.seq,
        server,
        event,
        max(erasures.values(), default=None),
        written=read_time(record.written),
        is_clock_back=record.is_back,
    )


def _plain(value: Any) -> Any:  # noqa: ANN401 - of any event
    """Returns a value of details as it is kept: decimals, and whole numbers that not every reader takes, as texts."""
    if type(value) is str:
        return clean(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -_LARGEST <= value <= _LARGEST else str(int(value))
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, str):
        return clean(str(value))
    if isinstance(value, Mapping):
        return {clean(str(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)
        more = [f"and {len(items) - _MOST_ITEMS} more"] if len(items) > _MOST_ITEMS else []
        return [_plain(one) for one in items[:_MOST_ITEMS]] + more
    return clean(str(value))


def _without_escapes(text: str) -> str:
    """Returns a record with texts that hold something escaped left empty, to compare its form with that of others."""
    return _ESCAPED.sub(lambda found: '""' if "\\" in found[0] else found[0], text)


def _escaped_fields(text: str) -> tuple[str | None, str, str | None]:
    """Returns factor, server and reason of a record with escapes; each must be written as we write it."""
    try:
        told = json.loads(text)
    except ValueError as error:
        raise CorruptError("not a record", got=text[:200]) from error
    # All of it: a key twice, another way to escape and a blank come out otherwise than they went in.
    if _encode(told) != text:
        raise CorruptError("not a record in its canonical form", got=text[:200])
    return told["factor"], told["server"], told["why"]
