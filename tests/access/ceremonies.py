# SPDX-License-Identifier: Apache-2.0
"""Ceremonies of WebAuthn between a server's passkeys and a software authenticator, for tests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, settings
from sqlalchemy import select
from tests.access.authenticator import (
    SoftAuthenticator,
)
from tests.access.identities import acting, add_person

from shipsight.access.events import EventKind, Outcome
from shipsight.access.passkeys import Passkeys
from shipsight.access.store import Database
from shipsight.access.store.tables import users

ORIGIN = "https://vision.example.com"
LOOSE = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def make_world(database: Database, clock: Any, events: Any) -> Any:
    """Ada and Grace, the passkeys of a server, a clock and a record."""
    return SimpleNamespace(
        database=database,
        clock=clock,
        events=events,
        passkeys=Passkeys(database, events, clock, origin=ORIGIN),
        ada=add_person(database, clock, "ada"),
        grace=add_person(database, clock, "grace"),
        device=SoftAuthenticator(ORIGIN),
    )


def register(world: Any, person: Any = None, device: SoftAuthenticator | None = None, **lies: Any) -> Any:
    person = person or world.ada
    options, challenge = world.passkeys.begin_registration(person)
    answer = (device or world.device).create(options, **lies)
    return world.passkeys.finish_registration(acting(world, person), person.id, challenge, answer, name="key")


def sign_in(world: Any, person: Any = None, *, device: SoftAuthenticator | None = None, **lies: Any) -> str:
    """Signs in with a passkey: alone where no person is named."""
    user_id = None if person is None else person.id
    options, challenge = world.passkeys.begin_authentication(user_id)
    answer = (device or world.device).get(options, **lies)
    return world.passkeys.finish_authentication(challenge, answer, user_id=user_id, needs_verification=user_id is None)


def handle_of(world: Any, person: Any) -> bytes:
    with world.database.read() as connection:
        return connection.scalar(select(users.c.webauthn_handle).where(users.c.id == person.id))


def refused(world: Any, why: str, said: str = "") -> None:
    """The last event refuses for a reason, which the error did not tell."""
    last = world.events.kept[-1]
    assert (last.kind, last.outcome, last.factor) == (EventKind.REFUSED, Outcome.REFUSED, "passkey")
    assert last.why == why
    assert said in (last.details["said"] or "")
