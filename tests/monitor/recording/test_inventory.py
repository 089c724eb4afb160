# SPDX-License-Identifier: Apache-2.0
"""The inventory: what whoever answers for recordings has to know, and nothing that is in them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import pytest
from tests.monitor.recording.recordings import OFFICER, Place, principal, sampling

from shipsight.access import Action, Event, EventKind, Outcome
from shipsight.errors import EnvironmentLackError, ForbiddenError
from shipsight.monitor.recording import Inventory, erase_subject, list_recordings, make_page, take_inventory
from shipsight.monitor.recording.inventory import Reader
from shipsight.monitor.recording.policy import Leaves, Redaction, Retention


class Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def taken(place: Place, **more: object) -> Inventory:
    return take_inventory(place.open(), actor=OFFICER, events=place.events, **more)  # type: ignore[arg-type]


def full(place: Place) -> Inventory:
    policy = replace(
        sampling(rate=0.25, every=10),
        purposes=("to find why <the gate> misses trucks",),
        leaves=Leaves.REDACTED_IMAGES,
        redaction=Redaction(("face", "plate")),
        retention=Retention(days=14),
        subject_header="x-subject-id",
    )
    store = place.open(policy)
    place.keep(store, 3, subject="ada", days_ago=2)
    place.keep(store, 2, subject="grace")
    list_recordings(store, actor=OFFICER, events=place.events)
    erase_subject(store, "grace", actor=OFFICER, events=place.events)
    acts = [*reversed(place.events.kept), Event(place.clock(), EventKind.DATA_READ, Outcome.DONE, "key:x", "gate")]
    return taken(place, readers=[Reader("person:ada", ("gate",), ("data.export",))], acts=acts)


def test_inventory_tells_what_is_kept_what_for_where_and_for_how_long(place: Place) -> None:
    told = full(place).to_dict()
    json.dumps(told, allow_nan=False)
    assert (told["recordings"], told["days"], told["models"]) == (3, {"2026-11-21": 3}, {"gate": 3})
    assert told["policy"]["purposes"] == ["to find why <the gate> misses trucks"]
    assert told["folder"] == str(place.path)
    assert told["oldest"] == "2026-11-21T12:00:00+00:00"
    assert told["next_end"] == "2026-12-05T12:00:00+00:00"
    assert (told["redacted"], told["overdue"], told["lost"], told["pending_erasures"]) == (3, 0, 0, 0)
    assert told["readers"] == [{"who": "person:ada", "models": ["gate"], "may": ["data.export"]}]
    assert [(one["who"], one["kind"], one["records"]) for one in told["acts"]] == [
        ("key:officer", "recordings-erased", 2),
        ("key:officer", "data-read", 5),
    ]
    assert [(one["what"], one["records"]) for one in told["erasures"]] == [("subject", 2)]


def test_page_tells_the_same_in_words_and_fetches_nothing(place: Place) -> None:
    page = Text()
    inventory = full(place)
    page.feed(make_page(inventory))
    text = " ".join(page.parts)
    for part in (
        "to find why <the gate> misses trucks",
        "25 % of all by chance",
        "one in 10",
        "14 days",
        "face, plate",
        "unrecognizable",
        "x-subject-id",
        "person:ada",
        "key:officer",
        "2026-11-21",
        "recordings-erased",
        inventory.policy.digest,
        str(place.path),
    ):
        assert part in text, part
    assert {tag for tag, _ in page.tags} <= {
        "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "dl", "dt", "dd", "table", "tr", "th", "td",
    }  # fmt: skip
    assert not [attributes for _, attributes in page.tags if {"src", "href"} & attributes.keys()]


def test_inventory_says_what_it_does_not_know(place: Place) -> None:
    told = taken(place)
    assert (told.to_dict()["readers"], told.to_dict()["acts"]) == (None, None)
    page = make_page(told)
    assert "no database of identities was read" in page
    assert "no audit log was read" in page


def test_inventory_tells_what_is_wrong(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = place.open()
    place.keep(store, 1, subject="ada")
    place.keep(store, 2, days_ago=20)
    place.keep(store, 1, days_ago=29)

    def torn(*_: object) -> None:
        raise EnvironmentLackError("torn off")

    monkeypatch.setattr(store, "finish_erasure", torn)
    with pytest.raises(EnvironmentLackError):
        erase_subject(store, "ada", actor=OFFICER, events=place.events)
    monkeypatch.undo()
    shutil.rmtree(place.path / "days" / "2026-11-03")
    place.clock.time += timedelta(days=2)
    told = take_inventory(store, actor=OFFICER, events=place.events)
    assert (told.pending, told.overdue, told.lost) == (1, 1, 2)
    page = make_page(told)
    for text in ("1 erasures are pending", "1 have ended and are not swept yet", "2 have lost their files"):
        assert text in page
    assert "are pending" not in make_page(taken(place))


def test_inventory_needs_the_right_to_read_all_and_is_audited(place: Place) -> None:
    store = place.open()
    with pytest.raises(ForbiddenError):
        take_inventory(store, actor=principal(Action.RECORDINGS_READ, models=("gate",)), events=place.events)
    assert place.events.kept == []
    taken(place)
    (event,) = place.events.kept
    assert (event.kind, event.details) == (EventKind.DATA_READ, {"what": "inventory"})
