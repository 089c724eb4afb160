# SPDX-License-Identifier: Apache-2.0
"""A report as one page that needs nothing else: for people to read, print and file. Private to the room.

Everything in it that came from outside is escaped; the page runs nothing and fetches nothing, and says so to the browser.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING

from shipsight.access.review.findings import MOST_SEQS, Finding, shown
from shipsight.access.review.report import Report
from shipsight.access.review.rules import RULES

if TYPE_CHECKING:
    from shipsight.access.review.store import SignOff

__all__ = ["make_page"]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #777; --alarm: #b3261e; --warning: #8a5a00; --note: #4a6a8a; }
@media (prefers-color-scheme: dark) { :root { --soft: #aaa; --alarm: #ff8a80; --warning: #f0b64a; --note: #9dbbe0; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
p { margin: .3rem 0; } .soft { color: var(--soft); } code, .mono { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 1rem 0; } dt { color: var(--soft); } dd { margin: 0; }
article { border: 1px solid var(--line); border-left: .35rem solid var(--note); border-radius: .4rem; padding: .7rem 1rem; margin: .8rem 0; }
article.alarm { border-left-color: var(--alarm); } article.warning { border-left-color: var(--warning); }
article h3 { font-size: 1rem; margin: 0 0 .2rem; overflow-wrap: anywhere; } .tag { font-weight: 700; text-transform: uppercase; font-size: .75rem; }
.alarm .tag { color: var(--alarm); } .warning .tag { color: var(--warning); } .note .tag { color: var(--note); }
table { border-collapse: collapse; } td, th { text-align: left; padding: .15rem 1.2rem .15rem 0; } td:last-child { text-align: right; }
details summary { cursor: pointer; } .verdict { font-weight: 700; } .bad { color: var(--alarm); }
@media (max-width: 36rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
@media print { article { break-inside: avoid; } }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_TITLES = {rule.code: (rule.title, rule.why) for rule in RULES} | {
    "chain": ("The log itself", "Findings are worth what the log is worth.")
}


def make_page(report: Report, signed: Sequence[SignOff] = ()) -> str:
    """Returns a report as HTML.

    Args:
        report: it.
        signed: who signed it off.
    """
    findings = "".join(map(_finding, report.findings)) or "<p>Nothing that somebody has to look at.</p>"
    notes = ""
    if report.notes:
        told = "".join(map(_finding, report.notes))
        notes = f"<details><summary>{len(report.notes)} notes: rare, mostly harmless</summary>{told}</details>"
    left = f"<p class=bad>{report.left_out} more were too many for this report.</p>" if report.left_out else ""
    kinds = "".join(f"<tr><td>{escape(kind)}</td><td>{count}</td></tr>" for kind, count in report.kinds.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">'
        f"<title>Review {escape(report.id)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>Review of the audit log</h1><p class=soft>{_when(report.since)} to {_when(report.until)}, UTC</p>"
        f"{_head(report)}<h2>Signed off</h2>{_signed(signed)}"
        f"<h2>{len(report.findings)} findings</h2>{findings}{left}{notes}"
        f"<h2>What was looked at</h2><p>Entries of the period, by kind.</p><table>{kinds}</table>"
        "</main></body></html>\n"
    )


def _head(report: Report) -> str:
    chain = report.chain
    good = chain.status == "ok"
    verdict = f"<span class='verdict{'' if good else ' bad'}'>{_text(chain.status)}</span>"
    rows = [
        ("review", f"<code>{_text(report.id)}</code>"),
        ("log", f"<code>{_text(report.log)}</code>"),
        ("verified", f"{verdict}, {chain.covered} of {chain.size} entries under a checkpoint"),
        ("entries", f"{report.entries}, from {report.first_seq} to {report.next_seq - 1}; {report.actors} actors"),
        ("made", f"{_when(report.made_at)} by {_text(report.made_by)}"),
        ("SHA-256", f"<code>{report.digest}</code>"),
    ]
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows) + "</dl>"


def _signed(signed: Sequence[SignOff]) -> str:
    if not signed:
        return "<p class=bad>Nobody has signed this review off.</p>"
    return "".join(
        f"<p>{_when(one.at)} by <strong>{_text(one.who)}</strong> (entry {one.seq}): {_lines(one.note)}</p>"
        for one in signed
    )


def _finding(one: Finding) -> str:
    title, why = _TITLES.get(one.rule, (one.rule, ""))
    seqs = ", ".join(map(str, one.seqs))
    more = f" (of {one.count})" if one.count > min(len(one.seqs), MOST_SEQS) else ""
    when = _when(one.first_at) if one.first_at == one.last_at else f"{_when(one.first_at)} to {_when(one.last_at)}"
    rows = [("who", ", ".join(map(_text, one.who))), ("when", "" if one.first_at is None else when)]
    rows += [("entries", f"{seqs}{more}" if seqs else "")]
    rows += [(name.replace("_", " "), _text(str(value))) for name, value in one.numbers.items()]
    rows += [("why it matters", escape(why)), ("what to do", escape(one.advice))]
    told = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in rows if value)
    return (
        f'<article class="{one.severity.value}" id="{escape(one.id)}"><span class=tag>{one.severity.value}</span> '
        f"<span class=soft>{escape(title)}</span><h3>{_text(one.what)}</h3><dl>{told}</dl></article>"
    )


def _when(at: datetime | None) -> str:
    return "-" if at is None else f"{at:%Y-%m-%d %H:%M}"


def _text(text: str) -> str:
    return escape(shown(text, 1000))


def _lines(text: str) -> str:
    return "<br>".join(_text(line) for line in text.split("\n"))
