# SPDX-License-Identifier: Apache-2.0
"""Asking a provider of OpenID Connect that answers as none should: what is fetched, from where, how much, how long."""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
import time
import warnings
from base64 import b64decode
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import pytest
from cryptography import x509
from tests.serve.certificates import DAY, LOCAL, make_certificate

from shipsight.access.fetching import Fetcher
from shipsight.access.provider import CodeRefusedError, Provider, check_issuer
from shipsight.access.settings import AccessSettings, OpenIdSettings
from shipsight.errors import EnvironmentLackError, MissingDependencyError, UsageError

DISCOVERY = "/.well-known/openid-configuration"
Answer = tuple[int, dict[str, str], bytes]


class HostileProvider:
    """A server that answers each path with what a test says, and counts."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: dict[str, Answer | Callable[[BaseHTTPRequestHandler], None]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *told: object) -> None:
                pass

            def do_GET(self) -> None:
                outer._answer(self)

            def do_POST(self) -> None:
                outer._answer(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.issuer = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_port}"

    def tell(self, **changed: Any) -> None:
        """Answers discovery with metadata; `...` leaves one out."""
        told = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/auth?tenant=a",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "id_token_signing_alg_values_supported": ["none", "HS256", "RS256", "ES256", "XYZ", 7],
            **changed,
        }
        self.say(DISCOVERY, {name: value for name, value in told.items() if value is not ...})

    def say(self, path: str, told: object, *, status: int = 200, **headers: str) -> None:
        body = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.answers[path] = (status, headers, body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.asked.append((handler.command, handler.path, dict(handler.headers.items()), body))
        answer = self.answers.get(handler.path, (404, {}, b""))
        if callable(answer):
            answer(handler)
            return
        status, headers, said = answer
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(said)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(said)


@pytest.fixture
def hostile() -> Iterator[HostileProvider]:
    server = HostileProvider()
    server.tell()
    yield server
    server.close()


def asking(hostile: HostileProvider, **more: Any) -> Provider:
    return Provider(OpenIdSettings(hostile.issuer, "shipsight", **more))


def refused(act: Callable[[], object], got: str) -> None:
    with pytest.raises(EnvironmentLackError) as caught:
        act()
    assert got in (caught.value.got or ""), caught.value


# Discovery -----------------------------------------------------------------------------------------------------------


def test_metadata_name_at_most_algorithms_that_are_ours(hostile: HostileProvider) -> None:
    """ASVS 9.1.2."""
    metadata = asking(hostile).metadata()
    assert metadata.algorithms == {"RS256", "ES256"}
    assert not metadata.names_itself


@pytest.mark.parametrize("algorithms", [["none"], ["HS256", "HS512"], [], None, "RS256", ...])
def test_provider_without_an_algorithm_of_ours_is_refused(hostile: HostileProvider, algorithms: Any) -> None:
    hostile.tell(id_token_signing_alg_values_supported=algorithms)
    refused(asking(hostile).metadata, "no algorithm")


@pytest.mark.parametrize("issuer", ["https://evil.test", "", None, ...])
def test_metadata_of_another_issuer_are_refused(hostile: HostileProvider, issuer: Any) -> None:
    hostile.tell(issuer=issuer)
    refused(asking(hostile).metadata, "another issuer")


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
@pytest.mark.parametrize(
    "url",
    [
        ...,
        None,
        7,
        "",
        "/token",
        "//evil.test/token",
        "http://evil.test/token",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/token",
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "https://user:password@evil.test/a",
        "https://evil.test/a#b",
        "https://evil.test/a b",
        "https://evil.test/\r\nHost: a",
        "https://[::1",
        "https://evil.test:99999/",
        "javascript:alert(1)",
    ],
    ids=repr,
)
def test_endpoint_that_may_not_be_used_is_refused(hostile: HostileProvider, name: str, url: Any) -> None:
    """ASVS 12.3.1: no plain text; 13.2.4."""
    hostile.tell(**{name: url})
    refused(asking(hostile).metadata, name)


def test_metadata_are_asked_for_once(hostile: HostileProvider) -> None:
    provider = asking(hostile)
    assert [provider.metadata() for _ in range(5)]
    assert len(hostile.asked) == 1


def test_failure_is_kept_for_a_while_so_that_sign_ins_do_not_pile_up(hostile: HostileProvider) -> None:
    hostile.say(DISCOVERY, b"", status=503)
    provider = asking(hostile)
    for _ in range(3):
        refused(provider.metadata, "status 503")
    assert len(hostile.asked) == 1


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"<html>", b"\xff", b'{"issuer": 1, "issuer": 2}', b'{"a": NaN}', b"[" * 99_999]
)
def test_metadata_that_are_no_object_are_refused(hostile: HostileProvider, body: bytes) -> None:
    hostile.say(DISCOVERY, body)
    refused(asking(hostile).metadata, "no JSON object")


# Limits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(hostile: HostileProvider, status: int) -> None:
    """ASVS 13.2.4: nothing elsewhere is asked."""
    other = HostileProvider()
    try:
        hostile.say(DISCOVERY, b"", status=status, Location=f"{other.issuer}/elsewhere")
        refused(asking(hostile).metadata, f"status {status}")
        hostile.tell()
        provider = asking(hostile)
        for path, ask in (
            ("/jwks", provider.keys),
            ("/token", lambda: provider.id_token("code", verifier="v", redirect_uri="https://a")),
        ):
            hostile.say(path, b"", status=status, Location=f"{other.issuer}/elsewhere")
            refused(ask, f"status {status}")
        assert other.asked == []
    finally:
        other.close()


def test_answer_that_is_too_large_is_not_read_to_its_end(hostile: HostileProvider) -> None:
    sent = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        try:
            for _ in range(10_000):
                handler.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
                sent.append(65536)
        except OSError:
            pass

    hostile.answers[DISCOVERY] = endless
    refused(asking(hostile).metadata, "more than")
    assert sum(sent) < 64 * 2**20


def test_compressed_answer_is_refused(hostile: HostileProvider) -> None:
    hostile.say(DISCOVERY, b"\x1f\x8b", Content_Encoding="gzip")
    refused(asking(hostile).metadata, "compressed")


@pytest.mark.parametrize("what", ["head", "body", "nothing"])
def test_answer_that_comes_byte_by_byte_ends_in_time(what: str) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def drip() -> None:
        connection, _ = listening.accept()
        with connection:
            if what == "body":
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            if what == "head":
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            try:
                while not stopped.wait(0.05):
                    if what != "nothing":
                        connection.sendall(b"x")
            except OSError:
                pass

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        begin = time.monotonic()
        refused(
            lambda: Fetcher(time_s=0.5).ask("GET", f"http://127.0.0.1:{listening.getsockname()[1]}/"), "ReadTimeout"
        )
        assert 0.4 < time.monotonic() - begin < 10
    finally:
        stopped.set()
        thread.join()
        listening.close()


def test_provider_that_is_not_there_is_told_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    refused(Provider(OpenIdSettings(f"http://127.0.0.1:{port}", "shipsight")).metadata, "ConnectError")


def test_what_is_no_http_is_told_as_such(hostile: HostileProvider) -> None:
    hostile.answers[DISCOVERY] = lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n") and None
    refused(asking(hostile).metadata, "ProtocolError")


@pytest.mark.parametrize("wrong", ["nothing", "unknown authority", "another name", "expired", "TLS 1.1"])
def test_certificate_is_checked_by_the_authorities_that_are_named(tmp_path: Path, wrong: str) -> None:
    """ASVS 12.3.2 and 12.3.4."""
    authority = make_certificate("authority", is_authority=True)
    names = [x509.DNSName("evil.test")] if wrong == "another name" else LOCAL
    end = -timedelta(hours=1) if wrong == "expired" else DAY
    certificate, key = make_certificate("provider", issuer=authority, names=names, end=end).write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if wrong == "TLS 1.1":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    server = HostileProvider(context)
    server.tell()
    try:
        provider = asking(server, ca_file=None if wrong == "unknown authority" else tmp_path / "ca.pem")
        if wrong == "nothing":
            assert provider.metadata().jwks_uri == f"{server.issuer}/jwks"
        else:
            refused(provider.metadata, "ConnectError")
            assert server.asked == []
    finally:
        server.close()


def test_proxy_of_the_environment_is_not_used(hostile: HostileProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert asking(hostile).metadata().jwks_uri == f"{hostile.issuer}/jwks"


# Keys and codes ------------------------------------------------------------------------------------------------------


def test_keys_are_asked_for_each_time(hostile: HostileProvider) -> None:
    provider = asking(hostile)
    for number in range(3):
        hostile.say("/jwks", {"keys": [number]})
        assert provider.keys() == [number]


@pytest.mark.parametrize("told", [{}, {"keys": None}, {"keys": {"a": 1}}, {"keys": "a"}])
def test_keys_that_are_no_list_are_refused(hostile: HostileProvider, told: object) -> None:
    hostile.say("/jwks", told)
    refused(asking(hostile).keys, "no keys")


@pytest.mark.parametrize(
    ("ways", "where"),
    [(..., "header"), (["client_secret_basic", "client_secret_post"], "header"), (["client_secret_post"], "body")],
)
def test_secret_goes_where_the_provider_takes_it(
    hostile: HostileProvider, tmp_path: Path, ways: Any, where: str
) -> None:
    """ASVS 10.4.10; RFC 6749, 2.3.1."""
    hostile.tell(token_endpoint_auth_methods_supported=ways)
    hostile.say("/token", {"id_token": "a.b.c"})
    (tmp_path / "secret").write_text("a+b %:&\n")
    (tmp_path / "secret").chmod(0o600)
    provider = asking(hostile, secret_file=tmp_path / "secret")
    assert provider.id_token("the code", verifier="v", redirect_uri="https://a/b") == "a.b.c"
    _, _, headers, body = hostile.asked[-1]
    sent = dict(parse_qsl(body.decode(), strict_parsing=True))
    assert (sent["code"], sent["code_verifier"], sent["redirect_uri"]) == ("the code", "v", "https://a/b")
    if where == "body":
        assert (sent["client_id"], sent["client_secret"]) == ("shipsight", "a+b %:&")
        assert "Authorization" not in headers
    else:
        name, _, secret = b64decode(headers["Authorization"].removeprefix("Basic ")).decode().partition(":")
        assert (unquote_plus(name), unquote_plus(secret)) == ("shipsight", "a+b %:&")
        assert "client_secret" not in sent


def test_public_client_sends_no_secret(hostile: HostileProvider) -> None:
    hostile.say("/token", {"id_token": "a.b.c"})
    asking(hostile).id_token("code", verifier="v", redirect_uri="https://a/b")
    _, _, headers, body = hostile.asked[-1]
    assert "Authorization" not in headers
    assert dict(parse_qsl(body.decode()))["client_id"] == "shipsight"


@pytest.mark.parametrize("status", [400, 401, 403])
def test_code_that_the_provider_refuses_is_told_as_such(hostile: HostileProvider, status: int) -> None:
    hostile.say("/token", {"error": "invalid_grant", "id_token": "a.b.c"}, status=status)
    with pytest.raises(CodeRefusedError):
        asking(hostile).id_token("code", verifier="v", redirect_uri="https://a/b")


def test_answer_without_a_token_is_a_refusal(hostile: HostileProvider) -> None:
    hostile.say("/token", {"access_token": "abc"})
    with pytest.raises(CodeRefusedError):
        asking(hostile).id_token("code", verifier="v", redirect_uri="https://a/b")


def test_errors_hold_no_code_and_no_secret(hostile: HostileProvider, tmp_path: Path) -> None:
    """ASVS 16.2.5."""
    hostile.say("/token", b"", status=500)
    (tmp_path / "secret").write_text("open sesame")
    (tmp_path / "secret").chmod(0o600)
    provider = asking(hostile, secret_file=tmp_path / "secret")
    with pytest.raises(EnvironmentLackError) as caught:
        provider.id_token("thecode", verifier="verifier", redirect_uri="https://a/b")
    told = str(caught.value) + repr(caught.value.__cause__)
    assert not [one for one in ("thecode", "open sesame", "verifier") if one in told]


# Settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("issuer", "is_plain"),
    [
        ("https://login.example.com", False),
        ("https://login.example.com/realms/a/", False),
        ("https://login.example.com:8443", False),
        ("http://localhost:8080/realms/a", True),
        ("http://127.0.0.1:1", True),
        ("http://[::1]:1", True),
    ],
)
def test_issuer_is_asked_without_tls_on_this_machine_alone(issuer: str, is_plain: bool) -> None:
    """ASVS 12.3.1."""
    assert check_issuer(issuer) is is_plain


@pytest.mark.parametrize(
    "issuer",
    [
        "http://login.example.com",
        "http://localhost.evil.test",
        "http://127.0.0.1.evil.test",
        "http://10.0.0.1",
        "login.example.com",
        "file:///etc",
        "https://",
        "https://a.test/?b",
        "https://a.test/#b",
        "https://a:b@a.test",
        "https://a.test:0",
        "https://a.test:x",
        "https://ä.test",
        "",
    ],
)
def test_issuer_that_does_not_do_is_refused(issuer: str) -> None:
    with pytest.raises(UsageError):
        Provider(OpenIdSettings(issuer, "shipsight"))


def test_secret_that_cannot_be_read_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLackError):
        Provider(OpenIdSettings("https://a.test", "shipsight", secret_file=tmp_path / "none"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_secret_that_others_may_read_or_write_is_refused_and_not_shown(tmp_path: Path, mode: int) -> None:
    secret = tmp_path / "secret"
    secret.write_text("open sesame")
    secret.chmod(mode)
    with pytest.raises(EnvironmentLackError, match="others may read the client's secret") as refused:
        Provider(OpenIdSettings("https://a.test", "shipsight", secret_file=secret))
    assert "sesame" not in str(refused.value)
    secret.chmod(0o600)
    Provider(OpenIdSettings("https://a.test", "shipsight", secret_file=secret))


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_authorities_that_are_none_are_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError):
        Provider(OpenIdSettings("https://a.test", "shipsight", ca_file=file))


@pytest.mark.parametrize("package", ["httpcore", "certifi"])
def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "shipsight.access.fetching")
    with pytest.raises(MissingDependencyError, match=r"shipsight\[oidc\]"):
        Provider(OpenIdSettings("https://a.test", "shipsight"))


@pytest.mark.parametrize("path", [None, Path("/etc/shipsight/file")])
def test_settings_come_back_by_way_of_json(path: Path | None) -> None:
    openid = OpenIdSettings(
        "https://a.test", "shipsight", path, "roles", ("two",), ("profile", "groups"), ca_file=path, max_age_s=None
    )
    told = AccessSettings("access.db", Path("key"), openid=openid)
    assert AccessSettings.from_dict(json.loads(json.dumps(told.to_dict()))) == told


@pytest.mark.parametrize("age", [-1, float("nan")])
def test_age_of_a_proof_that_is_none_is_refused(age: float) -> None:
    with pytest.raises(UsageError):
        OpenIdSettings("https://a.test", "shipsight", max_age_s=age)
