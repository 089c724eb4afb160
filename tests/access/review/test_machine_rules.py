# SPDX-License-Identifier: Apache-2.0
"""Rules about keys, data, models, set-up and the log: each finds its case, and leaves alone what looks like it and is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.access.review.stream import ELSEWHERE, OFFICE, RACK, Stream

from shipsight.access import EventKind
from shipsight.access.review import Severity, review

KEY, OTHER = "a1b2", "c3d4"


@pytest.fixture
def stream() -> Stream:
    return Stream().with_usual_past(keys=[KEY])


# Keys


def test_dormant_key_is_found_after_ninety_days() -> None:
    stream = Stream(past_days=120).with_usual_past()
    stream.use(stream.at(-100), OTHER)
    stream.use(stream.at(1), OTHER)
    (finding,) = stream.found("dormant-key")
    assert finding.numbers["days"] == 101


def test_dormant_key_is_found_when_it_was_never_used_since_the_log_began() -> None:
    stream = Stream(past_days=120).with_usual_past()
    stream.use(stream.at(1), OTHER)
    assert len(stream.found("dormant-key")) == 1


def test_key_that_sleeps_for_a_month_is_not_found(stream: Stream) -> None:
    stream.use(stream.at(-31), OTHER)
    stream.use(stream.at(1), OTHER)
    assert stream.found("dormant-key") == []


def test_quarterly_job_is_found_once_and_then_noted() -> None:
    stream = Stream(past_days=200).with_usual_past()
    for day in (-183, -91, 1):
        stream.use(stream.at(day), OTHER)
    assert stream.found("dormant-key") == []
    assert len(stream.noted("dormant-key")) == 1


def test_copied_key_is_found_when_it_is_used_in_two_places(stream: Stream) -> None:
    stream.use(stream.at(1, 3.5), KEY, ELSEWHERE)
    stream.use(stream.at(1, 4), KEY)
    (finding,) = stream.found("key-new-network")
    assert finding.numbers["network"] == "203.0.113.0/24"


def test_moved_key_is_not_found(stream: Stream) -> None:
    for hour in range(100):
        stream.use(stream.at(1, hour), KEY, ELSEWHERE)
    assert stream.found("key-new-network") == []


def test_key_that_moves_into_the_office_is_a_note(stream: Stream) -> None:
    stream.use(stream.at(1, 3.5), KEY, "198.51.100.80")
    stream.use(stream.at(1, 4), KEY)
    assert stream.found("key-new-network") == []
    assert len(stream.noted("key-new-network")) == 1


def test_leavers_key_is_found_when_shown_from_elsewhere(stream: Stream) -> None:
    stream.tell(
        stream.at(1), EventKind.KEY_REFUSED, "nobody", subject=f"key:{KEY}", why="owner-disabled", address=ELSEWHERE
    )
    assert len(stream.found("leaver-key")) == 1


def test_script_of_a_leaver_is_a_note_where_it_always_ran(stream: Stream) -> None:
    for hour in range(50):
        stream.tell(
            stream.at(1, hour),
            EventKind.KEY_REFUSED,
            "nobody",
            subject=f"key:{KEY}",
            why="owner-disabled",
            address=RACK,
        )
    assert stream.found("leaver-key") == []


def test_key_left_behind_is_an_alarm_when_it_is_used_from_elsewhere(stream: Stream) -> None:
    stream.tell(stream.at(1, 10), EventKind.KEY_ADDED, "person:ben", subject="key:beef", name="spare", owner=None)
    stream.tell(stream.at(3, 10), EventKind.USER_CHANGED, "person:ada", subject="person:ben", is_disabled=True)
    stream.use(stream.at(4), "beef", ELSEWHERE)
    finding = stream.found("leaver-key")[0]
    assert finding.severity is Severity.ALARM
    assert "person:ben" in finding.who


def test_key_that_a_leaver_made_is_a_note_when_it_serves(stream: Stream) -> None:
    stream.tell(stream.at(1, 10), EventKind.KEY_ADDED, "person:ben", subject="key:beef", name="spare", owner=None)
    stream.tell(stream.at(3, 10), EventKind.USER_CHANGED, "person:ada", subject="person:ben", is_disabled=True)
    stream.use(stream.at(4), "beef", RACK)
    assert stream.found("leaver-key") == []


def test_guessed_secrets_of_a_key_are_found_from_elsewhere(stream: Stream) -> None:
    for number in range(15):
        at = stream.at(1) + timedelta(minutes=number)
        stream.tell(at, EventKind.KEY_REFUSED, "nobody", subject=f"key:{KEY}", why="secret", address=ELSEWHERE)
    assert stream.found("key-guessed")[0].numbers["tries"] == 15


def test_forgotten_machine_after_a_rotation_is_a_note(stream: Stream) -> None:
    for number in range(40):
        at = stream.at(1) + timedelta(minutes=30 * number)
        stream.tell(at, EventKind.KEY_REFUSED, "nobody", subject=f"key:{KEY}", why="secret", address=RACK)
    assert stream.found("key-guessed") == []


def test_probing_is_found_when_different_things_are_refused(stream: Stream) -> None:
    for number in range(9):
        at = stream.at(1) + timedelta(minutes=number)
        told = {"subject": f"model:{number}", "action": "data.export", "route": "GET /v1/models"}
        stream.tell(at, EventKind.REFUSED, f"key:job.{KEY}", why="forbidden", address=RACK, **told)  # type: ignore[arg-type]
    assert stream.found("probing")[0].numbers["different"] == 9


def test_client_that_is_set_up_wrongly_is_not_found(stream: Stream) -> None:
    for number in range(500):
        at = stream.at(1) + timedelta(seconds=30 * number)
        stream.tell(at, EventKind.REFUSED, f"key:job.{KEY}", why="forbidden", subject="model:a", action="models.load")
    assert stream.found("probing") == []


@pytest.mark.parametrize(("every_days", "is_found"), [(20, True), (40, False)])
def test_rotations_are_found_when_overlaps_never_end(every_days: int, is_found: bool) -> None:
    stream = Stream(past_days=100).with_usual_past()
    for number in range(4):
        at = stream.at(1 - every_days * number, 10)
        stream.tell(at, EventKind.KEY_ROTATED, "person:ada", subject=f"key:{KEY}", overlap_s="2592000.0")
    assert bool(stream.found("two-secrets")) is is_found


# Data and models


def test_export_is_found_when_it_is_far_more_than_ever(stream: Stream) -> None:
    for day in range(-50, 0, 3):
        stream.tell(stream.at(day, 10), EventKind.EXPORTED, "person:cara", subject="model:a", address=OFFICE, images=30)
    stream.tell(stream.at(1, 10), EventKind.EXPORTED, "person:cara", subject="model:a", address=OFFICE, images=900)
    assert stream.found("data-volume")[0].numbers["pieces"] == 900


def test_export_as_large_as_the_one_before_is_not_found(stream: Stream) -> None:
    for day in (-20, 1):
        stream.tell(
            stream.at(day, 10), EventKind.EXPORTED, "person:cara", subject="model:a", address=OFFICE, images=900
        )
    assert stream.found("data-volume") == []


def test_reading_of_many_models_is_found(stream: Stream) -> None:
    for day in range(-50, 0, 3):
        stream.tell(stream.at(day, 10), EventKind.DATA_READ, "person:cara", subject="model:a", address=OFFICE)
    for number in range(6):
        stream.tell(stream.at(1, 10), EventKind.DATA_READ, "person:cara", subject=f"model:{number}", address=OFFICE)
    assert stream.found("data-volume")[0].numbers["models"] == 6


def test_first_export_is_found_once(stream: Stream) -> None:
    for day in (1, 2):
        stream.tell(stream.at(day, 10), EventKind.EXPORTED, "person:cara", subject="model:a", address=OFFICE)
    assert len(stream.found("first-export")) == 1


def test_suspected_copying_is_one_finding_for_each_who_asks(stream: Stream) -> None:
    for hour in range(5):
        stream.tell(stream.at(1, hour), EventKind.EXTRACTION_SUSPECTED, f"key:job.{KEY}", subject="a", why="noise")
    (finding,) = stream.found("extraction-suspected")
    assert finding.count == 5


def load(stream: Stream, day: float, version: str, digest: str) -> None:
    stream.tell(
        stream.at(day, 10), EventKind.MODEL_LOADED, "person:dan", subject="model:a", version=version, digest=digest
    )


def test_exchanged_model_is_an_alarm(stream: Stream) -> None:
    load(stream, -5, "3", "aa")
    load(stream, 2, "3", "bb")
    assert stream.found("model-replaced")[0].severity is Severity.ALARM


def test_new_version_is_not_found(stream: Stream) -> None:
    load(stream, -5, "3", "aa")
    load(stream, 2, "4", "bb")
    assert stream.found("model-replaced") == []


def rollout(stream: Stream, day: float, action: str, **told: str) -> None:
    stream.tell(
        stream.at(day, 10),
        EventKind.ROLLOUT_CHANGED,
        "person:dan",
        subject="model:a",
        address=OFFICE,
        action=action,
        **told,
    )


@pytest.mark.parametrize("is_tried", [True, False])
def test_promotion_without_the_usual_trial_is_found(stream: Stream, is_tried: bool) -> None:
    for version in range(1, 6):
        rollout(stream, -40 + version * 5, "share", canary=f"{version}=0.1")
        rollout(stream, -39 + version * 5, "promote", current=str(version))
    if is_tried:
        rollout(stream, 1, "share", shadow="9=0.5")
    rollout(stream, 2, "promote", current="9")
    assert bool(stream.found("promoted-untried")) is not is_tried


# Set-up and the log


@pytest.mark.parametrize(
    ("changed", "severity"),
    [
        ({"--audit": "/var/access.audit.db -> off"}, Severity.ALARM),
        ({"tls_cert": "a.pem -> none"}, Severity.ALARM),
        ({"changed": ["require-access: true -> false"]}, Severity.ALARM),
        ({"tls_cert": "a.pem -> b.pem"}, Severity.NOTE),
        ({"threads": "4 -> 8"}, None),
        ({"log_format": "text -> none"}, None),
    ],
)
def test_weakened_configuration_is_found(stream: Stream, changed: dict[str, object], severity: Severity | None) -> None:
    stream.tell(stream.at(1), EventKind.CONFIGURATION_CHANGED, "server:this server", **changed)  # type: ignore[arg-type]
    reviewed = stream.reviewed()
    found = [one for one in (*reviewed.findings, *reviewed.notes) if one.rule == "configuration-weakened"]
    assert [one.severity for one in found] == ([] if severity is None else [severity])


def test_server_that_opens_itself_is_an_alarm(stream: Stream) -> None:
    stream.tell(stream.at(-9), EventKind.STARTED, "server:this server", open=False, required=True)
    stream.tell(stream.at(1), EventKind.STARTED, "server:this server", open=True, required=False)
    assert stream.found("configuration-weakened")[0].severity is Severity.ALARM


def test_restored_backup_is_found(stream: Stream) -> None:
    stream.tell(stream.at(1), EventKind.RESTORED, "server:root", made_at="2026-01-01")
    assert len(stream.found("backup")) == 1


def test_missing_entries_are_an_alarm(stream: Stream) -> None:
    entries = stream.entries()
    cut = [one if one.seq < 100 else replace(one, seq=one.seq + 3) for one in entries]
    (finding,) = [one for one in review(cut).findings if one.rule == "sequence-gap"]
    assert finding.seqs == (99, 103)
    assert finding.numbers["missing"] == 3


def test_clock_that_went_back_is_found(stream: Stream) -> None:
    entries = stream.entries()
    last = entries[-1]
    entries.append(replace(last, seq=last.seq + 1, event=replace(last.event, at=last.event.at - timedelta(hours=2))))
    (finding,) = [one for one in review(entries).findings if one.rule == "clock-backwards"]
    assert finding.numbers["back_s"] == 7200


def test_entry_that_waited_for_the_disk_is_no_clock_that_went_back(stream: Stream) -> None:
    entries = [replace(one, written=one.event.at) for one in stream.entries()]
    last = entries[-1]
    late = replace(last.event, at=last.event.at - timedelta(hours=2))
    entries.append(replace(last, seq=last.seq + 1, event=late, written=last.written))
    assert [one for one in review(entries).findings if one.rule == "clock-backwards"] == []


def test_silent_server_is_found_at_the_end_of_the_period(stream: Stream) -> None:
    assert stream.found("server-silent", days=0.5)[0].numbers["hours"] >= 11


def test_server_that_said_that_it_stops_is_not_found(stream: Stream) -> None:
    stream.tell(stream.at(0), EventKind.STOPPED, "server:vision-1")
    assert stream.found("server-silent", days=2) == []


def test_lost_entries_are_found(stream: Stream) -> None:
    stream.tell(stream.at(1), EventKind.AUDIT_LOST, "server:vision-1", events=17)
    assert stream.found("log-interrupted")[0].numbers["lost"] == 17


@pytest.mark.parametrize(("times", "is_found"), [(1, False), (4, True)])
def test_server_that_is_killed_again_and_again_is_found(stream: Stream, times: int, is_found: bool) -> None:
    for number in range(times):
        stream.tell(stream.at(1, number), EventKind.AUDIT_RECOVERED, "server:vision-1", session="x", began="y")
    assert bool(stream.found("log-interrupted")) is is_found


@pytest.mark.parametrize(("people", "is_found"), [(1, False), (5, True)])
def test_many_erasures_are_found(stream: Stream, people: int, is_found: bool) -> None:
    for number in range(people):
        stream.tell(stream.at(1, number), EventKind.AUDIT_ERASED, "server:root", subject=f"{number}")
    assert bool(stream.found("log-administration")) is is_found


def test_new_key_of_the_log_is_found(stream: Stream) -> None:
    stream.tell(stream.at(1), EventKind.AUDIT_KEY_ADDED, "server:root", key="k")
    assert len(stream.found("log-administration")) == 1


def test_overdue_review_is_found(stream: Stream) -> None:
    stream.tell(stream.at(-10), EventKind.REVIEW_SIGNED, "person:eve", subject="review:1")
    (finding,) = stream.found("review-overdue")
    assert finding.numbers["days"] == 17


def test_review_each_week_is_not_found(stream: Stream) -> None:
    for day in (-7, 0, 6.9):
        stream.tell(stream.at(day), EventKind.REVIEW_SIGNED, "person:eve", subject="review:1")
    assert stream.found("review-overdue") == []


def test_model_loaded_for_the_first_time_from_elsewhere_is_found() -> None:
    stream = Stream(past_days=90).with_usual_past()
    at = stream.at(1, 10)
    stream.sign_in(stream.at(1, 9), "person:ben", ELSEWHERE)
    stream.tell(
        at, EventKind.MODEL_LOADED, "person:ben", subject="model:a", address="203.0.114.8", version="1", digest="aa"
    )
    assert stream.found("model-by-another") == []  # the same place as an hour before
    stream.tell(
        at, EventKind.MODEL_LOADED, "person:cara", subject="model:a", address="199.9.9.9", version="1", digest="aa"
    )
    assert [one.who for one in stream.found("model-by-another")] == [("person:cara",)]


def test_new_server_and_a_first_backup_are_told(stream: Stream) -> None:
    stream.tell(stream.at(1), EventKind.BACKED_UP, "server:mallory", server="vision-9", digest="00")
    assert len(stream.noted("new-server")) == 1
    assert stream.found("backup")[0].who == ("server:mallory",)


# Recordings


def erased(stream: Stream, at: float, what: str, records: int, who: str = "person:ada") -> None:
    stream.tell(
        stream.at(at),
        EventKind.RECORDINGS_ERASED,
        who,
        subject="recordings",
        address=OFFICE,
        what=what,
        records=records,
    )


def test_erasure_by_somebody_who_never_did_is_found(stream: Stream) -> None:
    erased(stream, 1, "day", 12)
    (finding,) = stream.found("recordings-changed")
    assert (finding.who, finding.numbers["records"]) == (("person:ada",), 12)
    assert "erased 12 recordings (day) for the first time" in finding.what


def test_erasure_by_whose_work_it_is_is_not_found_unless_it_is_of_very_many(stream: Stream) -> None:
    for day in (-20, -10, 1):
        erased(stream, day, "subject", 2)
    assert stream.found("recordings-changed") == []
    erased(stream, 2, "day", 500)
    (finding,) = stream.found("recordings-changed")
    assert finding.severity is Severity.WARNING


def test_recordings_that_ended_by_the_policy_are_not_found(stream: Stream) -> None:
    erased(stream, 1, "expired", 5000, who="server:this server")
    assert stream.found("recordings-changed") == []


def test_first_backup_of_recordings_is_found(stream: Stream) -> None:
    stream.tell(
        stream.at(1), EventKind.RECORDINGS_CHANGED, "person:ada", subject="recordings", what="backup", records=9
    )
    assert len(stream.found("recordings-changed")) == 1


def test_another_recording_policy_is_a_note(stream: Stream) -> None:
    change = {"recording policy": "none -> abc"}
    stream.tell(stream.at(1), EventKind.CONFIGURATION_CHANGED, "server:this server", subject="recordings", **change)
    assert stream.found("recordings-changed") == []
    assert len(stream.noted("recordings-changed")) == 1


@pytest.mark.parametrize(("times", "what", "is_found"), [(500, "show", True), (10, "list", False)])
def test_recordings_that_are_opened_count_as_data_that_is_read_and_those_of_a_list_do_not(
    stream: Stream, times: int, what: str, is_found: bool
) -> None:
    for second in range(times):
        at = stream.at(1, 10 + second / 3600)
        records = 1 if what == "show" else 100
        stream.tell(at, EventKind.DATA_READ, "person:ada", subject="recordings", what=what, records=records)
    assert bool(stream.found("data-volume")) is is_found
