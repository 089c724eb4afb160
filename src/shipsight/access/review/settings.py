# SPDX-License-Identifier: Apache-2.0
"""From when on something is worth a look: every number of the review, with its reason. Stable."""

from __future__ import annotations

from dataclasses import dataclass, fields

from shipsight.errors import UsageError

__all__ = ["ReviewSettings"]


@dataclass(frozen=True)
class ReviewSettings:
    """Settings of a review.

    Attributes:
        interval_days: how often somebody reviews. A week: what an attacker did is then still warm, and it is little enough to read.
        grace_days: after which a review that is due is overdue. Two: a weekend.
        history_days: past that is looked at as what is usual. Half a year: yearly habits are too rare to learn, and an attacker who is
            patient would have to be so for that long.
        learning_days: age of a log, or of somebody in it, below which nothing is unusual, since nothing is usual yet. Four weeks: each
            weekday four times.
        least_days: days with acts from which somebody's hours are known. Fifteen: three weeks of work.
        burst_failures: failed sign-ins of one account within `burst_minutes` from which it is a burst. Ten: a person who has
            forgotten gives up, or is slowed down, before.
        burst_minutes: see there.
        slow_failures: failed sign-ins of one account within `slow_days`, for guesses that take their time.
        slow_days: see there.
        guessed_failures: failed sign-ins within a day before one from a new network that succeeded. Five: who mistypes mostly does so
            once or twice, and mostly where they always are.
        sprayed_accounts: accounts of people that failed from one network within a day, and did not succeed there, from which it is one
            that tries. Four: so many do not travel together and all forget.
        sprayed_accounts_known: the same for a network from which several people sign in. Twenty: an office after a holiday.
        strange_accounts: accounts that may fail on a day from where they never were, above three times what is usual. Three: two who
            travel may mistype on one day.
        reset_days: after a reset of factors, days within which what the person does is looked at.
        young_hours: age of an account or a right below which sensitive acts with it stand out.
        unusual_share: share of somebody's days on which they were there at an hour, two before and after it included, below which
            the hour is unusual. 3 %: once in a month and a half is not.
        dormant_days: without use after which a key is dormant.
        probing_kinds: different things that one principal was refused within a day from which it looks for what it may do. A client
            that is set up wrongly is refused one thing, many times.
        volume_factor: how many times somebody's largest day of the past a day may be, of data read or exported. Half as much again: amounts
            differ by far more from day to day, but the largest of half a year rarely grows by that.
        volume_least: pieces (files, images) below which no day is much. Five hundred: a data set to train with is some hundreds.
        breadth_least: models whose data somebody looked at within a day, more than ever, from which that is unusual.
        silent_factor: how many times its longest usual silence a server may be silent.
        silent_hours: below which no silence is told. Three: maintenance is shorter.
        backwards_s: seconds by which times of one server may go backwards: clocks are corrected.
        recoveries_least: how often a server may come back within a week without having stopped. Three: a crash is mended, or comes again.
        removals_least: people and keys that one actor removes or shuts out within a day from which it is looked at.
        rotations_least: new secrets of one key, each while the one before the last was still good, from which it has two for ever.
        leaver_days: before somebody is disabled or removed, days in which keys that they made are looked at.

    Raises:
        UsageError: one is not positive.
    """

    interval_days: int = 7
    grace_days: int = 2
    history_days: int = 180
    learning_days: int = 28
    least_days: int = 15
    burst_failures: int = 10
    burst_minutes: int = 60
    slow_failures: int = 30
    slow_days: int = 7
    guessed_failures: int = 5
    sprayed_accounts: int = 4
    sprayed_accounts_known: int = 20
    strange_accounts: int = 3
    reset_days: int = 5
    young_hours: int = 48
    unusual_share: float = 0.03
    dormant_days: int = 90
    probing_kinds: int = 8
    volume_factor: float = 1.5
    volume_least: int = 500
    breadth_least: int = 4
    silent_factor: int = 3
    silent_hours: int = 3
    backwards_s: int = 60
    recoveries_least: int = 3
    removals_least: int = 6
    rotations_least: int = 3
    leaver_days: int = 14

    def __post_init__(self) -> None:
        for one in fields(self):
            if not getattr(self, one.name) > 0:
                raise UsageError("not a positive number", where=one.name, got=getattr(self, one.name))
