# SPDX-License-Identifier: Apache-2.0
"""Events: how they reach the log, and that a sink which fails undoes what they tell of."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, select
from tests.access.conftest import KeptEvents

from shipsight.access import Event, EventKind, LoggedEvents, Outcome
from shipsight.access.store import Database
from shipsight.access.store.tables import settings

AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(("outcome", "level"), [(Outcome.DONE, "INFO"), (Outcome.REFUSED, "WARNING")])
def test_event_is_logged_as_fields_of_what_is_known(
    caplog: pytest.LogCaptureFixture, outcome: Outcome, level: str
) -> None:
    """ASVS 16.2.1, 16.2.4."""
    with caplog.at_level(logging.INFO, logger="shipsight.access"):
        LoggedEvents().record(
            Event(
                AT,
                EventKind.SIGN_IN,
                outcome,
                "person:ada",
                factor="totp",
                address="192.0.2.7",
                details={"session": "x", "agent": None},
            )
        )
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (level, "sign-in")
    assert record.shipsight == {  # type: ignore[attr-defined]
        "event": "sign-in",
        "outcome": outcome.value,
        "actor": "person:ada",
        "factor": "totp",
        "address": "192.0.2.7",
        "session": "x",
    }


def test_text_from_outside_stands_in_a_field_and_never_in_the_message(caplog: pytest.LogCaptureFixture) -> None:
    """ASVS 16.4.1."""
    hostile = 'ada\n{"event": "sign-in", "outcome": "done"}\x1b[2J\u2028'
    with caplog.at_level(logging.INFO, logger="shipsight.access"):
        LoggedEvents().record(Event(AT, EventKind.SIGN_IN, Outcome.REFUSED, "nobody", details={"agent": hostile}))
    (record,) = caplog.records
    assert record.getMessage() == "sign-in"
    assert record.shipsight["agent"] == hostile  # type: ignore[attr-defined]


def test_details_do_not_replace_what_an_event_says_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="shipsight.access"):
        LoggedEvents().record(
            Event(AT, EventKind.SIGN_IN, Outcome.REFUSED, "nobody", details={"outcome": "done", "actor": "person:ada"})
        )
    (record,) = caplog.records
    assert record.shipsight["outcome"] == "refused"  # type: ignore[attr-defined]
    assert record.shipsight["actor"] == "nobody"  # type: ignore[attr-defined]


def test_what_a_sink_refuses_is_not_written(database: Database, events: KeptEvents) -> None:
    """ASVS 16.5.3: an event is told inside the transaction, before it is kept."""
    events.fails = True

    def act() -> None:
        with database.write() as connection:
            connection.execute(insert(settings).values(name="x", value="1"))
            events.record(Event(AT, EventKind.USER_ADDED, Outcome.DONE, "person:ada"))

    with pytest.raises(OSError, match="no space"):
        act()
    with database.read() as connection:
        assert connection.execute(select(settings).where(settings.c.name == "x")).all() == []
    events.fails = False
    act()
    with database.read() as connection:
        assert len(connection.execute(select(settings).where(settings.c.name == "x")).all()) == 1


def test_kinds_of_events_have_a_code_each() -> None:
    assert len({kind.value for kind in EventKind}) == len(EventKind)
