# SPDX-License-Identifier: Apache-2.0
"""What receivers are told: one subject, and what began, goes on or has ended there. Pure. Stable: `docs/alerts.md` describes it.

Texts come from outside (a model's name, the figures of a test): each is one line here, and moves no cursor, header or mark of direction.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from shipsight.errors import CorruptError
from shipsight.monitor.alerts.settings import SEVERITIES
from shipsight.printable import printable

__all__ = ["Alert", "Message", "Reason", "finite", "make_message", "one_line", "trial_message"]

_MOST_LINE = 500
_MOST_NAME = 80


class Reason(StrEnum):
    """Why an alert is told."""

    NEW = "new"
    WORSE = "worse"
    AGAIN = "again"
    QUIET = "quiet"
    UNSEEN = "unseen"


_ENDS = (Reason.QUIET, Reason.UNSEEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert, as a message tells it.

    Attributes:
        name: of the signal.
        reason: `new`, `worse` (than was told), `again` (it still fires), or resolved: `quiet`, `unseen` (nobody looked at it any more).
        severity: `error`, `warning` or `note`.
        what: one line, like the next two.
        evidence: figures.
        remedy: what to do.
        value: that was measured, finite, like the next.
        threshold: that it is held against.
        since: when the signal began to fire, seconds since 1970, UTC.
    """

    name: str
    reason: Reason
    severity: str
    what: str
    evidence: str
    remedy: str
    value: float | None
    threshold: float | None
    since: float

    @property
    def is_resolved(self) -> bool:
        """Whether it has ended."""
        return self.reason in _ENDS

    def order(self) -> tuple[bool, int, str]:
        """Returns what alerts in a message are sorted by: what fires before what has ended, the worst first."""
        return self.is_resolved, -SEVERITIES.index(self.severity), self.name

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "name": self.name,
            "status": "resolved" if self.is_resolved else "firing",
            "reason": self.reason.value,
            "severity": self.severity,
            "what": self.what,
            "evidence": self.evidence,
            "remedy": self.remedy,
            "value": self.value,
            "threshold": self.threshold,
            "since": _written(self.since),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is sent to every receiver, the same each time that it is tried.

    Attributes:
        id: 32 hexadecimal digits; who has one with this id already may leave it.
        at: when it was made, seconds since 1970, UTC.
        subject: model/variant.
        bundle: digest of the bundle that is watched, None where nobody said.
        alerts: at least one, in order of weight.
        is_test: whether somebody only tries the way.
    """

    id: str
    at: float
    subject: str
    bundle: str | None
    alerts: tuple[Alert, ...]
    is_test: bool = False

    @property
    def title(self) -> str:
        """One short line."""
        first = self.alerts[0]
        more = f" and {len(self.alerts) - 1} more" if len(self.alerts) > 1 else ""
        kind = "test" if self.is_test else "resolved" if first.is_resolved else first.severity
        return f"[shipsight] {kind}: {one_line(first.name, _MOST_NAME)}{more} ({one_line(self.subject, _MOST_NAME)})"

    @property
    def text(self) -> str:
        """All of it for people: three lines an alert, then which model and when."""
        parts = []
        for one in self.alerts:
            status = "resolved" if one.is_resolved else f"{one.severity} since {_written(one.since)}"
            told = {Reason.AGAIN: ", still", Reason.WORSE: ", worse", Reason.UNSEEN: ": nobody looks at it any more"}
            parts += [
                f"{one_line(one.name, _MOST_NAME)}: {status}{told.get(one.reason, '')}",
                f"What:     {one.what}",
                f"Evidence: {one.evidence}",
                f"Do this:  {one.remedy}",
                "",
            ]
        bundle = [] if self.bundle is None else [f"Bundle:   {self.bundle}"]
        return "\n".join(
            [*parts, f"Model:    {self.subject}", *bundle, f"Time:     {_written(self.at)}", f"Message:  {self.id}", ""]
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the body of a webhook without its texts for people."""
        return {
            "schema": 1,
            "id": self.id,
            "at": _written(self.at),
            "test": self.is_test,
            "subject": self.subject,
            "bundle": self.bundle,
            "alerts": [one.to_dict() for one in self.alerts],
        }

    def to_state(self) -> dict[str, Any]:
        """Returns what `from_state` reads."""
        alerts = [{name: getattr(one, name) for name in Alert.__dataclass_fields__} for one in self.alerts]
        return {"id": self.id, "at": self.at, "subject": self.subject, "bundle": self.bundle, "alerts": alerts}

    @classmethod
    def from_state(cls, told: dict[str, Any]) -> Self:
        """Reads what `to_state` wrote.

        Raises:
            CorruptError: it is something else.
        """
        try:
            alerts = tuple(Alert(**{**one, "reason": Reason(one["reason"])}) for one in told["alerts"])
            message = cls(**{**told, "alerts": alerts})
            is_whole = bool(alerts) and bool(message.title) and bool(message.text)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CorruptError("not a message that waits", got=type(error).__name__) from error
        if not is_whole:
            raise CorruptError("not a message that waits", got="no alert")
        return message


def make_message(subject: str, alerts: Sequence[Alert], *, now: float, source: str, bundle: str | None) -> Message:
    """Makes a message. The same happening gives the same id; another state file gives another.

    Args:
        subject: model/variant.
        alerts: at least one, in any order.
        now: seconds since 1970, UTC.
        source: names the state file.
        bundle: digest of the bundle that is watched.
    """
    told = tuple(sorted(alerts, key=Alert.order))
    happening = json.dumps([source, subject, now, [[one.name, one.reason.value] for one in told]])
    name = hashlib.sha256(b"shipsight alert 1\n" + happening.encode()).hexdigest()[:32]
    shown = None if bundle is None else one_line(bundle, _MOST_LINE)
    return Message(id=name, at=now, subject=one_line(subject, _MOST_LINE), bundle=shown, alerts=told)


def trial_message(now: float, source: str) -> Message:
    """Returns a message that says that it is a test.

    Args:
        now: seconds since 1970, UTC.
        source: makes its id differ from that of others.
    """
    alert = Alert(
        name="test",
        reason=Reason.NEW,
        severity="note",
        what="Somebody tries whether alerts of shipsight arrive here.",
        evidence="None: no model was looked at.",
        remedy="Nothing.",
        value=None,
        threshold=None,
        since=now,
    )
    made = make_message("no model", [alert], now=now, source=source, bundle=None)
    return Message(id=made.id, at=now, subject=made.subject, bundle=None, alerts=made.alerts, is_test=True)


def one_line(text: str, most: int = _MOST_LINE) -> str:
    """Returns a text as one line, its runs of blanks as single ones, the rest as `printable` has it."""
    return printable(" ".join(text[: 4 * most].split()), most)


def _written(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def finite(value: float | None) -> float | None:
    """Returns a number that JSON has, None for another."""
    return None if value is None or not math.isfinite(value) else float(value)
