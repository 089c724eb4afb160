# SPDX-License-Identifier: Apache-2.0
"""`shipsight rollback`: the version before answers again."""

from __future__ import annotations

from shipsight.cli.output import screen
from shipsight.cli.promote import (
    SERVER,
    CaOption,
    JsonOption,
    KeyFileOption,
    ModelArgument,
    ReasonOption,
    ServerOption,
    print_change,
    read_key,
)

__all__ = ["rollback_command"]


def rollback_command(
    model: ModelArgument,
    server: ServerOption = SERVER,
    reason: ReasonOption = None,
    key_file: KeyFileOption = None,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the version that answered before answer again, and end a canary."""
    from shipsight.client import ServerControl

    control = ServerControl(server, ca=ca, key=read_key(key_file))
    with screen(stderr=True).status(f"the server brings the version of {model} before into service"):
        told = control.roll_back(model, reason=reason)
    print_change(told, as_json=as_json)
