# SPDX-License-Identifier: Apache-2.0
"""An app in this process that keeps a real audit log, and those who ask it; texts that strangers put into logs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.serve.gated import NOTHING, Answered, Gated, Headers, gated

from shipsight.access import Event, EventKind, Outcome
from shipsight.access.audit.log import AuditLog
from shipsight.serve.auditing import open_audited

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOSTILE = {
    "line breaks": "ada\r\n2026-01-01 admin signed in",
    "terminal": "\x1b[2J\x1b[1;31mall good\x07",
    "other line breaks": "a\u2028b\u2029c\x85d\x0b",
    "turned around": "\u202eecnatsni\u2066x",
    "markup": "<img src=x onerror=alert(1)><script>alert(1)</script>",
    "nothing seen": "ad\u200ba\ufeff",
    "half a character": "x\ud800y",
    "no character": "a\x00b\x7f",
    "formula": '=HYPERLINK("https://evil.example","open me")',
}


@dataclass
class AuditedApp:
    """An app, its log, and those who ask it."""

    app: Gated
    log: AuditLog
    auditor: Headers

    def ask(
        self, path: str, who: Mapping[str, str] | None = None, *, method: str = "GET", body: Any = None, **headers: str
    ) -> Answered:
        """Asks below `/v1/audit/`, by default as an auditor."""
        sent = {**(self.auditor if who is None else who), **headers}
        raw = b""
        if body is not None:
            raw, sent["content-type"] = json.dumps(body).encode(), "application/json"
        return asyncio.run(self.app.ask(method, f"/v1/audit/{path}", sent, raw))

    def told(self, path: str, **more: Any) -> Any:
        """Asks, and returns what must succeed."""
        answered = self.ask(path, **more)
        assert answered.status in (200, 201), answered.body
        return answered.json()

    def record(self, kind: EventKind = EventKind.SIGN_IN, **more: Any) -> None:
        """Records an event."""
        given = {"at": AT, "outcome": Outcome.DONE, "actor": "person:ada", **more}
        self.log.record(Event(kind=kind, **given))

    def of(self, kind: EventKind) -> list[Event]:
        """What was recorded of one kind."""
        return [one.event for one in self.log.entries(kinds=(kind,))]


@contextmanager
def audited(folder: Path) -> Iterator[AuditedApp]:
    """Gives an app with a log, and an auditor who signed in."""
    key = folder / "audit.key"
    with gated(folder) as app, AuditLog.open(str(folder / "audit.db"), key=key, server="test", now=app.gate.now) as log:
        app.gate.events = log
        app.gate.audited = open_audited(log, key, now=app.gate.now)
        yield AuditedApp(app, log, app.person("auditor", "auditor"))


__all__ = ["AT", "HOSTILE", "NOTHING", "AuditedApp", "audited"]
