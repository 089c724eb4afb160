# SPDX-License-Identifier: Apache-2.0
"""`shipsight audit`: what happened, whether that is all of it, and how long it is kept (`docs/security/audit.md`)."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from shipsight.cli.access_rooms import JsonOption, moment
from shipsight.cli.audit_log import (
    AuditKeyOption,
    AuditOption,
    KeyFileOption,
    PassphraseFileOption,
    actor,
    archive_lock,
    open_reader,
    opened_log,
    parse_moment,
)
from shipsight.cli.audit_proof import check_proof_command, prove_command
from shipsight.cli.audit_review import review_command
from shipsight.cli.audit_show import print_entries, print_verification
from shipsight.cli.audit_witness import witness_command
from shipsight.cli.output import TerminalProgress, print_json, screen, warn
from shipsight.errors import UsageError

__all__ = ["audit_app"]

audit_app = typer.Typer(help="Look at the audit log, verify it, keep it.", no_args_is_help=True)
audit_app.command("review")(review_command)
audit_app.command("witness")(witness_command)
audit_app.command("prove")(prove_command)
audit_app.command("check-proof")(check_proof_command)

ArchiveOption = Annotated[list[Path] | None, typer.Option("--archive", help="Archive to read, too; repeatable.")]


# Long, since each option of the command line stands in its signature.
@audit_app.command("verify")
def verify_command(
    key: Annotated[
        list[str] | None,
        typer.Option(help="Key that is trusted, as `audit key` prints it; repeatable; default: that of the key file."),
    ] = None,
    checkpoints: Annotated[
        list[Path] | None, typer.Option(help="File of checkpoints that lay elsewhere; repeatable.")
    ] = None,
    witness: Annotated[
        list[str] | None, typer.Option(help="Witness to ask for its newest checkpoint: URL#KEY; repeatable.")
    ] = None,
    archive: ArchiveOption = None,
    archives_only: Annotated[bool, typer.Option("--archives-only", help="Verify archives without the log.")] = False,
    passphrase_file: PassphraseFileOption = None,
    key_file: KeyFileOption = None,
    audit: AuditOption = None,
    audit_key: AuditKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find out whether every entry is as it was written, and none is missing."""
    if archives_only and not archive:
        raise UsageError("there is nothing to verify", where="--archives-only", expected="--archive")
    with ExitStack() as stack:
        reader = None if archives_only else stack.enter_context(open_reader(audit))
        # Here, since it brings SQLAlchemy: a wrong option is told before.
        from shipsight.access.audit.verify import verify
        from shipsight.cli.audit_trust import elsewhere, newest_here, trusted_keys

        keys = trusted_keys(key, witness, audit, audit_key)
        outside = elsewhere(checkpoints, witness, reader) + newest_here(key, audit, audit_key)
        lock = archive_lock(passphrase_file, key_file, archive)
        progress = stack.enter_context(TerminalProgress(quiet=as_json))
        progress.step("verifying")
        progress.plan(1.0)
        found = verify(reader, keys=keys, archives=archive or (), checkpoints=outside, lock=lock, told=progress.part)
    has_outside = bool(checkpoints or witness)
    print_verification(found, has_outside=has_outside, as_json=as_json)
    if not found.is_ok:
        raise typer.Exit(1)


# Long, since each option of the command line stands in its signature.
@audit_app.command("show")
def show(
    since: Annotated[str | None, typer.Option(help="Not before: 2026-11-01, with a time, or 7d, 12h, 30m.")] = None,
    until: Annotated[str | None, typer.Option(help="Before: likewise.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="What happened, such as sign-in; repeatable.")] = None,
    outcome: Annotated[str | None, typer.Option(help="How it ended: done or refused.")] = None,
    who: Annotated[str | None, typer.Option(help="Who did it, such as person:ada.")] = None,
    subject: Annotated[str | None, typer.Option(help="To whom or what, such as model:digits.")] = None,
    address: Annotated[str | None, typer.Option(help="From where.")] = None,
    text: Annotated[str | None, typer.Option(help="That stands in any text of the entry.")] = None,
    server: Annotated[str | None, typer.Option(help="Server that wrote it.")] = None,
    number: Annotated[str | None, typer.Option(help="Number of an entry, or FIRST-LAST.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most; 0 for all.")] = 50,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Begin with the oldest.")] = False,
    audit: AuditOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show entries, newest first; in JSON one a line."""
    from shipsight.access import EventKind, Outcome

    wrong = sorted(set(kind or ()) - {one.value for one in EventKind})
    if wrong:
        raise UsageError("no such kind", where="--kind", expected=", ".join(sorted(EventKind)), got=", ".join(wrong))
    if outcome is not None and outcome not in set(Outcome):
        raise UsageError("no such outcome", where="--outcome", expected=", ".join(Outcome), got=outcome)
    if limit < 0:
        raise UsageError("out of range", where="--limit", expected="0 or more", got=limit)
    first, last = _numbers(number)
    now = datetime.now(UTC)
    with open_reader(audit) as reader:
        entries = reader.entries(
            since=parse_moment(since, now, "--since"),
            until=parse_moment(until, now, "--until"),
            first=first,
            last=last,
            kinds=kind or (),
            outcomes=() if outcome is None else (outcome,),
            actor=who,
            subject=subject,
            address=address,
            text=text,
            server=server,
            newest_first=not oldest_first,
            limit=limit or None,
        )
        print_entries(entries, as_json=as_json)


@audit_app.command("checkpoint")
def checkpoint(audit: AuditOption = None, audit_key: AuditKeyOption = None, as_json: JsonOption = False) -> None:
    """Sign a checkpoint of the log as it is now and print it: to keep it elsewhere."""
    with opened_log(audit, audit_key) as log:
        made = log.checkpoint()
        if as_json:
            print_json(
                {
                    "log": made.origin,
                    "size": made.size,
                    "root": made.root.hex(),
                    "at": moment(made.at),
                    "text": made.text,
                }
            )
        else:
            typer.echo(made.text, nl=False)


@audit_app.command("archive")
def archive_command(
    until: Annotated[str, typer.Option(help="Entries before this day or time: 2026-01-01, or 365d ago.")],
    out: Annotated[Path, typer.Option(help="File to write; must not be there.")],
    passphrase_file: PassphraseFileOption = None,
    key_file: KeyFileOption = None,
    audit: AuditOption = None,
    audit_key: AuditKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move old entries to a sealed file that verifies alone and with the rest."""
    time = parse_moment(until, datetime.now(UTC), "--until")
    assert time is not None
    with opened_log(audit, audit_key) as log:
        made = log.archive(time, out, actor=actor(), lock=archive_lock(passphrase_file, key_file, None))
    told = {"file": str(made.file), "first": made.first, "size": made.size, "digest": made.digest, "entry": made.seq}
    if as_json:
        print_json(told)
        return
    is_open = passphrase_file is None and key_file is None
    line = f"{made.file}: entries {made.first} to {made.size - 1}{', not encrypted' if is_open else ''}; entry {made.seq} tells of it"
    screen().print(line, soft_wrap=True, markup=False)
    screen().print(f"check it: shipsight audit verify --archive {made.file}", soft_wrap=True, markup=False)


@audit_app.command("erase")
def erase(
    person: Annotated[str, typer.Argument(metavar="PERSON", help="Name, or who it is told as: certificate:CN=ada.")],
    archive: Annotated[
        list[Path] | None, typer.Option(help="Archive to erase them from, instead of the log; repeatable.")
    ] = None,
    passphrase_file: PassphraseFileOption = None,
    key_file: KeyFileOption = None,
    audit: AuditOption = None,
    audit_key: AuditKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase what is personal of somebody; the chain holds, and an entry tells that it was done."""
    lock = archive_lock(passphrase_file, key_file, archive)
    done = []
    with opened_log(audit, audit_key) as log:
        if archive:
            done = [(str(one), log.erase_archive(person, one, actor=actor(), lock=lock)) for one in archive]
        else:
            done = [("the log", log.erase(person, actor=actor()))]
        archived = log.reader.head().first
    if as_json:
        told = [{"place": where, **vars(one)} for where, one in done]
        print_json({"erased": told, "archived_entries": archived})
        return
    for where, one in done:
        line = f"{where}: {one.values} values of {one.entries} entries erased; entry {one.seq} tells of it, as of {one.pseudonym}"
        screen().print(line, soft_wrap=True, markup=False)
    if archived and not archive:
        warn("archives", f"entries before {archived} are in archives, which were not touched: give them with --archive")


@audit_app.command("key")
def key(audit: AuditOption = None, audit_key: AuditKeyOption = None, as_json: JsonOption = False) -> None:
    """Print what verifies the log: keep it where the log's keeper cannot reach it."""
    from shipsight.cli.audit_trust import signer_key

    found = signer_key(audit, audit_key)
    if as_json:
        print_json({"key": found.text, "log": found.name})
    else:
        typer.echo(found.text)


@audit_app.command("rotate-key")
def rotate_key(
    lost: Annotated[
        bool, typer.Option("--lost", help="The key before is in wrong hands: it does not sign that this one follows.")
    ] = False,
    audit: AuditOption = None,
    audit_key: AuditKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign with a new key from now on; running servers take it up by themselves."""
    with opened_log(audit, audit_key) as log:
        before = log.key
        new = log.rotate_key(actor=actor(), lost=lost)
    if as_json:
        print_json({"key": new.text, "before": before.text})
        return
    typer.echo(new.text)
    if lost:
        warn("new-key", "nobody trusts this key by the one before: give it to all who verify, and to witnesses")


def _numbers(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    first, dash, last = text.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise UsageError("not a number of an entry", where="--number", expected="120, or 120-140", got=text)
    return int(first), int(last) if dash else int(first)
