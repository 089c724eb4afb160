# SPDX-License-Identifier: Apache-2.0
"""Receivers of alerts as they are met: servers of HTTP and SMTP over TLS, that take, refuse, hang and cut."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult
from tests.serve.certificates import make_authority, make_server

KEY = base64.b64encode(bytes(range(32))).decode()
PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class Trust:
    """An authority, and a server's certificate by it."""

    ca: Path
    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.certificate, self.key)
        return made


def make_trust(folder: Path) -> Trust:
    authority = make_authority()
    ca, _ = authority.write(folder, "authority")
    certificate, key = make_server(authority).write(folder)
    return Trust(ca, certificate, key)


def secret(folder: Path, text: str, name: str = "secret") -> Path:
    path = folder / name
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return path


@dataclass
class Asked:
    """One request, as a receiver got it."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Hook:
    """A webhook.

    Attributes:
        url: of it.
        asked: what came, in order.
        answers: statuses of the next answers; 200 after them, None cuts the connection without one.
        location: that answers name.
        is_held: cleared, while answers are held back.
    """

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    answers: list[int | None] = field(default_factory=list)
    location: str | None = None
    is_let: threading.Event = field(default_factory=threading.Event)
    got: threading.Condition = field(default_factory=threading.Condition)

    def wait(self, count: int, timeout_s: float = 20.0) -> list[Asked]:
        with self.got:
            assert self.got.wait_for(lambda: len(self.asked) >= count, timeout_s), f"only {len(self.asked)} requests"
            return list(self.asked)

    @property
    def ids(self) -> list[str]:
        return [one.headers["webhook-id"] for one in self.asked]


@contextmanager
def webhook(trust: Trust | None) -> Iterator[Hook]:
    hook = Hook()
    hook.is_let.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with hook.got:
                told = {name.lower(): value for name, value in self.headers.items()}
                hook.asked.append(Asked(self.path, told, body))
                answer = hook.answers.pop(0) if hook.answers else 200
                hook.got.notify_all()
            hook.is_let.wait(30)
            if answer is None:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            with contextlib.suppress(OSError):  # who asked may have left
                self.send_response(answer)
                if hook.location is not None:
                    self.send_header("location", hook.location)
                self.send_header("content-length", "0")
                self.end_headers()

        def log_message(self, *told: Any) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *told: Any) -> None:
            """Those who leave in the middle are part of the tests."""

    server = Server(("0.0.0.0", 0), Handler)
    if trust is not None:
        server.socket = trust.context().wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    scheme = "http" if trust is None else "https"
    hook.url = f"{scheme}://localhost:{server.server_address[1]}/alerts?team=vision"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        hook.is_let.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@dataclass
class Post:
    """A mail server.

    Attributes:
        port: of it.
        letters: that it took, as they came.
        recipients: of each.
        logins: tried, with whether they came over TLS.
        refuses: an answer to every recipient instead of taking it.
    """

    port: int = 0
    letters: list[bytes] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    refuses: dict[str, str] = field(default_factory=dict)

    def letter(self, index: int = -1) -> EmailMessage:
        found = message_from_bytes(self.letters[index], policy=policy.SMTP)
        assert isinstance(found, EmailMessage)
        return found


@contextmanager
def mail_server(trust: Trust, *, tls: str = "starttls", needs_login: bool = True) -> Iterator[Post]:
    """Args:
    tls: `starttls`, `implicit` or `none`, which offers none.
    """
    post = Post()

    class Handler:
        async def handle_RCPT(  # noqa: N802 - aiosmtpd's names
            self, server: Any, session: Any, envelope: Any, address: str, options: Any
        ) -> str:
            if address in post.refuses:
                return post.refuses[address]
            envelope.rcpt_tos.append(address)
            return "250 OK"

        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - likewise
            post.letters.append(envelope.content)
            post.recipients.append(envelope.rcpt_tos)
            return "250 taken"

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        post.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=post.logins[-1] == ("ops", PASSWORD), handled=False)

    class Server(Controller):
        def factory(self) -> SMTP:
            with warnings.catch_warnings():
                # That a login is taken without STARTTLS is what some tests are about.
                warnings.simplefilter("ignore", UserWarning)
                return SMTP(
                    self.handler,
                    hostname="localhost",
                    tls_context=trust.context() if tls == "starttls" else None,
                    require_starttls=tls == "starttls",
                    authenticator=authenticate if needs_login else None,
                    auth_required=needs_login,
                    auth_require_tls=tls == "starttls",
                    loop=self.loop,
                )

    context = trust.context() if tls == "implicit" else None
    with socket.create_server(("127.0.0.1", 0)) as free:
        post.port = free.getsockname()[1]
    server = Server(Handler(), hostname="127.0.0.1", port=post.port, ssl_context=context)
    server.start()
    try:
        yield post
    finally:
        server.stop()
