# SPDX-License-Identifier: Apache-2.0
"""What a rule is: evidence in, findings out; no input or output, no clock, no chance. Each has a page in `docs/doctor/`. Stable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Generic, TypeVar

from shipsight.doctor.finding import Finding

__all__ = ["Rule"]

Evidence = TypeVar("Evidence", contravariant=True)


class Rule(ABC, Generic[Evidence]):
    """One rule. Its docstring says what it finds, and from which evidence.

    Attributes:
        id: stable, words joined by hyphens: `channels-swapped`. Its page is `docs/doctor/<id>.md`.
        title: a few words, as people say it.
        explained_by: name of the examination whose errors and warnings explain what this rule sees; empty where nothing does.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    explained_by: ClassVar[str] = ""

    @abstractmethod
    def look(self, evidence: Evidence) -> Iterable[Finding]:
        """Returns what it finds; nothing where all is well, or where the evidence does not suffice.

        Args:
            evidence: what its examination collected.
        """
