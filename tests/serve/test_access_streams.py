# SPDX-License-Identifier: Apache-2.0
"""What lasts, at a real server with keys: watching health, streams of video, and whose room and whose names they are."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.serve.conftest import Served, rewritten
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from shipsight.access import SERVER, Grant
from shipsight.access.service import Access
from shipsight.access.settings import AccessSettings
from shipsight.serve.grpc.messages import message

pytestmark = pytest.mark.slow  # a server that starts

SERVICE = "/inference.GRPCInferenceService"
MINE, THEIRS = "team-a-cups", "team-b-bolts"
MOST_STREAMS = 8


@dataclass
class Teams:
    """A server with a model of each of two teams."""

    served: Served
    access: Access

    def key(self, name: str, *grants: str) -> dict[str, str]:
        _, text = self.access.keys.add(SERVER, name, grants=tuple(map(Grant.parse, grants)))
        return {"authorization": f"Bearer {text}"}

    def stream(self, headers: dict[str, str]) -> ClientConnection:
        address = self.served.url.replace("http", "ws")
        return connect(f"{address}/v1/models/{MINE}/stream", open_timeout=60, additional_headers=headers)

    def set_loaded(self, headers: dict[str, str], verb: str) -> None:
        url = f"{self.served.url}/v2/repository/models/{MINE}/{verb}"
        httpx.post(url, headers=headers, timeout=60).raise_for_status()


@pytest.fixture(scope="module")
def teams(
    start: Callable[..., Served], digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Teams]:
    folder = tmp_path_factory.mktemp("teams")
    bundles = [rewritten(digits_bundle, folder / f"{name}.bundle", name=name) for name in (MINE, THEIRS)]
    settings = AccessSettings(database=str(folder / "access.db"), secrets_key=folder / "access.key")
    with Access.open(settings, origin="http://localhost:8000") as access:
        access.directory.add_user(SERVER, "root", grants=[Grant("admin")])
        served = start(
            *bundles, "--database", folder / "access.db", "--secrets-key", folder / "access.key", "--streams", "1",
            "--max-streams", MOST_STREAMS, "--grpc-port", "0",
        )  # fmt: skip
        yield Teams(served, access)


def infer(model: str, jpeg: bytes) -> bytes:
    request = message("ModelInferRequest")(model_name=model)
    request.inputs.add(name="image", datatype="BYTES", shape=[1]).contents.bytes_contents.append(jpeg)
    return bytes(request.SerializeToString())


# --- watching ---------------------------------------------------------------------------------------------------------


def begun(channel: grpc.Channel, service: str = "", headers: dict[str, str] | None = None) -> tuple[Any, str]:
    """Begins to watch; returns the call and how it began."""
    metadata = list((headers or {}).items())
    request = health_pb2.HealthCheckRequest(service=service)
    call = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=60, metadata=metadata)
    try:
        return call, health_pb2.HealthCheckResponse.ServingStatus.Name(next(call).status)
    except grpc.RpcError as error:
        return call, error.code().name


def test_watchers_without_a_credential_are_few_and_leave_room_for_who_has_one(teams: Teams, jpeg: bytes) -> None:
    """ASVS 15.2.2: forty clients without a credential, then a key asks and watches."""
    key = teams.key("watched", f"predictor@{MINE}")
    watching = []
    with grpc.insecure_channel(teams.served.grpc) as channel:
        for _ in range(40):
            watching.append(begun(channel))
        assert [told for _, told in watching] == ["SERVING"] * 8 + ["UNAVAILABLE"] * 32
        before = time.monotonic()
        call = channel.unary_unary(f"{SERVICE}/ModelInfer")
        assert call(infer(f"{MINE}_image", jpeg), metadata=list(key.items()), timeout=30)
        assert time.monotonic() - before < 20
        known = [begun(channel, MINE, key) for _ in range(25)]
        assert [told for _, told in known] == ["SERVING"] * 24 + ["UNAVAILABLE"]
        # Another team's model is none to watch, and neither is any to who shows nothing.
        for one, _ in (*known, *watching):
            one.cancel()
        assert begun(channel, THEIRS, key)[1] == "SERVICE_UNKNOWN"
        assert begun(channel, MINE)[1] == "SERVICE_UNKNOWN"


def test_who_leaves_makes_room_for_another_watcher(teams: Teams) -> None:
    def begun_soon(channel: grpc.Channel) -> Any:
        end = time.monotonic() + 10
        while True:  # the server learns a moment later that somebody left
            call, told = begun(channel)
            if told == "SERVING":
                return call
            assert time.monotonic() < end
            time.sleep(0.05)

    with grpc.insecure_channel(teams.served.grpc) as channel:
        for _ in range(3):
            watching = [begun_soon(channel) for _ in range(8)]
            assert begun(channel)[1] == "UNAVAILABLE"
            for one in watching:
                one.cancel()


def test_calls_without_a_credential_that_never_send_leave_room_for_who_has_one(teams: Teams, jpeg: bytes) -> None:
    """ASVS 15.2.2."""
    key = teams.key("roomy", f"predictor@{MINE}")
    channels = [grpc.insecure_channel(teams.served.grpc, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(7)]
    silent = []
    try:
        for channel in channels:
            for _ in range(90):

                def nothing() -> Iterator[bytes]:
                    time.sleep(20)
                    return
                    yield

                silent.append(channel.stream_unary("/grpc.health.v1.Health/Check").future(nothing(), timeout=30))
        with grpc.insecure_channel(teams.served.grpc) as channel:
            call = channel.unary_unary(f"{SERVICE}/ModelInfer")
            assert call(infer(f"{MINE}_image", jpeg), metadata=list(key.items()), timeout=10)
    finally:
        for one in silent:
            one.cancel()
        for channel in channels:
            channel.close()


def test_all_watchers_are_told_of_a_change(teams: Teams) -> None:
    key, operator = teams.key("seer", f"viewer@{MINE}"), teams.key("hand", f"operator@{MINE}")
    with grpc.insecure_channel(teams.served.grpc) as channel:
        watching = [begun(channel, MINE, key) for _ in range(10)]
        assert {told for _, told in watching} == {"SERVING"}
        for verb, status in (("unload", "NOT_SERVING"), ("load", "SERVING")):
            teams.set_loaded(operator, verb)
            at = time.monotonic()
            told = {health_pb2.HealthCheckResponse.ServingStatus.Name(next(one).status) for one, _ in watching}
            assert told == {status}
            assert time.monotonic() - at < 20
        for one, _ in watching:
            one.cancel()


# --- names of others --------------------------------------------------------------------------------------------------


def test_errors_within_a_stream_of_grpc_name_no_model_of_others(teams: Teams, jpeg: bytes) -> None:
    """ASVS 8.2.2, 8.2.3."""
    key = teams.key("curious", "predictor@team-a-*")
    with grpc.insecure_channel(teams.served.grpc) as channel:
        requests = iter([infer("team-a-nope", jpeg), infer(f"{MINE}_image", jpeg)])
        answers = channel.stream_stream(
            f"{SERVICE}/ModelStreamInfer", response_deserializer=message("ModelStreamInferResponse").FromString
        )
        first, second = answers(requests, metadata=list(key.items()), timeout=60)
    assert "no such model" in first.error_message
    assert "team-b" not in first.error_message
    assert second.infer_response.outputs


def test_errors_within_a_stream_of_video_name_no_model_of_others(teams: Teams, jpeg: bytes) -> None:
    """ASVS 8.2.2, 8.2.3."""
    key, operator = teams.key("looking", "predictor@team-a-*"), teams.key("moving", f"operator@{MINE}")
    with teams.stream(key) as stream:
        stream.send(jpeg)
        assert "images" in json.loads(stream.recv(timeout=60))
        teams.set_loaded(operator, "unload")
        try:
            stream.send(jpeg)
            text = str(stream.recv(timeout=60))
        finally:
            teams.set_loaded(operator, "load")
    assert json.loads(text)["error"]["code"] == "not-found"
    assert "team-b" not in text


# --- whose streams ----------------------------------------------------------------------------------------------------


def test_one_key_cannot_hold_all_streams_of_video(teams: Teams, jpeg: bytes) -> None:
    """ASVS 15.2.2: the last quarter is for those who have none."""
    greedy, modest, third, fourth = (teams.key(name, "predictor") for name in ("greedy", "modest", "third", "fourth"))

    def refused(headers: dict[str, str]) -> tuple[int, str]:
        with pytest.raises(InvalidStatus) as caught, teams.stream(headers):
            pass
        answer = caught.value.response
        return answer.status_code, json.loads(answer.body or b"{}")["error"]["expected"]

    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(teams.stream(greedy)) for _ in range(6)]
        assert refused(greedy) == (503, "at most 6")
        asking = stack.enter_context(teams.stream(modest))
        asking.send(jpeg)
        assert "images" in json.loads(asking.recv(timeout=60))
        assert refused(modest) == (503, "at most 6"), "a second one is not a first one"
        stack.enter_context(teams.stream(third))
        assert refused(fourth) == (503, "at most 8")
        held[0].close()
        end = time.monotonic() + 10
        while True:  # the server learns it a moment later
            try:
                stack.enter_context(teams.stream(fourth))
                break
            except InvalidStatus:
                assert time.monotonic() < end
                time.sleep(0.05)
