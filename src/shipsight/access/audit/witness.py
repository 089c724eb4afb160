# SPDX-License-Identifier: Apache-2.0
"""A witness: signs a log's checkpoint only if the log has grown out of what the witness signed last.

Invariants: what is signed is on the disk before the signature leaves; for a log no two trees of one size are ever signed, nor
a smaller one after a larger; one process keeps a folder. Two trees of one size that the log itself has signed are kept
as evidence. Leaves to others: HTTP (`shipsight.serve.witnessing`). Stable.
Sources: C2SP tlog-witness; `docs/protocols/witness.md`.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hmac import compare_digest
from pathlib import Path

from shipsight.access.audit.checkpoint import Checkpoint, Signer, VerifierKey, open_checkpoint, peek_origin
from shipsight.access.audit.merkle import verify_consistency
from shipsight.access.audit.notes import KeyKind, decode_base64
from shipsight.errors import AuditProofError, EnvironmentLackError, UsageError

__all__ = ["MOST_REQUEST_BYTES", "Witness", "WitnessAnswer", "parse_logs"]

MOST_REQUEST_BYTES = 72 * 1024
"""Of a request to sign: a checkpoint and its proof."""

_log = logging.getLogger("shipsight.access.audit")
_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})", re.ASCII)
_MOST_PROOF = 63
_MOST_EVIDENCE = 16
_TEXT, _SIZE = "text/plain; charset=utf-8", "text/x.tlog.size"


@dataclass(frozen=True)
class WitnessAnswer:
    """What a witness answers: HTTP's status, a text, and its type."""

    status: int
    text: str
    kind: str = _TEXT


@dataclass
class _Known:
    """A log that is watched: its keys, and the newest that was signed for it."""

    keys: tuple[VerifierKey, ...]
    newest: Checkpoint | None = None


def parse_logs(texts: Iterable[str]) -> dict[str, tuple[VerifierKey, ...]]:
    """Reads logs as `--log` names them: `KEY`, whose name is the log's, or `LOG=KEY`.

    Returns:
        Each log's keys.

    Raises:
        UsageError: one is none, or is a witness's.
    """
    found: dict[str, tuple[VerifierKey, ...]] = {}
    for text in texts:
        # A key of 32 bytes and its kind needs no `=` at its end.
        name, _, key_text = text.rpartition("=")
        key = VerifierKey.parse(key_text)
        if key.kind is not KeyKind.NOTE:
            raise UsageError("a witness's key, not a log's", where="--log", got=text, hint="Run: shipsight audit key")
        origin = name or key.name
        found[origin] = (*found.get(origin, ()), key)
    return found


class Witness:
    """Remembers the newest tree of each log, and signs what has grown out of it. Safe in several threads.

    Args:
        folder: where that is remembered; made where it is missing.
        signer: of the witness.
        logs: that it watches, by origin, each with its keys.
        now: tells the time, UTC.

    Raises:
        EnvironmentLackError: the folder cannot be used, or another process keeps it.
        AuditProofError: what is remembered there was changed.
        UsageError: the signer is no witness's.
    """

    def __init__(
        self,
        folder: Path,
        signer: Signer,
        logs: dict[str, tuple[VerifierKey, ...]],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if signer.key.kind is not KeyKind.COSIGNATURE:
            raise UsageError("not the key of a witness", got=signer.key.text)
        self._folder, self._signer, self._now = folder, signer, now
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise EnvironmentLackError(
                "the witness's folder cannot be used", where=folder, got=error.strerror
            ) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._logs = {origin: _Known(keys, self._recall(origin, keys)) for origin, keys in logs.items()}
        except BlockingIOError as error:
            os.close(self._handle)
            raise EnvironmentLackError("another process keeps this folder", where=folder) from error
        except BaseException:
            os.close(self._handle)
            raise

    @property
    def key(self) -> VerifierKey:
        """What its signatures are verified with."""
        return self._signer.key

    def newest(self, origin: str) -> WitnessAnswer:
        """Answers with the newest checkpoint that was signed for a log, signatures included."""
        known = self._logs.get(origin)
        newest = None if known is None else known.newest
        if newest is None:
            return WitnessAnswer(404, "nothing was signed for this log\n")
        return WitnessAnswer(200, newest.text)

    def add(self, body: bytes) -> WitnessAnswer:
        """Answers a request to sign: `old SIZE`, a proof, a blank line, a checkpoint.

        Raises:
            OSError: what was decided could not be written down, so it is not signed.
        """
        try:
            old, proof, text = _parse(body)
        except AuditProofError as error:
            return WitnessAnswer(400, f"{error}\n")
        origin = peek_origin(text)
        known = self._logs.get(origin)
        if known is None:
            return WitnessAnswer(404, "this log is not watched here\n")
        try:
            checkpoint = open_checkpoint(text, known.keys, origin=origin)
        except AuditProofError as error:
            _log.warning("a checkpoint was not accepted", extra=_fields(log=origin, error=str(error)))
            return WitnessAnswer(403, "no signature of this log's keys\n")
        if old > checkpoint.size:
            return WitnessAnswer(400, "the old size is larger than the checkpoint's\n")
        with self._lock:
            return self._decide(known, checkpoint, old, proof)

    def close(self) -> None:
        """Lets go of the folder."""
        os.close(self._handle)

    def _decide(self, known: _Known, checkpoint: Checkpoint, old: int, proof: Sequence[bytes]) -> WitnessAnswer:
        newest = known.newest
        size = 0 if newest is None else newest.size
        if newest is not None and size == checkpoint.size and not compare_digest(newest.root, checkpoint.root):
            self._keep_evidence(newest, checkpoint)
            return WitnessAnswer(409, f"{size}\n", _SIZE)
        if old != size:
            return WitnessAnswer(409, f"{size}\n", _SIZE)
        try:
            if newest is None or size == 0:
                if proof:
                    raise AuditProofError("nothing was signed before, so there is nothing to prove")
            else:
                verify_consistency(size, newest.root, checkpoint.size, checkpoint.root, proof)
        except AuditProofError as error:
            told = _fields(log=checkpoint.origin, error=str(error), signed=size, size=checkpoint.size)
            _log.warning("a log has not grown out of what was signed", extra=told)
            return WitnessAnswer(422, f"{error}\n")
        line = self._signer.sign_line(checkpoint.body, self._now())
        signed = open_checkpoint(checkpoint.text + line, [*known.keys, self.key])
        self._write(_name(checkpoint.origin), signed.text)
        known.newest = signed
        return WitnessAnswer(200, line)

    def _recall(self, origin: str, keys: Sequence[VerifierKey]) -> Checkpoint | None:
        path = self._folder / _name(origin)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise EnvironmentLackError("what was signed cannot be read", where=path, got=error) from error
        try:
            return open_checkpoint(text, [self.key, *keys], origin=origin, needs_log=False)
        except AuditProofError as error:
            raise AuditProofError("what this witness signed was changed", where=path, got=error.what) from error

    def _write(self, name: str, text: str) -> None:
        """Replaces a file of the folder, whole or not at all, and returns once the disk has it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(f".{name}.new", flags, 0o600, dir_fd=self._handle), "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(f".{name}.new", name, src_dir_fd=self._handle, dst_dir_fd=self._handle)
        os.fsync(self._handle)

    def _keep_evidence(self, signed: Checkpoint, other: Checkpoint) -> None:
        """Keeps two checkpoints of one size that cannot both be true, with the log's signatures under both."""
        pieces = hashlib.sha256(other.body.encode()).hexdigest()[:16]
        name = _name(signed.origin).replace(".checkpoint", f".split-{pieces}")
        told = _fields(log=signed.origin, size=signed.size, evidence=str(self._folder / name))
        _log.critical("a log shows two trees of one size: one of them was written anew", extra=told)
        kept = {one.name for one in self._folder.glob("*.split-*")}
        if name not in kept and len(kept) < _MOST_EVIDENCE:
            self._write(name, f"{signed.text}\n{other.text}\n")


def _parse(body: bytes) -> tuple[int, list[bytes], str]:
    """Returns the old size, the proof and the checkpoint of a request.

    Raises:
        AuditProofError: it is none.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise AuditProofError("not a request to sign", got="bytes that are no text") from error
    head, blank, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    old = _OLD.fullmatch(lines[0])
    if not blank or old is None or int(old[1]) >= 1 << 63 or len(lines) > 1 + _MOST_PROOF or not checkpoint:
        raise AuditProofError(
            "not a request to sign", expected="old SIZE, at most 63 hashes, a blank line, a checkpoint"
        )
    return int(old[1]), [decode_base64(one) for one in lines[1:]], checkpoint


def _name(origin: str) -> str:
    return f"{hashlib.sha256(origin.encode()).hexdigest()[:32]}.checkpoint"


def _fields(**told: object) -> dict[str, object]:
    return {"shipsight": told}
