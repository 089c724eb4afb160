# SPDX-License-Identifier: Apache-2.0
"""Users, grants, roles, keys and certificates over HTTP.

Whoever may change access has to have proved who they are a short while ago; a person's own keys ask for that, too, since a key
outlives a session. Leaves to others: what is allowed to whom (`access`). Private to the room. Source: OWASP ASVS 5.0, 7.5.3
and 8.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from shipsight.access import Action, Grant, Role
from shipsight.errors import NotFoundError
from shipsight.serve.http.access_edge import AccessRoute, Asked, person_of, require_fresh, seconds, told_time
from shipsight.serve.http.access_fields import Field, FieldKind
from shipsight.serve.http.access_sessions import ENDED, SESSIONS, tell_sessions
from shipsight.serve.http.answers import json_answer
from shipsight.serve.needs import KNOWN, Needs

if TYPE_CHECKING:
    from shipsight.access.client_certificates import KnownCertificate
    from shipsight.access.directory import User
    from shipsight.access.keys import ApiKey

__all__ = ["ADMINISTRATION_ROUTES"]

_READ, _CHANGE = Needs(Action.ACCESS_READ), Needs(Action.ACCESS_CHANGE)
_DAY_S = 86400.0
_INVITATION_S = 30 * _DAY_S
_OVERLAP_S = 30 * _DAY_S
_NEVER = "never"


def _users(asked: Asked) -> Response:
    return json_answer({"users": [_told_user(asked, one) for one in asked.access.directory.users()]})


def _user(asked: Asked) -> Response:
    return json_answer({"user": _told_user(asked, asked.access.directory.user(asked.path("user")))})


def _add_user(asked: Asked) -> Response:
    told = asked.told
    user, code = asked.access.directory.add_user(
        asked.principal,
        told["name"],
        display_name=told["display_name"],
        grants=_grants(told["grants"] or ()),
        lives_s=seconds(asked, "lives_s", _DAY_S, most=_INVITATION_S),
    )
    return json_answer({"user": _told_user(asked, user), "code": code}, 201)


def _change_user(asked: Asked) -> Response:
    user = asked.access.directory.user(asked.path("user"))
    asked.access.directory.set_disabled(asked.principal, user.id, asked.told["disabled"])
    return _user(asked)


def _remove_user(asked: Asked) -> Response:
    asked.access.directory.remove_user(asked.principal, asked.access.directory.user(asked.path("user")).id)
    return json_answer({"removed": True})


def _invite(asked: Asked) -> Response:
    lives_s = seconds(asked, "lives_s", _DAY_S, most=_INVITATION_S)
    user = asked.access.directory.user(asked.path("user"))
    return json_answer({"code": asked.access.directory.invite(asked.principal, user.id, lives_s=lives_s)})


def _remove_factors(asked: Asked) -> Response:
    """Takes second factors away from somebody who lost them; a password alone lets them in to add others."""
    asked.access.directory.reset_factors(asked.principal, asked.access.directory.user(asked.path("user")).id)
    return _user(asked)


def _user_sessions(asked: Asked) -> Response:
    return tell_sessions(asked, asked.access.directory.user(asked.path("user")).id)


def _end_user_sessions(asked: Asked) -> Response:
    user = asked.access.directory.user(asked.path("user"))
    return json_answer({"ended": asked.access.sessions.end_all(asked.principal, user.id)})


def _set_user_grants(asked: Asked) -> Response:
    user = asked.access.directory.user(asked.path("user"))
    asked.access.directory.set_grants(
        asked.principal, "user", user.id, _grants(asked.told["grants"]), before=_before(asked)
    )
    return _user(asked)


def _groups(asked: Asked) -> Response:
    groups = asked.access.directory.groups()
    told = [{"name": name, "grants": [one.told() for one in held]} for name, held in groups.items()]
    return json_answer({"groups": told})


def _set_group_grants(asked: Asked) -> Response:
    directory, group = asked.access.directory, asked.path("group")
    directory.set_grants(asked.principal, "group", group, _grants(asked.told["grants"]), before=_before(asked))
    return json_answer({"group": group, "grants": [one.told() for one in directory.grants("group", group)]})


def _told_user(asked: Asked, user: User) -> dict[str, Any]:
    has = asked.access.factors.of(user.id)
    return {
        "id": user.id,
        "name": user.name,
        "display_name": user.display_name,
        "disabled": user.is_disabled,
        "has_password": user.has_password,
        "openid": user.openid,
        "created_at": told_time(user.created_at),
        "signed_in_at": told_time(user.signed_in_at),
        "grants": [one.told() for one in asked.access.directory.grants("user", user.id)],
        "has": {"totp": has.has_totp, "passkeys": has.passkeys, "recovery_left": has.recovery_left},
    }


def _grants(told: Sequence[str]) -> tuple[Grant, ...]:
    return tuple(map(Grant.parse, told))


def _before(asked: Asked) -> tuple[Grant, ...] | None:
    """Returns what the one who asks saw before, None where they do not say."""
    return None if asked.told["before"] is None else _grants(asked.told["before"])


def _roles(asked: Asked) -> Response:
    from shipsight.access import ROLES

    roles = [
        {"name": name, "actions": sorted(role.actions), "is_built_in": name in ROLES}
        for name, role in sorted(asked.access.directory.roles().items())
    ]
    return json_answer({"roles": roles, "actions": sorted(Action)})


def _apply_role(asked: Asked) -> Response:
    role = Role.from_dict(asked.path("role"), {"actions": list(asked.told["actions"])})
    asked.access.directory.apply_role(asked.principal, role)
    return json_answer({"name": role.name, **role.to_dict()})


def _remove_role(asked: Asked) -> Response:
    asked.access.directory.remove_role(asked.principal, asked.path("role"))
    return json_answer({"removed": True})


def _keys(asked: Asked) -> Response:
    """Lists one's own keys; all of them to who may read access."""
    access = asked.access
    found = access.keys.list(None if asked.principal.may(Action.ACCESS_READ) else person_of(asked))
    names = {one.id: one.name for one in access.directory.users()}
    return json_answer({"keys": [_told_key(one, names, asked.principal.id) for one in found]})


def _add_key(asked: Asked) -> Response:
    told = asked.told
    require_fresh(asked)
    owner = person_of(asked) if told["owner"] == "me" else None
    key, secret = asked.access.keys.add(
        asked.principal,
        told["name"],
        grants=_grants(told["grants"]),
        owner_id=owner,
        expires_at=_end(asked),
        rate=told["rate"],
        quota=told["quota"],
    )
    return json_answer({"key": _told_key(key, _names(asked), asked.principal.id), "secret": secret}, 201)


def _end(asked: Asked) -> datetime | None:
    """Returns when a new key ends: never only where that is said."""
    from shipsight.access.keys import KEY_LIVES

    told: datetime | str | None = asked.told["expires_at"]
    if told is None:
        return asked.access.now() + KEY_LIVES
    return told if isinstance(told, datetime) else None


def _rotate_key(asked: Asked) -> Response:
    require_fresh(asked)
    key, overlap_s = _known_key(asked), seconds(asked, "overlap_s", _DAY_S, most=_OVERLAP_S)
    return json_answer({"secret": asked.access.keys.rotate(asked.principal, key.id, overlap_s=overlap_s)})


def _revoke_key(asked: Asked) -> Response:
    require_fresh(asked)
    asked.access.keys.revoke(asked.principal, _known_key(asked).id)
    return json_answer({"revoked": True})


def _known_key(asked: Asked) -> ApiKey:
    """Returns the key that a path names; another person's is not there for who may not read access."""
    owner, key_id = None if asked.principal.may(Action.ACCESS_READ) else person_of(asked), asked.path("key")
    found = next((one for one in asked.access.keys.list(owner) if one.id == key_id), None)
    if found is None:
        raise NotFoundError("no such key", where="key")
    return found


def _names(asked: Asked) -> dict[str, str]:
    return {one.id: one.name for one in asked.access.directory.users()}


def _told_key(key: ApiKey, names: dict[str, str], my_id: str | None) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "owner": None if key.owner_id is None else names.get(key.owner_id),
        "is_mine": key.owner_id is not None and key.owner_id == my_id,
        "created_by": key.created_by,
        "created_at": told_time(key.created_at),
        "expires_at": told_time(key.expires_at),
        "used_at": told_time(key.used_at),
        "revoked_at": told_time(key.revoked_at),
        "rate": key.rate,
        "quota": key.quota,
        "grants": [one.told() for one in key.grants],
    }


def _certificates(asked: Asked) -> Response:
    return json_answer({"certificates": [_told_certificate(one) for one in asked.access.certificates.list()]})


def _add_certificate(asked: Asked) -> Response:
    told = asked.told
    added = asked.access.certificates.add(
        asked.principal,
        told["name"],
        field=told["field"],
        value=told["value"],
        kind=told["kind"] or "certificate",
        grants=_grants(told["grants"]),
        rate=told["rate"],
        quota=told["quota"],
    )
    return json_answer({"certificate": _told_certificate(added)}, 201)


def _remove_certificate(asked: Asked) -> Response:
    asked.access.certificates.remove(asked.principal, asked.path("certificate"))
    return json_answer({"removed": True})


def _told_certificate(one: KnownCertificate) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "kind": one.kind,
        "field": one.field,
        "value": one.value,
        "created_by": one.created_by,
        "created_at": told_time(one.created_at),
        "used_at": told_time(one.used_at),
        "grants": [grant.told() for grant in one.grants],
    }


def _gives(name: str, *, is_list: bool = False) -> dict[str, Any]:
    kind: dict[str, Any] = {"type": "object"}
    shown = {"type": "array", "items": kind} if is_list else kind
    return {"type": "object", "properties": {name: shown}, "required": [name]}


_GRANTS = Field(FieldKind.TEXTS)
_NEW_GRANTS = {"grants": _GRANTS, "before": Field(FieldKind.TEXTS, is_required=False)}
_LIVES = Field(FieldKind.NUMBER, is_required=False)
_OPTIONAL = Field(is_required=False)
_NEW_USER = {
    "name": Field(),
    "display_name": _OPTIONAL,
    "grants": Field(FieldKind.TEXTS, is_required=False),
    "lives_s": _LIVES,
}
_NEW_KEY = {
    "name": Field(),
    "grants": _GRANTS,
    "owner": Field(is_required=False, choices=("me",)),
    "expires_at": Field(FieldKind.TIME, is_required=False, choices=(_NEVER,)),
    "rate": _OPTIONAL,
    "quota": _OPTIONAL,
}
_NEW_CERTIFICATE = {
    "name": Field(),
    "field": Field(choices=("sha256", "subject", "name")),
    "value": Field(),
    "kind": Field(is_required=False, choices=("certificate", "device")),
    "grants": _GRANTS,
    "rate": _OPTIONAL,
    "quota": _OPTIONAL,
}
_DISABLED = {"disabled": Field(FieldKind.FLAG)}
_ACTIONS = {"actions": Field(FieldKind.TEXTS)}
_OVERLAP = {"overlap_s": Field(FieldKind.NUMBER, is_required=False)}
_ONE_USER, _CODE, _SECRET = _gives("user"), _gives("code"), _gives("secret")
ADMINISTRATION_ROUTES = (
    AccessRoute("GET", "users", "Lists people", _users, _READ, gives=_gives("users", is_list=True)),
    AccessRoute("POST", "users", "Adds somebody, with an invitation", _add_user, _CHANGE, _NEW_USER, _ONE_USER, 201),
    AccessRoute("GET", "users/{user}", "Tells of one", _user, _READ, gives=_ONE_USER),
    AccessRoute("PATCH", "users/{user}", "Shuts one out, or lets them in", _change_user, _CHANGE, _DISABLED, _ONE_USER),
    AccessRoute("DELETE", "users/{user}", "Removes one", _remove_user, _CHANGE),
    AccessRoute(
        "POST",
        "users/{user}/invitation",
        "Invites one again",
        _invite,
        _CHANGE,
        {"lives_s": _LIVES},
        {"type": "object"},
    ),
    AccessRoute(
        "DELETE", "users/{user}/factors", "Takes one's second factors away", _remove_factors, _CHANGE, gives=_ONE_USER
    ),
    AccessRoute("GET", "users/{user}/sessions", "Lists one's sessions", _user_sessions, _READ, gives=SESSIONS),
    AccessRoute("DELETE", "users/{user}/sessions", "Ends all of them", _end_user_sessions, _CHANGE, gives=ENDED),
    AccessRoute(
        "PUT", "users/{user}/grants", "Sets what one may do", _set_user_grants, _CHANGE, _NEW_GRANTS, _ONE_USER
    ),
    AccessRoute(
        "GET",
        "groups",
        "Lists a provider's groups that may do something",
        _groups,
        _READ,
        gives=_gives("groups", is_list=True),
    ),
    AccessRoute(
        "PUT",
        # A path, since some providers name groups so: /team/operators.
        "groups/{group:path}/grants",
        "Sets what a provider's group may do",
        _set_group_grants,
        _CHANGE,
        _NEW_GRANTS,
    ),
    AccessRoute("GET", "roles", "Lists roles and actions", _roles, KNOWN, gives=_gives("roles", is_list=True)),
    AccessRoute("PUT", "roles/{role}", "Makes or changes a role", _apply_role, _CHANGE, _ACTIONS),
    AccessRoute("DELETE", "roles/{role}", "Removes one", _remove_role, _CHANGE),
    AccessRoute("GET", "keys", "Lists keys", _keys, KNOWN, gives=_gives("keys", is_list=True)),
    AccessRoute("POST", "keys", "Makes a key", _add_key, KNOWN, _NEW_KEY, _gives("key"), 201),
    AccessRoute("POST", "keys/{key}/rotate", "Gives a key a new secret", _rotate_key, KNOWN, _OVERLAP),
    AccessRoute("DELETE", "keys/{key}", "Ends a key", _revoke_key, KNOWN),
    AccessRoute(
        "GET", "certificates", "Lists certificates", _certificates, _READ, gives=_gives("certificates", is_list=True)
    ),
    AccessRoute(
        "POST",
        "certificates",
        "Says who a certificate stands for",
        _add_certificate,
        _CHANGE,
        _NEW_CERTIFICATE,
        _gives("certificate"),
        201,
    ),
    AccessRoute("DELETE", "certificates/{certificate}", "Takes it back", _remove_certificate, _CHANGE),
)
"""What there is, in order."""
