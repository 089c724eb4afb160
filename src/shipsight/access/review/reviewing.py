# SPDX-License-Identifier: Apache-2.0
"""A review: all rules over all entries, the past first. Pure, and in memory that does not grow with the log. Stable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from shipsight.access.audit import Entry
from shipsight.access.events import EventKind
from shipsight.access.review.findings import Collector, Finding, Severity
from shipsight.access.review.known import Known
from shipsight.access.review.rule import Rule, Tell
from shipsight.access.review.rules import RULES
from shipsight.access.review.settings import ReviewSettings

__all__ = ["Reviewed", "Reviewer", "review"]

_MOST_ACTORS = 100_000
_CHAIN_ADVICE = (
    "Stop, and keep the log and its copies as they are. Verify with a copy of a checkpoint that lies elsewhere "
    "(`shipsight audit verify --witness`), and find out who could write to the database."
)
_TAIL_ADVICE = "Make a checkpoint (`shipsight audit checkpoint`), find out why none was made, and review anew."


class _Chain(Protocol):
    @property
    def status(self) -> str: ...
    @property
    def findings(self) -> tuple[tuple[str, int | None, str], ...]: ...
    @property
    def covered(self) -> int: ...
    @property
    def size(self) -> int: ...


@dataclass(frozen=True)
class Reviewed:
    """What a review found.

    Attributes:
        since: time of the first entry of the period, UTC; None where it has none.
        entries: of the period.
        actors: how many different ones, at most a hundred thousand are counted.
        findings: the weightiest first, without notes.
        notes: the rest.
        left_out: findings and notes that were too many.
        kinds: how many entries of each kind.
    """

    since: datetime | None
    entries: int
    actors: int
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    left_out: int
    kinds: Mapping[str, int]


class Reviewer:
    """Sees entries in order, and tells what stands out.

    After `made` it may go on with the next period, which begins where this one ended.

    Args:
        settings: of the rules.
        first_seq: first entry of the period; those before are the past.
    """

    def __init__(self, settings: ReviewSettings | None = None, *, first_seq: int = 0) -> None:
        self.settings = settings or ReviewSettings()
        self._known = Known(self.settings)
        self._collector = Collector()
        self._rules: tuple[Rule, ...] = tuple(rule(self.settings) for rule in RULES)
        self._by_kind = {
            kind: tuple(rule.see for rule in self._rules if not rule.kinds or kind in rule.kinds) for kind in EventKind
        }
        self._next_seq = first_seq
        self._since: datetime | None = None
        self._entries = 0
        self._actors: set[str] = set()
        self._kinds: Counter[EventKind] = Counter()
        self._begin(first_seq)

    def see(self, entry: Entry) -> None:
        """Looks at the next entry."""
        kind, known, tell = entry.event.kind, self._known, self._tell
        for see in self._by_kind[kind]:
            see(entry, known, tell)
        known.see(entry)
        if entry.seq >= self._next_seq:
            self._next_seq = entry.seq + 1
        if entry.seq >= self._first_seq:
            self._entries += 1
            self._kinds[kind] += 1
            if len(self._actors) < _MOST_ACTORS:
                self._actors.add(entry.event.actor)
            if self._since is None:
                self._since = entry.event.at

    def made(self, until: datetime, chain: _Chain | None = None) -> Reviewed:
        """Returns what stood out in the period, and begins the next one.

        Args:
            until: when the period ends, UTC.
            chain: whether the log held, None where nobody looked.
        """
        for rule in self._rules:
            rule.finish(until, self._known, self._tell)
        if chain is not None:
            _tell_chain(self._collector, chain)
        found = self._collector.findings()
        reviewed = Reviewed(
            since=self._since,
            entries=self._entries,
            actors=len(self._actors),
            findings=tuple(one for one in found if one.severity is not Severity.NOTE),
            notes=tuple(one for one in found if one.severity is Severity.NOTE),
            left_out=self._collector.left_out,
            kinds={kind.value: count for kind, count in sorted(self._kinds.items())},
        )
        self._collector.left_out = 0
        self._begin(self._next_seq)
        return reviewed

    def _begin(self, first_seq: int) -> None:
        self._first_seq = first_seq
        self._tell = Tell(self._collector, first_seq)
        self._since, self._entries, self._actors, self._kinds = None, 0, set(), Counter()


def review(
    entries: Iterable[Entry],
    *,
    first_seq: int = 0,
    until: datetime | None = None,
    settings: ReviewSettings | None = None,
) -> Reviewed:
    """Reviews entries in one go.

    Args:
        entries: in order; those before `first_seq` are the past.
        first_seq: first entry of the period.
        until: when it ends, UTC; the last entry's time for None.
        settings: of the rules.
    """
    reviewer, last = Reviewer(settings, first_seq=first_seq), datetime.min.replace(tzinfo=UTC)
    for entry in entries:
        reviewer.see(entry)
        last = max(last, entry.event.at)
    return reviewer.made(until or last)


def _tell_chain(collector: Collector, chain: _Chain) -> None:
    for code, seq, what in chain.findings:
        collector.add(
            "chain",
            f"{code}:{seq}",
            Severity.ALARM,
            what,
            (),
            advice=_CHAIN_ADVICE,
            code=code,
            seq=-1 if seq is None else seq,
        )
    if chain.status == "failed" and not chain.findings:
        collector.add("chain", "failed", Severity.ALARM, "the log is not what was signed", (), advice=_CHAIN_ADVICE)
    elif chain.status == "unverifiable tail":
        what = "the newest entries are under no checkpoint: whether some were cut off cannot be told"
        collector.add(
            "chain", "tail", Severity.WARNING, what, (), advice=_TAIL_ADVICE, uncovered=chain.size - chain.covered
        )
    elif chain.status == "not verified":
        what = "nobody verified the log before it was reviewed: what follows is believed, not proved"
        collector.add("chain", "unverified", Severity.NOTE, what, (), advice="Run: shipsight audit verify")
