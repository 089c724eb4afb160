# SPDX-License-Identifier: Apache-2.0
"""`shipsight promote`: another version of a model answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from shipsight.cli.output import print_json, screen
from shipsight.errors import UsageError

__all__ = [
    "KEY_VARIABLE",
    "SERVER",
    "CaOption",
    "JsonOption",
    "KeyFileOption",
    "ModelArgument",
    "ReasonOption",
    "ServerOption",
    "print_change",
    "promote_command",
    "read_key",
]

KEY_VARIABLE = "SHIPSIGHT_KEY"

SERVER = "http://127.0.0.1:8000"

ModelArgument = Annotated[str, typer.Argument(help="Name of the model.")]
ServerOption = Annotated[str, typer.Option(help="Where the server answers.")]
ReasonOption = Annotated[str | None, typer.Option(help="Why, for the record.")]
KeyFileOption = Annotated[
    Path | None, typer.Option(help="File of the API key; default: that of $SHIPSIGHT_KEY, or none.")
]
CaOption = Annotated[Path | None, typer.Option(help="Certificates to trust, for an https server.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def promote_command(
    model: ModelArgument,
    server: ServerOption = SERVER,
    model_version: Annotated[
        str | None, typer.Option("--version", help="Version to promote; default: the canary.")
    ] = None,
    reason: ReasonOption = None,
    key_file: KeyFileOption = None,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version of a model the one that answers where none is named."""
    from shipsight.client import ServerControl

    control = ServerControl(server, ca=ca, key=read_key(key_file))
    with screen(stderr=True).status(f"the server brings {model} {model_version or ''} into service"):
        told = control.promote(model, model_version, reason=reason)
    print_change(told, as_json=as_json)


def read_key(path: Path | None) -> str | None:
    """Returns the API key in a file, else that of the environment, else None; never one of the command line, which others see.

    Raises:
        UsageError: the file cannot be read.
    """
    if path is None:
        return os.environ.get(KEY_VARIABLE) or None
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("no key can be read", where=f"--key-file {path}", got=type(error).__name__) from None


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
