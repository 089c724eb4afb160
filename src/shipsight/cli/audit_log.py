# SPDX-License-Identifier: Apache-2.0
"""What the verbs of the audit log share: where it is, who acts, what opens archives. Private to `cli`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shipsight.cli.access_place import sqlite_path
from shipsight.cli.audit_place import audit_key_path, audit_place, server_name
from shipsight.errors import AuditError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    from shipsight.access.audit.log import AuditLog
    from shipsight.access.audit.reading import AuditReader
    from shipsight.access.backup import BackupLock

__all__ = [
    "AuditKeyOption",
    "AuditOption",
    "KeyFileOption",
    "PassphraseFileOption",
    "actor",
    "archive_lock",
    "find_place",
    "open_reader",
    "opened_log",
    "parse_moment",
]

AuditOption = Annotated[
    str | None,
    typer.Option("--audit", help="Path of SQLite's file, or postgresql://...; default: beside the identities."),
]
AuditKeyOption = Annotated[
    Path | None, typer.Option("--audit-key", help="File of the key that signs; default: beside the log.")
]
PassphraseFileOption = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File whose first line is the passphrase of archives.")
]
KeyFileOption = Annotated[
    Path | None, typer.Option("--key-file", help="File of a key for archives, 64 hexadecimal digits, instead.")
]

_AGO = re.compile(r"(\d{1,6})([dhm])(?: ago)?")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}
_EXTRA = "Run: pip install 'shipsight[serve]'"


def find_place(given: str | None) -> str:
    """Returns where the log is.

    Raises:
        UsageError: it is switched off.
        AuditError: it is not there.
    """
    place = audit_place(given)
    if place is None:
        raise UsageError("the audit log is switched off", where="SHIPSIGHT_AUDIT", hint="Name its place with --audit.")
    path = sqlite_path(place)
    if path is not None and not path.exists():
        raise AuditError(
            "there is no audit log", where=path, hint="Name its place with --audit; `shipsight serve` begins one."
        )
    return place


@contextmanager
def open_reader(given: str | None) -> Iterator[AuditReader]:
    """Opens the log to read it.

    Raises:
        AuditError: it is not there.
        EnvironmentLackError: it does not answer, or is of another version.
        MissingDependencyError: a package is missing.
    """
    place = find_place(given)
    try:
        from shipsight.access.audit.reading import AuditReader
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"package {error.name} is not installed", hint=_EXTRA) from error
    with closing(AuditReader.open(place)) as reader:
        yield reader


@contextmanager
def opened_log(given: str | None, key: Path | None) -> Iterator[AuditLog]:
    """Opens the log to write to it, as a command.

    Raises:
        AuditError: it is not there, or cannot be written.
        EnvironmentLackError: it does not answer, or is of another version.
        MissingDependencyError: a package is missing.
    """
    place = find_place(given)
    try:
        from shipsight.access.audit.log import AuditLog
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"package {error.name} is not installed", hint=_EXTRA) from error
    with AuditLog.open(place, key=audit_key_path(key, place), server=server_name(), has_session=False) as log:
        yield log


def actor() -> str:
    """Returns who runs the command, as entries tell it."""
    from shipsight.cli.access_rooms import who

    told: str = who().told()
    return told


def archive_lock(
    passphrase_file: Path | None, key_file: Path | None, archives: Sequence[Path] | None
) -> BackupLock | None:
    """Returns what archives are opened by, None where nothing is given.

    Raises:
        UsageError: two are given, or one that cannot be read, or one without an archive.
    """
    if passphrase_file is None and key_file is None:
        return None
    if archives is not None and not archives:
        raise UsageError("opens archives, and none is given", expected="--archive")
    from shipsight.cli.backup import read_lock

    return read_lock(passphrase_file, key_file, is_new=False)


def parse_moment(text: str | None, now: datetime, option: str) -> datetime | None:
    """Reads a day or a time in UTC, or how long ago it was: `2026-11-01`, `2026-11-01T12:00`, `7d`.

    Raises:
        UsageError: it is none.
    """
    if text is None:
        return None
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        time = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError) as error:
        raise UsageError(
            "not a time", where=option, expected="2026-11-01, 2026-11-01T12:00, or 7d", got=text
        ) from error
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
