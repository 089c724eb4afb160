# SPDX-License-Identifier: Apache-2.0
"""A server's sealing keys over time: made, followed with an overlap, shared by a folder, forgotten."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shipsight.access.events import Event, EventKind, Outcome
from shipsight.errors import AuditError, CorruptError, EnvironmentLackError, NotReadyError, UsageError
from shipsight.protect import PlainRequest, SealedFor, SealedProtocol, open_key_list, open_request, seal_request
from shipsight.serve.sealing_folder import SealingFolder
from shipsight.serve.sealing_keys import SealingKeys
from shipsight.serve.sealing_options import SealingOptions

DAY = timedelta(days=1)
FOR = SealedFor(SealedProtocol.NATIVE, "digits")


class World:
    """A clock, and a sink that keeps events or refuses them."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 29, 12, tzinfo=UTC)
        self.events: list[Event] = []
        self.is_full = False

    def record(self, event: Event) -> None:
        if self.is_full:
            raise AuditError("the record is full")
        self.events.append(event)

    def keys(self, folder: Path | None = None, *, days: float = 7.0, seed: str | None = None) -> SealingKeys:
        return SealingKeys(SealingOptions(folder, days, seed=seed), events=self, now=lambda: self.now)


def told(keys: SealingKeys) -> list[str]:
    """Ids as clients learn them, the one to seal to first."""
    listed = open_key_list(keys.listing(), keys.identity.pin, now_ms=keys.now_ms())
    return [one.id.hex() for one in listed]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["memory", "folder"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "memory" else tmp_path / "keys"


def test_next_key_comes_before_the_last_one_ends_and_both_open_meanwhile(folder: Path | None) -> None:
    world = World()
    keys = world.keys(folder)
    (first,) = told(keys)
    public = keys.living[bytes.fromhex(first)].public
    world.now += 6 * DAY - timedelta(seconds=1)
    keys.refresh()
    assert told(keys) == [first]
    world.now += timedelta(seconds=1)
    keys.refresh()
    second, last = told(keys)
    assert last == first != second
    body, _ = seal_request(PlainRequest(b"image"), key=public, sealed_for=FOR, now_ms=keys.now_ms())
    assert open_request(body, keys=keys.living, sealed_for=FOR, now_ms=keys.now_ms()).request.body == b"image"
    world.now += DAY + timedelta(milliseconds=1)
    keys.refresh()
    assert told(keys) == [second]
    assert list(keys.living) == [bytes.fromhex(second)]


@pytest.mark.parametrize(("days", "overlap"), [(1 / 24, timedelta(minutes=30)), (1.0, DAY / 2), (365.0, DAY)])
def test_overlap_is_half_a_life_and_a_day_at_most(days: float, overlap: timedelta) -> None:
    world = World()
    keys = world.keys(days=days)
    world.now += timedelta(days=days) - overlap - timedelta(milliseconds=5)
    keys.refresh()
    assert len(told(keys)) == 1
    world.now += timedelta(milliseconds=10)
    keys.refresh()
    assert len(told(keys)) == 2


def test_each_key_is_told_before_it_is_used_and_not_made_where_that_fails(folder: Path | None) -> None:
    world = World()
    keys = world.keys(folder)
    (event,) = world.events
    assert (event.kind, event.outcome) == (EventKind.SEALING_KEY_MADE, Outcome.DONE)
    assert event.subject == f"sealing-key:{told(keys)[0]}"
    assert keys.living[bytes.fromhex(told(keys)[0])].to_bytes().hex() not in repr(event)
    before = told(keys)
    world.now += 6 * DAY
    world.is_full = True
    with pytest.raises(AuditError, match="the record is full"):
        keys.refresh()
    assert told(keys) == before
    world.is_full = False
    keys.refresh()
    assert len(told(keys)) == len(world.events) == 2


def test_key_that_was_recorded_and_not_kept_is_tried_again_and_not_recorded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    keys = world.keys(tmp_path / "keys")
    world.now += 6 * DAY
    with monkeypatch.context() as full:

        def no_space(*_: object) -> None:
            raise OSError(28, "No space left on device")

        full.setattr(os, "link", no_space)
        for _ in range(3):
            with pytest.raises(EnvironmentLackError, match="cannot be used"):
                keys.refresh()
    assert len(world.events) == 2
    keys.refresh()
    assert len(world.events) == len(told(keys)) == 2
    assert world.events[1].subject == f"sealing-key:{told(keys)[0]}"


def test_key_that_was_made_while_the_clock_was_ahead_is_used_no_more(
    folder: Path | None, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    keys = world.keys(folder)
    (first,) = told(keys)
    world.now += 100 * DAY
    keys.refresh()
    (strange,) = told(keys)
    world.now -= 100 * DAY
    keys.refresh()
    assert strange not in told(keys)
    assert bytes.fromhex(strange) not in keys.living
    assert len(told(keys)) == 1
    assert told(keys) != [first]  # its file was deleted when it had ended
    keys.refresh()
    if folder is not None:
        assert [one for one in caplog.messages if strange in one] == [caplog.messages[-1]]


def test_server_starts_without_a_key_where_none_can_be_recorded_and_makes_one_later() -> None:
    world = World()
    world.is_full = True
    keys = world.keys()
    assert not keys.living
    with pytest.raises(NotReadyError, match="no sealing key lives"):
        keys.listing()
    world.is_full = False
    keys.refresh()
    assert len(told(keys)) == len(world.events) == 1


def test_no_list_is_told_once_no_key_lives() -> None:
    world = World()
    keys = world.keys()
    world.is_full = True
    world.now += 8 * DAY
    with pytest.raises(NotReadyError, match="no sealing key lives"):
        keys.listing()


def test_list_is_signed_anew_each_second_and_when_the_clock_is_set_back() -> None:
    world = World()
    keys = world.keys()
    first = keys.listing()
    world.now += timedelta(milliseconds=999)
    assert keys.listing() is first
    world.now += timedelta(milliseconds=1)
    second = keys.listing()
    assert second["now"] == first["now"] + 1000
    world.now -= DAY
    assert keys.listing()["now"] == second["now"] - 86_400_000


def test_servers_that_share_a_folder_have_the_same_keys_and_identity(tmp_path: Path) -> None:
    world = World()
    one, other = world.keys(tmp_path / "keys"), world.keys(tmp_path / "keys")
    assert told(one) == told(other)
    assert one.identity.pin == other.identity.pin
    assert (tmp_path / "keys" / "identity.pin").read_text() == f"{one.identity.pin}\n"
    world.now += 6 * DAY
    one.refresh()
    other.refresh()
    assert told(one) == told(other)
    assert len(told(one)) == len(world.events) == 2


@pytest.mark.anyio
async def test_key_that_another_server_made_is_found_when_it_is_asked_for(tmp_path: Path) -> None:
    world = World()
    one, other = world.keys(tmp_path / "keys"), world.keys(tmp_path / "keys")
    world.now += 6 * DAY
    one.refresh()
    new = bytes.fromhex(told(one)[0])
    assert new not in other.living
    await other.look_for(new)
    assert new in other.living
    # Names that are made up have the folder read once a second at most.
    (tmp_path / "keys" / f"{new.hex()}.key").unlink()
    await other.look_for(bytes(8))
    assert new in other.living


def test_servers_that_start_at_once_make_one_key(tmp_path: Path) -> None:
    world = World()
    made: list[SealingKeys] = []
    threads = [threading.Thread(target=lambda: made.append(world.keys(tmp_path / "keys"))) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(made) == 8
    assert len({one.identity.pin for one in made}) == len({told(one)[0] for one in made}) == len(world.events) == 1


def test_files_are_for_their_owner_alone_and_those_of_ended_keys_are_deleted(tmp_path: Path) -> None:
    world = World()
    keys = world.keys(tmp_path / "keys")
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    first = tmp_path / "keys" / f"{told(keys)[0]}.key"
    assert {one.stat().st_mode & 0o077 for one in (tmp_path / "keys").iterdir()} == {0}
    assert not [one for one in (tmp_path / "keys").iterdir() if ".key." in one.name]
    world.now += 8 * DAY
    keys.refresh()
    assert not first.exists()
    assert len(list((tmp_path / "keys").glob("*.key"))) == 1


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_folder_that_others_may_look_into_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(EnvironmentLackError, match="others may look into"):
        SealingFolder(tmp_path)


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentLackError, match="cannot be used"):
        SealingFolder(tmp_path / "file" / "keys")


@pytest.mark.parametrize("content", ["", "00", "zz" * 32, "é"])
def test_broken_identity_is_named(tmp_path: Path, content: str) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "identity").write_text(content)
    with pytest.raises(CorruptError, match="not a sealing identity"):
        SealingFolder(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", '{"private": "AA==", "not_after": 1}', '{"private": "AA=="}', "[" * 4000]
)
def test_broken_key_is_named_and_the_others_stay(tmp_path: Path, content: str) -> None:
    world = World()
    keys = world.keys(tmp_path / "keys")
    broken = tmp_path / "keys" / f"{'0' * 16}.key"
    broken.write_text(content)
    before = told(keys)
    with pytest.raises(CorruptError, match="not a sealing key") as raised:
        keys.refresh()
    assert raised.value.where == str(broken)
    assert told(keys) == before


def test_key_under_another_name_is_refused(tmp_path: Path) -> None:
    world = World()
    keys = world.keys(tmp_path / "keys")
    file = next((tmp_path / "keys").glob("*.key"))
    file.rename(file.with_name(f"{'ab' * 8}.key"))
    with pytest.raises(CorruptError, match="not a sealing key"):
        keys.refresh()


def test_key_file_reads_as_described(tmp_path: Path) -> None:
    keys = World().keys(tmp_path / "keys")
    told_file = json.loads(next((tmp_path / "keys").glob("*.key")).read_text())
    assert set(told_file) == {"private", "not_after"}
    assert told_file["not_after"] == keys.newest_ms()


def test_identity_of_a_seed_is_the_same_each_time() -> None:
    seed = os.urandom(32).hex()
    assert World().keys(seed=seed).identity.pin == World().keys(seed=seed).identity.pin
    assert seed not in repr(SealingOptions(seed=seed))


@pytest.mark.parametrize("days", [0.0, -1.0, 0.04, 365.1, float("nan")])
def test_lives_out_of_range_are_refused(days: float) -> None:
    with pytest.raises(UsageError, match="--sealing-days"):
        SealingOptions(days=days)
