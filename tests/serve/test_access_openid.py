# SPDX-License-Identifier: Apache-2.0
"""Single sign-on over HTTP: a real server, a real provider of OpenID Connect, and the browser between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.access.openid_provider import Browser as ProviderBrowser
from tests.access.openid_provider import RunningProvider
from tests.serve.conftest import Served
from tests.serve.people import Browser, Place, close_browsers, started_place

ACCOUNTS = {name: {"preferred_username": name, "groups": ["vision"]} for name in ("ada", "grace", "alan")}


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
