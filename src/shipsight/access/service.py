# SPDX-License-Identifier: Apache-2.0
"""All of access to a server, opened: what its protocols and commands ask. Heavy to import; a server without users does not.

Stable.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from shipsight.access.client_certificates import ClientCertificates
from shipsight.access.directory import Directory
from shipsight.access.events import EventSink, LoggedEvents
from shipsight.access.factors import Factors
from shipsight.access.keys import Keys
from shipsight.access.open_id import OpenId
from shipsight.access.passkeys import Passkeys
from shipsight.access.passwords import Passwords
from shipsight.access.sessions import Sessions
from shipsight.access.settings import AccessSettings
from shipsight.access.sign_in import SignIn
from shipsight.access.store import Database, SecretBox, load_keys, open_database

__all__ = ["Access", "utc_now"]


def utc_now() -> datetime:
    """Returns the time."""
    return datetime.now(UTC)


class Access:
    """Who is known, what they may do, and how they prove who they are.

    Args:
        settings: of it.
        database: of identities; closed with this.
        box: encrypts secrets.
        origin: that browsers see, `https://host[:port]`.
        events: takes what happens.
        now: tells the time.
    """

    def __init__(
        self,
        settings: AccessSettings,
        database: Database,
        box: SecretBox,
        *,
        origin: str,
        events: EventSink,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.settings = settings
        self.database = database
        self.events = events
        self.now = now
        self.origin = origin
        self.directory = Directory(database, events, now)
        self.factors = Factors(database, box, events, now)
        self.passkeys = Passkeys(database, events, now, origin=origin)
        self.sessions = Sessions(
            database,
            self.directory,
            events,
            now,
            idle_s=settings.idle_s,
            absolute_s=settings.absolute_s,
            fresh_s=settings.fresh_s,
        )
        self.sign_in = SignIn(
            database,
            self.directory,
            self.factors,
            self.passkeys,
            self.sessions,
            events,
            now,
            passwords=Passwords(words=(urlsplit(origin).hostname or "",)),
        )
        self.keys = Keys(database, events, now)
        self.certificates = ClientCertificates(database, events, now)
        self.open_id = (
            None
            if settings.openid is None
            else OpenId(settings.openid, database, self.directory, events, now, origin=origin)
        )

    @classmethod
    def open(
        cls, settings: AccessSettings, *, origin: str, events: EventSink | None = None, migrate: bool = True
    ) -> Self:
        """Opens the database and the key that the settings name.

        Raises:
            UsageError, EnvironmentLackError: one cannot be used.
        """
        box = SecretBox(load_keys(settings.secrets_key, make=True))
        database = open_database(settings.database, migrate=migrate)
        return cls(settings, database, box, origin=settings.public_url or origin, events=events or LoggedEvents())

    def close(self) -> None:
        """Closes the database."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
