# SPDX-License-Identifier: Apache-2.0
"""The doctor's page: what it says, what it must not contain, and which drawings it takes."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape, unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doctor.small import a_diagnosis, a_finding

from shipsight.doctor import Picture, Severity
from shipsight.doctor.page import render_page
from shipsight.doctor.page.drawings import check_svg
from shipsight.doctor.page.rendering import _prose
from shipsight.errors import InternalError
from shipsight.proof.arrays import write_png

VOID = {"meta", "img", "br"}
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&</style></pre>"
PNG = write_png(np.zeros((4, 4, 3), dtype=np.uint8))
DRAWING = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><rect x="0" y="0" width="3" height="4" fill="#c2410c"/><text x="1" y="9">a &lt; b</text></svg>'


class Elements(HTMLParser):
    """Collects the elements, and checks that each is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def pictured() -> str:
    pictures = (Picture("Bars.", svg=DRAWING), Picture("Pixels.", png=PNG))
    first = a_finding(pictures=pictures, command="shipsight inspect best.bundle", figures={"mean_level": 31.5})
    return render_page(a_diagnosis(first, a_finding("b", Severity.NOTE, weight=0.0)))


def test_page_is_well_formed_and_holds_what_was_found() -> None:
    page = pictured()
    Elements(page)
    for text in (
        "The images are dark.",
        "Switch on the light.",
        "costs 30 %",
        "mean level",
        "31.5",
        "shipsight inspect",
    ):
        assert text in page
    assert page.index("Something is wrong") < page.index("The images are dark.")
    assert "No checkpoint: give it with --against." in page


def test_page_is_well_formed_when_nothing_was_found() -> None:
    page = render_page(a_diagnosis())
    Elements(page)
    assert "Nothing was found that costs accuracy" in page
    assert "does not prove" in page


def test_page_fetches_nothing_and_runs_nothing() -> None:
    seen = Elements(pictured()).seen
    targets = [value for _, given in seen for key, value in given.items() if key in ("src", "href", "srcset")]
    assert any(str(value).startswith("data:image/png;base64,") for value in targets)
    assert all(str(value).startswith(("data:image/png;base64,", "#")) for value in targets)
    assert not {tag for tag, _ in seen} & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert not [given for _, given in seen if "style" in given or any(key.startswith("on") for key in given)]


def test_page_allows_its_own_style_alone() -> None:
    page = pictured()
    policy = next(given["content"] for _, given in Elements(page).seen if "content" in given)
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in str(policy)
    assert "default-src 'none'" in str(policy)
    assert "script-src" not in str(policy)


def test_page_escapes_every_text_that_may_hold_a_name() -> None:
    finding = a_finding(
        what=EVIL, evidence=EVIL + "1", command=EVIL, figures={"name": EVIL}, pictures=(Picture(EVIL, png=PNG),)
    )
    page = render_page(a_diagnosis(finding, lacks=EVIL))
    assert "<script" not in page
    assert "<img src=x" not in page
    assert page.count(escape("<script>alert(1)</script>")) >= 6
    Elements(page)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Use `a < b` here.", "Use <code>a &lt; b</code> here."),
        ("`one` and `two`", "<code>one</code> and <code>two</code>"),
        ("a lone ` stays", "a lone ` stays"),
        ("`one` and a lone `", "<code>one</code> and a lone `"),
        ("`<b>`", "<code>&lt;b&gt;</code>"),
    ],
)
def test_page_shows_what_stands_between_backticks_as_code(text: str, shown: str) -> None:
    finding = a_finding(what=text, evidence=text, pictures=(Picture(text, png=PNG),))
    page = render_page(a_diagnosis(finding, lacks=text, not_told=(text,)))
    Elements(page)
    assert page.count(f">{shown}<") == 5


@given(st.text(alphabet="a<>&\"'`\n "))
def test_page_says_any_text_as_it_is_but_for_backticks(text: str) -> None:
    shown = str(_prose(text))
    assert unescape(shown.replace("<code>", "").replace("</code>", "")).replace("`", "") == text.replace("`", "")
    assert "<" not in shown.replace("<code>", "").replace("</code>", "")


def test_page_shows_what_an_examination_could_not_tell() -> None:
    page = render_page(a_diagnosis(not_told=("A square image does not show stretching.",)))
    assert page.index("Not told") < page.index("A square image does not show stretching.")
    assert "Not told" not in render_page(a_diagnosis())


def test_page_is_the_same_for_the_same_diagnosis() -> None:
    diagnosis = a_diagnosis(a_finding())
    assert render_page(diagnosis) == render_page(diagnosis)


@pytest.mark.parametrize(
    "drawing",
    [
        "<svg><script>alert(1)</script></svg>",
        '<svg onload="alert(1)"></svg>',
        '<svg><a href="https://example.com"><text>x</text></a></svg>',
        '<svg><image href="https://example.com/a.png"/></svg>',
        '<svg><rect fill="url(https://example.com/a)"/></svg>',
        '<svg><rect style="fill:red"/></svg>',
        "<svg><style>@import 'x'</style></svg>",
        "<svg><foreignObject><p>x</p></foreignObject></svg>",
        '<svg xmlns:x="http://www.w3.org/1999/xlink"><rect x:href="javascript:alert(1)"/></svg>',
        '<!DOCTYPE svg [<!ENTITY a "b">]><svg>&a;</svg>',
        "<p>no drawing</p>",
        "<svg>",
        "",
    ],
)
def test_drawing_is_refused_when_it_could_do_more_than_be_seen(drawing: str) -> None:
    with pytest.raises(InternalError):
        check_svg(drawing)


@given(st.text())
def test_drawing_is_taken_with_any_text_that_was_escaped_and_says_it_in_the_end(text: str) -> None:
    readable = "".join(
        one for one in text if one >= " " and not 0xD800 <= ord(one) <= 0xDFFF and ord(one) not in (0xFFFE, 0xFFFF)
    )
    page = check_svg(f"<svg><text>{escape(readable)}</text></svg>")
    assert "<script" not in page
    assert page == f"<svg><text>{escape(readable, quote=False)}</text></svg>" or not readable


def test_picture_is_refused_when_it_is_no_png_file() -> None:
    with pytest.raises(InternalError, match="no PNG"):
        render_page(a_diagnosis(a_finding(pictures=(Picture("x", png=b"GIF89a"),))))
