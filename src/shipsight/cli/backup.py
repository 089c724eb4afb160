# SPDX-License-Identifier: Apache-2.0
"""`shipsight backup`: all identities in one encrypted file, and back (`docs/formats/access-backup.md`)."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipsight.cli.access_rooms import DatabaseOption, JsonOption, SecretsKeyOption, open_rooms
from shipsight.cli.output import print_json, screen
from shipsight.errors import EnvironmentLackError, UsageError

if TYPE_CHECKING:
    from shipsight.access.backup import Backup, BackupLock

__all__ = ["PASSPHRASE_VARIABLE", "backup_app", "read_lock"]

backup_app = typer.Typer(help="Keep all identities in one encrypted file, and bring them back.", no_args_is_help=True)

PASSPHRASE_VARIABLE = "SHIPSIGHT_BACKUP_PASSPHRASE"  # noqa: S105 - the name of a variable

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        help="File whose first line is the passphrase; default: $SHIPSIGHT_BACKUP_PASSPHRASE, else asked for."
    ),
]
KeyFile = Annotated[Path | None, typer.Option(help="File of a key, 64 hexadecimal digits, instead of a passphrase.")]


@backup_app.command("create")
def create(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.")],
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    database: DatabaseOption = None,
    secrets_key: SecretsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write all identities into an encrypted file."""
    if out.exists() and not force:
        raise UsageError("is there already", where=out, hint="Give --force to replace it.")
    with open_rooms(database, changes=False) as rooms:
        from shipsight.access.backup import create_backup, open_backup

        lock = read_lock(passphrase_file, key_file, is_new=True)
        data = create_backup(
            rooms.database, rooms.box(secrets_key), lock=lock, actor=rooms.actor, events=rooms.events, now=rooms.now
        )
        # Read before it is relied on.
        made = open_backup(data, lock=lock)
        _write(out, data)
    _print(out, made, f"{len(data)} bytes, {_counted(made)}", as_json=as_json)


@backup_app.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File that `create` wrote.")],
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    force: Annotated[bool, typer.Option("--force", help="Replace whoever is known there.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Open it whole, and change nothing.")] = False,
    database: DatabaseOption = None,
    secrets_key: SecretsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put what is in a file in place of all identities, whole or not at all."""
    data = _read(file)
    from shipsight.access.backup import check_backup, open_backup, restore_backup

    check_backup(data)
    if check:
        found = open_backup(data, lock=read_lock(passphrase_file, key_file, is_new=False))
        _print(file, found, f"opens, {_counted(found)}", as_json=as_json)
        return
    with open_rooms(database, changes=True) as rooms:
        found = open_backup(data, lock=read_lock(passphrase_file, key_file, is_new=False))
        restore_backup(
            rooms.database,
            rooms.box(secrets_key),
            found,
            actor=rooms.actor,
            events=rooms.events,
            now=rooms.now,
            replace=force,
        )
    _print(file, found, f"is restored, {_counted(found)}; everybody signs in again", as_json=as_json)


def read_lock(passphrase_file: Path | None, key_file: Path | None, *, is_new: bool) -> BackupLock:
    """Returns what opens a file: from an option, the environment, or asked for on a terminal.

    Raises:
        UsageError: two are given, or none and there is nobody to ask.
    """
    from shipsight.access.backup import BackupLock
    from shipsight.access.store import load_keys

    if key_file is not None:
        if passphrase_file is not None:
            raise UsageError("a backup is opened by one of the two", got="--passphrase-file --key-file")
        return BackupLock(keys=tuple(load_keys(key_file)))
    if passphrase_file is not None:
        lines = _read(passphrase_file, most=4096).decode("utf-8", "surrogateescape").splitlines()
        return BackupLock(passphrase=lines[0] if lines else "")
    given = os.environ.get(PASSPHRASE_VARIABLE)
    if given is not None:
        return BackupLock(passphrase=given)
    if not sys.stdin.isatty():
        raise UsageError("no passphrase", expected=f"--passphrase-file, --key-file or ${PASSPHRASE_VARIABLE}")
    asked: str = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=is_new, err=True)
    return BackupLock(passphrase=asked)


def _read(path: Path, *, most: int | None = None) -> bytes:
    from shipsight.access.backup import MOST_BYTES

    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1 if most is None else most)
    except OSError as error:
        raise UsageError("not a file that can be read", where=path, got=error.strerror) from error


def _write(path: Path, data: bytes) -> None:
    """Writes a file for its owner alone, whole or not at all.

    Raises:
        EnvironmentLackError: it cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        finally:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentLackError("the backup cannot be written", where=path, got=error.strerror) from error


def _counted(backup: Backup) -> str:
    rows = backup.rows
    return (
        f"{rows['users']} people, {rows['roles']} roles, {rows['api_keys']} keys, {rows['certificates']} certificates"
    )


def _print(path: Path, backup: Backup, line: str, *, as_json: bool) -> None:
    told: dict[str, Any] = {
        "file": str(path),
        "digest": backup.digest,
        "made_at": backup.made_at,
        "made_by": backup.made_by,
        "made_from": backup.made_from,
        "revision": backup.revision,
        "rows": dict(backup.rows),
    }
    if as_json:
        print_json(told)
        return
    screen().print(f"{path}: {line}", soft_wrap=True, markup=False)
    screen().print(f"made {backup.made_at} by {backup.made_by}, SHA-256 {backup.digest}", soft_wrap=True, markup=False)
