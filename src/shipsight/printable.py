# SPDX-License-Identifier: Apache-2.0
"""Texts from outside as people are shown them: what could move a cursor, forge a line, or hide or reorder text is written as an escape. Pure. Private."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str, most: int | None = None) -> str:
    r"""Returns a text on one line without controls, separators, marks of direction and halves of characters: as `\x1b` or `\u202e`.

    Args:
        text: any.
        most: characters of the result, 4 or more; what is longer is cut and ends in three dots. None for no limit.
    """
    shown = text
    if not text.isprintable():
        shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
    return shown if most is None or len(shown) <= most else f"{shown[: most - 3]}..."
