# SPDX-License-Identifier: Apache-2.0
"""Erasing recordings: of one person, of a day, one by one, and those whose time has passed. Each gives a receipt, and is audited first.

Erased is the key. Files and entries are removed, too, but nothing hangs on that: backups hold them, and hold no keys. What stays is the
receipt, which tells how many of which days were erased and a digest of their ids, and not of whom. Source: GDPR, articles 5(1)(e) and 17.
Stable.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime

from shipsight.access import Action, Event, EventKind, EventSink, Outcome, Principal
from shipsight.errors import NotFoundError, UsageError
from shipsight.monitor.recording.index import KeptErasure
from shipsight.monitor.recording.keys import Place
from shipsight.monitor.recording.store import Store

__all__ = ["erase_day", "erase_recordings", "erase_subject", "rotate_key", "sweep"]

SUBJECT = "recordings"
"""What events of this room are about."""


def erase_subject(store: Store, subject: str, *, actor: Principal, events: EventSink) -> KeptErasure:
    """Erases all recordings of somebody. That there were none is a receipt as well.

    Args:
        store: of recordings.
        subject: as requests named them, in the header that the policy names.
        actor: who does it.
        events: takes that it is done.

    Raises:
        ForbiddenError, StepUpError: they may not.
        UsageError: it names nobody.
        EnvironmentLackError: the store cannot be written; what was begun is ended when it is next opened.
    """
    _require(store, actor)
    if not subject.strip():
        raise UsageError("names nobody", where="subject")
    return _erase(store, "subject", store.keys.places(tag=store.keys.tag(subject)), actor=actor.told(), events=events)


def erase_day(store: Store, day: str, *, actor: Principal, events: EventSink) -> KeptErasure:
    """Erases all recordings of a day.

    Args:
        store: of recordings.
        day: in UTC, such as `2026-11-23`.
        actor: who does it.
        events: takes that it is done.

    Raises:
        ForbiddenError, StepUpError: they may not.
        UsageError: it is no day.
        EnvironmentLackError: as of `erase_subject`.
    """
    _require(store, actor)
    try:
        asked = date.fromisoformat(day).isoformat()
    except ValueError as error:
        raise UsageError("not a day", expected="such as 2026-11-23", got=day) from error
    return _erase(store, "day", store.keys.places(day=asked), actor=actor.told(), events=events)


def erase_recordings(store: Store, names: Sequence[str], *, actor: Principal, events: EventSink) -> KeptErasure:
    """Erases recordings by their ids, all or none.

    Raises:
        ForbiddenError, StepUpError: the actor may not.
        NotFoundError: one is not there.
        EnvironmentLackError: as of `erase_subject`.
    """
    _require(store, actor)
    known = {place.id: place for place in store.keys.places()}
    unknown = [one for one in names if one not in known]
    if unknown or not names:
        raise NotFoundError("no such recordings", got=", ".join(unknown) or "none")
    return _erase(store, "recordings", sorted({known[one] for one in names}), actor=actor.told(), events=events)


def rotate_key(store: Store, *, actor: Principal, events: EventSink) -> int:
    """Wraps all keys under a new key of the store, and drops the old one; returns how many.

    After this a copy of the key table that somebody made before opens nothing, unless they copied the key file, too.

    Raises:
        ForbiddenError, StepUpError: the actor may not.
        EnvironmentLackError: the key file or the table cannot be written.
    """
    _require(store, actor)
    details = {"what": "key"}
    events.record(
        Event(store.now(), EventKind.RECORDINGS_CHANGED, Outcome.DONE, actor.told(), SUBJECT, details=details)
    )
    return store.keys.rotate()


def sweep(store: Store, *, actor: str, events: EventSink) -> KeptErasure | None:
    """Erases what the policy keeps no longer: what is too old, then the oldest of what is too much; None where there is nothing.

    Args:
        store: of recordings.
        actor: who has it done, as entries tell it; it takes no right, since the policy says it.
        events: takes that it is done.

    Raises:
        EnvironmentLackError: as of `erase_subject`.
    """
    expired = {one.label.id for one in store.expired()}
    lasting = [(one.label.id, one.size) for one in store.index.entries() if one.label.id not in expired]
    surplus = store.enforcement.surplus(lasting)
    going = expired.union(surplus)
    if not going:
        return None
    places = [place for place in store.keys.places() if place.id in going]
    # Entries whose key is gone already are only removed.
    store.index.remove(going - {place.id for place in places})
    return _erase(store, "expired", places, actor=actor, events=events) if places else None


def _require(store: Store, actor: Principal) -> None:
    actor.require(Action.RECORDINGS_CHANGE, now=store.now())


def _erase(store: Store, what: str, places: Sequence[Place], *, actor: str, events: EventSink) -> KeptErasure:
    now = store.now()
    days = tuple(sorted({place.day for place in places}))
    receipt = KeptErasure(
        f"er-{secrets.token_hex(8)}", what, _whole(now), actor, len(places), days, _digest(places), None
    )
    details: dict[str, str | int | list[str]] = {
        "what": what,
        "receipt": receipt.id,
        "records": len(places),
        "days": list(days),
        "digest": receipt.digest,
    }
    # Before: what cannot be recorded is not done.
    events.record(Event(now, EventKind.RECORDINGS_ERASED, Outcome.DONE, actor, SUBJECT, details=details))
    store.index.begin_erasure(receipt, [f"{place.day}/{place.id}" for place in places])
    store.finish_erasure(receipt.id, places)
    return replace(receipt, done_at=_whole(store.now()))


def _digest(places: Iterable[Place]) -> str:
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(place.id for place in places)).encode()).hexdigest()


def _whole(at: datetime) -> datetime:
    """Returns a time as the index keeps it."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
