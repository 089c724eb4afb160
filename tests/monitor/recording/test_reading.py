# SPDX-License-Identifier: Apache-2.0
"""Looking at recordings and taking them along: by right, audited first, and as far as the policy lets them out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import simplejpeg
from tests.access.conftest import KeptEvents
from tests.monitor.recording.recordings import OFFICER, Place, principal, sampling

from shipsight.access import Action, EventKind, Principal, PrincipalKind
from shipsight.errors import ForbiddenError, NotFoundError, StepUpError, UsageError
from shipsight.monitor.recording import (
    Policy,
    Store,
    erase_subject,
    export_images,
    export_statistics,
    list_recordings,
    show_recording,
)
from shipsight.monitor.recording.policy import Leaves, Redaction

READER = principal(Action.RECORDINGS_READ)
OF_GATE = principal(Action.RECORDINGS_READ, Action.DATA_EXPORT, models=("gate",))


def letting(leaves: Leaves) -> Policy:
    return replace(sampling(), leaves=leaves, redaction=Redaction(("face",)))


def test_list_tells_newest_first_and_what_may_be_read_alone(place: Place) -> None:
    store = place.open()
    old, new = place.keep(store, days_ago=1)[0], place.keep(store)[0]
    hidden = place.keep(store, model="door")[0]

    def names(actor: Principal, **more: object) -> list[str]:
        found = list_recordings(store, actor=actor, events=place.events, is_elsewhere=False, **more)  # type: ignore[arg-type]
        return [one.label.id for one in found]

    assert names(OF_GATE) == [new, old]
    assert set(names(READER)) == {new, old, hidden}
    assert names(READER, model="door") == [hidden]
    assert names(OF_GATE, model="door") == []
    assert names(OF_GATE, limit=1) == [new]
    assert names(OF_GATE, until=place.clock()) == [old]
    assert names(OF_GATE, since=place.clock() - timedelta(hours=1)) == [new]
    assert [one.details["records"] for one in place.events.of(EventKind.DATA_READ)] == [2, 3, 1, 0, 1, 1, 1]


def reads(store: Store, name: str, actor: Principal, events: KeptEvents, out: Path) -> dict[str, Callable[[], object]]:
    return {
        "list": lambda: list_recordings(store, actor=actor, events=events),
        "show": lambda: show_recording(store, name, actor=actor, events=events),
        "images": lambda: export_images(store, out, actor=actor, events=events),
        "statistics": lambda: export_statistics(store, out, actor=actor, events=events),
    }


ACTS = ("list", "show", "images", "statistics")


@pytest.mark.parametrize("act", ACTS)
def test_who_may_not_read_recordings_is_refused(place: Place, act: str) -> None:
    store = place.open(letting(Leaves.REDACTED_IMAGES))
    (name,) = place.keep(store)
    nobody = principal(Action.MODELS_PREDICT, Action.DATA_EXPORT)
    with pytest.raises(ForbiddenError):
        reads(store, name, nobody, place.events, place.folder / "out")[act]()
    assert place.events.kept == []
    assert not (place.folder / "out").exists()


@pytest.mark.parametrize("act", ["images", "statistics"])
def test_export_takes_the_right_to_export_and_a_fresh_proof(place: Place, act: str) -> None:
    store = place.open(letting(Leaves.REDACTED_IMAGES))
    (name,) = place.keep(store)
    with pytest.raises(ForbiddenError):
        reads(store, name, READER, place.events, place.folder / "out")[act]()
    stale = replace(OFFICER, kind=PrincipalKind.PERSON, fresh_until=place.clock() - timedelta(seconds=1))
    with pytest.raises(StepUpError):
        reads(store, name, stale, place.events, place.folder / "out")[act]()
    assert not (place.folder / "out").exists()


@pytest.mark.parametrize("act", ACTS)
def test_nothing_is_opened_that_cannot_be_recorded(place: Place, act: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = place.open(letting(Leaves.REDACTED_IMAGES))
    (name,) = place.keep(store)
    monkeypatch.setattr(store, "open", lambda _: pytest.fail("opened"))
    with pytest.raises(OSError, match="no space left"):
        reads(store, name, OFFICER, KeptEvents(fails=True), place.folder / "out")[act]()
    assert list(place.folder.glob("*out*")) == []


def test_showing_tells_the_log_which_recording_of_which_model(place: Place) -> None:
    store = place.open()
    (name,) = place.keep(store, subject="ada")
    found = show_recording(store, name, actor=OF_GATE, events=place.events, is_elsewhere=False)
    assert found.label.id == name
    (event,) = place.events.kept
    assert (event.kind, event.actor, event.subject) == (EventKind.DATA_READ, "key:ada", "recordings")
    assert event.details == {"what": "show", "recording": name, "model": "gate", "records": 1}


def test_recording_of_another_model_is_refused_like_one_that_there_is_not(place: Place) -> None:
    store = place.open()
    (name,) = place.keep(store, model="door")
    told = []
    for one in (name, "0" * 32):
        with pytest.raises(ForbiddenError) as caught:
            show_recording(store, one, actor=OF_GATE, events=place.events, is_elsewhere=False)
        told.append(str(caught.value))
    assert told[0] == told[1]
    assert "door" not in told[0]
    with pytest.raises(NotFoundError):
        show_recording(store, "0" * 32, actor=READER, events=place.events, is_elsewhere=False)


def test_erased_recording_is_shown_to_nobody(place: Place) -> None:
    store = place.open()
    (name,) = place.keep(store, subject="ada")
    erase_subject(store, "ada", actor=OFFICER, events=place.events)
    with pytest.raises(NotFoundError):
        show_recording(store, name, actor=OFFICER, events=place.events, is_elsewhere=False)


# --- what leaves the machine


LETS = {
    Leaves.NOTHING: set(),
    Leaves.STATISTICS: {"list", "statistics"},
    Leaves.REDACTED_IMAGES: set(ACTS),
}


@pytest.mark.parametrize("leaves", list(Leaves))
@pytest.mark.parametrize("act", ACTS)
def test_what_leaves_the_machine_is_what_the_policy_lets_out(place: Place, leaves: Leaves, act: str) -> None:
    store = place.open(letting(leaves))
    (name,) = place.keep(store)
    out = place.folder / "out"
    do = reads(store, name, OFFICER, place.events, out)[act]
    if act in LETS[leaves]:
        do()
    else:
        with pytest.raises(ForbiddenError, match="does not let this leave"):
            do()
        assert not out.exists()
        assert place.events.kept == []


def test_export_leaves_out_what_is_not_redacted_or_was_promised_to_stay(place: Place) -> None:
    place.keep(place.open(replace(sampling(), leaves=Leaves.STATISTICS)))  # not redacted
    place.keep(place.open(letting(Leaves.NOTHING)))  # redacted, promised to stay
    store = place.open(letting(Leaves.REDACTED_IMAGES))
    (going,) = place.keep(store)
    out = place.folder / "out"
    done = export_images(store, out, actor=OFFICER, events=place.events)
    assert (done.records, done.refused, done.gone) == (1, 2, 0)
    assert {path.name for path in out.iterdir()} == {f"{going}.json", f"{going}.jpg"}
    assert simplejpeg.decode_jpeg((out / f"{going}.jpg").read_bytes()).shape == (48, 64, 3)
    assert json.loads((out / f"{going}.json").read_text(encoding="utf-8"))["redacted"] == ["face"]
    (event,) = place.events.of(EventKind.EXPORTED)
    assert event.details == {"what": "images", "records": 1, "refused": 2}
    for one in store.entries():
        if one.label.id != going:
            with pytest.raises(ForbiddenError, match="may not leave"):
                show_recording(store, one.label.id, actor=OFFICER, events=place.events)
            show_recording(store, one.label.id, actor=OFFICER, events=place.events, is_elsewhere=False)


def test_exported_statistics_tell_of_no_single_recording(place: Place) -> None:
    store = place.open(letting(Leaves.STATISTICS))
    names = place.keep(store, 2, subject="ada")
    out = place.folder / "counts.json"
    export_statistics(store, out, actor=OFFICER, events=place.events)
    text = out.read_text(encoding="utf-8")
    told = json.loads(text)
    assert (told["recordings"], told["days"], told["models"], told["reasons"]) == (
        2,
        {"2026-11-23": 2},
        {"gate": 2},
        {"chance": 2},
    )
    assert not any(name in text for name in names)


def test_export_replaces_nothing(place: Place) -> None:
    store = place.open(letting(Leaves.REDACTED_IMAGES))
    out = place.folder / "out"
    out.symlink_to(place.folder / "elsewhere")
    for act in ("images", "statistics"):
        with pytest.raises(UsageError, match="there already"):
            reads(store, "", OFFICER, place.events, out)[act]()


def test_pages_go_on_where_the_one_before_ended_also_within_a_millisecond(place: Place) -> None:
    store = place.open()
    names = set(place.keep(store, 5))
    seen: list[str] = []
    before = None
    while page := list_recordings(
        store, actor=OFFICER, events=place.events, before=before, limit=2, is_elsewhere=False
    ):
        seen += [one.label.id for one in page]
        before = page[-1].label.at, page[-1].label.id
    assert seen == sorted(names, reverse=True)
