# SPDX-License-Identifier: Apache-2.0
"""Progress on standard error: the time left, and silence where it was asked for."""

from __future__ import annotations

import pytest

from shipsight.cli.output import TerminalProgress


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_time_left_follows_from_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with TerminalProgress(quiet=False, clock=clock) as progress:
        progress.step("opening", cost=10)
        clock.now_s = 20.0
        progress.plan(100)
        progress.step("measuring", cost=80)
        clock.now_s = 180.0
        progress.step("writing", cost=10)
        progress.note("a line that stays")
    assert capsys.readouterr().err.splitlines() == [
        "opening",
        "[about 3 min left] measuring",
        "[about 20 s left] writing",
        "  a line that stays",
    ]


def test_quiet_progress_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress(quiet=True) as progress:
        progress.plan(2)
        progress.step("one")
        progress.part(1, 2)
        progress.note("two")
    assert capsys.readouterr() == ("", "")
