# SPDX-License-Identifier: Apache-2.0
"""One's own account over HTTP: password, second factors, recovery codes, sessions.

Whoever changes how they prove who they are has to have proved it a short while ago. Leaves to others: all of the checks
(`access`). Private to the room. Source: OWASP ASVS 5.0, 6.4, 7.4 and 7.5.1.
"""

from __future__ import annotations

import io

from starlette.responses import Response

from shipsight.serve.http.access_edge import AccessRoute, Asked, person_of, require_fresh, told_time
from shipsight.serve.http.access_fields import Field, FieldKind
from shipsight.serve.http.access_sessions import ENDED, SESSIONS, tell_sessions
from shipsight.serve.http.answers import json_answer
from shipsight.serve.needs import ENROLLING, KNOWN

__all__ = ["ACCOUNT_ROUTES"]


def _password(asked: Asked) -> Response:
    person_of(asked)
    asked.access.sign_in.change_password(asked.principal, asked.told["current"], asked.told["new"])
    return json_answer({"changed": True})


def _factors(asked: Asked) -> Response:
    user_id = person_of(asked)
    has = asked.access.factors.of(user_id)
    passkeys = [
        {"id": one.id, "name": one.name, "created_at": told_time(one.created_at), "used_at": told_time(one.used_at)}
        for one in asked.access.passkeys.list(user_id)
    ]
    return json_answer({"totp": has.has_totp, "passkeys": passkeys, "recovery_left": has.recovery_left})


def _begin_totp(asked: Asked) -> Response:
    user_id = person_of(asked)
    require_fresh(asked)
    setup = asked.access.factors.begin_totp(user_id)
    return json_answer({"secret": setup.secret, "uri": setup.uri, "svg": _drawn(setup.uri)})


def _drawn(text: str) -> str:
    """Returns a QR code as SVG, dark on light whatever the page's colours are: cameras read nothing else surely."""
    # Needed by few requests.
    import segno

    file = io.BytesIO()
    segno.make(text, error="m", micro=False).save(
        file, kind="svg", scale=5, border=4, dark="#000", light="#fff", xmldecl=False, svgclass=None, lineclass=None
    )
    return file.getvalue().decode()


def _confirm_totp(asked: Asked) -> Response:
    user_id = person_of(asked)
    require_fresh(asked)
    asked.access.factors.confirm_totp(asked.principal, user_id, asked.told["code"])
    return json_answer({"added": True})


def _remove_totp(asked: Asked) -> Response:
    user_id = person_of(asked)
    require_fresh(asked)
    asked.access.factors.remove_totp(asked.principal, user_id)
    return json_answer({"removed": True})


def _passkey_options(asked: Asked) -> Response:
    user_id = person_of(asked)
    require_fresh(asked)
    options, challenge = asked.access.passkeys.begin_registration(asked.access.directory.user(user_id))
    return json_answer({"options": options, "challenge": challenge})


def _add_passkey(asked: Asked) -> Response:
    user_id = person_of(asked)
    require_fresh(asked)
    told = asked.told
    added = asked.access.passkeys.finish_registration(
        asked.principal, user_id, told["challenge"], told["credential"], name=told["name"]
    )
    return json_answer({"added": True, "id": added.id, "name": added.name})


def _remove_passkey(asked: Asked) -> Response:
    user_id = person_of(asked)
    require_fresh(asked)
    asked.access.passkeys.remove(asked.principal, user_id, asked.path("passkey"))
    return json_answer({"removed": True})


def _recovery_codes(asked: Asked) -> Response:
    user_id = person_of(asked)
    require_fresh(asked)
    return json_answer({"codes": asked.access.factors.make_recovery_codes(asked.principal, user_id)})


def _sessions(asked: Asked) -> Response:
    return tell_sessions(asked, person_of(asked))


def _end_others(asked: Asked) -> Response:
    me = person_of(asked)
    return json_answer({"ended": asked.access.sessions.end_all(asked.principal, me, but=asked.principal.session)})


def _end_session(asked: Asked) -> Response:
    person_of(asked)
    asked.access.sessions.end_one(asked.principal, asked.path("session"))
    return json_answer({"ended": True})


_TEXT, _FLAG = {"type": "string"}, {"type": "boolean"}
_SETUP = {
    "type": "object",
    "properties": {"secret": _TEXT, "uri": _TEXT, "svg": _TEXT},
    "required": ["secret", "uri", "svg"],
}
_FACTORS = {
    "type": "object",
    "properties": {
        "totp": _FLAG,
        "passkeys": {"type": "array", "items": {"type": "object"}},
        "recovery_left": {"type": "integer"},
    },
    "required": ["totp", "passkeys", "recovery_left"],
}
_CODES = {
    "type": "object",
    "properties": {"codes": {"type": "array", "items": _TEXT}},
    "required": ["codes"],
}
_REGISTRATION = {"challenge": Field(), "credential": Field(FieldKind.MAPPING), "name": Field()}
ACCOUNT_ROUTES = (
    AccessRoute("POST", "password", "Changes the password", _password, ENROLLING, {"current": Field(), "new": Field()}),
    AccessRoute("GET", "factors", "Lists one's second factors", _factors, ENROLLING, gives=_FACTORS),
    AccessRoute("POST", "factors/totp", "Begins to add an app for codes", _begin_totp, ENROLLING, gives=_SETUP),
    AccessRoute(
        "POST", "factors/totp/confirm", "Adds it, by one of its codes", _confirm_totp, ENROLLING, {"code": Field()}
    ),
    AccessRoute("DELETE", "factors/totp", "Removes it", _remove_totp, KNOWN),
    AccessRoute("POST", "factors/passkeys/options", "Begins to add a passkey", _passkey_options, ENROLLING),
    AccessRoute("POST", "factors/passkeys", "Adds it", _add_passkey, ENROLLING, _REGISTRATION),
    AccessRoute("DELETE", "factors/passkeys/{passkey}", "Removes it", _remove_passkey, KNOWN),
    AccessRoute(
        "POST",
        "factors/recovery-codes",
        "Makes new recovery codes, and ends older ones",
        _recovery_codes,
        KNOWN,
        gives=_CODES,
    ),
    AccessRoute("GET", "sessions", "Lists one's sessions", _sessions, KNOWN, gives=SESSIONS),
    AccessRoute("POST", "sessions/end-others", "Ends all of them but this", _end_others, KNOWN, gives=ENDED),
    AccessRoute("DELETE", "sessions/{session}", "Ends one of them", _end_session, KNOWN),
)
"""What there is, in order."""
