# SPDX-License-Identifier: Apache-2.0
"""The page of the audit log in Chromium: entries, filters, texts of strangers, exports, reviews signed off, state; labels, keyboard, contrast."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.serve.audited import HOSTILE
from tests.serve.browsing import Tab
from tests.serve.people import PASSWORD, SEEN_WITHIN_S, Browser, Place
from tests.serve.test_access_pages import CONTRAST, LABELS, LEAST_CONTRAST, LEAST_CONTRAST_LARGE
from tests.serve.visitors import Somebody, another_administrator

from shipsight.access import SERVER, Event, EventKind, Grant, Outcome
from shipsight.access.audit.log import AuditLog

pytestmark = pytest.mark.browser

ROWS = "document.querySelectorAll('#entry-rows tr[data-id]').length"


@contextmanager
def log_of(place: Place) -> Iterator[AuditLog]:
    """The server's log, written beside it, as another server of it does."""
    at, key = place.database.with_suffix(".audit.db"), place.database.with_suffix(".audit.key")
    with AuditLog.open(str(at), key=key, server="beside", has_session=False) as log:
        yield log


def record(place: Place, *events: Event) -> int:
    """Records events; returns the number of the last."""
    with log_of(place) as log:
        for one in events:
            log.record(one)
        log.checkpoint()
        return log.size - 1


def event(kind: EventKind = EventKind.DATA_READ, *, ago_s: float = 0.0, **more: object) -> Event:
    given: dict[str, object] = {"outcome": Outcome.DONE, "actor": "person:eve", **more}
    return Event(datetime.now(UTC) - timedelta(seconds=ago_s), kind, **given)  # type: ignore[arg-type] - as a test gives them


def another_auditor(place: Place, name: str) -> Somebody:
    """Somebody who may read and review, and nothing else."""
    with place.access() as access:
        _, code = access.directory.add_user(SERVER, name, grants=[Grant("auditor")])
    time.sleep(SEEN_WITHIN_S)
    browser = Browser(place.url)
    browser.accept(code)
    browser.enrol()
    return Somebody(name, browser)


def give_session(tab: Tab, somebody: Somebody) -> None:
    """Lets a browser go on where somebody signed in: how they do so is tested elsewhere."""
    url, token = somebody.browser.url, somebody.browser.token
    tab.call("Network.setCookie", name="shipsight", value=token, url=url, httpOnly=True, sameSite="Strict")


@pytest.fixture
def iris(place: Place, ada: Browser, tab: Tab, request: pytest.FixtureRequest) -> Somebody:
    """An auditor, signed in."""
    iris = another_auditor(place, f"iris-{abs(hash(request.node.name)) % 10**6}")
    give_session(tab, iris)
    return iris


def open_audit(tab: Tab, url: str, part: str = "") -> None:
    tab.open("about:blank")
    tab.open(f"{url}/audit{part}")
    tab.wait_for(
        f"{ROWS} > 0 && document.getElementById('state-rows').children.length && !document.querySelector('#make-review:disabled')"
    )
    tab.wait_for("document.querySelector('#review-rows tr')")


def choose(tab: Tab, **filters: str) -> None:
    """Fills the filter's fields, and shows what fits."""
    for name, value in filters.items():
        tab.value(f"document.querySelector('#filter [name={name}]').value = {value!r}")
    tab.value(
        "document.getElementById('entry-rows').dataset.old = '1'; document.querySelector('#entry-rows tr')?.setAttribute('data-stale', '')"
    )
    tab.click("#filter button.first")
    tab.wait_for("!document.querySelector('[data-stale]') && !document.querySelector('#filter button:disabled')")


def burst(who: str) -> list[Event]:
    """What a review finds: somebody who is known, and forty failed sign-ins."""
    failed = [
        event(EventKind.SIGN_IN, ago_s=40 - n, actor=who, outcome=Outcome.REFUSED, why="unauthenticated")
        for n in range(40)
    ]
    return [event(EventKind.SIGN_IN, ago_s=60, actor=who, factor="password"), *failed]


# --- entries ----------------------------------------------------------------------------------------------------------


def test_auditor_comes_to_the_log_and_sees_what_was_done(tab: Tab, iris: Somebody, place: Place) -> None:
    tab.open(place.url)
    tab.wait_for_text("Audit", "#pages")
    tab.click("#pages a[href='/audit']")
    tab.wait_for(f"location.pathname === '/audit' && {ROWS} > 5")
    assert f"person:{iris.name}" in tab.text("#entry-rows")
    assert "sign in" in tab.text("#entry-rows")
    assert tab.value("document.querySelector('#pages [aria-current=page]').innerText") == "Audit"


def test_filter_shows_what_fits(tab: Tab, iris: Somebody, place: Place) -> None:
    record(place, *[event(actor="person:filtered", subject=f"model:cup-{n}", address="198.51.100.7") for n in range(3)])
    open_audit(tab, place.url)
    choose(tab, actor="person:filtered")
    assert tab.value(ROWS) == 3
    choose(tab, text="CUP-1", kind="data-read")
    assert tab.value(ROWS) == 1
    assert "model:cup-1" in tab.text("#entry-rows")
    choose(tab, outcome="refused")
    tab.wait_for_text("No entry fits.", "#entry-rows")
    tab.click("#clear")
    tab.wait_for(f"{ROWS} > 3")
    assert tab.value("document.querySelector('#filter [name=actor]').value") == ""
    tomorrow = (datetime.now() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")  # noqa: DTZ005 - as a browser here has it
    choose(tab, since=tomorrow)
    tab.wait_for_text("No entry fits.", "#entry-rows")


def test_older_entries_come_page_by_page(tab: Tab, iris: Somebody, place: Place) -> None:
    record(place, *[event(actor="person:many", details={"n": n}) for n in range(70)])
    open_audit(tab, place.url)
    choose(tab, actor="person:many")
    assert tab.value(ROWS) == 50
    tab.click("#older")
    tab.wait_for(f"{ROWS} === 70")
    assert not tab.value("document.getElementById('older').checkVisibility()")
    told = tab.value("[...document.querySelectorAll('#entry-rows tr')].map(row => Number(row.dataset.id))")
    assert told == sorted(told, reverse=True)
    assert len(set(told)) == 70
    assert tab.value("document.activeElement.closest('tr').rowIndex") == 51


def test_details_of_an_entry_are_told_and_what_was_around_it(tab: Tab, iris: Somebody, place: Place) -> None:
    seq = record(
        place,
        event(
            actor="person:detailed",
            subject="model:cups",
            details={"files": ["golden/1.png", "golden/2.png"], "bytes": 7},
        ),
    )
    open_audit(tab, place.url)
    choose(tab, actor="person:detailed")
    tab.click(f"[aria-label='Details of entry {seq}']")
    tab.wait_for_text("golden/1.png, golden/2.png", "dialog")
    tab.press("Escape")
    tab.wait_for("!document.querySelector('dialog')")
    assert tab.value("document.activeElement.getAttribute('aria-label')") == f"Details of entry {seq}"
    tab.open("about:blank")
    tab.open(f"{place.url}/audit#entry-{seq}")
    tab.wait_for_text(f"Entry {seq}", "dialog")
    tab.click("dialog .buttons button:first-child")
    tab.wait_for_text(f"Entries {max(0, seq - 25)} to {seq + 25}.", "#chosen")
    tab.wait_for(f"{ROWS} > 1")
    tab.wait_for_text("person:detailed", "#entry-rows")


@pytest.mark.parametrize("which", HOSTILE)
def test_text_of_a_stranger_is_shown_and_does_nothing(tab: Tab, iris: Somebody, place: Place, which: str) -> None:
    """ASVS 16.4.1, 1.2.1: markup, escapes, line breaks, texts that turn others around."""
    hostile = HOSTILE[which]
    seq = record(
        place, event(actor=f"person:hostile-{which}", subject=hostile, address=hostile, details={"agent": hostile})
    )
    open_audit(tab, place.url)
    tab.value("window.alert = () => { window.alerted = true }")
    choose(tab, actor=f"person:hostile-{which}")
    tab.click(f"[aria-label='Details of entry {seq}']")
    tab.wait_for_text("agent", "dialog")
    assert tab.value("window.alerted") is None
    assert tab.value("document.querySelectorAll('main img, main script, dialog img, dialog script').length") == 0
    shown = tab.value(
        "[...document.querySelectorAll('#entry-rows td:nth-child(5) bdi, dialog dd bdi')].map(one => one.textContent)"
    )
    wanted = "".join(one if one.isprintable() else f"U+{ord(one):04X}" for one in hostile)
    assert shown.count(wanted) == 4  # the row, and its subject, address and details in the dialog
    assert tab.value("document.querySelectorAll('#entry-rows tr').length") == 1
    assert tab.value("document.documentElement.scrollWidth <= innerWidth")


def test_long_text_does_not_break_the_page(tab: Tab, iris: Somebody, place: Place) -> None:
    record(place, event(actor="person:long", subject="m" * 2**20, details={"agent": "M" * 2**20}))
    open_audit(tab, place.url)
    choose(tab, actor="person:long")
    assert tab.value("document.documentElement.scrollWidth <= innerWidth")
    assert len(tab.text("#entry-rows")) < 2000


@pytest.mark.parametrize(("place_of_link", "ending"), [(1, "csv"), (2, "jsonl")])
def test_export_is_saved_as_a_file(
    tab: Tab, iris: Somebody, place: Place, tmp_path: Path, place_of_link: int, ending: str
) -> None:
    record(place, *[event(actor="person:exported", subject=f"{ending}-{n}") for n in range(5)])
    open_audit(tab, place.url)
    choose(tab, actor="person:exported", text=f"{ending}-")
    tab.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    tab.click(f"#exports a:nth-child({place_of_link})")
    end = time.monotonic() + 20
    while not (found := list(tmp_path.glob(f"audit-*.{ending}"))):
        assert time.monotonic() < end, list(tmp_path.iterdir())
        time.sleep(0.1)
    content = found[0].read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(content))) if ending == "csv" else content.splitlines()
    assert len(rows) == 5
    with log_of(place) as log:
        told = [one.event for one in log.entries(kinds=(EventKind.EXPORTED,), actor=f"person:{iris.name}")]
    assert [one.details["format"] for one in told] == [ending]


# --- reviews ----------------------------------------------------------------------------------------------------------


def test_review_is_made_read_and_signed_off_with_a_proof(tab: Tab, iris: Somebody, place: Place) -> None:
    """ASVS 7.5.3."""
    record(place, *burst("person:guessed"))
    open_audit(tab, place.url, "#reviews")
    tab.click("#make-review")
    tab.click("dialog button.first")
    tab.wait_for("document.querySelector('#report .finding')")
    assert "sign-ins of person:guessed failed" in tab.text("#report")
    assert "ok," in tab.text("#report dl")
    entry = tab.text("#report .finding a[href^='#entry-']")
    tab.click("#report .finding a[href^='#entry-']")
    tab.wait_for_text(f"Entry {entry}", "dialog")
    tab.press("Escape")
    tab.click("#parts a[href='#reviews']")
    place.make_stale(iris.name)
    tab.fill("#sign-off textarea", "Asked them: a new keyboard.")
    tab.click("#sign-off button.first")
    tab.wait_for_text("Prove again who you are", "dialog")
    tab.fill("dialog [name=password]", PASSWORD)
    tab.fill("dialog [name=code]", iris.browser.code())
    tab.press("Enter")
    tab.wait_for_text("Asked them: a new keyboard.", "#report blockquote")
    tab.wait_for_text(f"person:{iris.name}", "#review-rows tr:first-child td:nth-child(4)")
    assert tab.value("document.getElementById('sign-off')") is None
    with log_of(place) as log:
        (signed,) = log.entries(kinds=(EventKind.REVIEW_SIGNED,), actor=f"person:{iris.name}")
    assert signed.event.details["note"] == "Asked them: a new keyboard."


def test_whoever_a_finding_names_is_told_that_another_has_to_sign(tab: Tab, iris: Somebody, place: Place) -> None:
    record(place, *burst(f"person:{iris.name}"))
    open_audit(tab, place.url, "#reviews")
    tab.click("#make-review")
    tab.click("dialog button.first")
    tab.wait_for_text("A finding concerns you", "#report")
    assert tab.value("document.getElementById('sign-off')") is None


def test_sign_off_without_a_note_is_told_where_it_is_missing(tab: Tab, iris: Somebody, place: Place) -> None:
    record(place, event(actor="person:quiet"))
    open_audit(tab, place.url, "#reviews")
    tab.click("#make-review")
    tab.click("dialog button.first")
    tab.wait_for("document.querySelector('#sign-off textarea')")
    tab.click("#sign-off button.first")
    tab.wait_for_text("This is missing.", "#sign-off")
    assert tab.value("document.activeElement.name") == "note"


def test_overdue_review_is_told_on_every_part(tab: Tab, iris: Somebody, place: Place) -> None:
    open_audit(tab, place.url)
    assert not tab.value("document.getElementById('due').checkVisibility()")
    tab.run(
        "import('/pages/audit-reviews.js').then(one => one.tellDue({overdue_s: 3 * 86400 + 5, due_at: '2026-01-02T03:04:05Z'}))"
    )
    assert "A review is overdue." in tab.text("#due")
    assert "3 days beyond" in tab.text("#due")
    for part in ("reviews", "chain", "entries"):
        tab.click(f"#parts a[href='#{part}']")
        tab.wait_for("document.getElementById('due').checkVisibility()")


# --- state ------------------------------------------------------------------------------------------------------------


def test_log_is_verified_from_the_page(tab: Tab, iris: Somebody, place: Place) -> None:
    open_audit(tab, place.url, "#chain")
    tab.wait_for_text("entries", "#state-rows")
    tab.click("#verify")
    tab.wait_for_text("Whole and as it was signed", "#verified")
    assert "shipsight/" in tab.text("#state-rows")
    tab.open(f"{place.url}/audit#entries")
    open_audit(tab, place.url, "#chain")
    tab.wait_for_text("Whole and as it was signed", "#verified")


# --- who may, and for everybody ---------------------------------------------------------------------------------------


def test_administrator_has_no_way_to_the_log(
    tab: Tab, ada: Browser, place: Place, request: pytest.FixtureRequest
) -> None:
    """ASVS 16.4.2."""
    grace = another_administrator(ada, request.node.name)
    give_session(tab, grace)
    tab.open(place.url)
    tab.wait_for("document.getElementById('sign-out')")
    assert "Audit" not in tab.text("#pages")
    tab.open(f"{place.url}/audit")
    tab.wait_for_text("You may not read the audit log.")
    assert tab.value("document.querySelectorAll('main table, main form').length") == 0
    assert tab.run("fetch('/v1/audit/records').then(one => one.status)") == 403


def test_page_leads_to_sign_in_and_back(tab: Tab, ada: Browser) -> None:
    tab.open("about:blank")
    tab.call("Page.navigate", url=f"{ada.url}/audit")
    tab.wait_for("location.pathname === '/sign-in' && location.search === '?next=audit'")


def views(tab: Tab, place: Place) -> Iterator[str]:
    """The page's parts and dialogs, as they are on a desk where nothing else is said."""
    hostile = [
        event(EventKind.EXPORTED, actor=f"person:{one}", subject=one, address="203.0.113.9", details={"agent": one})
        for one in HOSTILE.values()
    ]
    seq = record(
        place,
        *burst("person:guessed"),
        *hostile,
        event(EventKind.REFUSED, outcome=Outcome.REFUSED, why="forbidden", subject="model:cups"),
    )
    open_audit(tab, place.url)
    yield "entries"
    tab.click(f"[aria-label='Details of entry {seq - 1}']")
    tab.wait_for("document.querySelector('dialog dl')")
    yield "entry"
    open_audit(tab, place.url, "#reviews")
    tab.click("#make-review")
    tab.wait_for("document.querySelector('dialog form')")
    yield "make-review"
    tab.click("dialog button.first")
    tab.wait_for("document.querySelector('#report .finding')")
    yield "review"
    open_audit(tab, place.url, "#chain")
    tab.click("#verify")
    tab.wait_for_text("Whole and as it was signed", "#verified")
    tab.run(
        "import('/pages/audit-reviews.js').then(one => one.tellDue({overdue_s: 3 * 86400 + 5, due_at: '2026-01-02T03:04:05Z'}))"
    )
    yield "state"


def test_every_text_and_edge_stands_out_and_every_control_has_a_name(
    tab: Tab, iris: Somebody, place: Place, tmp_path: Path
) -> None:
    """WCAG 2.1 AA: 1.4.3, 1.4.11, 1.3.1, 3.3.2, 4.1.2."""
    seen = 0
    tab.call("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
    try:
        for view in views(tab, place):
            for scheme in ("light", "dark"):
                tab.prefer(scheme)
                told = tab.value(CONTRAST)
                seen += len(told)
                least = {True: LEAST_CONTRAST_LARGE, False: LEAST_CONTRAST}
                assert [one for one in told if one["ratio"] < least[one["isLarge"]]] == [], (view, scheme)
                (tmp_path / f"{view}-{scheme}.png").write_bytes(tab.picture())
            assert tab.value(LABELS) == [], view
            tab.prefer("light")
    finally:
        tab.call("Emulation.clearDeviceMetricsOverride")
    assert seen > 500


@pytest.mark.parametrize("width", [320, 390])
def test_page_fits_a_telephone(tab: Tab, iris: Somebody, place: Place, tmp_path: Path, width: int) -> None:
    """WCAG 2.1 AA, 1.4.10."""
    tab.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    try:
        for view in views(tab, place):
            assert tab.value("document.documentElement.scrollWidth") <= width, view
            for scheme in ("light", "dark"):
                tab.prefer(scheme)
                (tmp_path / f"{view}-{width}-{scheme}.png").write_bytes(tab.picture())
            tab.prefer("light")
    finally:
        tab.call("Emulation.clearDeviceMetricsOverride")


def test_log_takes_a_keyboard_alone(tab: Tab, iris: Somebody, place: Place) -> None:
    """WCAG 2.1.1, 2.4.7."""
    record(place, event(actor="person:keyboard"))
    open_audit(tab, place.url)
    tab.value("document.querySelector('#filter [name=actor]').focus()")
    tab.type("person:keyboard")
    tab.press("Enter")
    tab.wait_for(f"{ROWS} === 1")
    for _ in range(40):
        tab.press("Tab")
        style = tab.value(
            "(s => [s.outlineStyle, parseFloat(s.outlineWidth)])(getComputedStyle(document.activeElement))"
        )
        assert style[0] != "none"
        assert style[1] >= 1
        if str(tab.value("document.activeElement.getAttribute('aria-label')")).startswith("Details of entry"):
            break
    tab.press("Enter")
    tab.wait_for_text("person:keyboard", "dialog")
    tab.press("Escape")
    tab.wait_for("!document.querySelector('dialog')")
