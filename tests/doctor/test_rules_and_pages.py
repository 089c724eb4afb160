# SPDX-License-Identifier: Apache-2.0
"""Each rule that is registered has its page, and each page its rule; the suite that rules inherit sees what is wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doctor.index import INDEX, PAGES, REGISTERED, write_index
from tests.doctor.rules import RuleSuite, check_finding
from tests.doctor.small import Levels, TooDark, a_finding

from shipsight.doctor import Rule, Severity, by_weight

# What both commands look at, one rule says for both.
RULES = list({rule.id: rule for one in REGISTERED for rule in one.rules}.values())
HEADINGS = ["What is wrong", "How it is found", "What it costs", "What to do"]


def test_ids_of_rules_and_names_of_examinations_are_unique() -> None:
    assert RULES
    kinds = {type(rule) for one in REGISTERED for rule in one.rules}  # one rule may look in two examinations
    ids = [kind.id for kind in kinds]
    assert len(ids) == len(set(ids))
    for one in REGISTERED:
        assert len({rule.id for rule in one.rules}) == len(one.rules)
    names = [one.name for one in REGISTERED]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", one) for one in ids + names)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_rule_has_a_page_with_the_four_headings(rule: Rule[Any]) -> None:
    page = (PAGES / f"{rule.id}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {rule.id}\n")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE)[:4] == HEADINGS
    assert 10 <= len(page.splitlines()) <= 60


def test_every_page_is_of_a_rule_or_of_an_examination() -> None:
    pages = {page.stem for page in PAGES.glob("*.md")} - {INDEX.stem}
    assert pages - {rule.id for rule in RULES} - {one.name for one in REGISTERED} == set()


def test_index_is_what_is_registered() -> None:
    assert INDEX.read_text(encoding="utf-8") == write_index(), "write it again: python -m tests.doctor.index"


class TestSmallRule(RuleSuite):
    is_planted = True

    def cases(self) -> Sequence[tuple[Rule[Any], Any, bool]]:
        return [(TooDark(), Levels((10.0, 200.0)), True), (TooDark(), Levels((200.0,)), False)]


@pytest.mark.parametrize(
    "wrong",
    [
        a_finding("another-rule"),
        a_finding(weight=1.2),
        a_finding(weight=0.0, certainty=0.9),
        a_finding(evidence="They are dark."),
        a_finding(figures={"Mean level": 1}),
        a_finding(figures={"mean": float("nan")}),
        a_finding(figures={"file": "/srv/data/a.jpg"}),
    ],
)
def test_suite_sees_a_finding_that_breaks_its_promise(wrong: Any) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check_finding(wrong, TooDark())


ANY = st.builds(
    lambda severity, weight, certainty, rule: a_finding(rule, severity, weight=weight, certainty=certainty),
    st.sampled_from(Severity),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["a", "b", "c"]),
)


@given(st.lists(ANY, max_size=8).flatmap(lambda ones: st.tuples(st.just(ones), st.permutations(ones))))
def test_findings_come_severest_and_costliest_first_in_whatever_order_they_were_found(pair: Any) -> None:
    ones, mixed = pair
    first, second = by_weight(ones), by_weight(mixed)

    def rank(one: Any) -> tuple[int, float, str]:
        return ["error", "warning", "note"].index(one.severity.value), -one.weight * one.certainty, one.rule

    assert [rank(one) for one in first] == sorted(rank(one) for one in ones)
    assert [rank(one) for one in first] == [rank(one) for one in second]
