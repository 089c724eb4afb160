# SPDX-License-Identifier: Apache-2.0
"""Renders `doctor.html`: works offline, without JavaScript and in print, in light and dark.

Leaves to others: every number (`Diagnosis`). Invariants: the page fetches nothing and runs nothing, which its own content
security policy also forbids; all text is escaped by jinja2's autoescape; a drawing goes through `drawings`. Private.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shipsight import __version__
from shipsight.build.report import numbers
from shipsight.build.report.self_contained import STYLE, open_templates, policy_of, read_template, trust
from shipsight.doctor.diagnosis import Diagnosis, Examined
from shipsight.doctor.finding import Figure, Finding, Picture, Severity
from shipsight.doctor.page.drawings import check_svg, png_uri
from shipsight.doctor.telling import judge, limits, lost

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["render_page"]

_ROOM = "shipsight.doctor.page"
_COLOURS = {Severity.ERROR: "failed", Severity.WARNING: "undecided", Severity.NOTE: ""}
_MOST_VALUES = 12


def render_page(diagnosis: Diagnosis) -> str:
    """Renders a diagnosis.

    Args:
        diagnosis: what was found. Its pictures may show private images: the page is for who may see those.

    Returns:
        The page, HTML 5, to be written as UTF-8.

    Raises:
        MissingDependencyError: jinja2 is not installed.
        InternalError: a picture holds something that is not allowed.
    """
    style = read_template(*STYLE) + read_template(_ROOM, "doctor.css")
    kind, word, sentence = judge(diagnosis)
    templates = open_templates(_ROOM)
    templates.filters["prose"] = _prose
    return templates.get_template("doctor.html.j2").render(
        policy=policy_of(style),
        style=trust(style),
        of=diagnosis.of,
        about=diagnosis.about,
        verdict={"kind": kind, "word": word, "sentence": sentence},
        findings=[_card(one, number) for number, one in enumerate(diagnosis.findings, 1)],
        made=[_made(one) for one in diagnosis.examined if one.lacks is None],
        left_out=[one for one in diagnosis.examined if one.lacks is not None],
        not_told=[(one.name, told) for one in diagnosis.examined for told in one.not_told],
        limits=limits(diagnosis),
        machine=_machine(diagnosis),
        took_s=f"{diagnosis.took_s:.0f}",
        version=__version__,
    )


def _prose(text: str) -> Markup:
    """Returns a sentence with what stands between backticks as code; all of it escaped. A backtick without a partner stays one."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts[-2:] = [f"{parts[-2]}`{parts[-1]}"]
    shown = [Markup("<code>{}</code>").format(one) if at % 2 else escape(one) for at, one in enumerate(parts)]
    return Markup("").join(shown)


def _card(finding: Finding, number: int) -> dict[str, Any]:
    return {
        "id": f"finding-{number}",
        "rule": finding.rule,
        "severity": finding.severity.value,
        "colour": _COLOURS[finding.severity],
        "what": finding.what,
        "evidence": finding.evidence,
        "remedy": finding.remedy,
        "command": finding.command,
        "lost": lost(finding),
        "certainty": f"{finding.certainty:.0%}",
        "figures": _facts(finding.figures),
        "pictures": _pictures(finding.pictures),
    }


def _made(one: Examined) -> dict[str, Any]:
    return {
        "name": one.name,
        "title": one.title,
        "took_s": f"{one.took_s:.1f}",
        "rules": len(one.rules),
        "figures": _facts(one.figures),
        "pictures": _pictures(one.pictures),
    }


def _pictures(pictures: tuple[Picture, ...]) -> list[dict[str, str]]:
    return [
        {
            "caption": one.caption,
            "svg": check_svg(one.svg) if one.svg else "",
            "png": png_uri(one.png) if one.png else "",
        }
        for one in pictures
    ]


def _facts(figures: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - figures of a finding or an examination
    return [(key.replace("_", " "), _value(value)) for key, value in figures.items()]


def _value(value: Figure | list[Figure]) -> str:
    if isinstance(value, list) and len(value) > _MOST_VALUES:
        return f"{numbers.plain(value[:_MOST_VALUES])}, and {len(value) - _MOST_VALUES} more"
    return numbers.plain(value)


def _machine(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    cpu = diagnosis.environment.get("cpu") or {}
    versions = diagnosis.environment.get("versions") or {}
    facts = [("processor", cpu.get("model")), ("class", cpu.get("class")), ("usable cores", cpu.get("usable_cores"))]
    return [(name, numbers.plain(value)) for name, value in (*facts, *versions.items()) if value is not None]
