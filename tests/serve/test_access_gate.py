# SPDX-License-Identifier: Apache-2.0
"""Who a request is taken for, by what it shows; what pages may do with a session; who a proxy may vouch for."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.model.conftest import CARD
from tests.serve.gated import HOST, ORIGIN, Answered, Gated, gated

from shipsight.access import AUDIT_ACTIONS, SERVER, Action, Certificate, EventKind, Grant
from shipsight.access.store.tables import users
from shipsight.errors import ForbiddenError
from shipsight.serve.gate import Behind, GateRules
from shipsight.serve.http.principals import CLIENT_CERTIFICATE
from shipsight.serve.models import ServedModel
from shipsight.serve.proxy_rules import ProxyRules

ME, ROLLOUT = "/v1/me", "/v1/models/team-a-cups/rollout"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Gated]:
    with gated(tmp_path) as made:
        yield made


def ask(app: Gated, method: str, path: str, headers: Any = (), body: bytes = b"", **more: Any) -> Answered:
    given = headers if isinstance(headers, dict) else list(headers)
    return asyncio.run(app.ask(method, path, given, body, **more))


def certificate(subject: str = "CN=camera-1", *, ends_in_s: float = 3600) -> Certificate:
    end = datetime.now(UTC) + timedelta(seconds=ends_in_s)
    return Certificate(subject, ("DNS:camera-1",), "CN=ca", "1", "ab" * 32, end)


# --- credentials ------------------------------------------------------------------------------------------------------


def test_a_key_is_taken_in_both_of_its_headers(app: Gated) -> None:
    text = app.key("line-1", "predictor")["authorization"].partition(" ")[2]
    for headers in ({"authorization": f"Bearer {text}"}, {"authorization": f"bearer {text}"}, {"x-api-key": text}):
        told = ask(app, "GET", ME, headers).json()
        assert (told["kind"], told["name"].partition(".")[0]) == ("key", "line-1")


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", "Basic YWRhOnBhc3N3b3Jk")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer ")],
        [("authorization", "Bearer eyJhbGciOiJub25lIn0.e30.")],
        [("authorization", "Bearer ssk_0123456789abcdef_" + "A" * 43)],
        [("authorization", "Bearer " + "A" * 100_000)],
        [("authorization", "ssk_0123456789abcdef_x")],
        [("x-api-key", "")],
        [("x-api-key", "ssk__")],
        [("x-api-key", "\xff\xfe")],
    ],
    ids=lambda one: str(one)[:60],
)
def test_what_is_no_key_is_refused_also_where_anyone_may_ask_but_never_by_a_probe(
    app: Gated, headers: list[tuple[str, str]]
) -> None:
    for path in (ME, "/", "/v1/models", "/pages/page.css"):
        answered = ask(app, "GET", path, headers)
        assert answered.status == 401, path
        assert answered.headers["www-authenticate"] == 'Bearer realm="shipsight"'
        assert answered.json()["error"]["code"] == "unauthenticated"
    for path in ("/healthz", "/readyz", "/v2/health/ready", "/ping"):
        assert ask(app, "GET", path, headers).status in (200, 503), path


def test_nothing_in_a_url_is_a_credential(app: Gated) -> None:
    """ASVS 14.2.1."""
    text = app.key("line-1", "predictor")["authorization"].partition(" ")[2]
    for name in ("access_token", "token", "api_key", "key", "authorization", "x-api-key", "shipsight"):
        assert ask(app, "GET", f"{ME}?{name}={text}").status == 401


def test_more_than_one_credential_is_refused(app: Gated) -> None:
    session, key, other = app.person("ada", "viewer"), app.key("a", "viewer"), app.key("b", "viewer")
    text = other["authorization"].partition(" ")[2]
    assert ask(app, "GET", ME, {**session, **key}).status == 401
    assert ask(app, "GET", ME, {**key, "x-api-key": text}).status == 401
    assert ask(app, "GET", ME, [*key.items(), *other.items()]).status == 401
    assert ask(app, "GET", ME, {**session, "x-api-key": text}).status == 401
    value = session["cookie"]
    assert ask(app, "GET", ME, [("cookie", value), ("cookie", "__Host-shipsight=other")]).status == 401
    assert ask(app, "GET", ME, {"cookie": f"{value}; __Host-shipsight=other"}).status == 401
    assert ask(app, "GET", ME, [*other.items(), ("x-api-key", text)]).status == 200


def test_a_cookie_counts_under_the_name_that_binds_it_to_its_host_alone(app: Gated) -> None:
    """ASVS 3.3.1, 3.3.3: a neighbour can set `shipsight`, but not `__Host-shipsight`."""
    token = app.person("ada", "viewer")["cookie"].partition("=")[2]
    assert ask(app, "GET", ME, {"cookie": f"shipsight={token}"}).status == 401
    assert ask(app, "GET", ME, {"cookie": f"a=b; __Host-shipsight={token}; c=d"}).status == 200


def test_a_session_that_has_ended_is_refused_but_its_owner_can_sign_in_again(app: Gated) -> None:
    """Case A6."""
    session = app.person("ada", "viewer")
    app.access.directory.set_disabled(SERVER, app.access.directory.user("ada").id, True)
    assert ask(app, "GET", ME, session).status == 401
    # Browsers send a cookie unasked: the page that lets its owner in again must come.
    assert ask(app, "GET", "/", session).status == 200


def test_a_late_answer_to_a_token_that_was_renewed_takes_nothing_from_the_browser(app: Gated) -> None:
    """Two requests of a page cross: one proves its person again, the other still brings the token of before."""
    session = app.person("ada", "viewer")
    token = session["cookie"].partition("=")[2]
    renewed = app.access.sessions.prove(token, factors=["password"])
    late = ask(app, "GET", ME, session)
    assert (late.status, late.cookies) == (401, [])
    assert ask(app, "GET", ME, {"cookie": f"__Host-shipsight={renewed.token}"}).status == 200


# --- certificates ------------------------------------------------------------------------------------------------------


def test_a7_a_certificate_stands_for_whom_it_was_added_for_and_else_for_nobody(app: Gated) -> None:
    """ASVS 12.1.3."""
    shown = {CLIENT_CERTIFICATE: certificate()}
    assert ask(app, "GET", ME, extensions=shown).status == 403
    assert ask(app, "GET", "/", extensions=shown).status == 200
    app.access.certificates.add(
        SERVER, "camera-1", field="subject", value="CN=camera-1", kind="device", grants=[Grant("predictor")]
    )
    told = ask(app, "GET", ME, extensions=shown).json()
    assert (told["kind"], told["name"]) == ("device", "camera-1")
    assert ask(app, "GET", "/v1/models", extensions={CLIENT_CERTIFICATE: certificate("CN=camera-2")}).status in (
        200,
        403,
    )
    assert ask(app, "POST", f"{ROLLOUT}/promote", extensions=shown).status == 403
    # With a credential beside it, it would be unclear who asks.
    assert ask(app, "GET", ME, app.key("a", "viewer"), extensions=shown).status == 401
    (entry,) = app.access.certificates.list()
    app.access.certificates.remove(SERVER, entry.id)
    assert ask(app, "GET", ME, extensions=shown).status == 403


def test_a7_a_certificate_that_is_named_in_a_header_is_nothing(app: Gated) -> None:
    """ASVS 4.1.3; the headers of nginx, Envoy, HAProxy, AWS and Traefik."""
    app.access.certificates.add(SERVER, "camera-1", field="subject", value="CN=camera-1", grants=[Grant("deployer")])
    for name in (
        "x-client-cert", "x-forwarded-client-cert", "x-ssl-client-s-dn", "x-ssl-client-cert", "x-amzn-mtls-clientcert",
        "x-forwarded-tls-client-cert", "client-cert", "ssl-client-subject-dn", "x-forwarded-user", "remote-user",
    ):  # fmt: skip
        assert ask(app, "GET", ME, {name: "CN=camera-1"}).status == 401, name


# --- pages -------------------------------------------------------------------------------------------------------------


def without(headers: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in names}


def test_a6_what_changes_something_by_a_cookie_needs_the_sessions_token_and_a_page_of_ours(app: Gated) -> None:
    """ASVS 3.5.1, 3.5.2, 3.5.3."""
    session = app.person("ada", "deployer")
    bare = without(session, "origin", "x-csrf-token")
    token = {"x-csrf-token": session["x-csrf-token"]}
    allowed = {
        "Origin": {**bare, **token, "origin": ORIGIN},
        "Sec-Fetch-Site": {**bare, **token, "sec-fetch-site": "same-origin"},
        "both": {**bare, **token, "origin": ORIGIN, "sec-fetch-site": "same-origin"},
    }
    for name, headers in allowed.items():
        assert ask(app, "POST", f"{ROLLOUT}/promote", headers, b'{"x": 1}').status == 400, name
    refused = {
        "no token": {**bare, "origin": ORIGIN},
        "another token": {**bare, "x-csrf-token": "A" * 43, "origin": ORIGIN},
        "token that is no text": {**bare, "x-csrf-token": "\xff", "origin": ORIGIN},
        "no page named": {**bare, **token},
        "another origin": {**bare, **token, "origin": "https://evil.example"},
        "null origin": {**bare, **token, "origin": "null"},
        "plain origin": {**bare, **token, "origin": f"http://{HOST}"},
        "another port": {**bare, **token, "origin": f"{ORIGIN}:8443"},
        "subdomain": {**bare, **token, "origin": f"https://a.{HOST}"},
        "same site": {**bare, **token, "sec-fetch-site": "same-site"},
        "cross site": {**bare, **token, "sec-fetch-site": "cross-site", "origin": ORIGIN},
        "typed address": {**bare, **token, "sec-fetch-site": "none"},
    }
    for name, headers in refused.items():
        for method, path in (("POST", f"{ROLLOUT}/promote"), ("DELETE", ROLLOUT), ("PUT", ROLLOUT)):
            answered = ask(app, method, path, headers, b'{"x": 1}')
            assert (answered.status, answered.json()["error"]["code"]) == (403, "forbidden"), name
    assert ask(app, "GET", ROLLOUT, bare).status == 404  # what is only read needs neither


def test_a6_a_page_of_another_site_opens_no_websocket_with_a_session(app: Gated) -> None:
    """ASVS 4.4.2: cross-site WebSocket hijacking."""
    session, path = app.person("ada", "predictor"), "/v1/models/team-a-cups/stream"
    bare = without(session, "origin", "x-csrf-token")

    def opened(headers: dict[str, str]) -> int:
        return asyncio.run(app.open_socket(path, headers))

    assert opened(session) == 404  # let in: there is no such model
    for headers in (bare, {**bare, "origin": "https://evil.example"}, {**bare, "origin": "null"}):
        assert opened(headers) == 403
    assert opened({**bare, "sec-fetch-site": "same-origin"}) == 403
    assert opened(app.key("line-1", "predictor")) == 404  # programs name no page


def test_a6_pages_of_the_public_address_alone_count_where_one_is_given(tmp_path: Path) -> None:
    with gated(tmp_path, public_url="https://vision.example:8443") as app:
        session = app.person("ada", "deployer")
        for origin, status in (("https://vision.example:8443", 400), (ORIGIN, 403)):
            headers = {**session, "origin": origin}
            assert ask(app, "POST", f"{ROLLOUT}/promote", headers, b'{"x": 1}').status == status


def test_a6_a_page_at_the_public_address_signs_in_where_a_proxy_rewrites_the_host(tmp_path: Path) -> None:
    with gated(tmp_path, public_url="https://vision.example:8443") as app:
        body = b'{"name": "ada", "password": "three otters on a raft"}'
        for origin, status in (("https://vision.example:8443", 401), ("https://internal:8000", 403), (ORIGIN, 403)):
            headers = {"content-type": "application/json", "origin": origin}
            assert ask(app, "POST", "/v1/access/sign-in", headers, body, host="internal:8000").status == status, origin


FOREIGN: tuple[dict[str, str], ...] = (
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": f"http://{HOST}"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site", "origin": ORIGIN},
    {"sec-fetch-site": "same-origin", "origin": "https://evil.example"},
)
OURS: tuple[dict[str, str], ...] = (
    {},
    {"origin": ORIGIN},
    {"sec-fetch-site": "same-origin", "origin": ORIGIN},
    {"sec-fetch-site": "none"},
)
FORM = {"content-type": "application/x-www-form-urlencoded"}
UNLOAD, STREAM = "/v2/repository/models/team-a-cups/unload", "/v1/models/team-a-cups/stream"
PREDICT = "/v1/models/team-a-cups/predict"
PATHS = (UNLOAD, f"{ROLLOUT}/promote")


def test_a6_a_page_of_another_site_does_nothing_by_a_certificate_that_the_browser_shows(app: Gated) -> None:
    """ASVS 3.5.1, 3.5.3, 4.4.2: browsers show certificates unasked."""
    shown = {CLIENT_CERTIFICATE: certificate()}
    grants = [Grant("deployer"), Grant("predictor")]
    app.access.certificates.add(SERVER, "desk-1", field="subject", value="CN=camera-1", grants=grants)

    def statuses(page: dict[str, str]) -> list[int]:
        asked = [ask(app, "POST", path, {**page, **FORM}, b"x=1", extensions=shown) for path in PATHS]
        return [*(one.status for one in asked), asyncio.run(app.open_socket(STREAM, page, extensions=shown))]

    for page in OURS:
        assert 403 not in statuses(page), page
    for page in FOREIGN:
        assert statuses(page) == [403] * 3, page
    assert ask(app, "GET", ME, FOREIGN[0], extensions=shown).status == 200  # what is only read has no effect


def test_a6_a_page_of_another_site_does_nothing_by_what_a_proxy_signed_the_browser_in_with(tmp_path: Path) -> None:
    """ASVS 3.5.1, 3.5.3, 4.4.2: the proxy's cookie comes along unasked."""
    rules = GateRules(is_local=False, behind=Behind.PROXY, takes_user=True)
    with gated(tmp_path, rules=rules, proxy=PEERS) as app:
        app.person("ada", "deployer", "predictor")
        person = {"x-forwarded-user": "ada"}

        def statuses(page: dict[str, str]) -> list[int]:
            # What a proxy's word is enough for.
            asked = ask(app, "POST", PREDICT, {**person, **page, **FORM}, b"x=1")
            return [asked.status, asyncio.run(app.open_socket(STREAM, {**person, **page}))]

        for page in OURS:
            assert 403 not in statuses(page), page
        for page in FOREIGN:
            if page != {"origin": f"http://{HOST}"}:  # what browsers speak with the proxy is not known here
                assert statuses(page) == [403] * 2, page


def test_a_page_of_another_site_may_show_a_key(app: Gated) -> None:
    """Whoever has a key shows it on purpose, also from a page of their own."""
    key = app.key("dashboard", "deployer")
    for page in FOREIGN:
        assert ask(app, "POST", UNLOAD, {**key, **page}).status == 404


# --- factors and freshness ---------------------------------------------------------------------------------------------


def test_who_has_to_add_a_second_factor_may_do_nothing_else(app: Gated) -> None:
    """ASVS 6.3.3."""
    session = app.person("ada", "deployer", factors=("password",))
    answered = ask(app, "GET", "/v1/models", session)
    assert (answered.status, answered.json()["error"]["hint"]) == (403, "Add a second factor first.")
    assert set(ask(app, "GET", "/readyz", session).json()) == {"status"}


def test_what_is_sensitive_needs_a_fresh_proof_of_people_and_of_nobody_else(app: Gated) -> None:
    """ASVS 7.5.3; case A5, step-up."""
    session, key = app.person("ada", "deployer"), app.key("ci", "deployer")
    at = datetime.now(UTC) + timedelta(seconds=app.access.settings.fresh_s + 1)
    app.gate.now = lambda: at
    answered = ask(app, "POST", f"{ROLLOUT}/promote", session, b'{"x": 1}')
    assert (answered.status, answered.json()["error"]["code"]) == (401, "step-up")
    assert 'error="insufficient_user_authentication"' in answered.headers["www-authenticate"]
    for method in ("PUT", "DELETE"):
        assert ask(app, method, ROLLOUT, session, b'{"x": 1}').json()["error"]["code"] == "step-up"
        assert ask(app, method, ROLLOUT, key, b'{"x": 1}').status == 400
    assert ask(app, "POST", "/v2/repository/models/cups/load", session, b"1").status == 400, "taken back as easily"
    assert ask(app, "POST", f"{ROLLOUT}/promote", key, b'{"x": 1}').status == 400


# --- what is told to whom -----------------------------------------------------------------------------------------------


def test_readiness_tells_the_unknown_its_status_alone(app: Gated) -> None:
    assert set(ask(app, "GET", "/readyz").json()) == {"status"}
    assert set(ask(app, "GET", "/readyz", app.key("a", "viewer")).json()) == {"status", "models", "hopeless", "load"}


@pytest.mark.parametrize("path", ["/v1/models/{}", "/v2/models/{}", "/v2/models/{}/stats", "/v2/models/{}/ready"])
def test_a_refusal_is_the_same_for_a_model_that_is_there_and_one_that_is_not(app: Gated, path: str) -> None:
    key = app.key("a", "viewer@team-a-*")
    with_model(app, "team-b-bolts")
    there, not_there = (
        ask(app, "GET", path.format(name), key).body.replace(name.encode(), b"NAME")
        for name in ("team-b-bolts", "team-b-other")
    )
    assert there == not_there
    image = ask(app, "GET", path.format("team-b-bolts_image"), key).body.replace(b"team-b-bolts_image", b"NAME")
    assert image == there


def test_lists_and_errors_name_no_model_that_may_not_be_seen(app: Gated) -> None:
    """ASVS 8.2.2, 8.2.3."""
    key = app.key("a", "operator@team-a-*")
    for name in ("team-a-cups", "team-b-bolts"):
        with_model(app, name)
    for method, path in (
        ("GET", "/v1/models"),
        ("GET", "/v2/models/stats"),
        ("POST", "/v2/repository/index"),
        ("GET", "/readyz"),
        ("GET", "/v1/models/team-a-gone"),
        ("GET", "/v2/models/team-a-gone"),
        ("POST", "/v1/models/team-a-gone/predict"),
        ("GET", "/v1/models/team-a-gone/rollout"),
        ("POST", "/v2/repository/models/team-a-gone/load"),
        ("POST", "/invocations?model=team-a-gone"),
    ):
        answered = ask(app, method, path, key)
        assert b"team-b" not in answered.body, path
        assert answered.status in (200, 404, 503), (path, answered.body)
    assert b"team-a-cups" in ask(app, "GET", "/v1/models", key).body
    # Of those that may be asked there is one: no need to name it.
    assert ask(app, "POST", "/invocations", key, b"x").json()["error"]["code"] != "usage"


def with_model(app: Gated, name: str) -> None:
    """Puts a model into service that is still being loaded."""
    model = ServedModel(
        name=name,
        version="1",
        path=Path(name),
        digest="00",
        card=replace(CARD, name=name),
        default_variant="none",
        lane=app.service._scheduler.open_lane(name),
    )
    app.service.models._versions[name] = {"1": model}


# --- proxies ------------------------------------------------------------------------------------------------------------

PEERS = ProxyRules(networks=(ipaddress.ip_network("192.0.2.0/28"),), user_header="X-Forwarded-User")
SECRET = ProxyRules(secret="a secret of the proxy", user_header="X-Forwarded-User")
BOTH = ProxyRules(networks=PEERS.networks, secret=SECRET.secret, user_header="X-Forwarded-User")
SOCKET = ProxyRules(has_socket=True, user_header="X-Forwarded-User")
THROUGH = ("192.0.2.1", 5)
BESIDE = ("192.0.2.99", 5)
TOLD = {"x-forwarded-user": "ada", "x-forwarded-for": "203.0.113.9, 198.51.100.7"}
WITH_SECRET = {**TOLD, "x-shipsight-proxy-secret": "a secret of the proxy"}


@pytest.mark.parametrize(
    ("proxy", "headers", "client", "is_believed"),
    [
        (PEERS, TOLD, THROUGH, True),
        (PEERS, TOLD, ("::ffff:192.0.2.1", 5), True),
        (PEERS, TOLD, BESIDE, False),
        (PEERS, {**TOLD, "x-forwarded-for": "192.0.2.1"}, BESIDE, False),
        (PEERS, TOLD, None, False),
        (SECRET, WITH_SECRET, BESIDE, True),
        (SECRET, TOLD, THROUGH, False),
        (SECRET, {**TOLD, "x-shipsight-proxy-secret": "a secret of the proxi"}, THROUGH, False),
        (SECRET, {**TOLD, "x-shipsight-proxy-secret": ""}, THROUGH, False),
        (BOTH, WITH_SECRET, THROUGH, True),
        (BOTH, WITH_SECRET, BESIDE, False),
        (BOTH, TOLD, THROUGH, False),
        (SOCKET, TOLD, None, True),
        (SOCKET, TOLD, THROUGH, False),
        (None, WITH_SECRET, THROUGH, False),
    ],
)
def test_a_person_is_believed_from_the_operators_proxy_alone(
    tmp_path: Path, proxy: ProxyRules | None, headers: dict[str, str], client: Any, *, is_believed: bool
) -> None:
    """ASVS 4.1.3."""
    rules = GateRules(is_local=False, behind=Behind.PROXY, takes_user=True)
    with gated(tmp_path, rules=rules, proxy=proxy) as app:
        app.person("ada", "viewer")
        answered = ask(app, "GET", ME, headers, client=client)
        assert answered.status == (200 if is_believed else 401)
        if is_believed:
            assert answered.json()["name"] == "ada"
            assert ask(app, "POST", "/v1/models/a/predict", headers, client=client).status == 403
            refused = app.events.of(EventKind.REFUSED)[-1]
            assert (refused.actor, refused.address) == ("person:ada", "198.51.100.7")


def test_a_proxy_names_people_by_their_names_and_those_alone(tmp_path: Path) -> None:
    rules = GateRules(is_local=False, behind=Behind.PROXY, takes_user=True)
    with gated(tmp_path, rules=rules, proxy=PEERS) as app:
        app.person("ada", "viewer")
        user = app.access.directory.user("ada")
        for name, status in (("ada", 200), ("Ada", 200), (user.id, 403), ("grace", 403), ("ada\x00", 401), ("", 401)):
            assert ask(app, "GET", "/v1/models", {"x-forwarded-user": name}).status == status, name
        twice = [("x-forwarded-user", "ada"), ("x-forwarded-user", "grace")]
        assert ask(app, "GET", "/v1/models", twice).status == 401
        app.access.directory.set_disabled(SERVER, user.id, True)
        assert ask(app, "GET", "/v1/models", {"x-forwarded-user": "ada"}).status == 403


def test_nothing_is_changed_and_no_audit_log_read_on_a_proxys_word(tmp_path: Path) -> None:
    """ASVS 6.3.3: which factors the proxy asked for is not known here; who signs in here has all that is theirs."""
    rules = GateRules(is_local=False, behind=Behind.PROXY, takes_user=True)
    with gated(tmp_path, rules=rules, proxy=PEERS) as app:
        changes = [
            ("POST", f"{ROLLOUT}/promote"),
            ("PUT", ROLLOUT),
            ("POST", "/v2/repository/models/team-a-cups/load"),
            ("POST", "/v1/access/users"),
        ]
        for name, role in (("ada", "deployer"), ("grace", "admin"), ("alan", "auditor")):
            session, named = app.person(name, role), {"x-forwarded-user": name}
            for method, path in changes:
                assert ask(app, method, path, named, b'{"x": 1}').status == 403, (role, path)
            told = [
                {
                    action
                    for one in ask(app, "GET", "/v1/access/session", asker).json()["rights"]
                    for action in one["actions"]
                }
                for asker in (named, session)
            ]
            lost = {one for one in map(Action, told[1]) if one.changes or one in AUDIT_ACTIONS}
            assert (bool(lost), told[0]) == (True, told[1] - lost), role
            assert ask(app, "GET", "/v1/models", named).status == 200


@pytest.mark.parametrize("behind", [Behind.SAGEMAKER, Behind.VERTEX, Behind.AZUREML, Behind.KSERVE, Behind.PROXY])
def test_whom_a_platform_lets_through_may_ask_models_and_change_nothing(tmp_path: Path, behind: Behind) -> None:
    proxy = PEERS if behind is Behind.PROXY else None
    with gated(tmp_path, rules=GateRules(is_local=False, behind=behind), proxy=proxy) as app:
        # A platform's own token is none of ours.
        for headers in ({}, {"authorization": "Bearer eyJhbGciOi.e30.x"}, {"authorization": "AWS4-HMAC-SHA256 x"}):
            told = ask(app, "GET", ME, headers).json()
            assert (told["kind"], told["name"]) == ("platform", behind.value)
        assert ask(app, "GET", "/readyz").json()["behind"] == behind.value
        assert ask(app, "POST", "/invocations?model=a", body=b"x").status == 404
        for method, path in (
            ("POST", f"{ROLLOUT}/promote"),
            ("PUT", ROLLOUT),
            ("POST", "/v2/repository/models/a/unload"),
        ):
            assert ask(app, method, path).status == 403
        assert ask(app, "GET", ME, {"authorization": "Bearer ssk_0_nonsense"}).status == 401
        assert f'shipsight_behind{{behind="{behind.value}"}} 1.0' in ask(app, "GET", "/metrics").body.decode()
        if behind is Behind.PROXY:
            assert ask(app, "GET", ME, client=BESIDE).status == 401


# --- open servers --------------------------------------------------------------------------------------------------------


def test_a8_a_server_of_its_own_machine_is_open_until_somebody_is_known_and_never_again(tmp_path: Path) -> None:
    with gated(tmp_path, rules=GateRules(), origin="http://localhost:8000") as app:

        def status() -> int:
            return ask(app, "GET", "/v1/models", host="localhost:8000").status

        assert status() == 200
        assert ask(app, "GET", ME, host="localhost:8000").json()["kind"] == "loopback"
        assert ask(app, "GET", ME, host="evil.example").status == 403
        app.person("ada", "admin")
        assert status() == 401
        with app.access.database.write() as connection:
            connection.execute(users.delete())
        assert not app.access.directory.knows_anyone()
        assert status() == 401


def test_a8_a_server_does_not_open_again_when_the_last_person_was_removed_and_it_is_started_anew(
    tmp_path: Path,
) -> None:
    def status(app: Gated) -> int:
        return ask(app, "GET", "/v1/models", host="localhost:8000").status

    with gated(tmp_path, rules=GateRules(), origin="http://localhost:8000") as app:
        app.person("grace", "viewer")
        app.access.directory.remove_user(SERVER, app.access.directory.user("grace").id)
        assert app.access.directory.users() == []
    with gated(tmp_path, rules=GateRules(), origin="http://localhost:8000") as app:
        assert status(app) == 401
        with pytest.raises(ForbiddenError):
            app.access.directory.setup_code()
        app.person("ada", "admin")  # as `shipsight user add` does it
        assert status(app) == 401


@pytest.mark.parametrize(
    "header", ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "x-real-ip"]
)
def test_a8_an_open_server_answers_nobody_whom_a_proxy_brings_from_elsewhere(tmp_path: Path, header: str) -> None:
    with gated(tmp_path, rules=GateRules(), origin="http://localhost:8000") as app:
        forwarded = {header: "203.0.113.9"}
        for method, path in (("GET", "/v1/models"), ("GET", ME), ("POST", UNLOAD), ("GET", "/")):
            answered = ask(app, method, path, forwarded, host="localhost:8000")
            assert answered.status == 403, path
            assert b"without --behind" in answered.body
        for headers, status in ((forwarded, 403), ({}, 404)):
            assert asyncio.run(app.open_socket(STREAM, headers, host="localhost:8000")) == status
        assert ask(app, "GET", "/healthz", forwarded, host="localhost:8000").status == 200
        assert ask(app, "GET", ME, host="localhost:8000").status == 200
        # Where somebody is known it takes a credential, whoever passes it on.
        assert ask(app, "GET", ME, {**app.key("line-1", "viewer"), **forwarded}, host="localhost:8000").status == 200


def test_a8_a_server_that_asks_for_access_is_never_open(tmp_path: Path) -> None:
    for rules in (GateRules(is_required=True), GateRules(is_local=False)):
        with gated(tmp_path, rules=rules) as app:
            assert asyncio.run(app.gate.is_open()) is False
            assert ask(app, "GET", "/v1/models", host="localhost").status == 401
