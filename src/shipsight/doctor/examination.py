# SPDX-License-Identifier: Apache-2.0
"""What an examination is: it collects evidence of one kind from a case, and its rules look at that. Stable.

Collecting reads files, runs models and takes time; rules do none of that. An examination that cannot be made says what it would
need: "not examined" is never "nothing found".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from shipsight.build.progress import Progress
from shipsight.doctor.finding import Figure, Picture
from shipsight.doctor.rule import Rule

__all__ = ["Examination"]

Given = TypeVar("Given", contravariant=True)
Evidence = TypeVar("Evidence")


class Examination(ABC, Generic[Given, Evidence]):
    """One kind of evidence of a kind of case (`Case`, `SpeedCase`), and the rules that look at it.

    Attributes:
        name: stable, one word: `data`, `preprocessing`, `environment`, `stages`, `conversion`, `dataset`.
        title: what it asks, as people say it.
        rules: that look at its evidence.
        cost: seconds that it takes on two cores with 64 images of a small model, roughly: for progress.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    rules: ClassVar[tuple[Rule[Any], ...]]
    cost: ClassVar[float] = 5.0

    @abstractmethod
    def lacks(self, case: Given) -> str | None:
        """Returns what a case lacks for this to be made, as one sentence that says what to give; None where it has all.

        Costs next to nothing.
        """

    @abstractmethod
    def collect(self, case: Given, progress: Progress) -> Evidence:
        """Collects the evidence.

        Args:
            case: what is examined.
            progress: is told of parts (`part`) and lines worth keeping (`note`); the step itself was begun already.

        Raises:
            ShipsightError: something that was given cannot be used.
        """

    def figures(self, evidence: Evidence) -> Mapping[str, Figure | list[Figure]]:
        """Returns figures of the evidence that are worth keeping even where nothing was found: stable keys, no names of files."""
        return {}

    def not_told(self, evidence: Evidence) -> tuple[str, ...]:
        """Returns what could not be told from the evidence although the examination was made, and why: sentences, no names of files."""
        return ()

    def pictures(self, evidence: Evidence) -> tuple[Picture, ...]:
        """Returns drawings of the evidence that are worth seeing even where nothing was found."""
        return ()
