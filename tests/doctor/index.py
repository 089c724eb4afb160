# SPDX-License-Identifier: Apache-2.0
"""The index of rules, written from what is registered: `python -m tests.doctor.index` replaces `docs/doctor/README.md`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tests.conftest import REPOSITORY

from shipsight.doctor import Examination
from shipsight.doctor.accuracy import EXAMINATIONS
from shipsight.doctor.speed import SERVER_EXAMINATIONS, SPEED_EXAMINATIONS

__all__ = ["INDEX", "PAGES", "REGISTERED", "write_index"]

PAGES = REPOSITORY / "docs" / "doctor"
INDEX = PAGES / "README.md"
REGISTERED: tuple[Examination[Any, Any], ...] = (*EXAMINATIONS, *SPEED_EXAMINATIONS, *SERVER_EXAMINATIONS)
"""Every examination of every command of the doctor."""


def write_index(examinations: Iterable[Examination[Any, Any]] = REGISTERED) -> str:
    """Returns the page."""
    return "\n".join(_lines(examinations))


def _lines(examinations: Iterable[Examination[Any, Any]]) -> Iterator[str]:
    yield "# What the doctor knows"
    yield ""
    yield "Every rule of `shipsight doctor`, by examination. Each page says what is wrong, how it is found, what it costs and what to do."
    yield "[The model is worse in production: what now](../doctor.md) is the guide, [shipsight doctor](../commands/doctor.md) the command."
    for one in examinations:
        more = f" [How it is examined]({one.name}.md)." if (PAGES / f"{one.name}.md").exists() else ""
        yield from ("", f"## {one.name}", "", f"{one.title}{more}", "", "| rule | finds |", "|---|---|")
        for rule in one.rules:
            yield f"| [{rule.id}]({rule.id}.md) | {rule.title} |"
    yield ""


if __name__ == "__main__":
    INDEX.write_text(write_index(), encoding="utf-8")
