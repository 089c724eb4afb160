# SPDX-License-Identifier: Apache-2.0
"""What verbs share on the terminal: tables, errors, progress. Private to `cli`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
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


_LEAST_SHARE = 0.01  # before, there is nothing to tell the time left from


class TerminalProgress:
    """On standard error: the steps, how far the whole is, and an estimate of the time left.

    A bar where that is a terminal, one line a step elsewhere, nothing where quiet.
    """

    def __init__(self, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = screen(stderr=True)
        self._shows_bar = self._console.is_terminal and not quiet
        self._quiet = quiet
        self._bar = Bar(
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("[bold]{task.description}"),
            console=self._console,
            transient=True,
            disable=not self._shows_bar,
        )
        self._clock = clock
        self._begin_s = clock()
        self._task: TaskID | None = None
        self._whole: float | None = None
        self._before, self._current = 0.0, 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def plan(self, cost: float) -> None:
        """Learns what all steps together are expected to cost, those done already included, in any unit of time."""
        self._whole = cost

    def step(self, text: str, cost: float = 1.0) -> None:
        """Shows the step that begins."""
        self._before += self._current
        self._current = cost
        if self._task is None:
            self._task = self._bar.add_task(text, total=None, left="")
        self._bar.update(self._task, description=text)
        self._show(0.0)
        if not self._shows_bar and not self._quiet:
            left = self._left(self._before)
            told = f"[{left}] " if left else ""
            self._console.print(f"{told}{text}", style="dim", soft_wrap=True, markup=False)

    def part(self, done: int, total: int) -> None:
        """Shows how far the step is."""
        self._show(done / total if total else 0.0)

    def note(self, text: str) -> None:
        """Prints a line that stays."""
        if not self._quiet:
            self._bar.console.print(f"  {text}", soft_wrap=True, markup=False)

    def _show(self, share: float) -> None:
        if self._task is not None and self._whole is not None:
            done = self._before + share * self._current
            self._bar.update(self._task, total=self._whole, completed=min(done, self._whole), left=self._left(done))

    def _left(self, done: float) -> str:
        """Returns the time left in words, empty while there is nothing to tell it from."""
        if self._whole is None or done < _LEAST_SHARE * self._whole:
            return ""
        seconds = (self._clock() - self._begin_s) * max(self._whole - done, 0.0) / done
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"
