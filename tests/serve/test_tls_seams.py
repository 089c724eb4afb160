# SPDX-License-Identifier: Apache-2.0
"""TLS where no whole server is needed: what apps see of a connection, gRPC's credentials, who a certificate names."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from tests.serve.certificates import (
    Pair,
    make_authority,
    make_certificate,
    make_client,
    make_revocation_list,
    make_server,
    put,
)

from shipsight.access import Certificate, PrincipalKind, certificate_principal
from shipsight.errors import CertificateError
from shipsight.serve.gate import Gate
from shipsight.serve.http import HttpServer
from shipsight.serve.http.principals import read_shown
from shipsight.serve.http.tls import TlsAcceptor
from shipsight.serve.tls import TlsSettings, grpc_credentials, make_context, read_certificate

pytestmark = pytest.mark.slow  # servers that start, die and wait


class Seen:
    """An app that remembers its scopes."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})
        else:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def authority() -> Pair:
    return make_authority()


@pytest.fixture
def settings(tmp_path: Path, authority: Pair) -> TlsSettings:
    put(tmp_path / "authority.pem", authority.pem)
    return TlsSettings(*make_server(authority).write(tmp_path), tmp_path / "authority.pem")


@contextlib.contextmanager
def running(app: Seen, settings: TlsSettings) -> Iterator[int]:
    context = make_context(settings)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_config=None, lifespan="off", loop="uvloop", timeout_keep_alive=60)
        acceptor = TlsAcceptor(lambda: context, handshake_s=10, handshakes=10)
        server = HttpServer(config, drain_s=1, acceptor=acceptor)
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]

        def run() -> None:
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                runner.run(server.serve(sockets=[listener]))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)


def test_requests_and_websockets_see_who_is_connected(tmp_path: Path, authority: Pair, settings: TlsSettings) -> None:
    from websockets.sync.client import connect

    app = Seen()
    client = make_client(authority)
    context = ssl.create_default_context(cafile=str(settings.client_ca))
    context.load_cert_chain(*client.write(tmp_path, "client"))
    with running(app, settings) as port:
        assert httpx.get(f"https://localhost:{port}/", verify=context).status_code == 204
        with connect(f"wss://localhost:{port}/", ssl=context), contextlib.suppress(Exception):
            pass
    assert [scope["type"] for scope in app.scopes] == ["http", "websocket"]
    for scope in app.scopes:
        tls = scope["extensions"]["tls"]
        assert tls["client_cert_chain"] == [client.pem.decode()]
        assert tls["client_cert_name"] == "CN=camera-7"
        assert tls["tls_version"] == 0x0304
        assert scope["scheme"] in ("https", "wss")
        caller = asyncio.run(Gate().identify(read_shown(scope, Gate())))
        assert caller.principal.kind is PrincipalKind.CERTIFICATE
        assert caller.principal.name == "CN=camera-7"


def test_a_certificate_that_ends_while_its_connection_lives_is_of_no_more_use(
    tmp_path: Path, authority: Pair, settings: TlsSettings
) -> None:
    app = Seen()
    client = make_client(authority, end=timedelta(seconds=15))
    context = ssl.create_default_context(cafile=str(settings.client_ca))
    context.load_cert_chain(*client.write(tmp_path, "client"))
    with (
        running(app, settings) as port,
        httpx.Client(
            base_url=f"https://localhost:{port}", verify=context, limits=httpx.Limits(keepalive_expiry=60)
        ) as asking,
    ):
        assert asking.get("/").status_code == 204
        left = client.certificate.not_valid_after_utc - datetime.now(UTC)
        time.sleep(max(left.total_seconds(), 0) + 1)
        assert asking.get("/").status_code == 403
    assert len(app.scopes) == 1


@pytest.mark.parametrize("settings_of_client", ["subject", "alternative name", "neither"])
def test_a_principal_is_named_by_what_its_certificate_has(settings_of_client: str) -> None:
    subject, names, expected = {
        "subject": ("CN=a", ("DNS:b",), "CN=a"),
        "alternative name": ("", ("URI:spiffe://b", "DNS:c"), "URI:spiffe://b"),
        "neither": ("", (), "sha256:00"),
    }[settings_of_client]
    certificate = Certificate(subject, names, "CN=ca", "1", "00", datetime.now(UTC))
    assert certificate_principal(certificate).name == expected


def test_a_certificate_reads_the_same_from_pem_and_der() -> None:
    pair = make_certificate("camera-7", names=[x509.DNSName("a"), x509.RFC822Name("b@c.example")])
    read = read_certificate(pair.pem)
    assert read == read_certificate(pair.certificate.public_bytes(Encoding.DER))
    assert read.alternative_names == ("DNS:a", "email:b@c.example")


@given(st.binary(max_size=200))
def test_what_is_no_certificate_is_refused_with_a_name(data: bytes) -> None:
    for encoded in (data, b"-----BEGIN CERTIFICATE-----\n" + data):
        with pytest.raises(CertificateError):
            read_certificate(encoded)


def test_grpc_shows_the_same_client_and_follows_the_files(
    tmp_path: Path, authority: Pair, settings: TlsSettings
) -> None:
    grpc = pytest.importorskip("grpc")
    from concurrent.futures import ThreadPoolExecutor

    seen: list[Certificate] = []

    class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            def answer(request: bytes, context: Any) -> bytes:
                seen.append(read_certificate(context.auth_context()["x509_pem_cert"][0]))
                return request

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Echo()])
    port = server.add_secure_port("localhost:0", grpc_credentials(settings, poll_s=0.1))
    server.start()
    client = make_client(authority)

    def ask(trusted: bytes, shown: Pair | None) -> bytes:
        pair = (None, None) if shown is None else (shown.key_pem, shown.pem)
        credentials = grpc.ssl_channel_credentials(trusted, *pair)
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            call = channel.unary_unary("/echo/Echo")
            return bytes(call(b"hello", timeout=20))

    try:
        assert ask(authority.pem, client) == b"hello"
        assert seen[-1] == read_certificate(client.pem)
        for bad in (None, make_client(None)):
            with pytest.raises(grpc.RpcError):
                ask(authority.pem, bad)
        other = make_authority("next")
        make_server(other).write(tmp_path)
        put(tmp_path / "authority.pem", other.pem)
        end = time.monotonic() + 30
        while True:
            try:
                assert ask(other.pem, make_client(other, "after")) == b"hello"
                break
            except grpc.RpcError:
                assert time.monotonic() < end
        assert seen[-1].subject == "CN=after"
        with pytest.raises(grpc.RpcError):
            ask(other.pem, client)
    finally:
        server.stop(None).wait(10)


def test_grpc_refuses_a_revocation_list_rather_than_passing_over_it(
    tmp_path: Path, authority: Pair, settings: TlsSettings
) -> None:
    pytest.importorskip("grpc")
    put(tmp_path / "authority.pem", authority.pem + make_revocation_list(authority, []))
    with pytest.raises(CertificateError, match="revocation"):
        grpc_credentials(settings)


def test_a_key_that_cannot_be_read_is_named(settings: TlsSettings) -> None:
    # What even the superuser, who reads all files, cannot read.
    settings.key.unlink()
    settings.key.mkdir()
    with pytest.raises(CertificateError, match="Is a directory"):
        make_context(settings)
