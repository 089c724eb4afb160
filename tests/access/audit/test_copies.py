# SPDX-License-Identifier: Apache-2.0
"""Second places that take what comes: a file, and a real server of syslog; what they have is read back and verifies."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.access.audit.syslog_server import SyslogServer, has_syslog_server, syslog_server
from tests.access.audit.trees import Tree

from shipsight.access.audit.checkpoint import Checkpoint, open_checkpoint
from shipsight.access.audit.copies import FileCopy, SyslogCopy, SyslogPlace, Transport, read_checkpoints
from shipsight.access.audit.witness_client import WitnessPlace
from shipsight.access.audit.witnesses import parse_copy
from shipsight.errors import UsageError

KEY = "w+fb3bdc44+BEbG6788csTI66Dn5TPQM3E6uoJI+ThRe32n92R0YoFq"


def opened(path: Path, tree: Tree) -> list[Checkpoint]:
    return [open_checkpoint(one, [tree.signer.key]) for one in read_checkpoints(path)]


def test_file_has_every_checkpoint_in_order(tmp_path: Path) -> None:
    tree = Tree(9)
    copy = FileCopy(tmp_path / "copy")
    for size in (1, 5, 9):
        copy.deliver(tree.checkpoint(size))
    assert [one.size for one in opened(tmp_path / "copy", tree)] == [1, 5, 9]
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) & 0o007 == 0


def test_file_of_two_writers_is_whole(tmp_path: Path) -> None:
    trees = [Tree(30, origin=f"shipsight/{name}") for name in "ab"]

    def write(tree: Tree) -> None:
        copy = FileCopy(tmp_path / "copy")
        for size in range(1, 31):
            copy.deliver(tree.checkpoint(size))

    threads = [threading.Thread(target=write, args=(one,)) for one in trees]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    texts = list(read_checkpoints(tmp_path / "copy"))
    assert len(texts) == 60
    for tree in trees:
        own = [one for one in texts if one.startswith(tree.origin)]
        assert [open_checkpoint(one, [tree.signer.key]).size for one in own] == list(range(1, 31))


@given(st.integers(1, 400))
@example(112)  # right behind the blank line before the signature
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_end_that_was_torn_off_costs_that_checkpoint_alone(tmp_path: Path, cut: int) -> None:
    tree = Tree(9)
    path = tmp_path / os.urandom(8).hex()
    for size in (1, 5):
        FileCopy(path).deliver(tree.checkpoint(size))
    whole = path.read_bytes()
    second = whole.index(b"shipsight/one\n5\n")
    cut = min(cut, len(whole) - second)
    os.truncate(path, len(whole) - cut)
    FileCopy(path).deliver(tree.checkpoint(9))
    torn: list[str] = []
    sizes = [open_checkpoint(one, [tree.signer.key]).size for one in read_checkpoints(path, torn=torn.append)]
    # Only the last line end is nothing but an end.
    assert sizes == ([1, 5, 9] if cut == 1 else [1, 9])
    assert len(torn) == (0 if cut in (1, len(whole) - second) else 1)


def test_file_that_another_owns_and_lets_only_append_is_written(tmp_path: Path) -> None:
    tree = Tree(9)
    path = tmp_path / "copy"
    path.touch(mode=0o622)
    copy = FileCopy(path)
    for size in (1, 9):
        copy.deliver(tree.checkpoint(size))
    assert [one.size for one in opened(path, tree)] == [1, 9]


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "missing-folder"])
def test_file_that_is_none_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "copy"
    if kind == "link":
        path.symlink_to(tmp_path / "other")
    elif kind == "fifo":
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    elif kind == "folder":
        path.mkdir()
    else:
        path = tmp_path / "none" / "copy"
    with pytest.raises((OSError, UsageError)):
        FileCopy(path).deliver(Tree(1).checkpoint())
    if kind == "fifo":
        os.close(reader)
    assert not (tmp_path / "other").exists()


def test_full_disk_is_an_error_and_what_was_there_stays(small_disk: Path) -> None:
    tree = Tree(9)
    copy = FileCopy(small_disk / "copy")
    copy.deliver(tree.checkpoint(1))
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError):
        ballast.write_bytes(b"\0" * 100_000)
    written = 0

    def fill() -> None:
        nonlocal written
        while True:
            copy.deliver(tree.checkpoint(5))
            written += 1

    with pytest.raises(OSError, match="No space left"):
        fill()
    ballast.unlink()
    copy.deliver(tree.checkpoint(9))
    assert [one.size for one in opened(small_disk / "copy", tree)] == [1, *[5] * written, 9]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB, mounted in reach of this process."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root mounts a disk of its own")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def syslog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyslogServer]:
    if not has_syslog_server():
        pytest.skip("rsyslogd is not here")
    with syslog_server(tmp_path_factory.mktemp("syslog")) as server:
        yield server


def syslog_copy(server: SyslogServer, transport: str) -> SyslogCopy:
    place = parse_copy(server.place(transport))
    assert isinstance(place, SyslogPlace)
    return SyslogCopy(place)


@pytest.mark.parametrize("transport", ["unix", "udp", "tcp", "tls"])
def test_rsyslog_has_every_checkpoint(syslog: SyslogServer, transport: str) -> None:
    tree = Tree(9, origin=f"shipsight/{transport}")
    copy = syslog_copy(syslog, transport)
    for size in (1, 5, 9):
        copy.deliver(tree.checkpoint(size))
    copy.close()
    syslog.wait_for(f'"shipsight/{transport}', count=3)
    mine = [one for one in read_checkpoints(syslog.heard) if one.startswith(tree.origin)]
    assert sorted(open_checkpoint(one, [tree.signer.key]).size for one in mine) == [1, 5, 9]
    # Each is one message, from this program, among a syslog's own lines.
    lines = [one for one in syslog.heard.read_text().splitlines() if tree.origin in one]
    assert len(lines) == 3
    assert all("shipsight" in one.partition("{")[0] for one in lines)


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_rsyslog_that_was_restarted_is_found_again(syslog: SyslogServer, transport: str) -> None:
    tree = Tree(9, origin=f"shipsight/again-{transport}")
    copy = syslog_copy(syslog, transport)
    copy.deliver(tree.checkpoint(1))
    syslog.wait_for(tree.origin)
    syslog.stop()
    with pytest.raises(ConnectionRefusedError):
        copy.deliver(tree.checkpoint(5))
    syslog.start()
    copy.deliver(tree.checkpoint(9))
    copy.close()
    syslog.wait_for(f"{tree.origin}\\n9\\n")


def test_syslog_of_another_certificate_is_sent_nothing(syslog: SyslogServer, tmp_path: Path) -> None:
    from tests.serve.certificates import make_authority

    (tmp_path / "other.pem").write_bytes(make_authority("other").pem)
    copy = SyslogCopy(SyslogPlace(Transport.TLS, "localhost", syslog.tls, tmp_path / "other.pem"))
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        copy.deliver(Tree(3, origin="shipsight/unheard").checkpoint())
    by_address = SyslogCopy(SyslogPlace(Transport.TLS, "127.0.0.2", syslog.tls, syslog.folder / "ca.pem"))
    with pytest.raises(OSError, match=r"CERTIFICATE_VERIFY_FAILED|refused"):
        by_address.deliver(Tree(3, origin="shipsight/unheard").checkpoint())
    assert "shipsight/unheard" not in (syslog.heard.read_text() if syslog.heard.exists() else "")


def test_syslog_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        SyslogCopy(SyslogPlace(Transport.UNIX, str(tmp_path / "none"))).deliver(Tree(1).checkpoint())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        place = SyslogPlace(Transport.TCP, "127.0.0.1", taken.getsockname()[1])
        with pytest.raises(ConnectionRefusedError):
            SyslogCopy(place).deliver(Tree(1).checkpoint())


def test_syslog_that_takes_nothing_is_not_waited_for_without_end() -> None:
    tree = Tree(1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        copy = SyslogCopy(SyslogPlace(Transport.TCP, "127.0.0.1", server.getsockname()[1]), timeout_s=0.3)
        given = tree.checkpoint()

        def fill() -> None:
            while True:  # until all buffers between are full
                copy.deliver(given)

        with pytest.raises(TimeoutError):
            fill()
        copy.close()


def test_lines_of_others_in_a_syslog_are_passed_over(tmp_path: Path) -> None:
    tree = Tree(2)
    path = tmp_path / "syslog"
    message = SyslogCopy(SyslogPlace(Transport.UNIX, "/x"))._message(tree.checkpoint()).decode()
    path.write_text(f"Mar  1 host kernel: hello\n{message}\nMar  1 host cron: bye\n")
    assert [one.size for one in opened(path, tree)] == [2]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("file:/var/log/x", Path("/var/log/x")),
        ("file:x y", Path("x y")),
        ("syslog:/dev/log", SyslogPlace(Transport.UNIX, "/dev/log")),
        ("syslog:logs:601", SyslogPlace(Transport.TCP, "logs", 601)),
        ("syslog:tcp://logs", SyslogPlace(Transport.TCP, "logs", 601)),
        ("syslog:udp://logs", SyslogPlace(Transport.UDP, "logs", 514)),
        ("syslog:udp://[::1]:1514", SyslogPlace(Transport.UDP, "::1", 1514)),
        ("syslog:tls://logs?ca=/etc/ca.pem", SyslogPlace(Transport.TLS, "logs", 6514, Path("/etc/ca.pem"))),
    ],
)
def test_place_is_read_as_an_operator_writes_it(text: str, place: object) -> None:
    assert parse_copy(text) == place


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (f"https://w.example/#{KEY}", "https://w.example"),
        (f"https://w.example:8600/a/b/#{KEY}", "https://w.example:8600/a/b"),
        (f"https://w.example?ca=/etc/ca.pem#{KEY}", "https://w.example"),
        (f"http://127.0.0.1:8600/#{KEY}", "http://127.0.0.1:8600"),
        (f"http://localhost:8600#{KEY}", "http://localhost:8600"),
    ],
)
def test_witness_is_read_with_its_key(text: str, url: str) -> None:
    place = parse_copy(text)
    assert isinstance(place, WitnessPlace)
    assert (place.url, place.key.text) == (url, KEY)
    assert place.ca == (Path("/etc/ca.pem") if "ca=" in text else None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/var/log/x",
        "file:",
        "syslog:",
        "syslog:logs",
        "syslog:logs:many",
        "syslog:logs:70000",
        "syslog:ftp://logs",
        "syslog:tcp://logs/path",
        "syslog:tcp://logs?ca=x",
        "syslog:udp://",
        "https://w.example/",
        f"http://w.example/#{KEY}",
        f"https://user:password@w.example/#{KEY}",
        f"https://w.example/?x=1#{KEY}",
        f"https://w.example/?ca=a&ca=b#{KEY}",
        f"https://#{KEY}",
        "https://w.example/#PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "https://w.example/#nonsense",
        "ftp://w.example",
    ],
)
def test_place_that_is_none_is_refused_at_start(text: str) -> None:
    with pytest.raises(UsageError, match="--audit-copy"):
        parse_copy(text)
