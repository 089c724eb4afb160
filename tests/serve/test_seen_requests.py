# SPDX-License-Identifier: Apache-2.0
"""Each id of a sealed request is taken once, within bounds, and what cannot be told is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipsight.errors import OverloadedError, SealedRequestError
from shipsight.protect import AHEAD_MS, WINDOW_MS
from shipsight.serve.seen_requests import FolderSeen, LocalSeen, SeenRequests

NOW_MS = 1_790_000_000_000
ID = "ab" * 16


class Clock:
    """Goes as the time goes, until it is told to stay as it is."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


CLOCK = Clock()


def local(most: int = 500_000) -> LocalSeen:
    return LocalSeen(most, clock=CLOCK)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def is_taken(seen: SeenRequests, name: str = ID, *, at_ms: int = NOW_MS, now_ms: int = NOW_MS) -> bool:
    """Whether an id is taken; False where it was seen before."""
    CLOCK.now_s = now_ms / 1000
    try:
        await seen.take(name, at_ms, now_ms=now_ms)
    except SealedRequestError:
        return False
    return True


@pytest.fixture(params=["local", "folder"])
def seen(request: pytest.FixtureRequest, tmp_path: Path) -> SeenRequests:
    return local() if request.param == "local" else FolderSeen(tmp_path, local())


@pytest.mark.anyio
async def test_id_is_taken_once(seen: SeenRequests) -> None:
    assert await is_taken(seen)
    assert not await is_taken(seen)
    assert await is_taken(seen, "cd" * 16)


@pytest.mark.anyio
async def test_id_is_taken_once_by_many_at_once(seen: SeenRequests) -> None:
    told = await asyncio.gather(*(is_taken(seen) for _ in range(50)))
    assert sum(told) == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(-WINDOW_MS, AHEAD_MS), st.integers(-60_000, 400_000), st.booleans()),
        max_size=60,
    )
)
def test_no_id_is_answered_twice_while_its_request_would_be_opened(steps: list[tuple[int, int, int, bool]]) -> None:
    """Whatever the clock does: a request's id belongs to one time, and that is in the window whenever it is opened."""
    seen, now_ms = local(), NOW_MS
    sealed_at: dict[int, int] = {}
    answered: list[int] = []

    async def walk() -> None:
        nonlocal now_ms
        for number, apart_ms, later_ms, is_answered in steps:
            now_ms += later_ms
            at_ms, name = sealed_at.setdefault(number, now_ms + apart_ms), f"{number:032x}"
            is_opened = -AHEAD_MS <= now_ms - at_ms <= WINDOW_MS
            if not is_opened or not await is_taken(seen, name, at_ms=at_ms, now_ms=now_ms):
                continue
            if is_answered:
                answered.append(number)
            else:
                await seen.give_back(name, at_ms)

    asyncio.run(walk())
    assert len(answered) == len(set(answered))


@pytest.mark.anyio
async def test_id_that_is_given_back_can_be_taken_once_more(seen: SeenRequests, tmp_path: Path) -> None:
    for _ in range(3):
        assert await is_taken(seen)
        await seen.give_back(ID, NOW_MS)
    assert not list((tmp_path / "seen").glob("*/*"))
    await seen.give_back(ID, NOW_MS)  # nothing is there, as after its time
    assert await is_taken(seen)
    assert not await is_taken(seen)


@pytest.mark.anyio
async def test_ids_that_are_given_back_take_no_room() -> None:
    seen = local(most=9)
    CLOCK.now_s = NOW_MS / 1000
    for number in range(50):
        await seen.take(f"{number:032x}", NOW_MS, now_ms=NOW_MS, owner="loud")
        await seen.give_back(f"{number:032x}", NOW_MS)
    for number in range(8):
        await seen.take(f"{number:032x}", NOW_MS, now_ms=NOW_MS, owner="loud")
    with pytest.raises(OverloadedError, match="too many sealed requests"):
        await seen.take(ID, NOW_MS, now_ms=NOW_MS, owner="loud")


@pytest.mark.anyio
async def test_ids_of_other_servers_take_no_room_here(tmp_path: Path) -> None:
    one, other = FolderSeen(tmp_path, local()), FolderSeen(tmp_path, local(most=1))
    for number in range(5):
        assert await is_taken(one, f"{number:032x}")
        assert not await is_taken(other, f"{number:032x}")
    assert await is_taken(other)


@pytest.mark.anyio
async def test_id_stays_taken_where_its_place_does_not_answer(tmp_path: Path) -> None:
    seen = FolderSeen(tmp_path, local())
    assert await is_taken(seen)
    (file,) = (tmp_path / "seen").glob("*/*")
    file.unlink()
    file.mkdir()  # which nobody removes as a file
    await seen.give_back(ID, NOW_MS)
    assert not await is_taken(seen)


@pytest.mark.anyio
async def test_what_has_ended_is_forgotten_and_not_taken_again_when_the_clock_is_set_back() -> None:
    seen = local(most=10)
    for number in range(10):
        assert await is_taken(seen, f"{number:032x}")
    later = NOW_MS + 2 * WINDOW_MS
    for number in range(10, 20):
        assert await is_taken(seen, f"{number:032x}", at_ms=later, now_ms=later)
    assert not await is_taken(seen, f"{0:032x}")
    assert not await is_taken(seen, "ef" * 16)


@pytest.mark.anyio
async def test_full_memory_refuses_rather_than_forgets() -> None:
    seen = local(most=3)
    for number in range(3):
        assert await is_taken(seen, f"{number:032x}")
    with pytest.raises(OverloadedError, match="too many sealed requests"):
        await seen.take("cd" * 16, NOW_MS, now_ms=NOW_MS)
    assert not await is_taken(seen, f"{0:032x}")
    later = NOW_MS + WINDOW_MS + 10_001
    assert await is_taken(seen, "cd" * 16, at_ms=later, now_ms=later)


@pytest.mark.anyio
async def test_one_who_asks_very_often_leaves_room_for_others() -> None:
    seen = local(most=90)
    CLOCK.now_s = NOW_MS / 1000
    for number in range(80):
        await seen.take(f"{number:032x}", NOW_MS, now_ms=NOW_MS, owner="loud")
    with pytest.raises(OverloadedError, match="too many sealed requests"):
        await seen.take("ef" * 16, NOW_MS, now_ms=NOW_MS, owner="loud")
    await seen.take("cd" * 16, NOW_MS, now_ms=NOW_MS, owner="quiet")
    # What has ended is no longer counted.
    CLOCK.now_s += (later := WINDOW_MS + 10_001) / 1000
    for number in range(50):
        await seen.take(f"{number:032x}", NOW_MS + later, now_ms=NOW_MS + later, owner="loud")


@pytest.mark.anyio
async def test_time_that_jumps_ahead_neither_forgets_ids_nor_refuses_what_comes_once_it_is_right_again() -> None:
    seen = local()
    assert await is_taken(seen)
    year_ms = 365 * 86_400_000
    with pytest.raises(OverloadedError, match="cannot be told now"):
        await seen.take("cd" * 16, NOW_MS + year_ms, now_ms=NOW_MS + year_ms)
    assert not await is_taken(seen)
    assert await is_taken(seen, "ef" * 16)


@pytest.mark.anyio
async def test_time_that_stays_ahead_is_believed_after_six_minutes() -> None:
    seen = local()
    assert await is_taken(seen)
    ahead, begun_s = NOW_MS + 86_400_000, CLOCK.now_s
    for minutes in (0, 5):
        CLOCK.now_s = begun_s + minutes * 60
        at = ahead + minutes * 60_000
        with pytest.raises(OverloadedError, match="cannot be told now"):
            await seen.take("cd" * 16, at, now_ms=at)
    CLOCK.now_s = begun_s + 360
    await seen.take("cd" * 16, ahead + 360_000, now_ms=ahead + 360_000)


@pytest.mark.anyio
async def test_servers_that_share_a_folder_take_an_id_once(tmp_path: Path) -> None:
    servers = [FolderSeen(tmp_path, local()) for _ in range(4)]
    told = await asyncio.gather(*(is_taken(one) for one in servers for _ in range(5)))
    assert sum(told) == 1


@pytest.mark.anyio
async def test_folder_is_swept_only_of_what_no_server_takes_any_more(tmp_path: Path) -> None:
    one, other = FolderSeen(tmp_path, local()), FolderSeen(tmp_path, local())
    assert await is_taken(one)
    # A server whose clock is ahead by as much as clocks may differ leaves what the other may still open.
    ahead = NOW_MS + 2 * WINDOW_MS - 60_000
    assert await is_taken(one, "cd" * 16, at_ms=ahead, now_ms=ahead)
    assert not await is_taken(other, now_ms=NOW_MS + WINDOW_MS)
    late = NOW_MS + 3 * WINDOW_MS
    assert await is_taken(one, "ef" * 16, at_ms=late, now_ms=late)
    assert not list((tmp_path / "seen").glob(f"*/{ID}"))
    assert len(list((tmp_path / "seen").glob("*/*"))) == 2


@pytest.mark.anyio
async def test_folder_that_cannot_be_written_refuses() -> None:
    # Not even root makes a folder there.
    with pytest.raises(OverloadedError, match="cannot be told now"):
        await FolderSeen(Path("/proc/self"), local()).take(ID, NOW_MS, now_ms=NOW_MS)


@pytest.mark.anyio
async def test_folder_that_is_none_refuses(tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("")
    with pytest.raises(OverloadedError, match="cannot be told now"):
        await FolderSeen(tmp_path, local()).take(ID, NOW_MS, now_ms=NOW_MS)
