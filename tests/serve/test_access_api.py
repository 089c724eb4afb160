# SPDX-License-Identifier: Apache-2.0
"""Access over HTTP, against a real server and a real database: sign-in, sessions, one's own account, administration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pyotp
import pytest
from tests.serve.access_bodies import GOOD, ROUTES, WITH_BODY, WRONG, path_of, told_route
from tests.serve.conftest import Served
from tests.serve.people import (
    OTHER_PASSWORD,
    PASSWORD,
    SEEN_WITHIN_S,
    Browser,
    Place,
    add,
    close_browsers,
    names,
    somebody,
    started_place,
)

from shipsight.serve.http.access_administration import ADMINISTRATION_ROUTES
from shipsight.serve.http.access_edge import AccessRoute
from shipsight.serve.http.access_fields import Field


@pytest.fixture(scope="module")
def place(start: Callable[..., Served], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with started_place(start, tmp_path_factory.mktemp("access")) as place:
        yield place


@pytest.fixture(scope="module", autouse=True)
def closed_browsers() -> Iterator[None]:
    yield
    close_browsers()


@pytest.fixture(scope="module")
def ada(place: Place) -> Browser:
    """The first administrator, by a setup code."""
    browser = Browser(place.url)
    assert browser.learn()["setup"]
    assert browser.accept(place.setup_code, name="ada") == "enrol"
    browser.enrol()
    assert not browser.learn()["setup"]
    return browser


@pytest.fixture
def admin(place: Place, ada: Browser) -> Browser:
    """The first administrator, who proved who they are just now."""
    if ada.learn()["kind"] != "person":
        ada.sign_in("ada")
    return ada


# --- signing in ---


def test_password_and_code_sign_in(admin: Browser) -> None:
    """ASVS 6.3.3."""
    name, browser = somebody(admin, "deployer")
    other = browser.again()
    assert other.done("POST", "sign-in", {"name": name, "password": PASSWORD}) == {
        "state": "second-factor",
        "factors": ["totp", "recovery"],
    }
    assert other.learn()["kind"] == "nobody"
    assert "shipsight" not in other.http.cookies
    assert other.done("POST", "sign-in/code", {"code": other.code()})["state"] == "signed-in"
    told = other.learn()
    assert (told["name"], told["factors"], told["must_enrol"]) == (name, ["password", "totp"], False)
    assert told["has"] == {"password": True, "totp": True, "passkeys": 0, "recovery_left": 10}


def test_name_that_is_unknown_is_answered_as_a_wrong_password(admin: Browser) -> None:
    """ASVS 6.3.8."""
    name, _ = somebody(admin, "viewer")
    answers = [
        Browser(admin.url).ask("POST", "sign-in", {"name": one, "password": "wrong but long"})
        for one in (name, "nobody-of-that-name")
    ]
    assert {one.status_code for one in answers} == {401}
    assert answers[0].content == answers[1].content
    told = [{k: v for k, v in one.headers.items() if k not in ("x-request-id", "date")} for one in answers]
    assert told[0] == told[1]


def test_session_token_is_in_a_hidden_cookie_alone(admin: Browser) -> None:
    """ASVS 3.3.1, 3.3.2, 3.3.4, 7.2.3, 14.2.1."""
    name, browser = somebody(admin, "viewer")
    other = browser.again()
    answer = other.ask("POST", "sign-in", {"name": name, "password": PASSWORD})
    cookies = {one.partition("=")[0]: one for one in answer.headers.get_list("set-cookie")}
    assert set(cookies) == {"shipsight", "shipsight-device"}
    for text in cookies.values():
        parts = {part.strip() for part in text.split(";")[1:]}
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= parts
        assert not any(part.lower().startswith("domain") for part in parts)
    assert "Max-Age" not in cookies["shipsight"]
    assert len(other.token) >= 43
    seen = answer.text + other.ask("GET", "session").text + other.ask("GET", "sessions").text
    assert other.token not in seen
    assert other.http.cookies["shipsight-device"] not in seen


def test_session_that_a_browser_had_ends_when_it_signs_in_anew(admin: Browser) -> None:
    """ASVS 7.2.4. Case A6 of the notes on attacks: session fixation."""
    name, browser = somebody(admin, "viewer")
    before = browser.token
    browser.sign_in(name)
    assert browser.token != before
    old = httpx.get(f"{admin.url}/v1/access/sessions", cookies={"shipsight": before})
    assert old.status_code == 401
    planted = {"cookie": "shipsight=planted-by-somebody; shipsight-pending=planted-too"}
    answer = Browser(admin.url).ask("POST", "sign-in", {"name": name, "password": PASSWORD}, **planted)
    cookies = dict(one.partition(";")[0].split("=", 1) for one in answer.headers.get_list("set-cookie"))
    assert len(cookies["shipsight"]) >= 43
    assert "planted" not in cookies["shipsight"]


def test_code_signs_in_once_of_many_at_a_time(admin: Browser) -> None:
    """ASVS 6.5.1. Case A2: the same code in parallel requests."""
    name, browser = somebody(admin, "deployer")
    code = browser.code()
    browsers = [browser.again() for _ in range(4)]
    for one in browsers:
        one.done("POST", "sign-in", {"name": name, "password": PASSWORD})
    with ThreadPoolExecutor(4) as pool:
        statuses = [
            one.status_code for one in pool.map(lambda b: b.ask("POST", "sign-in/code", {"code": code}), browsers)
        ]
    assert sorted(statuses)[0] == 200
    assert statuses.count(200) == 1


def test_recovery_code_signs_in_once(admin: Browser) -> None:
    """ASVS 6.5.1. Case A2."""
    name, browser = somebody(admin, "deployer")
    answers = []
    for _ in range(2):
        other = browser.again()
        other.done("POST", "sign-in", {"name": name, "password": PASSWORD})
        answers.append(other.ask("POST", "sign-in/code", {"code": browser.codes[0].lower().replace("-", " ")}))
    assert [one.status_code for one in answers] == [200, 401]


def test_invitation_works_once(admin: Browser) -> None:
    """ASVS 6.4.1. Case A8."""
    _, code = add(admin, "viewer")
    assert Browser(admin.url).ask("POST", "sign-in/invitation", {"code": code, "password": PASSWORD}).status_code == 200
    assert Browser(admin.url).ask("POST", "sign-in/invitation", {"code": code, "password": PASSWORD}).status_code == 401


def test_invitation_that_resets_a_password_does_not_pass_by_the_second_factor(admin: Browser) -> None:
    """ASVS 6.4.3."""
    name, browser = somebody(admin, "deployer")
    code = admin.done("POST", f"users/{name}/invitation", {})["code"]
    other = browser.again()
    told = other.done("POST", "sign-in/invitation", {"code": code, "password": OTHER_PASSWORD})
    assert told["state"] == "second-factor"
    assert other.learn()["kind"] == "nobody"
    assert browser.ask("GET", "sessions").status_code == 401
    other.done("POST", "sign-in/code", {"code": other.code()})
    assert other.learn()["name"] == name


def test_person_whose_rights_need_a_second_factor_can_only_add_one(admin: Browser) -> None:
    """ASVS 6.3.3."""
    _, code = add(admin, "admin")
    browser = Browser(admin.url)
    assert browser.accept(code) == "enrol"
    assert browser.learn()["must_enrol"]
    refused = [("GET", "users"), ("GET", "keys"), ("GET", "sessions"), ("GET", "roles"), ("GET", "certificates")]
    assert {browser.ask(method, path).status_code for method, path in refused} == {403}
    assert httpx.get(f"{admin.url}/v1/models", cookies=dict(browser.http.cookies)).status_code == 403
    browser.enrol()
    assert browser.ask("GET", "users").status_code == 200


# --- pages of other sites ---


def test_act_without_the_sessions_token_is_refused(admin: Browser) -> None:
    """ASVS 3.5.1. Case A6: CSRF."""
    _, browser = somebody(admin, "viewer")
    token = browser.http.headers.pop("x-csrf-token")
    for headers in ({}, {"x-csrf-token": token[:-1] + "x"}, {"x-csrf-token": ""}):
        answer = browser.ask("POST", "sign-out", **headers)
        assert answer.status_code == 403, answer.text
    assert browser.learn()["kind"] == "person"


@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "https://elsewhere.example"}],
    ids=["cross-site", "same-site", "origin"],
)
def test_page_of_another_site_signs_nobody_in(admin: Browser, headers: dict[str, str]) -> None:
    """ASVS 3.5.2. Case A6: somebody is signed in as another, to give away what they do next."""
    name, _ = somebody(admin, "viewer")
    answer = Browser(admin.url).ask("POST", "sign-in", {"name": name, "password": PASSWORD}, **headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_body_that_a_form_can_send_is_refused(admin: Browser, kind: str) -> None:
    """ASVS 3.5.2."""
    body = b'{"name": "ada", "password": "three otters on a raft"}'
    answer = httpx.post(f"{admin.url}/v1/access/sign-in", content=body, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]["where"]) == (400, "Content-Type")


# --- bodies ---


@pytest.mark.parametrize("one", WITH_BODY, ids=told_route)
def test_a5_mass_assignment_key_that_is_not_declared_is_refused(admin: Browser, one: AccessRoute) -> None:
    """ASVS 15.3.3. Case A5: mass assignment."""
    body = {name: GOOD[field.kind] if not field.choices else field.choices[0] for name, field in one.fields.items()}
    for extra in ({"role": "admin"}, {"is_admin": True}, {"grants ": ["admin"]}, {"__proto__": {}}):
        answer = admin.ask(one.method, path_of(one), {**body, **extra})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "usage"), answer.text
        assert answer.json()["error"]["where"] == "body"


CASES = [
    pytest.param(one, name, field, id=f"{told_route(one)} {name}")
    for one in WITH_BODY
    for name, field in one.fields.items()
]


@pytest.mark.parametrize(("one", "name", "field"), CASES)
def test_value_of_another_type_is_refused(admin: Browser, one: AccessRoute, name: str, field: Field) -> None:
    """ASVS 2.2.1."""
    good = {key: GOOD[other.kind] if not other.choices else other.choices[0] for key, other in one.fields.items()}
    for wrong in (*WRONG[field.kind], *([None] if field.is_required else [])):
        answer = admin.http.request(
            one.method,
            f"/v1/access/{path_of(one)}",
            content=_json({**good, name: wrong}),
            headers={"content-type": "application/json"},
        )
        assert (answer.status_code, answer.json()["error"]["where"]) == (400, name), (wrong, answer.text)


def _json(value: Any) -> bytes:
    import json

    return json.dumps(value).encode()


@pytest.mark.parametrize("body", [b"[]", b'"a"', b"{", b"1", b"null", b"[" * 50_000, b'{"name": NaN}'])
def test_body_that_is_no_mapping_is_refused(admin: Browser, body: bytes) -> None:
    answer = httpx.post(f"{admin.url}/v1/access/sign-in", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400


def test_body_that_is_too_large_is_refused(admin: Browser) -> None:
    answer = Browser(admin.url).ask("POST", "sign-in", {"name": "a" * 100_000, "password": "b"})
    assert answer.status_code == 413


@pytest.mark.parametrize("one", ROUTES, ids=told_route)
def test_no_answer_may_be_kept(admin: Browser, one: AccessRoute) -> None:
    """ASVS 14.3.2: errors, too."""
    stranger = Browser(admin.url)
    body = {} if one.method in ("POST", "PUT", "PATCH") else None
    assert stranger.ask(one.method, path_of(one), body).headers["cache-control"] == "no-store"


@pytest.mark.parametrize("one", [one for one in ROUTES if not one.needs.is_public], ids=told_route)
def test_stranger_is_refused(admin: Browser, one: AccessRoute) -> None:
    """ASVS 8.2.1."""
    assert Browser(admin.url).ask(one.method, path_of(one), {}).status_code == 401


@pytest.mark.parametrize("one", [one for one in ADMINISTRATION_ROUTES if one.needs.action], ids=told_route)
def test_person_without_rights_on_access_is_refused(admin: Browser, plain: Browser, one: AccessRoute) -> None:
    """ASVS 8.2.1. Case A5."""
    body = {} if one.method in ("POST", "PUT", "PATCH") else None
    assert plain.ask(one.method, path_of(one), body).status_code == 403


@pytest.fixture(scope="module")
def plain(ada: Browser) -> Browser:
    """Somebody who may do everything but change access."""
    return somebody(ada, "viewer", "predictor", "operator", "deployer")[1]


def test_setup_code_works_once(place: Place, admin: Browser) -> None:
    """ASVS 6.3.2, 6.4.1. Case A8: no account is there by itself, and the code makes one alone."""
    answer = Browser(place.url).ask(
        "POST", "sign-in/invitation", {"code": place.setup_code, "password": PASSWORD, "name": "second"}
    )
    assert answer.status_code == 401


# --- sessions ---


def test_session_is_gone_after_sign_out(admin: Browser) -> None:
    """ASVS 7.4.1. Case A6: reuse after sign-out."""
    _, browser = somebody(admin, "viewer")
    token = browser.token
    answer = browser.ask("POST", "sign-out", {})
    assert answer.status_code == 200
    assert any(one.startswith("shipsight=;") and "Max-Age=0" in one for one in answer.headers.get_list("set-cookie"))
    assert httpx.get(f"{admin.url}/v1/access/sessions", cookies={"shipsight": token}).status_code == 401


def test_person_who_is_shut_out_is_out_at_once(admin: Browser) -> None:
    """ASVS 7.4.2. Case A6."""
    name, browser = somebody(admin, "viewer")
    assert browser.ask("GET", "sessions").status_code == 200
    told = admin.done("PATCH", f"users/{name}", {"disabled": True})
    assert told["user"]["disabled"]
    assert browser.ask("GET", "sessions").status_code == 401
    refused = Browser(admin.url).ask("POST", "sign-in", {"name": name, "password": PASSWORD})
    assert refused.status_code == 401
    admin.done("PATCH", f"users/{name}", {"disabled": False})
    browser.sign_in(name)
    assert browser.learn()["name"] == name


def test_change_of_rights_takes_effect_at_once(admin: Browser) -> None:
    """ASVS 8.3.2. Case A5."""
    name, browser = somebody(admin, "deployer")
    assert browser.ask("GET", "users").status_code == 403
    admin.done("PUT", f"users/{name}/grants", {"grants": ["admin"]})
    assert browser.ask("GET", "users").status_code == 200
    admin.done("PUT", f"users/{name}/grants", {"grants": []})
    assert browser.ask("GET", "users").status_code == 403


def test_change_of_password_ends_other_sessions(admin: Browser) -> None:
    """ASVS 7.4.3. Case A6."""
    name, browser = somebody(admin, "viewer")
    other = browser.again()
    other.sign_in(name)
    wrong = browser.ask("POST", "password", {"current": "not the present one", "new": OTHER_PASSWORD})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "unauthenticated")
    weak = browser.ask("POST", "password", {"current": PASSWORD, "new": "password1234"})
    assert (weak.status_code, weak.json()["error"]["where"]) == (400, "password")
    browser.done("POST", "password", {"current": PASSWORD, "new": OTHER_PASSWORD})
    assert browser.ask("GET", "sessions").status_code == 200
    assert other.ask("GET", "sessions").status_code == 401
    assert Browser(admin.url).ask("POST", "sign-in", {"name": name, "password": PASSWORD}).status_code == 401


def test_person_ends_a_session_of_their_own_and_of_nobody_else(admin: Browser) -> None:
    """ASVS 7.5.2, 8.2.2."""
    name, browser = somebody(admin, "viewer")
    _, stranger = somebody(admin, "viewer")
    other = browser.again()
    other.sign_in(name)
    listed = browser.done("GET", "sessions")["sessions"]
    assert [one["is_this"] for one in listed].count(True) == 1
    assert len(listed) == 2
    wanted = next(one["id"] for one in listed if not one["is_this"])
    assert stranger.ask("DELETE", f"sessions/{wanted}").status_code == 404
    assert other.ask("GET", "sessions").status_code == 200
    browser.done("DELETE", f"sessions/{wanted}")
    assert other.ask("GET", "sessions").status_code == 401


# --- a fresh proof ---


def test_sensitive_act_wants_a_fresh_proof_and_is_done_after_it(place: Place, admin: Browser) -> None:
    """ASVS 7.5.1, 7.5.3. RFC 9470."""
    name, browser = somebody(admin, "admin")
    subject, _ = add(admin, "viewer")
    place.make_stale(name)
    wants = [
        ("POST", "users", {"name": next(names), "grants": ["viewer"]}),
        ("PUT", f"users/{subject}/grants", {"grants": ["predictor"]}),
        ("PATCH", f"users/{subject}", {"disabled": True}),
        ("DELETE", f"users/{subject}", None),
        ("POST", f"users/{subject}/invitation", {}),
        ("DELETE", f"users/{subject}/factors", None),
        ("DELETE", f"users/{subject}/sessions", None),
        ("PUT", "roles/mine", {"actions": ["models.read"]}),
        ("DELETE", "roles/mine", None),
        ("POST", "keys", {"name": "key", "grants": ["viewer"]}),
        ("POST", "keys", {"name": "key", "grants": ["viewer"], "owner": "me"}),
        ("POST", "certificates", {"name": "one", "field": "subject", "value": "CN=one", "grants": ["viewer"]}),
        ("PUT", "groups/team/grants", {"grants": ["viewer"]}),
        ("POST", "factors/totp", {}),
        ("DELETE", "factors/totp", None),
        ("POST", "factors/recovery-codes", {}),
        ("POST", "factors/passkeys/options", {}),
    ]
    for method, path, body in wants:
        answer = browser.ask(method, path, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "step-up"), (method, path, answer.text)
        assert "insufficient_user_authentication" in answer.headers["www-authenticate"]
    assert browser.ask("GET", "users").status_code == 200
    before = browser.token
    refused = browser.ask("POST", "step-up", {"password": PASSWORD, "code": "000000"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthenticated")
    assert browser.ask("POST", "step-up", {"password": PASSWORD}).status_code == 401
    browser.done("POST", "step-up", {"password": PASSWORD, "code": browser.code()})
    assert browser.token != before
    assert httpx.get(f"{admin.url}/v1/access/sessions", cookies={"shipsight": before}).status_code == 401
    browser.learn()
    browser.done("PUT", f"users/{subject}/grants", {"grants": ["predictor"]})


# --- one's own account ---


def test_qr_code_and_key_say_the_same(admin: Browser) -> None:
    _, browser = somebody(admin, "viewer")
    told = browser.done("POST", "factors/totp")
    assert pyotp.parse_uri(told["uri"]).secret == told["secret"]  # type: ignore[union-attr]
    assert told["svg"].startswith("<svg ")
    assert "script" not in told["svg"]
    assert "style" not in told["svg"]
    assert browser.ask("POST", "factors/totp/confirm", {"code": "000000"}).status_code == 401
    assert not browser.done("GET", "factors")["totp"]
    browser.done("POST", "factors/totp/confirm", {"code": pyotp.TOTP(told["secret"]).now()})
    assert browser.done("GET", "factors")["totp"]


def test_last_second_factor_stays_where_rights_need_one(admin: Browser) -> None:
    """ASVS 6.5.6 and 6.3.3."""
    _, needs = somebody(admin, "deployer")
    assert needs.ask("DELETE", "factors/totp").status_code == 403
    _, does_not = somebody(admin, "viewer")
    does_not.enrol()
    does_not.done("DELETE", "factors/totp")
    assert does_not.done("GET", "factors") == {"totp": False, "passkeys": [], "recovery_left": 0}


def test_administrator_takes_lost_factors_away_and_the_person_adds_others(admin: Browser) -> None:
    """ASVS 6.4.4, 6.5.6."""
    name, browser = somebody(admin, "deployer")
    assert admin.ask("DELETE", "users/ada/factors").status_code == 403
    assert admin.done("DELETE", f"users/{name}/factors")["user"]["has"]["totp"] is False
    assert browser.ask("GET", "sessions").status_code == 401
    other = Browser(admin.url)
    assert other.done("POST", "sign-in", {"name": name, "password": PASSWORD})["state"] == "enrol"


# --- administration ---


def test_nobody_raises_themselves(admin: Browser) -> None:
    """ASVS 8.2.1. Case A5: self-promotion, and removal of the last administrator."""
    assert admin.ask("PUT", "users/ada/grants", {"grants": ["admin", "auditor"]}).status_code == 403
    for one in admin.done("GET", "users")["users"]:
        if "admin" in one["grants"] and one["name"] != "ada":
            admin.done("DELETE", f"users/{one['id']}")
    for method, body in (("PATCH", {"disabled": True}), ("DELETE", None)):
        assert admin.ask(method, "users/ada", body).status_code == 403
    assert admin.learn()["rights"][0]["role"] == "admin"


def test_user_is_added_told_changed_and_removed(admin: Browser) -> None:
    name = next(names)
    body = {"name": name, "display_name": "Grace", "grants": ["deployer@team-*,shared", "viewer"]}
    made = admin.ask("POST", "users", body)
    assert made.status_code == 201
    user = made.json()["user"]
    assert user["grants"] == ["deployer@team-*,shared", "viewer"]
    assert (user["name"], user["display_name"], user["disabled"], user["has_password"]) == (name, "Grace", False, False)
    assert admin.done("GET", f"users/{name}")["user"] == user
    assert user in admin.done("GET", "users")["users"]
    twice = admin.ask("POST", "users", body)
    assert twice.status_code == 400
    assert admin.ask("PUT", f"users/{name}/grants", {"grants": ["no-such-role"]}).json()["error"]["where"] == "grants"
    assert admin.ask("PUT", f"users/{name}/grants", {"grants": ["viewer@../x"]}).status_code == 400
    admin.done("DELETE", f"users/{name}")
    assert admin.ask("GET", f"users/{name}").status_code == 404


def test_roles_of_ones_own_are_made_and_built_in_ones_stay(admin: Browser) -> None:
    admin.done("PUT", "roles/labeller", {"actions": ["labels.read", "models.read"]})
    roles = {one["name"]: one for one in admin.done("GET", "roles")["roles"]}
    assert roles["labeller"] == {"name": "labeller", "actions": ["labels.read", "models.read"], "is_built_in": False}
    assert admin.ask("PUT", "roles/admin", {"actions": ["audit.read"]}).status_code == 400
    assert admin.ask("PUT", "roles/both", {"actions": ["audit.read", "access.change"]}).status_code == 400
    assert admin.ask("PUT", "roles/odd", {"actions": ["models.own"]}).status_code == 400
    admin.done("DELETE", "roles/labeller")
    assert admin.ask("DELETE", "roles/viewer").status_code == 400


def test_certificate_is_named_and_taken_back(admin: Browser) -> None:
    value = {"name": "camera-1", "field": "name", "value": "DNS:camera-1", "kind": "device", "grants": ["predictor"]}
    made = admin.done("POST", "certificates", value)["certificate"]
    assert {key: made[key] for key in value} == value
    assert made in admin.done("GET", "certificates")["certificates"]
    assert admin.ask("POST", "certificates", {**value, "field": "issuer"}).status_code == 400
    admin.done("DELETE", f"certificates/{made['id']}")
    assert admin.done("GET", "certificates")["certificates"] == []


# --- keys ---


def test_secret_of_a_key_is_told_once(admin: Browser) -> None:
    _, browser = somebody(admin, "viewer", "predictor")
    made = browser.ask("POST", "keys", {"name": "mine", "grants": ["predictor@a-*"], "owner": "me"})
    assert made.status_code == 201
    key, secret = made.json()["key"], made.json()["secret"]
    assert secret.startswith(f"ssk_{key['id']}_")
    assert secret not in browser.ask("GET", "keys").text
    asked = httpx.get(f"{admin.url}/v1/me", headers={"authorization": f"Bearer {secret}"})
    assert asked.json()["kind"] == "key"
    other = browser.done("POST", f"keys/{key['id']}/rotate", {"overlap_s": 0})["secret"]
    statuses = [
        httpx.get(f"{admin.url}/v1/me", headers={"authorization": f"Bearer {one}"}).status_code
        for one in (secret, other)
    ]
    assert statuses == [401, 200]
    browser.done("DELETE", f"keys/{key['id']}")
    assert httpx.get(f"{admin.url}/v1/me", headers={"authorization": f"Bearer {other}"}).status_code == 401


def test_key_is_within_its_owners_rights_and_is_theirs_alone(admin: Browser) -> None:
    """ASVS 8.2.2, 8.3.3. Case A5: object owner."""
    _, browser = somebody(admin, "viewer")
    _, stranger = somebody(admin, "viewer")
    for grants, owner in ((["deployer"], "me"), (["viewer"], None), ([], "me")):
        wanted = {"name": "raised", "grants": grants, "owner": owner}
        assert browser.ask("POST", "keys", wanted).status_code in (400, 403), wanted
    key = browser.done("POST", "keys", {"name": "mine", "grants": ["viewer"], "owner": "me"})["key"]
    assert stranger.done("GET", "keys")["keys"] == []
    for method, path in (("POST", f"keys/{key['id']}/rotate"), ("DELETE", f"keys/{key['id']}")):
        assert stranger.ask(method, path, None).status_code == 404
    assert key["id"] in {one["id"] for one in admin.done("GET", "keys")["keys"]}


@pytest.mark.parametrize("role", ["admin", "auditor"])
def test_a5_key_holds_no_rights_on_people_and_records(admin: Browser, role: str) -> None:
    """Case A5: a key is used as a person."""
    answer = admin.ask("POST", "keys", {"name": "raised", "grants": [role]})
    assert answer.status_code in (400, 403)


def test_a5_key_is_no_person(admin: Browser) -> None:
    """ASVS 8.3.3. Case A5: a service's key does not act for a person."""
    secret = admin.done("POST", "keys", {"name": "robot", "grants": ["deployer"]})["secret"]
    http = Browser(admin.url).http
    http.headers["authorization"] = f"Bearer {secret}"
    http.base_url = f"{admin.url}/v1/access/"
    assert http.get("session").json()["kind"] == "key"
    asks = [
        ("GET", "sessions", None),
        ("GET", "factors", None),
        ("POST", "factors/totp", {}),
        ("POST", "password", {"current": "a", "new": PASSWORD}),
        ("POST", "step-up", {"password": PASSWORD}),
        ("POST", "keys", {"name": "more", "grants": ["viewer"], "owner": "me"}),
        ("POST", "keys", {"name": "more", "grants": ["viewer"]}),
        ("GET", "keys", None),
        ("GET", "users", None),
    ]
    for method, path, body in asks:
        assert http.request(method, path, json=body).status_code == 403, (method, path)


# --- what is told elsewhere ---


def test_log_holds_no_secret(place: Place, admin: Browser) -> None:
    """ASVS 16.2.5."""
    name, browser = somebody(admin, "deployer")
    other = browser.again()
    other.ask("POST", "sign-in", {"name": name, "password": "planted-wrong-password"})
    other.sign_in(name)
    secret = admin.done("POST", "keys", {"name": "logged", "grants": ["predictor"]})["secret"]
    httpx.get(f"{admin.url}/v1/me", headers={"authorization": f"Bearer {secret}"})
    time.sleep(0.3)
    log = place.log.read_text()
    assert "sign-in" in log
    planted = [PASSWORD, "planted-wrong-password", browser.seed, other.token, secret, *browser.codes]
    planted += [other.http.headers["x-csrf-token"], *other.http.cookies.values()]
    assert [one for one in planted if one in log] == []


def test_server_tells_how_to_ask_about_access(admin: Browser) -> None:
    described = admin.http.get("/openapi.json").json()["paths"]
    told = {(method.upper(), path) for path, item in described.items() for method in item}
    assert {(one.method, f"/v1/access/{one.path.replace(':path', '')}") for one in ROUTES} <= told
    assert SEEN_WITHIN_S > 1
