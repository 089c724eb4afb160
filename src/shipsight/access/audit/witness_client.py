# SPDX-License-Identifier: Apache-2.0
"""A witness as the log's server sees it: gives it the newest checkpoint with a proof, and takes its signature.

A witness remembers the largest tree of each log that it has signed, and signs only what that tree has grown into: a log that
was cut, or written anew, gets no signature, whoever holds its key. Leaves to others: when to ask (`witnesses`), the
witness itself (`witness`). Invariants: an answer is believed for its signature alone; nothing is followed elsewhere;
every exchange ends in time. Stable. Sources: C2SP tlog-witness; `docs/protocols/witness.md`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from shipsight.access.audit.checkpoint import Checkpoint, VerifierKey, add_signatures, open_checkpoint
from shipsight.access.audit.copies import Consistency
from shipsight.access.audit.merkle import verify_consistency
from shipsight.access.audit.notes import KeyKind
from shipsight.access.exchange import ask_http, is_loopback
from shipsight.errors import AuditProofError, ServiceError, UsageError

__all__ = ["WitnessCopy", "WitnessPlace", "fetch_checkpoint"]

_MOST_BYTES = 64 * 1024
_ROUNDS = 4
_OK, _NOT_FOUND, _CONFLICT = 200, 404, 409
_REFUSALS = frozenset({403, 422})
_SIZE = re.compile(r"(0|[1-9][0-9]{0,18})\n", re.ASCII)
_SIZE_TYPE = "text/x.tlog.size"


@dataclass(frozen=True)
class WitnessPlace:
    """Where a witness is, and how it is known.

    Attributes:
        url: before `/add-checkpoint`; without its key.
        key: that it signs with.
        ca: authorities that sign for its TLS, in PEM; None for the system's.
    """

    url: str
    key: VerifierKey
    ca: Path | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.username is not None or parts.port == 0:
            raise UsageError("not the address of a witness", got=self.url, expected="https://host[:port][/path]")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise UsageError("a witness on another machine is asked over TLS", got=self.url, expected="https://")
        if self.key.kind is not KeyKind.COSIGNATURE:
            raise UsageError("not the key of a witness", got=self.key.text, hint="Run there: shipsight audit witness")

    @classmethod
    def parse(cls, text: str) -> WitnessPlace:
        """Reads `https://host[:port][/path][?ca=FILE]#KEY`, the key as the witness prints it.

        Raises:
            UsageError: it is none.
        """
        address, _, key = text.partition("#")
        parts = urlsplit(address)
        known = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        if not key:
            raise UsageError("a witness is known by its key", got=text, expected="https://host/#KEY")
        if known.keys() - {"ca"} or any(len(one) != 1 for one in known.values()):
            raise UsageError("not the address of a witness", got=text, expected="https://host/?ca=FILE#KEY")
        ca = known.get("ca", [None])[0]
        url = parts._replace(query="").geturl().rstrip("/")
        return cls(url, VerifierKey.parse(unquote(key)), None if ca is None else Path(ca))


class WitnessCopy:
    """Asks a witness to sign.

    Args:
        place: where it is.
        consistency: proves that the log has only grown.
        timeout_s: longest that one exchange takes, from the first byte to the last.
    """

    def __init__(self, place: WitnessPlace, consistency: Consistency, *, timeout_s: float = 10.0) -> None:
        self._place, self._consistency, self._timeout_s = place, consistency, timeout_s
        self._known = 0  # size of the newest that it signed, as far as is known here

    def deliver(self, checkpoint: Checkpoint) -> Checkpoint:
        """Has a checkpoint signed.

        Raises:
            AuditProofError: the witness knows another log under this name, or a longer one than this, or another key
                of it: it has been cut, written anew, or is shown in two ways.
            ServiceError: the witness answers something else, or does not watch this log.
            OSError: it does not answer.
        """
        known = self._known if self._known <= checkpoint.size else 0
        for _ in range(_ROUNDS):
            status, text = self._ask(_request(checkpoint, known, self._proof(known, checkpoint.size)))
            if status == _OK:
                signed = self._signed_by(checkpoint, text)
                self._known = checkpoint.size
                return signed
            if status != _CONFLICT:
                raise self._refusal(status, text)
            told = _SIZE.fullmatch(text)
            if told is None:
                raise ServiceError("a witness answers with something else", where=self._place.url, got=text[:100])
            size = int(told[1])
            if size > checkpoint.size:
                self._compare_newer(checkpoint, size)
                return checkpoint
            if size == known == checkpoint.size:
                raise AuditProofError(
                    "the witness knows another log of this name and length",
                    where=self._place.url,
                    got=f"{size} entries",
                    hint="Compare both: shipsight audit verify --witness",
                )
            known = size
        raise ServiceError("a witness names another size each time", where=self._place.url)

    def close(self) -> None:
        """Holds nothing."""

    def _ask(self, body: bytes) -> tuple[int, str]:
        return _exchange(self._place, "POST", "/add-checkpoint", body, self._timeout_s)

    def _proof(self, known: int, size: int) -> list[bytes]:
        try:
            return self._consistency(known, size) if known else []
        except AuditProofError as error:
            # A checkpoint of this log covers them: they are there, but not here.
            raise ServiceError("what a witness wants proved lies in an archive", got=f"{known} entries") from error

    def _signed_by(self, checkpoint: Checkpoint, text: str) -> Checkpoint:
        try:
            return add_signatures(checkpoint, text, [self._place.key])
        except AuditProofError as error:  # says something of the witness, nothing of the log
            raise ServiceError("a witness's signature is not its own", where=self._place.url, got=error) from error

    def _compare_newer(self, checkpoint: Checkpoint, size: int) -> None:
        """Finds out whether the witness is ahead since another server of this log has been there, or since this log was cut."""
        try:
            newest = fetch_checkpoint(self._place, checkpoint.origin, (), timeout_s=self._timeout_s)
        except AuditProofError as error:  # as above
            raise ServiceError("a witness shows what it has not signed", where=self._place.url, got=error) from error
        if newest is None or newest.size < size:
            raise ServiceError("a witness contradicts itself", where=self._place.url)
        try:
            proof = self._consistency(checkpoint.size, newest.size) if checkpoint.size else []
        except AuditProofError as error:
            raise AuditProofError(
                "the witness knows more entries than this log has", where=self._place.url, got=f"{newest.size} entries"
            ) from error
        if checkpoint.size:
            verify_consistency(checkpoint.size, checkpoint.root, newest.size, newest.root, proof)
        self._known = newest.size

    def _refusal(self, status: int, text: str) -> AuditProofError | ServiceError:
        got = f"{status}: {text[:200].strip()}"
        if status in _REFUSALS:
            return AuditProofError("the witness refuses this log", where=self._place.url, got=got)
        return ServiceError("the witness cannot sign now", where=self._place.url, got=got)


def fetch_checkpoint(
    place: WitnessPlace, origin: str, keys: Sequence[VerifierKey], *, timeout_s: float = 10.0
) -> Checkpoint | None:
    """Returns the newest checkpoint that a witness has signed for a log, verified; None where it has signed none.

    Args:
        place: of the witness.
        origin: which log.
        keys: of the log; where none are given, the witness's own signature does.
        timeout_s: longest that it takes.

    Raises:
        AuditProofError: a signature is wrong, or the checkpoint is of another log.
        ServiceError: the witness answers something else.
        OSError: it does not answer.
    """
    status, text = _exchange(place, "GET", f"/checkpoint?origin={quote(origin, safe='')}", None, timeout_s)
    if status == _NOT_FOUND:
        return None
    if status != _OK:
        raise ServiceError("a witness answers with something else", where=place.url, got=f"{status}: {text[:200]}")
    checkpoint = open_checkpoint(text, [place.key, *keys], origin=origin, needs_log=bool(keys))
    if not checkpoint.cosignatures:
        raise AuditProofError("a witness gives what it has not signed", where=place.url)
    return checkpoint


def _request(checkpoint: Checkpoint, known: int, proof: Sequence[bytes]) -> bytes:
    lines = [f"old {known}", *(base64.b64encode(one).decode() for one in proof), "", checkpoint.text]
    return "\n".join(lines).encode()


def _exchange(place: WitnessPlace, method: str, path: str, body: bytes | None, timeout_s: float) -> tuple[int, str]:
    """Returns status and text of an answer; a size is told by its status and type."""
    answer = ask_http(
        place.url.rstrip("/") + path,
        method,
        body=body,
        headers={"Content-Type": "text/plain; charset=utf-8"} if body is not None else {},
        ca=place.ca,
        timeout_s=timeout_s,
        most_bytes=_MOST_BYTES,
        name=place.url,
    )
    if len(answer.body) > _MOST_BYTES:
        raise ServiceError("a witness answers too much", where=place.url, expected=f"{_MOST_BYTES} bytes")
    text = answer.body.decode("utf-8", "backslashreplace")
    if answer.status == _CONFLICT and answer.headers.get_content_type() != _SIZE_TYPE:
        raise ServiceError("a witness answers with something else", where=place.url, got=text[:100])
    return answer.status, text
