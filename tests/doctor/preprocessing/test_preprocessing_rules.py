# SPDX-License-Identifier: Apache-2.0
"""The rules of the detective: each tells its own difference and no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.doctor.rules import RuleSuite

from shipsight.doctor import Rule, Severity
from shipsight.doctor.preprocessing import Difference, PreprocessingEvidence, PreprocessingExamination, Residual
from shipsight.doctor.preprocessing.rules import RULES

UNEXPLAINED = "preprocessing-unexplained"


def evidence(*rules: str, lost: float | None = 0.3, is_tensor: bool = True, is_explained: bool = True) -> Any:
    differences = tuple(Difference(one, "Something was done", 0.9, lost, 12.5, (("gain", 2.0),)) for one in rules)
    return PreprocessingEvidence(is_tensor, 1, differences, Residual(20.0, 0.2, 1.0, 3.0, is_explained))


class TestRules(RuleSuite):
    def cases(self) -> Sequence[tuple[Rule[Any], Any, bool]]:
        steps = [rule for rule in RULES if rule.id != UNEXPLAINED]
        (last,) = [rule for rule in RULES if rule.id == UNEXPLAINED]
        others = {rule.id: tuple(one.id for one in steps if one is not rule) for rule in steps}
        return [
            *((rule, evidence(rule.id), True) for rule in steps),
            *((rule, evidence(rule.id, lost=None), True) for rule in steps),
            *((rule, evidence(rule.id, lost=0.0, is_tensor=False), True) for rule in steps),
            *((rule, evidence(*others[rule.id]), False) for rule in steps),
            (last, evidence(is_explained=False), True),
            (last, evidence(), False),
            (last, evidence("other-image", is_explained=False), False),
        ]


@pytest.mark.parametrize(
    ("rule", "lost", "severity"),
    [
        ("channels-swapped", 0.2, Severity.ERROR),
        ("channels-swapped", 0.0, Severity.WARNING),
        ("layout-swapped", None, Severity.ERROR),
        ("size-wrong", None, Severity.WARNING),
        ("interpolation-differs", 0.0, Severity.NOTE),
        ("interpolation-differs", 0.2, Severity.ERROR),
    ],
)
def test_severity_is_what_it_costs_and_whether_it_is_wrong_in_any_case(
    rule: str, lost: float | None, severity: Severity
) -> None:
    (found,) = [one for each in RULES for one in each.look(evidence(rule, lost=lost))]
    assert found.severity is severity


def test_examination_says_what_it_lacks_when_nothing_was_given() -> None:
    class Bare:
        tensor = predictions = None
        images = ()

    assert "--tensor" in str(PreprocessingExamination().lacks(Bare()))  # type: ignore[arg-type]  # what it looks at
