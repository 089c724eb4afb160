# SPDX-License-Identifier: Apache-2.0
"""The report as text: what it says, what it must not contain."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from shipsight.build.report import ReportData, WorstImage, render_report

VOID = {"meta", "img", "br", "hr", "input", "link"}


class _Balance(HTMLParser):
    """Collects the elements and checks that each is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def parse(page: str) -> _Balance:
    parser = _Balance()
    parser.feed(page)
    parser.close()
    return parser


def test_report_is_well_formed_with_and_without_accuracy(full_data: ReportData, unmeasured_data: ReportData) -> None:
    for data in (full_data, unmeasured_data, ReportData(card=full_data.card)):
        parser = parse(render_report(data))
        assert parser.wrong == []
        assert parser.open == []


def test_report_fetches_nothing(full_data: ReportData) -> None:
    parser = parse(render_report(full_data))
    targets = [value for _, given in parser.seen for key, value in given.items() if key in ("src", "href", "srcset")]
    assert targets
    assert all(value is not None and value.startswith(("data:image/jpeg;base64,", "#")) for value in targets)
    assert not {tag for tag, _ in parser.seen} & {"link", "iframe", "object", "embed", "form", "base"}


def test_report_policy_allows_its_own_style_and_script_alone(full_data: ReportData) -> None:
    page = render_report(full_data)
    policy = next(
        given["content"] for tag, given in parse(page).seen if given.get("http-equiv") == "Content-Security-Policy"
    )
    for name in ("style", "script"):
        found = re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)
        assert len(found) == 1
        digest = base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in str(policy)
    assert "default-src 'none'" in str(policy)
    assert not [
        given for _, given in parse(page).seen if "style" in given or any(key.startswith("on") for key in given)
    ]


def test_report_escapes_every_text_that_comes_from_outside(full_data: ReportData) -> None:
    evil = "<script>alert(1)</script>\"'&"
    card = {
        **full_data.card,
        "licence": evil,
        "class_names": [evil],
        "training": {"framework": evil, "date": evil, "epoch": None, "arguments": {evil: evil}, "metrics": {evil: 0.5}},
        "origin": {"file_name": evil, "sha256": evil},
    }
    variants = [
        {**one, "name": evil + str(i), "engine": evil, "precision": evil} for i, one in enumerate(full_data.variants)
    ]
    accuracy = {evil: {"map50_95": 0.5, "labels": 3}}
    data = replace(
        full_data,
        card=card,
        variants=variants,
        reference={**full_data.reference, "source": {"map50_95": 0.5, "by_class": accuracy, "by_size": {evil: 0.5}}},
        parity={
            "variants": {
                evil: {"groups": [{"name": evil, "stage": evil, "sqnr_db": 3.0}], "gate": evil, "passed": True}
            }
        },
        guard_steps=[{"variant": evil, "step": evil, "attempt": evil, "returned": [evil], "outcome": evil}],
        worst_images=[WorstImage(evil, evil, b"a", b"b", b"c")],
        warnings=[{"code": evil, "text": evil}],
        environment={evil: {evil: evil}},
        training_stats={"classes": {evil: 3}, "histograms": {evil: {"counts": [1], "edges": [0, 1], "unit": evil}}},
        default_reason=evil,
    )
    page = render_report(data)
    assert "<script>alert" not in page
    assert len(re.findall(r"<script", page)) == 1
    assert parse(page).wrong == []


@pytest.mark.parametrize(
    ("outcome", "word"),
    [("passed", "Works"), ("undecided", "Works, not proven"), ("failed", "Loses too much")],
)
def test_report_says_whether_it_works(full_data: ReportData, outcome: str, word: str) -> None:
    variants = [{**one, "outcome": outcome} if one["is_default"] else one for one in full_data.variants]
    assert f'<p class="word">{word}</p>' in render_report(replace(full_data, variants=variants))


def test_report_says_that_predictions_moved_when_the_parity_gate_was_missed(
    full_data: ReportData, unmeasured_data: ReportData
) -> None:
    def missing_its_gate(data: ReportData, **changes: object) -> str:
        default = data.default_variant
        assert default is not None
        variants = [{**one, **changes} if one["is_default"] else one for one in data.variants]
        parity = {"variants": {default["name"]: {"groups": [], "predictions": {}, "passed": False}}}
        return render_report(replace(data, variants=variants, parity=parity))

    moved = "differ from the source model&#39;s on the golden set by more than the parity gate"
    for outcome, word in (("passed", "Works, with differences"), ("undecided", "Works, not proven")):
        page = missing_its_gate(full_data, outcome=outcome)
        assert f'<p class="word">{word}</p>' in page
        assert moved in page
    page = missing_its_gate(unmeasured_data)
    assert "Does not match" in page
    assert moved in page


def test_report_says_not_measured_and_draws_latency_without_accuracy(unmeasured_data: ReportData) -> None:
    page = render_report(unmeasured_data)
    assert "Accuracy was not measured" in page
    assert "Latency of every variant" in page
    assert "0.487" not in page


def test_report_hides_pictures_when_they_are_private(full_data: ReportData, private_data: ReportData) -> None:
    assert render_report(full_data).count("data:image/jpeg") == 9
    hidden = render_report(private_data)
    assert "data:image/jpeg" not in hidden
    assert "The pictures are left out" in hidden


def test_report_is_the_same_for_the_same_data(full_data: ReportData) -> None:
    assert render_report(full_data) == render_report(replace(full_data))


def test_report_shows_every_variant_outcome_guard_step_and_warning(full_data: ReportData) -> None:
    page = render_report(full_data)
    for one in full_data.variants:
        assert f'<span class="name">{one["name"]}</span>' in page
    assert page.count('<span class="badge undecided">') == 3
    assert "box decoding, DFL" in page
    assert "81 of 88" in page
    assert "few-calibration-images" in page


def test_report_shows_top1_for_classification(full_data: ReportData) -> None:
    variants = [{**one, "top1": 0.97, "top5": 1.0} for one in full_data.variants]
    data = replace(full_data, card={**full_data.card, "task": "classify"}, variants=variants)
    page = render_report(data)
    assert "top-1" in page
    assert "0.970" in page
