# SPDX-License-Identifier: Apache-2.0
"""How entries and verifications look on the terminal. Private to `cli`.

Texts of entries came from outside: on a terminal everything that could move its cursor, hide or reorder text is written as an escape.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from shipsight.cli.output import make_table, print_json, screen
from shipsight.printable import printable

if TYPE_CHECKING:
    from shipsight.access.audit import Entry
    from shipsight.access.audit.verification import Verification

__all__ = ["entry_dict", "print_entries", "print_verification"]

_WIDEST = 60
_COLOURS = {"ok": "green", "unverifiable tail": "yellow", "failed": "bold red"}


def entry_dict(entry: Entry) -> dict[str, Any]:
    """Returns an entry for machines."""
    event = entry.event
    return {
        "seq": entry.seq,
        "at": event.at.isoformat(),
        "written": None if entry.written is None else entry.written.isoformat(),
        "server": entry.server,
        "kind": event.kind.value,
        "outcome": event.outcome.value,
        "actor": event.actor,
        "subject": event.subject,
        "address": event.address,
        "why": event.why,
        "factor": event.factor,
        "details": dict(event.details),
        "erased_by": entry.erased_by,
        "clock_back": entry.is_clock_back,
    }


def print_entries(entries: Iterable[Entry], *, as_json: bool) -> None:
    """Prints entries: a table for people, a document a line for machines."""
    if as_json:
        for entry in entries:
            # ASCII: whatever reads lines finds as many as there are entries.
            sys.stdout.write(json.dumps(entry_dict(entry), allow_nan=False) + "\n")
        return
    rows = [_row(entry) for entry in entries]
    if not rows:
        screen().print("no such entry")
        return
    # Texts are no markup: what stands in brackets stays.
    from rich.markup import escape

    columns = ["entry", "at (UTC)", "what", "by", "to", "from", "how"]
    table = make_table(columns, [[escape(one) for one in row] for row in rows])
    for column in table.columns:
        column.justify = "left"
    # When and which are never cut: the others give way.
    for place in (0, 1):
        column = table.columns[place]
        column.min_width = max(len(columns[place]), *(len(row[place]) for row in rows))
    screen().print(table)


def print_verification(found: Verification, *, has_outside: bool, as_json: bool) -> None:
    """Prints what a verification found, and what to do about it."""
    if as_json:
        print_json(found.to_dict())
        return
    out = screen()
    status = found.status.value
    out.print(f"[{_COLOURS[status]}]{status}[/]  {found.origin}", soft_wrap=True)
    covered = (
        "none signed"
        if found.covered_at is None
        else f"signed up to {found.covered} ({found.covered_at:%Y-%m-%d %H:%M:%S} UTC)"
    )
    out.print(f"entries {found.first} to {found.size - 1}, {covered}", soft_wrap=True, markup=False)
    for one in found.archives:
        out.print(f"archive {one['file']}: entries {one['first']} to {one['size'] - 1}", soft_wrap=True, markup=False)
    if found.findings:
        from rich.markup import escape

        rows = [
            ["-" if one.seq is None else str(one.seq), one.code, escape(printable(one.what, most=200))]
            for one in found.findings
        ]
        table = make_table(["entry", "finding", "what"], rows)
        for column in table.columns[1:]:
            column.justify, column.no_wrap = "left", False
        out.print(table)
        if found.found > len(found.findings):
            out.print(f"and {found.found - len(found.findings)} more", soft_wrap=True)
        out.print("Keep the log and its key as they are, and find out who could write there.", soft_wrap=True)
    elif found.tail is not None:
        out.print(f"{found.tail}", soft_wrap=True, markup=False)
        out.print(
            "Whether something was cut off there cannot be told. Sign what is there with: shipsight audit checkpoint; "
            "or compare with what lay elsewhere: --checkpoints, --witness.",
            soft_wrap=True,
            markup=False,
        )
    elif not has_outside:
        out.print(
            "Nothing from elsewhere was compared: whoever has the key could have written all of it anew, or cut it at a "
            "checkpoint. Give --checkpoints or --witness.",
            soft_wrap=True,
            markup=False,
        )
    for note in found.notes:
        out.print(f"note ({note.code}): {printable(note.what, most=200)}", soft_wrap=True, markup=False)


def _row(entry: Entry) -> list[str]:
    event = entry.event
    how = [
        event.outcome.value,
        event.why,
        event.factor,
        *(f"{name}={_short(one)}" for name, one in event.details.items()),
    ]
    told = [
        str(entry.seq),
        f"{event.at:%Y-%m-%d %H:%M:%S}",
        event.kind.value,
        event.actor,
        event.subject or "-",
        event.address or "-",
        " ".join(one for one in how if one),
    ]
    return [printable(one, most=40 if place < len(told) - 1 else _WIDEST) for place, one in enumerate(told)]


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
