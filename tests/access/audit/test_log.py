# SPDX-License-Identifier: Apache-2.0
"""The log as those see it who write to it and read it, on both kinds of database."""

from __future__ import annotations

import itertools
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from tests.access.audit.logs import BEGAN, Place, Ticking, fill, make_log, open_log, predicted, refused, signed_in

from shipsight.access import Event, EventKind, Outcome
from shipsight.access.audit.reading import AuditReader
from shipsight.access.audit.settings import AuditSettings
from shipsight.access.audit.store import LINEAGE, metadata
from shipsight.access.audit.waiting import may_be_late
from shipsight.access.store import open_database
from shipsight.access.store.migrating import downgrade, revision_of, upgrade
from shipsight.errors import AuditError, EnvironmentLackError, UsageError


def told(log_or_reader: object, **asked: object) -> list[str]:
    return [f"{one.event.kind.value} {one.event.actor}" for one in log_or_reader.entries(**asked)]  # type: ignore[attr-defined]


def test_new_log_tells_of_its_key_and_of_who_began_it(empty: Place) -> None:
    with empty.open() as log:
        entries = list(log.entries())
        assert [(one.seq, one.event.kind, one.server) for one in entries] == [
            (0, EventKind.AUDIT_KEY_ADDED, "one"),
            (1, EventKind.AUDIT_STARTED, "one"),
        ]
        assert entries[0].event.details == {"key": log.key.text}
        assert log.origin == log.key.name
    assert empty.verify().is_ok


def test_entry_is_there_when_its_act_goes_on(empty: Place) -> None:
    with empty.open() as log:
        log.record(signed_in())
        reader = AuditReader.open(empty.url)
        assert told(reader, kinds=["sign-in"]) == ["sign-in person:ada"]
        reader.close()


def test_what_may_be_late_comes_with_the_next_checkpoint(empty: Place) -> None:
    with empty.open(settings=AuditSettings(late_s=10.0)) as log:
        for number in range(2500):
            log.record(predicted(number))
        made = log.checkpoint()
        assert (made.size, log.state.buffered, log.size) == (2502, 0, 2502)
        assert [one.event.details["number"] for one in log.entries(kinds=["predicted"])] == list(range(2500))


@pytest.mark.parametrize(
    ("event", "is_late"),
    [
        (signed_in(), False),
        (Event(BEGAN, EventKind.ALLOWED, Outcome.DONE, "person:ada"), False),
        (Event(BEGAN, EventKind.EXPORTED, Outcome.DONE, "person:ada"), False),
        (Event(BEGAN, EventKind.USER_REMOVED, Outcome.DONE, "person:ada"), False),
        (Event(BEGAN, EventKind.BUNDLE_READ, Outcome.DONE, "person:ada"), False),
        (refused(), True),
        (predicted(), True),
        (Event(BEGAN, EventKind.KEY_USED, Outcome.DONE, "key:a"), True),
        (Event(BEGAN, EventKind.SIGN_OUT, Outcome.DONE, "person:ada"), True),
        (Event(BEGAN, EventKind.LIMITED, Outcome.REFUSED, "key:a"), True),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Event) else "",
)
def test_event_may_be_late_where_nothing_was_done_that_must_not_be_unseen(event: Event, is_late: bool) -> None:
    assert may_be_late(event) is is_late


def test_checkpoint_is_signed_after_so_many_entries_and_after_so_long(empty: Place) -> None:
    with empty.open(settings=AuditSettings(every=5, seconds=3600.0, late_s=0.0)) as log:
        before = log.state.checkpoint_size
        fill(log, 5)
        assert log.state.checkpoint_size > before
    with empty.open(settings=AuditSettings(every=1000, seconds=0.2, late_s=0.0)) as log:
        fill(log, 1)
        until = time.monotonic() + 20
        while log.state.checkpoint_size < log.state.size:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_server_that_has_nothing_new_signs_that_it_is_there(empty: Place) -> None:
    with empty.open(settings=AuditSettings(seconds=0.1, heartbeat_s=0.3, late_s=0.0)) as log:
        first = log.last_checkpoint
        until = time.monotonic() + 20
        while log.last_checkpoint == first:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert log.last_checkpoint is not None
        assert first is not None
        assert (log.last_checkpoint.size, log.last_checkpoint.root) == (first.size, first.root)


def test_checkpoints_go_to_second_places(empty: Place) -> None:
    class Kept:
        states = ()

        def __init__(self) -> None:
            self.sizes: list[int] = []

        def offer(self, checkpoint: object) -> None:
            self.sizes.append(checkpoint.size)  # type: ignore[attr-defined]

    kept = Kept()
    with empty.open(copies=kept) as log:
        fill(log, 20)
        made = log.checkpoint()
    assert made.size in kept.sizes
    assert kept.sizes == sorted(kept.sizes)


def test_many_threads_write_and_each_entry_is_there_once(empty: Place) -> None:
    with empty.open() as log:
        threads = [
            threading.Thread(target=lambda who: [log.record(signed_in(f"{who}-{i}")) for i in range(20)], args=(who,))
            for who in range(8)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        actors = [one.event.actor for one in log.entries(kinds=["sign-in"])]
    assert sorted(actors) == sorted(f"person:{who}-{i}" for who in range(8) for i in range(20))
    assert empty.verify().is_ok


FILTERS = {
    "kind": ({"kinds": ["role-changed"]}, 8),
    "outcome": ({"outcomes": [Outcome.REFUSED]}, 0),
    "actor": ({"actor": "person:ada"}, 15),
    "subject": ({"subject": "role:5"}, 1),
    "address": ({"address": "192.0.2.7"}, 8),
    "server": ({"server": "two"}, 0),
    "number": ({"first": 4, "last": 6}, 3),
    "text in details": ({"text": "FIREFOX"}, 8),
    "text in actor": ({"text": "user2"}, 3),  # user20 and user24, too
    "two": ({"actor": "person:ada", "kinds": ["user-added"]}, 7),
    "since": ({"since": BEGAN + timedelta(days=1)}, 0),
    "until": ({"until": BEGAN + timedelta(days=1)}, 33),
    "limit": ({"limit": 5}, 5),
    "hostile": ({"actor": "' OR 1=1 --"}, 0),
    "half of a pair": ({"actor": "\ud800"}, 0),
    "zero": ({"subject": "\0"}, 0),
}


@pytest.mark.parametrize("case", FILTERS)
def test_entries_are_those_that_fit(place: Place, case: str) -> None:
    asked, count = FILTERS[case]
    reader = AuditReader.open(place.url)
    found = list(reader.entries(**asked))
    assert len(found) == count
    assert [one.seq for one in found] == sorted(one.seq for one in found)
    newest = list(reader.entries(**{**asked, "newest_first": True}))
    if case != "limit":
        assert newest == found[::-1]
    reader.close()


def test_entries_come_page_by_page_in_either_order(empty: Place) -> None:
    with empty.open(settings=AuditSettings()) as log:
        for number in range(1203):
            log.record(predicted(number))
        log.checkpoint()
        assert [one.seq for one in log.entries()] == list(range(1205))
        assert [one.seq for one in log.entries(newest_first=True)] == list(range(1205))[::-1]
        assert len(list(log.entries(text="camera", newest_first=True, limit=700))) == 700


def test_server_that_ended_without_a_word_is_told_of_when_it_comes_back(empty: Place) -> None:
    log = empty.open()
    log.record(signed_in())
    log._session = None  # as SIGKILL leaves it
    log.close()
    with empty.open() as log:
        kinds = [one.event.kind.value for one in log.entries(newest_first=True, limit=2)]
    assert kinds == ["audit-started", "audit-recovered"]
    with empty.open() as log:
        kinds = [one.event.kind.value for one in log.entries(newest_first=True, limit=2)]
    assert kinds == ["audit-started", "stopped"]
    assert empty.verify().is_ok


def test_closed_log_takes_no_act(empty: Place) -> None:
    log = empty.open()
    log.close()
    with pytest.raises(AuditError, match="closed"):
        log.record(signed_in())


def test_log_that_is_gone_is_not_quietly_begun_anew(folder: Path) -> None:
    place = make_log(str(folder / "log.db"), folder / "log.key")
    for one in folder.glob("log.db*"):
        one.unlink()
    with pytest.raises(AuditError, match="the log that this key signs is not here"):
        place.open()


def test_log_without_its_key_is_not_written(place: Place) -> None:
    place.key_path.unlink()
    with pytest.raises(AuditError, match="the key that signs this log is not here"):
        place.open()


def test_key_of_another_log_is_refused(place: Place, folder: Path) -> None:
    other = make_log(str(folder / "other.db"), folder / "other.key")
    with pytest.raises(AuditError, match="this key does not sign this log"):
        open_log(place.url, other.key_path)


def test_key_that_others_may_read_is_refused(place: Place) -> None:
    place.key_path.chmod(0o644)
    with pytest.raises(EnvironmentLackError, match="others may read the key"):
        place.open()


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 101, "\ud800"])
def test_name_of_a_server_that_is_none_is_refused(empty: Place, name: str) -> None:
    with pytest.raises(UsageError, match="not a name for a server"):
        empty.open(server=name)


def test_log_that_became_shorter_while_it_was_open_is_not_written(place: Place) -> None:
    log = place.open()
    fill(log, 3)
    size = log.size
    place.run(f"DELETE FROM audit_records WHERE seq >= {size - 2}", f"UPDATE audit_head SET size = {size - 2}")
    with pytest.raises(AuditError, match="not the one that was written"):
        log.record(signed_in())
    assert log.state.is_degraded
    log.close()


def test_log_replaced_by_another_of_the_same_size_is_not_written(place: Place) -> None:
    log = place.open()
    place.run("UPDATE audit_head SET leaf = :leaf", leaf="ab" * 32)
    with pytest.raises(AuditError, match="not the one that was written"):
        log.record(signed_in())
    log.close()


def test_proof_of_consistency_leads_from_each_checkpoint_to_the_next(place: Place) -> None:
    from shipsight.access.audit.merkle import verify_consistency

    reader = AuditReader.open(place.url)
    sizes = [2, 12, 17, 22, 33]
    for one, two in itertools.pairwise(sizes):
        roots = [reader.frontier(size).root() for size in (one, two)]
        verify_consistency(one, roots[0], two, roots[1], reader.consistency(one, two))
    reader.close()


def test_tables_are_those_that_the_newest_step_leaves(empty: Place) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    database = open_database(empty.url, lineage=LINEAGE)
    engine = database._engine
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": LINEAGE.version_table})
        assert compare_metadata(context, metadata) == []
    downgrade(engine, "base", lineage=LINEAGE)
    assert revision_of(engine, lineage=LINEAGE) is None
    upgrade(engine, lineage=LINEAGE)
    assert revision_of(engine, lineage=LINEAGE) == "0001"
    database.close()


def test_log_and_identities_live_in_one_database(empty: Place) -> None:
    open_database(empty.url).close()
    with empty.open() as log:
        log.record(signed_in())
    open_database(empty.url, migrate=False).close()
    assert empty.verify().is_ok


def test_reader_of_a_place_without_a_log_says_so(folder: Path) -> None:
    path = folder / "log.db"
    path.touch()
    with pytest.raises(EnvironmentLackError, match="another version"):
        AuditReader.open(str(path))
    open_database(str(path), lineage=LINEAGE).close()
    reader = AuditReader.open(str(path))
    with pytest.raises(AuditError, match="no audit log here"):
        reader.head()
    reader.close()


def test_clock_of_a_log_is_the_one_that_it_was_given(empty: Place) -> None:
    clock = Ticking()
    with empty.open(now=clock) as log:
        log.record(signed_in())
        entry = next(iter(log.entries(kinds=["sign-in"])))
    assert entry.written is not None
    assert BEGAN < entry.written <= clock.time
