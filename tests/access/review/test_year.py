# SPDX-License-Identifier: Apache-2.0
"""The review over a made-up quarter, streamed and through a real log, against what was planted in it (`bench/audit_year`)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import REPOSITORY

from shipsight.access.audit import Entry
from shipsight.access.audit.log import AuditLog
from shipsight.access.audit.verify import verify
from shipsight.access.review import Chain, Reviewer, review
from shipsight.access.review.store import ReviewStore

WEEKS = 16
SEED = 7


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    sys.path.insert(0, str(REPOSITORY / "bench"))
    try:
        import audit_year as package

        yield package
    finally:
        sys.path.remove(str(REPOSITORY / "bench"))


def test_generator_of_the_year_imports_no_rule() -> None:
    names = set()
    for path in (REPOSITORY / "bench" / "audit_year").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("shipsight"):
                names.add(node.module)
    assert names == {"shipsight.access.audit", "shipsight.access.events"}


def made_year(bench: Any) -> tuple[Any, list[list[Entry]]]:
    from audit_year.organisation import SIZES
    from audit_year.year import Year

    assert bench is not None
    year = Year(SIZES["small"], SEED, weeks=WEEKS)
    return year, list(year.by_week())


@pytest.mark.slow
def test_planted_incidents_are_found_and_false_findings_are_few(bench: Any) -> None:
    from audit_year.organisation import BEGIN

    year, weeks = made_year(bench)
    reviewer, found, false = Reviewer(), set(), []
    whose = {seq: number for number, one in enumerate(year.incidents) for seq in one.seqs}
    for number, entries in enumerate(weeks):
        for entry in entries:
            reviewer.see(entry)
        until = datetime.combine(BEGIN + timedelta(weeks=number + 1), datetime.min.time(), UTC)
        for finding in reviewer.made(until).findings:
            hit = {whose[seq] for seq in finding.seqs if seq in whose}
            skipped = {at for at, one in enumerate(year.incidents) if one.skips and finding.rule == "review-overdue"}
            found |= hit | skipped
            false += [] if hit | skipped else [finding]
    missed = [(one.kind, one.strength) for at, one in enumerate(year.incidents) if at not in found]
    assert len(year.incidents) > 20
    assert missed == []
    assert len(false) <= WEEKS


@pytest.mark.slow
def test_week_reviewed_anew_has_the_findings_of_one_that_went_on(bench: Any) -> None:
    _, weeks = made_year(bench)
    reviewer = Reviewer()
    for number, entries in enumerate(weeks):
        for entry in entries:
            reviewer.see(entry)
        until = entries[-1].event.at
        went_on = reviewer.made(until).findings
        if number in (10, 14):
            past = [one for week in weeks[: number + 1] for one in week]
            assert review(past, first_seq=entries[0].seq, until=until).findings == went_on


@pytest.mark.slow
def test_quarter_is_reviewed_through_a_real_log_each_week(bench: Any, tmp_path: Path) -> None:
    from audit_year.organisation import BEGIN

    # A log gives numbers and times of writing itself, and tells itself of erasures and keys: those are other tests'.
    _, weeks = made_year(bench)
    now = [datetime.combine(BEGIN, datetime.min.time(), UTC)]
    with AuditLog.open(str(tmp_path / "a.db"), key=tmp_path / "a.key", server="vision-1", now=lambda: now[0]) as log:
        store = ReviewStore(log, tmp_path / "reviews", signer=log.signer, origin=log.origin, now=lambda: now[0])
        rules, last = set(), 0
        for number, entries in enumerate(weeks[:12]):
            for entry in entries:
                now[0] = max(now[0], entry.event.at)
                if not entry.event.kind.value.startswith("audit-"):
                    log.record(entry.event)
            now[0] = datetime.combine(BEGIN + timedelta(weeks=number + 1), datetime.min.time(), UTC)
            log.checkpoint()
            report = store.make(
                actor="person:eve", verify=lambda: Chain.of(verify(log.reader, keys=[log.key], now=lambda: now[0]))
            )
            assert report.chain.findings == ()
            assert report.chain.status == "ok"
            assert report.first_seq == last
            rules |= {one.rule for one in report.findings}
            store.sign_off(report.id, actor="person:finn", note="looked")
            last = report.next_seq
        assert len(rules) >= 4
        assert len(store.list()) == 12
