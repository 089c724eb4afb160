# SPDX-License-Identifier: Apache-2.0
"""The pages for people in Chromium: sign-in with all factors, enrolment, account, administration; keyboard, labels, contrast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pyotp
import pytest
from tests.serve.browsing import Tab
from tests.serve.conftest import Served
from tests.serve.people import OTHER_PASSWORD, PASSWORD, Browser, Place
from tests.serve.visitors import (
    Somebody,
    another_administrator,
    give_name_and_password,
    invite,
    open_account,
)

from shipsight.access import SERVER, Grant

pytestmark = pytest.mark.browser

PAGES = files("shipsight.serve") / "pages"
HTML = sorted(one.name for one in PAGES.iterdir() if one.name.endswith(".html"))
PATHS = ("/", "/sign-in", "/invitation", "/second-factor", "/account", "/administration", "/audit")
LEAST_CONTRAST, LEAST_CONTRAST_LARGE = 4.5, 3.0


@pytest.fixture
def grace(ada: Browser, request: pytest.FixtureRequest) -> Somebody:
    return another_administrator(ada, request.node.name)


def scanned(tab: Tab, scale: float) -> str:
    """What a camera reads from the QR code on the page, from nearer or farther."""
    image = cv2.imdecode(np.frombuffer(tab.picture("#qr"), np.uint8), cv2.IMREAD_GRAYSCALE)
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return str(cv2.QRCodeDetector().detectAndDecode(image)[0])


# --- signing in ---


def test_invitation_leads_by_a_qr_code_to_recovery_codes_and_in(tab: Tab, ada: Browser) -> None:
    """ASVS 6.3.3, 6.4.1."""
    code = invite(ada, "first-time", "admin")
    tab.open(f"{ada.url}/invitation")
    tab.fill("[name=code]", code)
    tab.fill("[name=password]", PASSWORD)
    tab.fill("[name=again]", OTHER_PASSWORD)
    tab.press("Enter")
    tab.wait_for_text("The two are not the same.")
    assert tab.value("document.activeElement.name") == "again"
    assert tab.value("document.querySelector('[name=again]').getAttribute('aria-invalid')") == "true"
    tab.fill("[name=again]", PASSWORD)
    tab.press("Enter")
    tab.wait_for("location.pathname === '/second-factor' && document.getElementById('me')")
    tab.click("#totp-begin button")
    tab.wait_for("document.getElementById('qr').complete && document.getElementById('qr').naturalWidth > 0")
    # A camera looks until it reads something, from nearer and farther; a page may still move when it is looked at first.
    scales = [1.0] * 3 + [0.5 + number / 10 for number in range(17)]
    uri = next((read for read in (scanned(tab, one) for one in scales) if read.startswith("otpauth")), "")
    generator = pyotp.parse_uri(uri)
    assert isinstance(generator, pyotp.TOTP)
    assert generator.secret == tab.text("#secret").replace(" ", "")
    assert (generator.name, generator.issuer) == ("first-time", "shipsight")
    tab.fill("#totp-form [name=code]", "000000")
    tab.press("Enter")
    tab.wait_for_text("The code is not right", "#totp-form")
    tab.fill("#totp-form [name=code]", generator.now())
    tab.press("Enter")
    tab.wait_for_text("Your recovery codes")
    codes = tab.value("[...document.querySelectorAll('#codes-list li')].map(one => one.textContent)")
    assert len(set(codes)) == 10
    tab.click("#done")
    tab.wait_for("location.pathname === '/' && document.getElementById('sign-out')")
    assert tab.text("#me") == "first-time"
    tab.click("#sign-out")
    tab.wait_for("location.pathname === '/sign-in'")
    assert tab.run("fetch('/v1/access/sessions').then(one => one.status)") == 401
    tab.wait_for("document.querySelector('[name=name]')")
    give_name_and_password(tab, "first-time")
    tab.wait_for_text("Your second factor")
    tab.click("#recovery")
    tab.fill("#code-form [name=code]", codes[0])
    tab.press("Enter")
    tab.wait_for("location.pathname === '/' && document.getElementById('sign-out')")


def test_wrong_password_is_told_at_the_form_in_words(tab: Tab, grace: Somebody) -> None:
    tab.open(f"{grace.browser.url}/sign-in")
    tab.fill("#password-form [name=name]", "")
    tab.press("Enter")
    tab.wait_for_text("This is missing.", "#password-form")
    give_name_and_password(tab, grace.name, "not the right one")
    tab.wait_for("document.querySelector('#password-form [role=alert]')")
    assert tab.text("#password-form [role=alert]").startswith("This is not accepted. Check what you typed")
    assert tab.value("location.search") == ""


def test_sign_in_takes_a_keyboard_alone(tab: Tab, grace: Somebody) -> None:
    """WCAG 2.1.1, 2.4.3 and 2.4.7."""
    tab.open(f"{grace.browser.url}/sign-in")
    tab.wait_for("document.activeElement.name === 'name'")
    wait_for_visible_focus(tab)
    tab.type(grace.name)
    tab.press("Tab")
    assert tab.value("document.activeElement.name") == "password"
    wait_for_visible_focus(tab)
    tab.type(PASSWORD)
    tab.press("Tab")
    assert tab.value("document.activeElement.textContent") == "Go on"
    wait_for_visible_focus(tab)
    tab.press(" ")
    tab.wait_for("document.activeElement.name === 'code'")
    tab.type(grace.browser.code())
    tab.press("Enter")
    tab.wait_for("location.pathname === '/' && document.getElementById('sign-out')")
    tab.press("Tab")
    assert tab.value("document.activeElement.className") == "skip"
    for _ in range(10):
        tab.press("Tab")
        wait_for_visible_focus(tab)
        if tab.value("document.activeElement.id") == "sign-out":
            break
    tab.press("Enter")
    tab.wait_for("location.pathname === '/sign-in'")


def wait_for_visible_focus(tab: Tab) -> None:
    tab.wait_for(
        "(() => {const s = getComputedStyle(document.activeElement);"
        " return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2})()"
    )


def test_passkey_is_added_and_signs_in_alone_and_as_second_factor(tab: Tab, ada: Browser) -> None:
    """ASVS 6.3.3 (level 3), 6.7.2. Case A3, the way it should be."""
    code = invite(ada, "key-holder", "deployer")
    authenticator = tab.add_authenticator()
    tab.open(f"{ada.url}/invitation")
    for name, text in (("code", code), ("password", PASSWORD), ("again", PASSWORD)):
        tab.fill(f"[name={name}]", text)
    tab.press("Enter")
    tab.wait_for("location.pathname === '/second-factor' && document.getElementById('me')")
    tab.fill("#passkey-form [name=name]", "My laptop")
    tab.press("Enter")
    tab.wait_for_text("Your recovery codes")
    kept = tab.call("WebAuthn.getCredentials", authenticatorId=authenticator)["credentials"]
    assert [one["rpId"] for one in kept] == ["localhost"]
    tab.click("#done")
    tab.wait_for("document.getElementById('sign-out')")
    tab.click("#sign-out")
    tab.wait_for("location.pathname === '/sign-in' && document.getElementById('passkey-alone')")
    tab.click("#passkey-alone")
    tab.wait_for("location.pathname === '/' && document.getElementById('sign-out')")
    told = tab.run("fetch('/v1/access/session').then(one => one.json())")
    assert (told["name"], told["factors"]) == ("key-holder", ["passkey"])
    tab.open(f"{ada.url}/account")
    tab.wait_for_text("My laptop", "#factors")
    tab.click("#sign-out")
    tab.wait_for("location.pathname === '/sign-in' && document.querySelector('[name=name]')")
    give_name_and_password(tab, "key-holder")
    tab.click("#passkey")
    tab.wait_for("location.pathname === '/' && document.getElementById('sign-out')")
    assert tab.run("fetch('/v1/access/session').then(one => one.json())")["factors"] == ["password", "passkey"]


def test_passkey_that_did_not_verify_its_user_does_not_sign_in_alone(tab: Tab, ada: Browser) -> None:
    """ASVS 6.7.2. Case A3: the flag is missing."""
    code = invite(ada, "unverified", "deployer")
    authenticator = tab.add_authenticator()
    tab.open(f"{ada.url}/invitation")
    for name, text in (("code", code), ("password", PASSWORD), ("again", PASSWORD)):
        tab.fill(f"[name={name}]", text)
    tab.press("Enter")
    tab.wait_for("location.pathname === '/second-factor' && document.getElementById('me')")
    tab.click("#passkey-form button")
    tab.wait_for_text("Your recovery codes")
    tab.call("WebAuthn.setUserVerified", authenticatorId=authenticator, isUserVerified=False)
    tab.forget()
    tab.open(f"{ada.url}/sign-in")
    tab.click("#passkey-alone")
    tab.wait_for_text("It was not allowed", "#passkey-alone-wrong")
    assert tab.run("fetch('/v1/access/session').then(one => one.json())")["kind"] == "nobody"


def test_page_that_needs_a_session_leads_to_sign_in_and_back(tab: Tab, grace: Somebody) -> None:
    tab.open("about:blank")
    tab.call("Page.navigate", url=f"{grace.browser.url}/account")
    tab.wait_for("location.pathname === '/sign-in' && location.search === '?next=account'")
    tab.wait_for("document.querySelector('[name=name]')?.checkVisibility()")
    give_name_and_password(tab, grace.name)
    tab.fill("#code-form [name=code]", grace.browser.code())
    tab.press("Enter")
    tab.wait_for("location.pathname === '/account'")


@pytest.mark.parametrize(
    "wanted", ["/elsewhere.example", "https://elsewhere.example", "%5C%5Celsewhere.example", "v1/me"]
)
def test_sign_in_leads_to_no_other_place(tab: Tab, ada: Browser, wanted: str) -> None:
    """ASVS 3.7.2."""
    tab.open(f"{ada.url}/sign-in?next={wanted}")
    gone = tab.run("import('/pages/server.js').then(one => one.next())")
    assert gone == "/"


def test_session_that_ended_leads_to_sign_in(tab: Tab, grace: Somebody) -> None:
    grace.sign_in(tab)
    tab.open(f"{grace.browser.url}/account")
    tab.wait_for_text("Where you are signed in")
    tab.wait_for("document.querySelectorAll('#sessions tr').length > 1")
    listed = grace.browser.done("GET", "sessions")["sessions"]
    theirs = next(one["id"] for one in listed if not one["is_this"])
    grace.browser.done("DELETE", f"sessions/{theirs}")
    tab.click("#sessions button")
    tab.wait_for("location.pathname === '/sign-in'")


# --- account and administration ---


def test_sensitive_act_asks_for_a_proof_and_is_done(tab: Tab, grace: Somebody, place: Place) -> None:
    """ASVS 7.5.1, 7.5.3."""
    grace.sign_in(tab)
    place.make_stale(grace.name)
    tab.open(f"{grace.browser.url}/administration")
    tab.click("#add-user")
    tab.fill("dialog [name=name]", "alan-by-the-page")
    tab.press("Enter")
    tab.wait_for_text("Prove again who you are")
    tab.press("Escape")
    tab.wait_for("document.querySelectorAll('dialog').length === 1")
    assert tab.value("document.querySelector('dialog [role=alert]')") is None
    tab.click("dialog button.first")
    tab.wait_for_text("Prove again who you are")
    tab.fill("dialog:last-of-type [name=password]", "not the right one")
    tab.fill("dialog:last-of-type [name=code]", "000000")
    tab.press("Enter")
    tab.wait_for_text("This is not accepted", "dialog:last-of-type")
    tab.fill("dialog:last-of-type [name=password]", PASSWORD)
    tab.fill("dialog:last-of-type [name=code]", grace.browser.code())
    tab.press("Enter")
    tab.wait_for_text("Invitation for alan-by-the-page")
    code = tab.text("dialog .secret")
    tab.click("dialog .kept")
    tab.wait_for_text("alan-by-the-page", "#users")
    assert Browser(grace.browser.url).accept(code) == "signed-in"
    assert grace.browser.learn()["kind"] == "person"


def test_roles_are_given_and_a_person_is_shut_out(tab: Tab, grace: Somebody, ada: Browser) -> None:
    invite(ada, "to-be-changed", "viewer")
    grace.sign_in(tab)
    tab.open(f"{grace.browser.url}/administration")
    tab.click("[aria-label='Change to-be-changed']")
    tab.wait_for("document.querySelector('dialog[open]')")
    tab.value("document.querySelector('dialog select').value = 'operator'")
    tab.fill("dialog .grant input", "team-a-*, shared")
    tab.press("Enter")
    tab.wait_for_text("operator@team-a-*,shared", "#users")
    tab.click("[aria-label='Change to-be-changed']")
    tab.click("dialog .danger")
    tab.wait_for_text("Shut to-be-changed out?")
    tab.click("dialog:last-of-type button.first")
    tab.wait_for_text("Let in again", "dialog")
    tab.press("Escape")
    tab.wait_for(
        "[...document.querySelectorAll('#users tr')].some(one => /to-be-changed.*shut out/s.test(one.innerText))"
    )
    user = ada.done("GET", "users/to-be-changed")["user"]
    assert (user["disabled"], user["grants"]) == (True, ["operator@team-a-*,shared"])


def test_key_of_ones_own_is_shown_once_and_ended(tab: Tab, grace: Somebody) -> None:
    grace.sign_in(tab)
    url = grace.browser.url
    open_account(tab, url)
    tab.click("#add-key")
    tab.fill("dialog [name=name]", "notebook")
    tab.press("Enter")
    tab.wait_for_text("The secret of notebook")
    secret = tab.text("dialog .secret")
    headers = {"authorization": f"Bearer {secret}"}
    assert httpx.get(f"{url}/v1/me", headers=headers).json()["kind"] == "key"
    tab.click("dialog .kept")
    tab.wait_for_text("notebook", "#keys")
    assert secret not in tab.text("html")
    tab.click("[aria-label='End notebook']")
    tab.click("dialog button.first")
    tab.wait_for_text("ended", "#keys")
    assert httpx.get(f"{url}/v1/me", headers=headers).status_code == 401


def test_role_of_ones_own_is_made(tab: Tab, grace: Somebody) -> None:
    grace.sign_in(tab)
    tab.open(f"{grace.browser.url}/administration#roles")
    tab.click("#add-role")
    tab.fill("dialog [name=name]", "Labeller!")
    tab.click("dialog [value='labels.read']")
    tab.click("dialog button.first")
    tab.wait_for("document.querySelector('dialog [role=alert]')")
    tab.fill("dialog [name=name]", "labeller")
    tab.press("Enter")
    tab.wait_for_text("labeller", "#role-rows")
    assert "labels.read" in tab.text("#role-rows")


def test_password_is_changed_and_the_wrong_one_is_told_where_it_stands(tab: Tab, grace: Somebody) -> None:
    grace.sign_in(tab)
    tab.open(f"{grace.browser.url}/account")
    tab.wait_for("document.querySelector('#sessions tr')")
    for name, text in (("current", PASSWORD), ("new", "password1234"), ("again", "password1234")):
        tab.fill(f"[name={name}]", text)
    tab.press("Enter")
    tab.wait_for("document.querySelector('[name=new]').getAttribute('aria-invalid') === 'true'")
    for name, text in (("new", OTHER_PASSWORD), ("again", OTHER_PASSWORD)):
        tab.fill(f"[name={name}]", text)
    tab.press("Enter")
    tab.wait_for_text("Changed.", "#password-told")
    assert grace.browser.ask("GET", "sessions").status_code == 401


def test_auditor_sees_people_and_changes_nobody(tab: Tab, ada: Browser, place: Place) -> None:
    browser = Browser(ada.url)
    with place.access() as access:
        _, code = access.directory.add_user(SERVER, "reader", grants=[Grant("auditor")])
    browser.accept(code)
    browser.enrol()
    Somebody("reader", browser).sign_in(tab)
    tab.open(f"{ada.url}/administration")
    tab.wait_for_text("ada", "#users")
    tab.wait_for_text("change none of it")
    assert tab.value("[...document.querySelectorAll('main button')].filter(one => one.checkVisibility()).length") == 0


# --- for everybody ---


CONTRAST = """
(() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const light = ([r, g, b]) => [r, g, b].map((one) => (one /= 255) <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, index) => sum + one * [0.2126, 0.7152, 0.0722][index], 0);
  const over = ([r, g, b, a], below) => [r, g, b].map((one, index) => one * a + below[index] * (1 - a));
  const ground = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) layers.push(parse(getComputedStyle(one).backgroundColor));
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    return layers.reverse().reduce((below, layer) => over(layer, below), dark ? [18, 18, 18] : [255, 255, 255]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility({ visibilityProperty: true }) || element.closest("script,:disabled")) continue;
    const style = getComputedStyle(element);
    const below = ground(element);
    const [a, b] = [light(over(parse(style.color), below)), light(below)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    found.push({ text: walker.currentNode.textContent.trim().slice(0, 40), ratio: (a + 0.05) / (b + 0.05), isLarge });
  }
  for (const element of document.querySelectorAll("input,select,button,.button")) {
    if (!element.checkVisibility() || element.type === "checkbox" || element.classList.contains("link")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(parse(style.borderTopColor)), light(ground(element.parentElement))].sort((x, y) => y - x);
    found.push({ text: `edge of ${element.tagName} ${element.id || element.name}`, ratio: (a + 0.05) / (b + 0.05), isLarge: true });
  }
  return found;
})()
"""
LABELS = """
[...document.querySelectorAll("input,select,textarea,button,a[href],img")].filter((one) => one.type !== "hidden").filter((one) => {
  if (one.tagName === "IMG") return !one.hasAttribute("alt");
  const labels = [...(one.labels || [])].map((label) => label.innerText || label.textContent).join("").trim();
  const named = one.getAttribute("aria-label") || (one.getAttribute("aria-labelledby") && document.getElementById(one.getAttribute("aria-labelledby")));
  const own = ["BUTTON", "A"].includes(one.tagName) ? one.textContent.trim() : "";
  return !(labels || named || own);
}).map((one) => one.outerHTML.slice(0, 120))
"""


def views(tab: Tab, grace: Somebody) -> Iterator[str]:
    """Every page, with its dialogs and steps, as a person sees them."""
    url = grace.browser.url
    tab.open(f"{url}/sign-in")
    yield "sign-in"
    give_name_and_password(tab, grace.name, "not the right one")
    tab.wait_for("document.querySelector('[role=alert]:not(:empty)')")
    yield "sign-in-refused"
    give_name_and_password(tab, grace.name)
    tab.wait_for_text("Your second factor")
    yield "sign-in-second-factor"
    tab.open(f"{url}/invitation")
    yield "invitation"
    grace.sign_in(tab)
    tab.wait_for_text("ready", "#state")
    yield "models"
    tab.open(f"{url}/second-factor")
    tab.wait_for("document.getElementById('me')")
    yield "second-factor"
    tab.click("#totp-begin button")
    tab.wait_for("document.getElementById('qr').naturalWidth > 0")
    yield "second-factor-app"
    tab.open(f"{url}/second-factor?codes")
    tab.wait_for_text("New recovery codes")
    tab.click("#choose form button")
    tab.wait_for_text("Your recovery codes")
    yield "second-factor-codes"
    open_account(tab, url)
    yield "account"
    tab.click("#add-key")
    yield "account-key"
    tab.fill("dialog [name=name]", "pictured")
    tab.press("Enter")
    tab.wait_for_text("The secret of pictured")
    yield "account-key-secret"
    for part, opens in (
        ("people", "#add-user"),
        ("groups", "#add-group"),
        ("roles", "#add-role"),
        ("keys", "#add-key"),
        ("certificates", "#add-certificate"),
    ):
        tab.open("about:blank")
        tab.open(f"{url}/administration#{part}")
        tab.wait_for(f"document.querySelector('#{part} tbody tr')")
        yield f"administration-{part}"
        tab.click(opens)
        tab.wait_for("document.querySelector('dialog[open]')")
        yield f"administration-{part}-dialog"
    tab.value("import('/pages/prove.js').then(one => one.proveAgain()); 0")
    tab.wait_for_text("Prove again who you are")
    yield "proof"


def test_every_text_and_edge_stands_out_and_every_control_has_a_name(
    tab: Tab, grace: Somebody, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """WCAG 2.1 AA: 1.4.3, 1.4.11, 1.3.1, 3.3.2, 4.1.2."""
    seen = 0
    for view in views(tab, grace):
        for scheme in ("light", "dark"):
            tab.prefer(scheme)
            told: list[dict[str, Any]] = tab.value(CONTRAST)
            seen += len(told)
            weak = [one for one in told if one["ratio"] < (LEAST_CONTRAST_LARGE if one["isLarge"] else LEAST_CONTRAST)]
            assert weak == [], (view, scheme)
            (tmp_path / f"{view}-{scheme}.png").write_bytes(tab.picture())
        assert tab.value(LABELS) == [], view
        tab.prefer("light")
    assert seen > 500


def test_page_fits_a_telephone(tab: Tab, grace: Somebody) -> None:
    """WCAG 2.1 AA, 1.4.10."""
    tab.call("Emulation.setDeviceMetricsOverride", width=320, height=640, deviceScaleFactor=1, mobile=False)
    try:
        for path in ("/sign-in", "/invitation"):
            tab.open(f"{grace.browser.url}{path}")
            assert tab.value("document.documentElement.scrollWidth") <= 320, path
        grace.sign_in(tab)
        for path in ("/", "/second-factor", "/account", "/administration"):
            tab.open(f"{grace.browser.url}{path}")
            tab.wait_for("document.getElementById('me')")
            assert tab.value("document.documentElement.scrollWidth") <= 320, path
    finally:
        tab.call("Emulation.clearDeviceMetricsOverride")


class _Inline(HTMLParser):
    """Finds what a policy against inline code would stop."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attrs}
        self.found += [f"{tag} {name}" for name in names if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in names):
            self.found.append(tag)


@pytest.mark.parametrize("name", HTML)
def test_page_has_no_inline_code(name: str) -> None:
    """ASVS 3.4.3."""
    parser = _Inline()
    parser.feed((PAGES / name).read_text(encoding="utf-8"))
    assert parser.found == []


def test_pages_go_out_under_a_policy_that_runs_our_files_alone(ada: Browser) -> None:
    """ASVS 3.4.3, 3.4.4, 3.4.5, 3.4.6."""
    for path in PATHS:
        headers = httpx.get(f"{ada.url}{path}").headers
        assert "script-src 'self';" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


def test_open_server_says_so(tab: Tab, start: Callable[..., Served], tmp_path: Path) -> None:
    (tmp_path / "bundles").mkdir()
    served = start("--repository", tmp_path / "bundles")
    tab.open(f"{served.url}/")
    tab.wait_for_text("This server is open.", "#open")
    assert tab.value("document.getElementById('open').checkVisibility()")
    assert tab.value("document.getElementById('sign-out')") is None
