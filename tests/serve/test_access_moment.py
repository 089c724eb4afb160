# SPDX-License-Identifier: Apache-2.0
"""Rights at the moment of the act: a request's head was let in, and its body ends after its sender has lost what they had.

Requests are trickled by hand: between the halves of a body something changes. Also what each may do about sessions, and who
decides which version answers.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.serve.gated import Answered, Gated, Headers, gated

from shipsight.access import SERVER, EventKind, Grant
from shipsight.serve.gate import GateRules
from shipsight.serve.grpc import GrpcServer
from shipsight.serve.grpc.messages import message

JSON = {"content-type": "application/json"}
ROLLOUT = "/v1/models/cups/rollout"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Gated]:
    with gated(tmp_path) as made:
        yield made


def ask(app: Gated, method: str, path: str, headers: Headers, body: bytes = b"", **more: Any) -> Answered:
    return asyncio.run(app.ask(method, path, {**headers, **(JSON if body else {})}, body, **more))


def ways_out(app: Gated, name: str) -> dict[str, Callable[[], object]]:
    """How somebody loses what they had."""
    directory, sessions = app.access.directory, app.access.sessions
    user_id = directory.user(name).id
    return {
        "disabled": lambda: directory.set_disabled(SERVER, user_id, True),
        "removed": lambda: directory.remove_user(SERVER, user_id),
        "signed-out": lambda: sessions.end_all(SERVER, user_id),
        "reduced": lambda: directory.set_grants(SERVER, "user", user_id, []),
    }


ADMINISTRATION = [
    ("POST", "/v1/access/users", b'{"name": "mallory", "grants": ["admin"]}'),
    ("PUT", "/v1/access/users/grace/grants", b'{"grants": ["admin"]}'),
    ("PUT", "/v1/access/groups/crew/grants", b'{"grants": ["admin"]}'),
    ("PUT", "/v1/access/roles/mine", b'{"actions": ["keys.release"]}'),
    ("POST", "/v1/access/keys", b'{"name": "mine", "grants": ["deployer"]}'),
    ("POST", "/v1/access/certificates", b'{"name": "c", "field": "subject", "value": "CN=c", "grants": ["deployer"]}'),
]


@pytest.mark.parametrize("meanwhile", ["disabled", "removed", "signed-out", "reduced"])
@pytest.mark.parametrize(("method", "path", "body"), ADMINISTRATION)
def test_a5_who_is_no_administrator_at_the_end_of_the_body_changes_nothing(
    app: Gated, method: str, path: str, body: bytes, meanwhile: str
) -> None:
    """A5, ASVS 7.4.2, 8.3.2: thirty seconds are given to a body."""
    app.person("root", "admin")
    app.person("grace")
    ada = app.person("ada", "admin")
    answered = ask(app, method, path, ada, body, meanwhile=ways_out(app, "ada")[meanwhile])
    assert answered.status == (403 if meanwhile == "reduced" else 401), answered.body
    assert app.events.of(EventKind.REFUSED)[-1].actor == "person:ada"
    directory = app.access.directory
    assert sorted(one.name for one in directory.users() if one.name != "ada") == ["grace", "root"]
    assert directory.grants("user", directory.user("grace").id) == directory.grants("group", "crew") == ()
    assert "mine" not in directory.roles()
    assert app.access.keys.list() == app.access.certificates.list() == []


@pytest.mark.parametrize(("method", "path", "body"), ADMINISTRATION)
def test_who_is_still_there_at_the_end_of_the_body_is_let_in_once_and_told_once(
    app: Gated, method: str, path: str, body: bytes
) -> None:
    app.person("grace")
    ada = app.person("ada", "admin")
    app.events.events.clear()
    assert ask(app, method, path, ada, body, meanwhile=lambda: None).status in (200, 201)
    # A key may be one's own affair: then the act alone is told.
    assert len(app.events.of(EventKind.ALLOWED)) == (0 if path.endswith("/keys") else 1)
    assert app.events.of(EventKind.REFUSED) == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("keys", b'{"name": "mine", "grants": ["viewer"], "owner": "me"}'),
        ("password", b'{"current": "three otters on a raft", "new": "seven kites over a lake"}'),
        ("factors/totp", b"{ }"),
        ("factors/totp/confirm", b'{"code": "000000"}'),
        ("factors/passkeys", b'{"challenge": "x", "credential": {}, "name": "mine"}'),
        ("factors/recovery-codes", b"{ }"),
        ("sessions/end-others", b"{ }"),
    ],
)
def test_a6_stolen_session_ends_in_the_middle_of_a_request(app: Gated, path: str, body: bytes) -> None:
    """A6, ASVS 7.4.3: the owner changed their password; nothing of the thief's is left behind."""
    ada = app.person("ada", "viewer")
    user = app.access.directory.user("ada")

    def dump() -> list[object]:
        return [app.access.keys.list(), app.access.factors.of(user.id), app.access.passkeys.list(user.id)]

    before = dump()
    answered = ask(app, "POST", f"/v1/access/{path}", ada, body, meanwhile=ways_out(app, "ada")["signed-out"])
    assert (answered.status, answered.json()["error"]["what"]) == (401, "this session has ended")
    assert dump() == before


def test_session_that_has_ended_hinders_nobody_who_signs_out_or_in(app: Gated) -> None:
    ada = app.person("ada", "viewer")
    ended = ways_out(app, "ada")["signed-out"]
    body = b'{"name": "ada", "password": "nonsense"}'
    answered = ask(app, "POST", "/v1/access/sign-in", ada, body, meanwhile=ended)
    assert answered.json()["error"]["what"] == "this is not accepted"
    again = app.session_of(app.access.directory.user("ada").id)
    assert ask(app, "POST", "/v1/access/sign-out", again, b"{ }", meanwhile=lambda: None).status == 200


ROLLOUTS = [
    ("PUT", ROLLOUT, b'{"canary": {"version": "2", "share": 0.1}}'),
    ("DELETE", ROLLOUT, b"{ }"),
    ("POST", f"{ROLLOUT}/promote", b'{"version": "2"}'),
    ("POST", f"{ROLLOUT}/rollback", b"{ }"),
    ("POST", "/v2/repository/models/cups/load", b"{ }"),
    ("POST", "/v2/repository/models/cups/unload", b"{ }"),
]


@pytest.mark.parametrize("how", ["grant", "key", "session"])
@pytest.mark.parametrize(("method", "path", "body"), ROLLOUTS)
def test_a5_models_are_changed_with_the_rights_of_the_moment(
    app: Gated, method: str, path: str, body: bytes, how: str
) -> None:
    """A5, ASVS 8.3.2. There is no such model: who may is told so (404)."""
    keys, directory = app.access.keys, app.access.directory
    headers = app.person("ada", "deployer") if how == "session" else app.key("ci", "deployer")
    (key,) = keys.list() or [None]
    lost: dict[str, Callable[[], object]] = {
        "grant": lambda: directory.set_grants(SERVER, "key", key.id if key else "", [Grant("viewer")]),
        "key": lambda: keys.revoke(SERVER, key.id if key else ""),
        "session": lambda: app.access.sessions.end_all(SERVER, directory.user("ada").id),
    }
    assert ask(app, method, path, headers, body, meanwhile=lambda: None).status == 404
    answered = ask(app, method, path, headers, body, meanwhile=lost[how])
    assert answered.status == (403 if how == "grant" else 401), answered.body


def test_a8_server_that_closes_in_the_middle_of_a_request_is_closed_to_it(tmp_path: Path) -> None:
    with gated(tmp_path, rules=GateRules(), origin="http://localhost:8000") as app:
        path, body = "/v2/repository/models/cups/load", b"{ }"
        assert ask(app, "POST", path, {}, body, host="localhost:8000", meanwhile=lambda: None).status == 404
        closed = lambda: app.access.directory.add_user(SERVER, "ada", grants=[Grant("admin")])  # noqa: E731 - once
        assert ask(app, "POST", path, {}, body, host="localhost:8000", meanwhile=closed).status == 401


def test_a8_who_reaches_an_open_server_makes_nobody_its_administrator(tmp_path: Path) -> None:
    """Another user of the machine would stay one; the owner's setup code would be worth nothing."""
    with gated(tmp_path, rules=GateRules(), origin="http://localhost:8000") as app:
        for method, path, body in ADMINISTRATION:
            answered = ask(app, method, path, {}, body, host="localhost:8000")
            assert answered.status == 403, (path, answered.body)
        told = ask(app, "GET", "/v1/access/session", {}, host="localhost:8000").json()
        assert (told["kind"], told["open"]) == ("loopback", True)
        assert not app.access.directory.knows_anyone()


def test_a5_call_over_grpc_has_the_rights_of_the_moment(app: Gated) -> None:
    """A5, ASVS 8.3.2: a message that comes slowly, and a key that ends meanwhile."""
    metadata = list(app.key("ci", "operator").items())
    (key,) = app.access.keys.list()
    request = message("RepositoryModelLoadRequest")(model_name="cups").SerializeToString()
    route = "/inference.GRPCInferenceService/RepositoryModelLoad"

    def call(port: int, meanwhile: Callable[[], object]) -> grpc.StatusCode:
        sends = threading.Event()

        def slowly() -> Iterator[bytes]:
            sends.wait(20)
            yield request

        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            calling = channel.stream_unary(route).future(slowly(), metadata=metadata, timeout=30)
            # Its head is there once what it may do was looked at.
            allowed = len(app.events.events)
            threading.Event().wait(0.5)
            meanwhile()
            sends.set()
            code: grpc.StatusCode = calling.code()
            assert len(app.events.events) >= allowed
            return code

    async def run() -> list[grpc.StatusCode]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        server = GrpcServer(app.protocol, app.metrics, host="127.0.0.1", port=port, logs_requests=False)
        await server.start()
        try:
            revoke = lambda: app.access.keys.revoke(SERVER, key.id)  # noqa: E731 - once
            return [await asyncio.to_thread(call, port, one) for one in (lambda: None, revoke)]
        finally:
            await server.stop(1)

    assert asyncio.run(run()) == [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED]


# --- which version answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "status"), [(0.49, 404), (0.5, 403), (1.0, 403)])
def test_a5_share_that_decides_takes_the_right_to_promote(app: Gated, share: float, status: int) -> None:
    """A5: the whole of a canary is a promotion. There is no such model: who may is told so (404)."""
    app.access.directory.apply_role(SERVER, _sharer())
    sharer, deployer = app.person("ada", "sharer"), app.person("grace", "deployer")
    body = b'{"canary": {"version": "2", "share": %.2f}}' % share
    answered = ask(app, "PUT", ROLLOUT, sharer, body)
    assert answered.status == status, answered.body
    if status == 403:
        assert answered.json()["error"]["expected"] == "rollout.promote"
    assert ask(app, "PUT", ROLLOUT, deployer, body).status == 404
    assert ask(app, "PUT", ROLLOUT, sharer, body.replace(b"canary", b"shadow")).status == 404


def _sharer() -> Any:
    from shipsight.access import Action, Role

    return Role("sharer", frozenset({Action.ROLLOUT_READ, Action.ROLLOUT_SHARE}))


# --- sessions -------------------------------------------------------------------------------------------------------------


def test_person_ends_all_their_sessions_but_this(app: Gated) -> None:
    """ASVS 7.4.3."""
    ada, grace = app.person("ada", "viewer"), app.person("grace", "viewer")
    user = app.access.directory.user("ada")
    others = [app.session_of(user.id) for _ in range(2)]
    answered = ask(app, "POST", "/v1/access/sessions/end-others", ada, b"{ }")
    assert (answered.status, answered.json()) == (200, {"ended": 2})
    assert [ask(app, "GET", "/v1/me", one).status for one in (ada, *others, grace)] == [200, 401, 401, 200]
    assert ask(app, "POST", "/v1/access/sessions/end-others", ada, b"{ }").json() == {"ended": 0}


def test_administrator_lists_and_ends_the_sessions_of_somebody(app: Gated) -> None:
    """ASVS 7.4.5, 7.5.3."""
    admin, reader = app.person("root", "admin"), app.person("reader", "viewer")
    theirs = [app.person("ada", "viewer"), app.session_of(app.access.directory.user("ada").id)]
    path = "/v1/access/users/ada/sessions"
    assert ask(app, "GET", path, reader).status == ask(app, "DELETE", path, reader).status == 403
    listed = ask(app, "GET", path, admin).json()["sessions"]
    own = ask(app, "GET", "/v1/access/sessions", theirs[0]).json()["sessions"]
    assert [{**one, "is_this": False} for one in own] == listed
    assert len(listed) == 2
    ended = ask(app, "DELETE", path, admin)
    assert (ended.status, ended.json()) == (200, {"ended": 2})
    assert [ask(app, "GET", "/v1/me", one).status for one in (*theirs, admin)] == [401, 401, 200]
    assert ask(app, "GET", "/v1/access/users/nobody/sessions", admin).status == 404
    told = [one for one in app.events.of(EventKind.SESSION_ENDED) if one.actor == "person:root"]
    assert [one.subject for one in told] == ["person:ada"] * 2


def test_key_that_proves_somebody_again_has_to_see_them(app: Gated) -> None:
    """ASVS 6.3.3, 7.5.3: at a session that is open, not only the key that is plugged in."""
    ada = app.person("ada", "viewer")
    asked = ask(app, "POST", "/v1/access/sign-in/passkey/options", ada, b"{ }").json()["options"]
    assert asked["userVerification"] == "required"
