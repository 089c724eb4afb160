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
from shipsight.serve.revocation import Revocations
from shipsight.serve.tls import TlsSettings, grpc_credentials, make_context, read_certificate

pytestmark = pytest.mark.slow  # servers that start, die and wait


class Seen:
    """An app that remembers its scopes."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.refusals: list[tuple[CertificateError, str | None]] = []

    async def refused(self, error: CertificateError, address: str | None) -> None:
        self.refusals.append((error, address))

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
        acceptor = TlsAcceptor(lambda: context, handshake_s=10, handshakes=10, refused=app.refused)
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


def test_a7_handshake_without_a_good_certificate_is_told_of(
    tmp_path: Path, authority: Pair, settings: TlsSettings
) -> None:
    """ASVS 16.3.2."""
    app = Seen()
    with running(app, settings) as port:
        for shown in (make_client(make_authority(), "stranger"), None, make_client(authority)):
            context = ssl.create_default_context(cafile=str(settings.client_ca))
            if shown is not None:
                context.load_cert_chain(*shown.write(tmp_path, "client"))
            with contextlib.suppress(httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
                httpx.get(f"https://localhost:{port}/", verify=context)
        # What speaks no TLS at all shows no certificate, and is no event.
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain, contextlib.suppress(ConnectionError):
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            plain.recv(100)
        end = time.monotonic() + 10
        while len(app.refusals) < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
    assert len(app.scopes) == 1
    assert [address for _, address in app.refusals] == ["127.0.0.1"] * 2
    assert [error.got for error, _ in app.refusals] == [
        "unable to get local issuer certificate",
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
    ]


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
    ((told, address),) = app.refusals
    assert (told.where, address) == ("CN=camera-7", "127.0.0.1")


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


def refusal(revocations: Revocations, shown: Pair, *chain: Pair, at: datetime | None = None) -> str | None:
    """What a certificate is refused for, None where it passes."""
    try:
        revocations.check(shown.pem, [one.pem for one in chain], at or datetime.now(UTC))
    except CertificateError as error:
        return str(error)
    return None


def test_a7_revocation_lists_of_the_whole_chain_are_heeded_and_none_that_is_not_its_issuers(
    tmp_path: Path, authority: Pair, settings: TlsSettings
) -> None:
    """ASVS 12.1.4: what gRPC's handshakes pass over, by one way to a root and by none."""
    below = make_certificate("below", issuer=authority, is_authority=True)
    leaf, other, alone = make_client(below, "leaf"), make_client(below, "other"), make_client(authority, "alone")
    rogue = Pair(make_certificate("below", is_authority=True).certificate, below.key)

    def with_lists(*lists: bytes) -> Revocations:
        put(tmp_path / "authority.pem", authority.pem + b"".join(lists))
        return Revocations(settings, poll_s=60)

    def of(issuer: Pair, *revoked: Pair, end: timedelta = timedelta(days=1)) -> bytes:
        return make_revocation_list(issuer, revoked, end=end)

    assert refusal(with_lists(), leaf) is None
    clean = with_lists(of(authority), of(below))
    assert refusal(clean, leaf, below) is refusal(clean, alone) is None
    assert refusal(clean, leaf) is not None, "what is not sent along leads to no root"
    assert refusal(clean, leaf, other, alone) is not None, "what signs nobody leads to none"
    assert refusal(clean, leaf, below, at=datetime.now(UTC) + timedelta(days=2)) is not None, "lists end"
    assert refusal(clean, leaf, below, at=datetime.now(UTC) - timedelta(days=3)) is not None, "and begin"
    for lists, is_leaf_out, is_alone_out in (
        ((of(authority), of(below, leaf)), True, False),
        ((of(authority, below), of(below)), True, False),
        ((of(authority, alone), of(below)), False, True),
        ((of(authority), of(below, other)), False, False),
        ((of(authority), of(below, end=-timedelta(hours=1))), True, False),
        ((of(authority), of(rogue)), False, False),  # the same name and key
        ((of(authority), of(make_authority("below"))), True, False),
        ((of(below),), True, True),
        ((of(authority), of(below, leaf), of(below)), True, False),
    ):
        found = with_lists(*lists)
        assert (refusal(found, leaf, below) is not None) is is_leaf_out
        assert (refusal(found, leaf, below) is not None) is is_leaf_out, "and again, where it is remembered"
        assert (refusal(found, alone) is not None) is is_alone_out


def test_a7_file_of_authorities_with_half_a_list_is_not_taken(
    tmp_path: Path, authority: Pair, settings: TlsSettings
) -> None:
    whole = make_revocation_list(authority, [])
    for broken in (whole[:-40], whole.replace(b"-----END X509 CRL-----", b""), whole[:60] + b"AAAA" + whole[64:]):
        put(tmp_path / "authority.pem", authority.pem + broken)
        with pytest.raises(CertificateError):
            Revocations(settings)
    put(tmp_path / "authority.pem", authority.pem)
    revocations, client = Revocations(settings, poll_s=0.05), make_client(authority)
    assert refusal(revocations, client) is None
    put(tmp_path / "authority.pem", authority.pem + whole[:-40])
    end = time.monotonic() + 10
    while refusal(revocations, client) is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    put(tmp_path / "authority.pem", authority.pem + whole)
    while refusal(revocations, client) is not None:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_key_that_cannot_be_read_is_named(settings: TlsSettings) -> None:
    # What even the superuser, who reads all files, cannot read.
    settings.key.unlink()
    settings.key.mkdir()
    with pytest.raises(CertificateError, match="Is a directory"):
        make_context(settings)
