# SPDX-License-Identifier: Apache-2.0
"""How a diagnosis looks on the terminal: each finding in what, evidence, do this; below, what was examined. Private to `cli`.

Texts may hold names of classes and files: what could move a cursor, hide or reorder text is written as an escape.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from shipsight.cli.output import make_table, print_json, screen
from shipsight.printable import printable

if TYPE_CHECKING:
    from shipsight.doctor import Diagnosis, Finding

__all__ = ["print_diagnosis"]

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_VERDICTS = {"failed": "bold red", "undecided": "yellow", "passed": "green"}
_INDENT = 9


def print_diagnosis(diagnosis: Diagnosis, *, as_json: bool) -> None:
    """Prints a diagnosis: for people, or as one document of JSON (`docs/formats/diagnosis.md`)."""
    from shipsight.doctor.telling import judge, limits

    if as_json:
        print_json(diagnosis.to_dict())
        return
    console = screen()
    for finding in diagnosis.findings:
        _print_finding(console, finding, diagnosis.about)
    _print_examined(console, diagnosis)
    colour, word, sentence = judge(diagnosis)
    console.print(Text.assemble((word, _VERDICTS[colour]), ". ", printable(sentence)), soft_wrap=True)
    _print_text(console, Text(limits(diagnosis), style="dim"), 0)


def _print_finding(console: Console, finding: Finding, about: str) -> None:
    from shipsight.doctor.telling import lost

    word = finding.severity.value
    cost = lost(finding)
    head = Text.assemble(
        (f"{word:<{_INDENT}}", _STYLES[word]),
        (printable(finding.what), "bold"),
        (f"  {f'{cost} of the {about}, ' if cost else ''}{finding.rule}", "dim"),
    )
    _print_text(console, head, 0)
    _print_text(console, Text(printable(finding.evidence)), _INDENT)
    _print_text(console, Text.assemble(("Do this: ", "green"), printable(finding.remedy)), _INDENT)
    if finding.command is not None:
        # Whole on its line: it is there to be copied.
        console.print(Text.assemble(" " * _INDENT, ("$ ", "dim"), printable(finding.command)), soft_wrap=True)
    console.print()


def _print_text(console: Console, text: Text, indent: int) -> None:
    if sys.stdout.isatty():
        console.print(Padding(text, (0, 0, 0, indent)))
    else:
        console.print(Text.assemble(" " * indent, text), soft_wrap=True)


def _print_examined(console: Console, diagnosis: Diagnosis) -> None:
    counts = {one.name: sum(finding.rule in one.rules for finding in diagnosis.findings) for one in diagnosis.examined}
    rows = [
        [one.name, one.title, f"{one.took_s:.1f} s", str(counts[one.name])]
        for one in diagnosis.examined
        if one.lacks is None
    ]
    table = make_table(["examined", "asks", "took", "findings"], rows)
    table.columns[1].justify = "left"
    table.columns[1].no_wrap = False
    console.print(table)
    for one in diagnosis.examined:
        if one.lacks is not None:
            _print_text(console, Text.assemble(("not examined  ", "yellow"), f"{one.name}: {printable(one.lacks)}"), 0)
        for told in one.not_told:
            _print_text(console, Text.assemble(("not told  ", "yellow"), f"{one.name}: {printable(told)}"), 0)
    console.print()
