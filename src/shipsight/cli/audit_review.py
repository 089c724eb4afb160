# SPDX-License-Identifier: Apache-2.0
"""`shipsight audit review`: review the audit log, sign a review off, say when the next one is due (`docs/security/audit-review.md`)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipsight.cli.access_rooms import JsonOption, day, moment
from shipsight.cli.audit_log import (
    AuditKeyOption,
    AuditOption,
    actor,
    find_place,
    open_reader,
    opened_log,
    parse_moment,
)
from shipsight.cli.audit_place import audit_key_path
from shipsight.cli.output import TerminalProgress, make_table, print_json, screen
from shipsight.errors import EnvironmentLackError, UsageError
from shipsight.printable import printable

if TYPE_CHECKING:
    from shipsight.access.audit.log import AuditLog
    from shipsight.access.review import Chain, Due, Finding, Report
    from shipsight.access.review.store import ReviewState, ReviewStore

__all__ = ["review_command"]

_WIDEST = 60
_COLOURS = {"alarm": "bold red", "warning": "yellow", "note": "dim"}


# Long, since each option of the command line stands in its signature.
def review_command(
    since: Annotated[
        str | None, typer.Option(help="First time: 2026-11-01, or 7d; default: where the last signed-off review ended.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Time before which; default: now.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to put the report in, too: page, JSON, signed note.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List reviews and who signed them off.")] = False,
    show: Annotated[str | None, typer.Option(metavar="ID", help="Show a review again.")] = None,
    sign_off: Annotated[str | None, typer.Option(metavar="ID", help="Sign a review off.")] = None,
    note: Annotated[str | None, typer.Option(help="What was looked at and decided; with --sign-off.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say whether a review is overdue: exit code 1.")] = False,
    notes: Annotated[bool, typer.Option("--notes", help="Show notes, too: rare, mostly harmless.")] = False,
    witness: Annotated[
        list[str] | None, typer.Option(help="Witness to verify the log with, first: URL#KEY; repeatable.")
    ] = None,
    checkpoints: Annotated[
        list[Path] | None, typer.Option(help="File of checkpoints that lay elsewhere, likewise; repeatable.")
    ] = None,
    reviews: Annotated[Path | None, typer.Option(help="Folder of reports; default: beside the key of the log.")] = None,
    audit: AuditOption = None,
    audit_key: AuditKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Review what was not signed off yet: verify the log, look for what stands out, keep a signed report."""
    asked = [
        name
        for name, is_given in (
            ("--list", list_),
            ("--show", show is not None),
            ("--sign-off", sign_off is not None),
            ("--check", check),
        )
        if is_given
    ]
    if len(asked) > 1:
        raise UsageError("one at a time", where=" ".join(asked))
    if asked and (since or until):
        raise UsageError("a review that is made has a time", where=asked[0], got="--since, --until")
    if (note is None) != (sign_off is None):
        raise UsageError("a sign-off says what was looked at", where="--sign-off", expected="--sign-off ID --note TEXT")
    if check:
        _check(audit, as_json=as_json)
        return
    with opened_log(audit, audit_key) as log:
        folder = reviews or audit_key_path(audit_key, find_place(audit)).with_suffix(".reviews")
        store = _store(log, folder)
        if list_:
            _list(store, as_json=as_json)
        elif show is not None:
            _show(store, store.get(show), out, notes=notes, as_json=as_json)
        elif sign_off is not None and note is not None:
            _tell_signed(store.sign_off(sign_off, actor=actor(), note=note), store.due(), as_json=as_json)
        else:
            now = datetime.now(UTC)
            verified = _verifier(log, audit, audit_key, witness, checkpoints, quiet=as_json)
            times = parse_moment(since, now, "--since"), parse_moment(until, now, "--until")
            report = _make(store, verified, *times, quiet=as_json)
            _show(store, report, out, notes=notes, as_json=as_json)
            if report.chain.status != "ok" or any(one.severity == "alarm" for one in report.findings):
                raise typer.Exit(1)


def _store(log: AuditLog, folder: Path) -> ReviewStore:
    from shipsight.access.audit.checkpoint import VerifierKey
    from shipsight.access.review.store import ReviewStore

    # Reports of before a rotation are signed by a key that the log names as one of its own.
    kept = [VerifierKey.parse(one.key) for one in log.reader.kept_keys()]
    return ReviewStore(log, folder, signer=log.signer, origin=log.origin, keys=[log.key, *kept])


# Long in arguments alone: what to verify with.
def _verifier(
    log: AuditLog,
    audit: str | None,
    audit_key: Path | None,
    witness: list[str] | None,
    checkpoints: list[Path] | None,
    *,
    quiet: bool,
) -> Callable[[], Chain]:
    from shipsight.access.audit.verify import verify
    from shipsight.access.review import Chain
    from shipsight.cli.audit_trust import elsewhere, trusted_keys

    keys = trusted_keys(None, witness, audit, audit_key)
    outside = elsewhere(checkpoints, witness, log.reader)

    def verified() -> Chain:
        signed = log.checkpoint()  # so that the newest entries are under one
        with TerminalProgress(quiet=quiet) as progress:
            progress.step("verifying")
            progress.plan(1.0)
            return Chain.of(verify(log.reader, keys=keys, checkpoints=outside, signed=signed, told=progress.part))

    return verified


def _make(
    store: ReviewStore, verified: Callable[[], Chain], since: datetime | None, until: datetime | None, *, quiet: bool
) -> Report:
    chain = verified()
    with TerminalProgress(quiet=quiet) as progress:
        progress.step("reviewing")
        progress.plan(1.0)
        return store.make(actor=actor(), verify=lambda: chain, since=since, until=until, progress=progress.part)


def _check(audit: str | None, *, as_json: bool) -> None:
    """Reads alone, so that a timer needs no key."""
    from shipsight.access.review import due

    with open_reader(audit) as reader:
        found = due(reader, datetime.now(UTC))
    if as_json:
        print_json({"due": _due(found)})
    else:
        screen().print(_due_line(found), markup=False, soft_wrap=True)
    if found.is_overdue:
        raise typer.Exit(1)


def _list(store: ReviewStore, *, as_json: bool) -> None:
    found, next_due = store.list(), store.due()
    if as_json:
        print_json({"reviews": [one.to_dict() for one in found], "due": _due(next_due)})
        return
    rows = [
        [
            one.id,
            day(one.since),
            day(one.until),
            str(one.findings),
            str(one.notes),
            one.chain,
            ", ".join(printable(each.who, _WIDEST) for each in one.signed) or "nobody",
            "" if one.is_here else "not on this machine",
        ]
        for one in found
    ]
    table = make_table(["review", "from (UTC)", "to", "findings", "notes", "log", "signed off by", ""], rows)
    for number in (5, 6):
        table.columns[number].justify = "left"
    out = screen()
    if rows:
        out.print(table)
    out.print(_due_line(next_due), markup=False, soft_wrap=True)


def _show(store: ReviewStore, report: Report, out: Path | None, *, notes: bool, as_json: bool) -> None:
    files = [] if out is None else _write(store, report, out)
    if as_json:
        print_json({"review": report.to_dict() | {"digest": report.digest}, "files": [str(one) for one in files]})
        return
    console, chain = screen(), report.chain
    colour = "green" if chain.status == "ok" else "bold red"
    console.print(f"review [bold]{report.id}[/]  {day(report.since)} to {day(report.until)} UTC", soft_wrap=True)
    console.print(
        f"log [{colour}]{chain.status}[/]  {chain.covered} of {chain.size} entries signed; {report.entries} reviewed, "
        f"{report.actors} actors",
        soft_wrap=True,
    )
    for one in (*report.findings, *(report.notes if notes else ())):
        _print_finding(one)
    if report.left_out:
        console.print(f"and {report.left_out} more, which were too many for a report", soft_wrap=True)
    hidden = "" if notes or not report.notes else " (--notes shows them)"
    count = len(report.findings)
    console.print(
        f"\n{count or 'no'} finding{'' if count == 1 else 's'}, {len(report.notes)} notes{hidden}", soft_wrap=True
    )
    for file in files:
        console.print(f"wrote {file}", soft_wrap=True, markup=False)
    signed = store.state(report.id).signed
    for each in signed:
        line = f"signed off {day(each.at)} UTC by {printable(each.who, _WIDEST)}: {printable(each.note, most=300)}"
        console.print(line, soft_wrap=True, markup=False)
    if not signed:
        line = f"sign it off: shipsight audit review --sign-off {report.id} --note 'what you looked at'"
        console.print(line, soft_wrap=True, markup=False)


def _print_finding(one: Finding) -> None:
    """Prints a finding as a paragraph: its text is the longest part, and a table would cut it."""
    from rich.markup import escape

    console = screen()
    when = "" if one.first_at is None else f"{day(one.first_at)} UTC"
    if one.last_at is not None and one.last_at != one.first_at:
        when += f" to {day(one.last_at)}"
    console.print(
        f"\n[{_COLOURS[one.severity.value]}]{one.severity.value}[/]  [bold]{escape(printable(one.what, most=400))}[/]",
        soft_wrap=True,
    )
    seqs = ", ".join(map(str, one.seqs[:8])) + (f", ... ({one.count} in all)" if one.count > 8 else "")
    details = "  ".join(part for part in (one.rule, when, f"entries {seqs}" if seqs else "") if part)
    console.print(f"  [dim]{escape(details)}[/]", soft_wrap=True)
    console.print(f"  {escape(one.advice)}", soft_wrap=True)


def _tell_signed(state: ReviewState, next_due: Due, *, as_json: bool) -> None:
    if as_json:
        print_json({"review": state.to_dict(), "due": _due(next_due)})
        return
    screen().print(
        f"{state.id} is signed off by {printable(state.signed[-1].who, _WIDEST)}", markup=False, soft_wrap=True
    )
    screen().print(_due_line(next_due), markup=False, soft_wrap=True)


def _write(store: ReviewStore, report: Report, folder: Path) -> list[Path]:
    files = {
        "html": store.html(report.id).encode(),
        "json": report.to_bytes(),
        "note": store.note(report.id).encode(),
    }
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, data in files.items():
            path = folder / f"review-{report.id}.{kind}"
            path.write_bytes(data)
            written.append(path)
    except OSError as error:
        raise EnvironmentLackError("the report cannot be written", where=folder, got=error.strerror) from error
    return written


def _due(found: Due) -> dict[str, Any]:
    return {
        "next_seq": found.next_seq,
        "reviewed_until": moment(found.reviewed_until),
        "due_at": moment(found.due_at),
        "overdue_s": round(found.overdue_s),
    }


def _due_line(found: Due) -> str:
    if found.due_at is None:
        return "nothing to review: the log has no entries"
    reviewed = (
        "nothing was reviewed yet"
        if found.reviewed_until is None
        else f"reviewed until {day(found.reviewed_until)} UTC"
    )
    if found.is_overdue:
        return f"{reviewed}; the next review was due {day(found.due_at)} UTC and is overdue: shipsight audit review"
    return f"{reviewed}; the next review is due {day(found.due_at)} UTC"
