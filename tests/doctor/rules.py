# SPDX-License-Identifier: Apache-2.0
"""What every rule of the doctor promises, whatever it looks at: a suite that the tests of a family of rules inherit."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from tests.conftest import REPOSITORY

from shipsight.doctor import Finding, Rule, Severity

__all__ = ["RuleSuite", "check_finding"]

PAGES = REPOSITORY / "docs" / "doctor"
PATH_LIKE = re.compile(r"(^|\s)(/[\w.-]+){2,}|[A-Za-z]:\\|://")


def check_finding(finding: Finding, rule: Rule[Any]) -> None:
    """Checks what every finding promises."""
    assert finding.rule == rule.id
    assert 0 <= finding.weight <= 1
    assert 0 <= finding.certainty <= 1
    assert finding.severity is not Severity.ERROR or finding.weight > 0 or finding.certainty == 1
    for text in (finding.what, finding.evidence, finding.remedy):
        assert text == text.strip()
        assert text
        assert "\n" not in text
    assert re.search(r"\d", finding.evidence), "evidence without a number"
    assert finding.command is None or "\n" not in finding.command
    json.dumps(finding.to_dict(), allow_nan=False)
    for key, value in finding.figures.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", key), key
        for one in value if isinstance(value, list) else [value]:
            assert one is None or isinstance(one, bool | int | float | str), key
            assert not isinstance(one, float) or math.isfinite(one), key
            assert not isinstance(one, str) or not PATH_LIKE.search(one), key
    for picture in finding.pictures:
        assert picture.caption
        assert picture.svg or picture.png


class RuleSuite:
    """Inherit it, and give the rules with evidence in which they find something and evidence in which they do not."""

    def cases(self) -> Sequence[tuple[Rule[Any], Any, bool]]:
        """Returns rule, evidence, and whether it finds something in that."""
        raise NotImplementedError

    def test_rules_find_what_is_there_and_nothing_else(self) -> None:
        for rule, evidence, finds in self.cases():
            found = list(rule.look(evidence))
            assert bool(found) is finds, rule.id
            for one in found:
                check_finding(one, rule)

    def test_rules_say_the_same_of_the_same_evidence_and_leave_it_as_it_is(self) -> None:
        for rule, evidence, _ in self.cases():
            before = copy.deepcopy(evidence)
            first, second = list(rule.look(evidence)), list(rule.look(evidence))
            assert [one.to_dict() for one in first] == [one.to_dict() for one in second], rule.id
            if type(evidence).__eq__ is not object.__eq__:
                assert repr(evidence) == repr(before), rule.id

    def test_rules_have_an_id_a_title_and_a_page(self) -> None:
        for rule, _, _ in self.cases():
            assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", rule.id)
            assert rule.title
            assert type(rule).__doc__
            if not self.is_planted:
                assert (PAGES / f"{rule.id}.md").is_file(), rule.id

    is_planted = False
    """Whether the rules are made for tests, and so have no pages."""
