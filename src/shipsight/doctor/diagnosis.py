# SPDX-License-Identifier: Apache-2.0
"""What the doctor says in the end: findings by weight, and what was examined and what was not. Stable; `docs/formats/diagnosis.md`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from shipsight.build.progress import Progress
from shipsight.doctor.case import Told
from shipsight.doctor.examination import Examination
from shipsight.doctor.finding import Figure, Finding, Picture, Severity, by_weight
from shipsight.errors import MissingDependencyError

__all__ = ["Diagnosis", "Examined", "examine"]


@dataclass(frozen=True)
class Examined:
    """How one examination went.

    Attributes:
        name: of it.
        title: what it asks.
        took_s: seconds.
        lacks: why it was not made, None where it was.
        not_told: what it could not tell although it was made, and why: sentences.
        figures: of its evidence.
        rules: ids of those that looked.
        pictures: of what was collected, for the page.
    """

    name: str
    title: str
    took_s: float = 0.0
    lacks: str | None = None
    not_told: tuple[str, ...] = ()
    figures: Mapping[str, Figure | list[Figure]] = field(default_factory=dict)
    rules: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns it for machines, without pictures."""
        return {
            "name": self.name,
            "title": self.title,
            "took_s": round(self.took_s, 3),
            "lacks": self.lacks,
            "not_told": list(self.not_told),
            "figures": dict(self.figures),
            "rules": list(self.rules),
        }


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        about: `accuracy` or `speed`.
        of: what was examined.
        findings: by weight.
        examined: each examination, in order.
        environment: of this machine, plain values (`proof.environment`).
        took_s: seconds in all.
    """

    about: str
    of: Told
    findings: tuple[Finding, ...]
    examined: tuple[Examined, ...]
    environment: Mapping[str, Any]
    took_s: float

    @property
    def is_well(self) -> bool:
        """Whether nothing of severity error was found."""
        return all(one.severity is not Severity.ERROR for one in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Returns it for machines."""
        return {
            "about": self.about,
            **vars(self.of),
            "class_names": list(self.of.class_names),
            "is_well": self.is_well,
            "findings": [one.to_dict() for one in self.findings],
            "examined": [one.to_dict() for one in self.examined],
            "environment": dict(self.environment),
            "took_s": round(self.took_s, 3),
        }


class _Case(Protocol):
    def told(self) -> Told: ...


Given = TypeVar("Given", bound=_Case)


def examine(about: str, case: Given, examinations: Sequence[Examination[Given, Any]], progress: Progress) -> Diagnosis:
    """Makes examinations one after another, and has their rules look at what they collected.

    Args:
        about: `accuracy` or `speed`.
        case: what is examined.
        examinations: in order.
        progress: is told of each.

    Raises:
        ShipsightError: something that was given cannot be used.
    """
    from shipsight.proof.environment import describe_environment

    begin_s = time.monotonic()
    ready = [(one, one.lacks(case)) for one in examinations]
    progress.plan(sum(one.cost for one, lacks in ready if lacks is None) or 1.0)
    findings: list[Finding] = []
    examined: list[Examined] = []
    for one, lacks in ready:
        if lacks is not None:
            examined.append(Examined(one.name, one.title, lacks=lacks))
            continue
        progress.step(one.title, one.cost)
        its_begin_s = time.monotonic()
        try:
            evidence = one.collect(case, progress)
        except MissingDependencyError as error:
            # The others need other packages: what they find is worth having.
            examined.append(Examined(one.name, one.title, lacks=str(error)))
            continue
        for rule in one.rules:
            findings += rule.look(evidence)
        took_s = time.monotonic() - its_begin_s
        rules = tuple(rule.id for rule in one.rules)
        examined.append(
            Examined(
                one.name,
                one.title,
                took_s,
                not_told=one.not_told(evidence),
                figures=one.figures(evidence),
                rules=rules,
                pictures=one.pictures(evidence),
            )
        )
    return Diagnosis(
        about=about,
        of=case.told(),
        findings=tuple(by_weight(findings, _causes(examinations))),
        examined=tuple(examined),
        environment=describe_environment(),
        took_s=time.monotonic() - begin_s,
    )


def _causes(examinations: Sequence[Examination[Any, Any]]) -> dict[str, frozenset[str]]:
    """Returns for each rule that tells of a symptom the rules that explain it."""
    looking = {one.name: frozenset(rule.id for rule in one.rules) for one in examinations}
    return {
        rule.id: looking[rule.explained_by]
        for one in examinations
        for rule in one.rules
        if rule.explained_by in looking
    }
