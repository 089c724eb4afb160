# SPDX-License-Identifier: Apache-2.0
"""What the verbs that manage identities share: the database, opened on behalf of whoever runs the command. Private to `cli`."""

from __future__ import annotations

import logging
import os
import pwd
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipsight.cli.access_place import default_database, default_secrets_key, sqlite_path
from shipsight.cli.audit_place import AUDIT_VARIABLE, audit_key_path, audit_place, log_left_alone, server_name
from shipsight.errors import EnvironmentLackError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    from shipsight.access import EventSink, Grant, Principal
    from shipsight.access.client_certificates import ClientCertificates
    from shipsight.access.directory import Directory
    from shipsight.access.keys import Keys
    from shipsight.access.sessions import Sessions
    from shipsight.access.store import Database, SecretBox
    from shipsight.serve.audit_options import AuditOptions

__all__ = [
    "DatabaseOption",
    "JsonOption",
    "Rooms",
    "SecretsKeyOption",
    "changed_grants",
    "day",
    "moment",
    "open_rooms",
    "parse_grants",
    "recorded_events",
    "secrets_key_path",
    "who",
]

_LONGEST_S = 400 * 86400.0
_log = logging.getLogger("shipsight.access")

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
        sessions: of people; those that a server holds to be over for want of use are among them until it tidies up.
    """

    database: Database
    url: str
    actor: Principal
    events: EventSink
    now: Callable[[], datetime]
    directory: Directory
    keys: Keys
    certificates: ClientCertificates
    sessions: Sessions

    def box(self, secrets_key: Path | None) -> SecretBox:
        """Returns what opens secrets, with the key made where there is none."""
        from shipsight.access.store import SecretBox, load_keys

        return SecretBox(load_keys(secrets_key_path(self.url, secrets_key), make=True))


@contextmanager
def open_rooms(database: str | None, *, changes: bool) -> Iterator[Rooms]:
    """Opens identities; what happens to them is recorded in the audit log, and told on standard error, as a server tells it.

    The log is that of `$SHIPSIGHT_AUDIT`, else the one beside the database; it is opened for the first event. Where one lies beside
    the database and the variable names another, or none, that is recorded there first. What cannot be recorded is not done.

    Args:
        database: as the option gives it.
        changes: whether something is to be changed: then tables are made or brought forward, else they must be there.

    Raises:
        EnvironmentLackError: there is no such database, or it does not answer, or is of another version.
        AuditError: what is to be done cannot be recorded.
        MissingDependencyError: a package is missing.
    """
    url = database or default_database()
    path = sqlite_path(url)
    if not changes and path is not None and not path.exists():
        raise EnvironmentLackError("nobody is known: there is no database", where=path, hint="Run: shipsight user add")
    try:
        from shipsight.access.client_certificates import ClientCertificates
        from shipsight.access.directory import Directory
        from shipsight.access.keys import Keys
        from shipsight.access.sessions import Sessions
        from shipsight.access.store import open_database
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"package {error.name} is not installed", hint="Run: pip install 'shipsight[serve]'"
        ) from error
    with (
        recorded_events(url) as events,
        closing(open_database(url, migrate=changes)) as opened,
    ):
        directory = Directory(opened, events, _now)
        keys, certificates = Keys(opened, events, _now), ClientCertificates(opened, events, _now)
        # None is begun here, and which of them were not used for too long is the server's to say.
        lives: dict[str, float] = dict.fromkeys(("idle_s", "absolute_s", "fresh_s"), _LONGEST_S)
        sessions = Sessions(opened, directory, events, _now, **lives)
        yield Rooms(opened, url, who(), events, _now, directory, keys, certificates, sessions)


@contextmanager
def recorded_events(database: str) -> Iterator[EventSink]:
    """Gives what records the events of a command in the audit log of an identities' database, and tells them on standard error.

    Args:
        database: path of SQLite's file, or a URL; it is not opened.

    Raises:
        MissingDependencyError: a package is missing.
    """
    try:
        from shipsight.serve.audit_opening import LateAudit
        from shipsight.serve.logs import LogFormat, log_events
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"package {error.name} is not installed", hint="Run: pip install 'shipsight[serve]'"
        ) from error
    form = LogFormat.TEXT if sys.stderr.isatty() else LogFormat.JSON
    with (
        log_events(form, sys.stderr),
        LateAudit(_audit_options(database), elsewhere=f"${AUDIT_VARIABLE}") as events,
    ):
        yield events


def _audit_options(database: str) -> AuditOptions:
    """Returns where commands record what they do to identities, as the environment says or beside them."""
    from shipsight.serve.audit_options import AuditOptions

    place = audit_place(database=database)
    off_at, off_key = log_left_alone(database, place) or (None, None)
    if place is None:
        _log.warning("$%s is off: what is done here is not recorded", AUDIT_VARIABLE)
        return AuditOptions(server=server_name(), off_at=off_at, off_key=off_key)
    key = audit_key_path(None, place)
    return AuditOptions(place=place, key=key, server=server_name(), off_at=off_at, off_key=off_key)


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


def changed_grants(
    name: str,
    had: Sequence[Grant],
    *,
    given: Sequence[str] | None,
    taken: Sequence[str] | None,
    replace: bool,
) -> list[Grant]:
    """Returns what somebody holds after a change that options describe.

    Args:
        name: of them.
        had: what they hold.
        given: what they are given beside it.
        taken: what is taken from it.
        replace: whether all of it is.

    Raises:
        UsageError: nothing is given or taken, or something that is not theirs.
    """
    giving, taking = parse_grants(given), parse_grants(taken)
    if not giving and not taking and not replace:
        raise UsageError("nothing to give or take", where=name, hint="Name a grant, --take one, or --replace all.")
    strange = [one.told() for one in taking if one not in had]
    if strange:
        raise UsageError(
            "not theirs", where=name, expected=" ".join(one.told() for one in had) or "none", got=" ".join(strange)
        )
    kept = () if replace else tuple(one for one in had if one not in taking)
    return list(dict.fromkeys((*kept, *giving)))


def moment(time: datetime | None) -> str | None:
    """Returns a time as documents have it."""
    return None if time is None else time.isoformat(timespec="seconds")


def day(time: datetime | None) -> str:
    """Returns a time as tables have it, in UTC."""
    return "-" if time is None else f"{time:%Y-%m-%d %H:%M}"


def _now() -> datetime:
    return datetime.now(UTC)


def who() -> Any:  # noqa: ANN401 - Principal, imported lazily
    """Returns who runs the command, by what the kernel says, not the environment."""
    from shipsight.access import SERVER_RIGHTS, Principal, PrincipalKind

    number = os.geteuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = f"uid-{number}"
    return Principal(PrincipalKind.SERVER, name, rights=SERVER_RIGHTS)
