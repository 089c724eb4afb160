# SPDX-License-Identifier: Apache-2.0
"""Grants: replaced by who saw what there was, and those of groups told."""

from __future__ import annotations

import threading

import pytest
from tests.access.conftest import Clock, KeptEvents

from shipsight.access import SERVER, EventKind, Grant
from shipsight.access.directory import Directory
from shipsight.access.store import Database, open_database
from shipsight.errors import ConflictError

VIEWER, DEPLOYER, PREDICTOR = Grant("viewer"), Grant("deployer", ("team-a-*",)), Grant("predictor", ("cars", "ships"))


@pytest.fixture
def directory(database: Database, clock: Clock, events: KeptEvents) -> Directory:
    return Directory(database, events, clock)


@pytest.mark.parametrize("kind", ["user", "group"])
def test_grants_that_somebody_else_changed_meanwhile_are_not_replaced(
    directory: Directory, events: KeptEvents, kind: str
) -> None:
    """ASVS 2.3.4, 15.4.2: what was taken from bob stays taken when a page that was open before is sent."""
    holder = directory.add_user(SERVER, "bob")[0].id if kind == "user" else "crew"
    directory.set_grants(SERVER, kind, holder, [VIEWER, DEPLOYER])
    seen = directory.grants(kind, holder)
    directory.set_grants(SERVER, kind, holder, [VIEWER], before=seen)
    changes = len(events.of(EventKind.GRANTS_CHANGED))
    with pytest.raises(ConflictError) as refused:
        directory.set_grants(SERVER, kind, holder, [*seen, PREDICTOR], before=seen)
    assert (refused.value.expected, refused.value.got) == ("deployer@team-a-*, viewer", "viewer")
    assert directory.grants(kind, holder) == (VIEWER,)
    assert len(events.of(EventKind.GRANTS_CHANGED)) == changes
    directory.set_grants(SERVER, kind, holder, [PREDICTOR], before=[VIEWER])
    assert directory.grants(kind, holder) == (PREDICTOR,)


def test_order_of_what_was_seen_does_not_matter(directory: Directory) -> None:
    bob = directory.add_user(SERVER, "bob", grants=[VIEWER, PREDICTOR, DEPLOYER])[0].id
    directory.set_grants(SERVER, "user", bob, [], before=[PREDICTOR, DEPLOYER, VIEWER])
    with pytest.raises(ConflictError):
        directory.set_grants(SERVER, "user", bob, [VIEWER], before=[VIEWER])
    directory.set_grants(SERVER, "user", bob, [VIEWER], before=[])
    directory.set_grants(SERVER, "user", bob, [DEPLOYER])  # who says nothing replaces whatever there is


def test_of_two_who_saw_the_same_one_is_refused(
    database_url: str, database: Database, clock: Clock, events: KeptEvents
) -> None:
    bob = Directory(database, events, clock).add_user(SERVER, "bob", grants=[VIEWER])[0].id
    other, told, begin = open_database(database_url), list[str](), threading.Barrier(2)

    def change(one: Database, wanted: Grant) -> None:
        begin.wait()
        try:
            Directory(one, KeptEvents(), clock).set_grants(SERVER, "user", bob, [wanted], before=[VIEWER])
            told.append(wanted.role)
        except ConflictError:
            told.append("refused")

    threads = [threading.Thread(target=change, args=one) for one in ((database, DEPLOYER), (other, PREDICTOR))]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    other.close()
    assert sorted(told)[1] == "refused"
    assert Directory(database, events, clock).grants("user", bob)[0].role == sorted(told)[0]


def test_groups_that_hold_something_are_told_by_name(directory: Directory) -> None:
    assert directory.groups() == {}
    for name in ("vision", "/team-a/operators", "Ähren", "emptied"):
        directory.set_grants(SERVER, "group", name, [VIEWER, DEPLOYER])
    directory.set_grants(SERVER, "group", "emptied", [])
    directory.add_user(SERVER, "bob", grants=[VIEWER])
    assert directory.groups() == dict.fromkeys(("/team-a/operators", "vision", "Ähren"), (DEPLOYER, VIEWER))
    assert list(directory.groups()) == ["/team-a/operators", "vision", "Ähren"]
