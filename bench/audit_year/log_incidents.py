# SPDX-License-Identifier: Apache-2.0
"""Planted incidents in the log itself, its servers and its reviews."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from audit_year.planner import Planner
from shipsight.access.events import EventKind


def server_cut_off(plan: Planner, strength: int) -> None:
    server = plan.rng.choice(plan.org.servers)
    begin = datetime.combine(plan.day, time(8), UTC) + timedelta(hours=plan.rng.uniform(0, 2))
    assert plan.made is not None
    plan.made.mute = (server, begin, begin + timedelta(hours=(6, 14, 50)[strength]))


def log_flooded(plan: Planner, strength: int) -> None:
    plan.tell(plan.any_time(), EventKind.AUDIT_LOST, "server:this server", lost=(50, 3000, 100000)[strength])


def server_killed(plan: Planner, strength: int) -> None:
    server, at = plan.rng.choice(plan.org.servers), plan.any_time()
    for number in range((4, 8, 40)[strength]):
        plan.tell(at + timedelta(minutes=9 * number), EventKind.AUDIT_RECOVERED, "server:this server", server=server)


def clock_set_back(plan: Planner, strength: int) -> None:
    assert plan.made is not None
    begin = datetime.combine(plan.day, time(9), UTC) + timedelta(hours=plan.rng.uniform(0, 5))
    # By less than the pause before it, nobody can see it in a log: no time comes after a later one.
    far = (timedelta(hours=2), timedelta(hours=8), timedelta(days=3))[strength]
    plan.made.back = (plan.rng.choice(plan.org.servers), begin, timedelta(hours=(4, 2, 2)[strength]), far)


def entries_taken_away(plan: Planner, strength: int) -> None:
    assert plan.made is not None
    plan.made.missing = (plan.any_time(), (1, 10, 60)[strength])


def nobody_reviews(plan: Planner, strength: int) -> None:
    assert plan.made is not None
    plan.made.skips = (1, 2, 4)[strength]


def names_erased(plan: Planner, strength: int) -> None:
    at = plan.any_time()
    for number in range((4, 8, 30)[strength]):
        plan.tell(
            at + timedelta(minutes=number),
            EventKind.AUDIT_ERASED,
            "server:root",
            subject=f"person:gone{number}",
            entries=7,
        )
