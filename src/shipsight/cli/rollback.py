# SPDX-License-Identifier: Apache-2.0
"""`shipsight rollback`: the version before answers again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shipsight.cli.output import screen
from shipsight.cli.promote import SERVER, print_change, read_key

__all__ = ["rollback_command"]


def rollback_command(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    server: Annotated[str, typer.Option(help="Where the server answers.")] = SERVER,
    reason: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="File of the API key; default: that of $SHIPSIGHT_KEY, or none.")
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="Certificates to trust, for an https server.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Make the version that answered before answer again, and end a canary."""
    from shipsight.client import ServerControl

    control = ServerControl(server, ca=ca, key=read_key(key_file))
    with screen(stderr=True).status(f"the server brings the version of {model} before into service"):
        told = control.roll_back(model, reason=reason)
    print_change(told, as_json=as_json)
