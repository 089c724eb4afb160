# SPDX-License-Identifier: Apache-2.0
"""Secrets that pass through the rooms that tell events are never in the log: looked for byte by byte."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path

import pytest
from tests.access.audit.logs import Place
from tests.access.conftest import Clock
from tests.access.people import OTHER_PASSWORD, PASSWORD, People

from shipsight.access import SERVER, Grant
from shipsight.access.keys import Keys
from shipsight.access.store import open_database
from shipsight.errors import AccessError


def use_every_secret(people: People, keys: Keys) -> dict[str, str]:
    """Signs in, fails to, adds factors and keys, uses and misuses them; returns all that is secret of it."""
    user = people.add_with_codes("ada", "admin")
    person, step = people.enter_with_codes(user)
    assert step.session is not None
    codes = people.factors.make_recovery_codes(person, user.id)
    key, text = keys.add(SERVER, "camera", grants=[Grant("predictor")])
    other = keys.rotate(SERVER, key.id, overlap_s=60)
    with contextlib.suppress(AccessError):
        people.sign_in.begin("ada", "not the password")
    with contextlib.suppress(AccessError):
        people.sign_in.begin("a password in the place of a name", OTHER_PASSWORD)
    with contextlib.suppress(AccessError):
        keys.authenticate(text[:-4] + "AAAA")
    invited, invitation = people.directory.add_user(SERVER, "bob", grants=[])
    del invited
    return {
        "password": PASSWORD,
        "wrong password": "not the password",
        "password of nobody": OTHER_PASSWORD,
        "seed": people.seeds[user.id],
        "recovery code": codes[0],
        "key": text,
        "secret of the key": text.split("_", 2)[2],
        "key after rotation": other,
        "session": step.session.token,
        "invitation": invitation,
    }


def test_planted_secrets_are_nowhere_in_the_log_or_its_archive(folder: Path) -> None:
    place = Place(str(folder / "log.db"), folder / "log.key")
    clock = Clock()
    database = open_database(str(folder / "access.db"))
    with place.open() as log:
        planted = use_every_secret(People(database, clock, log), Keys(database, log, clock))  # type: ignore[arg-type] - a sink
        log.checkpoint()
        kinds = {one.event.kind.value for one in log.entries()}
        assert {"sign-in", "key-added", "key-rotated", "recovery-codes-made", "factor-added", "user-added"} <= kinds
    database.close()
    stored = b"".join(path.read_bytes() for path in sorted(folder.glob("log.db*")))
    assert b"sign-in" in stored
    for name, secret in planted.items():
        assert len(secret) >= 6, name
        forms = [secret.encode(), base64.b64encode(secret.encode()), secret.encode().hex().encode()]
        assert [one for one in forms if one in stored] == [], name
    assert b"PRIVATE+KEY" not in stored


def test_search_for_planted_secrets_finds_one(folder: Path) -> None:
    from tests.access.audit.logs import signed_in

    place = Place(str(folder / "log.db"), folder / "log.key")
    with place.open() as log:
        log.record(signed_in(details={"told": PASSWORD}))
    with pytest.raises(AssertionError):
        assert PASSWORD.encode() not in b"".join(path.read_bytes() for path in folder.glob("log.db*"))
