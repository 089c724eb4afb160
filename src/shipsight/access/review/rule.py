# SPDX-License-Identifier: Apache-2.0
"""What a rule is: it sees every entry in order, with what was known before it, and tells what stands out.

Rules are pure: entries in, findings out. They see the past of a period, too, to know what is usual; what they tell of it is dropped, unless an
entry of the period is among the evidence. Memory is bounded by the number of accounts, not by that of entries. Private to the room.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime
from typing import ClassVar

from shipsight.access.audit import Entry
from shipsight.access.events import EventKind
from shipsight.access.review.findings import Collector, Severity
from shipsight.access.review.known import Known
from shipsight.access.review.settings import ReviewSettings

__all__ = ["Rule", "Tell"]


class Tell:
    """Takes what rules tell.

    Args:
        collector: makes findings of it.
        first_seq: first entry of the period.
    """

    def __init__(self, collector: Collector, first_seq: int) -> None:
        self._collector, self._first_seq = collector, first_seq

    def __call__(
        self,
        rule: Rule,
        key: str,
        severity: Severity,
        what: str,
        evidence: Iterable[Entry],
        *,
        who: Iterable[str | None] = (),
        is_now: bool = False,
        **numbers: int | str,
    ) -> None:
        """Takes one matter, as `Collector.add`; dropped where all evidence is of the past, unless what it tells of still goes on."""
        entries = list(evidence)
        if not is_now and max((one.seq for one in entries), default=-1) < self._first_seq:
            return
        self._collector.add(rule.code, key, severity, what, entries, who=who, advice=rule.advice, **numbers)


class Rule(ABC):
    """One rule. Its docstring says what it finds.

    Attributes:
        code: of it, stable.
        title: a few words.
        why: why that is worth a look.
        advice: what to do.
        kinds: of entries that it sees; empty for all.
    """

    code: ClassVar[str]
    title: ClassVar[str]
    why: ClassVar[str]
    advice: ClassVar[str]
    kinds: ClassVar[frozenset[EventKind]] = frozenset()

    def __init__(self, settings: ReviewSettings) -> None:
        self.settings = settings

    @abstractmethod
    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Looks at the next entry.

        Args:
            entry: it.
            known: what was known before it.
            tell: takes what stands out.
        """

    def finish(self, at: datetime, known: Known, tell: Tell) -> None:  # noqa: B027 - most rules tell nothing of it
        """Looks at what did not happen.

        Args:
            at: when the period ends, UTC.
            known: what is known then.
            tell: takes what stands out.
        """
