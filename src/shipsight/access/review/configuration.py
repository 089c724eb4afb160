# SPDX-License-Identifier: Apache-2.0
"""Rules about how servers are set up: what protects them switched off, backups restored, servers that nobody knew. Private to the room."""

from __future__ import annotations

import re

from shipsight.access.audit import Entry
from shipsight.access.events import Event, EventKind, Outcome
from shipsight.access.review.acts import texts
from shipsight.access.review.findings import Severity, shown
from shipsight.access.review.known import Known
from shipsight.access.review.rule import Rule, Tell
from shipsight.access.review.settings import ReviewSettings

__all__ = ["Backups", "NewServer", "Weakened"]

_PROTECTING = re.compile(
    r"audit|tls|access|auth|behind|proxy|client[-_]?(ca|authorit)|revocation|database|secret|openid|oidc|public[-_]?url|"
    r"host|suspicion|extraction|quota|rate|session|step[-_]?up|require",
    re.IGNORECASE,
)
_OFF = re.compile(r"\b(off|none|false|no|open|disabled|null|unset|0\.0\.0\.0)\b|^$|-> *$", re.IGNORECASE)


class Weakened(Rule):
    """An option that protects was changed; with alarm where it was switched off."""

    code = "configuration-weakened"
    title = "Protection changed or switched off"
    why = "Who has the machine can start the server without what stops or records them."
    advice = "Compare with what was decided. If nobody did: set it back, and look at all that was done since."
    kinds = frozenset({EventKind.CONFIGURATION_CHANGED, EventKind.STARTED})

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._required: dict[str, Entry] = {}

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Looks at which options changed, and whether a server lets in everybody."""
        event = entry.event
        if event.kind is EventKind.STARTED:
            self._started(entry, tell)
            return
        protecting = [(name, was, now) for name, was, now in changes(event) if _PROTECTING.search(name)]
        if not protecting:
            return
        off = [name for name, was, now in protecting if _OFF.search(now) and not _OFF.search(was)]
        shown_names = ", ".join(shown(name, 60) for name, _, _ in protecting)
        what = f"server {shown(entry.server)}: changed {shown_names}"
        if off:
            what = f"server {shown(entry.server)}: switched off {', '.join(shown(one, 60) for one in off)}"
        severity = Severity.ALARM if off else Severity.NOTE
        tell(self, f"{entry.server} {sorted(off)}", severity, what, [entry], who=[event.actor])

    def _started(self, entry: Entry, tell: Tell) -> None:
        details, before = entry.event.details, self._required.get(entry.server)
        if details.get("required") is True and details.get("open") is not True:
            self._required[entry.server] = entry
        elif before is not None and (details.get("required") is False or details.get("open") is True):
            what = f"server {shown(entry.server)} lets in who does not say who they are, and did not before"
            tell(self, entry.server, Severity.ALARM, what, [before, entry], who=[entry.event.actor])
            del self._required[entry.server]


class Backups(Rule):
    """Identities restored from a backup, or a backup made by somebody who never made one."""

    code = "backup"
    title = "Backup of identities made or restored"
    why = "A backup holds all identities; restoring one brings back who was shut out."
    advice = "See that it was decided, where the copy is, and that nobody is back who should not be."
    kinds = frozenset({EventKind.BACKED_UP, EventKind.RESTORED})

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Looks who did it."""
        event = entry.event
        if event.outcome is not Outcome.DONE:
            return
        profile = known.profile(event.actor)
        if event.kind is EventKind.RESTORED:
            what = (
                f"{shown(event.actor)} restored identities from a backup of {shown(str(event.details.get('made_at')))}"
            )
            tell(self, "restored", Severity.WARNING, what, [entry], who=[event.actor])
        elif profile is None or not profile.did(event.kind.value, event.at, known.window):
            severity = Severity.NOTE if known.is_learning(event.at) else Severity.WARNING
            what = f"{shown(event.actor)} made a backup of identities for the first time"
            tell(self, event.actor, severity, what, [entry], who=[event.actor])


class NewServer(Rule):
    """A server that writes to the log for the first time."""

    code = "new-server"
    title = "A server that was not there"
    why = "Who can write to the log can write anything into it."
    advice = "See that it is one of yours."

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._names: set[str] = set()

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Looks at its name."""
        if entry.server in self._names or len(self._names) > 10_000:
            return
        self._names.add(entry.server)
        if not known.is_learning(entry.event.at):
            what = f"server {shown(entry.server)} writes to the log for the first time"
            tell(self, entry.server, Severity.NOTE, what, [entry])


def changes(event: Event) -> list[tuple[str, str, str]]:
    """Returns the options that an entry tells of, each with what it was and what it is.

    Told as texts `NAME: WAS -> IS` in lists, or as a detail for each name, `WAS -> IS`.
    """
    found = []
    for name, value in event.details.items():
        for one in texts(value) or ((f"{name}: {value}",) if isinstance(value, str) and "->" in value else ()):
            option, _, rest = one.partition(":")
            was, arrow, now = rest.partition("->")
            if arrow:
                found.append((option.strip(), was.strip(), now.strip()))
    return found
