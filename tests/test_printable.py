# SPDX-License-Identifier: Apache-2.0
"""Texts from outside: nothing of them moves a cursor, forges a line or reorders text, and what is harmless stays."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipsight.printable import printable


@given(st.text(), st.none() | st.integers(4, 80))
def test_any_text_becomes_one_line_that_moves_nothing(text: str, most: int | None) -> None:
    shown = printable(text, most)
    assert all(one == " " or unicodedata.category(one)[0] not in "CZ" for one in shown)
    assert most is None or len(shown) <= most


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zo\N{LATIN SMALL LETTER E WITH DIAERESIS} 10.0.0.1", "Zo\N{LATIN SMALL LETTER E WITH DIAERESIS} 10.0.0.1"),
        ("two\r\nlines", "two\\r\\nlines"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("half \ud800", "half \\ud800"),
        ("no\xa0break", "no\\xa0break"),
        ("", ""),
    ],
)
def test_what_moves_things_is_an_escape_and_the_rest_stays(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_text_that_is_too_long_ends_in_dots() -> None:
    assert printable("x" * 100, 60) == "x" * 57 + "..."
    assert printable("x" * 60, 60) == "x" * 60
