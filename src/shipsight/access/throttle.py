# SPDX-License-Identifier: Apache-2.0
"""Slows guessing down, by account and not by address, without shutting anybody out.

The first five tries are free; from then on each costs a wait that doubles, up to an hour for passwords and a day for codes. A try
counts as failed before it is made, so that a thousand at once are a thousand failures; what was right is forgiven afterwards.
A browser that signed in before shows a token, and is counted by itself: whoever hammers an account from elsewhere makes its owner
wait nowhere they are known. In a year without a pause that leaves 8,775 guesses of a password and 385 of a code (of which 3 in a
million are right at a time). NIST's hundred failures in a row are no limit here: nothing is ever locked. An unknown user is
counted like a known one; since names can be invented without end, at most 10,000 counts of passwords are kept, and those of the
fewest failures, of these the oldest, give way: who would rid a name of its count has to fail at 9,000 others at least as often.
Counts of codes, which take a password that was right, are kept until they are forgotten. Stable.
Sources: OWASP ASVS 5.0, 6.3.1 and 6.6.3; OWASP "Slow Down Online Guessing Attacks with Device Cookies"; NIST SP 800-63B-4, 3.2.2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from shipsight.access.store import Database
from shipsight.access.store.tables import throttles
from shipsight.errors import RateLimitError

__all__ = ["CODES", "PASSWORDS", "Pace", "Throttle"]

_FREE = 5
_MOST_ROWS = 10_000


@dataclass(frozen=True)
class Pace:
    """How fast something may be guessed.

    Attributes:
        name: of what is guessed.
        longest_s: longest wait between two tries, s.
        forgets_s: seconds without a try after which all is forgotten.
    """

    name: str
    longest_s: float
    forgets_s: float

    def wait_s(self, failures: int) -> float:
        """Returns the seconds to wait after so many failures in a row."""
        return 0.0 if failures < _FREE else min(2.0 ** min(failures - _FREE, 64), self.longest_s)


PASSWORDS = Pace("password", longest_s=3600.0, forgets_s=86400.0)
# Whoever guesses codes knows the password: forgotten so late that waiting for it is no faster than going on.
CODES = Pace("code", longest_s=86400.0, forgets_s=30 * 86400.0)


class Throttle:
    """Counts tries.

    Args:
        db: where they are counted.
        now: tells the time.
    """

    def __init__(self, db: Database, now: Callable[[], datetime]) -> None:
        self._db = db
        self._now = now

    def take(self, pace: Pace, whom: str) -> None:
        """Takes a try, which counts as failed until `forgive`.

        Args:
            pace: of what is tried.
            whom: is tried, and from where if that is known: any text.

        Raises:
            RateLimitError: it is too early; says when to come again. Then it does not count.
        """
        now, name = self._now(), _name(pace, whom)
        with self._db.write() as connection:
            row = connection.execute(select(throttles).where(throttles.c.name == name)).one_or_none()
            failures = 0 if row is None or _is_forgotten(pace, row.changed_at, now) else row.failures
            wait = pace.wait_s(failures)
            if row is not None and now < row.changed_at:
                # The clock went back: the wait begins anew, once, so that it is never longer than it should be.
                blocked_until = min(row.blocked_until, now + timedelta(seconds=wait))
                connection.execute(
                    update(throttles)
                    .where(throttles.c.name == name)
                    .values(changed_at=now, blocked_until=blocked_until)
                )
            else:
                blocked_until = now if row is None or failures == 0 else row.blocked_until
            if now >= blocked_until:
                failures += 1
                values = {
                    "failures": failures,
                    "blocked_until": now + timedelta(seconds=pace.wait_s(failures)),
                    "changed_at": now,
                }
                if row is None:
                    if pace is PASSWORDS:
                        _make_room(connection, now)
                    connection.execute(insert(throttles).values(name=name, **values))
                else:
                    connection.execute(update(throttles).where(throttles.c.name == name).values(**values))
                return
        raise _too_early(blocked_until - now)

    def forgive(self, pace: Pace, whom: str) -> None:
        """Forgets the failures: the last try was right."""
        with self._db.write() as connection:
            connection.execute(delete(throttles).where(throttles.c.name == _name(pace, whom)))


def _name(pace: Pace, whom: str) -> str:
    # Names come from whoever asks: hashed, they have one length.
    return f"{pace.name}:{hashlib.sha256(whom.encode(errors='surrogatepass')).hexdigest()}"


def _is_forgotten(pace: Pace, changed_at: datetime, now: datetime) -> bool:
    return now - changed_at > timedelta(seconds=pace.forgets_s)


def _make_room(connection: Connection, now: datetime) -> None:
    """Names that nobody has can be tried without end: where there are too many, a tenth gives way at once, so that few tries pay."""
    if _count(connection) < _MOST_ROWS:
        return
    for pace in (PASSWORDS, CODES):
        is_forgotten = throttles.c.changed_at < now - timedelta(seconds=pace.forgets_s)
        connection.execute(delete(throttles).where(_of(pace), is_forgotten))
    surplus = _count(connection) - (_MOST_ROWS - _MOST_ROWS // 10)
    if surplus > 0:
        least = select(throttles.c.name).where(_of(PASSWORDS))
        least = least.order_by(throttles.c.failures, throttles.c.changed_at).limit(surplus)
        connection.execute(delete(throttles).where(throttles.c.name.in_(least.scalar_subquery())))


def _count(connection: Connection) -> int:
    return connection.scalar(select(func.count()).select_from(throttles).where(_of(PASSWORDS))) or 0


def _of(pace: Pace) -> ColumnElement[bool]:
    return throttles.c.name.startswith(f"{pace.name}:")


def _too_early(wait: timedelta) -> RateLimitError:
    error = RateLimitError("too many tries", hint="Wait, or use a browser that you signed in with before.")
    error.retry_after_s = max(1, -(-wait // timedelta(seconds=1)))
    return error
