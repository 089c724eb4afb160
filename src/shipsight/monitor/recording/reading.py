# SPDX-License-Identifier: Apache-2.0
"""Looking at recordings, and taking them along: by right, and recorded before anything is opened.

Who lists or looks needs `recordings.read` on the model; who exports needs `data.export` on it, too, and gets what the policy lets out.
Leaves to others: who asks (`access`), formats on the wire (the server). Stable.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from shipsight.access import Action, Event, EventKind, EventSink, Outcome, Principal
from shipsight.errors import EnvironmentLackError, ForbiddenError, NotFoundError, UsageError
from shipsight.monitor.recording.erasing import SUBJECT
from shipsight.monitor.recording.index import Entry
from shipsight.monitor.recording.policy import Leaves
from shipsight.monitor.recording.record import Recording
from shipsight.monitor.recording.store import Store

__all__ = ["Exported", "export_images", "export_statistics", "list_recordings", "show_recording", "statistics"]

_IMAGE_NAMES = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp", "image/bmp": ".bmp"}


@dataclass(frozen=True)
class Exported:
    """What was taken along.

    Attributes:
        records: how many.
        refused: that the policy lets nobody take along, now or then.
        gone: that were erased meanwhile.
    """

    records: int
    refused: int
    gone: int = 0


def list_recordings(
    store: Store,
    *,
    actor: Principal,
    events: EventSink,
    since: datetime | None = None,
    until: datetime | None = None,
    model: str | None = None,
    before: tuple[datetime, str] | None = None,
    limit: int | None = None,
    is_elsewhere: bool = True,
) -> list[Entry]:
    """Returns what is told of recordings without opening them, newest first; those of models that the actor may read.

    Args:
        store: of recordings.
        actor: who asks.
        events: takes that they did.
        since: not before, UTC.
        until: before.
        model: of this one.
        before: time and id of a recording: only what comes after it in this order, for the next page.
        limit: how many at most.
        is_elsewhere: whether they ask from another machine: then the policy must let statistics out.

    Raises:
        ForbiddenError: the actor may read none, or the policy lets nothing out.
    """
    if is_elsewhere:
        store.enforcement.let_out(Leaves.STATISTICS)
    entries = _readable(store, actor, since=since, until=until, model=model)[::-1]
    if before is not None:
        entries = [one for one in entries if (one.label.at, one.label.id) < before]
    entries = entries[:limit]
    _tell(store, actor, events, EventKind.DATA_READ, what="list", records=len(entries))
    return entries


def show_recording(
    store: Store, name: str, *, actor: Principal, events: EventSink, is_elsewhere: bool = True
) -> Recording:
    """Opens a recording.

    Args:
        store: of recordings.
        name: its id.
        actor: who asks.
        events: takes that they did, before it is opened.
        is_elsewhere: whether they ask from another machine: then the policy must let the image out.

    Raises:
        ForbiddenError: the actor may not read those of its model; said also of an id that there is not, to who may not read all.
            Or the policy does not let it out.
        NotFoundError: there is none, or it was erased.
        CorruptError: it was changed.
    """
    _require_somewhere(actor)
    try:
        entry = store.entry(name)
    except NotFoundError:
        actor.require(Action.RECORDINGS_READ)
        raise
    if not actor.may(Action.RECORDINGS_READ, entry.label.model):
        actor.require(Action.RECORDINGS_READ)  # the same words as of an id that there is not
    if is_elsewhere:
        _let_out(store, entry)
    _tell(store, actor, events, EventKind.DATA_READ, what="show", recording=name, model=entry.label.model, records=1)
    return store.open(entry)


def _let_out(store: Store, entry: Entry) -> None:
    store.enforcement.let_out(Leaves.REDACTED_IMAGES)
    if not store.enforcement.lets_out_image(entry.label.redacted, store.index.policy(entry.label.policy)):
        raise ForbiddenError(
            "this recording may not leave the machine",
            where=entry.label.id,
            expected="redacted as the policy has it now, under a policy that let it out",
        )


def statistics(entries: Sequence[Entry]) -> dict[str, Any]:
    """Returns how many recordings there are by day, model and reason; of no single one."""

    def count(names: Sequence[str]) -> dict[str, int]:
        return dict(sorted(Counter(names).items()))

    labels = [one.label for one in entries]
    return {
        "recordings": len(labels),
        "bytes": sum(one.size for one in entries),
        "days": count([one.day for one in labels]),
        "models": count([one.model for one in labels]),
        "reasons": count([reason for one in labels for reason in one.reasons]),
    }


def export_statistics(
    store: Store,
    out: Path,
    *,
    actor: Principal,
    events: EventSink,
    since: datetime | None = None,
    until: datetime | None = None,
    model: str | None = None,
) -> Exported:
    """Writes the statistics of recordings to a file, as JSON.

    Raises:
        ForbiddenError, StepUpError: the actor may not, or the policy lets none out.
        UsageError: the file is there.
        EnvironmentLackError: it cannot be written.
    """
    entries = _exportable(store, actor, since=since, until=until, model=model)
    store.enforcement.let_out(Leaves.STATISTICS)
    _refuse_existing(out)
    _tell(store, actor, events, EventKind.EXPORTED, what="statistics", records=len(entries))
    try:
        out.write_text(json.dumps(statistics(entries), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise EnvironmentLackError("the export cannot be written", where=out, got=error.strerror) from error
    return Exported(len(entries), 0)


def export_images(
    store: Store,
    out: Path,
    *,
    actor: Principal,
    events: EventSink,
    since: datetime | None = None,
    until: datetime | None = None,
    model: str | None = None,
) -> Exported:
    """Writes redacted images, each with its predictions, into a new folder; others are left out, and counted.

    Args:
        store: of recordings.
        out: folder that is not there yet; it is there whole or not at all.
        actor: who takes them along.
        events: takes that they do, before any is opened.
        since: not before, UTC.
        until: before.
        model: of this one.

    Raises:
        ForbiddenError, StepUpError: the actor may not, or the policy lets none out.
        UsageError: the folder is there.
        CorruptError: a recording was changed.
        EnvironmentLackError: the folder cannot be written.
    """
    entries = _exportable(store, actor, since=since, until=until, model=model)
    store.enforcement.let_out(Leaves.REDACTED_IMAGES)
    _refuse_existing(out)
    then = {policy.digest: policy for _, policy in store.index.policies()}
    going = [one for one in entries if store.enforcement.lets_out_image(one.label.redacted, then.get(one.label.policy))]
    refused = len(entries) - len(going)
    _tell(store, actor, events, EventKind.EXPORTED, what="images", records=len(going), refused=refused)
    new = out.with_name(f".{out.name}.{secrets.token_hex(4)}.new")
    try:
        new.mkdir(mode=0o700)
        try:
            written = sum(_write(new, store, one) for one in going)
            new.rename(out)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    except OSError as error:
        raise EnvironmentLackError("the export cannot be written", where=out, got=error.strerror) from error
    return Exported(written, refused, len(going) - written)


def _write(folder: Path, store: Store, entry: Entry) -> bool:
    try:
        found = store.open(entry)
    except NotFoundError:
        return False
    label = found.label
    told = {**label.to_dict(), "at": label.at.isoformat(), "predictions": found.predictions}
    (folder / f"{label.id}.json").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if found.image is not None and label.media_type is not None:
        (folder / f"{label.id}{_IMAGE_NAMES.get(label.media_type, '.image')}").write_bytes(found.image)
    return True


def _exportable(
    store: Store, actor: Principal, *, since: datetime | None, until: datetime | None, model: str | None
) -> list[Entry]:
    """Returns what the actor may take along.

    Raises:
        ForbiddenError: nothing.
        StepUpError: they have to prove again who they are.
    """
    actor.require(Action.RECORDINGS_READ, model)
    actor.require(Action.DATA_EXPORT, model, now=store.now())
    return store.entries(since=since, until=until, model=model)


def _readable(
    store: Store, actor: Principal, *, since: datetime | None, until: datetime | None, model: str | None
) -> list[Entry]:
    _require_somewhere(actor)
    return [
        one
        for one in store.entries(since=since, until=until, model=model)
        if actor.may(Action.RECORDINGS_READ, one.label.model)
    ]


def _require_somewhere(actor: Principal) -> None:
    if actor.must_enrol or not actor.rights.allows_somewhere(Action.RECORDINGS_READ):
        raise ForbiddenError("this is not allowed to you", expected=Action.RECORDINGS_READ.value, got=actor.told())


def _refuse_existing(out: Path) -> None:
    if os.path.lexists(out):
        raise UsageError("is there already", where=out)


def _tell(store: Store, actor: Principal, events: EventSink, kind: EventKind, **details: str | int) -> None:
    events.record(Event(store.now(), kind, Outcome.DONE, actor.told(), SUBJECT, details=details))
