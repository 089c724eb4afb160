# SPDX-License-Identifier: Apache-2.0
"""What a verification of the audit log says. Stable."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

__all__ = ["MOST_FINDINGS", "Finding", "Status", "Verification"]

MOST_FINDINGS = 100
"""Kept of each kind; more are counted."""


class Status(StrEnum):
    """How it ended."""

    OK = "ok"
    TAIL = "unverifiable tail"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was written, or worth knowing.

    Attributes:
        code: of its kind, stable (`docs/security/audit.md`).
        seq: entry concerned, None where it is the whole log.
        what: in words.
    """

    code: str
    seq: int | None
    what: str


@dataclass
class Verification:
    """What was found.

    Attributes:
        origin: which log.
        first: first entry that was read.
        size: number after the last entry that was read.
        covered: entries before this number lie under a checkpoint that a trusted key has signed.
        covered_at: when that was signed, UTC.
        archives: files that were read, with `first` and `size` of each.
        findings: what is not as it was written; at most 100.
        found: how many there are.
        notes: what is worth knowing and breaks nothing; at most 100.
        tail: why the end of the log cannot be verified, None where it can.
    """

    origin: str = ""
    first: int = 0
    size: int = 0
    covered: int = 0
    covered_at: datetime | None = None
    archives: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    found: int = 0
    notes: list[Finding] = field(default_factory=list)
    tail: str | None = None

    @property
    def status(self) -> Status:
        """What to make of it."""
        if self.found:
            return Status.FAILED
        return Status.OK if self.tail is None else Status.TAIL

    @property
    def is_ok(self) -> bool:
        """Whether all entries are as they were written, and none is missing."""
        return self.status is Status.OK

    def find(self, code: str, seq: int | None, what: str) -> None:
        """Adds a finding."""
        self.found += 1
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(code, seq, what))

    def note(self, code: str, seq: int | None, what: str) -> None:
        """Adds a note."""
        if len(self.notes) < MOST_FINDINGS:
            self.notes.append(Finding(code, seq, what))

    def to_dict(self) -> dict[str, Any]:
        """Returns it for machines."""
        return {
            "status": self.status.value,
            "log": self.origin,
            "first": self.first,
            "size": self.size,
            "covered": self.covered,
            "covered_at": None if self.covered_at is None else self.covered_at.isoformat(),
            "tail": self.size - self.covered,
            "tail_why": self.tail,
            "archives": self.archives,
            "found": self.found,
            "findings": [vars(one) for one in self.findings],
            "notes": [vars(one) for one in self.notes],
        }
