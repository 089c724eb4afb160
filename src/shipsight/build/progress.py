# SPDX-License-Identifier: Apache-2.0
"""How a build tells what it is doing. The command line draws it; a library caller may ignore it. Stable."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Receives what a build is doing; called from the building thread."""

    def plan(self, cost: float) -> None:
        """Learns what all steps together are expected to cost, those done already included, in any unit of time."""

    def step(self, text: str, cost: float = 1.0) -> None:
        """A step of that expected cost begins, and the one before it is done."""

    def part(self, done: int, total: int) -> None:
        """Part of the current step is done."""

    def note(self, text: str) -> None:
        """A line worth keeping, such as a step of the INT8 guard."""


class Silent:
    """A progress that tells nobody."""

    def plan(self, cost: float) -> None:
        """Ignores it."""

    def step(self, text: str, cost: float = 1.0) -> None:
        """Ignores it."""

    def part(self, done: int, total: int) -> None:
        """Ignores it."""

    def note(self, text: str) -> None:
        """Ignores it."""
