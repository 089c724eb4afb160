# SPDX-License-Identifier: Apache-2.0
"""Reviews as they are made, kept, signed off, and when the next one is due; over a real log."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.access.review.conftest import Reviewed

from shipsight.access import EventKind
from shipsight.access.audit.checkpoint import Signer, open_note
from shipsight.access.audit.verify import verify
from shipsight.access.review import Chain, Report, due, overdue_s
from shipsight.errors import (
    AuditError,
    AuditProofError,
    ConflictError,
    CorruptError,
    EnvironmentLackError,
    ForbiddenError,
    NotFoundError,
    UsageError,
)

EVE = "person:eve"


def verified(reviewed: Reviewed) -> Chain:
    reviewed.log.checkpoint()
    return Chain.of(verify(reviewed.log.reader, keys=[reviewed.log.key], now=reviewed.clock))


def own_grant(reviewed: Reviewed) -> None:
    """Something that is an alarm at any time."""
    reviewed.tell(EventKind.GRANTS_CHANGED, "person:ada", subject="user:ada", before=[], after=["admin"])


def test_review_verifies_finds_signs_and_tells_the_log(reviewed: Reviewed) -> None:
    own_grant(reviewed)
    report = reviewed.store.make(actor=EVE, verify=lambda: verified(reviewed))
    assert report.chain.status == "ok"
    assert "own-grant" in {one.rule for one in report.findings}
    (state,) = reviewed.store.list()
    assert (state.id, state.digest, state.made_by, state.signed) == (report.id, report.digest, EVE, ())
    assert state.findings == len(report.findings)
    assert reviewed.store.get(report.id) == report
    path = reviewed.folder / f"{report.id}.json"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == report.digest
    assert path.stat().st_mode & 0o777 == 0o600


def test_signed_note_names_log_review_and_digest(reviewed: Reviewed) -> None:
    report = reviewed.store.make(actor=EVE)
    note = open_note(reviewed.store.note(report.id), [reviewed.log.key])
    assert note.text == f"shipsight review\n{reviewed.log.origin}\n{report.id}\nsha256 {report.digest}\n"


def test_sign_off_is_kept_with_who_when_and_what(reviewed: Reviewed) -> None:
    report = reviewed.store.make(actor=EVE)
    reviewed.clock.pass_(hours=2)
    state = reviewed.store.sign_off(report.id, actor=EVE, note="  asked ada\nit is fine ")
    (signed,) = state.signed
    assert (signed.who, signed.at, signed.note) == (EVE, reviewed.clock(), "asked ada\nit is fine")
    entry = next(iter(reviewed.log.entries(kinds=(EventKind.REVIEW_SIGNED,))))
    assert entry.event.details["digest"] == report.digest
    assert entry.seq == signed.seq


def test_whom_a_finding_concerns_does_not_sign_it_off(reviewed: Reviewed) -> None:
    own_grant(reviewed)
    report = reviewed.store.make(actor=EVE)
    with pytest.raises(ForbiddenError, match="does not sign it off"):
        reviewed.store.sign_off(report.id, actor="person:ada", note="nothing to see")
    assert list(reviewed.log.entries(kinds=(EventKind.REVIEW_SIGNED,))) == []
    assert reviewed.store.sign_off(report.id, actor=EVE, note="asked").signed


def test_nobody_signs_off_twice_but_others_may(reviewed: Reviewed) -> None:
    report = reviewed.store.make(actor=EVE)
    reviewed.store.sign_off(report.id, actor=EVE, note="looked")
    with pytest.raises(ConflictError):
        reviewed.store.sign_off(report.id, actor=EVE, note="looked again")
    assert len(reviewed.store.sign_off(report.id, actor="person:finn", note="me too").signed) == 2


@pytest.mark.parametrize("note", ["", "  \n", "x" * 2001, "a\x1b[2Jb", "a\u202eb", "a\rb"])
def test_note_of_a_sign_off_is_refused_when_it_is_none(reviewed: Reviewed, note: str) -> None:
    report = reviewed.store.make(actor=EVE)
    with pytest.raises(UsageError):
        reviewed.store.sign_off(report.id, actor=EVE, note=note)


@pytest.mark.parametrize("review_id", ["20260302-00000000", "../access.audit", "", "x" * 5000])
def test_review_that_there_is_not_is_not_found(reviewed: Reviewed, review_id: str) -> None:
    with pytest.raises(NotFoundError):
        reviewed.store.get(review_id)
    with pytest.raises(NotFoundError):
        reviewed.store.sign_off(review_id, actor=EVE, note="x")


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_of_a_report_is_refused(reviewed: Reviewed, data: st.DataObject) -> None:
    made = reviewed.store.list()
    review_id = made[0].id if made else reviewed.store.make(actor=EVE).id
    path = reviewed.folder / f"{review_id}.{data.draw(st.sampled_from(['json', 'note']))}"
    good = path.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = bytes([good[at] ^ data.draw(st.integers(1, 255))])
    path.write_bytes(good[:at] + bad + good[at + 1 :])
    try:
        with pytest.raises((AuditProofError, CorruptError)):
            reviewed.store.get(review_id)
        with pytest.raises((AuditProofError, CorruptError)):
            reviewed.store.sign_off(review_id, actor=EVE, note="x")
    finally:
        path.write_bytes(good)


def test_report_signed_by_a_strangers_key_is_refused(reviewed: Reviewed) -> None:
    from shipsight.access.audit.checkpoint import sign_note
    from shipsight.access.review.report import note_text

    report = reviewed.store.make(actor=EVE)
    note = sign_note(note_text(report), Signer.generate(reviewed.log.origin))
    (reviewed.folder / f"{report.id}.note").write_text(note)
    with pytest.raises(AuditProofError):
        reviewed.store.get(report.id)


def test_report_that_was_taken_away_is_still_listed(reviewed: Reviewed) -> None:
    report = reviewed.store.make(actor=EVE)
    (reviewed.folder / f"{report.id}.json").unlink()
    assert reviewed.store.list()[0].is_here is False
    with pytest.raises(NotFoundError, match="not here"):
        reviewed.store.get(report.id)


def test_next_review_begins_where_the_last_signed_one_ended(reviewed: Reviewed) -> None:
    first = reviewed.store.make(actor=EVE)
    second = reviewed.store.make(actor=EVE)
    assert second.first_seq == first.first_seq == 0  # nobody has signed anything off
    reviewed.store.sign_off(second.id, actor=EVE, note="looked")
    reviewed.clock.pass_(days=7)
    third = reviewed.store.make(actor=EVE)
    assert third.first_seq == second.next_seq
    assert third.entries == third.next_seq - third.first_seq


def test_entry_dated_back_is_reviewed_all_the_same(reviewed: Reviewed) -> None:
    reviewed.store.sign_off(reviewed.store.make(actor=EVE).id, actor=EVE, note="looked")
    reviewed.clock.pass_(days=-400)
    own_grant(reviewed)
    reviewed.clock.pass_(days=407)
    assert "own-grant" in {one.rule for one in reviewed.store.make(actor=EVE).findings}


def test_review_of_a_time_of_ones_own_choosing_leaves_no_gap_unseen(reviewed: Reviewed) -> None:
    for _ in range(20):
        reviewed.tell(EventKind.INVITED, "person:ada", subject="person:ben")
        reviewed.clock.pass_(days=1)
    recent = reviewed.store.make(actor=EVE, since=reviewed.clock() - timedelta(days=2))
    assert recent.first_seq > 10
    reviewed.store.sign_off(recent.id, actor=EVE, note="looked at two days")
    found = reviewed.store.due()
    assert (found.next_seq, found.reviewed_until) == (0, None)
    assert found.is_overdue
    whole = reviewed.store.make(actor=EVE)
    assert whole.first_seq == 0
    reviewed.store.sign_off(whole.id, actor=EVE, note="looked at all")
    assert reviewed.store.due().overdue_s == 0


def test_review_is_overdue_after_a_week_and_two_days(reviewed: Reviewed) -> None:
    assert overdue_s(reviewed.log, reviewed.clock()) == 0
    reviewed.clock.pass_(days=8.9)
    assert overdue_s(reviewed.log, reviewed.clock()) == 0
    reviewed.clock.pass_(days=1)
    assert overdue_s(reviewed.log, reviewed.clock()) == pytest.approx(0.9 * 86400, abs=60)
    reviewed.store.sign_off(reviewed.store.make(actor=EVE).id, actor=EVE, note="looked")
    assert due(reviewed.log, reviewed.clock()).overdue_s == 0


def test_review_goes_on_after_entries_were_archived(reviewed: Reviewed, tmp_path: Path) -> None:
    for _ in range(3):
        reviewed.clock.pass_(days=7)
        reviewed.tell(EventKind.INVITED, "person:ada", subject="person:ben")
        reviewed.store.sign_off(reviewed.store.make(actor=EVE).id, actor=EVE, note="looked")
    reviewed.clock.pass_(days=1)
    reviewed.tell(EventKind.INVITED, "person:ada", subject="person:ben")
    before = reviewed.store.due()
    reviewed.log.archive(reviewed.clock() - timedelta(days=3), tmp_path / "old.archive", actor="server:root")
    after = reviewed.store.due()
    assert not before.is_overdue
    assert not after.is_overdue
    assert after.next_seq >= before.next_seq
    assert reviewed.store.make(actor=EVE).first_seq == after.next_seq


def test_review_without_anything_new_is_refused(reviewed: Reviewed) -> None:
    with pytest.raises(UsageError, match="nothing to review"):
        reviewed.store.make(actor=EVE, since=reviewed.clock() + timedelta(days=1))
    with pytest.raises(UsageError, match="ends after it begins"):
        reviewed.store.make(actor=EVE, since=reviewed.clock(), until=reviewed.clock() - timedelta(days=1))


def test_failed_verification_is_the_first_finding(reviewed: Reviewed) -> None:
    chain = Chain("failed", 9, 0, (("record-changed", 4, "entry 4 is not what was signed"),))
    report = reviewed.store.make(actor=EVE, verify=lambda: chain)
    assert (report.findings[0].rule, report.findings[0].severity.value) == ("chain", "alarm")
    assert "entry 4" in report.findings[0].what


def test_report_is_not_kept_when_the_log_cannot_tell_of_it(reviewed: Reviewed) -> None:
    reviewed.folder.mkdir()
    reviewed.log.close()
    with pytest.raises(AuditError):
        reviewed.store.make(actor=EVE)
    assert list(reviewed.folder.iterdir()) == []


def test_report_that_cannot_be_written_is_not_told(reviewed: Reviewed) -> None:
    reviewed.folder.write_text("a file where the folder should be")
    with pytest.raises(EnvironmentLackError):
        reviewed.store.make(actor=EVE)
    assert reviewed.store.list() == []


def test_page_shows_hostile_texts_harmlessly(reviewed: Reviewed) -> None:
    evil = "<script>alert(1)</script>\r\n\x1b[31m\u202e\u2028" + "A" * 500
    reviewed.tell(EventKind.GRANTS_CHANGED, f"person:{evil}", subject=f"user:{evil}", before=[], after=["admin"])
    report = reviewed.store.make(actor=EVE)
    page = reviewed.store.html(report.id)
    assert "own-grant" in {one.rule for one in report.findings}
    assert "<script" not in page
    assert "&lt;script" in page
    assert not {"\x1b", "\u202e", "\u2028", "\r"} & set(page)
    assert len(page) < 30_000
    assert "default-src 'none'" in page


def test_report_reads_back_as_it_was_written(reviewed: Reviewed) -> None:
    own_grant(reviewed)
    report = reviewed.store.make(actor=EVE)
    assert Report.from_bytes(report.to_bytes()) == report
    with pytest.raises(CorruptError):
        Report.from_bytes(b"[]")
    with pytest.raises(CorruptError):
        Report.from_bytes(report.to_bytes() + b" ")
