# SPDX-License-Identifier: Apache-2.0
"""Single sign-on over HTTP: a real server, a real provider of OpenID Connect, and the browser between them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pyotp
import pytest
from sqlalchemy import func, select
from tests.access.openid_provider import Browser as ProviderBrowser
from tests.access.openid_provider import RunningProvider
from tests.serve.browsing import Tab, opened_tab
from tests.serve.conftest import Served
from tests.serve.gated import gated
from tests.serve.people import PASSWORD, Browser, Place, close_browsers, started_place
from tests.serve.visitors import as_a_stranger, on_the_command_line, open_account

from shipsight.access import SERVER, Grant
from shipsight.access.service import Access
from shipsight.access.settings import OpenIdSettings
from shipsight.access.store.tables import known_devices

ACCOUNTS = {name: {"preferred_username": name, "groups": ["vision"]} for name in ("ada", "grace", "alan", "edsger")}


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    running = RunningProvider()
    running.set_accounts(**ACCOUNTS)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def place(
    start: Callable[..., Served], provider: RunningProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """A server that people of the provider sign in to; the group `vision` deploys."""
    options = ("--oidc-issuer", provider.issuer, "--oidc-client-id", "public")
    with started_place(start, tmp_path_factory.mktemp("openid"), *options) as place:
        provider.set_redirect_uri(f"{place.url}/v1/access/sign-in/openid/return")
        admin = Browser(place.url)
        admin.accept(place.setup_code, name="ada")
        admin.enrol()
        admin.done("PUT", "groups/vision/grants", {"grants": ["deployer"]})
        yield place
    close_browsers()


def begin(browser: Browser) -> str:
    """Goes to the provider, and returns where that is."""
    answer = browser.ask("GET", "sign-in/openid")
    assert answer.status_code == 302
    return answer.headers["location"]


def come_back(browser: Browser, place: Place, at: str, *, login: str, **more: object) -> httpx.Response:
    """Signs in at the provider, and comes back as a browser does: with the cookies, from another site."""
    person = ProviderBrowser(login, redirect_uri=f"{place.url}/v1/access/sign-in/openid/return", **more)
    back = person.go(at)
    return browser.http.get("/v1/access/sign-in/openid/return", params=back)


def test_person_with_two_factors_at_the_provider_is_signed_in(place: Place) -> None:
    """ASVS 6.8.4, 10.2.1."""
    browser = Browser(place.url)
    answer = come_back(browser, place, begin(browser), login="alan", code="123456")
    assert (answer.status_code, answer.headers["location"]) == (302, "/")
    told = browser.learn()
    assert (told["name"], told["factors"], told["must_enrol"]) == ("alan@127.0.0.1", ["oidc", "mfa"], False)
    assert browser.ask("GET", "keys").status_code == 200


def test_person_with_one_factor_at_the_provider_adds_one_here_and_is_asked_for_it_next_time(place: Place) -> None:
    """ASVS 6.3.3, 6.3.4."""
    browser = Browser(place.url)
    answer = come_back(browser, place, begin(browser), login="grace")
    assert answer.headers["location"] == "/second-factor"
    assert browser.learn()["must_enrol"]
    assert browser.ask("GET", "keys").status_code == 403
    browser.enrol()
    assert not browser.learn()["must_enrol"]
    other = browser.again()
    answer = come_back(other, place, begin(other), login="grace")
    assert answer.headers["location"] == "/sign-in?factors=totp,recovery"
    assert other.learn()["kind"] == "nobody"
    assert other.done("POST", "sign-in/code", {"code": other.code()})["state"] == "signed-in"
    assert other.learn()["factors"] == ["oidc", "totp"]


def test_local_person_of_the_same_name_stays_another(place: Place) -> None:
    """ASVS 6.8.1."""
    browser = Browser(place.url)
    come_back(browser, place, begin(browser), login="ada", code="123456")
    assert browser.learn()["name"] == "ada@127.0.0.1"
    assert browser.ask("GET", "users").status_code == 403


def test_what_the_browser_keeps_is_hidden_short_lived_and_in_no_url(place: Place) -> None:
    """ASVS 3.3.1, 3.3.4, 14.2.1."""
    browser = Browser(place.url)
    answer = browser.ask("GET", "sign-in/openid")
    cookie = next(one for one in answer.headers.get_list("set-cookie") if "openid" in one)
    value = cookie.partition("=")[2].partition(";")[0]
    assert "httponly" in cookie.lower()
    assert "samesite=lax" in cookie.lower()
    assert "max-age=600" in cookie.lower()
    assert value not in answer.headers["location"]
    asked = parse_qs(urlsplit(answer.headers["location"]).query)
    assert asked["redirect_uri"] == [f"{place.url}/v1/access/sign-in/openid/return"]


def test_denial_leads_back_to_the_page_and_is_told_as_an_event(place: Place) -> None:
    browser = Browser(place.url)
    answer = come_back(browser, place, begin(browser), login="alan", says_no=True)
    assert answer.headers["location"] == "/sign-in?failed=unauthenticated"
    assert browser.learn()["kind"] == "nobody"
    # The log is written beside the answer.
    until = time.monotonic() + 20
    while "openid-denied" not in place.log.read_text():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_response_that_another_browser_brings_is_refused(place: Place) -> None:
    """ASVS 10.2.1: login CSRF."""
    attacker, victim = Browser(place.url), Browser(place.url)
    at = begin(attacker)
    begin(victim)
    for one in (victim, Browser(place.url)):
        answer = come_back(one, place, at, login="alan", code="123456")
        assert answer.headers["location"] == "/sign-in?failed=unauthenticated"
        assert one.learn()["kind"] == "nobody"


def test_person_whose_group_was_granted_nothing_is_told_so(place: Place, provider: RunningProvider) -> None:
    provider.set_accounts(**ACCOUNTS, guest={"groups": ["office"]})
    browser = Browser(place.url)
    answer = come_back(browser, place, begin(browser), login="guest")
    assert answer.headers["location"] == "/sign-in?failed=forbidden"


def known_browsers(access: Access, user_id: str) -> int | None:
    known = select(func.count()).select_from(known_devices).where(known_devices.c.user_id == user_id)
    with access.database.read() as connection:
        return connection.scalar(known)


def test_who_signs_in_again_by_the_provider_has_one_session_and_one_known_browser(place: Place) -> None:
    """ASVS 7.2.4: as a browser does it, which brings strict cookies along to the provider, and not back from it."""
    browser = Browser(place.url)
    come_back(browser, place, begin(browser), login="alan", code="123456")
    first = browser.learn()
    assert first["name"] == "alan@127.0.0.1"
    with place.access() as access:
        alan = access.directory.user("alan@127.0.0.1").id
        handles, devices = {one.handle for one in access.sessions.list(alan)}, known_browsers(access, alan)
    at = begin(browser)
    old = browser.token
    device = browser.http.cookies["shipsight-device"]
    for name in ("shipsight", "shipsight-device"):
        browser.http.cookies.delete(name)
    answer = come_back(browser, place, at, login="alan", code="123456")
    assert answer.headers["location"] == "/"
    assert not [one for one in answer.headers.get_list("set-cookie") if one.startswith("shipsight-device=")]
    browser.http.cookies.set("shipsight-device", device)
    assert browser.learn()["name"] == "alan@127.0.0.1"
    assert browser.token != old
    stale = httpx.get(f"{place.url}/v1/me", headers={"cookie": f"shipsight={old}"})
    assert stale.status_code == 401
    with place.access() as access:
        now = {one.handle for one in access.sessions.list(alan)}
        assert len(now - handles) == 1
        assert len(now) == len(handles)
        assert known_browsers(access, alan) == devices


def test_person_who_takes_another_ones_place_in_a_browser_ends_their_session(place: Place) -> None:
    """ASVS 7.2.4."""
    browser = Browser(place.url)
    come_back(browser, place, begin(browser), login="alan", code="123456")
    browser.learn()
    at, old = begin(browser), browser.token
    for name in ("shipsight", "shipsight-device"):
        browser.http.cookies.delete(name)
    come_back(browser, place, at, login="ada", code="123456")
    assert browser.learn()["name"] == "ada@127.0.0.1"
    assert httpx.get(f"{place.url}/v1/me", headers={"cookie": f"shipsight={old}"}).status_code == 401


def test_cookies_over_tls_are_bound_to_their_host_and_hidden_from_scripts(
    provider: RunningProvider, tmp_path: Path
) -> None:
    """ASVS 3.3.1 to 3.3.4: of the session, of a sign-in that waits, of a known browser, of a sign-in at the provider."""
    with gated(tmp_path, openid=OpenIdSettings(provider.issuer, "public")) as app:
        user, code = app.access.directory.add_user(SERVER, "ada", grants=[Grant("viewer")])
        step = app.access.sign_in.accept_invitation(code, PASSWORD)
        assert step.session is not None
        found = app.access.sessions.find(step.session.token)
        assert found is not None
        codes, at = pyotp.TOTP(app.access.factors.begin_totp(user.id).secret), int(time.time()) // 30
        app.access.factors.confirm_totp(found[0], user.id, codes.generate_otp(at))

        def ask(method: str, path: str, body: dict[str, str], cookie: str = "") -> list[str]:
            headers = {"content-type": "application/json", "cookie": cookie}
            asked = app.ask(method, f"/v1/access/{path}", headers, json.dumps(body).encode() if body else b"")
            answered = asyncio.run(asked)
            assert answered.status in (200, 302), answered.body
            return answered.cookies

        told = ask("POST", "sign-in", {"name": "ada", "password": PASSWORD})
        pending = told[0].partition(";")[0]
        told += ask("POST", "sign-in/code", {"code": codes.generate_otp(at + 1)}, pending)
        told += ask("GET", "sign-in/openid", {})
    expected = {
        "__Host-shipsight-pending": ({"Path=/", "HttpOnly", "SameSite=Strict", "Secure"}, 300),
        "__Host-shipsight": ({"Path=/", "HttpOnly", "SameSite=Strict", "Secure"}, None),
        "__Host-shipsight-device": ({"Path=/", "HttpOnly", "SameSite=Strict", "Secure"}, 365 * 86400),
        # The provider leads back from its own site.
        "__Host-shipsight-openid": ({"Path=/", "HttpOnly", "SameSite=Lax", "Secure"}, 600),
    }
    set_ones = {}
    for one in told:
        pair, *attributes = one.split("; ")
        ages = [int(each.partition("=")[2]) for each in attributes if each.startswith("Max-Age=")]
        if ages != [0]:  # what waited is over
            flags = {each for each in attributes if not each.startswith("Max-Age=")}
            set_ones[pair.partition("=")[0]] = (flags, ages[0] if ages else None)
    assert set_ones == expected


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    with opened_tab(tmp_path) as tab:
        yield from as_a_stranger(tab)


def go_through_the_provider(tab: Tab, login: str) -> None:
    """Fills the provider's forms in, as far as it shows them."""
    home = "location.pathname === '/' && document.getElementById('sign-out')"
    for _ in range(3):
        tab.wait_for(f"document.querySelector('form[action*=interaction]') || {home}")
        if tab.value(f"Boolean({home})"):
            return
        if tab.value("Boolean(document.querySelector('[name=login]'))"):
            for name, text in (("login", login), ("password", login * 2), ("code", "123456")):
                tab.fill(f"[name={name}]", text)
        here = json.dumps(tab.value("location.href"))
        tab.click("form button")
        tab.wait_for(f"location.href !== {here} && document.readyState === 'complete'")
    tab.wait_for(home)


@pytest.mark.browser
def test_step_up_of_somebody_without_a_password_asks_for_what_they_have(tab: Tab, place: Place) -> None:
    """ASVS 7.5.3: no form is shown that could never succeed."""
    tab.open(f"{place.url}/sign-in")
    tab.click("#openid")
    go_through_the_provider(tab, "edsger")
    # A key outlives a sign-in, so that what the groups of one bring is not for keys.
    on_the_command_line(place, "user", "grant", "edsger@127.0.0.1", "predictor")
    place.make_stale("edsger@127.0.0.1")
    open_account(tab, place.url)
    assert not tab.value("document.getElementById('password').checkVisibility()")
    make_key(tab, "by-organisation")
    tab.wait_for_text("Prove again who you are")
    proof = "dialog:last-of-type"
    assert tab.value(f"document.querySelector('{proof} input')") is None
    assert "passkey" not in tab.text(proof)
    tab.click(f"{proof} a[href='/v1/access/sign-in/openid']")
    tab.wait_for("location.pathname !== '/account'")
    go_through_the_provider(tab, "edsger")
    tab.add_authenticator()
    tab.open(f"{place.url}/second-factor")
    tab.click("#passkey-form button")
    tab.wait_for_text("Your recovery codes")
    place.make_stale("edsger@127.0.0.1")
    open_account(tab, place.url)
    make_key(tab, "by-passkey")
    tab.wait_for_text("Prove again who you are")
    assert tab.value(f"document.querySelector('{proof} input')") is None
    assert tab.value(f"Boolean(document.querySelector('{proof} a[href=\\'/v1/access/sign-in/openid\\']'))")
    tab.click(f"{proof} button.first")
    tab.wait_for_text("The secret of by-passkey")


def make_key(tab: Tab, name: str) -> None:
    tab.click("#add-key")
    tab.fill("dialog [name=name]", name)
    tab.press("Enter")
