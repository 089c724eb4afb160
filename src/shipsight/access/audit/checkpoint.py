# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the audit log: how long it is and what its root is, at one moment, signed.

A checkpoint that lies where the log's keeper cannot reach it is what finds a log that was cut or written anew; the log by
itself cannot show that. Pure: who writes them where is left to `witnesses`. Format: `docs/formats/audit-checkpoint.md`. Stable.
Sources: C2SP tlog-checkpoint v1.0.0 and tlog-cosignature.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from shipsight.access.audit.merkle import HASH_BYTES
from shipsight.access.audit.notes import (
    KeyKind,
    Note,
    Signature,
    Signer,
    VerifierKey,
    decode_base64,
    open_note,
    sign_note,
)
from shipsight.errors import AuditProofError

__all__ = [
    "Checkpoint",
    "KeyKind",
    "Note",
    "Signature",
    "Signer",
    "VerifierKey",
    "add_signatures",
    "open_checkpoint",
    "open_note",
    "peek_origin",
    "sign",
    "sign_note",
]

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_TIME = "time "
_TIME_FORM = "%Y-%m-%dT%H:%M:%S.%fZ"
_LEAST_LINES = 4


@dataclass(frozen=True)
class Checkpoint:
    """What was signed about a log.

    Attributes:
        origin: which log, `shipsight/` and its id.
        size: how many entries it had.
        root: of the tree over them, 32 bytes.
        at: when that was, UTC, as the log's server had it.
        text: all of it, signatures included, as it is sent and kept.
        signatures: that were verified.
    """

    origin: str
    size: int
    root: bytes
    at: datetime
    text: str
    signatures: tuple[Signature, ...] = ()

    @property
    def body(self) -> str:
        """What is signed: `text` without the signatures."""
        return self.text.rpartition("\n\n")[0] + "\n"

    @property
    def cosignatures(self) -> tuple[Signature, ...]:
        """The signatures of witnesses."""
        return tuple(one for one in self.signatures if one.key.kind is KeyKind.COSIGNATURE)


def sign(
    signer: Signer, *, origin: str, size: int, root: bytes, at: datetime, also: Sequence[Signer] = ()
) -> Checkpoint:
    """Returns a checkpoint.

    Args:
        signer: of the log.
        origin: which log.
        size: number of its entries.
        root: of the tree over them, 32 bytes.
        at: now, UTC.
        also: others that sign it, such as the key before while keys change.

    Raises:
        UsageError: the origin is none.
    """
    moment = at.astimezone(UTC).strftime(_TIME_FORM)
    body = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n{_TIME}{moment}\n"
    text = sign_note(body, signer, *also, at=at)
    return open_checkpoint(text, [signer.key, *(one.key for one in also)], origin=origin)


def open_checkpoint(
    text: str, keys: Sequence[VerifierKey], *, origin: str | None = None, needs_log: bool = True
) -> Checkpoint:
    """Verifies a checkpoint.

    Args:
        text: as it was kept or sent.
        keys: of the log, and of witnesses; signatures of others are passed over.
        origin: which log it must be of, None for any.
        needs_log: whether a signature of the log's is needed; else a witness's alone does.

    Raises:
        AuditProofError: it is none, is of another log, a signature of one of the keys is wrong, or none is the log's.
    """
    note = open_note(text, keys)
    if needs_log and all(one.key.kind is KeyKind.COSIGNATURE for one in note.signatures):
        raise AuditProofError("a checkpoint is signed by witnesses, but not by its log")
    found, size, root, at = _read(note.text)
    if origin is not None and found != origin:
        raise AuditProofError("a checkpoint is of another log", expected=origin, got=found)
    return Checkpoint(found, size, root, at, text, note.signatures)


def add_signatures(checkpoint: Checkpoint, lines: str, keys: Sequence[VerifierKey]) -> Checkpoint:
    """Returns a checkpoint with signatures of witnesses under it.

    Args:
        checkpoint: as it was opened.
        lines: of the signatures, as a witness answers; those of other keys are left out.
        keys: of the witnesses.

    Raises:
        AuditProofError: a signature is wrong, or none is of these keys.
    """
    note = open_note(checkpoint.body + "\n" + lines, keys)
    trusted = {(one.key.name, one.key.id) for one in note.signatures}
    taken = []
    for line in lines.split("\n")[:-1]:
        name, _, value = line.removeprefix("\N{EM DASH} ").partition(" ")
        if (name, decode_base64(value)[:4]) in trusted and f"{line}\n" not in checkpoint.text:
            taken.append(f"{line}\n")
    signatures = tuple(dict.fromkeys((*checkpoint.signatures, *note.signatures)))
    text = checkpoint.text + "".join(taken)
    return Checkpoint(checkpoint.origin, checkpoint.size, checkpoint.root, checkpoint.at, text, signatures)


def peek_origin(text: str) -> str:
    """Returns which log a checkpoint says it is of, unverified: to find the keys to verify it with."""
    return text.partition("\n")[0]


def _read(body: str) -> tuple[str, int, bytes, datetime]:
    lines = body.split("\n")[:-1]
    if len(lines) < _LEAST_LINES or not all(lines):
        raise AuditProofError("not a checkpoint", expected="origin, size, root and time, a line each")
    origin, size, root = lines[0], lines[1], decode_base64(lines[2])
    if not _SIZE.fullmatch(size) or int(size) >= 1 << 63 or len(root) != HASH_BYTES:
        raise AuditProofError("not a checkpoint", where=origin, expected="a size, and a root of 32 bytes", got=size)
    try:
        at = datetime.strptime(lines[3].removeprefix(_TIME), _TIME_FORM).replace(tzinfo=UTC)
    except ValueError as error:
        raise AuditProofError("a checkpoint tells no time", where=origin, got=lines[3][:100]) from error
    if f"{_TIME}{at.strftime(_TIME_FORM)}" != lines[3]:
        raise AuditProofError("a checkpoint tells no time", where=origin, got=lines[3][:100])
    return origin, int(size), root, at
