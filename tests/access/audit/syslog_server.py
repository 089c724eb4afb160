# SPDX-License-Identifier: Apache-2.0
"""rsyslog, a real one, that listens in every way and writes what it hears to a file."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.serve.certificates import make_authority, make_server

_CONFIGURATION = """
module(load="imuxsock" SysSock.Use="off")
module(load="imudp")
module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")
module(load="imptcp")
global(workDirectory="{folder}" maxMessageSize="64k" defaultNetstreamDriver="gtls"
       defaultNetstreamDriverCAFile="{folder}/ca.pem" defaultNetstreamDriverCertFile="{folder}/server.pem"
       defaultNetstreamDriverKeyFile="{folder}/server-key.pem")
input(type="imuxsock" socket="{folder}/log")
input(type="imudp" address="127.0.0.1" port="{udp}")
input(type="imptcp" address="127.0.0.1" port="{tcp}")
input(type="imtcp" address="127.0.0.1" port="{tls}")
*.* action(type="omfile" file="{folder}/heard" template="RSYSLOG_FileFormat" flushOnTXEnd="on")
"""


@dataclass
class SyslogServer:
    """Where it listens; `restart` ends it and begins anew."""

    folder: Path
    udp: int
    tcp: int
    tls: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def heard(self) -> Path:
        return self.folder / "heard"

    def place(self, transport: str) -> str:
        return {
            "unix": f"syslog:{self.folder}/log",
            "udp": f"syslog:udp://127.0.0.1:{self.udp}",
            "tcp": f"syslog:127.0.0.1:{self.tcp}",
            "tls": f"syslog:tls://localhost:{self.tls}?ca={self.folder}/ca.pem",
        }[transport]

    def wait_for(self, text: str, *, count: int = 1, timeout_s: float = 20) -> None:
        until_s = time.monotonic() + timeout_s
        while not self.heard.exists() or self.heard.read_text().count(text) < count:
            assert time.monotonic() < until_s, f"{text} was not heard"
            time.sleep(0.05)

    def start(self) -> None:
        # Found also where the path of a user who is not root has no sbin.
        program = shutil.which("rsyslogd", path="/usr/sbin:/sbin:/usr/bin:/bin")
        assert program is not None
        command = [program, "-n", "-f", str(self.folder / "conf"), "-i", str(self.folder / "pid")]
        with (self.folder / "errors").open("ab") as errors:
            self.process = subprocess.Popen(command, stdout=errors, stderr=errors)
        until_s = time.monotonic() + 20
        while not self._listens():
            assert self.process.poll() is None, (self.folder / "errors").read_text()
            assert time.monotonic() < until_s, (self.folder / "errors").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def _listens(self) -> bool:
        for port in (self.tcp, self.tls):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                return False
        return (self.folder / "log").exists()


def has_syslog_server() -> bool:
    return shutil.which("rsyslogd", path="/usr/sbin:/sbin:/usr/bin:/bin") is not None


@contextmanager
def syslog_server(folder: Path) -> Iterator[SyslogServer]:
    """Runs one, with a certificate for `localhost`."""
    authority = make_authority()
    (folder / "ca.pem").write_bytes(authority.pem)
    make_server(authority).write(folder)
    server = SyslogServer(folder, _port(socket.SOCK_DGRAM), _port(), _port())
    (folder / "conf").write_text(_CONFIGURATION.format(folder=folder, udp=server.udp, tcp=server.tcp, tls=server.tls))
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
