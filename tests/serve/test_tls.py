# SPDX-License-Identifier: Apache-2.0
"""TLS and client certificates: what is spoken, who is refused, and files that change while the server runs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.serve.certificates import (
    DAY,
    Pair,
    make_authority,
    make_certificate,
    make_client,
    make_revocation_list,
    make_server,
    put,
)
from tests.serve.conftest import Served, read_events

pytestmark = pytest.mark.slow  # servers that start, die and wait

GET_ME = b"GET /v1/me HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Files:
    """A server's files and an authority that signed them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = make_authority("servers")
        self.clients = make_authority("clients")
        self.certificate, self.key = make_server(self.authority).write(folder)
        self.authority_path = folder / "authority.pem"
        put(self.authority_path, self.authority.pem)
        self.clients_path = folder / "clients.pem"
        put(self.clients_path, self.clients.pem)

    def options(self, *more: object) -> list[object]:
        return ["--tls-cert", self.certificate, "--tls-key", self.key, "--streams", "1", *more]

    def context(self, client: Pair | None = None) -> ssl.SSLContext:
        """Of a client that trusts this authority's servers."""
        context = ssl.create_default_context(cafile=str(self.authority_path))
        if client is not None:
            context.load_cert_chain(*client.write(self.folder / "client", client.certificate.subject.rfc4514_string()))
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture(scope="module")
def shared_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def mutual(start: Callable[..., Served], digits_bundle: Path, shared_files: Files) -> Served:
    """A server that wants certificates of its clients, for tests that leave it as it was."""
    with (shared_files.folder / "stderr").open("w") as stderr:
        return start(digits_bundle, *shared_files.options("--tls-client-ca", shared_files.clients_path), stderr=stderr)


def address(server: Served) -> tuple[str, int]:
    parts = urlsplit(server.url)
    return str(parts.hostname), int(parts.port or 0)


def connect(server: Served, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection(address(server), timeout=30), server_hostname="localhost")


def ask(server: Served, context: ssl.SSLContext, **headers: str) -> httpx.Response:
    with httpx.Client(base_url=server.url, verify=context, timeout=30) as client:
        return client.get("/v1/me", headers=headers)


def is_refused(server: Served, context: ssl.SSLContext) -> bool:
    """In TLS 1.3 a client learns that it is refused when it reads."""
    try:
        with connect(server, context) as connection:
            connection.sendall(GET_ME)
            return not connection.recv(100)
    except (ssl.SSLError, ConnectionError):
        return True


def serial_shown(server: Served, context: ssl.SSLContext) -> str:
    with connect(server, context) as connection:
        der = connection.getpeercert(binary_form=True)
    assert der is not None
    return f"{x509.load_der_x509_certificate(der).serial_number:x}"


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_both_versions_are_spoken_with_forward_secrecy_and_without_tickets(
    mutual: Served, shared_files: Files, version: str
) -> None:
    context = shared_files.context(make_client(shared_files.clients))
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with connect(mutual, context) as connection:
        connection.sendall(GET_ME)
        assert connection.recv(12) == b"HTTP/1.1 200"
        cipher = connection.cipher()
        assert cipher is not None
        assert version == "TLSv1_3" or cipher[0].startswith("ECDHE-")
        assert connection.compression() is None
        assert connection.session is None or not connection.session.has_ticket


def test_tls_1_1_is_refused(mutual: Served, shared_files: Files) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(mutual, context)
    until(lambda: "UNSUPPORTED_PROTOCOL" in (shared_files.folder / "stderr").read_text())


def test_a_client_cannot_renegotiate(mutual: Served, shared_files: Files) -> None:
    certificate, key = make_client(shared_files.clients).write(shared_files.folder / "openssl", "client")
    host, port = address(mutual)
    command = [
        "openssl",
        "s_client",
        "-connect",
        f"{host}:{port}",
        "-tls1_2",
        "-cert",
        str(certificate),
        "-key",
        str(key),
    ]
    done = subprocess.run(command, input="R\n", capture_output=True, text=True, timeout=60, check=False)
    assert "RENEGOTIATING" in done.stdout + done.stderr
    assert "no renegotiation" in done.stdout + done.stderr


def test_plain_http_on_the_port_gets_no_answer_and_disturbs_nobody(mutual: Served, shared_files: Files) -> None:
    with socket.create_connection(address(mutual), timeout=30) as plain:
        plain.sendall(GET_ME)
        try:
            answer = plain.recv(100)
        except ConnectionResetError:
            answer = b""
    assert not answer.startswith(b"HTTP/")
    assert ask(mutual, shared_files.context(make_client(shared_files.clients))).status_code == 200


def test_a_client_is_who_its_certificate_says_whatever_its_headers_claim(mutual: Served, shared_files: Files) -> None:
    names = (x509.UniformResourceIdentifier("spiffe://plant/camera-7"), x509.DNSName("camera-7.plant"))
    client = make_certificate(
        "camera-7", issuer=shared_files.clients, usage=ExtendedKeyUsageOID.CLIENT_AUTH, names=names
    )
    context = shared_files.context(client)
    plain = ask(mutual, context).json()
    claims = {"x-client-cert": "CN=admin", "x-ssl-client-s-dn": "CN=admin"}
    assert ask(mutual, context, **claims).json() == plain
    # What a proxy passes on, an open server does not answer.
    assert ask(mutual, context, **{"x-forwarded-client-cert": "Subject=admin"}).status_code == 403
    assert plain["kind"] == "certificate"
    assert plain["name"] == "CN=camera-7"
    shown = plain["certificate"]
    assert shown["alternative_names"] == ["URI:spiffe://plant/camera-7", "DNS:camera-7.plant"]
    assert shown["issuer"] == "CN=clients"
    assert shown["serial"] == f"{client.certificate.serial_number:x}"


BAD_CLIENTS: dict[str, Callable[[Files], Pair | None]] = {
    "none": lambda files: None,
    "self-signed": lambda files: make_client(None),
    "expired": lambda files: make_client(files.clients, begin=-9 * DAY, end=-DAY),
    "not yet valid": lambda files: make_client(files.clients, begin=DAY),
    "other authority of the same name": lambda files: make_client(make_authority("clients")),
    "the servers' authority": lambda files: make_client(files.authority),
    "for servers": lambda files: make_certificate(
        "camera-7", issuer=files.clients, usage=ExtendedKeyUsageOID.SERVER_AUTH
    ),
}


@pytest.mark.parametrize("kind", BAD_CLIENTS)
def test_a_client_without_a_good_certificate_is_refused(mutual: Served, shared_files: Files, kind: str) -> None:
    assert is_refused(mutual, shared_files.context(BAD_CLIENTS[kind](shared_files)))
    assert not is_refused(mutual, shared_files.context(make_client(shared_files.clients)))


def test_where_certificates_are_optional_a_bad_one_is_still_refused(
    start: Callable[..., Served], digits_bundle: Path, files: Files
) -> None:
    server = start(digits_bundle, *files.options("--tls-client-ca", files.clients_path, "--tls-client", "optional"))
    assert ask(server, files.context()).json() == {"kind": "loopback", "name": "this machine", "certificate": None}
    assert ask(server, files.context(make_client(files.clients))).json()["name"] == "CN=camera-7"
    assert is_refused(server, files.context(make_client(None)))
    assert server.stop() == 0


def test_revoked_clients_are_refused_and_a_stale_list_refuses_all(
    start: Callable[..., Served], digits_bundle: Path, files: Files
) -> None:
    good, revoked = make_client(files.clients, "good"), make_client(files.clients, "revoked")
    put(files.clients_path, files.clients.pem + make_revocation_list(files.clients, [revoked]))
    server = start(digits_bundle, *files.options("--tls-client-ca", files.clients_path))
    assert not is_refused(server, files.context(good))
    assert is_refused(server, files.context(revoked))
    put(files.clients_path, files.clients.pem + make_revocation_list(files.clients, [], end=-DAY))
    until(lambda: is_refused(server, files.context(good)))
    assert server.stop() == 0


def test_new_certificates_are_taken_while_connections_go_on(
    start: Callable[..., Served], digits_bundle: Path, files: Files, jpeg: bytes
) -> None:
    told = files.folder / "stderr"
    with told.open("w") as stderr:
        server = start(digits_bundle, *files.options(), stderr=stderr)
    first = serial_shown(server, files.context())
    with httpx.Client(base_url=server.url, verify=files.context(), timeout=30) as client:

        def predicts() -> bool:
            return client.post("/v1/models/digits/predict", content=jpeg).status_code == 200

        assert predicts()
        second = make_server(files.authority)
        second.write(files.folder)
        until(lambda: serial_shown(server, files.context()) == f"{second.certificate.serial_number:x}")
        assert predicts(), "a connection made before goes on"
        put(files.key, make_server(files.authority).key_pem)
        until(lambda: "does not match the certificate" in told.read_text())
        assert serial_shown(server, files.context()) == f"{second.certificate.serial_number:x}", "the old pair goes on"
        put(files.certificate, b"rubbish")
        until(lambda: "not a certificate" in told.read_text())
        files.certificate.unlink()
        until(lambda: "No such file" in told.read_text())
        assert serial_shown(server, files.context()) == f"{second.certificate.serial_number:x}"
        third = make_server(files.authority)
        third.write(files.folder)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: serial_shown(server, files.context()) == f"{third.certificate.serial_number:x}")
        assert predicts()
    assert first != f"{third.certificate.serial_number:x}"
    assert "PRIVATE" not in told.read_text()
    assert server.stop() == 0


def test_authorities_are_rotated_with_an_overlap(
    start: Callable[..., Served], digits_bundle: Path, files: Files
) -> None:
    server = start(digits_bundle, *files.options("--tls-client-ca", files.clients_path))
    after = make_authority("clients of next year")
    old, new = files.context(make_client(files.clients, "old")), files.context(make_client(after, "new"))
    assert not is_refused(server, old)
    assert is_refused(server, new)
    old.maximum_version = ssl.TLSVersion.TLSv1_2  # whose sessions a server remembers
    with connect(server, old) as kept:
        session = kept.session
        put(files.clients_path, files.clients.pem + after.pem)
        until(lambda: not is_refused(server, new))
        assert not is_refused(server, old), "both are trusted for a while"
        put(files.clients_path, after.pem)
        until(lambda: is_refused(server, old))
        assert not is_refused(server, new)
        with (
            socket.create_connection(address(server), timeout=30) as raw,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            old.wrap_socket(raw, server_hostname="localhost", session=session)
        kept.sendall(GET_ME)
        assert kept.recv(12) == b"HTTP/1.1 200", "a connection made before goes on"
    assert server.stop() == 0


@pytest.fixture
def hanging() -> Iterator[list[socket.socket]]:
    """Sockets that are closed at the end."""
    opened: list[socket.socket] = []
    yield opened
    for one in opened:
        one.close()


def client_hello() -> bytes:
    context = ssl.create_default_context()
    outgoing = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def test_half_handshakes_by_the_hundred_hold_up_nobody_and_end(
    start: Callable[..., Served], digits_bundle: Path, files: Files, hanging: list[socket.socket]
) -> None:
    server = start(digits_bundle, *files.options("--head-seconds", "8"))
    hello = client_hello()
    for number in range(600):
        hanging.append(socket.create_connection(address(server), timeout=30))
        hanging[-1].sendall((b"", hello[:40], hello)[number % 3])
    begin = time.monotonic()
    assert ask(server, files.context()).status_code == 200
    assert time.monotonic() - begin < 8, "no handshake had timed out yet"

    def is_ended(one: socket.socket) -> bool:
        one.settimeout(30)
        try:
            while one.recv(65536):
                continue
        except ConnectionError:
            pass
        return True

    assert all(map(is_ended, hanging))
    assert ask(server, files.context()).status_code == 200
    assert server.stop() == 0


def test_a_connection_that_is_idle_after_its_handshake_is_ended(
    start: Callable[..., Served], digits_bundle: Path, files: Files
) -> None:
    server = start(digits_bundle, *files.options("--head-seconds", "1"))
    with connect(server, files.context()) as connection:
        begin = time.monotonic()
        assert connection.recv(1) == b""
        assert 0.5 < time.monotonic() - begin < 20
    assert server.stop() == 0


def test_sigterm_does_not_wait_for_half_handshakes(
    start: Callable[..., Served], digits_bundle: Path, files: Files, hanging: list[socket.socket]
) -> None:
    server = start(digits_bundle, *files.options("--head-seconds", "60", "--drain", "60"))
    for _ in range(20):
        hanging.append(socket.create_connection(address(server), timeout=30))
    assert ask(server, files.context()).status_code == 200
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < 30


def test_the_line_that_is_printed_works_when_pasted(digits_bundle: Path, files: Files, jpeg: bytes) -> None:
    (files.folder / "photo.jpg").write_bytes(jpeg)
    make_client(files.clients).write(files.folder, "client")
    command = [sys.executable, "-m", "shipsight", "serve", str(digits_bundle), "--port", "0"]
    command += map(str, files.options("--tls-client-ca", files.clients_path))
    environment = {**os.environ, "XDG_CACHE_HOME": str(files.folder / "cache")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        line = next(one for one in server.stdout if "try it" in one)
        curl = shlex.split(line.replace("try it", ""))
        assert curl[:2] == ["curl", "--cacert"]
        done = subprocess.run([*curl, "-sS"], cwd=files.folder, capture_output=True, text=True, timeout=60, check=False)
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    assert done.returncode == 0, done.stderr
    assert '"model":"digits"' in done.stdout


def encrypted(pair: Pair) -> bytes:
    return pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


WRONG: dict[str, tuple[Callable[[Files], list[object]], str]] = {
    "no certificate file": (lambda files: files.certificate.unlink() or files.options(), "No such file"),
    "a folder": (lambda files: ["--tls-cert", files.folder, "--tls-key", files.key], "Is a directory"),
    "no certificate": (lambda files: put(files.certificate, b"rubbish") or files.options(), "not a certificate"),
    "no key file": (lambda files: files.key.unlink() or files.options(), "No such file"),
    "no key": (lambda files: put(files.key, files.certificate.read_bytes()) or files.options(), "not a private key"),
    "another's key": (lambda files: put(files.key, make_server().key_pem) or files.options(), "does not match"),
    "encrypted key": (lambda files: put(files.key, encrypted(make_server())) or files.options(), "key is encrypted"),
    "for clients": (
        lambda files: make_client(files.authority).write(files.folder) and files.options(),
        "not for servers",
    ),
    "no authority": (lambda files: files.options("--tls-client-ca", files.key), "--tls-client-ca"),
    "key alone": (lambda files: ["--tls-key", files.key], "needs --tls-cert"),
    "certificate alone": (lambda files: ["--tls-cert", files.certificate], "needs --tls-key"),
    "authority alone": (lambda files: ["--tls-client-ca", files.clients_path], "needs --tls-cert"),
    "demand alone": (lambda files: files.options("--tls-client", "required"), "needs --tls-client-ca"),
    "unknown demand": (
        lambda files: files.options("--tls-client-ca", files.clients_path, "--tls-client", "maybe"),
        "no such demand",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_files_that_cannot_be_used_are_named_before_anything_starts(
    digits_bundle: Path, files: Files, kind: str
) -> None:
    make, told = WRONG[kind]
    command = [sys.executable, "-m", "shipsight", "serve", str(digits_bundle), "--port", "0", *map(str, make(files))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_doubtful_is_warned_of(start: Callable[..., Served], digits_bundle: Path, files: Files) -> None:
    pair = make_certificate(
        "old", issuer=files.authority, begin=-9 * DAY, end=-DAY, names=[x509.DNSName("far.example")]
    )
    pair.write(files.folder)
    files.key.chmod(0o604)
    told = files.folder / "stderr"
    with told.open("w") as stderr:
        server = start(digits_bundle, *files.options(), stderr=stderr)
    assert server.url.startswith("https://127.0.0.1:")
    assert server.stop() == 0
    for code in ("tls-key-open", "tls-expired", "tls-name"):
        assert code in told.read_text()


def test_a_serving_process_that_finds_broken_files_says_so(
    start: Callable[..., Served], digits_bundle: Path, files: Files
) -> None:
    server = start(digits_bundle, *files.options())
    put(files.certificate, b"rubbish")
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text(encoding="ascii")
    os.kill(int(children.split()[0]), signal.SIGKILL)
    assert server.process.stdout is not None
    events = list(read_events(server.process.stdout))
    assert events[-1]["error"]["code"] == "certificate"
    assert server.process.wait(60) == 2


def test_grpc_takes_no_certificate_that_has_ended_since_the_client_connected(
    start: Callable[..., Served], digits_bundle: Path, files: Files
) -> None:
    server = start(digits_bundle, *files.options("--tls-client-ca", files.clients_path, "--grpc-port", "0"))
    client = make_client(files.clients, end=timedelta(seconds=15))
    credentials = grpc.ssl_channel_credentials(files.authority.pem, client.key_pem, client.pem)
    with grpc.secure_channel(server.grpc, credentials, (("grpc.ssl_target_name_override", "localhost"),)) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=10).status == 1
        time.sleep(16)
        with pytest.raises(grpc.RpcError) as told:
            health.Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert told.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert server.stop() == 0


def test_grpc_speaks_tls_with_the_same_files_and_knows_who_asks(
    start: Callable[..., Served], digits_bundle: Path, files: Files
) -> None:
    log = files.folder / "grpc.log"
    with log.open("w") as stderr:
        mutual = files.options("--tls-client-ca", files.clients_path, "--grpc-port", "0", "--log-format", "json")
        server = start(digits_bundle, *mutual, stderr=stderr)
    client = make_client(files.clients)

    def check(credentials: grpc.ChannelCredentials | None) -> int:
        channel = (
            grpc.insecure_channel(server.grpc)
            if credentials is None
            else grpc.secure_channel(server.grpc, credentials, (("grpc.ssl_target_name_override", "localhost"),))
        )
        with channel:
            request = health_pb2.HealthCheckRequest()
            return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=30).status)

    known = grpc.ssl_channel_credentials(files.authority.pem, client.key_pem, client.pem)
    assert check(known) == health_pb2.HealthCheckResponse.SERVING
    stranger = make_client(make_authority("clients"))
    for refused in (
        None,
        grpc.ssl_channel_credentials(files.authority.pem),
        grpc.ssl_channel_credentials(files.authority.pem, stranger.key_pem, stranger.pem),
    ):
        with pytest.raises(grpc.RpcError) as told:
            check(refused)
        assert told.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert server.stop() == 0
    asked = [json.loads(line) for line in log.read_text().splitlines() if "Health/Check" in line]
    assert [one["principal"] for one in asked] == [f"certificate:{client.certificate.subject.rfc4514_string()}"]
