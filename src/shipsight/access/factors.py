# SPDX-License-Identifier: Apache-2.0
"""Second factors that are codes: one-time codes of an authenticator (TOTP), and recovery codes.

A one-time code is taken for the step of thirty seconds that it belongs to, and for the one before and after, since clocks differ:
ninety seconds instead of the thirty of ASVS 6.5.5, as RFC 6238, 5.2 allows; each step is taken once and never an earlier one, by one
conditional update, however many ask at once. Recovery codes have 140 random bits, so that a SHA-256 is enough (ASVS 6.5.2), and
are taken once each; older ones of 120 bits are taken as well. Invariants: seeds are encrypted; people change their own factors alone, shortly after they proved who they
are; an administrator may only take a lost factor away. Leaves to others: slowing down guesses (`throttle`), passkeys. Stable.
Sources: RFC 6238; OWASP ASVS 5.0, 6.5, 6.4.3, 7.5.1.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pyotp
from sqlalchemy import Connection, delete, func, insert, select, update

from shipsight.access.acting import check_actor_in
from shipsight.access.ending import end_sessions_in
from shipsight.access.events import Event, EventKind, EventSink, Outcome
from shipsight.access.grants import check_is_not_an_auditors_in, groups_in, rights_in
from shipsight.access.permissions import Action
from shipsight.access.principal import Principal
from shipsight.access.sessions import strengthen_in
from shipsight.access.store import Database, SecretBox, grow_revision
from shipsight.access.store.tables import passkeys, recovery_codes, sessions, totps, users
from shipsight.access.tokens import digest, new_id
from shipsight.errors import AuthenticationError, ForbiddenError, NotFoundError, StepUpError

__all__ = [
    "FactorList",
    "Factors",
    "TotpSetup",
    "check_factors_are_own",
    "check_is_not_last_in",
    "factors_in",
    "looks_like_recovery",
]

_STEP_S = 30
_WINDOW = 1
_CODE = re.compile(r"[0-9]{6}")
_RECOVERY = re.compile(r"[A-Z2-7]{28}|[A-Z2-7]{24}")  # the shorter ones are no longer made
_SEED_BASE32 = 32  # 160 bits, as RFC 4226, 4 recommends
_RECOVERY_LETTERS, _RECOVERY_CODES = 28, 10
_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_SETUP_LIVES = timedelta(minutes=15)


@dataclass(frozen=True)
class TotpSetup:
    """What an authenticator has to be told, once.

    Attributes:
        secret: in Base32, to be typed.
        uri: `otpauth://...`, to be shown as a picture.
    """

    secret: str = field(repr=False)
    uri: str = field(repr=False)


@dataclass(frozen=True)
class FactorList:
    """What a person has beside a password.

    Attributes:
        has_totp: whether an authenticator is set up.
        passkeys: how many.
        recovery_left: recovery codes that were not used.
    """

    has_totp: bool
    passkeys: int
    recovery_left: int

    @property
    def has_second(self) -> bool:
        """Whether there is a second factor; recovery codes only stand in for one."""
        return self.has_totp or self.passkeys > 0


class Factors:
    """One-time codes and recovery codes.

    Args:
        db: where they are kept.
        box: encrypts seeds.
        events: takes what happens, before it is kept.
        now: tells the time.
    """

    def __init__(self, db: Database, box: SecretBox, events: EventSink, now: Callable[[], datetime]) -> None:
        self._db = db
        self._box = box
        self._events = events
        self._now = now

    def begin_totp(self, user_id: str) -> TotpSetup:
        """Makes a seed, which is in force once it was confirmed; one that was not before is replaced.

        Raises:
            NotFoundError: there is no such user.
        """
        seed, row_id = pyotp.random_base32(_SEED_BASE32), new_id()
        with self._db.write() as connection:
            name = connection.execute(select(users.c.name).where(users.c.id == user_id)).scalar_one_or_none()
            if name is None:
                raise NotFoundError("no such user", got=user_id)
            connection.execute(delete(totps).where(totps.c.user_id == user_id, totps.c.is_confirmed.is_(False)))
            connection.execute(
                insert(totps).values(
                    id=row_id,
                    user_id=user_id,
                    secret=self._box.seal(seed.encode(), belongs_to=row_id),
                    last_step=0,
                    is_confirmed=False,
                    created_at=self._now(),
                )
            )
        return TotpSetup(seed, pyotp.TOTP(seed).provisioning_uri(name=name, issuer_name="shipsight"))

    def confirm_totp(self, actor: Principal, user_id: str, code: str) -> None:
        """Puts a seed in force that the person's authenticator knows, instead of one before.

        The session that does it counts as proved by it; others of the person that have no second factor end.

        Raises:
            ForbiddenError: it is another person's.
            StepUpError: the person has to prove first who they are.
            AuthenticationError: the code is not right, the seed was made too long ago, or the person's session has ended.
        """
        check_factors_are_own(actor, user_id, self._now())
        with self._db.write() as connection:
            check_actor_in(connection, actor)
            is_first = not factors_in(connection, user_id).has_second
            row = connection.execute(
                select(totps).where(totps.c.user_id == user_id, totps.c.is_confirmed.is_(False))
            ).one_or_none()
            at = self._now()
            steps = [] if row is None or at - row.created_at > _SETUP_LIVES else self._steps(row.id, row.secret, code)
            if row is None or not steps:
                raise AuthenticationError("the code is not right", hint="Begin again if it was shown long ago.")
            connection.execute(delete(totps).where(totps.c.user_id == user_id, totps.c.id != row.id))
            connection.execute(
                update(totps).where(totps.c.id == row.id).values(is_confirmed=True, last_step=max(steps))
            )
            strengthen_in(connection, actor, "totp", is_first=is_first, events=self._events, at=at)
            self._tell(EventKind.FACTOR_ADDED, actor, actor.told(), "totp")

    def check_totp(self, user_id: str, code: str) -> bool:
        """Whether a one-time code is right; then it is used up, and all before it."""
        with self._db.write() as connection:
            return self.check_totp_in(connection, user_id, code)

    def check_totp_in(self, connection: Connection, user_id: str, code: str) -> bool:
        """Does what `check_totp` does within a transaction of the caller's."""
        row = connection.execute(
            select(totps).where(totps.c.user_id == user_id, totps.c.is_confirmed.is_(True))
        ).one_or_none()
        if row is None:
            return False
        return any(
            connection.execute(
                update(totps).where(totps.c.id == row.id, totps.c.last_step < step).values(last_step=step)
            ).rowcount
            == 1
            for step in self._steps(row.id, row.secret, code)
        )

    def remove_totp(self, actor: Principal, user_id: str) -> None:
        """Takes one-time codes away: one's own, or those of somebody who lost them, by who may change access.

        Sessions of somebody else end; recovery codes go with the last second factor.

        Raises:
            ForbiddenError: the actor may not, or it is their last second factor and they need one.
            StepUpError: the person has to prove first who they are.
            AuthenticationError: the actor's session has ended.
            NotFoundError: there are none.
        """
        at = self._now()
        check_factors_are_own(actor, user_id, at, or_action=Action.ACCESS_CHANGE)
        with self._db.write() as connection:
            check_actor_in(connection, actor, None if actor.id == user_id else Action.ACCESS_CHANGE)
            check_is_not_an_auditors_in(connection, actor, user_id, command="user reset-factors")
            name = connection.execute(
                select(users.c.name).join(totps, totps.c.user_id == users.c.id).where(users.c.id == user_id)
            ).scalar()
            if name is None:
                raise NotFoundError("no one-time codes are set up", got=user_id)
            connection.execute(delete(totps).where(totps.c.user_id == user_id))
            check_is_not_last_in(connection, actor, user_id, events=self._events, at=at)
            self._tell(EventKind.FACTOR_REMOVED, actor, f"person:{name}", "totp")

    def make_recovery_codes(self, actor: Principal, user_id: str) -> list[str]:
        """Returns ten new recovery codes, which replace older ones.

        Raises:
            ForbiddenError: it is another person, or one without a second factor that they could stand in for.
            StepUpError: the person has to prove first who they are.
            AuthenticationError: the person's session has ended.
        """
        check_factors_are_own(actor, user_id, self._now())
        codes = [_make_recovery() for _ in range(_RECOVERY_CODES)]
        with self._db.write() as connection:
            check_actor_in(connection, actor)
            if not factors_in(connection, user_id).has_second:
                raise ForbiddenError("recovery codes stand in for a second factor", hint="Add one first.")
            connection.execute(delete(recovery_codes).where(recovery_codes.c.user_id == user_id))
            connection.execute(
                insert(recovery_codes),
                [{"id": new_id(), "user_id": user_id, "code_hash": _hash_recovery(user_id, code)} for code in codes],
            )
            self._tell(EventKind.CODES_MADE, actor, actor.told(), "recovery")
        return codes

    def use_recovery_code(self, user_id: str, code: str) -> bool:
        """Whether a recovery code is right and was not used; then it is used up."""
        with self._db.write() as connection:
            return self.use_recovery_code_in(connection, user_id, code)

    def use_recovery_code_in(self, connection: Connection, user_id: str, code: str) -> bool:
        """Does what `use_recovery_code` does within a transaction of the caller's."""
        done = connection.execute(
            update(recovery_codes)
            .where(
                recovery_codes.c.user_id == user_id,
                recovery_codes.c.code_hash == _hash_recovery(user_id, code),
                recovery_codes.c.used_at.is_(None),
            )
            .values(used_at=self._now())
        )
        return done.rowcount == 1

    def of(self, user_id: str) -> FactorList:
        """Returns what a person has beside a password."""
        with self._db.read() as connection:
            return factors_in(connection, user_id)

    def _steps(self, row_id: str, sealed: bytes, code: str) -> list[int]:
        """Returns the steps that a code is right for, of the three around now."""
        digits = "".join(code.split())
        if not _CODE.fullmatch(digits):
            return []
        generator = pyotp.TOTP(self._box.open(sealed, belongs_to=row_id).decode())
        here = int(self._now().timestamp()) // _STEP_S
        around = range(here - _WINDOW, here + _WINDOW + 1)
        return [step for step in around if hmac.compare_digest(generator.generate_otp(step), digits)]

    def _tell(self, kind: EventKind, actor: Principal, subject: str, factor: str) -> None:
        self._events.record(Event(self._now(), kind, Outcome.DONE, actor.told(), subject=subject, factor=factor))


def looks_like_recovery(code: str) -> bool:
    """Whether a text has the form of a recovery code."""
    return _RECOVERY.fullmatch(_read_recovery(code)) is not None


def factors_in(connection: Connection, user_id: str) -> FactorList:
    """Does what `Factors.of` does within a transaction of the caller's."""
    confirmed = (totps.c.user_id == user_id) & totps.c.is_confirmed.is_(True)
    unused = (recovery_codes.c.user_id == user_id) & recovery_codes.c.used_at.is_(None)
    counts = [
        connection.execute(select(func.count()).select_from(table).where(which)).scalar_one()
        for table, which in ((totps, confirmed), (passkeys, passkeys.c.user_id == user_id), (recovery_codes, unused))
    ]
    return FactorList(counts[0] > 0, counts[1], counts[2])


def check_factors_are_own(actor: Principal, user_id: str, now: datetime, *, or_action: Action | None = None) -> None:
    """Refuses who would change somebody else's factors, and who has not proved who they are for a while.

    Args:
        actor: who would.
        user_id: whose factors.
        now: time.
        or_action: what allows it on others, None where nothing does.

    Raises:
        ForbiddenError: they are another's.
        StepUpError: the person has to prove first who they are.
    """
    if actor.id != user_id or not actor.is_person:
        if or_action is None:
            raise ForbiddenError("everybody sets up their own factors")
        actor.require(or_action, now=now)
    elif not actor.is_fresh(now):
        raise StepUpError("prove again who you are", got=actor.told())


def check_is_not_last_in(
    connection: Connection, actor: Principal, user_id: str, *, events: EventSink, at: datetime
) -> None:
    """Sees to what is left when a second factor was taken away, in the same transaction, by whoever took it.

    Args:
        connection: of the transaction.
        actor: who took it.
        user_id: whose it was; the sessions of somebody else than the actor end.
        events: takes what happens, before it is kept.
        at: time.

    Raises:
        ForbiddenError: it was the actor's last, and they need one.
    """
    left = factors_in(connection, user_id)
    is_own = actor.id == user_id
    if not left.has_second:
        if is_own and rights_in(connection, user_id, groups_in(connection, actor)).needs_factors:
            raise ForbiddenError("your rights need a second factor", hint="Add another one before you remove this.")
        connection.execute(delete(recovery_codes).where(recovery_codes.c.user_id == user_id))
    if not is_own:
        end_sessions_in(connection, sessions.c.user_id == user_id, events=events, actor=actor, at=at)
    grow_revision(connection)


def _make_recovery() -> str:
    text = "".join(secrets.choice(_BASE32) for _ in range(_RECOVERY_LETTERS))
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


def _read_recovery(code: str) -> str:
    return "".join(code.split()).replace("-", "").upper()


def _hash_recovery(user_id: str, code: str) -> str:
    return digest(f"{user_id}:{_read_recovery(code)}").hex()
