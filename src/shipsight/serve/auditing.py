# SPDX-License-Identifier: Apache-2.0
"""The audit log as the server's pages and protocols have it: the log, its reviews, and how verifying it went last.

Leaves to others: who may ask (`gate`), what is recorded (`access.audit`), what a review finds (`access.review`). Stable.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from shipsight.errors import AuditError, NotReadyError

if TYPE_CHECKING:
    # A quarter of a second of imports that a server without an audit log does not need.
    from shipsight.access.audit.checkpoint import Checkpoint
    from shipsight.access.audit.log import AuditLog
    from shipsight.access.audit.verify import Finding, Verification
    from shipsight.access.audit.witnesses import CopyState
    from shipsight.access.review import Report
    from shipsight.access.review.store import ReviewStore

__all__ = ["Audited", "Verified", "open_audited"]

_log = logging.getLogger("shipsight.serve")


@dataclass(frozen=True)
class Verified:
    """How verifying the log went.

    Attributes:
        at: when it began, UTC.
        took_s: seconds that it took.
        by: who had it verified, as entries tell actors.
        found: what it found.
        signed: entries under the checkpoint that was signed just before, None where none could be signed.
    """

    at: datetime
    took_s: float
    by: str
    found: Verification
    signed: int | None

    @property
    def status(self) -> str:
        """`ok`, `unverifiable tail` or `failed`.

        What was written after the checkpoint that was signed for this, while it went on, is no tail that could have been cut.
        """
        is_written_since = self.signed is not None and not self.found.found and self.found.covered >= self.signed
        return "ok" if is_written_since else str(self.found.status)

    @property
    def size(self) -> int:
        """Entries that there were."""
        return self.found.size

    @property
    def covered(self) -> int:
        """Entries under a checkpoint."""
        return self.found.covered

    @property
    def findings(self) -> Sequence[Finding]:
        """What is not as it was written."""
        return self.found.findings


class Audited:
    """An audit log that is being written, for those who may read it.

    Args:
        log: the log.
        reviews: opens its reviews, each time anew: keys change while a server runs.
        verify: verifies all of it, beside its being written; takes up to a minute for a million entries. It is given the checkpoint
            that was signed for it, and what it calls now and then, which raises where the server leaves.
        copies: tells how second places fare; None where there are none.
        now: tells the time, UTC.
    """

    def __init__(
        self,
        log: AuditLog,
        reviews: Callable[[], ReviewStore],
        *,
        verify: Callable[[Checkpoint | None, Callable[..., None]], Verification],
        copies: Callable[[], Sequence[CopyState]] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.log = log
        self.verified: Verified | None = None
        self.is_verifying = False
        self._reviews, self._verify, self._copies, self._now = reviews, verify, copies, now
        self._leaves = threading.Event()

    @property
    def reviews(self) -> ReviewStore:
        """Its reviews."""
        return self._reviews()

    def copies(self) -> tuple[CopyState, ...]:
        """Returns how second places fare."""
        return () if self._copies is None else tuple(self._copies())

    def verify(self, *, by: str) -> Verified:
        """Signs a checkpoint, verifies all of the log, and keeps how it went in `verified`.

        Args:
            by: who has it verified, as entries tell actors.

        Raises:
            EnvironmentLackError: the log cannot be read.
            NotReadyError: the server leaves.
        """
        at, begin_s = self._now(), time.monotonic()
        self.is_verifying = True
        try:
            signed = self._signed()
            found = self._verify(signed, self._go_on)
        finally:
            self.is_verifying = False
        size = None if signed is None else signed.size
        self.verified = Verified(at, time.monotonic() - begin_s, by, found, size)
        return self.verified

    def review(self, *, actor: str, since: datetime | None = None, until: datetime | None = None) -> Report:
        """Verifies the log and reviews it.

        Args:
            actor: who has it reviewed, as entries tell actors.
            since: first time that is reviewed, UTC; None for what was not signed off yet.
            until: time before which, UTC; None for all that there is.

        Raises:
            UsageError: the time ends before it begins, or there is nothing in it.
            EnvironmentLackError, AuditError: the log cannot be read, or the report cannot be kept.
        """
        from shipsight.access.review import Chain

        return self.reviews.make(
            actor=actor,
            verify=lambda: Chain.of(self.verify(by=actor)),
            since=since,
            until=until,
            progress=self._go_on,
        )

    def close(self) -> None:
        """Ends what walks through the log."""
        self._leaves.set()

    def _signed(self) -> Checkpoint | None:
        """Signs what is there, so that only what comes later is under no checkpoint."""
        try:
            return self.log.checkpoint()
        except AuditError as error:
            # What is there can be verified all the same; its end then counts as what it is, a tail.
            _log.warning("no checkpoint could be signed before the audit log was verified: %s", error)
            return None

    def _go_on(self, *progress: int) -> None:
        if self._leaves.is_set():
            raise NotReadyError("the server leaves")


def open_audited(
    log: AuditLog,
    key: Path,
    *,
    copies: Callable[[], Sequence[CopyState]] | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Audited:
    """Returns a log that is being written, for those who may read it.

    Args:
        log: the log.
        key: file of the key that signs it; reports of reviews lie beside it, in a folder of the same name that ends in `.reviews`.
        copies: tells how second places fare; None where there are none.
        now: tells the time, UTC.
    """

    def reviews() -> ReviewStore:
        from shipsight.access.audit.checkpoint import VerifierKey
        from shipsight.access.review.store import ReviewStore

        # Reports of before a rotation are signed by a key that the log names as one of its own.
        kept = [VerifierKey.parse(one.key) for one in log.reader.kept_keys()]
        folder = key.with_suffix(".reviews")
        return ReviewStore(log, folder, signer=log.signer, origin=log.origin, keys=[log.key, *kept], now=now)

    def verify_log(signed: Checkpoint | None, told: Callable[..., None]) -> Verification:
        from shipsight.access.audit.verify import verify

        return verify(log.reader, keys=[log.key], signed=signed, now=now, told=told)

    return Audited(log, reviews, verify=verify_log, copies=copies, now=now)
