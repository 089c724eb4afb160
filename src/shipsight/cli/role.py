# SPDX-License-Identifier: Apache-2.0
"""`shipsight role`: what a role allows, and roles of one's own from a file (`docs/formats/roles-file.md`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipsight.cli.access_rooms import DatabaseOption, JsonOption, open_rooms
from shipsight.cli.output import make_table, print_json, screen
from shipsight.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from shipsight.access import Role

__all__ = ["read_roles", "role_app"]

role_app = typer.Typer(help="Show what roles allow, and add roles of your own.", no_args_is_help=True)

_MOST_BYTES = 1 << 20


@role_app.command("list")
def list_roles(database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """List all roles, those that there always are first."""
    with open_rooms(database, changes=False) as rooms:
        told = [
            _tell(role)
            for role in sorted(rooms.directory.roles().values(), key=lambda one: (not _is_ours(one), one.name))
        ]
    if as_json:
        print_json({"roles": told})
        return
    rows = [[one["name"], "built in" if one["built_in"] else "your own", " ".join(one["actions"])] for one in told]
    table = make_table(["role", "kind", "allows"], rows)
    table.columns[2].justify, table.columns[2].no_wrap = "left", False
    screen().print(table)


@role_app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a role.")],
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a role allows."""
    with open_rooms(database, changes=False) as rooms:
        roles = rooms.directory.roles()
    if name not in roles:
        raise NotFoundError("no such role", expected=", ".join(sorted(roles)), got=name)
    told = _tell(roles[name])
    if as_json:
        print_json({"role": told})
        return
    console = screen()
    for action in told["actions"]:
        console.print(action, markup=False)


@role_app.command("apply")
def apply(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File of roles, YAML or JSON.")],
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add the roles of a file, or change them to what it says; others stay."""
    roles = read_roles(file)
    with open_rooms(database, changes=True) as rooms:
        known = rooms.directory.roles()
        changed = [role for role in roles if known.get(role.name) != role]
        for role in changed:
            rooms.directory.apply_role(rooms.actor, role)
    if as_json:
        print_json({"roles": [_tell(role) for role in roles], "changed": [role.name for role in changed]})
        return
    for role in roles:
        screen().print(f"{role.name}: {'as the file says' if role in changed else 'was so already'}", markup=False)


@role_app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a role of your own.")],
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a role that nobody holds."""
    with open_rooms(database, changes=True) as rooms:
        rooms.directory.remove_role(rooms.actor, name)
    if as_json:
        print_json({"removed": name})
    else:
        screen().print(f"{name} is removed", markup=False)


def read_roles(path: Path) -> list[Role]:
    """Reads a file of roles, whole or not at all.

    Raises:
        UsageError: it cannot be read, or a key, a role or an action in it is none.
    """
    import yaml

    from shipsight.access import ROLES
    from shipsight.access import Role as MadeRole

    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise UsageError("too large for a file of roles", where=path, expected=f"at most {_MOST_BYTES} bytes")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise UsageError("a file of roles repeats nothing by name", where=path, got="an alias (*)")
        _check_keys(yaml.compose(text, yaml.SafeLoader), path)
        told = yaml.safe_load(text)
    except OSError as error:
        raise UsageError("not a file that can be read", where=path, got=error.strerror) from error
    except (yaml.YAMLError, UnicodeError, ValueError, RecursionError) as error:
        raise UsageError("not YAML", where=path, got=str(error).splitlines()[0][:200]) from error
    if not isinstance(told, dict) or set(told) != {"schema", "roles"} or not isinstance(told["roles"], dict):
        raise UsageError("not a file of roles", where=path, expected="schema: 1 and roles: {NAME: {actions: [...]}}")
    if told["schema"] != 1:
        raise UsageError("a file of roles of another schema", where=path, expected=1, got=told["schema"])
    roles = [MadeRole.from_dict(str(name), one) for name, one in told["roles"].items()]
    ours = sorted(role.name for role in roles if role.name in ROLES)
    if ours:
        raise UsageError("these roles cannot be changed", where=path, got=", ".join(ours))
    return roles


def _check_keys(node: Any, path: Path) -> None:  # noqa: ANN401 - PyYAML's nodes have no types
    """Refuses a key that stands twice, of which YAML would take the last."""
    if node is None or not hasattr(node, "value") or isinstance(node.value, str):
        return
    if node.id == "sequence":
        for one in node.value:
            _check_keys(one, path)
        return
    names = [str(key.value) for key, _ in node.value]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError("stands twice", where=path, got=", ".join(twice))
    for _, one in node.value:
        _check_keys(one, path)


def _is_ours(role: Role) -> bool:
    from shipsight.access import ROLES

    return role.name in ROLES


def _tell(role: Role) -> dict[str, Any]:
    return {
        "name": role.name,
        "built_in": _is_ours(role),
        "actions": sorted(role.actions),
        "needs_factors": role.needs_factors,
    }
