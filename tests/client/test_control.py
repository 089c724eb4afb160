# SPDX-License-Identifier: Apache-2.0
"""Asking a server from Python: addresses, certificates, answers that are none."""

from __future__ import annotations

import http.server
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shipsight.client import ServerControl
from shipsight.errors import NotFoundError, ServiceError, UsageError


@contextmanager
def answering(status: int, body: bytes, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that says one thing."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            if status == 302:
                self.send_header("location", "/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
    assert len(asked) <= 1


@pytest.mark.parametrize(
    "url",
    ["", "here", "127.0.0.1:8000", "ftp://here", "http://", "http://here/path", "http://here?x", "http://me@here",
     "http://here:port", "http://[::1"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="not a server"):
        ServerControl(url)


def test_a_server_that_does_not_answer_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ServiceError, match=f"http://127.0.0.1:{port}: the server does not answer"):
        ServerControl(f"http://127.0.0.1:{port}").report("digits")


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"[]"), (200, b"<html>"), (404, b"{}"), (302, b""), (500, b'{"error": "text"}'), (502, b"\xff")],
    ids=str,
)
def test_what_is_no_answer_of_ours_is_told_with_its_status(status: int, body: bytes) -> None:
    with answering(status, body) as url, pytest.raises(ServiceError, match=f"status {status}"):
        ServerControl(url).report("digits")


def test_an_error_that_the_server_names_is_raised_as_itself() -> None:
    body = b'{"error": {"code": "not-found", "what": "no such model", "where": "x", "expected": null, "got": null, "hint": null}}'
    with answering(404, body) as url, pytest.raises(NotFoundError, match="x: no such model"):
        ServerControl(url).report("x")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl is installed")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-out", str(cert), "-keyout", str(key)], check=True, capture_output=True, timeout=60)
    return cert, key


def test_a_server_is_trusted_by_the_certificates_named(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with answering(200, b'{"model": "digits"}', context) as url:
        with pytest.raises(ServiceError, match="CERTIFICATE_VERIFY_FAILED"):
            ServerControl(url).report("digits")
        assert ServerControl(url, ca=certificate[0]).report("digits") == {"model": "digits"}
    with pytest.raises(UsageError, match="no certificates"):
        ServerControl("https://127.0.0.1", ca=tmp_path / "gone.pem")
    with pytest.raises(UsageError, match="for https"):
        ServerControl("http://127.0.0.1", ca=certificate[0])


@pytest.mark.parametrize("url", ["http://vision.example:8000", "http://192.0.2.1", "http://localhost.evil.example"])
def test_a_key_is_never_sent_in_the_clear_to_another_machine(url: str) -> None:
    """ASVS 12.2.1."""
    with pytest.raises(UsageError, match="https alone"):
        ServerControl(url, key="ssk_0123456789abcdef_x")
    for fine in ("http://localhost:8000", "http://127.0.0.1", "http://[::1]:8000", "https://vision.example"):
        ServerControl(fine, key="ssk_0123456789abcdef_x")
