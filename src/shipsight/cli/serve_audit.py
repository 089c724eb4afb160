# SPDX-License-Identifier: Apache-2.0
"""The options of `serve` that say where what happens is recorded, and what is told of it at start. Private to `cli`."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from shipsight.cli.access_place import sqlite_path
from shipsight.cli.audit_place import (
    AUDIT_VARIABLE,
    OFF,
    audit_beside,
    audit_key_path,
    audit_place,
    log_left_alone,
    server_name,
)
from shipsight.cli.serve_recording import shown_alerts, shown_policy

if TYPE_CHECKING:
    from shipsight.serve import ServeOptions
    from shipsight.serve.audit_options import AuditOptions

__all__ = ["given_options", "read_audit", "shown_place", "tell_audit"]

_log = logging.getLogger("shipsight.serve")
_NOT_TOLD = frozenset({"--json"})


def read_audit(
    given: str | None,
    *,
    database: str | None,
    key: Path | None,
    copies: Sequence[str] | None,
    every: int,
    seconds: float,
    predictions: bool,
    server: str | None,
    port: int,
) -> AuditOptions:
    """Returns where a server records what happens, as the options of the command line have it.

    That is beside identities where it keeps some, and where an option or the environment says so.

    Raises:
        UsageError: an option does not fit.
    """
    from shipsight.access.audit.witnesses import parse_copy
    from shipsight.serve.audit_options import AuditOptions

    asked = given or os.environ.get(AUDIT_VARIABLE)
    place = None if asked is None and database is None else audit_place(given, database=database)
    left = None
    if asked is not None and database is not None:
        left = log_left_alone(database, place)
        beside = audit_beside(database)
        if asked == OFF and sqlite_path(beside) is None:
            left = beside, audit_key_path(key, beside)
        elif left is not None and asked == OFF and key is not None:
            left = left[0], audit_key_path(key, beside)
    off_at, off_key = left or (None, None)
    at = place or off_at
    for one in copies or ():
        parse_copy(one)  # refused before anything is started
    return AuditOptions(
        place=place,
        key=None if at is None else audit_key_path(key, at),
        copies=tuple(copies or ()),
        every=every,
        seconds=seconds,
        predictions=predictions,
        server=server_name(server, port=port),
        off_at=off_at,
        off_key=off_key,
    )


def shown_place(options: AuditOptions) -> str | None:
    """Returns where the log is, as people may read it; None where there is none."""
    from shipsight.serve.configuration import without_secrets

    return None if options.place is None else without_secrets(options.place)


def tell_audit(options: AuditOptions) -> None:
    """Says that a log is switched off, here and in that log."""
    if options.off_at is None:
        return
    from shipsight.serve.audit_opening import switched_off
    from shipsight.serve.logs import fields

    if options.place is None:
        _log.warning("--audit off: nothing that happens is recorded", extra=fields(code="audit-off"))
    else:
        _log.warning("--audit names another place than the log beside the identities", extra=fields(code="audit-moved"))
    switched_off(options)


def given_options(context: typer.Context, options: ServeOptions) -> tuple[tuple[str, str], ...]:
    """Returns the command line's options with their values, those not given included; without secrets.

    Args:
        context: of the command.
        options: what became of them: what stands for a default is told as it is.
    """
    from shipsight.serve.configuration import without_secrets

    access, audit = options.access.settings, options.audit
    recording = options.recording
    effective: dict[str, Any] = {
        "--database": None if access is None else access.database,
        "--secrets-key": None if access is None else access.secrets_key,
        "--audit": audit.place or OFF,
        "--audit-key": audit.key,
        "--server-name": audit.server,
        "--record-policy": shown_policy(context.params.get("record_policy"), recording),
        "--alerts": shown_alerts(options.monitoring.alerts),
        "--recordings": recording.folder,
        "--recordings-key": recording.key,
    }
    told = []
    for one in context.command.params:
        name = max(one.opts, key=len) if one.param_type_name == "option" else "BUNDLE"
        if name in _NOT_TOLD or name == "--help":
            continue
        value = effective.get(name, context.params.get(one.name or ""))
        told.append((name, _text(value, without_secrets)))
    return tuple(told)


def _text(value: object, without_secrets: Any) -> str:  # noqa: ANN401 - of `configuration`, imported late
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(_text(one, without_secrets) for one in value)
    return str(without_secrets(str(value)))
