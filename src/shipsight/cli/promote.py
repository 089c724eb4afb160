# SPDX-License-Identifier: Apache-2.0
"""`shipsight promote`: another version of a model answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shipsight.cli.output import print_json, screen

__all__ = ["SERVER", "print_change", "promote_command"]

SERVER = "http://127.0.0.1:8000"


def promote_command(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    server: Annotated[str, typer.Option(help="Where the server answers.")] = SERVER,
    model_version: Annotated[
        str | None, typer.Option("--version", help="Version to promote; default: the canary.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    ca: Annotated[Path | None, typer.Option(help="Certificates to trust, for an https server.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Make a version of a model the one that answers where none is named."""
    from shipsight.client import ServerControl

    control = ServerControl(server, ca=ca)
    with screen(stderr=True).status(f"the server brings {model} {model_version or ''} into service"):
        told = control.promote(model, model_version, reason=reason)
    print_change(told, as_json=as_json)


def print_change(told: dict[str, Any], *, as_json: bool) -> None:
    """Prints what a server said of a change: one line for each thing that requests now meet."""
    if as_json:
        print_json(told)
        return
    console = screen()
    before = "" if told["previous"] is None else f" (before: {told['previous']})"
    did = "now answers with" if told["changed"] else "already answers with"
    console.print(f"{told['model']} {did} version {told['current']}{before}", markup=False, soft_wrap=True)
    for kind in ("canary", "shadow"):
        share = told[kind]
        if share is not None:
            console.print(f"{kind}: version {share['version']}, {share['share']:.1%} of requests", markup=False)
