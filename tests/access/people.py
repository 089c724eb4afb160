# SPDX-License-Identifier: Apache-2.0
"""All that concerns people, put together on one database, with a few that are known; and a stand-in for passkeys."""

from __future__ import annotations

from typing import Any

import pyotp
from sqlalchemy import select
from tests.access.conftest import Clock, KeptEvents

from shipsight.access import Grant, Principal
from shipsight.access.directory import Directory, User
from shipsight.access.factors import Factors
from shipsight.access.passwords import Passwords
from shipsight.access.principal import SERVER
from shipsight.access.sessions import Session, Sessions
from shipsight.access.sign_in import SignIn, Step
from shipsight.access.store import Database, SecretBox, metadata
from shipsight.access.tokens import new_token
from shipsight.errors import AuthenticationError

PASSWORD = "three otters on a raft"
OTHER_PASSWORD = "seven kites over a lake"
IDLE_S, ABSOLUTE_S, FRESH_S = 1800.0, 43200.0, 300.0
KEY = bytes(range(32))


class CountedPasswords(Passwords):
    """Hashes fast, and tells how often it compared."""

    def __init__(self) -> None:
        super().__init__(words=("vision.example",), memory_kib=64, passes=1)
        self.compared = 0

    def matches(self, password: str, kept: str | None) -> bool:
        self.compared += 1
        return super().matches(password, kept)


class StandInPasskeys:
    """Accepts `{"user_id", "verified"}` with a challenge that it gave, once."""

    def __init__(self) -> None:
        self.challenges: set[str] = set()

    def challenge(self) -> str:
        token = new_token()
        self.challenges.add(token)
        return token

    def finish_authentication(
        self, challenge_token: str, credential: dict[str, Any], *, user_id: str | None, needs_verification: bool
    ) -> str:
        if challenge_token not in self.challenges:
            raise AuthenticationError("another challenge")
        self.challenges.discard(challenge_token)
        if user_id not in (None, credential["user_id"]) or (needs_verification and not credential["verified"]):
            raise AuthenticationError("another passkey")
        return str(credential["user_id"])


class People:
    """Everything about people, on one database."""

    def __init__(self, database: Database, clock: Clock, events: KeptEvents) -> None:
        self.database, self.clock, self.events = database, clock, events
        self.passwords = CountedPasswords()
        self.passkeys = StandInPasskeys()
        self.directory = Directory(database, events, clock)
        self.factors = Factors(database, SecretBox([KEY]), events, clock)
        self.sessions = Sessions(
            database, self.directory, events, clock, idle_s=IDLE_S, absolute_s=ABSOLUTE_S, fresh_s=FRESH_S
        )
        self.sign_in = SignIn(
            database,
            self.directory,
            self.factors,
            self.passkeys,
            self.sessions,
            events,
            clock,
            passwords=self.passwords,
        )
        self.seeds: dict[str, str] = {}

    def add(self, name: str, *grants: str, actor: Principal = SERVER) -> User:
        """Adds a person who has a password, and no session."""
        user, code = self.directory.add_user(actor, name, grants=[Grant.parse(one) for one in grants])
        step = self.sign_in.accept_invitation(code, PASSWORD)
        assert step.session is not None
        self.sessions.end(step.session.token, SERVER)
        return self.directory.user(user.id)

    def add_with_codes(self, name: str, *grants: str) -> User:
        """Adds a person who has an authenticator, too."""
        user = self.add(name, *grants)
        person = self.enter(self.sign_in.begin(name, PASSWORD))
        self.enrol(person)
        self.sessions.end_all(SERVER, user.id)
        self.clock.pass_s(90)
        return user

    def enrol(self, person: Principal) -> None:
        assert person.id is not None
        self.seeds[person.id] = self.factors.begin_totp(person.id).secret
        self.factors.confirm_totp(person, person.id, self.code(person.id))

    def code(self, user_id: str, *, steps: int = 0) -> str:
        """What the person's authenticator shows, some steps before or after now."""
        return pyotp.TOTP(self.seeds[user_id]).generate_otp(int(self.clock().timestamp()) // 30 + steps)

    def enter(self, step: Step) -> Principal:
        """Returns who a session is of, which a sign-in ended with."""
        assert step.session is not None
        return self.find(step.session)

    def find(self, session: Session) -> Principal:
        found = self.sessions.find(session.token)
        assert found is not None
        return found[0]

    def enter_with_codes(self, user: User, *, device: str | None = None) -> tuple[Principal, Step]:
        """Signs somebody in who has an authenticator."""
        step = self.sign_in.begin(user.name, PASSWORD, device=device)
        assert step.pending is not None
        step = self.sign_in.finish_code(step.pending, self.code(user.id), device=device)
        self.clock.pass_s(30)
        return self.enter(step), step

    def dump(self, *, but: tuple[str, ...] = ("throttles",)) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables."""
        with self.database.read() as connection:
            return {
                table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
                for table in metadata.sorted_tables
                if table.name not in but
            }
