# SPDX-License-Identifier: Apache-2.0
"""Sessions of people: begun, found by their token, renewed, ended.

A session is a row; its token is a secret that is kept as a hash, and its handle a name that may be shown. Rights are never kept
in it: they are those of now. Invariants: it ends after a time without use, after another in any case, and with its user; proving
oneself again gives it a new token, and the old one ends; a clock that goes back makes none live longer; nobody has more than ten.
Leaves to others: who may begin one (`sign_in`), cookies (the edge). Stable. Source: OWASP ASVS 5.0, 7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from shipsight.access.acting import check_actor_in
from shipsight.access.directory import Directory
from shipsight.access.ending import end_sessions_in
from shipsight.access.events import Event, EventKind, EventSink, Outcome
from shipsight.access.permissions import Action
from shipsight.access.principal import Principal, PrincipalKind
from shipsight.access.store import Database, grow_revision
from shipsight.access.store.tables import known_devices, sessions, users
from shipsight.access.tokens import digest, is_id, new_id, new_token
from shipsight.errors import AuthenticationError, NotFoundError

__all__ = ["SECOND_FACTORS", "OpenSession", "Session", "Sessions", "strengthen_in"]

SECOND_FACTORS = frozenset({"totp", "passkey", "recovery", "mfa"})
"""What makes a session one of two factors; `mfa` is what a provider of OpenID Connect vouches for."""

_SEEN_EVERY = timedelta(minutes=1)
_CLOCK_MAY_GO_BACK = timedelta(minutes=1)
_MOST = 10
_LONGEST_ADDRESS, _LONGEST_AGENT = 64, 200
_WITH_USER = select(sessions, users.c.name, users.c.is_disabled).join(users, users.c.id == sessions.c.user_id)


@dataclass(frozen=True)
class Session:
    """A session that was just begun or renewed.

    Attributes:
        token: that shows it; a secret, told once.
        handle: its name, no secret.
        csrf: that requests with its cookie repeat in a header.
        expires_at: when it ends in any case.
    """

    token: str = field(repr=False)
    handle: str
    csrf: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True)
class OpenSession:
    """A session as its owner sees it in a list.

    Attributes:
        handle: its name.
        user_id: whose it is.
        factors: that were proved in it.
        created_at: when it began.
        seen_at: when it was last used, to the minute.
        expires_at: when it ends in any case.
        address: that it began from.
        agent: what the browser calls itself.
    """

    handle: str
    user_id: str
    factors: tuple[str, ...]
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    address: str | None
    agent: str | None


class Sessions:
    """Sessions of people.

    Args:
        db: where they are kept.
        directory: knows what people may do.
        events: takes what happens, before it is kept.
        now: tells the time.
        idle_s: seconds without use after which one ends.
        absolute_s: seconds after which one ends in any case.
        fresh_s: seconds for which a proof of who somebody is allows what is sensitive.
    """

    def __init__(
        self,
        db: Database,
        directory: Directory,
        events: EventSink,
        now: Callable[[], datetime],
        *,
        idle_s: float,
        absolute_s: float,
        fresh_s: float,
    ) -> None:
        self._db = db
        self._directory = directory
        self._events = events
        self._now = now
        self._idle = timedelta(seconds=idle_s)
        self._absolute = timedelta(seconds=absolute_s)
        self._fresh = timedelta(seconds=fresh_s)

    def begin(
        self,
        user_id: str,
        *,
        factors: Sequence[str],
        groups: Sequence[str] = (),
        proved_at: datetime | None = None,
        address: str | None = None,
        agent: str | None = None,
    ) -> Session:
        """Begins a session of a person who proved who they are.

        Args:
            user_id: who.
            factors: that they proved.
            groups: that their provider says they are in.
            proved_at: when they did, where that was before; None for now.
            address: they came from.
            agent: what their browser calls itself.

        Raises:
            AuthenticationError: they are disabled or gone.
        """
        with self._db.write() as connection:
            return self.begin_in(
                connection,
                user_id,
                factors=factors,
                groups=groups,
                proved_at=proved_at,
                address=address,
                agent=agent,
            )

    def begin_in(
        self,
        connection: Connection,
        user_id: str,
        *,
        factors: Sequence[str],
        groups: Sequence[str] = (),
        proved_at: datetime | None = None,
        address: str | None = None,
        agent: str | None = None,
    ) -> Session:
        """Does what `begin` does within a transaction of the caller's."""
        at = self._now()
        user = connection.execute(select(users.c.name, users.c.is_disabled).where(users.c.id == user_id)).one_or_none()
        if user is None or user.is_disabled:
            raise AuthenticationError("sign in again")
        self._make_room_in(connection, Principal(PrincipalKind.PERSON, user.name, id=user_id), at)
        session = Session(new_token(), new_id(), new_token(), at + self._absolute)
        connection.execute(
            insert(sessions).values(
                token_hash=digest(session.token),
                handle=session.handle,
                user_id=user_id,
                csrf=session.csrf,
                factors={"proved": list(dict.fromkeys(factors)), "groups": list(groups)},
                created_at=at,
                seen_at=at,
                expires_at=session.expires_at,
                proved_at=min(at, proved_at or at),
                address=_cut(address, _LONGEST_ADDRESS),
                agent=_cut(agent, _LONGEST_AGENT),
            )
        )
        connection.execute(update(users).where(users.c.id == user_id).values(signed_in_at=at))
        self._events.record(
            Event(
                at,
                EventKind.SIGN_IN,
                Outcome.DONE,
                f"{PrincipalKind.PERSON}:{user.name}",
                factor="+".join(factors),
                address=address,
                details={"session": session.handle, "agent": _cut(agent, _LONGEST_AGENT)},
            )
        )
        return session

    def find(self, token: str) -> tuple[Principal, str] | None:
        """Returns who a token stands for, with their rights of now, and the session's CSRF token.

        None where it is unknown, was not used for too long, ended, or its user is disabled. Says at most once a minute in the
        store that it was used.
        """
        at = self._now()
        row = self._row(sessions.c.token_hash == digest(token))
        if row is None or not self._is_alive(row, at):
            return None
        if at - row.seen_at >= _SEEN_EVERY:
            with self._db.write() as connection:
                mine = sessions.c.token_hash == row.token_hash
                connection.execute(update(sessions).where(mine, sessions.c.seen_at < at).values(seen_at=at))
        return self._principal(row), row.csrf

    def by_handle(self, handle: str) -> Principal | None:
        """Returns who a session belongs to, with their rights of now, without using it; None where `find` gives None."""
        row = self._row(sessions.c.handle == (handle if is_id(handle) else ""))
        return None if row is None or not self._is_alive(row, self._now()) else self._principal(row)

    def prove(self, token: str, *, factors: Sequence[str]) -> Session:
        """Renews a session whose person proved again who they are: the same session, with another token.

        Raises:
            AuthenticationError: it ended.
        """
        with self._db.write() as connection:
            handle = connection.execute(
                select(sessions.c.handle).where(sessions.c.token_hash == digest(token))
            ).scalar_one_or_none()
            return self.prove_in(connection, handle or "", factors=factors)

    def prove_in(self, connection: Connection, handle: str, *, factors: Sequence[str]) -> Session:
        """Does what `prove` does to a session by its handle, within a transaction of the caller's."""
        at = self._now()
        row = connection.execute(_WITH_USER.where(sessions.c.handle == handle)).one_or_none()
        if row is None or not self._is_alive(row, at):
            raise AuthenticationError("sign in again")
        session = Session(new_token(), handle, new_token(), row.expires_at)
        proved = list(dict.fromkeys((*row.factors["proved"], *factors)))
        connection.execute(
            update(sessions)
            .where(sessions.c.handle == handle)
            .values(
                token_hash=digest(session.token),
                csrf=session.csrf,
                factors={**row.factors, "proved": proved},
                proved_at=at,
                seen_at=at,
            )
        )
        grow_revision(connection)
        self._events.record(
            Event(
                at,
                EventKind.STEP_UP,
                Outcome.DONE,
                f"{PrincipalKind.PERSON}:{row.name}",
                factor="+".join(factors),
                details={"session": handle},
            )
        )
        return session

    def end(self, token: str, actor: Principal) -> None:
        """Ends a session at its person's wish; one that is not there has ended."""
        with self._db.write() as connection:
            self._end_in(connection, sessions.c.token_hash == digest(token), actor, EventKind.SIGN_OUT)

    def end_before(self, handle: str, actor: Principal) -> None:
        """Ends the session that a browser had before another began in it; one that is not there has ended.

        Args:
            handle: of it, which the browser's token stood for.
            actor: whose session began.
        """
        with self._db.write() as connection:
            self._end_in(connection, sessions.c.handle == handle, actor, EventKind.SIGN_OUT)

    def end_one(self, actor: Principal, handle: str) -> None:
        """Ends a session by its handle, one's own or, by who may change access and proved who they are a short while ago, anybody's.

        Raises:
            NotFoundError: there is none, or it is another's and the actor may not end it.
            StepUpError: it is another's, and the actor has to prove again who they are.
            AuthenticationError: the actor's own has ended.
        """
        with self._db.write() as connection:
            mine = sessions.c.handle == (handle if is_id(handle) else "")
            owner = connection.execute(select(sessions.c.user_id).where(mine)).scalar()
            if owner is None or (owner != actor.id and not actor.may(Action.ACCESS_CHANGE)):
                raise NotFoundError("no such session", got=handle[:80])
            self._check_in(connection, actor, owner)
            self._end_in(connection, mine, actor, EventKind.SESSION_ENDED)

    def end_all(self, actor: Principal, user_id: str, *, but: str | None = None) -> int:
        """Ends all sessions of a person, one's own or, by who may change access and proved who they are a short while ago, anybody's.

        Args:
            actor: who does it.
            user_id: whose.
            but: handle of one that stays.

        Returns:
            How many there were.

        Raises:
            ForbiddenError: they are another's, and the actor may not.
            StepUpError: they are another's, and the actor has to prove again who they are.
            AuthenticationError: the actor's own has ended.
        """
        with self._db.write() as connection:
            self._check_in(connection, actor, user_id)
            return self.end_all_in(connection, actor, user_id, but=but)

    def end_all_in(self, connection: Connection, actor: Principal, user_id: str, *, but: str | None = None) -> int:
        """Does what `end_all` does within a transaction of the caller's, who checked that it may be done."""
        which = (sessions.c.user_id == user_id) & (sessions.c.handle != (but or ""))
        return self._end_in(connection, which, actor, EventKind.SESSION_ENDED)

    def list(self, user_id: str | None = None) -> list[OpenSession]:
        """Returns sessions that have not ended, of one person or of all, the last used first."""
        at = self._now()
        wanted = _WITH_USER.order_by(sessions.c.seen_at.desc(), sessions.c.handle)
        if user_id is not None:
            wanted = wanted.where(sessions.c.user_id == user_id)
        with self._db.read() as connection:
            rows = connection.execute(wanted).all()
        return [
            OpenSession(
                handle=row.handle,
                user_id=row.user_id,
                factors=tuple(row.factors["proved"]),
                created_at=row.created_at,
                seen_at=row.seen_at,
                expires_at=row.expires_at,
                address=row.address,
                agent=row.agent,
            )
            for row in rows
            if self._is_alive(row, at)
        ]

    def _row(self, which: Any) -> Any:  # noqa: ANN401 - SQL, a row
        with self._db.read() as connection:
            return connection.execute(_WITH_USER.where(which)).one_or_none()

    def _principal(self, row: Any) -> Principal:  # noqa: ANN401 - a row of `_WITH_USER`
        proved, groups = tuple(row.factors["proved"]), tuple(row.factors["groups"])
        rights = self._directory.rights_of_user(row.user_id, groups)
        return Principal(
            PrincipalKind.PERSON,
            row.name,
            rights=rights,
            id=row.user_id,
            factors=proved,
            # By what this session proved, not by what its user has: else one that was begun with a stolen password
            # would become whole when the owner adds a factor.
            must_enrol=rights.needs_factors and not SECOND_FACTORS & set(proved),
            proved_at=row.proved_at,
            fresh_until=row.proved_at + self._fresh,
            session=row.handle,
        )

    def _is_alive(self, row: Any, at: datetime) -> bool:  # noqa: ANN401 - a row of `sessions`
        return not row.is_disabled and bool(
            row.seen_at - _CLOCK_MAY_GO_BACK <= at < row.expires_at and at - row.seen_at < self._idle
        )

    def _check_in(self, connection: Connection, actor: Principal, owner: str) -> None:
        """Lets pass who may end sessions of somebody."""
        is_own = owner == actor.id
        check_actor_in(connection, actor, None if is_own else Action.ACCESS_CHANGE)
        if not is_own:
            actor.require(Action.ACCESS_CHANGE, now=self._now())

    def _end_in(self, connection: Connection, which: ColumnElement[bool], actor: Principal, kind: EventKind) -> int:
        return end_sessions_in(connection, which, events=self._events, actor=actor, at=self._now(), kind=kind)

    def _make_room_in(self, connection: Connection, person: Principal, at: datetime) -> None:
        """Removes sessions that ended, and a person's oldest where they have as many as they may."""
        ended = (sessions.c.expires_at <= at) | (sessions.c.seen_at <= at - self._idle)
        connection.execute(delete(sessions).where(ended))
        handles = connection.execute(
            select(sessions.c.handle)
            .where(sessions.c.user_id == person.id)
            .order_by(sessions.c.seen_at.desc(), sessions.c.created_at.desc())
        ).scalars()
        surplus = list(handles)[_MOST - 1 :]
        self._end_in(connection, sessions.c.handle.in_(surplus), person, EventKind.SESSION_ENDED)


def strengthen_in(
    connection: Connection, actor: Principal, factor: str, *, is_first: bool, events: EventSink, at: datetime
) -> None:
    """Says that a person proved a factor in their session by adding it, and ends their sessions that have no second one.

    With the first second factor no browser is known any more: one may be that of somebody who had the password.

    Whoever adds a kind of second factor calls it, in the same transaction, after `check_actor_in`.

    Args:
        connection: of the transaction.
        actor: whose it is.
        factor: its kind.
        is_first: whether they had no second one before.
        events: takes what happens, before it is kept.
        at: time.
    """
    rows = connection.execute(select(sessions.c.handle, sessions.c.factors).where(sessions.c.user_id == actor.id)).all()
    weak = []
    for row in rows:
        proved = row.factors["proved"]
        if row.handle == actor.session:
            told = {**row.factors, "proved": list(dict.fromkeys((*proved, factor)))}
            connection.execute(update(sessions).where(sessions.c.handle == row.handle).values(factors=told))
        elif not SECOND_FACTORS & set(proved):
            weak.append(row.handle)
    end_sessions_in(connection, sessions.c.handle.in_(weak), events=events, actor=actor, at=at)
    if is_first:
        connection.execute(delete(known_devices).where(known_devices.c.user_id == actor.id))
    grow_revision(connection)


def _cut(text: str | None, most: int) -> str | None:
    """Returns what is kept of a text from outside: databases refuse some characters."""
    return None if text is None else "".join(one if one.isprintable() else "?" for one in text[:most])
