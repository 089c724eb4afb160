# SPDX-License-Identifier: Apache-2.0
"""Reviews of the audit log over HTTP: made, listed, read, signed off.

Making and signing is for people who may review and who proved a short while ago who they are; nobody signs off what names them
(`access.review`). Private to the room.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from shipsight.access import Action, Principal
from shipsight.errors import ForbiddenError
from shipsight.serve.http.access_fields import Field, FieldKind
from shipsight.serve.http.audit_edge import AuditAsked, AuditRoute, ascii_answer
from shipsight.serve.http.audit_query import PAGE_FORMAT
from shipsight.serve.http.audit_state import told_due
from shipsight.serve.needs import Needs

if TYPE_CHECKING:
    from shipsight.access.review import Report
    from shipsight.access.review.store import ReviewState

__all__ = ["REVIEW_ROUTES"]

_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


def _reviews(asked: AuditAsked) -> Response:
    asked.note_reading("reviews")
    store = asked.audited.reviews
    told = [_told_review(asked, one) for one in store.list()]
    return ascii_answer({"reviews": told, "due": told_due(store.due())})


def _review(asked: AuditAsked) -> Response:
    store, review_id = asked.audited.reviews, asked.path("review")
    state = store.state(review_id)
    asked.note_reading("review", subject=f"review:{state.id}")
    if _wants_page(asked):
        return _page(store.html(review_id))
    return ascii_answer(_told_report(asked, store.get(review_id), state, store.note(review_id)))


def _make(asked: AuditAsked) -> Response:
    _check_person(asked.principal)
    report = asked.audited.review(actor=asked.principal.told(), since=asked.told["since"], until=asked.told["until"])
    store = asked.audited.reviews
    return ascii_answer(_told_report(asked, report, store.state(report.id), store.note(report.id)), 201)


def _sign_off(asked: AuditAsked) -> Response:
    _check_person(asked.principal)
    state = asked.audited.reviews.sign_off(asked.path("review"), actor=asked.principal.told(), note=asked.told["note"])
    return ascii_answer({"review": _told_review(asked, state)})


def _check_person(principal: Principal) -> None:
    """Lets pass somebody who signed in here: a review is worth what the person is who stands behind it.

    Raises:
        ForbiddenError: it is nobody who did.
    """
    if not principal.is_person or principal.session is None:
        raise ForbiddenError("this is for people who signed in", got=principal.told())


def _told_review(asked: AuditAsked, state: ReviewState) -> dict[str, Any]:
    signed = [one.who for one in state.signed]
    return {**state.to_dict(), "signed_by_me": asked.principal.told() in signed}


def _told_report(asked: AuditAsked, report: Report, state: ReviewState, note: str) -> dict[str, Any]:
    """Tells a report, its signature, and whether the one who asks may sign it off as far as what it found goes."""
    return {
        "review": _told_review(asked, state),
        "report": report.to_dict(),
        "note": note,
        "names_me": asked.principal.told() in report.whom,
    }


def _wants_page(asked: AuditAsked) -> bool:
    if asked.given.format is not None:
        return asked.given.format == "html"
    accepted = asked.request.headers.get("accept", "").lower().split(",")
    return any(one.partition(";")[0].strip() == "text/html" for one in accepted)


def _page(html: str) -> Response:
    """Returns a report's page: it brings its own style, named by its digest, and nothing else is run or fetched."""
    digests = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'"
        for style in _STYLE.findall(html)[:1]
    )
    policy = (
        f"default-src 'none'; style-src {digests or chr(39) + 'none' + chr(39)}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; sandbox"
    )
    headers = {"content-security-policy": policy, "x-content-type-options": "nosniff"}
    return Response(html, media_type="text/html", headers=headers)


_JSON = "application/json"
_OBJECT = {"type": "object"}
_REVIEWS = {
    "type": "object",
    "properties": {"reviews": {"type": "array", "items": _OBJECT}, "due": _OBJECT},
    "required": ["reviews", "due"],
}
_REPORT = {
    "type": "object",
    "properties": {
        "review": _OBJECT,
        "report": _OBJECT,
        "note": {"type": "string"},
        "names_me": {"type": "boolean"},
    },
    "required": ["review", "report", "note", "names_me"],
}
_ONE = {"type": "object", "properties": {"review": _OBJECT}, "required": ["review"]}
_READ, _REVIEW = Needs(Action.AUDIT_READ), Needs(Action.AUDIT_REVIEW)
_SPAN = {"since": Field(FieldKind.TIME, is_required=False), "until": Field(FieldKind.TIME, is_required=False)}
_NOTE = {"note": Field()}
REVIEW_ROUTES = (
    AuditRoute(
        "GET", "reviews", "Lists reviews, and says when the next one is due", _reviews, _READ, {_JSON: _REVIEWS}
    ),
    AuditRoute(
        "POST",
        "reviews",
        "Reviews what was not signed off yet, or what lies between two times",
        _make,
        _REVIEW,
        {_JSON: _REPORT},
        fields=_SPAN,
        status=201,
        is_long=True,
    ),
    AuditRoute(
        "GET",
        "reviews/{review}",
        "Tells a report with its signature, or shows it as a page",
        _review,
        _READ,
        {_JSON: _REPORT, "text/html": {}},
        query=PAGE_FORMAT,
        errors=(404,),
    ),
    AuditRoute(
        "POST",
        "reviews/{review}/sign-off",
        "Keeps that somebody looked at a review, and what they say of it",
        _sign_off,
        _REVIEW,
        {_JSON: _ONE},
        fields=_NOTE,
        errors=(404, 409),
    ),
)
"""What there is, in order."""
