# SPDX-License-Identifier: Apache-2.0
"""One entry of the audit log with the proof that it is in it, as a small file that is checked without the log.

The file holds the record, the personal values that it commits to (or not: they may be left out), the way up to the root of the tree, and a
signed checkpoint of that root. Leaves to others: reading the log (`reading`). Format: `docs/formats/audit-proof.md`. Stable.
Sources: RFC 6962, 2.1.1; C2SP tlog-proof for the idea.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from shipsight.access.audit.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from shipsight.access.audit.entry import Entry
from shipsight.access.audit.merkle import leaf_hash, verify_inclusion
from shipsight.access.audit.notes import decode_base64
from shipsight.access.audit.record import FIELDS, SALT_BYTES, Record, Row, canonical, commit, parse_record, read_entry
from shipsight.errors import AuditProofError, CorruptError

__all__ = ["Proved", "check_proof", "write_proof"]

_FIRST_LINE = "shipsight/audit-proof/v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})", re.ASCII)
_MOST_BYTES = 1024 * 1024
_MOST_HASHES = 63
_LEAST_LINES = 4


@dataclass(frozen=True)
class Proved:
    """What a proof shows.

    Attributes:
        entry: that is in the log; a personal value that is not in the file is empty.
        withheld: personal fields that the entry has, and the file does not.
        checkpoint: of the tree that it is in.
    """

    entry: Entry
    withheld: tuple[str, ...]
    checkpoint: Checkpoint


def write_proof(row: Row, proof: Sequence[bytes], checkpoint: Checkpoint, *, with_values: bool = True) -> str:
    """Returns the file's text.

    Args:
        row: of the entry.
        proof: that it is in the checkpoint's tree.
        checkpoint: of a tree that holds it.
        with_values: whether personal values are in the file.
    """
    values = {}
    for place, (name, value) in enumerate(zip(FIELDS, row.values, strict=True)):
        if value is not None and with_values:
            values[name] = [row.salts[place * SALT_BYTES : (place + 1) * SALT_BYTES].hex(), value]
    lines = [_FIRST_LINE, row.record, canonical(values), f"index {row.seq}"]
    return "\n".join([*lines, *(base64.b64encode(one).decode() for one in proof), "", checkpoint.text])


def check_proof(text: str, keys: Sequence[VerifierKey]) -> Proved:
    """Verifies a proof.

    Args:
        text: of the file.
        keys: of the log, and of witnesses that have to be right where they signed.

    Raises:
        AuditProofError: it does not show that the entry is in the log of these keys, or is no such file.
    """
    if len(text) > _MOST_BYTES:
        raise AuditProofError("a proof is too long", expected=f"{_MOST_BYTES} characters", got=len(text))
    head, blank, checkpoint_text = text.partition("\n\n")
    lines = head.split("\n")
    index = _INDEX.fullmatch(lines[3]) if len(lines) >= _LEAST_LINES else None
    if not blank or lines[0] != _FIRST_LINE or index is None or len(lines) > _LEAST_LINES + _MOST_HASHES:
        raise AuditProofError("not a proof of an entry", expected=_FIRST_LINE, got=lines[0][:100])
    checkpoint = open_checkpoint(checkpoint_text, keys)
    try:
        record = parse_record(lines[1])
        values, salts, withheld = _values(record, lines[2])
    except CorruptError as error:
        raise AuditProofError("what is proved is no entry", got=error) from error
    seq = int(index[1])
    if record.seq != seq or checkpoint.origin.rpartition("/")[2] != record.log:
        raise AuditProofError("an entry of another place or log", expected=f"{checkpoint.origin}, entry {seq}")
    hashes = [decode_base64(one) for one in lines[4:]]
    verify_inclusion(leaf_hash(lines[1].encode("ascii")), seq, checkpoint.size, hashes, checkpoint.root)
    row = Row(seq, lines[1], values, salts, None, record.at, record.kind, record.outcome, record.server)
    try:
        return Proved(read_entry(row), withheld, checkpoint)
    except CorruptError as error:
        raise AuditProofError("what is proved is no entry", got=error) from error


def _values(record: Record, text: str) -> tuple[tuple[str | None, ...], bytes, tuple[str, ...]]:
    """Returns the personal values with their salts, each as the record commits to it, and which are not there."""
    try:
        told = json.loads(text)
        is_canonical = canonical(told) == text
    except (ValueError, RecursionError) as error:
        raise AuditProofError("not the values of an entry", got=text[:100]) from error
    if not isinstance(told, dict) or not is_canonical or told.keys() - set(FIELDS):
        raise AuditProofError("not the values of an entry", got=text[:100])
    values: list[str | None] = []
    salts, withheld = b"", []
    for name, committed in zip(FIELDS, record.commitments, strict=True):
        salt, value = _pair(told[name]) if name in told else (bytes(SALT_BYTES), None)
        if value is not None and f'"{commit(salt, value)}"' != committed:
            raise AuditProofError("a value is not what was written", where=name)
        if value is None and committed != "null":
            withheld.append(name)
        values.append(value)
        salts += salt
    return tuple(values), salts, tuple(withheld)


def _pair(told: object) -> tuple[bytes, str]:
    match told:
        case [str(salt), str(value)] if re.fullmatch(f"[0-9a-f]{{{2 * SALT_BYTES}}}", salt) and value.isascii():
            return bytes.fromhex(salt), value
    raise AuditProofError("not a value with its salt")
