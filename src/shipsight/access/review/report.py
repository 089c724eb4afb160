# SPDX-License-Identifier: Apache-2.0
"""A review's report: what was looked at, what was found, whether the log held. Its bytes are what is signed and signed off.

A report is kept as JSON, byte for byte; its digest is SHA-256 of these bytes (`sha256sum` gives it), and a signed note over the digest, by
the key that signs checkpoints, lies beside it. The note's first line is `shipsight review`, so that it is no checkpoint. Pure. Format:
`docs/security/audit-review.md`. Stable.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from shipsight.access.review.findings import Finding, Severity
from shipsight.errors import CorruptError

__all__ = ["Chain", "Report", "note_text"]

_FORMAT = "shipsight.review/1"


class _Found(Protocol):
    @property
    def code(self) -> str: ...
    @property
    def seq(self) -> int | None: ...
    @property
    def what(self) -> str: ...


class _Verified(Protocol):
    @property
    def status(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def covered(self) -> int: ...
    @property
    def findings(self) -> Sequence[_Found]: ...


@dataclass(frozen=True)
class Chain:
    """Whether the log is what was signed.

    Attributes:
        status: `ok`, `unverifiable tail` or `failed`; `not verified` where nobody looked.
        size: entries that there are.
        covered: entries that a checkpoint covers.
        findings: what is wrong, as code, sequence number and text.
    """

    status: str
    size: int
    covered: int
    findings: tuple[tuple[str, int | None, str], ...] = ()

    @classmethod
    def of(cls, verified: _Verified) -> Chain:
        """Returns what verifying the log told (`audit.verify`)."""
        found = tuple((one.code, one.seq, one.what) for one in verified.findings)
        return cls(str(verified.status), verified.size, verified.covered, found)


@dataclass(frozen=True)
class Report:
    """What a review found.

    Attributes:
        id: of the review, date and 8 hexadecimal digits.
        log: that was reviewed, as its checkpoints name it.
        made_at: when, UTC.
        made_by: who had it made.
        since: time of the first entry that was reviewed, UTC; None where there is none.
        until: time up to which, UTC.
        first_seq: first entry that was reviewed.
        next_seq: first one after.
        entries: how many were reviewed.
        actors: how many different actors they name.
        chain: whether the log held.
        findings: what should be looked at, the weightiest first; without notes.
        notes: what may be.
        left_out: findings and notes beyond the thousand that a report holds.
        kinds: how many entries of each kind.
        settings: that it was made with.
    """

    id: str
    log: str
    made_at: datetime
    made_by: str
    since: datetime | None
    until: datetime
    first_seq: int
    next_seq: int
    entries: int
    actors: int
    chain: Chain
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...] = ()
    left_out: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, int | float] = field(default_factory=dict)

    @property
    def whom(self) -> frozenset[str]:
        """Everybody whom a finding concerns: they do not sign it off."""
        return frozenset(name for one in self.findings for name in one.who)

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """Returns findings, or notes, of one severity."""
        return tuple(one for one in (*self.findings, *self.notes) if one.severity is severity)

    def to_dict(self) -> dict[str, Any]:
        """Returns it for machines, as its file holds it."""
        return {
            "format": _FORMAT,
            "id": self.id,
            "log": self.log,
            "made_at": self.made_at.isoformat(),
            "made_by": self.made_by,
            "since": None if self.since is None else self.since.isoformat(),
            "until": self.until.isoformat(),
            "first_seq": self.first_seq,
            "next_seq": self.next_seq,
            "entries": self.entries,
            "actors": self.actors,
            "chain": {
                "status": self.chain.status,
                "size": self.chain.size,
                "covered": self.chain.covered,
                "findings": [list(one) for one in self.chain.findings],
            },
            "findings": [one.to_dict() for one in self.findings],
            "notes": [one.to_dict() for one in self.notes],
            "left_out": self.left_out,
            "kinds": dict(self.kinds),
            "settings": dict(self.settings),
        }

    def to_bytes(self) -> bytes:
        """Returns the bytes of its file, the same for the same report."""
        return (json.dumps(self.to_dict(), sort_keys=True, indent=1) + "\n").encode("ascii")

    @property
    def digest(self) -> str:
        """SHA-256 of `to_bytes`, in hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @classmethod
    def from_bytes(cls, data: bytes) -> Report:
        """Reads what `to_bytes` returns.

        Raises:
            CorruptError: it is not that.
        """
        try:
            told = json.loads(data)
            if told["format"] != _FORMAT:
                raise CorruptError("a review of another format", expected=_FORMAT, got=repr(told["format"])[:80])
            report = cls._from_dict(told)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptError("not a report of a review", got=f"{type(error).__name__}: {error}"[:200]) from error
        if report.to_bytes() != data:
            raise CorruptError("not a report as it was written")
        return report

    @classmethod
    def _from_dict(cls, told: Mapping[str, Any]) -> Report:
        chain = told["chain"]
        return cls(
            id=told["id"],
            log=told["log"],
            made_at=datetime.fromisoformat(told["made_at"]),
            made_by=told["made_by"],
            since=None if told["since"] is None else datetime.fromisoformat(told["since"]),
            until=datetime.fromisoformat(told["until"]),
            first_seq=told["first_seq"],
            next_seq=told["next_seq"],
            entries=told["entries"],
            actors=told["actors"],
            chain=Chain(
                chain["status"], chain["size"], chain["covered"], tuple((a, b, c) for a, b, c in chain["findings"])
            ),
            findings=tuple(map(Finding.from_dict, told["findings"])),
            notes=tuple(map(Finding.from_dict, told["notes"])),
            left_out=told["left_out"],
            kinds=dict(told["kinds"]),
            settings=dict(told["settings"]),
        )


def note_text(report: Report) -> str:
    """Returns what is signed of a report: who reads it needs no more than `sha256sum` to check it."""
    return f"shipsight review\n{report.log}\n{report.id}\nsha256 {report.digest}\n"
