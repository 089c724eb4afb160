# SPDX-License-Identifier: Apache-2.0
"""How the audit log fares, over HTTP: its length, newest checkpoint, copies and next review; and verifying all of it. Private to the room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from shipsight.access import Action
from shipsight.errors import NotFoundError
from shipsight.serve.http.audit_edge import AuditAsked, AuditRoute, ascii_answer, told_moment
from shipsight.serve.needs import Needs

if TYPE_CHECKING:
    from shipsight.access.audit.verify import Finding
    from shipsight.access.audit.witnesses import CopyState
    from shipsight.access.review import Due
    from shipsight.serve.auditing import Verified

__all__ = ["STATE_ROUTES", "told_due"]


def _state(asked: AuditAsked) -> Response:
    audited = asked.audited
    state = audited.log.state
    return ascii_answer(
        {
            "size": state.size,
            "written": state.written,
            "buffered": state.buffered,
            "lost": state.lost,
            "degraded": state.is_degraded,
            "last_error": state.last_error,
            "since": told_moment(state.since),
            "checkpoint": None
            if state.checkpoint_at is None
            else {"size": state.checkpoint_size, "at": told_moment(state.checkpoint_at)},
            "tail": max(state.size - state.checkpoint_size, 0),
            "key": audited.log.key.text,
            "copies": [_told_copy(one) for one in audited.copies()],
            "verifying": audited.is_verifying,
            "verified": None if audited.verified is None else _told_verified(audited.verified),
            "review": told_due(audited.reviews.due()),
        }
    )


def _checkpoint(asked: AuditAsked) -> Response:
    found = asked.audited.log.last_checkpoint
    if found is None:
        raise NotFoundError("no checkpoint was signed yet")
    return Response(found.text, media_type="text/plain; charset=utf-8")


def _verify(asked: AuditAsked) -> Response:
    asked.note_reading("verification")
    return ascii_answer(_told_verified(asked.audited.verify(by=asked.principal.told())))


def _told_copy(copy: CopyState) -> dict[str, Any]:
    return {
        "place": copy.place,
        "size": copy.size,
        "at": told_moment(copy.at),
        "waiting": copy.is_waiting,
        "failures": copy.failures,
        "error": copy.error,
        "since": told_moment(copy.since),
        "refusing": copy.is_refusing,
    }


def _told_verified(verified: Verified) -> dict[str, Any]:
    found = verified.found
    return {
        "at": told_moment(verified.at),
        "took_s": round(verified.took_s, 3),
        "by": verified.by,
        "status": verified.status,
        "size": found.size,
        "covered": found.covered,
        "tail": found.size - found.covered,
        "why": found.tail if verified.status == "unverifiable tail" else None,
        "found": found.found,
        "findings": [_told_finding(one) for one in found.findings],
        "notes": [_told_finding(one) for one in found.notes],
    }


def _told_finding(one: Finding) -> dict[str, Any]:
    return {"code": one.code, "seq": one.seq, "what": one.what}


def told_due(due: Due) -> dict[str, Any]:
    """Returns when the next review is due, as answers tell it."""
    return {
        "due_at": told_moment(due.due_at),
        "overdue_s": round(due.overdue_s),
        "reviewed_until": told_moment(due.reviewed_until),
        "next_seq": due.next_seq,
    }


_JSON = "application/json"
_COUNT = {"type": "integer", "minimum": 0}
_TEXT_OR_NONE = {"type": ["string", "null"]}
_STATE_NAMES = {
    "size": _COUNT,
    "written": _COUNT,
    "buffered": _COUNT,
    "lost": _COUNT,
    "degraded": {"type": "boolean"},
    "last_error": _TEXT_OR_NONE,
    "since": _TEXT_OR_NONE,
    "checkpoint": {"type": ["object", "null"]},
    "tail": _COUNT,
    "key": {"type": "string"},
    "copies": {"type": "array", "items": {"type": "object"}},
    "verifying": {"type": "boolean"},
    "verified": {"type": ["object", "null"]},
    "review": {"type": "object"},
}
_STATE = {"type": "object", "properties": _STATE_NAMES, "required": list(_STATE_NAMES)}
_VERIFIED = {
    "type": "object",
    "properties": {
        "at": {"type": "string"},
        "status": {"type": "string"},
        "size": _COUNT,
        "covered": _COUNT,
        "tail": _COUNT,
        "findings": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["at", "status", "size", "covered", "tail", "findings"],
}
_READ = Needs(Action.AUDIT_READ)
STATE_ROUTES = (
    AuditRoute("GET", "state", "Tells how the log fares", _state, _READ, {_JSON: _STATE}),
    AuditRoute(
        "GET",
        "checkpoint",
        "Gives the newest checkpoint, a signed note",
        _checkpoint,
        _READ,
        {"text/plain": {}},
        errors=(404,),
    ),
    AuditRoute(
        "POST", "verify", "Verifies all of the log, one at a time", _verify, _READ, {_JSON: _VERIFIED}, is_long=True
    ),
)
"""What there is, in order."""
