# SPDX-License-Identifier: Apache-2.0
"""Second places as the log's server uses them: a failing one holds up nothing, is told, and gets the newest later."""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.access.audit.trees import Tree
from tests.access.audit.witness_server import WitnessServer, pretender, witness_server
from tests.serve.certificates import make_authority, make_server

from shipsight.access.audit.checkpoint import Checkpoint, KeyKind, Signer, open_checkpoint
from shipsight.access.audit.copies import read_checkpoints
from shipsight.access.audit.witness_client import WitnessCopy, WitnessPlace, fetch_checkpoint
from shipsight.access.audit.witnesses import CopyPlace, CopyState, Witnesses
from shipsight.errors import AuditProofError, ServiceError

TREE = Tree(400)
STRANGER = Signer.generate("w", KeyKind.COSIGNATURE)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WitnessServer, Iterator[Tree]]]:
    trees = [Tree(400, origin=f"shipsight/{number}") for number in range(30)]
    keys = [one.signer.key.text for one in trees]
    with witness_server(tmp_path_factory.mktemp("shared") / "witness", *keys) as server:
        yield server, iter(trees)


@pytest.fixture
def witness(shared: tuple[WitnessServer, Iterator[Tree]]) -> WitnessServer:
    return shared[0]


@pytest.fixture
def tree(shared: tuple[WitnessServer, Iterator[Tree]]) -> Tree:
    """A log that the witness watches, and has signed nothing of."""
    return next(shared[1])


def given(witnesses: Witnesses, tree: Tree, size: int) -> None:
    witnesses.offer(tree.checkpoint(size))


def made(*places: CopyPlace, tree: Tree = TREE, signed: Callable[[Checkpoint], None] | None = None) -> Witnesses:
    return Witnesses(places, tree.consistency, signed=signed, timeout_s=1.0, first_wait_s=0.05)


def wait_until(true: Callable[[], bool], timeout_s: float = 20) -> None:
    until_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def deliver(place: WitnessPlace, tree: Tree, size: int) -> Checkpoint:
    return WitnessCopy(place, tree.consistency).deliver(tree.checkpoint(size))


def newest(server: WitnessServer, tree: Tree) -> Checkpoint | None:
    return fetch_checkpoint(server.place(), tree.origin, [tree.signer.key])


def test_checkpoints_come_back_with_the_signature_of_the_witness(
    witness: WitnessServer, tree: Tree, tmp_path: Path
) -> None:
    signed: list[Checkpoint] = []
    witnesses = made(witness.place(), tmp_path / "copy", tree=tree, signed=signed.append)
    for size in (1, 100, 100, 350):
        given(witnesses, tree, size)
        assert witnesses.flush()
    assert [one.size for one in signed] == [1, 100, 100, 350]
    keys = [tree.signer.key, witness.place().key]
    assert all(len(open_checkpoint(one.text, keys).cosignatures) == 1 for one in signed)
    assert [one.size for one in witnesses.states] == [350, 350]
    assert [one.failures for one in witnesses.states] == [0, 0]
    assert witnesses.close()
    found = newest(witness, tree)
    assert found is not None
    assert found.text == signed[-1].text


def test_server_that_begins_anew_finds_out_what_the_witness_knows(witness: WitnessServer, tree: Tree) -> None:
    for size in (10, 100, 101):
        assert deliver(witness.place(), tree, size).cosignatures
    found = newest(witness, tree)
    assert found is not None
    assert found.size == 101


def test_witness_that_hangs_holds_up_nothing_and_gets_the_newest_later(
    witness: WitnessServer, tree: Tree, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "shipsight.access.audit")
    witnesses = made(witness.place(), tmp_path / "copy", tree=tree)
    given(witnesses, tree, 1)
    witnesses.flush()
    witness.send(signal.SIGSTOP)
    prepared = [tree.checkpoint(size) for size in range(2, 302)]
    begin_s = time.perf_counter()
    for checkpoint in prepared:
        witnesses.offer(checkpoint)
    assert time.perf_counter() - begin_s < 1.0
    wait_until(lambda: witnesses.states[1].size == 301)  # the file is not held up by the witness
    wait_until(lambda: witnesses.states[0].failures >= 2)
    state = witnesses.states[0]
    assert (state.size, state.is_waiting, state.is_refusing) == (1, True, False)
    assert state.error is not None
    assert state.since is not None
    witness.send(signal.SIGCONT)
    wait_until(lambda: witnesses.states[0].size == 301)
    assert witnesses.states[0].error is None
    assert witnesses.states[0].is_waiting is False
    assert caplog.text.count("not kept in a second place") == 1
    assert "kept there again" in caplog.text
    witnesses.close()


def test_witness_that_was_gone_gets_one_checkpoint_the_newest(witness: WitnessServer, tree: Tree) -> None:
    signed: list[Checkpoint] = []
    witnesses = made(witness.place(), tree=tree, signed=signed.append)
    given(witnesses, tree, 10)
    assert witnesses.flush()
    witness.stop(signal.SIGKILL)
    for size in range(11, 60):
        given(witnesses, tree, size)
    wait_until(lambda: witnesses.states[0].failures >= 1)
    witness.start()
    wait_until(lambda: witnesses.states[0].size == 59)
    assert [one.size for one in signed] == [10, 59]
    witnesses.close()


def test_end_is_not_waited_for_longer_than_asked(witness: WitnessServer, tree: Tree) -> None:
    witnesses = made(witness.place(), tree=tree)
    witness.send(signal.SIGSTOP)
    given(witnesses, tree, 10)
    begin_s = time.monotonic()
    assert witnesses.close(0.3) is False
    assert time.monotonic() - begin_s < 2
    witness.send(signal.SIGCONT)


def test_what_waits_at_the_end_is_still_given(tmp_path: Path) -> None:
    witnesses = made(tmp_path / "copy")
    given(witnesses, TREE, 10)
    assert witnesses.close() is True
    assert len(list(read_checkpoints(tmp_path / "copy"))) == 1


def test_log_that_was_written_anew_is_refused_and_told_as_that(
    witness: WitnessServer, tree: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    deliver(witness.place(), tree, 300)
    for size in (300, 350):
        other = tree.changed(17, size=size)
        witnesses = made(witness.place(), tree=other)
        given(witnesses, other, size)
        wait_until(lambda one=witnesses: one.states[0].is_refusing)  # type: ignore[misc]
        assert witnesses.states[0].size == 0
        witnesses.close(0.1)
    assert [one.levelname for one in caplog.records if "may have been changed" in one.message] == ["CRITICAL"] * 2
    found = newest(witness, tree)
    assert found is not None
    assert found.root == tree.frontier(300).root()
    assert "two trees of one size" in witness.logged()


def test_log_whose_end_was_cut_is_refused_and_told_as_that(witness: WitnessServer, tree: Tree) -> None:
    deliver(witness.place(), tree, 300)
    shorter = Tree(origin=tree.origin, signer=tree.signer)
    shorter.leaves = tree.leaves[:200]
    with pytest.raises(AuditProofError, match="more entries than this log has"):
        deliver(witness.place(), shorter, 200)
    # Growing again does not help: what comes after the cut is not what was there.
    grown = shorter.changed(0, size=200)
    grown.leaves[0] = tree.leaves[0]
    grown.leaves += [grown.leaves[0]] * 150
    with pytest.raises(AuditProofError, match="refuses this log"):
        deliver(witness.place(), grown, 350)


def test_old_log_with_its_old_checkpoint_is_found_by_the_size_that_the_witness_knows(
    witness: WitnessServer, tree: Tree
) -> None:
    old = tree.checkpoint(120)
    deliver(witness.place(), tree, 300)
    replayed = Tree(origin=tree.origin, signer=tree.signer)
    replayed.leaves = tree.leaves[:120]
    with pytest.raises(AuditProofError, match="more entries than this log has"):
        WitnessCopy(witness.place(), replayed.consistency).deliver(old)


def test_two_servers_of_one_log_alarm_nobody(witness: WitnessServer, tree: Tree) -> None:
    first, second = (WitnessCopy(witness.place(), tree.consistency) for _ in range(2))
    for copy, size in ((first, 10), (second, 20), (first, 15), (first, 25), (second, 22), (second, 40), (first, 40)):
        copy.deliver(tree.checkpoint(size))
    found = newest(witness, tree)
    assert found is not None
    assert found.size == 40


def test_two_views_of_one_log_are_found_by_who_compares_them(witness: WitnessServer, tree: Tree) -> None:
    # A log that shows its auditor one history and the witness another: whoever has the auditor's finds it.
    split = tree.changed(5)
    deliver(witness.place(), tree, 300)
    shown = split.checkpoint(300)
    found = newest(witness, tree)
    assert found is not None
    assert (found.size, found.origin) == (shown.size, shown.origin)
    assert found.root != shown.root
    with pytest.raises(AuditProofError):
        deliver(witness.place(), split, 310)


def test_witness_of_a_log_that_it_does_not_know_refuses(witness: WitnessServer, tree: Tree) -> None:
    other = Tree(3, origin="shipsight/other")
    with pytest.raises(ServiceError, match="not watched here"):
        deliver(witness.place(), other, 3)
    assert newest(witness, other) is None


def test_witness_is_believed_for_its_key_alone(witness: WitnessServer, tree: Tree) -> None:
    place = WitnessPlace(witness.place().url, STRANGER.key)
    with pytest.raises(ServiceError, match="nobody trusted"):
        deliver(place, tree, 3)
    with pytest.raises(AuditProofError):
        fetch_checkpoint(place, tree.origin, [tree.signer.key])


def http(status: str, body: bytes, kind: str = "text/plain") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def drip(connection: socket.socket, _: bytes) -> None:
    for one in http("200 OK", b"x" * 10_000):
        connection.send(bytes([one]))
        time.sleep(0.02)


def drip_a_body(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    for _ in range(10_000):
        connection.send(b"x")
        time.sleep(0.02)


@pytest.mark.parametrize(
    "answer",
    [
        http("200 OK", b""),
        http("200 OK", b"\xff\xfe"),
        http("200 OK", "\N{EM DASH} w AAAA\n".encode()),
        http("200 OK", STRANGER.sign_line("another\n", TREE.checkpoint(1).at).encode()),
        http("200 OK", b"x" * 200_000),
        http("409 Conflict", b"1\n"),
        http("409 Conflict", b"-1\n", "text/x.tlog.size"),
        http("409 Conflict", b"99999999999999999999999\n", "text/x.tlog.size"),
        http("409 Conflict", b"7\n", "text/x.tlog.size"),
        http("409 Conflict", b"9000000\n", "text/x.tlog.size"),
        http("302 Found", b"").replace(b"\r\n\r\n", b"\r\nLocation: http://127.0.0.1:1/\r\n\r\n"),
        http("500 Internal Server Error", b"oops"),
        http("403 Forbidden", b"no"),
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 5000,
        b"",
    ],
    ids=[
        "empty",
        "no-text",
        "no-signature",
        "another-signature",
        "huge",
        "size-of-another-type",
        "negative-size",
        "size-too-large",
        "always-another-size",
        "size-beyond",
        "elsewhere",
        "broken",
        "forbidden",
        "no-http",
        "endless-head",
        "hangs-up",
    ],
)
def test_answer_of_no_witness_is_not_taken_for_one(answer: bytes) -> None:
    with pretender(lambda connection, _: connection.sendall(answer)) as url:
        copy = WitnessCopy(WitnessPlace(url, STRANGER.key), TREE.consistency, timeout_s=2)
        with pytest.raises((AuditProofError, ServiceError, OSError)) as caught:
            copy.deliver(TREE.checkpoint(10))
    # Only who refuses says something of the log; all else says something of the witness.
    assert isinstance(caught.value, AuditProofError) == (b"403" in answer)


@pytest.mark.parametrize("answer", [drip, drip_a_body], ids=["head", "body"])
def test_answer_that_comes_byte_by_byte_is_cut_off(answer: Callable[[socket.socket, bytes], None]) -> None:
    with pretender(answer) as url:
        begin_s = time.monotonic()
        with pytest.raises(TimeoutError):
            WitnessCopy(WitnessPlace(url, STRANGER.key), TREE.consistency, timeout_s=0.5).deliver(TREE.checkpoint(10))
        assert time.monotonic() - begin_s < 5


def test_witness_over_tls_is_known_by_its_authority(tmp_path: Path) -> None:
    authority, other = make_authority(), make_authority("other")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "other.pem").write_bytes(other.pem)
    certificate, key = make_server(authority).write(tmp_path)
    options = ["--tls-cert", str(certificate), "--tls-key", str(key), "--host", "0.0.0.0"]
    with witness_server(tmp_path / "witness", TREE.signer.key.text, options=options) as server:
        assert server.told["url"].startswith("https://localhost:")
        assert deliver(server.place(tmp_path / "ca.pem"), TREE, 10).cosignatures
        for ca in (tmp_path / "other.pem", None):
            with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
                deliver(server.place(ca), TREE, 10)
        plain = WitnessPlace(server.told["url"].replace("https", "http"), server.place().key)
        with pytest.raises((OSError, ServiceError)):
            deliver(plain, TREE, 10)


def test_state_tells_nothing_before_the_first(tmp_path: Path) -> None:
    witnesses = made(tmp_path / "copy")
    assert witnesses.states == (CopyState(f"file:{tmp_path / 'copy'}"),)
    assert witnesses.flush()
    witnesses.close()
