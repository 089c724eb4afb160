# SPDX-License-Identifier: Apache-2.0
"""What a review found: findings with their evidence, and how evidence of one matter comes together to one finding. Stable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from shipsight.access.audit import Entry

__all__ = ["MOST_SEQS", "Collector", "Finding", "Severity"]

MOST_SEQS = 20
"""Entries that a finding names; how many there were is told beside."""
_MOST_NAMES = 20
_MOST_FINDINGS = 1000
_MOST_TEXT = 200


class Severity(StrEnum):
    """How much a finding weighs."""

    NOTE = "note"
    WARNING = "warning"
    ALARM = "alarm"

    @property
    def weight(self) -> int:
        """Larger weighs more."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class Finding:
    """Something that a reviewer should look at, or, as a note, may.

    Attributes:
        id: of the finding, the same each time that the same entries are reviewed.
        rule: that found it (`rules.RULES`).
        severity: a note is no finding: it is rare, but mostly harmless.
        what: one sentence.
        who: actors and subjects that it concerns, as entries tell them; they do not sign it off.
        first_at: time of the first entry that it stands on, UTC; None where it stands on none.
        last_at: that of the last.
        seqs: entries that it stands on, at most `MOST_SEQS`: the first ones and the last.
        count: how many entries there are.
        numbers: what was measured, by name.
        advice: what to do.
    """

    id: str
    rule: str
    severity: Severity
    what: str
    who: tuple[str, ...]
    first_at: datetime | None
    last_at: datetime | None
    seqs: tuple[int, ...]
    count: int
    numbers: Mapping[str, int | str] = field(default_factory=dict)
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns it for machines, times in ISO 8601."""
        return {
            "id": self.id,
            "rule": self.rule,
            "severity": self.severity.value,
            "what": self.what,
            "who": list(self.who),
            "first_at": None if self.first_at is None else self.first_at.isoformat(),
            "last_at": None if self.last_at is None else self.last_at.isoformat(),
            "seqs": list(self.seqs),
            "count": self.count,
            "numbers": dict(self.numbers),
            "advice": self.advice,
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Finding:
        """Reads what `to_dict` returns."""
        first, last = told["first_at"], told["last_at"]
        return cls(
            id=told["id"],
            rule=told["rule"],
            severity=Severity(told["severity"]),
            what=told["what"],
            who=tuple(told["who"]),
            first_at=None if first is None else datetime.fromisoformat(first),
            last_at=None if last is None else datetime.fromisoformat(last),
            seqs=tuple(told["seqs"]),
            count=told["count"],
            numbers=dict(told["numbers"]),
            advice=told["advice"],
        )


@dataclass
class _Draft:
    """A finding that may still grow."""

    rule: str
    key: str
    severity: Severity
    what: str
    advice: str
    who: dict[str, None] = field(default_factory=dict)
    head: list[tuple[int, datetime]] = field(default_factory=list)
    tail: list[tuple[int, datetime]] = field(default_factory=list)
    numbers: dict[str, int | str] = field(default_factory=dict)
    count: int = 0
    newest: int = -1
    first_at: datetime | None = None
    last_at: datetime | None = None

    def add(self, evidence: Iterable[Entry]) -> None:
        for entry in sorted(evidence, key=lambda one: one.seq):
            if entry.seq <= self.newest:
                continue
            self.newest = entry.seq
            self.count += 1
            at = entry.event.at
            self.first_at = at if self.first_at is None else min(self.first_at, at)
            self.last_at = at if self.last_at is None else max(self.last_at, at)
            half = self.head if len(self.head) < MOST_SEQS // 2 else self.tail
            half.append((entry.seq, at))
            del self.tail[: -MOST_SEQS // 2]

    def made(self) -> Finding:
        seqs = tuple(seq for seq, _ in (*self.head, *self.tail))
        anchor = f"{self.rule}\n{self.key}\n{seqs[0] if seqs else ''}"
        return Finding(
            id=hashlib.sha256(anchor.encode("utf-8", "backslashreplace")).hexdigest()[:12],
            rule=self.rule,
            severity=self.severity,
            what=self.what,
            who=tuple(self.who),
            first_at=self.first_at,
            last_at=self.last_at,
            seqs=seqs,
            count=max(self.count, len(seqs)),
            numbers=dict(self.numbers),
            advice=self.advice,
        )


class Collector:
    """Takes what rules tell, and makes one finding of what one rule tells of one matter.

    Bounded: after a thousand matters of a period further ones are counted (`left_out`), those of least weight first.
    """

    def __init__(self) -> None:
        self._drafts: dict[tuple[str, str], _Draft] = {}
        self.left_out = 0

    def add(
        self,
        rule: str,
        key: str,
        severity: Severity,
        what: str,
        evidence: Iterable[Entry],
        *,
        who: Iterable[str | None] = (),
        advice: str = "",
        **numbers: int | str,
    ) -> None:
        """Takes something.

        Args:
            rule: that tells it.
            key: of the matter: what is told under one key becomes one finding, of the greatest severity that was told, with the
                text that was told with it last.
            severity: how much it weighs.
            what: one sentence.
            evidence: entries that it stands on.
            who: whom it concerns; None is left out.
            advice: what to do.
            numbers: what was measured.
        """
        draft = self._drafts.get((rule, key))
        if draft is None:
            if len(self._drafts) >= _MOST_FINDINGS and not self._made_room(severity):
                self.left_out += 1
                return
            draft = self._drafts[rule, key] = _Draft(rule, key, severity, what, advice)
        if severity.weight >= draft.severity.weight:
            draft.severity, draft.what, draft.advice = severity, shown(what, 4 * _MOST_TEXT), advice
            draft.numbers.update(numbers)
        draft.add(evidence)
        for one in who:
            if one is not None and len(draft.who) < _MOST_NAMES:
                draft.who.setdefault(one[:_MOST_TEXT])

    def findings(self) -> list[Finding]:
        """Returns what came together, the weightiest first, and empties this."""
        made = [one.made() for one in self._drafts.values()]
        self._drafts.clear()
        return sorted(made, key=lambda one: (-one.severity.weight, one.seqs[:1], one.rule, one.id))

    def _made_room(self, severity: Severity) -> bool:
        lighter = [key for key, one in self._drafts.items() if one.severity.weight < severity.weight]
        if not lighter:
            return False
        del self._drafts[min(lighter, key=lambda key: self._drafts[key].severity.weight)]
        self.left_out += 1
        return True


def shown(text: str, longest: int = _MOST_TEXT) -> str:
    """Returns a text that came from outside as it may stand in a sentence: cut, and nothing in it moves a terminal's cursor."""
    safe = "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text[:longest])
    return safe if len(text) <= longest else f"{safe}..."
