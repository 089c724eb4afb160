# SPDX-License-Identifier: Apache-2.0
"""A real server with identities: streams that end when rights do, how it may be started, TLS and client certificates."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tests.serve.certificates import Pair, make_authority, make_client, make_revocation_list, make_server, put
from tests.serve.conftest import Served
from tests.serve.test_stream import close_of
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from shipsight.access import SERVER, Grant
from shipsight.access.service import Access
from shipsight.access.settings import AccessSettings

pytestmark = pytest.mark.slow  # servers that start

INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
SEEN_S = 15.0  # a change that another process made is seen within a second; the machine may be busy


@dataclass
class Known:
    """A server and its identities, as another process manages them."""

    served: Served
    access: Access

    def person(self, name: str, *grants: str) -> tuple[str, dict[str, str]]:
        """Signs a new person in; returns their id, and what their browser sends."""
        user, _ = self.access.directory.add_user(SERVER, name, grants=tuple(map(Grant.parse, grants)))
        session = self.access.sessions.begin(user.id, factors=("password", "totp"))
        cookie = f"shipsight={session.token}"
        return user.id, {"cookie": cookie, "x-csrf-token": session.csrf, "origin": self.served.url}

    def key(self, name: str, *grants: str) -> tuple[str, dict[str, str]]:
        made, text = self.access.keys.add(SERVER, name, grants=tuple(map(Grant.parse, grants)))
        return made.id, {"authorization": f"Bearer {text}"}


def open_access(folder: Path) -> Access:
    settings = AccessSettings(database=str(folder / "access.db"), secrets_key=folder / "access.key")
    return Access.open(settings, origin="http://localhost:8000")


@pytest.fixture(scope="module")
def known(
    start: Callable[..., Served], digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Known]:
    """A server on loopback whose database knows people: everything needs a credential."""
    folder = tmp_path_factory.mktemp("known")
    with open_access(folder) as access:
        access.directory.add_user(SERVER, "root", grants=[Grant("admin")])
        served = start(
            digits_bundle, "--database", folder / "access.db", "--secrets-key", folder / "access.key",
            "--grpc-port", "0", "--streams", "1",
        )  # fmt: skip
        yield Known(served, access)


# --- what is open ends when rights do ---------------------------------------------------------------------------------


def disable(known: Known, name: str) -> tuple[dict[str, str], Callable[[], None]]:
    user, headers = known.person(name, "predictor")
    return headers, lambda: known.access.directory.set_disabled(SERVER, user, True)


def end_session(known: Known, name: str) -> tuple[dict[str, str], Callable[[], None]]:
    user, headers = known.person(name, "predictor")
    return headers, lambda: known.access.sessions.end_all(SERVER, user)


def revoke(known: Known, name: str) -> tuple[dict[str, str], Callable[[], None]]:
    key, headers = known.key(name, "predictor")
    return headers, lambda: known.access.keys.revoke(SERVER, key)


def take_grant(known: Known, name: str) -> tuple[dict[str, str], Callable[[], None]]:
    user, headers = known.person(name, "predictor", "viewer")
    return headers, lambda: known.access.directory.set_grants(SERVER, "user", user, [Grant("viewer")])


def take_model(known: Known, name: str) -> tuple[dict[str, str], Callable[[], None]]:
    key, headers = known.key(name, "predictor@digits")
    return headers, lambda: known.access.directory.set_grants(SERVER, "key", key, [Grant("predictor", ("other",))])


CHANGES = [disable, end_session, revoke, take_grant, take_model]


def take_all(known: Known, name: str) -> tuple[dict[str, str], Callable[[], None]]:
    key, headers = known.key(name, "predictor@digits")
    return headers, lambda: known.access.directory.set_grants(SERVER, "key", key, [])


# A stream of gRPC is of no single model: one that is silent ends when nothing is left that it could ask.
KEY_CHANGES = [(revoke, False), (revoke, True), (take_model, False), (take_all, False), (take_all, True)]


@pytest.mark.parametrize("is_idle", [False, True], ids=["asking", "idle"])
@pytest.mark.parametrize("change", CHANGES)
def test_a5_an_open_stream_of_video_ends_when_its_client_may_no_longer_ask(
    known: Known, jpeg: bytes, change: Any, *, is_idle: bool
) -> None:
    """ASVS 7.4.1, 7.4.2, 8.3.2."""
    headers, do = change(known, f"{change.__name__.replace('_', '-')}-{'idle' if is_idle else 'asking'}")
    address = known.served.url.replace("http", "ws")
    origin = headers.pop("origin", None)
    with connect(
        f"{address}/v1/models/digits/stream", max_size=None, open_timeout=60, origin=origin, additional_headers=headers
    ) as stream:
        stream.send(jpeg)
        assert "images" in json.loads(stream.recv(timeout=60))
        do()
        at = time.monotonic()
        if not is_idle:
            with contextlib.suppress(Exception):
                while time.monotonic() < at + SEEN_S:
                    stream.send(jpeg)
                    stream.recv(timeout=60)
        assert close_of(stream) == (4403, "this is not allowed to you any more")
        assert time.monotonic() - at < SEEN_S
    with (
        pytest.raises(InvalidStatus) as caught,
        connect(f"{address}/v1/models/digits/stream", origin=origin, additional_headers=headers),
    ):
        pass
    assert caught.value.response.status_code in (401, 403)


@pytest.mark.parametrize(("change", "is_idle"), KEY_CHANGES)
def test_a5_an_open_stream_of_grpc_ends_when_its_client_may_no_longer_ask(
    known: Known, jpeg: bytes, change: Any, *, is_idle: bool
) -> None:
    """ASVS 8.3.2."""
    from shipsight.serve.grpc.messages import message

    headers, do = change(known, f"grpc-{change.__name__.replace('_', '-')}-{'idle' if is_idle else 'asking'}")
    request = message("ModelInferRequest")(model_name="digits_image")
    given = request.inputs.add(name="image", datatype="BYTES", shape=[1])
    given.contents.bytes_contents.append(jpeg)
    sent = request.SerializeToString()
    asking: queue.Queue[bytes | None] = queue.Queue()
    with grpc.insecure_channel(known.served.grpc) as channel:
        call = channel.stream_stream(INFER)(iter(asking.get, None), metadata=list(headers.items()), timeout=30)
        asking.put(sent)
        assert b"error" not in next(call)[:40]
        do()
        at = time.monotonic()

        def go_on() -> None:
            while time.monotonic() < at + SEEN_S:
                if not is_idle:
                    asking.put(sent)
                next(call)

        with pytest.raises(grpc.RpcError) as caught:
            go_on()
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert time.monotonic() - at < SEEN_S
        asking.put(None)


def test_a_request_after_a_change_is_refused_at_once(known: Known) -> None:
    """ASVS 8.3.2: within a second where another process made the change."""
    key, headers = known.key("at-once", "viewer")
    url = f"{known.served.url}/v1/models"
    assert httpx.get(url, headers=headers).status_code == 200
    known.access.keys.revoke(SERVER, key)
    end = time.monotonic() + SEEN_S
    while httpx.get(url, headers=headers).status_code != 401:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_page_that_anyone_may_see_and_health_need_no_credential(known: Known) -> None:
    url = known.served.url
    assert httpx.get(url).status_code == 200
    ready = httpx.get(f"{url}/readyz", headers={"authorization": "Bearer nonsense"})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    for path in ("/v1/models", "/metrics", "/openapi.json", "/v2/models/digits"):
        assert httpx.get(url + path).status_code == 401


def test_a_version_is_promoted_from_the_command_line_with_a_key_that_may(known: Known, tmp_path: Path) -> None:
    def promote(*options: object) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "shipsight",
            "promote",
            "digits",
            "--version",
            "1",
            "--server",
            known.served.url,
        ]
        return subprocess.run(
            [*command, *map(str, options), "--json"], capture_output=True, text=True, check=False, timeout=120
        )

    file = tmp_path / "key"
    for name, grant, code in (("seer", "viewer", "forbidden"), ("ci", "deployer@digits", None)):
        _, headers = known.key(name, grant)
        file.write_text(headers["authorization"].partition(" ")[2] + "\n")
        done = promote("--key-file", file)
        assert json.loads(done.stdout).get("error", {}).get("code") == code, done.stdout
    assert json.loads(promote().stdout)["error"]["code"] == "unauthenticated"


# --- starting ---------------------------------------------------------------------------------------------------------


def run(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shipsight", "serve", *map(str, arguments), "--port", "0", "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)


def database(folder: Path) -> list[object]:
    return ["--database", folder / "access.db", "--secrets-key", folder / "access.key"]


@pytest.fixture
def tls(tmp_path: Path) -> list[object]:
    certificate, key = make_server(make_authority()).write(tmp_path)
    return ["--tls-cert", certificate, "--tls-key", key]


def test_a8_a_server_that_others_reach_does_not_start_without_tls_and_an_administrator(
    tmp_path: Path, digits_bundle: Path, tls: list[object]
) -> None:
    """ASVS 6.3.2, 12.2.1; design, 8.2."""
    reached = (digits_bundle, "--host", "0.0.0.0")
    for arguments, expected in (
        (database(tmp_path), "needs TLS and an administrator"),
        ([*tls, *database(tmp_path)], "needs an administrator"),
    ):
        done = run(*reached, *arguments)
        assert done.returncode == 2, done.stderr
        assert expected in json.loads(done.stdout)["error"]["what"] if done.stdout else expected in done.stderr


def test_a8_the_first_administrator_is_made_by_a_code_that_is_printed_once(
    tmp_path: Path, digits_bundle: Path, start: Callable[..., Served]
) -> None:
    """ASVS 6.3.2, 6.4.1."""
    with (tmp_path / "log").open("w") as log:
        served = start(digits_bundle, *database(tmp_path), "--streams", "1", stderr=log)
    setup = next(served.events())
    assert setup["event"] == "setup"
    assert setup["url"].endswith("/invitation")
    end = time.monotonic() + SEEN_S
    while "access-open" not in (tmp_path / "log").read_text():  # written by a thread of its own
        assert time.monotonic() < end
    assert setup["code"] not in (tmp_path / "log").read_text()
    url = f"{served.url}/v1/models"
    assert httpx.get(url).status_code == 200
    with open_access(tmp_path) as access:
        password = "three otters on a raft"
        access.sign_in.accept_invitation(setup["code"], password, name="ada", address=None, agent=None)
    end = time.monotonic() + SEEN_S
    while httpx.get(url).status_code != 401:
        assert time.monotonic() < end
    assert served.stop() == 0


def test_a8_a_server_that_requires_access_is_closed_from_its_first_answer(
    tmp_path: Path, digits_bundle: Path, start: Callable[..., Served]
) -> None:
    served = start(digits_bundle, *database(tmp_path), "--require-access", "--streams", "1")
    assert next(served.events())["event"] == "setup"
    assert httpx.get(f"{served.url}/v1/models").status_code == 401
    assert served.stop() == 0


def test_a_server_behind_a_platform_says_so(tmp_path: Path, digits_bundle: Path, start: Callable[..., Served]) -> None:
    with (tmp_path / "log").open("w") as log:
        served = start(
            digits_bundle, "--host", "0.0.0.0", "--behind", "sagemaker", "--streams", "1", "--log-format", "json",
            stderr=log,
        )  # fmt: skip
    url = served.url.replace("0.0.0.0", "127.0.0.1")
    assert httpx.get(f"{url}/readyz").json()["behind"] == "sagemaker"
    assert 'shipsight_behind{behind="sagemaker"} 1.0' in httpx.get(f"{url}/metrics").text
    assert httpx.get(f"{url}/ping", headers={"host": "whatever.example"}).status_code == 200
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (begun,) = [line for line in lines if line.get("event") == "started"]
    assert (begun["behind"], begun["open"]) == ("sagemaker", False)
    assert served.stop() == 0


def test_a_server_on_a_unix_socket_believes_its_proxy(
    tmp_path: Path, digits_bundle: Path, start: Callable[..., Served]
) -> None:
    path = tmp_path / "s"
    served = start(
        digits_bundle, "--uds", path, "--behind", "proxy", "--proxy-user-header", "X-Forwarded-User", "--streams", "1"
    )
    assert served.url == f"unix:{path}"
    assert path.stat().st_mode & 0o777 == 0o660
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://vision.example") as client:
        assert client.get("/v1/me").status_code == 401
        told = client.get("/v1/me", headers={"x-forwarded-user": "ada"}).json()
        assert (told["kind"], told["name"]) == ("person", "ada")
    assert served.stop() == 0
    # What a server that is gone left behind is in nobody's way.
    again = start(digits_bundle, "--uds", path, "--behind", "proxy", "--streams", "1")
    assert again.stop() == 0


def test_a_server_believes_no_header_that_puts_a_client_at_the_proxys_address(
    digits_bundle: Path, start: Callable[..., Served]
) -> None:
    """ASVS 4.1.3: uvicorn itself would, from this machine."""
    served = start(
        digits_bundle, "--behind", "proxy", "--proxy-peers", "10.0.0.7", "--proxy-user-header", "X-User", "--streams", "1"
    )  # fmt: skip
    claims = {"x-user": "ada", "x-forwarded-for": "10.0.0.7", "x-forwarded-proto": "https", "forwarded": "for=10.0.0.7"}
    assert httpx.get(f"{served.url}/v1/me", headers=claims).status_code == 401
    assert served.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--behind", "nginx"], "nothing of that name"),
        (["--behind", "proxy"], "has to be known by something"),
        (["--behind", "kserve", "--proxy-peers", "10.0.0.0/8"], "needs --behind proxy"),
        (["--proxy-user-header", "X-User"], "needs --behind proxy"),
        (["--behind", "proxy", "--proxy-peers", "10.0.0.300"], "not an address or network"),
        (["--behind", "proxy", "--proxy-peers", "10.0.0.1", "--proxy-user-header", "Cookie"], "not a header"),
        (["--behind", "proxy", "--proxy-secret-file", "/nowhere"], "cannot be read"),
        (["--host", "example.com"], "not an address"),
        (["--host", "0.0.0.0"], "needs TLS and an administrator"),
        (["--oidc-client-id", "a"], "needs --oidc-issuer"),
        (["--public-url", "vision.example"], "not an origin"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else "",
)
def test_options_that_do_not_fit_are_refused(
    digits_bundle: Path, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    import os

    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    done = run(digits_bundle, *arguments, environment=environment)
    assert done.returncode == 2
    assert expected in done.stdout + " ".join(done.stderr.split())


# --- TLS ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> Pair:
    return make_authority()


@dataclass
class Encrypted:
    """A server over TLS that asks for certificates where clients have one."""

    known: Known
    folder: Path
    authority: Pair

    @property
    def port(self) -> int:
        return int(self.known.served.url.rpartition(":")[2])

    def ask(self, path: str, client: Pair | None = None, **more: Any) -> httpx.Response:
        context = ssl.create_default_context(cafile=str(self.folder / "root.pem"))
        if client is not None:
            context.load_cert_chain(*client.write(self.folder, "client"))
        return httpx.get(f"https://localhost:{self.port}{path}", verify=context, timeout=60, **more)


@pytest.fixture(scope="module")
def encrypted(
    start: Callable[..., Served], digits_bundle: Path, authority: Pair, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Encrypted]:
    folder = tmp_path_factory.mktemp("encrypted")
    certificate, key = make_server(authority).write(folder)
    put(folder / "root.pem", authority.pem)
    put(folder / "clients.pem", authority.pem + make_revocation_list(authority, []))
    with open_access(folder) as access:
        access.directory.add_user(SERVER, "root", grants=[Grant("admin")])
        access.certificates.add(
            SERVER, "camera-7", field="subject", value="CN=camera-7", kind="device", grants=[Grant("viewer")]
        )
        served = start(
            digits_bundle, *database(folder), "--tls-cert", certificate, "--tls-key", key, "--streams", "1",
            "--tls-client-ca", folder / "clients.pem", "--tls-client", "optional", "--host", "0.0.0.0",
        )  # fmt: skip
        yield Encrypted(Known(served, access), folder, authority)


def test_a7_a_device_is_known_by_its_certificate_and_another_of_the_same_authority_is_not(encrypted: Encrypted) -> None:
    """ASVS 12.1.3."""
    told = encrypted.ask("/v1/me", make_client(encrypted.authority)).json()
    assert (told["kind"], told["name"]) == ("device", "camera-7")
    assert encrypted.ask("/v1/models", make_client(encrypted.authority)).status_code == 200
    assert encrypted.ask("/v1/models", make_client(encrypted.authority, "camera-8")).status_code == 403
    assert encrypted.ask("/v1/models").status_code == 401


def test_a7_no_header_makes_a_client_of_tls_somebody_else(encrypted: Encrypted) -> None:
    """ASVS 4.1.3."""
    claims = dict.fromkeys(
        ("x-client-cert", "x-forwarded-client-cert", "x-ssl-client-s-dn", "client-cert"), "CN=camera-7"
    )
    assert encrypted.ask("/v1/me", headers={**claims, "x-forwarded-user": "root"}).status_code == 401


def test_a7_a_certificate_of_another_authority_never_gets_in(encrypted: Encrypted) -> None:
    for stranger in (make_client(make_authority()), make_client(None)):
        with pytest.raises((httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError)):
            encrypted.ask("/v1/me", stranger)


def test_a7_plain_http_on_the_port_of_tls_is_not_answered(encrypted: Encrypted) -> None:
    """ASVS 12.2.1."""
    with socket.create_connection(("127.0.0.1", encrypted.port), timeout=20) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert b"HTTP" not in plain.recv(100)


def test_a7_a_device_that_is_removed_or_revoked_is_out_at_once(encrypted: Encrypted) -> None:
    """ASVS 12.1.4."""
    access = encrypted.known.access
    made = access.certificates.add(SERVER, "b", field="subject", value="CN=camera-9", grants=[Grant("viewer")])
    client = make_client(encrypted.authority, "camera-9")
    assert encrypted.ask("/v1/models", client).status_code == 200
    access.certificates.remove(SERVER, made.id)
    end = time.monotonic() + SEEN_S
    while encrypted.ask("/v1/models", client).status_code != 403:
        assert time.monotonic() < end
    lost = make_client(encrypted.authority)
    put(encrypted.folder / "clients.pem", encrypted.authority.pem + make_revocation_list(encrypted.authority, [lost]))
    end = time.monotonic() + 30
    while True:
        try:
            encrypted.ask("/v1/me", lost)
        except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
            break
        assert time.monotonic() < end
        time.sleep(0.3)


def test_a_session_over_tls_is_in_the_cookie_that_belongs_to_its_host(encrypted: Encrypted) -> None:
    """ASVS 3.3.1."""
    _, headers = encrypted.known.person("ada", "viewer")
    token = headers["cookie"].partition("=")[2]
    assert encrypted.ask("/v1/me", headers={"cookie": f"__Host-shipsight={token}"}).status_code == 200
    assert encrypted.ask("/v1/me", headers={"cookie": f"shipsight={token}"}).status_code == 401
