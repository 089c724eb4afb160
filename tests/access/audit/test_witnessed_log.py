# SPDX-License-Identifier: Apache-2.0
"""A log with a witness: what its keeper does to it afterwards is found by the command, and by the log's own server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.access.audit.logs import Place, fill, make_log, open_log
from tests.access.audit.test_attacks import rewrite, sign_anew
from tests.access.audit.witness_server import WitnessServer, witness_server

from shipsight.access.audit.following import newest_path
from shipsight.access.audit.witness_client import fetch_checkpoint
from shipsight.access.audit.witnesses import CopyState
from shipsight.serve.audit_copies import SecondPlaces


@pytest.fixture(scope="module")
def witnessed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WitnessServer, Iterator[Path]]]:
    """A witness, and logs that it watches."""
    folders = [tmp_path_factory.mktemp("log") for _ in range(6)]
    keys = [make_log(str(one / "log.db"), one / "log.key").key.text for one in folders]
    with witness_server(tmp_path_factory.mktemp("witness") / "state", *keys) as server:
        yield server, iter(folders)


@pytest.fixture
def witness(witnessed: tuple[WitnessServer, Iterator[Path]]) -> WitnessServer:
    return witnessed[0]


@pytest.fixture
def log(witnessed: tuple[WitnessServer, Iterator[Path]]) -> Place:
    folder = next(witnessed[1])
    return Place(str(folder / "log.db"), folder / "log.key")


def serve(place: Place, witness: WitnessServer, entries: int) -> CopyState:
    """What a server does between its start and its end; returns how the witness fared."""
    copies = SecondPlaces(place.url, [witness.told["audit_copy"]])
    try:
        with open_log(place.url, place.key_path, copies=copies) as log:
            fill(log, entries)
            log.checkpoint()
        until_s = time.monotonic() + 20
        while copies.states[0].is_waiting and copies.states[0].error is None and time.monotonic() < until_s:
            time.sleep(0.02)
        return copies.states[0]
    finally:
        copies.close()


def verify(place: Place, *more: str) -> tuple[int, dict[str, Any]]:
    """What `shipsight audit verify` says."""
    command = [sys.executable, "-m", "shipsight", "audit", "verify", "--json", "--audit", place.url]
    ran = subprocess.run([*command, *more], capture_output=True, text=True, timeout=120)
    return ran.returncode, json.loads(ran.stdout)


def by_witness(place: Place, witness: WitnessServer) -> tuple[int, set[str]]:
    code, found = verify(place, "--witness", witness.told["audit_copy"])
    return code, {one["code"] for one in found["findings"]}


def test_log_that_nobody_changed_is_ok_to_its_witness(log: Place, witness: WitnessServer) -> None:
    for entries in (5, 40, 1):
        state = serve(log, witness, entries)
        assert (state.error, state.failures) == (None, 0)
    assert by_witness(log, witness) == (0, set())


def test_rewritten_log_with_rewritten_checkpoints_is_found_by_its_witness_alone(
    log: Place, witness: WitnessServer, caplog: pytest.LogCaptureFixture
) -> None:
    assert serve(log, witness, 20).error is None
    rewrite(log)
    sign_anew(log)
    log.open(has_session=False).checkpoint()
    code, found = verify(log)
    assert (code, found["status"]) == (0, "ok")  # whoever has the key has made all of it fit
    assert by_witness(log, witness) == (1, {"fork"})
    # The server goes on with it, and hears from the witness at its next checkpoint.
    state = serve(log, witness, 5)
    assert state.is_refusing
    assert [one.levelname for one in caplog.records if "may have been changed" in one.message] == ["CRITICAL"]


def test_log_and_checkpoints_of_yesterday_put_back_are_found_by_the_size_that_the_witness_knows(
    log: Place, witness: WitnessServer, tmp_path: Path
) -> None:
    serve(log, witness, 10)
    # With what lies beside the key, as who has the whole machine can.
    newest = newest_path(log.key_path)
    shutil.copy(log.url, tmp_path / "yesterday.db")
    shutil.copy(newest, tmp_path / "yesterday.newest")
    serve(log, witness, 10)
    shutil.copy(tmp_path / "yesterday.db", log.url)
    shutil.copy(tmp_path / "yesterday.newest", newest)
    assert verify(log)[0] == 0
    assert by_witness(log, witness) == (1, {"log-cut"})
    assert serve(log, witness, 1).is_refusing


def test_log_cut_behind_a_checkpoint_is_found_by_its_witness(log: Place, witness: WitnessServer) -> None:
    serve(log, witness, 20)
    kept = log.rows("SELECT size, frontier FROM audit_checkpoints ORDER BY size")[2]
    leaf = json.loads(log.rows(f"SELECT record FROM audit_records WHERE seq = {kept[0]}")[0][0])["prev"]
    log.run(
        f"DELETE FROM audit_records WHERE seq >= {kept[0]}", f"DELETE FROM audit_checkpoints WHERE size > {kept[0]}"
    )
    log.run(f"UPDATE audit_head SET size = {kept[0]}, leaf = :leaf, frontier = :frontier", leaf=leaf, frontier=kept[1])
    assert by_witness(log, witness) == (1, {"log-cut"})


def test_two_servers_of_one_log_have_one_witness_and_no_alarm(log: Place, witness: WitnessServer) -> None:
    places = [SecondPlaces(log.url, [witness.told["audit_copy"]]) for _ in range(2)]
    logs = [open_log(log.url, log.key_path, server=f"server-{number}", copies=one) for number, one in enumerate(places)]
    for _ in range(6):
        for one in logs:
            fill(one, 3)
            one.checkpoint()
    for one in logs:
        one.close()
    for one in places:
        one.close()
    assert [(one.states[0].error, one.states[0].is_refusing) for one in places] == [(None, False)] * 2
    found = fetch_checkpoint(witness.place(), log.key.name, [log.key])
    assert found is not None
    assert found.size == log.rows("SELECT size FROM audit_head")[0][0]


def test_log_whose_old_entries_are_in_an_archive_is_signed_on(
    log: Place, witness: WitnessServer, tmp_path: Path
) -> None:
    serve(log, witness, 20)
    command = [sys.executable, "-m", "shipsight", "audit", "archive", "--audit", log.url]
    ran = subprocess.run(
        [*command, "--until", "2030-01-01", "--out", str(tmp_path / "archive")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    state = serve(log, witness, 5)
    assert (state.error, state.is_refusing) == (None, False)
    code, found = verify(log, "--witness", witness.told["audit_copy"], "--archive", str(tmp_path / "archive"))
    assert (code, found["findings"]) == (0, [])
