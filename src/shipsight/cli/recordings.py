# SPDX-License-Identifier: Apache-2.0
"""`shipsight recordings`: what was recorded of production, looked at, erased, kept in backups, told to who answers for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipsight.cli.access_place import default_database, sqlite_path, state_folder
from shipsight.cli.access_rooms import JsonOption, moment, open_rooms, recorded_events, who
from shipsight.cli.audit_log import parse_moment
from shipsight.cli.audit_place import audit_place
from shipsight.cli.output import make_table, print_json, screen
from shipsight.errors import EnvironmentLackError, MissingDependencyError, UsageError
from shipsight.printable import printable

if TYPE_CHECKING:
    from shipsight.access import Event, EventSink, Principal, Rights
    from shipsight.monitor.recording import Entry, KeptErasure, Policy, Store
    from shipsight.monitor.recording.inventory import Reader

__all__ = ["RECORDINGS_KEY_VARIABLE", "RECORDINGS_VARIABLE", "key_path", "recordings_app", "recordings_place"]

RECORDINGS_VARIABLE = "SHIPSIGHT_RECORDINGS"
RECORDINGS_KEY_VARIABLE = "SHIPSIGHT_RECORDINGS_KEY"
_MOST_ACTS = 1000

recordings_app = typer.Typer(help="Look at recordings of production, erase and keep them.", no_args_is_help=True)
policy_app = typer.Typer(help="Look at recording policies.", no_args_is_help=True)
recordings_app.add_typer(policy_app, name="policy")

FolderOption = Annotated[
    Path | None, typer.Option("--recordings", help="Folder of the recordings; default: $SHIPSIGHT_RECORDINGS.")
]
KeyOption = Annotated[
    Path | None, typer.Option("--recordings-key", help="File of their key; default: beside the folder.")
]
SinceOption = Annotated[str | None, typer.Option(help="Not before: 2026-11-01, 2026-11-01T12:00, or 7d.")]
UntilOption = Annotated[str | None, typer.Option(help="Before, likewise.")]
ModelOption = Annotated[str | None, typer.Option(help="Only of this model.")]


@dataclass(frozen=True)
class _Room:
    """Recordings, open, and who acts on them."""

    store: Store
    actor: Principal
    events: EventSink


@contextmanager
def _opened(
    folder: Path | None, key: Path | None, *, policy: Policy | None = None, is_restored: bool = False
) -> Iterator[_Room]:
    """Opens recordings on behalf of whoever runs the command; what they do is recorded in the audit log."""
    place = recordings_place(folder)
    try:
        from shipsight.monitor.recording import Store
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"package {error.name} is not installed", hint="Run: pip install 'shipsight[serve]'"
        ) from error
    store = Store(place, key_file=key_path(key, place), policy=policy, is_restored=is_restored)
    with recorded_events(default_database()) as events:
        yield _Room(store, _actor(), events)


@recordings_app.command("list")
def list_command(
    since: SinceOption = None,
    until: UntilOption = None,
    model: ModelOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most, newest first.")] = 100,
    recordings: FolderOption = None,
    recordings_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List recordings: when, of which model, why; nothing of what is in them."""
    begin, end = _span(since, until)
    with _opened(recordings, recordings_key) as room:
        from shipsight.monitor.recording import list_recordings

        found = list_recordings(
            room.store,
            actor=room.actor,
            events=room.events,
            since=begin,
            until=end,
            model=model,
            limit=limit,
            is_elsewhere=False,
        )
    if as_json:
        print_json({"recordings": [_tell(one) for one in found]})
        return
    rows = [
        [
            one.label.id,
            f"{one.label.at:%Y-%m-%d %H:%M:%S}",
            _shown(f"{one.label.model} {one.label.version}"),
            " ".join(one.label.reasons),
            _shown(" ".join(one.label.redacted) or "-"),
            str(one.size),
        ]
        for one in found
    ]
    columns = ["recording", "at (UTC)", "model", "why", "redacted", "bytes"]
    screen().print(make_table(columns, rows) if rows else "no recordings")


@recordings_app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="RECORDING", help="Id of a recording.")],
    image: Annotated[Path | None, typer.Option(help="File to write its image to.")] = None,
    recordings: FolderOption = None,
    recordings_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open a recording: what was answered, and its image in a file."""
    with _opened(recordings, recordings_key) as room:
        if image is not None:
            if image.exists():
                raise UsageError("is there already", where=image)
            room.store.enforcement.check_place(image.absolute().parent)
        from shipsight.monitor.recording import show_recording

        found = show_recording(room.store, name, actor=room.actor, events=room.events, is_elsewhere=False)
        entry = room.store.entry(name)
    if image is not None:
        if found.image is None:
            raise UsageError("no image is kept of this recording", where=name)
        _write(image, found.image)
    told = {**_tell(entry), "predictions": found.predictions}
    if as_json:
        print_json(told)
        return
    answers = found.predictions.get("predictions", [])
    _print_pairs([*_tell(entry).items(), *(("found", f"{one['class_name']} {one['score']:.2f}") for one in answers)])


@recordings_app.command("export")
def export(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make, or file with --statistics.")],
    statistics: Annotated[bool, typer.Option("--statistics", help="Counts alone, no image.")] = False,
    since: SinceOption = None,
    until: UntilOption = None,
    model: ModelOption = None,
    recordings: FolderOption = None,
    recordings_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take recordings along, as far as the policy lets them out: redacted images, or counts."""
    begin, end = _span(since, until)
    with _opened(recordings, recordings_key) as room:
        from shipsight.monitor.recording import export_images, export_statistics

        take = export_statistics if statistics else export_images
        done = take(room.store, out, actor=room.actor, events=room.events, since=begin, until=end, model=model)
    if as_json:
        print_json({"out": str(out), "records": done.records, "refused": done.refused, "gone": done.gone})
        return
    line = f"{out}: {done.records} recordings"
    if done.refused:
        line += f"; {done.refused} may not leave: not redacted as the policy has it, or under one that let nothing out"
    screen().print(line, soft_wrap=True, markup=False)


@recordings_app.command("erase")
def erase(
    subject: Annotated[
        str | None, typer.Option(help="Person, as requests named them; `-` reads the name from standard input.")
    ] = None,
    day: Annotated[str | None, typer.Option(help="Day in UTC, such as 2026-11-23.")] = None,
    recording: Annotated[list[str] | None, typer.Option(help="Id of a recording; repeatable.")] = None,
    expired: Annotated[bool, typer.Option("--expired", help="What the policy keeps no longer.")] = False,
    recordings: FolderOption = None,
    recordings_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase recordings of a person, of a day or by id, by destroying their keys: backups of them are then noise, too."""
    chosen = [one for one in (subject, day, recording, expired or None) if one]
    if len(chosen) != 1:
        raise UsageError("one of these", expected="--subject, --day, --recording, --expired", got=len(chosen))
    with _opened(recordings, recordings_key) as room:
        from shipsight.monitor.recording import erase_day, erase_recordings, erase_subject, sweep

        store, actor, events = room.store, room.actor, room.events
        receipt: KeptErasure | None
        if subject:
            named = sys.stdin.readline().rstrip("\r\n") if subject == "-" else subject
            receipt = erase_subject(store, named, actor=actor, events=events)
        elif day:
            receipt = erase_day(store, day, actor=actor, events=events)
        elif recording:
            receipt = erase_recordings(store, recording, actor=actor, events=events)
        else:
            receipt = sweep(store, actor=actor.told(), events=events)
    _print_receipt(receipt, as_json=as_json)


@recordings_app.command("backup")
def backup(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.")],
    recordings: FolderOption = None,
    recordings_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write all recordings into a file, sealed, without their keys."""
    with _opened(recordings, recordings_key) as room:
        from shipsight.monitor.recording import back_up

        done = back_up(room.store, out, actor=room.actor, events=room.events)
    if as_json:
        print_json({"file": str(out), "records": done.records, "bytes": done.size, "sha256": done.sha256})
        return
    line = f"{out}: {done.records} recordings, {done.size} bytes. It holds no keys: these stay in the folder."
    screen().print(line, soft_wrap=True, markup=False)


@recordings_app.command("restore")
def restore_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File that `backup` wrote.")],
    policy: Annotated[Path | None, typer.Option(help="Recording policy, where the index is lost, too.")] = None,
    recordings: FolderOption = None,
    recordings_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring back what was lost; what was erased stays so."""
    from shipsight.monitor.recording import read_policy, restore

    held = None if policy is None else read_policy(policy)
    with _opened(recordings, recordings_key, policy=held, is_restored=True) as room:
        done = restore(room.store, file, actor=room.actor, events=room.events)
    if as_json:
        told = {"restored": done.restored, "present": done.present, "erased": done.erased, "expired": done.expired}
        print_json({"file": str(file), **told})
        return
    line = (
        f"{done.restored} are restored, {done.present} were there; {done.erased} were erased since "
        f"and {done.expired} have ended: they do not come back"
    )
    screen().print(line, soft_wrap=True, markup=False)


@recordings_app.command("rotate-key")
def rotate(recordings: FolderOption = None, recordings_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Change the key that wraps those of recordings; servers may run meanwhile."""
    with _opened(recordings, recordings_key) as room:
        from shipsight.monitor.recording import rotate_key

        count = rotate_key(room.store, actor=room.actor, events=room.events)
        path = room.store.keys.key_file
    if as_json:
        print_json({"recordings_key": str(path), "keys": count})
        return
    screen().print(f"{count} keys are wrapped anew; {path} holds the new key alone", soft_wrap=True, markup=False)


@recordings_app.command("inventory")
def inventory(
    out: Annotated[Path | None, typer.Option(help="File to write, .html or .json; default: standard output.")] = None,
    recordings: FolderOption = None,
    recordings_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what is recorded, what for, where, for how long, who may look and who did, and what leaves."""
    if out is not None and out.suffix not in (".html", ".json"):
        raise UsageError("neither a page nor JSON", where="--out", expected=".html or .json", got=out.suffix or out)
    with _opened(recordings, recordings_key) as room:
        from shipsight.monitor.recording import make_page, take_inventory

        told = take_inventory(room.store, actor=room.actor, events=room.events, readers=_readers(), acts=_acts())
    if out is not None:
        import json

        text = make_page(told) if out.suffix == ".html" else json.dumps(told.to_dict(), indent=2, ensure_ascii=False)
        _write(out, text.encode())
    if as_json or out is None:
        print_json(told.to_dict())
    else:
        count = sum(told.days.values())
        line = f"{out}: {count} recordings of {len(told.days)} days, {told.pending} erasures pending"
        screen().print(line, soft_wrap=True, markup=False)


@policy_app.command("check")
def check(
    file: Annotated[Path, typer.Argument(metavar="POLICY", help="Recording policy.")],
    bundle: Annotated[Path | None, typer.Option(help="Bundle that is to be served under it.")] = None,
    place: Annotated[Path | None, typer.Option(help="Folder that recordings are to lie in.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a policy can be held to: by itself, by a model, and in a place."""
    from shipsight.model.bundle import open_bundle
    from shipsight.monitor.recording import Enforcement, read_policy

    policy = read_policy(file)
    enforcement = Enforcement(policy)
    finder = bundle if policy.redaction.bundle is None else Path(policy.redaction.bundle)
    if finder is not None:
        card = open_bundle(finder).card
        enforcement.check_finder(card.class_names, card.task, name=card.name)
    region = None if place is None else enforcement.check_place(place)
    checked = ["clauses", *(["classes"] if finder else []), *(["place"] if place else [])]
    if as_json:
        print_json({"policy": policy.to_dict(), "digest": policy.digest, "checked": checked, "region": region})
        return
    screen().print(f"{file}: can be held to ({', '.join(checked)})", soft_wrap=True, markup=False)
    screen().print(f"digest {policy.digest}", soft_wrap=True, markup=False)


def recordings_place(given: Path | None) -> Path:
    """Returns the folder: as the option has it, else `$SHIPSIGHT_RECORDINGS`, else `recordings` in the user's state folder.

    Raises:
        UsageError: nobody is at home, and nothing says where.
    """
    named = given or os.environ.get(RECORDINGS_VARIABLE)
    return Path(named) if named else state_folder("--recordings") / "recordings"


def key_path(given: Path | None, folder: Path) -> Path:
    """Returns the key's file: as the option has it, else `$SHIPSIGHT_RECORDINGS_KEY`, else beside the folder: `recordings.key`."""
    named = given or os.environ.get(RECORDINGS_KEY_VARIABLE)
    return Path(named) if named else folder.absolute().with_name(f"{folder.name}.key")


def _actor() -> Principal:
    """Returns who runs the command; whoever can read the key file may do all that it opens, and is recorded."""
    from shipsight.access import Action, Grant, Rights

    found: Principal = who()
    own = frozenset({Action.RECORDINGS_READ, Action.RECORDINGS_CHANGE, Action.DATA_EXPORT})
    return replace(found, rights=Rights((*found.rights.grants, (own, Grant("recordings")))))


def _readers() -> list[Reader] | None:
    """Returns who may do something with recordings over HTTP, None where nobody is known."""
    database = default_database()
    path = sqlite_path(database)
    if path is not None and not path.exists():
        return None
    with open_rooms(database, changes=False) as rooms:
        roles = rooms.directory.roles()
        from shipsight.access import Rights

        holders: list[tuple[str, Rights]] = [
            (f"person:{one.name}", rooms.directory.rights_of_user(one.id))
            for one in rooms.directory.users()
            if not one.is_disabled
        ]
        holders += [(f"group:{name}", Rights.of(grants, roles)) for name, grants in rooms.directory.groups().items()]
        holders += [
            (f"key:{one.name}", Rights.of(one.grants, roles)) for one in rooms.keys.list() if one.revoked_at is None
        ]
        holders += [(f"{one.kind}:{one.name}", Rights.of(one.grants, roles)) for one in rooms.certificates.list()]
    return [found for name, rights in holders if (found := _reader(name, rights)) is not None]


def _reader(name: str, rights: Rights) -> Reader | None:
    from shipsight.access import Action
    from shipsight.monitor.recording.inventory import Reader

    models = [
        pattern for actions, grant in rights.grants if Action.RECORDINGS_READ in actions for pattern in grant.models
    ]
    others = (Action.DATA_EXPORT, Action.RECORDINGS_CHANGE)
    may = tuple(action.value for action in others if rights.allows_somewhere(action))
    if not models and not may:
        return None
    return Reader(name, tuple(dict.fromkeys(models)), may)


def _acts() -> list[Event] | None:
    """Returns what was done to recordings as the audit log tells, newest first; None where there is none."""
    place = audit_place()
    path = None if place is None else sqlite_path(place)
    if place is None or (path is not None and not path.exists()):
        return None
    from shipsight.access.audit.reading import AuditReader
    from shipsight.monitor.recording.inventory import AUDITED_KINDS

    reader = AuditReader.open(place)
    try:
        found = reader.entries(kinds=AUDITED_KINDS, subject="recordings", newest_first=True, limit=_MOST_ACTS)
        return [one.event for one in found]
    finally:
        reader.close()


def _tell(one: Entry) -> dict[str, Any]:
    return {**one.label.to_dict(), "at": one.label.at.isoformat(timespec="milliseconds"), "bytes": one.size}


def _print_receipt(receipt: KeptErasure | None, *, as_json: bool) -> None:
    if receipt is None:
        if as_json:
            print_json({"receipt": None})
        else:
            screen().print("nothing has ended")
        return
    told = {
        "receipt": receipt.id,
        "what": receipt.what,
        "asked_at": moment(receipt.asked_at),
        "asked_by": receipt.asked_by,
        "records": receipt.records,
        "days": list(receipt.days),
        "digest": receipt.digest,
        "done_at": moment(receipt.done_at),
    }
    if as_json:
        print_json(told)
        return
    _print_pairs(told.items())


def _print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Prints names and values; texts among these came from outside."""
    rows = [
        [name.replace("_", " "), _shown(" ".join(map(str, value)) if isinstance(value, list) else str(value), most=100)]
        for name, value in pairs
    ]
    table = make_table(["", ""], rows)
    table.columns[1].justify = "left"
    screen().print(table, soft_wrap=True, markup=False)


def _shown(text: str, *, most: int = 40) -> str:
    """Returns a text from outside as a table may hold it: it moves no cursor, and what stands in brackets is no markup."""
    from rich.markup import escape

    return escape(printable(text, most=most))


def _span(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    now = datetime.now(UTC)
    return parse_moment(since, now, "--since"), parse_moment(until, now, "--until")


def _write(path: Path, data: bytes) -> None:
    """Writes a file for its owner alone.

    Raises:
        EnvironmentLackError: it cannot be written.
    """
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
    except OSError as error:
        raise EnvironmentLackError("the file cannot be written", where=path, got=error.strerror) from error
