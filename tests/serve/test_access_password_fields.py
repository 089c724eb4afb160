# SPDX-License-Identifier: Apache-2.0
"""What the pages do with passwords, what a browser keeps of a person, and how it is left, in Chromium."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
from tests.serve.browsing import Tab
from tests.serve.people import PASSWORD, Browser

pytestmark = pytest.mark.browser

PAGES = ("/", "/account", "/administration", "/second-factor")
FIELDS = "[...document.querySelectorAll('input[autocomplete$=password]')].filter(one => one.checkVisibility())"
IN_USE = "(one => one?.checkVisibility() && !one.form.querySelector('button:disabled'))(document.querySelector({}))"


class Fields(NamedTuple):
    """Fields for passwords of a page."""

    path: str
    selectors: tuple[str, ...]
    is_signed_in: bool = False
    opened_by: str = "null"


EVERYWHERE = {
    "sign-in": Fields("/sign-in", ("#password-form [name=password]",)),
    "invitation": Fields("/invitation", ("[name=password]", "[name=again]")),
    "account": Fields("/account", ("[name=current]", "[name=new]", "[name=again]"), is_signed_in=True),
    "fresh proof": Fields(
        "/",
        ("dialog [name=password]",),
        is_signed_in=True,
        opened_by="import('/pages/prove.js').then(one => void one.proveAgain())",
    ),
}


def be(tab: Tab, browser: Browser) -> None:
    """Lets the tab have a person's session."""
    put = {"name": "shipsight", "value": browser.token, "url": browser.url, "httpOnly": True, "sameSite": "Strict"}
    assert tab.call("Network.setCookie", **put)["success"]


def edit(tab: Tab, command: str) -> None:
    """Does what the keys for marking, copying and pasting do."""
    for kind in ("rawKeyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", type=kind, commands=[command] if kind == "rawKeyDown" else [])


def copy_in(tab: Tab, text: str) -> None:
    """Puts a text where pasting takes it from, as a manager of passwords does."""
    tab.value("(() => {const e = document.createElement('textarea'); document.body.append(e); e.focus()})()")
    tab.type(text)
    edit(tab, "selectAll")
    edit(tab, "copy")
    tab.value("document.activeElement.remove()")


@pytest.mark.parametrize("where", EVERYWHERE)
def test_password_field_hides_what_is_typed_and_takes_what_is_pasted(tab: Tab, ada: Browser, where: str) -> None:
    """ASVS 6.2.6, 6.2.7, 6.2.9."""
    fields, secret = EVERYWHERE[where], "x" * 100 + PASSWORD
    tab.forget()
    if fields.is_signed_in:
        be(tab, ada)
    tab.open(f"{ada.url}{fields.path}")
    tab.wait_for("!document.querySelector('form button:disabled')")
    copy_in(tab, secret)
    tab.run(fields.opened_by)
    for selector in map(json.dumps, fields.selectors):
        tab.wait_for(IN_USE.format(selector))
        tab.value(f"document.querySelector({selector}).focus()")
        edit(tab, "paste")
        assert tab.value(f"document.querySelector({selector}).value") == secret
    # No other field on the page is for a password, and each of these says so to managers of passwords.
    kinds = tab.value(f"{FIELDS}.map(one => [one.type, one.autocomplete, one.readOnly])")
    assert len(kinds) == len(fields.selectors)
    assert {(kind, is_fixed) for kind, _, is_fixed in kinds} == {("password", False)}
    assert {purpose for _, purpose, _ in kinds} <= {"current-password", "new-password"}
    assert secret not in tab.text("body")


@pytest.mark.parametrize("path", PAGES)
def test_every_page_of_a_person_shows_how_to_sign_out(tab: Tab, ada: Browser, path: str) -> None:
    """ASVS 7.4.4."""
    be(tab, ada)
    tab.open(f"{ada.url}{path}")
    tab.wait_for("document.getElementById('sign-out')?.checkVisibility()")
    assert tab.text("#sign-out") == "Sign out"


def test_browser_keeps_nothing_that_scripts_can_read(tab: Tab, ada: Browser) -> None:
    """ASVS 3.3.4, 14.3.3."""
    be(tab, ada)
    for path in PAGES:
        tab.open(f"{ada.url}{path}")
        tab.wait_for("document.getElementById('sign-out')")
        kept = tab.run(
            "Promise.all([indexedDB.databases(), caches.keys()])"
            ".then(([bases, caches]) => [document.cookie, sessionStorage.length, bases.length, caches.length])"
        )
        assert kept == ["", 0, 0, 0], path
        # Both public: the server's identity for sealed requests, and whether images are sealed.
        assert set(tab.run("Object.keys(localStorage)")) <= {"shipsight-sealing-identity", "shipsight-seals"}, path
