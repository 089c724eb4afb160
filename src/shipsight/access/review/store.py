# SPDX-License-Identifier: Apache-2.0
"""Reviews as they are made, kept, listed and signed off.

A report lies in a folder, as `ID.json` with a signed note `ID.note`; that it was made, with its digest, and who signed it off, are entries of
the log itself. So a report that is changed or exchanged is found, and one that was taken away is still known to have been. Invariants:
nothing is signed off that is not what was made; nobody signs off a review that concerns them. Leaves to others: who may review
(`permissions.Action.AUDIT_REVIEW`), verifying the log (passed in). Stable.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from shipsight.access.audit import Entry
from shipsight.access.audit.checkpoint import Signer, VerifierKey, open_note, sign_note
from shipsight.access.events import Event, EventKind, Outcome
from shipsight.access.review.due import Due, ReviewedLog, due
from shipsight.access.review.findings import shown
from shipsight.access.review.report import Chain, Report, note_text
from shipsight.access.review.reviewing import Reviewer
from shipsight.access.review.settings import ReviewSettings
from shipsight.errors import (
    AuditProofError,
    ConflictError,
    EnvironmentLackError,
    ForbiddenError,
    NotFoundError,
    UsageError,
)

__all__ = ["ReviewState", "ReviewStore", "SignOff"]

_ID = re.compile(r"[0-9]{8}-[0-9a-f]{8}", re.ASCII)
_LONGEST_NOTE = 2000


@dataclass(frozen=True)
class SignOff:
    """That somebody looked at a review.

    Attributes:
        who: as entries tell actors.
        at: when, UTC.
        note: what they wrote.
        seq: entry that tells of it.
    """

    who: str
    at: datetime
    note: str
    seq: int


@dataclass(frozen=True)
class ReviewState:
    """A review as the log knows it.

    Attributes:
        id: of it.
        made_at: when, UTC.
        made_by: who had it made.
        since: time of its first entry, UTC; None where there was none.
        until: time up to which it goes, UTC.
        first_seq: its first entry.
        next_seq: the first one after.
        findings: how many.
        notes: how many.
        chain: whether the log held, as `Chain.status`.
        digest: SHA-256 of the report.
        is_here: whether the report lies in the folder of this store.
        signed: who signed it off.
    """

    id: str
    made_at: datetime
    made_by: str
    since: datetime | None
    until: datetime
    first_seq: int
    next_seq: int
    findings: int
    notes: int
    chain: str
    digest: str
    is_here: bool
    signed: tuple[SignOff, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Returns it for machines, times in ISO 8601."""
        return {
            "id": self.id,
            "made_at": self.made_at.isoformat(),
            "made_by": self.made_by,
            "since": None if self.since is None else self.since.isoformat(),
            "until": self.until.isoformat(),
            "first_seq": self.first_seq,
            "next_seq": self.next_seq,
            "findings": self.findings,
            "notes": self.notes,
            "chain": self.chain,
            "digest": self.digest,
            "is_here": self.is_here,
            "signed": [
                {"who": one.who, "at": one.at.isoformat(), "note": one.note, "seq": one.seq} for one in self.signed
            ],
        }


class ReviewStore:
    """Makes and keeps reviews of one log.

    Args:
        log: that is reviewed.
        folder: of reports; made where there is none, for its owner alone.
        signer: signs reports; the key that signs checkpoints.
        origin: name of the log, as its checkpoints have it.
        keys: that reports are believed from; the signer's where none are given.
        now: tells the time, UTC.
        settings: of the rules.
    """

    def __init__(
        self,
        log: ReviewedLog,
        folder: Path,
        *,
        signer: Signer,
        origin: str,
        keys: Sequence[VerifierKey] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        settings: ReviewSettings | None = None,
    ) -> None:
        self._log, self._folder, self._signer, self._origin = log, folder, signer, origin
        self._keys = tuple(keys) or (signer.key,)
        self._now = now
        self.settings = settings or ReviewSettings()

    def make(
        self,
        *,
        actor: str,
        verify: Callable[[], Chain] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Report:
        """Reviews the log, keeps the report and tells of it in the log. Takes as long as reading half a year of entries.

        Args:
            actor: who has it made, as `Principal.told` says it.
            verify: verifies the log, before anything in it is believed; None leaves it out, and the report says so.
            since: first time that is reviewed, UTC; None for what was not signed off yet.
            until: time before which, UTC; None for all that there is.
            progress: takes how many entries were read, of how many.

        Raises:
            UsageError: the time ends before it begins, or there is nothing in it.
            EnvironmentLackError: the report cannot be kept.
            AuditError: the log cannot tell of it; then it is not kept either.
        """
        now = self._now()
        if since is not None and until is not None and since >= until:
            raise UsageError("a review ends after it begins", where="until", got=until.isoformat())
        chain = Chain("not verified", self._log.size, 0) if verify is None else verify()
        first, after = self._span(since, until, now)
        reviewer = Reviewer(self.settings, first_seq=first)
        begin = self._begin(first)
        for number, entry in enumerate(self._log.entries(first=begin, last=after - 1)):
            reviewer.see(entry)
            if progress is not None and number % 10_000 == 0:
                progress(number, after - begin)
        made = reviewer.made(until or now, chain)
        report = Report(
            id=f"{now:%Y%m%d}-{secrets.token_hex(4)}",
            log=self._origin,
            made_at=now,
            made_by=actor,
            since=made.since,
            until=until or now,
            first_seq=first,
            next_seq=after,
            entries=made.entries,
            actors=made.actors,
            chain=chain,
            findings=made.findings,
            notes=made.notes,
            left_out=made.left_out,
            kinds=made.kinds,
            settings=asdict(self.settings),
        )
        self._keep(report)
        return report

    def list(self) -> list[ReviewState]:
        """Returns all reviews that the log tells of, the newest first."""
        signed: dict[str, list[SignOff]] = {}
        for entry in self._log.entries(kinds=(EventKind.REVIEW_SIGNED,)):
            event = entry.event
            note = str(event.details.get("note", ""))
            told = SignOff(event.actor, event.at, note, entry.seq)
            signed.setdefault(_id_of(entry), []).append(told)
        made = [
            self._state(entry, tuple(signed.get(_id_of(entry), ())))
            for entry in self._log.entries(kinds=(EventKind.REVIEW_MADE,))
            if "digest" in entry.event.details
        ]
        return made[::-1]

    def state(self, review_id: str) -> ReviewState:
        """Returns one review as the log knows it.

        Raises:
            NotFoundError: there is none of that id.
        """
        for one in self.list():
            if one.id == review_id:
                return one
        raise NotFoundError("no such review", got=shown(review_id, 80), hint="Run: shipsight audit review --list")

    def get(self, review_id: str) -> Report:
        """Returns a report that is what the log says was made, and is signed.

        Raises:
            NotFoundError: there is none of that id, or its report lies on another machine.
            AuditProofError: it is not what was made, or the signature is not one of ours.
            CorruptError: it is no report.
        """
        state = self.state(review_id)
        data, note = self._read(state, "json"), self._read(state, "note")
        report = Report.from_bytes(data)
        if report.digest != state.digest or report.id != state.id:
            raise AuditProofError(
                "a report is not what the log says was made", where=state.id, expected=state.digest, got=report.digest
            )
        if open_note(note.decode("utf-8", "replace"), self._keys).text != note_text(report):
            raise AuditProofError("the signature is of another report", where=state.id)
        return report

    def note(self, review_id: str) -> str:
        """Returns the signed note of a report, as `get` verifies it.

        Raises:
            NotFoundError, AuditProofError, CorruptError: as `get`.
        """
        self.get(review_id)
        return self._read(self.state(review_id), "note").decode()

    def html(self, review_id: str) -> str:
        """Returns a report as a page of its own, with who signed it off.

        Raises:
            NotFoundError, AuditProofError, CorruptError: as `get`.
        """
        from shipsight.access.review.page import make_page

        return make_page(self.get(review_id), self.state(review_id).signed)

    def sign_off(self, review_id: str, *, actor: str, note: str) -> ReviewState:
        """Keeps that somebody looked at a review, and what they say of it.

        Args:
            review_id: which.
            actor: who, as `Principal.told` says it.
            note: what they found of it, 1 to 2000 characters.

        Raises:
            ForbiddenError: a finding concerns them.
            ConflictError: they signed it off already.
            UsageError: the note does not fit.
            NotFoundError, AuditProofError, CorruptError: as `get`.
            AuditError: the log cannot tell of it.
        """
        text = note.strip()
        if not 0 < len(text) <= _LONGEST_NOTE or not all(one.isprintable() or one == "\n" for one in text):
            raise UsageError(
                "a sign-off says what was looked at", where="note", expected=f"1 to {_LONGEST_NOTE} characters"
            )
        report, state = self.get(review_id), self.state(review_id)
        if actor in report.whom:
            raise ForbiddenError(
                "whom a finding concerns does not sign it off",
                where=review_id,
                got=actor,
                hint="Let another auditor look at it.",
            )
        if any(one.who == actor for one in state.signed):
            raise ConflictError("you signed this review off already", where=review_id)
        details: dict[str, str | int] = {
            "digest": report.digest,
            "note": text,
            "first_seq": report.first_seq,
            "next_seq": report.next_seq,
            "until": report.until.isoformat(),
        }
        self._log.record(
            Event(
                self._now(),
                EventKind.REVIEW_SIGNED,
                Outcome.DONE,
                actor,
                subject=f"review:{review_id}",
                details=details,
            )
        )
        return self.state(review_id)

    def due(self) -> Due:
        """Returns when the next review is due."""
        return due(self._log, self._now(), self.settings)

    def _span(self, since: datetime | None, until: datetime | None, now: datetime) -> tuple[int, int]:
        """Returns the first entry that is reviewed, and the first one after.

        By number, not by time, where no time is given: a clock that was set back hides nothing.
        """
        first = due(self._log, now, self.settings).next_seq if since is None else self._seq_at(since)
        after = self._log.size if until is None else self._seq_at(until)
        if first >= after:
            raise UsageError("there is nothing to review", where="since" if since else None, got=f"{after} entries")
        return first, after

    def _seq_at(self, at: datetime) -> int:
        found = next(iter(self._log.entries(since=at, limit=1)), None)
        return self._log.size if found is None else found.seq

    def _begin(self, first: int) -> int:
        """Returns the entry from which the past is read that tells what is usual."""
        entry = next(iter(self._log.entries(first=first, limit=1)), None)
        if entry is None:
            return first
        return min(first, self._seq_at(entry.event.at - timedelta(days=self.settings.history_days)))

    def _keep(self, report: Report) -> None:
        note = sign_note(note_text(report), self._signer)
        self._write(f"{report.id}.json", report.to_bytes())
        self._write(f"{report.id}.note", note.encode())
        details: dict[str, str | int | None] = {
            "digest": report.digest,
            "since": None if report.since is None else report.since.isoformat(),
            "until": report.until.isoformat(),
            "first_seq": report.first_seq,
            "next_seq": report.next_seq,
            "findings": len(report.findings),
            "notes": len(report.notes),
            "chain": report.chain.status,
        }
        subject = f"review:{report.id}"
        try:
            self._log.record(
                Event(
                    report.made_at,
                    EventKind.REVIEW_MADE,
                    Outcome.DONE,
                    report.made_by,
                    subject=subject,
                    details=details,
                )
            )
        except BaseException:
            for kind in ("json", "note"):
                (self._folder / f"{report.id}.{kind}").unlink(missing_ok=True)
            raise

    def _write(self, name: str, data: bytes) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EnvironmentLackError(
                "the report cannot be kept", where=self._folder / name, got=error.strerror
            ) from error

    def _read(self, state: ReviewState, kind: str) -> bytes:
        path = self._folder / f"{state.id}.{kind}"
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            hint = f"Copy it from where it was made; its digest is {state.digest}."
            raise NotFoundError("the report is not here", where=path, hint=hint) from error
        except OSError as error:
            raise EnvironmentLackError("the report cannot be read", where=path, got=error.strerror) from error

    def _state(self, entry: Entry, signed: tuple[SignOff, ...]) -> ReviewState:
        event, told = entry.event, dict(entry.event.details)
        review_id = _id_of(entry)
        since = told.get("since")
        return ReviewState(
            id=review_id,
            made_at=event.at,
            made_by=event.actor,
            since=None if since is None else datetime.fromisoformat(str(since)),
            until=datetime.fromisoformat(str(told["until"])),
            first_seq=_number(told, "first_seq"),
            next_seq=_number(told, "next_seq"),
            findings=_number(told, "findings"),
            notes=_number(told, "notes"),
            chain=str(told["chain"]),
            digest=str(told["digest"]),
            is_here=bool(_ID.fullmatch(review_id)) and (self._folder / f"{review_id}.json").is_file(),
            signed=signed,
        )


def _id_of(entry: Entry) -> str:
    return (entry.event.subject or "").removeprefix("review:")


def _number(told: dict[str, Any], name: str) -> int:
    value = told.get(name)
    return value if isinstance(value, int) else 0
