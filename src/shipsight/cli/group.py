# SPDX-License-Identifier: Apache-2.0
"""`shipsight group`: what groups of a provider of OpenID Connect may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipsight.cli.access_rooms import DatabaseOption, JsonOption, changed_grants, open_rooms
from shipsight.cli.output import make_table, print_json, screen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shipsight.access import Grant

__all__ = ["group_app"]

group_app = typer.Typer(help="Say what groups of a provider of OpenID Connect may do.", no_args_is_help=True)


@group_app.command("list")
def list_groups(database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """List groups that were granted something."""
    with open_rooms(database, changes=False) as rooms:
        told = [_tell(name, held) for name, held in rooms.directory.groups().items()]
    if as_json:
        print_json({"groups": told})
        return
    rows = [[one["name"], " ".join(one["grants"])] for one in told]
    screen().print(make_table(["group", "grants"], rows) if rows else "no group holds a grant")


@group_app.command("grant")
def grant_group(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a group, as the provider tells it.")],
    grant: Annotated[list[str] | None, typer.Argument(metavar="[GRANT...]", help="ROLE or ROLE@MODELS.")] = None,
    take: Annotated[list[str] | None, typer.Option(help="Grant to take from it; repeatable.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take all others from it.")] = False,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a group grants, or take some; the sessions of who is in it have it at once."""
    with open_rooms(database, changes=True) as rooms:
        had = rooms.directory.grants("group", name)
        wanted = changed_grants(name, had, given=grant, taken=take, replace=replace)
        rooms.directory.set_grants(rooms.actor, "group", name, wanted, before=had)
        told = _tell(name, rooms.directory.grants("group", name))
    if as_json:
        print_json({"group": told})
        return
    screen().print(f"{name} holds {' '.join(told['grants']) or 'no grant'}", soft_wrap=True, markup=False)


def _tell(name: str, held: Sequence[Grant]) -> dict[str, Any]:
    return {"name": name, "grants": [one.told() for one in held]}
