# SPDX-License-Identifier: Apache-2.0
"""`serve --isolate`: what happens to an engine's process is its own model's affair."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.serve.conftest import Served
from tests.serve.test_channel import shared_memory
from tests.serve.test_models import rewritten

from shipsight.errors import EngineDiedError, ShipsightError
from shipsight.model.bundle import open_bundle, write_bundle
from shipsight.serve.isolation import ENGINE_WORKER, Keeper, Pauses, WorkerProcess, open_session
from shipsight.serve.opening import OpenSettings
from shipsight.serve.runner import Runner, open_runner

pytestmark = pytest.mark.slow  # servers that start, die and wait

WAIT_S = 90


@pytest.fixture(scope="module")
def letters_bundle(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model under another name."""
    opened = open_bundle(digits_bundle)
    place = tmp_path_factory.mktemp("isolate") / "letters.bundle"
    write_bundle(
        place,
        {name: opened.read(name) for name in opened.names},
        card=dataclasses.replace(opened.card, name="letters"),
        variants=opened.variants,
        default_variant=opened.default_variant.name,
        golden=opened.manifest.golden,
    )
    return place


@pytest.fixture
def isolated(start: Callable[..., Served], digits_bundle: Path, letters_bundle: Path) -> Iterator[Served]:
    server = start(digits_bundle, letters_bundle, "--isolate", "--streams", "2", "--stuck-seconds", "3")
    yield server
    server.stop()


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has ended meanwhile
            found += [int(one) for one in (task / "children").read_text(encoding="ascii").split()]
    return found


def serving_process(server: Served) -> int:
    (pid,) = children(server.process.pid)
    return pid


def workers(server: Served) -> dict[str, int]:
    """Model -> process id of its worker."""
    found = {}
    for pid in children(serving_process(server)):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        if ENGINE_WORKER in words:
            found[words[words.index(ENGINE_WORKER) + 2]] = pid
    return found


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < until, "it did not come about in time"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def state_of(client: httpx.Client, model: str) -> str:
    return str(client.get(f"/v1/models/{model}").json()["versions"][0]["state"])


def ask(client: httpx.Client, model: str, jpeg: bytes) -> httpx.Response:
    return client.post(f"/v1/models/{model}/predict", params={"deadline_ms": "60000"}, content=jpeg)


@contextmanager
def load(server: Served, model: str, jpeg: bytes, callers: int = 2) -> Iterator[list[httpx.Response]]:
    """Keeps asking a model; the answers are there at the end."""
    answers: list[httpx.Response] = []
    leaving = threading.Event()

    def keep_asking() -> None:
        with httpx.Client(base_url=server.url, timeout=WAIT_S) as client:
            while not leaving.is_set():
                answers.append(ask(client, model, jpeg))

    threads = [threading.Thread(target=keep_asking) for _ in range(callers)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(answers) >= 3)
    yield answers
    leaving.set()
    for thread in threads:
        thread.join()


def dies(runner: Runner, tensor: np.ndarray) -> bool:
    try:
        runner.infer(tensor, is_alone=True)
    except EngineDiedError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGSTOP])
def test_an_engine_that_dies_or_hangs_is_replaced_and_another_model_does_not_notice(
    isolated: Served, jpeg: bytes, number: int
) -> None:
    with isolated.client as client:
        before = ask(client, "digits", jpeg).json()
        first = workers(isolated)
        with load(isolated, "letters", jpeg) as others, load(isolated, "digits", jpeg, 8) as own:
            os.kill(first["digits"], number)
            eventually(lambda: state_of(client, "digits") == "restarting")
            assert client.get("/readyz").status_code == 503
            assert 'shipsight_model_ready{model="digits",version="1"} 0.0' in client.get("/metrics").text
            count = len(others)
            eventually(lambda: len(others) > count + 3)
            eventually(lambda: state_of(client, "digits") == "ready")
            count = len(own)
            eventually(lambda: any(one.status_code == 200 for one in own[count:]))
        assert Counter(one.status_code for one in others) == {200: len(others)}
        failed = [one for one in own if one.status_code != 200]
        codes = Counter(one.json()["error"]["code"] for one in failed)
        assert codes["engine-died"] >= 1
        assert set(codes) <= {"engine-died", "not-ready"}
        assert {one.status_code for one in failed} == {503}
        assert all(int(one.headers["retry-after"]) >= 1 for one in failed)
        assert ask(client, "digits", jpeg).json() == before, "the worker that took its place runs the same model"
        after = workers(isolated)
        assert after["letters"] == first["letters"]
        assert after["digits"] != first["digits"]
        assert 'shipsight_engine_deaths_total{model="digits",version="1"} 1.0' in client.get("/metrics").text
        assert client.get("/readyz").status_code == 200


def test_what_is_in_flight_when_a_worker_is_killed_fails_at_once_with_a_name(isolated: Served, jpeg: bytes) -> None:
    pid = workers(isolated)["digits"]
    os.kill(pid, signal.SIGSTOP)  # so that the request is in flight for certain
    answers: list[httpx.Response] = []

    def one() -> None:
        with isolated.client as client:
            answers.append(ask(client, "digits", jpeg))

    thread = threading.Thread(target=one)
    thread.start()
    with isolated.client as client:
        eventually(lambda: client.get("/readyz").json()["load"]["digits/1"]["running"] == 1)
    os.kill(pid, signal.SIGKILL)
    thread.join(WAIT_S)
    (answer,) = answers
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "engine-died")
    assert "SIGKILL" in error["got"]


def test_a_model_can_be_loaded_anew_and_taken_out_while_its_worker_is_down(isolated: Served, jpeg: bytes) -> None:
    with isolated.client as client:
        os.kill(workers(isolated)["digits"], signal.SIGKILL)
        client.post("/v2/repository/models/digits/load").raise_for_status()
        assert ask(client, "digits", jpeg).status_code == 200
        os.kill(workers(isolated)["digits"], signal.SIGKILL)
        client.post("/v2/repository/models/digits/unload").raise_for_status()
        assert ask(client, "digits", jpeg).status_code == 404
        eventually(lambda: set(workers(isolated)) == {"letters"})
        assert ask(client, "letters", jpeg).status_code == 200


def test_sigterm_to_the_whole_group_lets_requests_end_and_leaves_no_process(isolated: Served, jpeg: bytes) -> None:
    body = {"images": [base64.b64encode(jpeg).decode()] * 16}
    statuses: list[int] = []

    def asking(model: str) -> None:
        with isolated.client as client:
            statuses.append(client.post(f"/v1/models/{model}/predict", json=body).status_code)

    pids = [*workers(isolated).values(), serving_process(isolated)]
    threads = [threading.Thread(target=asking, args=(model,)) for model in ("digits", "letters")]
    for thread in threads:
        thread.start()
    with isolated.client as client:
        eventually(
            lambda: all(one["running"] for one in client.get("/readyz").json()["load"].values()) or len(statuses) == 2
        )
    for pid in pids:  # as an orchestrator does that signals the whole group
        os.kill(pid, signal.SIGTERM)
    assert isolated.stop() == 0
    for thread in threads:
        thread.join()
    assert statuses == [200, 200]
    assert all(map(is_gone, pids))


@pytest.mark.parametrize("who", ["supervisor", "serving process"])
def test_workers_end_with_what_started_them(
    start: Callable[..., Served], digits_bundle: Path, who: str, jpeg: bytes
) -> None:
    server = start(digits_bundle, "--isolate", "--streams", "1")
    pids = list(workers(server).values())
    serving = serving_process(server)
    # One that is stopped cannot see that its socket closes: the kernel has to end it.
    os.kill(pids[0], signal.SIGSTOP)
    os.kill(server.process.pid if who == "supervisor" else serving, signal.SIGKILL)
    eventually(lambda: all(map(is_gone, [*pids, serving])))
    if who == "serving process":
        events = server.events()
        assert [next(events)["event"] for _ in range(2)] == ["restart", "ready"]
        with server.client as client:
            assert ask(client, "digits", jpeg).status_code == 200
        assert workers(server).keys() == {"digits"}
    server.stop()


def test_a_worker_holds_no_descriptor_of_the_server(isolated: Served) -> None:
    for pid in workers(isolated).values():
        links = [str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()]
        inodes = {re.sub(r"\D", "", link) for link in links if link.startswith("socket:")}
        listening = {
            line.split()[9]
            for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
            if line.split()[3] == "0A"
        }
        assert inodes
        assert not inodes & listening


@pytest.mark.slow
def test_nothing_is_left_of_twenty_workers_that_died(digits_bundle: Path) -> None:
    bundle = open_bundle(digits_bundle)
    settings = OpenSettings(streams=2, isolate=True)
    before = shared_memory()
    is_up = threading.Event()
    held: list[Runner] = []
    started: list[WorkerProcess] = []
    told: list[ShipsightError] = []

    def prepare(worker: WorkerProcess) -> Runner:
        started.append(worker)
        return open_runner(bundle, bundle.default_variant, settings, partial(open_session, worker, stuck_s=60))

    def down(error: ShipsightError) -> None:
        told.append(error)

    def up(runner: Runner) -> None:
        held[:] = [runner]
        is_up.set()

    def measure() -> dict[str, int]:
        return {
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "threads": threading.active_count(),
            "shared": shared_memory(),
            "children": len(children(os.getpid())),
        }

    keeper = Keeper(ENGINE_WORKER, "dies", prepare, on_down=down, on_up=up, pauses=Pauses(calm_s=-1.0))
    keeper.open()
    tensor = np.zeros(held[0].alone.input.shape, held[0].alone.input.dtype)
    expected = held[0].infer(tensor, is_alone=True)
    first: dict[str, int] = {}
    for death in range(20):
        is_up.clear()
        runner = held[0]
        os.kill(started[-1].pid, signal.SIGKILL)
        eventually(partial(dies, runner, tensor))
        assert is_up.wait(WAIT_S)
        for is_alone in (True, False):
            for name, array in held[0].infer(tensor, is_alone=is_alone).items():
                np.testing.assert_allclose(array, expected[name], atol=1e-4)
        if death == 2:
            first = measure()
    eventually(lambda: threading.active_count() <= first["threads"])
    assert measure() == first
    assert len(told) == 20
    keeper.close()
    eventually(lambda: shared_memory() <= before)
    assert all(is_gone(one.pid) for one in started)


def test_pauses_grow_and_are_forgotten_after_a_calm() -> None:
    now = 0.0
    pauses = Pauses(shortest_s=0.1, longest_s=1.0, calm_s=60.0, clock=lambda: now)
    assert [pauses.after_end() for _ in range(6)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.0]
    now = 62.0
    assert pauses.after_end() == 0.0
    assert pauses.after_end() == 0.1


def test_a_bundle_that_does_not_replay_is_refused_in_a_worker_as_it_is_here(
    digits_bundle: Path, tmp_path: Path
) -> None:
    other = rewritten(digits_bundle, tmp_path / "other.bundle", weights_scale=1.5)
    command: list[Any] = [sys.executable, "-m", "shipsight", "serve", other, "--port", "0", "--isolate"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "replay-mismatch" in done.stderr
