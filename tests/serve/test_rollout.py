# SPDX-License-Identifier: Apache-2.0
"""Rollouts as values: who is a canary's, what promoting and rolling back make of one, what the command line says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipsight.errors import CorruptError, UsageError
from shipsight.serve.rollout import Rollout, RolloutOptions, Share, ShareOfModel, parse_share, position_of
from shipsight.serve.tally import Latencies, find_worse

shares = st.floats(min_value=0.001, max_value=1.0)
keys = st.text(max_size=40)
versions = st.sampled_from(["1", "2", "3", "4"])


def rollouts() -> st.SearchStrategy[Rollout]:
    def make(current: str, previous: str | None, canary: str | None, shadow: str | None, share: float) -> Rollout:
        def other(version: str | None) -> Share | None:
            return None if version in (None, current) else Share(str(version), share)

        return Rollout("digits", current, None if previous == current else previous, other(canary), other(shadow))

    some = st.none() | versions
    return st.builds(make, versions, some, some, some, shares)


@given(key=keys, share=shares, more=shares)
def test_a_key_that_is_a_canarys_stays_so_while_its_share_grows(key: str, share: float, more: float) -> None:
    small, large = sorted((share, more))
    before = Rollout("digits", "1", canary=Share("2", small)).is_canary(key)
    after = Rollout("digits", "1", canary=Share("2", large)).is_canary(key)
    assert after or not before


@given(key=keys)
def test_a_whole_share_takes_every_key(key: str) -> None:
    whole = Rollout("digits", "1", canary=Share("2", 1.0), shadow=Share("3", 1.0))
    assert whole.is_canary(key)
    assert whole.is_mirrored(key)
    assert 0 <= position_of(key) < 1


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_a_share_of_ten_thousand_keys_is_the_share_asked_for(share: float) -> None:
    made = Rollout("digits", "1", canary=Share("2", share), shadow=Share("2", share))
    found = sum(made.is_canary(f"camera-{number}") for number in range(10_000)) / 10_000
    # Four standard deviations of a binomial count; the keys are fixed, so this never flickers.
    assert abs(found - share) < 4 * (share * (1 - share) / 10_000) ** 0.5


def test_every_canary_has_other_keys_and_a_shadow_has_others_than_a_canary() -> None:
    two = Rollout("digits", "1", canary=Share("2", 0.5), shadow=Share("2", 0.5))
    three = Rollout("digits", "1", canary=Share("3", 0.5))
    names = [f"camera-{number}" for number in range(1000)]
    assert 350 < sum(two.is_canary(key) != three.is_canary(key) for key in names) < 650
    assert 350 < sum(two.is_canary(key) != two.is_mirrored(key) for key in names) < 650


@given(rollout=rollouts(), version=versions)
def test_rolling_back_what_was_promoted_restores_the_current_version(rollout: Rollout, version: str) -> None:
    promoted = rollout.promoted(version)
    assert promoted.current == version
    assert version not in [one.version for one in (promoted.canary, promoted.shadow) if one is not None]
    if version != rollout.current:
        back = promoted.rolled_back()
        assert (back.current, back.previous, back.canary) == (rollout.current, version, None)
        assert back.rolled_back().current == version


@given(rollout=rollouts())
def test_a_rollout_survives_json(rollout: Rollout) -> None:
    assert Rollout.from_dict("digits", json.loads(json.dumps(rollout.to_dict()))) == rollout


def test_rolling_back_without_a_version_before_ends_the_canary_or_is_refused() -> None:
    trial = Rollout("digits", "1", canary=Share("2", 0.1), shadow=Share("3", 0.5))
    assert trial.rolled_back() == Rollout("digits", "1", shadow=Share("3", 0.5))
    with pytest.raises(UsageError, match="nothing to roll back"):
        Rollout("digits", "1").rolled_back()


@pytest.mark.parametrize(
    "given_value",
    [None, {}, {"current": 1, "previous": None, "canary": None, "shadow": None},
     {"current": "1", "previous": None, "canary": {"version": "1", "share": 0.5}, "shadow": None},
     {"current": "1", "previous": None, "canary": {"version": "2", "share": 2}, "shadow": None}],
    ids=["nothing", "empty", "number", "itself", "share"],
)  # fmt: skip
def test_what_is_no_rollout_is_refused(given_value: object) -> None:
    with pytest.raises(CorruptError):
        Rollout.from_dict("digits", given_value)


def test_the_command_line_names_model_version_and_share() -> None:
    assert parse_share("yolo11n:2=0.1", option="--canary") == ShareOfModel("yolo11n", Share("2", 0.1))
    assert parse_share("a:v2-rc.1=1", option="--canary").share == Share("v2-rc.1", 1.0)


@pytest.mark.parametrize("text", ["", "yolo", "yolo=0.1", "yolo:2", "yolo:2=0", "yolo:2=1.5", "yolo:2=10%", "a:b:c=1"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_share(text, option="--canary")


def test_two_canaries_of_one_model_are_refused() -> None:
    twice = (ShareOfModel("a", Share("2", 0.1)), ShareOfModel("a", Share("3", 0.1)))
    with pytest.raises(UsageError, match="one at a time"):
        RolloutOptions(canaries=twice)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_quantile_is_exceeded_by_at_most_the_rest(values: list[float], share: float) -> None:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    found = latencies.quantile(share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values)


@pytest.mark.parametrize(
    ("answered", "failed", "p95", "worse"),
    [(200, 0, 10.0, []), (200, 0, 14.0, []), (200, 0, 16.0, ["p95"]), (190, 10, 10.0, ["failures"]),
     (199, 1, 10.0, []), (20, 30, 100.0, []), (100, 100, 50.0, ["failures", "p95"])],
    ids=["same", "a-little-slower", "slower", "failing", "one-failure", "too-few", "both"],
)  # fmt: skip
def test_a_canary_is_called_worse_only_where_it_clearly_is(
    answered: int, failed: int, p95: float, worse: list[str]
) -> None:
    def told(answered: int, failed: int, p95: float) -> dict[str, object]:
        return {"answered": answered, "failed": failed, "latency_ms": {"p50": 5.0, "p95": p95}}

    assert find_worse(told(1000, 1, 10.0), told(answered, failed, p95)) == worse
