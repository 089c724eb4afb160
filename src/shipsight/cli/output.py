# SPDX-License-Identifier: Apache-2.0
"""What verbs share on the terminal: tables, errors, progress. Private to `cli`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from shipsight.errors import ShipsightError

__all__ = ["TerminalProgress", "make_table", "number", "print_error", "print_json", "screen", "warn"]


def screen(*, stderr: bool = False) -> Console:
    """Returns the terminal; where it is none, lines are not folded."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else 160)


def print_json(value: object) -> None:
    """Prints one JSON document to standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def print_error(error: ShipsightError, *, as_json: bool) -> None:
    """Prints an error: for people to standard error, with `--json` also as a document to standard output."""
    if as_json:
        print_json({"error": error.to_dict()})
    console = screen(stderr=True)
    console.print(f"[bold red]error[/] [dim]({error.code})[/] {escape(str(error))}", soft_wrap=True)


def warn(code: str, text: str) -> None:
    """Prints a warning to standard error."""
    screen(stderr=True).print(f"[yellow]warning[/] [dim]({escape(code)})[/] {escape(text)}", soft_wrap=True)


def number(value: float | None, digits: int = 1) -> str:
    """Writes a number, or a dash where it was not measured."""
    return "-" if value is None else f"{value:.{digits}f}"


def make_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> Table:
    """Makes a table: first column left, all others right."""
    table = Table(
        title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0)
    )
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


class TerminalProgress:
    """A bar on standard error with the steps, what is done and an estimate of the time left."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = screen(stderr=True)
        self._shows_bar = self._console.is_terminal and not quiet
        self._quiet = quiet
        self._bar = Bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
            transient=True,
            disable=not self._shows_bar,
        )
        self._whole: TaskID | None = None
        self._step: TaskID | None = None
        self._steps_done = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def plan(self, steps: int) -> None:
        """Learns how many steps there are."""
        self._whole = self._bar.add_task("build", total=steps)

    def step(self, text: str) -> None:
        """Shows the step that begins."""
        if self._whole is not None:
            self._bar.update(self._whole, completed=self._steps_done)
        self._steps_done += 1
        if self._step is not None:
            self._bar.remove_task(self._step)
        self._step = self._bar.add_task(text, total=None)
        if not self._shows_bar and not self._quiet:
            self._console.print(text, style="dim", soft_wrap=True, markup=False)

    def part(self, done: int, total: int) -> None:
        """Shows how far the step is."""
        if self._step is not None:
            self._bar.update(self._step, completed=done, total=total)

    def note(self, text: str) -> None:
        """Prints a line that stays."""
        if not self._quiet:
            self._bar.console.print(f"  {text}", soft_wrap=True, markup=False)
