# SPDX-License-Identifier: Apache-2.0
"""Signing in over HTTP: password, second factor, passkey alone, invitation, OpenID Connect; who one is; proving it again.

A session's token goes out in a cookie alone, never in a body or URL. What a sign-in has reached so far is a second cookie that
lives five minutes; a third tells a browser that signed in before, so that an attacker's failures do not block its owner.
Leaves to others: all of the checks (`access`). Private to the room. Source: OWASP ASVS 5.0, 3.3, 6.3 and 7.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import RedirectResponse, Response

from shipsight.access import OPEN_RIGHTS, Principal, PrincipalKind
from shipsight.access.settings import DEVICE_LIVES_S
from shipsight.errors import AccessError, AuthenticationError, EnvironmentLackError, NotFoundError
from shipsight.serve.http.access_edge import AccessRoute, Asked, Cookie, person_of, told_time
from shipsight.serve.http.access_fields import Field, FieldKind
from shipsight.serve.http.answers import json_answer
from shipsight.serve.http.cookies import clear_session_cookie, set_session_cookie
from shipsight.serve.needs import ENROLLING, PUBLIC

if TYPE_CHECKING:
    from shipsight.access.sign_in import Step

__all__ = ["SIGN_IN_ROUTES"]

_PENDING = Cookie("shipsight-pending", 300)
_DEVICE = Cookie("shipsight-device", DEVICE_LIVES_S)
# The provider leads back here from its own site: a strict cookie would not come along.
_OPENID = Cookie("shipsight-openid", 600, same_site="lax")

_STATES = {"session": "signed-in", "second-factor": "second-factor", "enrol": "enrol"}
_TEXT, _TEXTS = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
_STATE = {
    "type": "object",
    "properties": {"state": {"enum": list(_STATES.values())}, "factors": _TEXTS},
    "required": ["state", "factors"],
}
_OPTIONS = {
    "type": "object",
    "properties": {"options": {"type": "object"}, "challenge": _TEXT},
    "required": ["options", "challenge"],
}
_WHO = {
    "type": "object",
    "properties": {
        "kind": {"enum": [kind.value for kind in PrincipalKind]},
        "name": _TEXT,
        "open": {"type": "boolean"},
        "must_enrol": {"type": "boolean"},
    },
    "required": ["kind", "name", "open", "must_enrol"],
}
_ALONE = {"alone": Field(FieldKind.FLAG, is_required=False)}
_CREDENTIAL = {"challenge": Field(), "credential": Field(FieldKind.MAPPING), **_ALONE}


def _sign_in(asked: Asked) -> Response:
    told = asked.told
    step = asked.access.sign_in.begin(told["name"], told["password"], device=asked.cookie(_DEVICE), **asked.where)
    return _after(asked, step)


def _code(asked: Asked) -> Response:
    device = asked.cookie(_DEVICE)
    step = asked.access.sign_in.finish_code(_pending(asked), asked.told["code"], device=device, **asked.where)
    return _after(asked, step)


def _passkey_options(asked: Asked) -> Response:
    """Begins to ask for a passkey: of who is signed in or has proved a first factor, else of whoever comes."""
    pending = None if asked.told["alone"] else asked.cookie(_PENDING)
    user_id = asked.principal.id if asked.principal.session else None
    if user_id is None and pending is not None:
        user_id = asked.access.sign_in.user_of(pending)
    # Whoever sits at an open session has to be looked at, not only the key that is plugged in.
    needs_verification = asked.principal.session is not None
    options, challenge = asked.access.passkeys.begin_authentication(user_id, needs_verification=needs_verification)
    return json_answer({"options": options, "challenge": challenge})


def _passkey(asked: Asked) -> Response:
    told = asked.told
    step = asked.access.sign_in.finish_passkey(
        None if told["alone"] else asked.cookie(_PENDING),
        told["challenge"],
        told["credential"],
        device=asked.cookie(_DEVICE),
        **asked.where,
    )
    return _after(asked, step)


def _invitation(asked: Asked) -> Response:
    told = asked.told
    step = asked.access.sign_in.accept_invitation(told["code"], told["password"], name=told["name"], **asked.where)
    return _after(asked, step)


def _openid(asked: Asked) -> Response:
    if asked.access.open_id is None:
        raise NotFoundError("this server knows no provider of OpenID Connect")
    who = asked.principal
    url, challenge = asked.access.open_id.begin(
        user_id=who.id if who.session else None, session=who.session, device=asked.cookie(_DEVICE)
    )
    response = RedirectResponse(url, 302)
    _OPENID.set_on(response, asked.origin, challenge)
    return response


def _openid_return(asked: Asked) -> Response:
    """Ends a sign-in at a provider; a person sees a page in any case, so that an error is told there in words."""
    access, given = asked.access, asked.request.query_params
    try:
        if access.open_id is None:
            raise NotFoundError("this server knows no provider of OpenID Connect")
        person = access.open_id.finish(
            asked.cookie(_OPENID) or "",
            **{name: given.get(name) for name in ("state", "code", "iss", "error")},
            address=asked.where["address"],
        )
        step = access.sign_in.begin_federated(
            person.user.id,
            factors=person.factors,
            groups=person.groups,
            proved_at=person.proved_at,
            device=person.device,
            **asked.where,
        )
    except (AccessError, EnvironmentLackError) as error:
        response: Response = RedirectResponse(f"/sign-in?failed={error.code}", 302)
    else:
        missing = f"/sign-in?factors={','.join(step.factors)}"
        after = {"session": "/", "enrol": "/second-factor", "second-factor": missing}
        response = RedirectResponse(after[step.kind], 302)
        _keep(asked, response, step)
        if step.session is not None and person.session is not None:
            # The cookie of that session is strict: it did not come along from the provider's site.
            access.sessions.end_before(person.session, Principal(PrincipalKind.PERSON, person.user.name))
    _OPENID.end_on(response, asked.origin)
    return response


def _session(asked: Asked) -> Response:
    """Tells who asks, so that a page knows what to show: also nobody is an answer."""
    access, principal = asked.access, asked.principal
    told = _told_principal(principal)
    told.update(csrf=asked.caller.csrf, openid=access.open_id is not None, setup=not access.directory.knows_anyone())
    if principal.is_person and principal.id is not None:
        has, user = access.factors.of(principal.id), access.directory.user(principal.id)
        mine = next((one for one in access.sessions.list(principal.id) if one.handle == principal.session), None)
        told.update(
            display_name=user.display_name,
            expires_at=None if mine is None else told_time(mine.expires_at),
            has={
                "password": user.has_password,
                "totp": has.has_totp,
                "passkeys": has.passkeys,
                "recovery_left": has.recovery_left,
            },
        )
    return json_answer(told)


def _session_without(principal: Principal) -> Response:
    return json_answer(_told_principal(principal))


def _told_principal(principal: Principal) -> dict[str, Any]:
    return {
        "kind": principal.kind.value,
        "name": principal.name,
        "display_name": principal.name,
        "factors": list(principal.factors),
        "must_enrol": principal.must_enrol,
        "fresh_until": told_time(principal.fresh_until),
        "csrf": None,
        "expires_at": None,
        "rights": [
            {"role": grant.role, "actions": sorted(actions), "models": list(grant.models)}
            for actions, grant in principal.rights.grants
        ],
        "has": None,
        "open": principal.rights is OPEN_RIGHTS,
        "openid": False,
        "setup": False,
    }


def _sign_out(asked: Asked) -> Response:
    token = asked.session_token
    if token is not None:
        asked.access.sessions.end(token, asked.principal)
    response = json_answer({"signed_out": True})
    clear_session_cookie(response, origin=asked.origin)
    return response


def _step_up(asked: Asked) -> Response:
    """Proves again who one is: with a password and a code, or with a passkey."""
    person_of(asked)
    sign_in, told = asked.access.sign_in, asked.told
    if told["credential"] is not None:
        session = sign_in.prove_passkey(asked.principal, told["challenge"] or "", told["credential"])
    else:
        session = sign_in.prove_password(asked.principal, told["password"] or "", told["code"])
    response = json_answer({"proved": True})
    set_session_cookie(response, session.token, origin=asked.origin)
    return response


def _pending(asked: Asked) -> str:
    pending = asked.cookie(_PENDING)
    if pending is None:
        raise AuthenticationError("this sign-in took too long, or was not begun", hint="Begin again.")
    return pending


def _after(asked: Asked, step: Step) -> Response:
    """Tells how far a sign-in came."""
    response = json_answer({"state": _STATES[step.kind], "factors": list(step.factors)})
    _keep(asked, response, step)
    return response


def _keep(asked: Asked, response: Response, step: Step) -> None:
    """Puts what is secret of a step into cookies; the session that the browser had ends (ASVS 7.2.4)."""
    if step.session is not None:
        old = asked.session_token
        if old is not None and old != step.session.token:
            asked.access.sessions.end(old, asked.principal)
        set_session_cookie(response, step.session.token, origin=asked.origin)
    if step.pending is not None:
        _PENDING.set_on(response, asked.origin, step.pending)
    elif asked.cookie(_PENDING) is not None:
        _PENDING.end_on(response, asked.origin)
    if step.device is not None:
        _DEVICE.set_on(response, asked.origin, step.device)


_NAME_AND_PASSWORD = {"name": Field(), "password": Field()}
_INVITATION = {"code": Field(), "password": Field(), "name": Field(is_required=False)}
_PROOF = {
    "password": Field(is_required=False),
    "code": Field(is_required=False),
    "challenge": Field(is_required=False),
    "credential": Field(FieldKind.MAPPING, is_required=False),
}
SIGN_IN_ROUTES = (
    AccessRoute("POST", "sign-in", "Signs in, first step", _sign_in, PUBLIC, _NAME_AND_PASSWORD, _STATE),
    AccessRoute(
        "POST", "sign-in/code", "Signs in with a one-time or recovery code", _code, PUBLIC, {"code": Field()}, _STATE
    ),
    AccessRoute(
        "POST",
        "sign-in/passkey/options",
        "Begins to ask for a passkey",
        _passkey_options,
        PUBLIC,
        _ALONE,
        _OPTIONS,
        is_begin=True,
    ),
    AccessRoute("POST", "sign-in/passkey", "Signs in with a passkey", _passkey, PUBLIC, _CREDENTIAL, _STATE),
    AccessRoute(
        "POST", "sign-in/invitation", "Sets a password by invitation", _invitation, PUBLIC, _INVITATION, _STATE
    ),
    AccessRoute(
        "GET",
        "sign-in/openid",
        "Goes to the provider of OpenID Connect",
        _openid,
        PUBLIC,
        status=302,
        is_begin=True,
        asks_provider=True,
    ),
    AccessRoute(
        "GET",
        "sign-in/openid/return",
        "Comes back from it",
        _openid_return,
        PUBLIC,
        status=302,
        asks_provider=True,
    ),
    AccessRoute(
        "GET", "session", "Tells who asks and what they may do", _session, PUBLIC, gives=_WHO, without=_session_without
    ),
    AccessRoute("POST", "sign-out", "Ends the session", _sign_out, ENROLLING),
    AccessRoute("POST", "step-up", "Proves again who one is", _step_up, ENROLLING, _PROOF),
)
"""What there is, in order."""
