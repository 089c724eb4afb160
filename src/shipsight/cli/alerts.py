# SPDX-License-Identifier: Apache-2.0
"""`shipsight alerts`: whether the settings of alerts hold, and whether alerts arrive."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipsight.cli.access_rooms import JsonOption
from shipsight.cli.output import make_table, print_json, screen
from shipsight.errors import AlertRefusedError

if TYPE_CHECKING:
    from shipsight.monitor.alerts import Email, Webhook

__all__ = ["alerts_app"]

alerts_app = typer.Typer(help="Look at settings of alerts, and try them.", no_args_is_help=True)

SettingsOption = Annotated[Path, typer.Option("--settings", help="Alert settings.")]


@alerts_app.command("check")
def check(settings: SettingsOption, as_json: JsonOption = False) -> None:
    """Say whether settings fit, and whether the files that they name can be used; nothing is sent."""
    from shipsight.monitor.alerts import read_settings
    from shipsight.monitor.alerts.delivering import open_sender

    found = read_settings(settings)
    for receiver in found.receivers:
        open_sender(receiver)
    told = [_tell(one) for one in found.receivers]
    if as_json:
        print_json(
            {
                "signals": list(found.signals),
                "least_severity": found.least_severity,
                "for_s": found.for_s,
                "resolve_s": found.resolve_s,
                "repeat_s": found.repeat_s,
                "group": found.group,
                "receivers": told,
            }
        )
        return
    screen().print(f"{settings}: fits", soft_wrap=True, markup=False)
    rows = [[one["name"], one["kind"], one["to"], one["secured"]] for one in told]
    _print_rows(["receiver", "kind", "to", "secured by"], rows)


@alerts_app.command("test")
def try_command(settings: SettingsOption, as_json: JsonOption = False) -> None:
    """Send a message that says that it is a test to every receiver, once."""
    from shipsight.monitor.alerts import read_settings, try_receivers

    found = try_receivers(read_settings(settings), now=datetime.now(UTC))
    if as_json:
        print_json(
            {"receivers": [{"name": one.receiver, "sent": one.error is None, "error": one.error} for one in found]}
        )
    else:
        _print_rows(
            ["receiver", "result"], [[one.receiver, "sent" if one.error is None else one.error] for one in found]
        )
    if any(one.error is not None for one in found):
        raise typer.Exit(AlertRefusedError.exit_code)


def _tell(receiver: Webhook | Email) -> dict[str, Any]:
    """Returns what may be shown of a receiver: never a URL in full, in which a token may stand."""
    from urllib.parse import urlsplit

    from shipsight.monitor.alerts import Webhook

    if isinstance(receiver, Webhook):
        parts = urlsplit(receiver.url or "")
        to = parts.netloc if receiver.url is not None else f"the URL in {receiver.url_file}"
        tls = "nothing: this machine" if parts.scheme == "http" else "TLS"
        secured = tls if receiver.key_file is None else f"{tls}, signature"
        return {"name": receiver.name, "kind": "webhook", "to": to, "secured": secured}
    to = f"{', '.join(receiver.to)} by {receiver.host}:{receiver.port_number}"
    tls = "nothing: this machine" if receiver.plain else f"TLS ({receiver.tls})"
    secured = tls if receiver.user is None else f"{tls}, login"
    return {"name": receiver.name, "kind": "email", "to": to, "secured": secured}


def _print_rows(columns: list[str], rows: list[list[str]]) -> None:
    from rich.markup import escape

    table = make_table(columns, [[escape(one) for one in row] for row in rows])
    for column in table.columns:
        column.justify = "left"
    screen().print(table, soft_wrap=True)
