# SPDX-License-Identifier: Apache-2.0
"""People for tests of passkeys and sign-on: in the store, and acting with roles that they were granted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from shipsight.access.directory import Directory, User, insert_user_in
from shipsight.access.events import LoggedEvents
from shipsight.access.grants import put_grants_in
from shipsight.access.permissions import Grant
from shipsight.access.principal import Principal, PrincipalKind
from shipsight.access.store import Database


def add_person(database: Database, now: Callable[[], datetime], name: str) -> User:
    """Adds somebody."""
    with database.write() as connection:
        user_id = insert_user_in(connection, now(), name=name)
    return Directory(database, LoggedEvents(), now).user(user_id)


def acting(world: Any, person: User, *roles: str) -> Principal:
    """Gives somebody roles on all models, and returns them as they are after they proved who they are."""
    with world.database.write() as connection:
        put_grants_in(connection, "user", person.id, [Grant(one) for one in roles])
    rights = Directory(world.database, LoggedEvents(), world.clock).rights_of_user(person.id)
    until = world.clock() + timedelta(seconds=300)
    return Principal(PrincipalKind.PERSON, person.name, rights=rights, id=person.id, fresh_until=until)
