# SPDX-License-Identifier: Apache-2.0
"""The page of models asks anew only while somebody is there, so that a session that nobody uses ends when it should."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.serve.browsing import Tab, opened_tab
from tests.serve.conftest import Served
from tests.serve.people import close_browsers, started_place
from tests.serve.visitors import another_administrator, as_a_stranger, first_administrator

pytestmark = pytest.mark.browser

ASKED = "performance.getEntriesByType('resource').filter(one => one.name.endsWith('/v1/models'))"
SHIFTED_CLOCK = "(() => {const now = Date.now; window.shift_ms = 0; Date.now = () => now() + window.shift_ms})()"
QUIET_S = 5.0  # more than two turns of asking


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    with opened_tab(tmp_path / "chromium") as tab:
        yield from as_a_stranger(tab)


def asked(tab: Tab) -> int:
    return int(tab.value(f"{ASKED}.length"))


def hide(tab: Tab, hidden: bool) -> None:
    told = "true" if hidden else "false"
    tab.value(
        f"Object.defineProperty(document, 'hidden', {{value: {told}, configurable: true}});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )


def assert_quiet(tab: Tab) -> None:
    """Nothing is asked any more, but for what was under way."""
    time.sleep(0.5)
    before = asked(tab)
    time.sleep(QUIET_S)
    assert asked(tab) == before


@pytest.mark.slow
def test_page_of_somebody_signed_in_pauses_until_they_act_again(
    tab: Tab, start: Callable[..., Served], tmp_path: Path
) -> None:
    """ASVS 7.3.1."""
    (tmp_path / "place").mkdir()
    with started_place(start, tmp_path / "place") as place:
        another_administrator(first_administrator(place), "presence").sign_in(tab)
        tab.value(SHIFTED_CLOCK)
        first = asked(tab)
        tab.wait_for(f"{ASKED}.length > {first} + 1")
        tab.value("window.shift_ms = 4 * 60000 + 50000")
        first = asked(tab)
        tab.wait_for(f"{ASKED}.length > {first} + 1")
        tab.value("window.shift_ms = 5 * 60000 + 10000")
        tab.wait_for_text("paused, nobody is here", "#state")
        assert_quiet(tab)
        tab.value("addEventListener('keydown', () => {window.pressed_ms = performance.now()})")
        tab.press("Tab")
        tab.wait_for(f"window.pressed_ms && {ASKED}.at(-1).startTime >= window.pressed_ms - 1")
        assert tab.value(f"{ASKED}.at(-1).startTime - window.pressed_ms") < 500
        tab.wait_for("document.getElementById('state').textContent === 'ready'")
        hide(tab, True)
        assert_quiet(tab)
        before = asked(tab)
        hide(tab, False)
        tab.wait_for(f"{ASKED}.length > {before}")
        close_browsers()


@pytest.mark.slow
def test_page_of_an_open_server_goes_on_where_it_is_seen(
    tab: Tab, start: Callable[..., Served], tmp_path: Path
) -> None:
    (tmp_path / "bundles").mkdir()
    tab.open(f"{start('--repository', tmp_path / 'bundles').url}/")
    tab.wait_for("document.getElementById('state').textContent === 'ready'")
    tab.value(SHIFTED_CLOCK)
    tab.value("window.shift_ms = 3600000")
    before = asked(tab)
    tab.wait_for(f"{ASKED}.length > {before} + 1")
    hide(tab, True)
    assert_quiet(tab)
