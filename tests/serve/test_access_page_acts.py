# SPDX-License-Identifier: Apache-2.0
"""What is done on the pages in Chromium: roles kept, refusals told, focus after each act, secrets shown once, sessions and groups."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.serve.browsing import Tab
from tests.serve.people import OTHER_PASSWORD, PASSWORD, Browser, Place
from tests.serve.visitors import (
    Somebody,
    another_administrator,
    invite,
    on_the_command_line,
    open_account,
)

pytestmark = pytest.mark.browser

TOP = "dialog:last-of-type"


@pytest.fixture
def grace(ada: Browser, tab: Tab, request: pytest.FixtureRequest) -> Somebody:
    """Another administrator, signed in."""
    grace = another_administrator(ada, request.node.name)
    grace.sign_in(tab)
    return grace


def tab_to(tab: Tab, selector: str) -> None:
    """Goes with the keyboard alone to what is to be used."""
    found = f"document.activeElement.matches({json.dumps(selector)})"
    tab.wait_for(f"(e => e?.checkVisibility() && !e.disabled)(document.querySelector({json.dumps(selector)}))")
    for _ in range(60):
        if tab.value(found):
            return
        tab.press("Tab")
    raise AssertionError(f"the keyboard never comes to {selector}")


def focused(tab: Tab) -> str:
    return str(tab.value("document.activeElement.getAttribute('aria-label') || document.activeElement.innerText"))


def open_change(tab: Tab, url: str, name: str) -> None:
    tab.open("about:blank")
    tab.open(f"{url}/administration")
    tab.click(f"[aria-label='Change {name}']")
    tab.wait_for("document.querySelector('dialog[open] .grant')")


# --- roles ---


def test_role_given_on_the_command_line_meanwhile_is_kept(
    tab: Tab, grace: Somebody, ada: Browser, place: Place, tmp_path: Path
) -> None:
    invite(ada, "labels", "viewer")
    tab.open(f"{grace.browser.url}/administration")
    tab.wait_for("document.querySelector(\"[aria-label='Change labels']\")")
    file = tmp_path / "roles.yaml"
    file.write_text("schema: 1\nroles:\n  labeller:\n    actions: [models.read, labels.read]\n", encoding="utf-8")
    on_the_command_line(place, "role", "apply", str(file))
    on_the_command_line(place, "user", "grant", "labels", "labeller@team-a-*", "--replace")
    tab.click("[aria-label='Change labels']")
    tab.wait_for("document.querySelector('dialog .grant')")
    tab.fill("dialog .grant input", "team-a-*, team-b-*")
    tab.press("Enter")
    tab.wait_for("!document.querySelector('dialog')")
    assert ada.done("GET", "users/labels")["user"]["grants"] == ["labeller@team-a-*,team-b-*"]


def test_editor_keeps_a_role_that_is_not_among_those_it_was_given(tab: Tab, ada: Browser) -> None:
    tab.open(f"{ada.url}/sign-in")
    read = tab.run(
        "import('/pages/grants.js').then(one => one.grantsEditor(['admin', 'viewer'], ['labeller@a', 'viewer']).read())"
    )
    assert read == ["labeller@a", "viewer"]


def test_roles_that_somebody_else_changed_meanwhile_are_not_overwritten(
    tab: Tab, grace: Somebody, ada: Browser
) -> None:
    invite(ada, "wanted-by-two", "viewer")
    open_change(tab, grace.browser.url, "wanted-by-two")
    ada.done("PUT", "users/wanted-by-two/grants", {"grants": ["predictor"]})
    tab.fill("dialog .grant input", "shared")
    tab.press("Enter")
    tab.wait_for_text("What is there now: predictor.", "dialog [role=alert]")
    assert ada.done("GET", "users/wanted-by-two")["user"]["grants"] == ["predictor"]
    assert tab.value("document.querySelector('dialog .grant input').value") == "shared"
    tab.press("Escape")
    tab.wait_for(
        "[...document.querySelectorAll('#users tr')].some(one => /wanted-by-two[^]*predictor/.test(one.innerText))"
    )
    assert focused(tab) == "Change wanted-by-two"


def test_roles_kept_after_a_conflict_was_told_take_the_place_of_the_others(
    tab: Tab, grace: Somebody, ada: Browser
) -> None:
    invite(ada, "kept-all-the-same", "viewer")
    open_change(tab, grace.browser.url, "kept-all-the-same")
    ada.done("PUT", "users/kept-all-the-same/grants", {"grants": ["predictor"]})
    tab.click("dialog button.first")
    tab.wait_for_text("What is there now", "dialog [role=alert]")
    tab.click("dialog button.first")
    tab.wait_for("!document.querySelector('dialog')")
    assert ada.done("GET", "users/kept-all-the-same")["user"]["grants"] == ["viewer"]


def test_role_that_is_given_on_the_server_alone_is_refused_with_what_to_do(
    tab: Tab, grace: Somebody, ada: Browser
) -> None:
    tab.open(f"{grace.browser.url}/administration")
    tab.click("#add-user")
    tab.wait_for_text("Roles that may read the audit log (auditor) are given on the server's machine alone", "dialog")
    tab.press("Escape")
    invite(ada, "no-auditor", "viewer")
    open_change(tab, grace.browser.url, "no-auditor")
    tab.value("document.querySelector('dialog select').value = 'auditor'")
    tab.click("dialog button.first")
    tab.wait_for("document.querySelector('dialog [role=alert]')")
    told = ada.ask("PUT", "users/no-auditor/grants", {"grants": ["auditor"]})
    assert told.status_code == 403
    assert told.json()["error"]["hint"] in tab.text("dialog [role=alert]")


def test_roles_being_edited_outlive_a_confirmation_that_was_left(tab: Tab, grace: Somebody, ada: Browser) -> None:
    invite(ada, "half-edited", "viewer")
    open_change(tab, grace.browser.url, "half-edited")
    tab.fill("dialog .grant input", "team-c-*")
    for number, title in enumerate(("Invite half-edited anew?", "Shut half-edited out?", "Remove half-edited?"), 1):
        tab.click(f"dialog .buttons button:nth-child({number})")
        tab.wait_for_text(title)
        tab.press("Escape")
        tab.wait_for("document.querySelectorAll('dialog[open]').length === 1")
        assert tab.value("document.querySelector('dialog .grant input').value") == "team-c-*"
    tab.click("dialog .danger")
    tab.click(f"{TOP} button.first")
    tab.wait_for_text("Let in again", "dialog")
    assert tab.value("document.querySelector('dialog .grant input').value") == "team-c-*"
    assert ada.done("GET", "users/half-edited")["user"]["disabled"]


def test_two_quick_clicks_open_one_dialog(tab: Tab, grace: Somebody) -> None:
    tab.open(f"{grace.browser.url}/administration#roles")
    tab.wait_for("document.querySelector('#add-role:enabled')")
    tab.value("document.getElementById('add-role').click(); document.getElementById('add-role').click()")
    tab.wait_for("document.querySelector('dialog')")
    tab.run("fetch('/v1/access/roles')")
    assert tab.value("document.querySelectorAll('dialog').length") == 1


# --- focus ---


def test_focus_stays_with_the_row_after_an_act_by_keyboard(tab: Tab, grace: Somebody, ada: Browser) -> None:
    """WCAG 2.4.3."""
    for name in ("rower-1", "rower-2"):
        ada.done("PUT", f"roles/{name}", {"actions": ["models.read"]})
    tab.open(f"{grace.browser.url}/administration#roles")
    tab_to(tab, "[aria-label='Change role rower-1']")
    tab.press("Enter")
    tab.wait_for("document.querySelector('dialog[open]')")
    tab_to(tab, "dialog [value='labels.read']")
    tab.press(" ")
    tab_to(tab, "dialog button.first")
    tab.press("Enter")
    tab.wait_for_text("labels.read", "[data-id='rower-1']")
    assert focused(tab) == "Change role rower-1"
    tab.press("Tab")
    assert focused(tab) == "Remove role rower-1"
    tab.press("Enter")
    tab.wait_for("document.querySelector('dialog[open]')")
    tab_to(tab, "dialog button.first")
    tab.press("Enter")
    tab.wait_for("!document.querySelector(\"[aria-label='Remove role rower-1']\")")
    assert focused(tab) == "Roles"
    tab_to(tab, "[aria-label='Remove role rower-2']")


def test_focus_goes_to_the_heading_where_the_row_is_gone(tab: Tab, grace: Somebody) -> None:
    """WCAG 2.4.3."""
    tab.open(f"{grace.browser.url}/account")
    tab.wait_for("document.querySelector('#sessions button')")
    tab_to(tab, "#sessions button")
    tab.press("Enter")
    tab.wait_for("!document.querySelector('#sessions button')")
    assert focused(tab) == "Where you are signed in"


# --- what cannot be had ---


@pytest.mark.parametrize(
    ("page", "section", "path"),
    [
        ("account", "second-factors", "factors"),
        ("account", "signed-in", "sessions"),
        ("account", "keys", "keys"),
        ("administration#people", "people", "users"),
        ("administration#roles", "roles", "roles"),
        ("administration#keys", "keys", "keys"),
        ("administration#certificates", "certificates", "certificates"),
    ],
)
def test_section_that_cannot_be_had_says_so_and_is_tried_again(
    tab: Tab, grace: Somebody, page: str, section: str, path: str
) -> None:
    tab.call("Network.setBlockedURLs", urls=[f"*/v1/access/{path}"])
    try:
        tab.open(f"{grace.browser.url}/{page}")
        tab.wait_for_text("The server gave no answer.", f"#{section} [role=alert]:not(:empty)")
        assert tab.value(f"document.querySelectorAll('#{section} tbody tr').length") == 0
    finally:
        tab.call("Network.setBlockedURLs", urls=[])
    tab_to(tab, f"#{section} .failure button")
    tab.press("Enter")
    tab.wait_for(f"document.querySelectorAll('#{section} tbody tr').length")
    assert tab.value(f"document.querySelector('#{section} .failure')") is None
    assert tab.value("document.activeElement.tagName") == "H2"
    tab.call("Page.navigate", url="about:blank")
    tab.complaints[:] = [one for one in tab.complaints if "ERR_BLOCKED_BY_CLIENT" not in one]


def test_page_that_cannot_learn_who_asks_says_so_and_is_tried_again(tab: Tab, grace: Somebody) -> None:
    tab.call("Network.setBlockedURLs", urls=["*/v1/access/session"])
    try:
        tab.open(f"{grace.browser.url}/account")
        tab.wait_for_text("The server gave no answer.", "main [role=alert]")
    finally:
        tab.call("Network.setBlockedURLs", urls=[])
    tab_to(tab, "main .failure button")
    tab.press("Enter")
    tab.wait_for("document.querySelector('#sessions tr')")
    tab.complaints[:] = [one for one in tab.complaints if "ERR_BLOCKED_BY_CLIENT" not in one]


# --- what is shown once ---


def test_secret_that_is_shown_once_is_not_lost_by_escape(tab: Tab, grace: Somebody) -> None:
    open_account(tab, grace.browser.url)
    tab.click("#add-key")
    tab.fill("dialog [name=name]", "shown-once")
    tab.press("Enter")
    tab.wait_for_text("The secret of shown-once", "dialog")
    secret = tab.text("dialog .secret")
    for _ in range(2):
        tab.press("Escape")
        tab.wait_for_text("Have you kept it?", "dialog")
        tab.press("Escape")
        tab.wait_for("document.querySelector('dialog .secret')")
    assert tab.text("dialog .secret") == secret
    tab.press("Escape")
    tab.wait_for_text("Have you kept it?", "dialog")
    tab.click("dialog button.first")
    tab.wait_for("!document.querySelector('dialog')")
    assert secret not in tab.text("html")


def test_recovery_codes_that_were_not_made_are_offered_until_they_are(
    tab: Tab, grace: Somebody, ada: Browser, place: Place
) -> None:
    tab.forget()
    tab.add_authenticator()
    tab.open(f"{ada.url}/invitation")
    for name, text in (("code", invite(ada, "interrupted", "deployer")), ("password", PASSWORD), ("again", PASSWORD)):
        tab.fill(f"[name={name}]", text)
    tab.press("Enter")
    tab.wait_for("location.pathname === '/second-factor' && document.getElementById('me')")
    tab.call("Network.setBlockedURLs", urls=["*/factors/recovery-codes"])
    try:
        tab.click("#passkey-form button")
        tab.wait_for_text("The server gave no answer.", "#choose [role=alert]")
    finally:
        tab.call("Network.setBlockedURLs", urls=[])
    tab.complaints[:] = [one for one in tab.complaints if "ERR_BLOCKED_BY_CLIENT" not in one]
    place.make_stale("interrupted")
    tab.click("#choose form button")
    tab.wait_for_text("Prove again who you are", "dialog")
    tab.press("Escape")
    tab.wait_for("!document.querySelector('dialog')")
    tab.wait_for_text("Recovery codes are still missing", "#choose")
    tab.click("#choose form button")
    tab.wait_for_text("Prove again who you are", "dialog")
    tab.click("dialog button.first")
    tab.wait_for("document.querySelectorAll('#codes-list li').length === 10")


@pytest.mark.parametrize(("lives", "days"), [(None, 365), ("30", 30), ("90", 90), ("365", 365), ("never", None)])
def test_key_ends_after_a_year_unless_another_end_is_chosen(
    tab: Tab, grace: Somebody, lives: str | None, days: int | None
) -> None:
    open_account(tab, grace.browser.url)
    tab.click("#add-key")
    tab.fill("dialog [name=name]", "ending")
    if lives:
        tab.value(f"document.querySelector('dialog [name=lives]').value = '{lives}'")
    tab.press("Enter")
    tab.wait_for_text("The secret of ending", "dialog")
    ends = next(one["expires_at"] for one in grace.browser.done("GET", "keys")["keys"] if one["is_mine"])
    if days is None:
        assert ends is None
    else:
        left = datetime.fromisoformat(ends) - datetime.now(UTC)
        assert abs(left - timedelta(days=days)) < timedelta(minutes=5)


# --- sessions and groups ---


def test_all_other_sessions_are_ended_on_the_account_page(tab: Tab, grace: Somebody) -> None:
    """ASVS 7.4.3."""
    others = [grace.browser, grace.browser.again()]
    others[1].sign_in(grace.name)
    tab.open(f"{grace.browser.url}/account")
    tab_to(tab, "#end-others")
    tab.press("Enter")
    tab.wait_for_text("End all other sessions?", "dialog")
    tab_to(tab, "dialog button.first")
    tab.press("Enter")
    tab.wait_for_text("2 sessions were ended.", "#sessions-told")
    tab.wait_for("document.querySelectorAll('#sessions tr').length === 1")
    assert focused(tab) == "Where you are signed in"
    assert [one.ask("GET", "sessions").status_code for one in others] == [401, 401]
    assert tab.run("fetch('/v1/access/sessions').then(one => one.status)") == 200


def test_all_sessions_of_somebody_are_ended_by_an_administrator(tab: Tab, grace: Somebody, ada: Browser) -> None:
    """ASVS 7.4.5."""
    theirs = Browser(ada.url)
    theirs.accept(invite(ada, "left-it-open", "viewer"), password=OTHER_PASSWORD)
    open_change(tab, grace.browser.url, "left-it-open")
    tab.wait_for_text("127.0.0.1", "dialog fieldset:last-of-type")
    tab_to(tab, "dialog fieldset:last-of-type button")
    tab.press("Enter")
    tab.wait_for_text("End all sessions of left-it-open?")
    tab_to(tab, f"{TOP} button.first")
    tab.press("Enter")
    tab.wait_for_text("Signed in nowhere.", "dialog fieldset:last-of-type")
    assert focused(tab) == "Sessions"
    assert theirs.ask("GET", "sessions").status_code == 401


def test_group_is_added_and_what_it_holds_is_changed(tab: Tab, grace: Somebody, ada: Browser) -> None:
    tab.open(f"{grace.browser.url}/administration#groups")
    tab.click("#add-group")
    tab.fill("dialog [name=name]", "vision, night shift")
    tab.press("Enter")
    tab.wait_for_text("vision, night shift", "#group-rows")
    tab.click("[aria-label='Change group vision, night shift']")
    tab.wait_for("document.querySelector('dialog .grant')")
    ada.done("PUT", "groups/vision%2C%20night%20shift/grants", {"grants": ["predictor"]})
    tab.fill("dialog .grant input", "cars")
    tab.press("Enter")
    tab.wait_for_text("What is there now: predictor.", "dialog [role=alert]")
    tab.click("dialog button.first")
    tab.wait_for_text("viewer@cars", "#group-rows")
    groups = {one["name"]: one["grants"] for one in ada.done("GET", "groups")["groups"]}
    assert groups["vision, night shift"] == ["viewer@cars"]
    tab.click("#add-group")
    tab.fill("dialog [name=name]", "vision, night shift")
    tab.press("Enter")
    tab.wait_for("document.querySelector('dialog [role=alert]')")
    assert {one["name"]: one["grants"] for one in ada.done("GET", "groups")["groups"]} == groups
