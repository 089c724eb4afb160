# SPDX-License-Identifier: Apache-2.0
"""Every route and method of HTTP, WebSocket and gRPC, asked by every role, of its own models and another team's.

What each needs is written out by hand in `access_needs`. A route or method that is missing from the tables fails the build, and so does an
entry without one. Cases A5 of identity and H8 of HTTP; OWASP ASVS 5.0: 8.1.1, 8.2.1, 8.2.2, 8.3.1, 13.1 (deny by default).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from tests.serve.access_needs import BODIES, CALLS, NAMES_MODEL_IN_QUERY, NEEDS, NONSENSE, OWN_ACCOUNT, SOCKETS
from tests.serve.gated import Answered, Gated, Headers, gated

from shipsight.access import ROLES, SERVER, Action, Certificate, EventKind, Grant, Role
from shipsight.access.permissions import HUMAN_ACTIONS
from shipsight.serve.gate import Behind, GateRules
from shipsight.serve.grpc import GrpcServer
from shipsight.serve.grpc.messages import SERVICE
from shipsight.serve.http.admission import GuardedWebSocketRoute
from shipsight.serve.http.description import DescribedRoute
from shipsight.serve.http.principals import CLIENT_CERTIFICATE
from shipsight.serve.proxy_rules import ProxyRules

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
OWN, OTHERS = "team-a-cups", "team-b-bolts"

# --- who asks ---------------------------------------------------------------------------------------------------------

WHO = [
    "nobody",
    "nonsense",
    "not-enrolled",
    *(f"{role}{where}" for role in ROLES for where in ("", "@team-a-*")),
]
# One action each, so that just the routes open that need it.
ALONE = {f"only-{action.value.replace('.', '-')}": Role(f"only-{action.value.replace('.', '-')}", frozenset({action}))
         for action in Action}  # fmt: skip
ALL_ROLES = {**ROLES, **ALONE}
# Keys may not change access or read the audit log: those roles are for people.
MACHINES = [f"{role}{where}" for role in ("viewer", "predictor", "operator", "deployer") for where in ("", "@team-a-*")]
# A key of each role, a certificate, a person whom a proxy names, and people with one action.
OTHERS_WHO = [
    *(f"key:{one}" for one in MACHINES),
    *(f"certificate:{one}" for one in MACHINES),
    *(f"proxied:{role}{where}" for role in ("viewer", "predictor") for where in ("", "@team-a-*")),
    *(f"{role}{where}" for role in ALONE for where in ("", "@team-a-*")),
]


def grants_of(who: str) -> list[Grant]:
    return [] if who in ("nobody", "nonsense", "not-enrolled") else [Grant.parse(who.rpartition(":")[2])]


def expected(who: str, need: str, model: str) -> int | None:
    """The status of the refusal, None where it passes."""
    if need == "health":
        return None
    if who == "nonsense":
        return 401
    if need == "public":
        return None
    if who == "nobody":
        return 401
    if need == "enrolling":
        return None
    if who == "not-enrolled":
        return 403
    if need == "known":
        return None
    action, where = need.split()
    allowed = False
    for grant in grants_of(who):
        if Action(action) in ALL_ROLES[grant.role].actions:
            covers = {"all": grant.models == ("*",), "any": True, "model": grant.covers(model)}
            allowed = allowed or covers[where]
    return None if allowed else 403


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    with gated(tmp_path_factory.mktemp("matrix")) as made:
        yield made


@pytest.fixture(scope="module")
def askers(app: Gated) -> dict[str, Headers]:
    """Who asks -> what they send along: people with a session, as their own pages send it."""
    found: dict[str, Headers] = {"nobody": {}, "nonsense": {"authorization": "Bearer ssk_0123456789abcdef_nonsense"}}
    for number, who in enumerate(WHO):
        if who not in found:
            factors = ("password",) if who == "not-enrolled" else ("password", "totp")
            grants = ["deployer"] if who == "not-enrolled" else [who]
            found[who] = app.person(f"user{number}", *grants, factors=factors)
    return found


@dataclass(frozen=True)
class Asker:
    """Who asks: of which app, with what headers, over a connection with which certificate."""

    app: Gated
    headers: Headers
    extensions: Mapping[str, Any]
    client: tuple[str, int]


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    """An app behind a proxy that names people."""
    rules = GateRules(is_local=False, behind=Behind.PROXY, takes_user=True)
    proxy = ProxyRules(networks=(ipaddress.ip_network("192.0.2.1/32"),), user_header="X-Forwarded-User")
    with gated(tmp_path_factory.mktemp("proxied"), rules=rules, proxy=proxy) as made:
        yield made


@pytest.fixture(scope="module")
def others(app: Gated, proxied: Gated) -> dict[str, Asker]:
    """Who else asks."""
    for role in ALONE.values():
        app.access.directory.apply_role(SERVER, role)
    end, found = datetime.now(UTC) + timedelta(hours=1), {}
    for number, who in enumerate(OTHERS_WHO):
        kind, _, grant = who.rpartition(":")
        at, headers, extensions = app, {}, {}
        if kind == "key":
            headers = app.key(f"key{number}", grant)
        elif kind == "certificate":
            name = f"CN=camera-{number}"
            app.access.certificates.add(
                SERVER, f"camera-{number}", field="subject", value=name, grants=[Grant.parse(grant)]
            )
            shown = Certificate(name, (), "CN=clients", f"{number:x}", f"{number:064x}", end)
            extensions = {CLIENT_CERTIFICATE: shown}
        elif kind == "proxied":
            at = proxied
            at.access.directory.add_user(SERVER, f"user{number}", grants=[Grant.parse(grant)])
            headers = {"x-forwarded-user": f"user{number}"}
        else:
            headers = app.person(f"other{number}", grant)
        found[who] = Asker(at, headers, extensions, ("192.0.2.1", 5))
    return found


def routes_of(app: Any) -> list[Any]:
    while not hasattr(app, "routes"):
        app = app._app
    return list(app.routes)


def refusal(answered: Answered) -> int | None:
    return answered.status if answered.status in (401, 403) else None


def need_of(method: str, path: str) -> str | None:
    """What a request needs; None where no route takes the method. A path may fit another's pattern, too."""
    method = "GET" if method == "HEAD" else method
    if (method, path) in NEEDS:
        return NEEDS[method, path]
    asked = place(path, OWN).partition("?")[0]
    for (other, wide), need in NEEDS.items():
        if other == method and re.fullmatch(re.sub(r"{\w+(:\w+)?}", "[^/]+", wide), asked):
            return need
    return None


def place(path: str, model: str) -> str:
    found = re.sub(r"{(\w+)(:\w+)?}", lambda one: model if one[1] == "model" else "1", path)
    return f"{found}?model={model}" if path in NAMES_MODEL_IN_QUERY else found


def test_every_route_says_what_it_needs_and_stands_in_the_table(app: Gated) -> None:
    routes = routes_of(app.app)
    assert [one for one in routes if not isinstance(one, DescribedRoute | GuardedWebSocketRoute)] == []
    found = {(one.method, one.path) for one in routes if isinstance(one, DescribedRoute)}
    assert found - set(NEEDS) == set(), "write down what these need"
    assert set(NEEDS) - found == set(), "these are gone"
    assert {one.path for one in routes if isinstance(one, GuardedWebSocketRoute)} == set(SOCKETS)
    assert all(one.methods == {one.method} | ({"HEAD"} if one.method == "GET" else set()) for one in routes
               if isinstance(one, DescribedRoute))  # fmt: skip


def test_every_method_of_grpc_stands_in_the_table() -> None:
    services = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"])
    assert {f"/{one.full_name}/{method.name}" for one in services for method in one.methods} == set(CALLS)


@pytest.mark.parametrize("who", WHO)
def test_a_role_gets_what_it_is_granted_and_nothing_else_over_http(
    app: Gated, askers: dict[str, Headers], who: str
) -> None:
    """ASVS 8.2.1, 8.2.2, 8.2.3, 8.3.1; cases A5, H8."""
    paths = sorted({path for _, path in NEEDS})

    async def run() -> list[str]:
        wrong = []
        for path in paths:
            for method in METHODS:
                need = need_of(method, path)
                for model in (OWN, OTHERS) if need is not None else (OWN,):
                    body = b"" if method in ("GET", "HEAD") else BODIES.get((method, path), NONSENSE)
                    headers = {**askers[who], **({"content-type": "application/json"} if body else {})}
                    answered = await app.ask(method, place(path, model), headers, body)
                    if need is None:
                        is_right = answered.status == 405
                    else:
                        is_right = (refusal(answered) == expected(who, need, model) and answered.status < 500) or (
                            need == "health" and answered.status == 503
                        )
                    if not is_right:
                        wrong.append(f"{method} {path} of {model}: {answered.status} {answered.body[:120]!r}")
        return wrong

    assert asyncio.run(run()) == []


@pytest.mark.parametrize("who", WHO)
def test_a_role_gets_what_it_is_granted_and_nothing_else_over_websockets(
    app: Gated, askers: dict[str, Headers], who: str
) -> None:
    """ASVS 8.2.1, 8.2.2; case A5."""

    async def run() -> list[str]:
        wrong = []
        for path, need in SOCKETS.items():
            for model in (OWN, OTHERS):
                status = await app.open_socket(place(path, model), askers[who])
                # No model is served here: whoever may ask is told so.
                if status != (expected(who, need, model) or 404):
                    wrong.append(f"{path} of {model}: {status}")
        return wrong

    assert asyncio.run(run()) == []


# Of one's own account much is for people alone, whatever a machine may do elsewhere.
PEOPLES = {one for one, need in OWN_ACCOUNT.items() if need != "public"} - {("POST", "/v1/access/sign-out")}


@pytest.mark.parametrize("who", OTHERS_WHO)
def test_a5_machines_people_a_proxy_names_and_roles_of_one_action_get_what_they_are_granted(
    others: dict[str, Asker], who: str
) -> None:
    """ASVS 8.2.1, 8.2.2, 8.3.1; cases A5, A7."""
    asker, is_machine = others[who], who.startswith(("key:", "certificate:"))

    async def run() -> list[str]:
        wrong = []
        for (method, path), need in NEEDS.items():
            for model in (OWN, OTHERS):
                is_bare = method == "GET" or (is_machine and method == "DELETE" and (method, path) in PEOPLES)
                body = b"" if is_bare else BODIES.get((method, path), NONSENSE)
                headers = {**asker.headers, **({"content-type": "application/json"} if body else {})}
                answered = await asker.app.ask(
                    method, place(path, model), headers, body, client=asker.client, extensions=asker.extensions
                )
                wanted = expected(who, need, model)
                if is_machine and (method, path) in PEOPLES:
                    is_right = answered.status in ((403,) if method in ("GET", "DELETE") else (400, 403))
                else:
                    is_right = refusal(answered) == wanted and (answered.status < 500 or need == "health")
                if not is_right:
                    wrong.append(f"{method} {path} of {model}: {answered.status} {answered.body[:120]!r}")
        for path, need in SOCKETS.items():
            for model in (OWN, OTHERS):
                status = await asker.app.open_socket(place(path, model), asker.headers, extensions=asker.extensions)
                if status != (expected(who, need, model) or 404):
                    wrong.append(f"{path} of {model}: {status}")
        return wrong

    assert asyncio.run(run()) == []


def test_every_action_opens_some_route_or_is_written_down_here_as_opening_none() -> None:
    opened = {need.split()[0] for need in (*NEEDS.values(), *SOCKETS.values(), *CALLS.values()) if "." in need}
    # What these allow is not served yet.
    later = {
        "labels.read",
        "keys.release",
    }
    assert opened | later == set(Action)
    assert not opened & later


# --- gRPC ------------------------------------------------------------------------------------------------------------

# People have no way in here.
MACHINE_ALONE = [role for role, one in ALONE.items() if not one.actions & HUMAN_ACTIONS]
KEYS = ["nobody", "nonsense", *MACHINES, *(f"{role}{where}" for role in MACHINE_ALONE for where in ("", "@team-a-*"))]
REFUSED = {grpc.StatusCode.UNAUTHENTICATED: 401, grpc.StatusCode.PERMISSION_DENIED: 403}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def grpc_request(route: str, model: str) -> bytes:
    """A request that names a model, and that is refused for another reason where it would change something."""
    from shipsight.serve.grpc.messages import message

    name = route.rpartition("/")[2]
    if route.startswith("/grpc.health"):
        return b""
    request = message(f"{name.replace('ModelStreamInfer', 'ModelInfer')}Request")()
    for field in ("name", "model_name"):
        if field in request.DESCRIPTOR.fields_by_name:
            setattr(request, field, model)
    if name in ("RepositoryModelLoad", "RepositoryModelUnload"):
        request.parameters["nonsense"].bool_param = True
    return bytes(request.SerializeToString())


def call(channel: grpc.Channel, route: str, request: bytes, metadata: list[tuple[str, str]]) -> grpc.StatusCode:
    """Calls a method as its clients do, and returns how it ended; a stream without end, how it began.

    Not by gRPC's asyncio client: a stream that is refused while it still sends ends as INTERNAL there, now and then.
    """
    try:
        if route.endswith("Watch"):
            watching = channel.unary_stream(route)(request, metadata=metadata)
            next(watching)
            watching.cancel()
        elif route.endswith("ModelStreamInfer"):
            for _ in channel.stream_stream(route)(iter([request]), metadata=metadata):
                continue
        else:
            channel.unary_unary(route)(request, metadata=metadata)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_a_role_gets_what_it_is_granted_and_nothing_else_over_grpc(app: Gated, others: dict[str, Asker]) -> None:
    """ASVS 8.2.1, 8.2.2; case A5."""
    shown: dict[str, list[tuple[str, str]]] = {"nobody": [], "nonsense": [("authorization", "Bearer ssk_0_nonsense")]}
    for number, who in enumerate(KEYS[2:]):
        shown[who] = list(app.key(f"grpc{number}", who).items())

    async def run() -> list[str]:
        wrong, port = [], free_port()
        server = GrpcServer(app.protocol, app.metrics, host="127.0.0.1", port=port, logs_requests=False)
        await server.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                for who in KEYS:
                    for route, need in CALLS.items():
                        for model in (OWN, OTHERS):
                            request = grpc_request(route, model)
                            code = await asyncio.to_thread(call, channel, route, request, shown[who])
                            if REFUSED.get(code) != expected(who, need, model) or code is grpc.StatusCode.INTERNAL:
                                wrong.append(f"{who} {route} of {model}: {code.name}")
        finally:
            await server.stop(1)
        return wrong

    assert asyncio.run(run()) == []


# --- what is recorded -------------------------------------------------------------------------------------------------


def test_every_refusal_and_every_change_is_an_event(app: Gated, askers: dict[str, Headers]) -> None:
    """ASVS 16.3.2, 16.3.3."""

    async def run() -> None:
        app.events.events.clear()
        path = f"/v1/models/{OTHERS}/rollout/promote"
        assert (await app.ask("POST", path, askers["viewer"], NONSENSE)).status == 403
        assert (await app.ask("POST", path, askers["deployer"], NONSENSE)).status == 400

    asyncio.run(run())
    (refused,), (allowed,) = app.events.of(EventKind.REFUSED), app.events.of(EventKind.ALLOWED)
    assert (refused.why, refused.subject, refused.address) == ("forbidden", f"model:{OTHERS}", "192.0.2.1")
    assert refused.details == {"action": "rollout.promote", "route": "POST /v1/models/{model}/rollout/promote"}
    assert (allowed.subject, allowed.details["action"]) == (f"model:{OTHERS}", "rollout.promote")
    assert refused.actor.startswith("person:user")


def test_refusals_over_websockets_and_grpc_are_events(app: Gated) -> None:
    """ASVS 16.3.2."""
    key, route = app.key("events", "viewer@team-a-*"), "/inference.GRPCInferenceService/ModelInfer"

    async def run() -> None:
        app.events.events.clear()
        assert await app.open_socket(f"/v1/models/{OTHERS}/stream", key) == 403
        port = free_port()
        server = GrpcServer(app.protocol, app.metrics, host="127.0.0.1", port=port, logs_requests=False)
        await server.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                for metadata in (list(key.items()), []):
                    await asyncio.to_thread(call, channel, route, grpc_request(route, OTHERS), metadata)
        finally:
            await server.stop(1)

    asyncio.run(run())
    told = [(one.actor.partition(".")[0], one.why, one.details["route"], one.address) for one in
            app.events.of(EventKind.REFUSED)]  # fmt: skip
    assert told == [
        ("key:events", "forbidden", "WEBSOCKET /v1/models/{model}/stream", "192.0.2.1"),
        ("key:events", "forbidden", route, "127.0.0.1"),
        ("nobody", "unauthenticated", route, "127.0.0.1"),
    ]


def test_events_of_credentials_tell_where_they_were_shown(app: Gated) -> None:
    """ASVS 16.2.1: also those that are told far from the request."""
    session, at = app.person("told", "viewer", factors=("password",)), ("192.0.2.77", 5)
    stranger = Certificate("CN=x", (), "CN=ca", "1", "ab" * 32, datetime.now(UTC) + timedelta(hours=1))
    wrong = {"authorization": f"Bearer ssk_{'0' * 16}_{'A' * 43}"}
    body = b'{"password": "seven kites over a lake"}'

    async def run() -> None:
        app.events.events.clear()
        assert (await app.ask("GET", "/v1/me", wrong, client=at)).status == 401
        shown = {CLIENT_CERTIFICATE: stranger}
        assert (await app.ask("GET", "/v1/me", client=at, extensions=shown)).status == 403
        sent = {**session, "content-type": "application/json"}
        assert (await app.ask("POST", "/v1/access/step-up", sent, body, client=at)).status == 401

    asyncio.run(run())
    kinds = {EventKind.KEY_REFUSED, EventKind.CERTIFICATE_REFUSED, EventKind.STEP_UP, EventKind.REFUSED}
    assert {one.kind for one in app.events.events} == kinds
    assert {one.address for one in app.events.events} == {"192.0.2.77"}


def test_what_cannot_be_recorded_is_not_done(app: Gated, askers: dict[str, Headers]) -> None:
    """ASVS 16.5.3."""
    app.events.fails = True
    try:
        answered = asyncio.run(app.ask("POST", f"/v1/models/{OWN}/rollout/promote", askers["deployer"], NONSENSE))
    finally:
        app.events.fails = False
    assert answered.status == 500
