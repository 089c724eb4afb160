# SPDX-License-Identifier: Apache-2.0
"""What is recorded, for whoever has to answer for it: what is kept, what for, where, how long, who may look and who did, what leaves.

A record of processing in the sense of GDPR, article 30, as far as a machine can know it; what it does not know it says. As JSON, or as one
page that needs nothing else. Opens no recording. Leaves to others: reading rights and the audit log (the command line hands both in). Stable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from typing import Any

from shipsight.access import Action, Event, EventKind, EventSink, Outcome, Principal
from shipsight.monitor.recording.erasing import SUBJECT
from shipsight.monitor.recording.policy import ImageForm, Leaves, Mode, Policy
from shipsight.monitor.recording.store import Store

__all__ = ["AUDITED_KINDS", "Inventory", "Reader", "make_page", "take_inventory"]

AUDITED_KINDS = (
    EventKind.DATA_READ,
    EventKind.EXPORTED,
    EventKind.RECORDINGS_ERASED,
    EventKind.RECORDINGS_CHANGED,
)
"""Kinds of events that tell what was done to recordings; those among them that are about `recordings`."""
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #666; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --soft: #aaa; --bad: #ff8a80; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; } p { margin: .3rem 0; } .soft { color: var(--soft); }
.bad { color: var(--bad); font-weight: 600; } dl { display: grid; grid-template-columns: 14rem 1fr; gap: .25rem 1rem; } dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid var(--line); overflow-wrap: break-word; }
@media (max-width: 36rem) { dl { grid-template-columns: 1fr; } }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Reader:
    """Who may do something with recordings.

    Attributes:
        who: as entries tell actors, or `group:...`.
        models: patterns of names of models that they may look at recordings of.
        may: actions beside `recordings.read`, in order.
    """

    who: str
    models: tuple[str, ...]
    may: tuple[str, ...]


@dataclass(frozen=True)
class Inventory:
    """What is recorded.

    Attributes:
        made_at: when this was put together, UTC.
        made_by: who did.
        folder: where recordings lie.
        region: label of that place, None where it carries none.
        policy: that holds.
        since: since when it does; with all before it, oldest first.
        days: how many recordings there are of each day.
        models: of each model.
        reasons: that rules picked, of each rule.
        redacted: how many are redacted.
        size: bytes of all.
        oldest: when the oldest was made, None where there is none.
        next_end: when the first that is there ends, likewise.
        overdue: how many have ended and are not swept yet; nobody can look at them.
        lost: how many have no file any more, and were not erased.
        erasures: receipts, newest first; without `done_at` pending.
        readers: who may do what; None where it is not known.
        acts: who did what, as the audit log tells, newest first; None where there is no log.
    """

    made_at: datetime
    made_by: str
    folder: str
    region: str | None
    policy: Policy
    since: tuple[tuple[datetime, str], ...]
    days: Mapping[str, int]
    models: Mapping[str, int]
    reasons: Mapping[str, int]
    redacted: int
    size: int
    oldest: datetime | None
    next_end: datetime | None
    overdue: int
    lost: int
    erasures: Sequence[Mapping[str, Any]]
    readers: Sequence[Reader] | None
    acts: Sequence[Mapping[str, Any]] | None

    @property
    def pending(self) -> int:
        """How many erasures have not ended."""
        return sum(one["done_at"] is None for one in self.erasures)

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values (`docs/commands/recordings.md`)."""
        return {
            "schema": 1,
            "made_at": _written(self.made_at),
            "made_by": self.made_by,
            "folder": self.folder,
            "region": self.region,
            "policy": self.policy.to_dict(),
            "policy_digest": self.policy.digest,
            "policies": [{"since": _written(since), "digest": digest} for since, digest in self.since],
            "recordings": sum(self.days.values()),
            "days": dict(self.days),
            "models": dict(self.models),
            "reasons": dict(self.reasons),
            "redacted": self.redacted,
            "bytes": self.size,
            "oldest": _written(self.oldest),
            "next_end": _written(self.next_end),
            "overdue": self.overdue,
            "lost": self.lost,
            "erasures": [dict(one) for one in self.erasures],
            "pending_erasures": self.pending,
            "readers": None
            if self.readers is None
            else [{"who": one.who, "models": list(one.models), "may": list(one.may)} for one in self.readers],
            "acts": None if self.acts is None else [dict(one) for one in self.acts],
        }


def take_inventory(
    store: Store,
    *,
    actor: Principal,
    events: EventSink,
    readers: Sequence[Reader] | None = None,
    acts: Iterable[Event] | None = None,
) -> Inventory:
    """Puts together what is recorded.

    Args:
        store: of recordings.
        actor: who asks.
        events: takes that they did.
        readers: who may do what, None where nobody knows.
        acts: events of the audit log of `AUDITED_KINDS`, newest first; those that are about something else are passed over. None
            where there is no log.

    Raises:
        ForbiddenError: the actor may not read recordings of all models.
    """
    actor.require(Action.RECORDINGS_READ)
    now = store.now()
    details = {"what": "inventory"}
    events.record(Event(now, EventKind.DATA_READ, Outcome.DONE, actor.told(), SUBJECT, details=details))
    entries = store.entries()
    labels = [one.label for one in entries]
    then = {policy.digest: policy for _, policy in store.index.policies()}
    ends = [
        one.at + timedelta(days=min(held.retention.days for held in (store.policy, then.get(one.policy, store.policy))))
        for one in labels
    ]
    return Inventory(
        made_at=now,
        made_by=actor.told(),
        folder=str(store.folder),
        region=store.region,
        policy=store.policy,
        since=tuple((since, policy.digest) for since, policy in store.index.policies()),
        days=_counted(one.day for one in labels),
        models=_counted(one.model for one in labels),
        reasons=_counted(reason for one in labels for reason in one.reasons),
        redacted=sum(bool(one.redacted) for one in labels),
        size=sum(one.size for one in entries),
        oldest=labels[0].at if labels else None,
        next_end=min(ends, default=None),
        overdue=len(store.expired()),
        lost=sum(not store.has_file(one) for one in entries),
        erasures=[
            {
                "id": one.id,
                "what": one.what,
                "asked_at": _written(one.asked_at),
                "asked_by": one.asked_by,
                "records": one.records,
                "days": list(one.days),
                "digest": one.digest,
                "done_at": _written(one.done_at),
            }
            for one in reversed(store.index.erasures())
        ],
        readers=readers,
        acts=None if acts is None else [_act(one) for one in acts if one.subject == SUBJECT],
    )


def make_page(told: Inventory) -> str:
    """Returns an inventory as HTML: one page that runs nothing and fetches nothing."""
    pending = f"<p class=bad>{told.pending} erasures are pending.</p>" if told.pending else ""
    overdue = f"<p class=bad>{told.overdue} have ended and are not swept yet. Nobody can look at them.</p>"
    lost = f"<p class=bad>{told.lost} have lost their files: restore a backup.</p>" if told.lost else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">'
        f"<title>Recordings of production</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>Recordings of production</h1><p class=soft>{_shown(told.made_at)} UTC, by {escape(told.made_by)}</p>"
        f"{pending}{overdue if told.overdue else ''}{lost}{_list(_clauses(told))}"
        f"<h2>What is there</h2>{_list(_contents(told))}{_table(('day', 'recordings'), told.days.items())}"
        f"<h2>Who may</h2>{_readers(told)}<h2>Who did</h2>{_acts(told)}<h2>Erasures</h2>{_erasures(told)}"
        "</main></body></html>\n"
    )


def _clauses(told: Inventory) -> list[tuple[str, str]]:
    policy = told.policy
    sampled, redaction = policy.samples, policy.redaction
    picked = [
        f"{100 * sampled.rate:.4g} % of all by chance" if sampled.rate else "",
        f"one in {sampled.every}" if sampled.every else "",
        f"those of a score below {sampled.below_score:.4g}" if sampled.below_score else "",
        "those during an alarm of drift" if sampled.on_drift else "",
    ]
    kept = {
        ImageForm.NONE: "predictions, no images",
        ImageForm.REENCODED: "images without the file's metadata, and predictions",
        ImageForm.RECEIVED: "images as they came, with the file's metadata, and predictions",
    }[sampled.image]
    what = {
        Mode.OFF: "nothing",
        Mode.STATISTICS: "statistics; no image, and nothing of a single request",
        Mode.SAMPLES: f"{kept}, encrypted, of {', '.join(filter(None, picked))}; at most {sampled.most_day} a day",
    }[policy.mode]
    blurred = (
        f"{', '.join(redaction.classes)} (score {redaction.score:.4g} and more, margin {redaction.margin:.4g})"
        if redaction.classes
        else "nothing"
    )
    leaves = {
        Leaves.NOTHING: "nothing",
        Leaves.STATISTICS: "statistics",
        Leaves.REDACTED_IMAGES: "statistics, and images in which the above is unrecognizable",
    }[policy.leaves]
    named = (
        f"kept as an HMAC of the header {policy.subject_header}; not recorded without it"
        if policy.subject_header
        else "not known: recordings of one person cannot be found, those of a day can"
    )
    return [
        ("what is recorded", what),
        ("what for", "; ".join(policy.purposes) or "-"),
        ("where", f"{told.folder} (region: {told.region or 'no label'})"),
        ("how long", f"{policy.retention.days} days, at most {policy.retention.most_bytes / 1e6:.1f} MB"),
        ("made unrecognizable", blurred),
        ("may leave the machine", leaves),
        ("whose it is", named),
        ("policy", f"{policy.digest}, one of {len(told.since)} that held so far"),
    ]


def _contents(told: Inventory) -> list[tuple[str, str]]:
    count = sum(told.days.values())
    return [
        ("recordings", f"{count}, {told.size / 1e6:.1f} MB, {told.redacted} of them redacted"),
        ("oldest", _shown(told.oldest)),
        ("first to end", _shown(told.next_end)),
        ("by model", ", ".join(f"{name} {number}" for name, number in told.models.items()) or "-"),
        ("by reason", ", ".join(f"{name} {number}" for name, number in told.reasons.items()) or "-"),
    ]


def _readers(told: Inventory) -> str:
    always = "<p>Whoever may open the key file on the machine can open all recordings.</p>"
    if told.readers is None:
        return f"{always}<p class=bad>Who else is not known: no database of identities was read.</p>"
    rows = [(one.who, ", ".join(one.models) or "-", ", ".join(one.may) or "-") for one in told.readers]
    return always + (_table(("who", "looks at models", "may also"), rows) if rows else "<p>Nobody else.</p>")


def _acts(told: Inventory) -> str:
    if told.acts is None:
        return "<p class=bad>Not known: no audit log was read.</p>"
    rows = [(_minute(one["at"]), one["who"], one["kind"], one["what"], one["records"]) for one in told.acts]
    return _table(("when (UTC)", "who", "did", "what", "recordings"), rows) if rows else "<p>Nobody.</p>"


def _erasures(told: Inventory) -> str:
    rows = [
        (
            _minute(one["asked_at"]),
            one["asked_by"],
            one["what"],
            one["records"],
            _minute(one["done_at"]) if one["done_at"] else "pending",
            one["id"],
        )
        for one in told.erasures
    ]
    return _table(("asked (UTC)", "by", "what", "recordings", "done", "receipt"), rows) if rows else "<p>None.</p>"


def _act(event: Event) -> dict[str, Any]:
    details = event.details
    return {
        "at": _written(event.at),
        "who": event.actor,
        "kind": event.kind.value,
        "outcome": event.outcome.value,
        "what": details.get("what"),
        "records": details.get("records"),
        "address": event.address,
    }


def _list(rows: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows) + "</dl>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(one))}</td>' for one in ['-' if one is None else one for one in row])}</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _written(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")


def _minute(written: str) -> str:
    """Returns a time as `_written` has it, as tables do."""
    return written[:16].replace("T", " ")


def _shown(at: datetime | None) -> str:
    return "-" if at is None else f"{at:%Y-%m-%d %H:%M}"
