# SPDX-License-Identifier: Apache-2.0
"""Findings in the order to read them in, and what one examination that cannot be made leaves to the others."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, ClassVar

import pytest

from shipsight.build.progress import Silent
from shipsight.doctor.accuracy import EXAMINATIONS
from shipsight.doctor.diagnosis import examine
from shipsight.doctor.examination import Examination
from shipsight.doctor.finding import Finding, Severity, by_weight
from shipsight.doctor.rule import Rule
from shipsight.errors import MissingDependencyError

CAUSES = {"symptom": frozenset({"cause"})}


def found(rule: str, weight: float, severity: Severity = Severity.ERROR) -> Finding:
    return Finding(rule=rule, severity=severity, what="w", evidence="e", remedy="r", weight=weight)


@pytest.mark.parametrize(
    ("weights", "want"),
    [
        ({"cause": 0.9, "symptom": 1.0}, ["cause", "symptom"]),
        ({"cause": 0.5, "symptom": 0.9}, ["cause", "symptom"]),
        ({"cause": 0.3, "symptom": 0.9}, ["symptom", "cause"]),
        ({"cause": 0.5, "symptom": 0.9, "other": 0.7}, ["other", "cause", "symptom"]),
        ({"other": 0.1, "symptom": 0.9}, ["symptom", "other"]),
    ],
)
def test_a_symptom_comes_after_the_error_that_explains_it(weights: dict[str, float], want: list[str]) -> None:
    findings = [found(rule, weight) for rule, weight in weights.items()]
    for order in itertools.permutations(findings):
        assert [one.rule for one in by_weight(order, CAUSES)] == want


@pytest.mark.parametrize(
    ("severity", "want"),
    [(Severity.WARNING, ["other", "cause", "symptom"]), (Severity.NOTE, ["symptom", "other", "cause"])],
)
def test_a_warning_goes_before_the_error_that_it_explains_and_a_note_does_not(
    severity: Severity, want: list[str]
) -> None:
    findings = [found("symptom", 0.5), found("cause", 0.9, severity), found("other", 0.1)]
    for order in itertools.permutations(findings):
        assert [one.rule for one in by_weight(order, CAUSES)] == want


def test_what_explains_a_rule_is_an_examination_that_there_is() -> None:
    names = {one.name for one in EXAMINATIONS}
    told = {rule.explained_by for one in EXAMINATIONS for rule in one.rules if rule.explained_by}
    assert told == {"conversion"}
    assert told <= names


class _Case:
    def told(self) -> Any:
        return None


class _Always(Rule[str]):
    id: ClassVar[str] = "always"
    title: ClassVar[str] = "always"

    def look(self, evidence: str) -> Iterable[Finding]:
        yield found("always", 0.2)


class _Sound(Examination[Any, str]):
    name = "sound"
    title = "Sound"
    cost = 1.0
    rules = (_Always(),)

    def lacks(self, case: Any) -> str | None:
        return None

    def collect(self, case: Any, progress: Any) -> str:
        return "evidence"


class _Lacking(_Sound):
    name = "lacking"
    title = "Lacking"

    def collect(self, case: Any, progress: Any) -> str:
        raise MissingDependencyError("package onnx is not installed", hint="Run: pip install 'shipsight[build]'")


def test_an_examination_that_lacks_a_package_says_so_and_the_others_are_made() -> None:
    told = examine("accuracy", _Case(), [_Lacking(), _Sound()], Silent())
    assert [one.rule for one in told.findings] == ["always"]
    lacking = next(one for one in told.examined if one.name == "lacking")
    assert lacking.lacks is not None
    assert "pip install" in lacking.lacks
