# SPDX-License-Identifier: Apache-2.0
"""Telling watchers of what was answered: never in the way of a request, all of it while there is room, each watcher for itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from shipsight.model import ImagePredictions
from shipsight.monitor.answered import Answered
from shipsight.serve.watching import Watcher, Watching

FOUND = ImagePredictions(
    None, 64, 48, ("car",), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((0, 4), np.float32)
)


def told_to(*looks: Callable[[Answered], object], **room: int) -> Watching:
    watching = Watching(**room)
    for look in looks:
        watching.add(Watcher(look))
    return watching


def answered(number: int = 0, size: int = 10) -> Answered:
    return Answered(bytes([number % 256]) * size, FOUND, "gate", "1", "v")


def test_watchers_see_all_in_order() -> None:
    seen: list[bytes | memoryview] = []
    watching = told_to(lambda one: seen.append(bytes(one.image)))
    for number in range(50):
        watching.tell([answered(2 * number), answered(2 * number + 1)])
    assert watching.flush(30)
    assert seen == [bytes([number]) * 10 for number in range(100)]
    assert (watching.told, watching.dropped) == (100, 0)
    watching.close()


def test_close_shows_what_waits_and_takes_no_more() -> None:
    seen: list[Answered] = []
    watching = told_to(seen.append)
    watching.tell([answered()])
    watching.close()
    watching.tell([answered()])
    assert (len(seen), watching.told, watching.dropped) == (1, 2, 1)


@pytest.mark.parametrize(("most", "most_bytes", "room"), [(3, 1 << 20, 3), (100, 35, 3)], ids=["images", "bytes"])
def test_full_queue_drops_and_makes_nobody_wait(most: int, most_bytes: int, room: int) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def slow(one: Answered) -> None:
        begun.set()
        assert goes_on.wait(30)

    watching = told_to(slow, most=most, most_bytes=most_bytes)
    watching.tell([answered()])
    assert begun.wait(30)
    begin = time.perf_counter()
    watching.tell([answered(number) for number in range(10)])
    assert time.perf_counter() - begin < 0.1  # however long the watcher takes
    assert (watching.told, watching.dropped) == (11, 10 - room)
    assert not watching.flush(0.05)
    goes_on.set()
    watching.close()


def test_watcher_that_fails_keeps_nothing_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Answered] = []

    def fails(one: Answered) -> None:
        raise RuntimeError("a bug")

    watching = told_to(fails, seen.append)
    watching.tell([answered(), answered()])
    assert watching.flush(30)
    watching.close()
    assert len(seen) == 2
    assert "an answer could not be looked at" in caplog.text


def test_flush_waits_for_what_was_told_and_not_for_what_comes_later() -> None:
    seen: list[Answered] = []
    watching, ends = told_to(seen.append), threading.Event()

    def tell_on() -> None:
        while not ends.wait(0.001):
            watching.tell([answered()])

    busy = threading.Thread(target=tell_on)
    busy.start()
    try:
        for _ in range(5):
            told = watching.told - watching.dropped
            assert watching.flush(30)
            assert len(seen) >= told
    finally:
        ends.set()
        busy.join()
        watching.close()


def test_what_no_watcher_wants_is_not_wanted() -> None:
    watching = Watching()
    assert not watching.wants("gate", "1", "v")
    watching.add(Watcher(lambda one: None, lambda model, version, variant: model == "gate"))
    assert watching.wants("gate", "1", "v")
    assert not watching.wants("door", "1", "v")
    watching.close()


def test_close_without_a_watcher_ends() -> None:
    Watching().close()
