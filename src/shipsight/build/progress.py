# SPDX-License-Identifier: Apache-2.0
"""How a build tells what it is doing. The command line draws it; a library caller may ignore it. Stable."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Receives what a build is doing; called from the building thread."""

    def plan(self, steps: int) -> None:
        """Learns how many steps the build has."""

    def step(self, text: str) -> None:
        """A step begins."""

    def part(self, done: int, total: int) -> None:
        """Part of the current step is done."""

    def note(self, text: str) -> None:
        """A line worth keeping, such as a step of the INT8 guard."""


class Silent:
    """A progress that tells nobody."""

    def plan(self, steps: int) -> None:
        """Ignores it."""

    def step(self, text: str) -> None:
        """Ignores it."""

    def part(self, done: int, total: int) -> None:
        """Ignores it."""

    def note(self, text: str) -> None:
        """Ignores it."""
