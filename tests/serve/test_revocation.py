# SPDX-License-Identifier: Apache-2.0
"""Clients' certificates at real servers: revoked, ended, not for clients, at any place of the chain, over HTTP and over gRPC."""

from __future__ import annotations

import json
import queue
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
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
from tests.serve.conftest import Served
from tests.serve.test_stream import close_of
from websockets.sync.client import ClientConnection, connect

from shipsight.access import SERVER, Grant
from shipsight.access.service import Access
from shipsight.access.settings import AccessSettings
from shipsight.serve.grpc.messages import message

pytestmark = pytest.mark.slow  # servers that start

SEEN_S = 15.0  # files are looked at each second, and taken once they stood still; the machine may be busy
NAME = (("grpc.ssl_target_name_override", "localhost"),)
SERVICE = "/inference.GRPCInferenceService"
READY = message("ServerReadyRequest")().SerializeToString()


@dataclass
class Place:
    """A server over TLS, with HTTP and gRPC, whose clients' certificates a root and one below it sign."""

    folder: Path
    servers: Pair
    root: Pair
    below: Pair
    served: Served
    access: Access

    def trust(self, *lists: bytes) -> None:
        """Writes the file of authorities, with revocation lists."""
        put(self.folder / "clients.pem", b"".join((self.root.pem, *lists)))

    def lists(self, *, of_root: Sequence[Pair] = (), of_below: Sequence[Pair] = ()) -> tuple[bytes, bytes]:
        return make_revocation_list(self.root, of_root), make_revocation_list(self.below, of_below)

    def client(self, name: str, **more: timedelta) -> Pair:
        return make_client(self.below, name, **more)

    def context(self, client: Pair) -> ssl.SSLContext:
        """Of a client that shows its certificate and the one above."""
        context = ssl.create_default_context(cadata=self.servers.pem.decode())
        chain, key = client.write(self.folder / "client", f"{client.certificate.serial_number:x}")
        put(chain, client.pem + self.below.pem)
        context.load_cert_chain(chain, key)
        return context

    def channel(self, client: Pair) -> grpc.Channel:
        shown = grpc.ssl_channel_credentials(self.servers.pem, client.key_pem, client.pem + self.below.pem)
        return grpc.secure_channel(self.served.grpc, shown, NAME)

    def http_status(self, client: Pair) -> int | None:
        """None where there is no connection."""
        try:
            return httpx.get(f"{self.served.url}/v1/me", verify=self.context(client), timeout=30).status_code
        except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
            return None

    def stream(self, client: Pair) -> ClientConnection:
        address = self.served.url.replace("https", "wss")
        return connect(f"{address}/v1/models/digits/stream", max_size=None, open_timeout=60, ssl=self.context(client))

    def events(self) -> list[dict[str, Any]]:
        # gRPC's own library writes there, too.
        lines = [one for one in (self.folder / "log").read_text().splitlines() if one.startswith("{")]
        return [one for one in map(json.loads, lines) if one.get("event") == "certificate-refused"]


def grpc_code(channel: grpc.Channel) -> grpc.StatusCode:
    try:
        channel.unary_unary(f"{SERVICE}/ServerReady")(READY, timeout=30)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SEEN_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def place(
    start: Callable[..., Served], digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("revocation")
    servers, root = make_authority("servers"), make_authority("root")
    below = make_certificate("below", issuer=root, is_authority=True)
    certificate, key = make_server(servers).write(folder)
    put(folder / "clients.pem", root.pem)
    settings = AccessSettings(database=str(folder / "access.db"), secrets_key=folder / "access.key")
    with Access.open(settings, origin="https://localhost:8000") as access, (folder / "log").open("w") as log:
        access.directory.add_user(SERVER, "root", grants=[Grant("admin")])
        served = start(
            digits_bundle, "--database", folder / "access.db", "--secrets-key", folder / "access.key", "--streams", "1",
            "--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", folder / "clients.pem", "--grpc-port", "0",
            "--log-format", "json", stderr=log,
        )  # fmt: skip
        yield Place(folder, servers, root, below, served, access)


@pytest.fixture
def known(place: Place) -> Iterator[Place]:
    """The server with a file of authorities without lists, before and after."""
    place.trust()
    yield place
    place.trust()
    fine = place.client("fine")

    def is_back() -> bool:
        with place.channel(fine) as channel:
            return place.http_status(fine) is not None and grpc_code(channel) is grpc.StatusCode.OK

    until(is_back)


def add(place: Place, name: str) -> str:
    """Lets a client predict; returns the entry."""
    grants = [Grant("predictor")]
    return place.access.certificates.add(SERVER, name, field="subject", value=f"CN={name}", grants=grants).id


def test_a7_revoked_certificate_is_refused_at_each_call_from_the_moment_its_list_is_there(known: Place) -> None:
    """ASVS 12.1.4: a list is added, renewed, broken and repaired while server and connections live."""
    lost, kept = known.client("lost"), known.client("kept")
    with known.channel(lost) as before, known.channel(kept) as other:
        assert grpc_code(before) is grpc_code(other) is grpc.StatusCode.OK
        known.trust(*known.lists(of_below=[lost]))
        until(lambda: grpc_code(before) is grpc.StatusCode.PERMISSION_DENIED)
        until(lambda: known.http_status(lost) is None)
        with known.channel(lost) as again:
            assert grpc_code(again) is grpc.StatusCode.PERMISSION_DENIED
        assert grpc_code(other) is grpc.StatusCode.OK
        assert known.http_status(kept) == 403
        # What cannot be read may hold anything: until it can, nobody comes in by a certificate.
        whole = b"".join(known.lists(of_below=[lost]))
        known.trust(whole[: len(whole) - 200])
        until(lambda: grpc_code(other) is grpc.StatusCode.PERMISSION_DENIED)
        known.trust(*known.lists())
        until(lambda: grpc_code(other) is grpc.StatusCode.OK)
        until(lambda: grpc_code(before) is grpc.StatusCode.OK)
        known.trust(make_revocation_list(known.root, []), make_revocation_list(known.below, [], end=-DAY))
        until(lambda: grpc_code(other) is grpc.StatusCode.PERMISSION_DENIED)
    until(lambda: any(one.get("certificate") == "CN=lost" for one in known.events()))
    told = [one for one in known.events() if one.get("certificate") == "CN=lost"]
    assert {one["route"] for one in told} == {f"{SERVICE}/ServerReady"}
    assert all(one["outcome"] == "refused" and one["address"] == "127.0.0.1" for one in told)
    until(lambda: any("revoked" in one.get("got", "") and one["route"] == "TLS" for one in known.events()))


def test_a7_leaf_of_a_revoked_authority_is_refused_over_http_and_grpc(known: Place) -> None:
    """ASVS 12.1.4: the root revoked the one below it, whose own list names nobody."""
    client = known.client("camera-7")
    known.trust(*known.lists())
    with known.channel(client) as channel:
        until(lambda: known.http_status(client) == 403)  # let in by TLS, but not added: it may do nothing
        assert grpc_code(channel) is grpc.StatusCode.OK
        known.trust(*known.lists(of_root=[known.below]))
        until(lambda: known.http_status(client) is None)
        until(lambda: grpc_code(channel) is grpc.StatusCode.PERMISSION_DENIED)
    with known.channel(client) as again:
        assert grpc_code(again) is grpc.StatusCode.PERMISSION_DENIED


def test_a7_where_there_are_lists_every_authority_of_a_chain_needs_one(known: Place) -> None:
    client = known.client("camera-7")
    of_root, of_below = known.lists()
    with known.channel(client) as channel:
        for one in (of_root, of_below):
            known.trust(one)
            until(lambda: grpc_code(channel) is grpc.StatusCode.PERMISSION_DENIED)
            until(lambda: known.http_status(client) is None)
            known.trust(of_root, of_below)
            until(lambda: grpc_code(channel) is grpc.StatusCode.OK)
            until(lambda: known.http_status(client) == 403)


@pytest.mark.parametrize("kind", ["ended", "not yet valid", "for servers"])
def test_a7_grpc_takes_no_certificate_that_is_not_good_now_and_for_clients(known: Place, kind: str) -> None:
    """ASVS 12.1.3."""
    make: dict[str, Callable[[], Pair]] = {
        "ended": lambda: known.client("camera-7", begin=-9 * DAY, end=-DAY),
        "not yet valid": lambda: known.client("camera-7", begin=DAY),
        "for servers": lambda: make_certificate("camera-7", issuer=known.below, usage=ExtendedKeyUsageOID.SERVER_AUTH),
    }
    with known.channel(make[kind]()) as channel, known.channel(known.client("fine")) as fine:
        with pytest.raises(grpc.FutureTimeoutError):
            grpc.channel_ready_future(channel).result(timeout=3)
        grpc.channel_ready_future(fine).result(timeout=30)
        assert grpc_code(fine) is grpc.StatusCode.OK


# --- what is open -----------------------------------------------------------------------------------------------------


def remove(place: Place, client: Pair, entry: str) -> None:
    place.access.certificates.remove(SERVER, entry)


def wait_for_its_end(place: Place, client: Pair, entry: str) -> None:
    """Nothing is done: it ends by itself."""


def revoke(place: Place, client: Pair, entry: str) -> None:
    place.trust(*place.lists(of_below=[client]))


@pytest.mark.parametrize("change", [remove, wait_for_its_end])
def test_a7_open_stream_of_video_ends_with_its_certificate(
    known: Place, jpeg: bytes, change: Callable[[Place, Pair, str], None]
) -> None:
    """ASVS 8.3.2."""
    name = f"video-{change.__name__}".replace("_", "-")
    entry, client = add(known, name), known.client(name, end=timedelta(seconds=10))
    with known.stream(client) as stream:
        stream.send(jpeg)
        assert "images" in json.loads(stream.recv(timeout=60))
        change(known, client, entry)
        assert close_of(stream) == (4403, "this is not allowed to you any more")
    assert change is remove or time.time() > client.certificate.not_valid_after_utc.timestamp()


@pytest.mark.parametrize("change", [remove, wait_for_its_end, revoke])
def test_a7_open_stream_of_grpc_ends_with_its_certificate(
    known: Place, jpeg: bytes, change: Callable[[Place, Pair, str], None]
) -> None:
    """ASVS 8.3.2."""
    name = f"grpc-{change.__name__}".replace("_", "-")
    lives = timedelta(seconds=10) if change is wait_for_its_end else DAY
    entry, client = add(known, name), known.client(name, end=lives)
    request = message("ModelInferRequest")(model_name="digits_image")
    request.inputs.add(name="image", datatype="BYTES", shape=[1]).contents.bytes_contents.append(jpeg)
    asking: queue.Queue[bytes | None] = queue.Queue()
    with known.channel(client) as channel:
        call = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(iter(asking.get, None), timeout=60)
        asking.put(request.SerializeToString())
        assert b"error" not in next(call)[:40]
        change(known, client, entry)
        with pytest.raises(grpc.RpcError) as caught:
            next(call)  # it sends nothing, and is ended all the same
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        asking.put(None)


def test_a7_certificate_that_ended_is_told_of_over_both_wires(known: Place) -> None:
    """ASVS 16.3.2."""
    client = known.client("short", end=timedelta(seconds=8))
    with (
        known.channel(client) as channel,
        httpx.Client(
            base_url=known.served.url,
            verify=known.context(client),
            timeout=30,
            limits=httpx.Limits(keepalive_expiry=60),  # the same connection again: another's handshake would be refused
        ) as http,
    ):
        assert (http.get("/v1/me").status_code, grpc_code(channel)) == (403, grpc.StatusCode.OK)
        left = client.certificate.not_valid_after_utc.timestamp() - time.time()
        time.sleep(max(left, 0.0) + 1)
        assert http.get("/v1/me").json()["error"]["code"] == "certificate"
        assert grpc_code(channel) is grpc.StatusCode.PERMISSION_DENIED

    def told_by_route() -> dict[str, dict[str, Any]]:
        return {one["route"]: one for one in known.events() if one.get("certificate") == "CN=short"}

    until(lambda: len(told_by_route()) == 2)  # the log is written by a thread of its own
    told = told_by_route()
    assert set(told) == {"TLS", f"{SERVICE}/ServerReady"}
    assert {one["reason"] for one in told.values()} == {"the client's certificate has ended"}
    assert {one["address"] for one in told.values()} == {"127.0.0.1"}
