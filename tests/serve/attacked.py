# SPDX-License-Identifier: Apache-2.0
"""A real server under attack: raw sockets to it, and what must hold after each attack.

The letters in the names of the tests (H1 to H12) are the cases of the project's list of attacks on HTTP and images.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from tests.serve.conftest import Served

PREDICT = "/v1/models/digits/predict"
INFER = "/v2/models/digits/infer"
CONNECTIONS = 96
HEAD_S, BODY_S = 2, 3
BODY_BYTES = 8 * 2**20
OPTIONS = (
    *("--variant", "all", "--streams", "2", "--body-mb", "8", "--max-images", "3", "--max-pixels", "20000000"),
    *("--head-seconds", HEAD_S, "--body-seconds", BODY_S, "--max-connections", CONNECTIONS),
)
LEAKS = re.compile(
    r"Traceback|site-packages|\.py\b|/tmp/|/home/|/usr/|/dev/shm|/proc/|/var/|0x7f[0-9a-f]{6}|shipsight[-_]shm"
)
MOST_GROWTH_MB = 200.0


@dataclass(frozen=True)
class Reply:
    """One answer as it stood on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The error's code, in the native form or in the Open Inference Protocol's."""
        told = json.loads(self.body)
        return str(told["error"]["code"] if isinstance(told["error"], dict) else told["code"])


def replies(raw: bytes) -> list[Reply]:
    """Takes a connection's bytes apart; fails where they are not whole answers."""
    found = []
    while raw:
        head, end, raw = raw.partition(b"\r\n\r\n")
        assert end, raw
        first, *lines = head.decode("latin-1").split("\r\n")
        assert first.startswith("HTTP/1.1 "), first
        status = int(first.split()[1])
        if status == 100:
            continue
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", 0))
        assert len(raw) >= size
        found.append(Reply(status, headers, raw[:size]))
        raw = raw[size:]
    return found


@dataclass
class Attacked:
    """A server, and what it was like before."""

    served: Served
    log: Path
    jpeg: bytes
    pid: int = 0
    expected: Any = None
    memory_mb: float = 0.0
    descriptors: int = 0
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.address = (urlsplit(self.served.url).hostname, urlsplit(self.served.url).port)
        self.pid = self.serving_process()
        with self.served.client as client:
            for _ in range(20):
                self.expected = client.post(PREDICT, content=self.jpeg, params={"conf": 0.01}).json()["images"]
        self.memory_mb = self.resident_mb()
        self.descriptors = self.open_descriptors()

    def serving_process(self) -> int:
        process = self.served.process.pid
        return int(Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()[0])

    def resident_mb(self) -> float:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGESIZE") / 1e6

    def open_descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def connect(self, *, receive_bytes: int | None = None) -> socket.socket:
        made = socket.socket()
        if receive_bytes is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        made.settimeout(60)
        made.connect(self.address)
        return made

    def send(self, sent: bytes) -> list[Reply]:
        """Sends bytes as they are; returns all whole answers, until the server closed or has nothing more to say."""
        raw, is_answered = b"", False
        with self.connect() as client:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(sent)
            while True:
                try:
                    chunk = client.recv(65536)
                except TimeoutError:
                    assert is_answered, "the server says nothing"
                    client.shutdown(socket.SHUT_WR)
                    client.settimeout(60)
                    continue
                except ConnectionResetError:
                    break
                if not chunk:
                    break
                raw += chunk
                if not is_answered:
                    is_answered = True
                    client.settimeout(0.3)
        found = replies(raw)
        self.note(found)
        return found

    def ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        """Sends what a client can send."""
        with self.served.client as client:
            answer = client.request(method, path, **given)
        self.note([Reply(answer.status_code, dict(answer.headers), answer.content)])
        return answer

    def note(self, found: Iterable[Reply]) -> None:
        self.refused += [one.body.decode("utf-8", "replace") for one in found if one.status >= 400]
        for one in found:
            assert one.status < 500 or (one.status in (503, 504) and "retry-after" in one.headers), one

    def check(self) -> None:
        """The same process answers the same, has not grown, holds nothing open, and has told nothing of this machine."""
        assert self.serving_process() == self.pid, "the serving process died"
        with self.served.client as client:
            answer = client.post(PREDICT, content=self.jpeg, params={"conf": 0.01})
        assert answer.status_code == 200, answer.text
        assert answer.json()["images"] == self.expected
        told = [text for text in self.refused if LEAKS.search(text)]
        self.refused.clear()
        assert told == []
        wait_until(lambda: self.open_descriptors() <= self.descriptors + 4, "descriptors are left open")
        wait_until(lambda: self.resident_mb() < self.memory_mb + MOST_GROWTH_MB, "memory has grown")


def wait_until(holds: Any, told: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, told
        time.sleep(0.05)


def request(
    method: str = "POST", path: str = PREDICT, *headers: str, body: bytes = b"", host: str | None = "localhost"
) -> bytes:
    """Puts a request together without minding what is right."""
    lines = [f"{method} {path} HTTP/1.1", *([] if host is None else [f"host: {host}"]), *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks) + b"0\r\n\r\n"


@contextlib.contextmanager
def many_descriptors(count: int) -> Iterator[None]:
    """Lets this process open as many files."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = before[1] if before[1] != resource.RLIM_INFINITY else count
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(min(count, most), before[0]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
