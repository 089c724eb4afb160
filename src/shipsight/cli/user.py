# SPDX-License-Identifier: Apache-2.0
"""`shipsight user`: people who may sign in."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipsight.cli.access_rooms import (
    DatabaseOption,
    JsonOption,
    Rooms,
    changed_grants,
    day,
    moment,
    open_rooms,
    parse_grants,
)
from shipsight.cli.output import make_table, print_json, screen

if TYPE_CHECKING:
    from shipsight.access.directory import User
    from shipsight.access.sessions import OpenSession

__all__ = ["user_app"]

user_app = typer.Typer(help="Add people who may sign in, and say what they may do.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a person.")]
Hours = Annotated[float, typer.Option(help="Hours for which the code works.")]
Grants = Annotated[list[str] | None, typer.Option("--grant", help="ROLE or ROLE@MODELS; repeatable.")]


@user_app.command("add")
def add(
    name: Name,
    grant: Grants = None,
    display_name: Annotated[str | None, typer.Option(help="Name to show; default: the name.")] = None,
    hours: Hours = 24.0,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a person, and print the code with which they set a password: once, here."""
    with open_rooms(database, changes=True) as rooms:
        user, code = rooms.directory.add_user(
            rooms.actor, name, display_name=display_name, grants=parse_grants(grant), lives_s=hours * 3600
        )
        _print_code(rooms, user, code, hours, as_json=as_json)


@user_app.command("invite")
def invite(name: Name, hours: Hours = 24.0, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Print a new code with which a person sets a password; second factors stay."""
    with open_rooms(database, changes=True) as rooms:
        user = rooms.directory.user(name)
        _print_code(
            rooms,
            user,
            rooms.directory.invite(rooms.actor, user.id, lives_s=hours * 3600),
            hours,
            as_json=as_json,
        )


@user_app.command("list")
def list_users(database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """List people and what they may do."""
    with open_rooms(database, changes=False) as rooms:
        users = rooms.directory.users()
        told = [_tell(rooms, user) for user in users]
        if as_json:
            print_json({"users": told})
            return
        rows = [
            [
                one["name"],
                " ".join(one["grants"]) or "-",
                "disabled" if one["disabled"] else "active" if one["has_password"] or one["openid"] else "invited",
                day(user.signed_in_at),
            ]
            for one, user in zip(told, users, strict=True)
        ]
        screen().print(make_table(["user", "grants", "state", "signed in (UTC)"], rows) if rows else "nobody is known")


@user_app.command("show")
def show(name: Name, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Show a person: what they may do, and their keys."""
    with open_rooms(database, changes=False) as rooms:
        user = rooms.directory.user(name)
        told = {**_tell(rooms, user), "keys": [one.name for one in rooms.keys.list(user.id) if not one.revoked_at]}
        if as_json:
            print_json({"user": told})
            return
        rows = [[key.replace("_", " "), _word(value)] for key, value in told.items()]
        screen().print(make_table(["", ""], rows), soft_wrap=True)


@user_app.command("grant")
def grant_user(
    name: Name,
    grant: Annotated[list[str] | None, typer.Argument(metavar="[GRANT...]", help="ROLE or ROLE@MODELS.")] = None,
    take: Annotated[list[str] | None, typer.Option(help="Grant to take from them; repeatable.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take all others from them.")] = False,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a person grants, or take some; their sessions have it at once."""
    with open_rooms(database, changes=True) as rooms:
        user = rooms.directory.user(name)
        had = rooms.directory.grants("user", user.id)
        wanted = changed_grants(name, had, given=grant, taken=take, replace=replace)
        rooms.directory.set_grants(rooms.actor, "user", user.id, wanted, before=had)
        _print_change(rooms, name, as_json=as_json)


@user_app.command("sessions")
def list_sessions(
    name: Name,
    end: Annotated[bool, typer.Option("--end", help="End all of them.")] = False,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the sessions of a person, or end them all."""
    with open_rooms(database, changes=end) as rooms:
        user = rooms.directory.user(name)
        if end:
            ended = rooms.sessions.end_all(rooms.actor, user.id)
            if as_json:
                print_json({"ended": ended})
            else:
                screen().print(f"{ended} sessions of {user.name} are ended", markup=False)
            return
        found = rooms.sessions.list(user.id)
    if as_json:
        print_json({"sessions": [_tell_session(one) for one in found]})
        return
    rows = [
        [day(one.created_at), day(one.seen_at), day(one.expires_at), "+".join(one.factors), one.address or "-"]
        for one in found
    ]
    heads = ["begun (UTC)", "last used", "ends", "proved", "from"]
    screen().print(make_table(heads, rows) if rows else f"{user.name} has no session")


@user_app.command("reset-factors")
def reset_factors(name: Name, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Take all second factors from a person who lost them: their password lets them in to add others."""
    with open_rooms(database, changes=True) as rooms:
        user = rooms.directory.user(name)
        rooms.directory.reset_factors(rooms.actor, user.id)
        if as_json:
            print_json({"user": _tell(rooms, user)})
        else:
            screen().print(f"{user.name} has no second factor, and no session", markup=False)


@user_app.command("disable")
def disable(name: Name, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Keep a person out: their sessions end at once, their keys are refused."""
    _set_disabled(name, database, is_disabled=True, as_json=as_json)


@user_app.command("enable")
def enable(name: Name, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Let a person in again."""
    _set_disabled(name, database, is_disabled=False, as_json=as_json)


@user_app.command("remove")
def remove(name: Name, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Remove a person with their factors, sessions and keys."""
    with open_rooms(database, changes=True) as rooms:
        user = rooms.directory.user(name)
        rooms.directory.remove_user(rooms.actor, user.id)
        if as_json:
            print_json({"removed": user.name})
        else:
            screen().print(f"{user.name} is removed", markup=False)


def _set_disabled(name: str, database: str | None, *, is_disabled: bool, as_json: bool) -> None:
    with open_rooms(database, changes=True) as rooms:
        rooms.directory.set_disabled(rooms.actor, rooms.directory.user(name).id, is_disabled)
        _print_change(rooms, name, as_json=as_json)


def _print_code(rooms: Rooms, user: User, code: str, hours: float, *, as_json: bool) -> None:
    until = rooms.now() + timedelta(hours=hours)
    if as_json:
        print_json({"user": _tell(rooms, user), "code": code, "expires_at": moment(until)})
        return
    console = screen()
    console.print(f"{user.name} sets a password with this code, once, until {day(until)} UTC:", markup=False)
    console.print(f"  {code}", soft_wrap=True, markup=False)
    console.print("on the server's page /invitation. It is not shown again.", markup=False)


def _print_change(rooms: Rooms, name: str, *, as_json: bool) -> None:
    told = _tell(rooms, rooms.directory.user(name))
    if as_json:
        print_json({"user": told})
        return
    state = "is disabled" if told["disabled"] else f"holds {' '.join(told['grants']) or 'no grant'}"
    screen().print(f"{told['name']} {state}", soft_wrap=True, markup=False)


def _tell(rooms: Rooms, user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "name": user.name,
        "display_name": user.display_name,
        "disabled": user.is_disabled,
        "has_password": user.has_password,
        "openid": user.openid,
        "created_at": moment(user.created_at),
        "signed_in_at": moment(user.signed_in_at),
        "grants": [one.told() for one in rooms.directory.grants("user", user.id)],
    }


def _tell_session(one: OpenSession) -> dict[str, Any]:
    return {
        "id": one.handle,
        "created_at": moment(one.created_at),
        "seen_at": moment(one.seen_at),
        "expires_at": moment(one.expires_at),
        "factors": list(one.factors),
        "address": one.address,
        "agent": one.agent,
    }


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(value) or "-"
    return "-" if value is None else str(value)
