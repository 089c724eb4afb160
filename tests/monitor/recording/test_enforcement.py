# SPDX-License-Identifier: Apache-2.0
"""Every clause of a policy, held to; each test fails where its clause is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from tests.monitor.recording.recordings import NAMES, answer, pixels, sampling

from shipsight.errors import ForbiddenError, UsageError
from shipsight.model import ImagePredictions, Task
from shipsight.monitor.recording.enforcement import REGION_FILE, Candidate, Enforcement
from shipsight.monitor.recording.policy import (
    ImageForm,
    Leaves,
    Mode,
    Policy,
    Redaction,
    Residency,
    Retention,
    SamplingRules,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CAR = ("car", 0.9, (1.0, 1.0, 9.0, 9.0))
FACE = ("face", 0.9, (1.0, 1.0, 9.0, 9.0))


def chances(*numbers: float) -> Iterator[float]:
    yield from numbers


def candidate(*found: tuple[str, float, tuple[float, float, float, float]], **more: object) -> Candidate:
    return Candidate("gate", answer(*found), **more)  # type: ignore[arg-type]


def picks(policy: Policy, *candidates: Candidate) -> list[tuple[str, ...]]:
    enforcement = Enforcement(policy)
    return [enforcement.choose(one, NOW) for one in candidates]


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.STATISTICS])
def test_mode_other_than_samples_records_no_image(mode: Mode) -> None:
    assert picks(replace(sampling(), mode=mode), candidate(CAR)) == [()]


def test_rate_picks_that_share() -> None:
    given = chances(0.0, 0.09, 0.1, 0.99)
    enforcement = Enforcement(sampling(rate=0.1), chance=lambda: next(given))
    assert [enforcement.choose(candidate(CAR), NOW) for _ in range(4)] == [("chance",), ("chance",), (), ()]


def test_chance_of_the_system_picks_about_its_share() -> None:
    enforcement = Enforcement(sampling(rate=0.25, most_day=10_000))
    count = sum(bool(enforcement.choose(candidate(CAR), NOW)) for _ in range(4000))
    assert 1000 - 5 * 27.4 < count < 1000 + 5 * 27.4  # five standard deviations of a binomial


def test_every_picks_each_nth_of_a_model() -> None:
    enforcement = Enforcement(sampling(rate=0.0, every=3))
    told = [bool(enforcement.choose(replace(candidate(CAR), model=name), NOW)) for name in "aababa" * 2]
    assert told == [False, False, False, True, False, False] * 2 or sum(told) == 3
    # Eight of a and four of b: the third and the sixth of a, the third of b.
    asked = list("aababa" * 2)
    expected = [asked[: place + 1].count(name) % 3 == 0 for place, name in enumerate(asked)]
    assert told == expected


def test_low_score_is_picked_and_a_sure_one_is_not() -> None:
    policy = sampling(rate=0.0, below_score=0.5)
    sure, unsure = candidate(CAR), candidate(CAR, ("face", 0.3, (1, 1, 9, 9)))
    assert picks(policy, sure, unsure, candidate()) == [(), ("low-score",), ()]


def test_low_score_of_an_image_that_is_classified_is_its_likeliest_class() -> None:
    def classified(*numbers: float) -> Candidate:
        none = np.zeros(0, np.int64)
        told = np.array(numbers, np.float32)
        return Candidate("gate", ImagePredictions(None, 8, 8, NAMES, none, none.astype(np.float32), probabilities=told))

    assert picks(sampling(rate=0.0, below_score=0.5), classified(0.4, 0.3, 0.3), classified(0.8, 0.1, 0.1)) == [
        ("low-score",),
        (),
    ]


def test_drift_is_picked_while_the_alarm_is_on() -> None:
    policy = sampling(rate=0.0, on_drift=True)
    assert picks(policy, candidate(CAR, is_drifting=True), candidate(CAR)) == [("drift",), ()]
    assert picks(sampling(rate=0.0, every=100), candidate(CAR, is_drifting=True)) == [()]


def test_most_day_ends_recording_until_the_next_day() -> None:
    enforcement = Enforcement(sampling(most_day=2))
    assert [bool(enforcement.choose(candidate(CAR), NOW)) for _ in range(4)] == [True, True, False, False]
    assert enforcement.left_out == {"day-full": 2}
    assert enforcement.choose(candidate(CAR), NOW + timedelta(days=1))


def test_quota_of_a_class_leaves_out_what_shows_nothing_new() -> None:
    enforcement = Enforcement(sampling(per_class_day=1))
    order = [candidate(CAR), candidate(CAR), candidate(CAR, FACE), candidate(CAR, FACE), candidate()]
    assert [bool(enforcement.choose(one, NOW)) for one in order] == [True, False, True, False, True]
    assert enforcement.left_out == {"class-full": 2}


def test_counts_of_a_process_before_go_on() -> None:
    enforcement = Enforcement(sampling(most_day=3, per_class_day=2))
    enforcement.resume("2026-11-23", {"": 2, "car": 2})
    assert not enforcement.choose(candidate(CAR), NOW)
    assert enforcement.choose(candidate(FACE), NOW)
    assert not enforcement.choose(candidate(FACE), NOW)


def test_sealed_request_is_never_recorded() -> None:
    enforcement = Enforcement(sampling())
    assert enforcement.choose(candidate(CAR, is_sealed=True), NOW) == ()
    assert enforcement.left_out == {"sealed": 1}


def test_request_that_names_no_subject_is_not_recorded_where_the_policy_wants_one() -> None:
    enforcement = Enforcement(replace(sampling(), subject_header="x-subject-id"))
    assert [bool(enforcement.choose(candidate(CAR, subject=one), NOW)) for one in (None, "", "ada")] == [
        False,
        False,
        True,
    ]
    assert enforcement.left_out == {"no-subject": 2}


# --- redaction


def redacting(**clauses: object) -> Policy:
    return replace(sampling(), redaction=Redaction(**{"classes": ("face",), "margin": 0.0, **clauses}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "task", "says"),
    [
        (("car",), Task.DETECT, "has no class to redact"),
        (("face",), Task.CLASSIFY, "says not where"),
    ],
)
def test_model_that_cannot_find_what_is_redacted_is_refused_by_name(
    names: tuple[str, ...], task: Task, says: str
) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        Enforcement(redacting()).check_finder(names, task, name="gate")
    assert caught.value.where == "redaction.classes"
    assert "redaction.bundle" in str(caught.value.hint)


def test_model_is_not_asked_for_classes_where_no_image_is_kept() -> None:
    policy = redacting()
    Enforcement(policy).check_finder(("face", "car"), Task.DETECT, name="gate")
    for other in (
        replace(policy, samples=replace(policy.samples, image=ImageForm.NONE)),
        replace(policy, mode=Mode.STATISTICS),
    ):
        Enforcement(other).check_finder(("car",), Task.DETECT, name="gate")


def test_redaction_asks_with_the_score_of_the_policy_and_not_of_the_request() -> None:
    image, asked = pixels(), []

    def find(_: object, score: float) -> ImagePredictions:
        asked.append(score)
        return answer(("face", 0.06, (8.0, 8.0, 40.0, 40.0)))

    clean = Enforcement(redacting(score=0.05)).redacted(image, answer(), find)
    assert asked == [0.05]
    assert not np.array_equal(clean[8:40, 8:40], image[8:40, 8:40])


def test_redaction_takes_what_the_request_was_answered_too() -> None:
    image = pixels()
    clean = Enforcement(redacting()).redacted(
        image, answer(("face", 0.9, (8.0, 8.0, 40.0, 40.0)), ("car", 0.9, (44.0, 0.0, 60.0, 20.0))), lambda *_: answer()
    )
    assert not np.array_equal(clean[8:40, 8:40], image[8:40, 8:40])
    assert np.array_equal(clean[:, 44:], image[:, 44:])


def test_redaction_takes_the_margin_of_the_policy() -> None:
    image = pixels()
    face = answer(("face", 0.9, (20.0, 20.0, 40.0, 40.0)))
    clean = Enforcement(redacting(margin=0.25)).redacted(image, answer(), lambda *_: face)
    changed = (clean != image).any(axis=2)
    assert changed[15:45, 15:45].mean() > 0.99  # by chance a pixel is its region's mean
    assert not changed[:15].any()
    assert not changed[:, 45:].any()


def test_redaction_without_a_finder_keeps_nothing() -> None:
    with pytest.raises(UsageError, match="nobody finds"):
        Enforcement(redacting()).redacted(pixels(), answer(), None)


# --- where, and for how long


def test_place_outside_of_the_folders_of_the_policy_is_refused(tmp_path: Path) -> None:
    inside, outside = tmp_path / "eu" / "a", tmp_path / "us"
    inside.mkdir(parents=True)
    outside.mkdir()
    enforcement = Enforcement(Policy(residency=Residency(within=(str(tmp_path / "eu"),))))
    enforcement.check_place(inside)
    with pytest.raises(UsageError, match=r"residency\.within"):
        enforcement.check_place(outside)


def test_link_that_leads_out_of_the_folders_of_the_policy_is_refused(tmp_path: Path) -> None:
    (tmp_path / "eu").mkdir()
    (tmp_path / "us").mkdir()
    (tmp_path / "eu" / "link").symlink_to(tmp_path / "us")
    with pytest.raises(UsageError, match=r"residency\.within"):
        Enforcement(Policy(residency=Residency(within=(str(tmp_path / "eu"),)))).check_place(tmp_path / "eu" / "link")


def test_region_is_that_of_the_place(tmp_path: Path) -> None:
    folder = tmp_path / "disk" / "recordings"
    folder.mkdir(parents=True)
    enforcement = Enforcement(Policy(residency=Residency(region="eu")))
    with pytest.raises(UsageError, match=r"residency\.region"):
        enforcement.check_place(folder)
    (tmp_path / REGION_FILE).write_text("eu\n", encoding="utf-8")
    assert enforcement.check_place(folder) == "eu"
    (tmp_path / "disk" / REGION_FILE).write_text("us\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"residency\.region: eu; got us"):
        enforcement.check_place(folder)  # the nearest counts


def test_recording_ends_after_the_days_of_the_policy_and_never_later_than_was_promised() -> None:
    short, long = Policy(retention=Retention(days=7)), Policy(retention=Retention(days=30))
    at = NOW - timedelta(days=7)
    assert Enforcement(short).is_expired(at, NOW)
    assert not Enforcement(short).is_expired(at + timedelta(seconds=1), NOW)
    assert not Enforcement(long).is_expired(at, NOW)
    assert Enforcement(long).is_expired(at, NOW, short)
    assert Enforcement(short).is_expired(at, NOW, long)


def test_oldest_go_first_where_there_is_too_much() -> None:
    enforcement = Enforcement(Policy(retention=Retention(most_bytes=1 << 20)))
    half = 1 << 19
    assert enforcement.surplus([("a", half), ("b", half)]) == []
    assert enforcement.surplus([("a", half), ("b", half), ("c", half)]) == ["a", "b"]  # with a margin of a twentieth
    assert enforcement.surplus([("a", 60_000), ("b", half), ("c", half)]) == ["a", "b"]


# --- what leaves


@pytest.mark.parametrize(
    ("leaves", "lets"),
    [
        (Leaves.NOTHING, []),
        (Leaves.STATISTICS, ["statistics"]),
        (Leaves.REDACTED_IMAGES, ["statistics", "redacted-images"]),
    ],
)
def test_nothing_leaves_that_the_policy_does_not_name(leaves: Leaves, lets: list[str]) -> None:
    enforcement = Enforcement(replace(redacting(), leaves=leaves))
    for what in (Leaves.STATISTICS, Leaves.REDACTED_IMAGES):
        if what.value in lets:
            enforcement.let_out(what)
        else:
            with pytest.raises(ForbiddenError, match="does not let this leave"):
                enforcement.let_out(what)


def test_image_leaves_only_where_it_is_redacted_and_both_policies_let_it() -> None:
    lets, not_then = replace(redacting(), leaves=Leaves.REDACTED_IMAGES), redacting()
    enforcement = Enforcement(lets)
    assert enforcement.lets_out_image(("face",), lets)
    assert not enforcement.lets_out_image((), lets)
    assert not enforcement.lets_out_image(("plate",), lets)
    assert not enforcement.lets_out_image(("face",), not_then)
    assert not enforcement.lets_out_image(("face",), None)
    assert not Enforcement(not_then).lets_out_image(("face",), lets)
    stricter = replace(lets, redaction=Redaction(("face", "plate")))
    assert not Enforcement(stricter).lets_out_image(("face",), lets)


def test_rules_that_pick_nothing_are_seen() -> None:
    assert not SamplingRules().picks_any
    assert SamplingRules(on_drift=True).picks_any
