# SPDX-License-Identifier: Apache-2.0
"""Keys of programs: `ssk_<id>_<secret>`, shown once and kept as a hash.

A key belongs to a person, then it may do what it was granted as far as that person still may; or to nobody (a
service), then just what it was granted. The secret has 256 random bits, so SHA-256 keeps it well (OWASP ASVS 5.0,
11.4.2 speaks of passwords). Invariants: whether a key is unknown, wrong, ended or its owner disabled cannot be told
from the answer; nothing here tells a secret but what `add` and `rotate` return. Leaves to others: how often a key may
ask (`rate` and `quota` are kept as text), caching (`authenticate`). Stable.
"""

from __future__ import annotations

import builtins
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, select, update

from shipsight.access import grants as granting
from shipsight.access.acting import check_actor_in
from shipsight.access.events import Event, EventKind, EventSink, Outcome
from shipsight.access.machines import check_name, keep_use, machine_rights_in, told_grants_in
from shipsight.access.permissions import Action, Grant, Rights
from shipsight.access.principal import Principal, PrincipalKind
from shipsight.access.quotas import parse_limits
from shipsight.access.store import Database, grow_revision, tables
from shipsight.access.tokens import digest, is_id, new_id, new_token
from shipsight.errors import (
    AuthenticationError,
    ForbiddenError,
    NotFoundError,
    StepUpError,
    UsageError,
)

__all__ = ["KEY_LIVES", "MOST_OVERLAP_S", "ApiKey", "Keys"]

KEY_LIVES = timedelta(days=365)
"""After which a key ends that nobody named an end for; whoever calls `Keys.add` says so there."""

MOST_OVERLAP_S = 30 * 86400.0

_FORM = re.compile(r"ssk_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_NOBODYS = bytes(32)  # no secret has it as its hash


@dataclass(frozen=True)
class ApiKey:
    """A key, without its secret.

    Attributes:
        id: that stands in the key.
        name: that people gave it.
        owner_id: person that it belongs to, None for a service's.
        created_by: who made it, as `Principal.told` says it.
        created_at: when.
        expires_at: when it ends, None for never.
        used_at: when it was last used, to the minute; None for never.
        revoked_at: when it was ended, None where it was not.
        rate: how often it may ask, None for no limit of its own.
        quota: how much it may ask for, None for no limit of its own.
        grants: what it was granted.
        rotating_until: until when its secret before is good, too; None where there is none.
    """

    id: str
    name: str
    owner_id: str | None
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None
    revoked_at: datetime | None
    rate: str | None
    quota: str | None
    grants: tuple[Grant, ...]
    rotating_until: datetime | None = None


class Keys:
    """All keys.

    Args:
        db: where they are kept.
        events: takes what happens.
        now: tells the time.
    """

    def __init__(self, db: Database, events: EventSink, now: Callable[[], datetime]) -> None:
        self._db, self._events, self._now = db, events, now

    def add(
        self,
        actor: Principal,
        name: str,
        *,
        grants: Sequence[Grant],
        owner_id: str | None = None,
        expires_at: datetime | None = None,
        rate: str | None = None,
        quota: str | None = None,
    ) -> tuple[ApiKey, str]:
        """Makes a key.

        Args:
            actor: who makes it: a person for themselves, or who may change access for others.
            name: letters, digits, `.`, `_` and `-`, at most 64.
            grants: what it may do; for oneself within one's own rights.
            owner_id: person that it belongs to, None for a service's.
            expires_at: when it ends, None for never.
            rate: how often it may ask, None for no limit of its own.
            quota: how much it may ask for, None for no limit of its own.

        Returns:
            The key, and its text, which is not kept.

        Raises:
            ForbiddenError: the actor may not make it, or it would have rights that the actor has not.
            StepUpError: a person has to prove again who they are.
            AuthenticationError: their session has ended.
            UsageError: a name, role, time or limit does not fit.
            NotFoundError: there is no such person.
        """
        now = self._now()
        _check_fresh(actor, now)
        check_name(name)
        for option, limits in (("rate", rate), ("quota", quota)):
            if limits is not None:
                parse_limits(limits, where=option)
        if not grants:
            raise UsageError("a key that may do nothing", where=name, expected="a grant")
        if expires_at is not None and expires_at <= now:
            raise UsageError("has passed", where="expires_at", got=expires_at.isoformat())
        key_id = new_id()
        text = _make_text(key_id)
        values = {
            "id": key_id,
            "name": name,
            "owner_id": owner_id,
            "created_by": actor.told(),
            "created_at": now,
            "expires_at": expires_at,
            "rate": rate,
            "quota": quota,
        }
        with self._db.write() as connection:
            _check_owner(connection, actor, owner_id)
            connection.execute(insert(tables.api_keys).values(secret_hash=digest(text), **values))
            granting.put_grants_in(connection, "key", key_id, grants)
            if owner_id is not None and owner_id == actor.id:
                _check_within(connection, key_id, owner_id)
            details = {
                "name": name,
                "owner": owner_id,
                "grants": [one.told() for one in grants],
                "expires_at": None if expires_at is None else expires_at.isoformat(),
            }
            self._changed(connection, EventKind.KEY_ADDED, actor, key_id, details)
            return _read(connection, _found(_row(connection, key_id), key_id)), text

    def rotate(self, actor: Principal, key_id: str, *, overlap_s: float = 86400.0) -> str:
        """Gives a key a new secret.

        Args:
            actor: its owner, or who may change access.
            key_id: which.
            overlap_s: seconds for which the secret before is good, too, 0 to 30 days; one before that ends at once.

        Returns:
            The key's new text, which is not kept.

        Raises:
            NotFoundError: there is no such key, or not any more.
            ForbiddenError: the actor may not.
            StepUpError: a person has to prove again who they are.
            AuthenticationError: their session has ended.
            UsageError: the overlap is out of range.
        """
        if not 0 <= overlap_s <= MOST_OVERLAP_S:
            raise UsageError("out of range", where="overlap_s", expected=f"0 to {MOST_OVERLAP_S:.0f}", got=overlap_s)
        now = self._now()
        _check_fresh(actor, now)
        text = _make_text(key_id)
        with self._db.write() as connection:
            row = self._mine(connection, actor, key_id)
            if _end(row) is not None and _end(row) <= now:
                raise NotFoundError("no such key", where=key_id, hint="It has ended: make another.")
            connection.execute(
                update(tables.api_keys)
                .where(tables.api_keys.c.id == key_id)
                .values(
                    secret_hash=digest(text),
                    previous_hash=row.secret_hash if overlap_s else None,
                    previous_until=now + timedelta(seconds=overlap_s) if overlap_s else None,
                )
            )
            details = {"name": row.name, "overlap_s": overlap_s}
            self._changed(connection, EventKind.KEY_ROTATED, actor, key_id, details)
        return text

    def revoke(self, actor: Principal, key_id: str) -> None:
        """Ends a key at once, with its secret before; one that has ended stays so.

        Raises:
            NotFoundError: there is no such key.
            ForbiddenError: the actor may not.
            AuthenticationError: their session has ended.
        """
        with self._db.write() as connection:
            row = self._mine(connection, actor, key_id)
            if row.revoked_at is not None:
                return
            connection.execute(
                update(tables.api_keys)
                .where(tables.api_keys.c.id == key_id)
                .values(revoked_at=self._now(), previous_hash=None, previous_until=None)
            )
            self._changed(connection, EventKind.KEY_REVOKED, actor, key_id, {"name": row.name})

    def list(self, owner_id: str | None = None) -> builtins.list[ApiKey]:
        """Returns all keys, or those of a person, by name; the ended ones, too."""
        wanted = select(tables.api_keys).order_by(tables.api_keys.c.name, tables.api_keys.c.id)
        if owner_id is not None:
            wanted = wanted.where(tables.api_keys.c.owner_id == (owner_id if is_id(owner_id) else ""))
        with self._db.read() as connection:
            return [_read(connection, row) for row in connection.execute(wanted).all()]

    def get(self, key_id: str) -> ApiKey:
        """Returns a key.

        Raises:
            NotFoundError: there is none.
        """
        with self._db.read() as connection:
            return _read(connection, _found(_row(connection, key_id), key_id))

    def authenticate(self, text: str) -> Principal:
        """Returns who shows a key, with what it may do now.

        Raises:
            AuthenticationError: it is none, wrong, or has ended, or its owner may not act.
        """
        return self.check(text)[0]

    def check(self, text: str) -> tuple[Principal, datetime | None]:
        """As `authenticate`; also until when the answer is good if nothing changes, None for ever.

        Raises:
            AuthenticationError: as there.
        """
        now = self._now()
        form = _FORM.fullmatch(text)
        # The same work for every text: one hash, the same looks, two comparisons.
        shown = digest(text)
        with self._db.read() as connection:
            row = connection.execute(
                select(tables.api_keys).where(tables.api_keys.c.id == ("" if form is None else form.group(1)))
            ).one_or_none()
            held, is_out = _rights_in(connection, row), _is_out(connection, row)
        is_shown, until = _shown(row, shown)
        if row is None or not is_shown:
            raise self._refused(row, "unknown" if row is None else "secret")
        principal = self._principal(row, held, until, now, is_out=is_out, shown=shown)
        keep_use(self._db, tables.api_keys, row, now)
        return principal, until

    def still(self, key: Principal) -> tuple[Principal, datetime | None] | None:
        """Returns who a key that was shown before is, with what it may do now, and until when.

        None where it has ended, and where the secret that was shown is not good any more.
        """
        shown = key.secret or b""
        with self._db.read() as connection:
            row = _row(connection, key.id or "")
            is_shown, until = _shown(row, shown)
            if row is None or not is_shown:
                return None
            held, is_out = _rights_in(connection, row), _is_out(connection, row)
        try:
            return self._principal(row, held, until, self._now(), is_out=is_out, shown=shown), until
        except AuthenticationError:
            return None

    def _principal(
        self,
        row: Any,  # noqa: ANN401 - a row
        held: Rights,
        until: datetime | None,
        now: datetime,
        *,
        is_out: bool,
        shown: bytes,
    ) -> Principal:
        if row.revoked_at is not None:
            raise self._refused(row, "revoked")
        if until is not None and until <= now:
            raise self._refused(row, "expired")
        if is_out:
            raise self._refused(row, "owner-disabled")
        return Principal(
            PrincipalKind.KEY,
            f"{row.name}.{row.id}",
            rights=held,
            id=row.id,
            rate=row.rate,
            quota=row.quota,
            owner_id=row.owner_id,
            secret=shown,
        )

    def _mine(self, connection: Connection, actor: Principal, key_id: str) -> Any:  # noqa: ANN401 - a row
        """Returns a key that the actor may change; whether there is one that is not theirs is not told."""
        row = _row(connection, key_id)
        is_own = row is not None and actor.is_person and row.owner_id is not None and row.owner_id == actor.id
        check_actor_in(connection, actor, None if is_own else Action.ACCESS_CHANGE)
        return _found(row, key_id)

    def _changed(
        self, connection: Connection, kind: EventKind, actor: Principal, key_id: str, details: dict[str, Any]
    ) -> None:
        grow_revision(connection)
        self._events.record(
            Event(self._now(), kind, Outcome.DONE, actor.told(), subject=f"key:{key_id}", details=details)
        )

    def _refused(self, row: Any, why: str) -> AuthenticationError:  # noqa: ANN401 - a row
        """Tells why a key was refused; the one who showed it is not told."""
        subject = None if row is None else f"key:{row.id}"
        self._events.record(
            Event(self._now(), EventKind.KEY_REFUSED, Outcome.REFUSED, "nobody", subject=subject, why=why)
        )
        return AuthenticationError("this key is not accepted")


def _row(connection: Connection, key_id: str) -> Any:  # noqa: ANN401 - a row or None
    if not is_id(key_id):
        return None
    return connection.execute(select(tables.api_keys).where(tables.api_keys.c.id == key_id)).one_or_none()


def _found(row: Any, key_id: str) -> Any:  # noqa: ANN401 - a row
    if row is None:
        raise NotFoundError("no such key", got=key_id[:80])
    return row


def _shown(row: Any, shown: bytes) -> tuple[bool, datetime | None]:  # noqa: ANN401 - a row or None
    """Whether the digest of what was shown is that of a key's secret, and until when that counts; the same work for each."""
    is_current = hmac.compare_digest(shown, _NOBODYS if row is None else row.secret_hash)
    is_previous = hmac.compare_digest(shown, _NOBODYS if row is None else row.previous_hash or _NOBODYS)
    if row is None or not (is_current or is_previous):
        return False, None
    until: datetime | None = _end(row)
    if not is_current:
        until = row.previous_until if until is None else min(until, row.previous_until)
    return True, until


def _rights_in(connection: Connection, row: Any) -> Rights:  # noqa: ANN401 - a row or None
    """Returns what a key may do: what it was granted, within what its owner may.

    Where there is no key, or no owner, nobody's are looked up: the number of statements must not tell which keys there are.
    """
    held = machine_rights_in(connection, "key", "" if row is None else row.id)
    owners = granting.rights_in(connection, _owner(row))
    return held if row is None or row.owner_id is None else held.within(owners)


def _owner(row: Any) -> str:  # noqa: ANN401 - a row or None
    return "" if row is None or row.owner_id is None else str(row.owner_id)


def _is_out(connection: Connection, row: Any) -> bool:  # noqa: ANN401 - a row or None
    """Whether a key's owner is disabled; a key goes when its owner does."""
    return bool(connection.execute(select(tables.users.c.is_disabled).where(tables.users.c.id == _owner(row))).scalar())


def _check_fresh(actor: Principal, now: datetime) -> None:
    """Refuses a person who proved themselves too long ago: a key is not asked again, so it would be a way around that."""
    if not actor.is_fresh(now):
        raise StepUpError("prove again who you are", got=actor.told())


def _check_owner(connection: Connection, actor: Principal, owner_id: str | None) -> None:
    """Lets pass who may make a key for somebody."""
    is_own = owner_id is not None and actor.is_person and owner_id == actor.id
    check_actor_in(connection, actor, None if is_own else Action.ACCESS_CHANGE)
    if is_own and actor.must_enrol:
        raise ForbiddenError("this is not allowed to you", got=actor.told(), hint="Add a second factor first.")
    owners = select(tables.users.c.id).where(tables.users.c.id == owner_id)
    if owner_id is not None and (not is_id(owner_id) or connection.execute(owners).first() is None):
        raise NotFoundError("no such user", got=owner_id[:80])


def _check_within(connection: Connection, key_id: str, owner_id: str) -> None:
    """Refuses a key that was granted more than its owner has; the transaction then does not end well."""
    wanted, own = machine_rights_in(connection, "key", key_id), granting.rights_in(connection, owner_id)
    if wanted.within(own) != wanted:
        raise ForbiddenError(
            "a key may do no more than you",
            expected="within " + (", ".join(grant.told() for _, grant in own.grants) or "no grant"),
            got=", ".join(grant.told() for _, grant in wanted.grants),
        )


def _make_text(key_id: str) -> str:
    return f"ssk_{key_id}_{new_token()}"


def _end(row: Any) -> Any:  # noqa: ANN401 - a row, and datetime | None
    """Returns when a key ends or ended."""
    return row.revoked_at if row.revoked_at is not None else row.expires_at


def _read(connection: Connection, row: Any) -> ApiKey:  # noqa: ANN401 - a row
    return ApiKey(
        id=row.id,
        name=row.name,
        owner_id=row.owner_id,
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        used_at=row.used_at,
        revoked_at=row.revoked_at,
        rate=row.rate,
        quota=row.quota,
        grants=told_grants_in(connection, "key", row.id),
        rotating_until=row.previous_until,
    )
