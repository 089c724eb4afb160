# SPDX-License-Identifier: Apache-2.0
"""What the verbs that manage identities share: the database, opened on behalf of whoever runs the command. Private to `cli`."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipsight.cli.access_place import default_database, default_secrets_key, sqlite_path
from shipsight.errors import EnvironmentLackError, MissingDependencyError

if TYPE_CHECKING:
    from shipsight.access import EventSink, Grant, Principal
    from shipsight.access.client_certificates import ClientCertificates
    from shipsight.access.directory import Directory
    from shipsight.access.keys import Keys
    from shipsight.access.store import Database, SecretBox

__all__ = [
    "DatabaseOption",
    "JsonOption",
    "Rooms",
    "SecretsKeyOption",
    "day",
    "moment",
    "open_rooms",
    "parse_grants",
    "secrets_key_path",
]

DatabaseOption = Annotated[
    str | None,
    typer.Option("--database", help="Path of SQLite's file, or postgresql://...; default: $SHIPSIGHT_DATABASE."),
]
SecretsKeyOption = Annotated[
    Path | None,
    typer.Option("--secrets-key", help="File of the key that encrypts secrets; default: beside the database."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@dataclass(frozen=True)
class Rooms:
    """Identities, and who acts on them.

    Attributes:
        database: open.
        url: of it.
        actor: the operating system's user who runs the command.
        events: takes what happens.
        now: tells the time.
        directory: of people and roles.
        keys: of programs.
        certificates: of clients.
    """

    database: Database
    url: str
    actor: Principal
    events: EventSink
    now: Callable[[], datetime]
    directory: Directory
    keys: Keys
    certificates: ClientCertificates

    def box(self, secrets_key: Path | None) -> SecretBox:
        """Returns what opens secrets, with the key made where there is none."""
        from shipsight.access.store import SecretBox, load_keys

        return SecretBox(load_keys(secrets_key_path(self.url, secrets_key), make=True))


@contextmanager
def open_rooms(database: str | None, *, changes: bool) -> Iterator[Rooms]:
    """Opens identities.

    Args:
        database: as the option gives it.
        changes: whether something is to be changed: then tables are made or brought forward, else they must be there.

    Raises:
        EnvironmentLackError: there is no such database, or it does not answer, or is of another version.
        MissingDependencyError: a package is missing.
    """
    url = database or default_database()
    path = sqlite_path(url)
    if not changes and path is not None and not path.exists():
        raise EnvironmentLackError("nobody is known: there is no database", where=path, hint="Run: shipsight user add")
    try:
        from shipsight.access import LoggedEvents
        from shipsight.access.client_certificates import ClientCertificates
        from shipsight.access.directory import Directory
        from shipsight.access.keys import Keys
        from shipsight.access.store import open_database
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"package {error.name} is not installed", hint="Run: pip install 'shipsight[serve]'"
        ) from error
    events, opened = LoggedEvents(), open_database(url, migrate=changes)
    try:
        directory = Directory(opened, events, _now)
        keys, certificates = Keys(opened, directory, events, _now), ClientCertificates(opened, directory, events, _now)
        yield Rooms(opened, url, _who(), events, _now, directory, keys, certificates)
    finally:
        opened.close()


def secrets_key_path(database: str, given: Path | None) -> Path:
    """Returns where the key for secrets is."""
    return default_secrets_key(database) if given is None else given


def parse_grants(texts: Sequence[str] | None) -> list[Grant]:
    """Reads grants as options give them, `ROLE` or `ROLE@MODELS`.

    Raises:
        UsageError: one is none.
    """
    from shipsight.access import Grant

    return [Grant.parse(one) for one in texts or ()]


def moment(time: datetime | None) -> str | None:
    """Returns a time as documents have it."""
    return None if time is None else time.isoformat(timespec="seconds")


def day(time: datetime | None) -> str:
    """Returns a time as tables have it, in UTC."""
    return "-" if time is None else f"{time:%Y-%m-%d %H:%M}"


def _now() -> datetime:
    return datetime.now(UTC)


def _who() -> Any:  # noqa: ANN401 - Principal, imported lazily
    """Returns who runs the command, by what the kernel says, not the environment."""
    from shipsight.access import OPEN_RIGHTS, Principal, PrincipalKind

    number = os.geteuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = f"uid-{number}"
    return Principal(PrincipalKind.SERVER, name, rights=OPEN_RIGHTS)
