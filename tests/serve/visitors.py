# SPDX-License-Identifier: Apache-2.0
"""People at the server's pages in Chromium: invited, signed in by the pages, each as in a browser that was never here."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.serve.browsing import Tab
from tests.serve.people import PASSWORD, Browser, Place


@dataclass
class Somebody:
    """A person at the pages."""

    name: str
    browser: Browser = field(repr=False)

    def sign_in(self, tab: Tab) -> None:
        """Signs in by the pages."""
        url = self.browser.url
        tab.open(f"{url}/sign-in")
        give_name_and_password(tab, self.name)
        tab.fill("[name=code]", self.browser.code())
        tab.press("Enter")
        tab.wait_for("location.pathname === '/' && document.getElementById('sign-out')")


def give_name_and_password(tab: Tab, name: str, password: str = PASSWORD) -> None:
    tab.fill("#password-form [name=name]", name)
    tab.fill("#password-form [name=password]", password)
    tab.press("Enter")


def open_account(tab: Tab, url: str) -> None:
    """Opens one's account, and waits until nothing there moves any more."""
    tab.open(f"{url}/account")
    tab.wait_for(
        "['factors', 'sessions'].every(id => document.querySelector(`#${id} tr`)) && document.querySelector('#keys tbody tr')"
    )


def first_administrator(place: Place) -> Browser:
    browser = Browser(place.url)
    browser.accept(place.setup_code, name="ada")
    browser.enrol()
    return browser


def invite(ada: Browser, name: str, *grants: str) -> str:
    """Invites somebody; the administrator proves anew who they are where they last did so too long ago."""
    if ada.ask("POST", "factors/recovery-codes", {}).status_code == 401:
        ada.sign_in("ada")
    code: str = ada.done("POST", "users", {"name": name, "grants": list(grants)})["code"]
    return code


def another_administrator(ada: Browser, of: str) -> Somebody:
    """An administrator with an app for codes.

    Args:
        ada: who invites them.
        of: the test that they are for.
    """
    name = f"grace-{abs(hash(of)) % 10**6}"
    browser = Browser(ada.url)
    browser.accept(invite(ada, name, "admin", "predictor"))
    browser.enrol()
    return Somebody(name, browser)


def on_the_command_line(place: Place, *arguments: str) -> None:
    """Runs the command beside the server, on its identities."""
    command = [sys.executable, "-m", "shipsight", *arguments, "--database", str(place.database)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def as_a_stranger(chromium: Tab) -> Iterator[Tab]:
    """The browser of somebody who was never here; it may complain of nothing but what the server refuses on purpose."""
    chromium.call("WebAuthn.disable")
    chromium.call("Page.navigate", url="about:blank")
    chromium.forget()
    chromium.prefer("light")
    chromium.complaints.clear()
    yield chromium
    assert [one for one in chromium.complaints if not re.search(r"status of (400|401|403|404|409)", one)] == []
