# SPDX-License-Identifier: Apache-2.0
"""Signing in with a provider of OpenID Connect: authorization code with PKCE (proof key for code exchange).

The provider says who somebody is, which groups they are in and how they proved it; what they may do is granted here, to the
groups and to themselves. Two factors count where `acr` is one of those that the operator named, or `amr` says so; else the
session has `oidc` alone, and a second factor of ours is asked for where rights need one.

Invariants: what a browser brings back fits the sign-in that this browser began, once and within ten minutes; state, nonce and
PKCE's verifier are derived from a token that the browser alone has, and none is kept here. A person is known by issuer and
subject: one who is new becomes a user of their own, whose name says which provider vouches for them, never a user that is
there already. At each sign-in groups are as the provider says now, and sessions that were begun with others end. Each refusal
is an event that says why, and the error does not. Leaves to others: the session that follows (`SignIn.begin_federated`).
Stable. Sources: OpenID Connect Core 1.0, 3.1; RFC 7636; RFC 9207; RFC 9700; RFC 8176; OWASP ASVS 5.0, 10.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from sqlalchemy import Connection, Row, delete, select

from shipsight.access.challenges import make_challenge, take_challenge
from shipsight.access.directory import Directory, User, insert_user_in
from shipsight.access.events import Event, EventKind, EventSink, Outcome
from shipsight.access.grants import grants_in, rights_in, roles_in
from shipsight.access.id_tokens import TokenError, verify_id_token
from shipsight.access.permissions import Rights
from shipsight.access.provider import CodeRefusedError, Provider
from shipsight.access.settings import OpenIdSettings
from shipsight.access.store import Database, grow_revision
from shipsight.access.store.tables import grants, sessions, users
from shipsight.access.tokens import digest
from shipsight.errors import AuthenticationError, ForbiddenError

__all__ = ["RETURN_PATH", "OpenId", "OpenIdPerson", "proves_two_factors"]

RETURN_PATH = "/v1/access/sign-in/openid/return"
_KIND = "openid"
_LIVES_S = 600.0
_LONGEST_CODE, _LONGEST_GROUP, _MOST_GROUPS = 4096, 256, 200
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9._+-]+")

# RFC 8176. Left out: text messages and calls (`sms`, `tel`), which NIST SP 800-63B restricts, and what is no factor (`geo`, `rba`).
_KINDS = {
    **dict.fromkeys(("pwd", "pin", "kba"), "knows"),
    **dict.fromkeys(("otp", "hwk", "swk", "sc", "pop"), "has"),
    **dict.fromkeys(("face", "fpt", "iris", "retina", "vbm"), "is"),
}


@dataclass(frozen=True)
class OpenIdPerson:
    """Somebody whom the provider vouches for.

    Attributes:
        user: as which they are known here.
        groups: that they are in now.
        factors: `oidc`, and `mfa` where they proved two.
        proved_at: when they proved who they are, None where the provider does not say.
        session: handle of the session that the browser had when this began, None for none.
        device: digest of the token that their browser is known by, None for none.
    """

    user: User
    groups: tuple[str, ...]
    factors: tuple[str, ...]
    proved_at: datetime | None = None
    session: str | None = None
    device: bytes | None = None


class _RefusedError(Exception):
    """A sign-in is not accepted.

    Args:
        why: code.
        actor: who it is of, as far as it is known.
    """

    def __init__(self, why: str, *, actor: str = "nobody") -> None:
        super().__init__(why)
        self.why = why
        self.actor = actor


class OpenId:
    """One provider to sign in with.

    Args:
        settings: which.
        db: of identities.
        directory: of people.
        events: takes what happens.
        now: tells the time.
        origin: that browsers see; the provider has to know `<origin>/v1/access/sign-in/openid/return`.

    Raises:
        UsageError: the provider's address does not do.
        MissingDependencyError: the extra `oidc` is not installed.
        EnvironmentLackError: the client's secret cannot be read.
    """

    def __init__(
        self,
        settings: OpenIdSettings,
        db: Database,
        directory: Directory,
        events: EventSink,
        now: Callable[[], datetime],
        *,
        origin: str,
    ) -> None:
        self._settings = settings
        self._db = db
        self._directory = directory
        self._events = events
        self._now = now
        self._redirect_uri = origin.rstrip("/") + RETURN_PATH
        self._provider = Provider(settings)

    def begin(
        self, *, user_id: str | None = None, session: str | None = None, device: str | None = None
    ) -> tuple[str, str]:
        """Returns where to send the browser, and a token for it to keep: in a cookie that comes along with the redirect back.

        Other cookies do not come along from another site: what they say now is kept until then.

        Args:
            user_id: who is signed in, None for nobody.
            session: handle of their session.
            device: token that the browser is known by, None where it is not.

        Raises:
            EnvironmentLackError: the provider does not answer.
        """
        endpoint = self._provider.metadata().authorization_endpoint
        with self._db.write() as connection:
            told = {"session": session, "device": None if device is None else digest(device).hex()}
            token = make_challenge(connection, _KIND, now=self._now(), lives_s=_LIVES_S, user_id=user_id, told=told)
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": " ".join(dict.fromkeys(("openid", *self._settings.scopes))),
            "state": _derive(token, "state"),
            "nonce": _derive(token, "nonce"),
            "code_challenge": _challenge_of(_derive(token, "verifier")),
            "code_challenge_method": "S256",
        }
        if self._settings.max_age_s is not None:
            asked["max_age"] = str(int(self._settings.max_age_s))
        if self._settings.required_acr:
            asked["acr_values"] = " ".join(self._settings.required_acr)
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}", token

    def finish(
        self,
        challenge_token: str,
        *,
        state: str | None,
        code: str | None,
        iss: str | None = None,
        error: str | None = None,
        address: str | None = None,
    ) -> OpenIdPerson:
        """Takes what the browser brought back from the provider.

        Args:
            challenge_token: that the browser kept.
            state: parameter of the response.
            code: parameter of the response, None with an error.
            iss: parameter of the response, None where the provider does not name itself.
            error: parameter of the response where the person or the provider said no.
            address: that the request came from.

        Raises:
            AuthenticationError: anything of it is not accepted, or the person is kept out here.
            ForbiddenError: nothing was granted to the person, nor to a group of theirs.
            EnvironmentLackError: the provider does not answer.
        """
        try:
            claims, told = self._claims(challenge_token, state=state, code=code, iss=iss, error=error)
            device = told.get("device")
            return replace(
                self._person(claims),
                session=told.get("session"),
                device=None if device is None else bytes.fromhex(device),
            )
        except _RefusedError as refused:
            self._tell_refusal(refused, address)
            if refused.why == "openid-no-rights":
                raise ForbiddenError(
                    "you are known to the provider, but may do nothing here",
                    hint="Ask an administrator to grant something to you or to a group of yours.",
                ) from refused
            raise AuthenticationError("this sign-in is not accepted", hint="Begin again.") from refused

    def _claims(
        self, token: str, *, state: str | None, code: str | None, iss: str | None, error: str | None
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Returns verified claims of who comes back, and what was kept when they went."""
        try:
            told = take_challenge(self._db, token, _KIND, now=self._now).told
        except AuthenticationError as over:
            raise _RefusedError("openid-challenge") from over
        is_ours = isinstance(state, str) and state.isascii() and hmac.compare_digest(state, _derive(token, "state"))
        if not is_ours:
            raise _RefusedError("openid-state")
        metadata = self._provider.metadata()
        # Mix-up (RFC 9207): an answer of another provider is not taken to this one.
        if (iss is None and metadata.names_itself) or (iss is not None and iss != self._settings.issuer):
            raise _RefusedError("openid-issuer")
        if error is not None:
            raise _RefusedError("openid-denied")
        if not isinstance(code, str) or not 0 < len(code) <= _LONGEST_CODE:
            raise _RefusedError("openid-code")
        try:
            answer = self._provider.id_token(code, verifier=_derive(token, "verifier"), redirect_uri=self._redirect_uri)
            claims = verify_id_token(
                answer,
                keys=self._provider.keys(),
                algorithms=metadata.algorithms,
                issuer=self._settings.issuer,
                client_id=self._settings.client_id,
                nonce=_derive(token, "nonce"),
                now=self._now(),
                max_age_s=self._settings.max_age_s,
            )
            return claims, told
        except CodeRefusedError as refused:
            raise _RefusedError("openid-code") from refused
        except TokenError as refused:
            raise _RefusedError(f"openid-{refused.why}") from refused

    def _person(self, claims: Mapping[str, Any]) -> OpenIdPerson:
        issuer, subject = self._settings.issuer, str(claims["sub"])
        with self._db.write() as connection:
            groups = _groups(connection, claims.get(self._settings.groups_claim))
            row = connection.execute(
                select(users).where(users.c.oidc_issuer == issuer, users.c.oidc_subject == subject)
            ).one_or_none()
            if row is None:
                user_id = self._add(connection, claims, groups)
            else:
                user_id = str(row.id)
                self._end_outdated(connection, row, groups)
            may_do_nothing = user_id is None or not rights_in(connection, user_id, groups).grants
        # Outside: what ended stays ended.
        if row is not None and row.is_disabled:
            raise _RefusedError("openid-disabled", actor=f"person:{row.name}")
        if user_id is None or may_do_nothing:
            raise _RefusedError("openid-no-rights", actor="nobody" if row is None else f"person:{row.name}")
        factors = ("oidc", "mfa") if proves_two_factors(claims, self._settings.required_acr) else ("oidc",)
        proved_at, told = None, claims.get("auth_time")
        if told is not None:
            proved_at = datetime.fromtimestamp(min(max(told, 0), self._now().timestamp()), UTC)
        return OpenIdPerson(self._directory.user(user_id), groups, factors, proved_at)

    def _add(self, connection: Connection, claims: Mapping[str, Any], groups: tuple[str, ...]) -> str | None:
        """Adds somebody who comes for the first time, where a group of theirs was granted something; None else."""
        if not Rights.of(grants_in(connection, "group", groups), roles_in(connection)).grants:
            return None
        subject = str(claims["sub"])
        name = self._free_name(connection, claims, subject)
        shown = claims.get("name")
        user_id = insert_user_in(
            connection,
            self._now(),
            name=name,
            display_name=shown if isinstance(shown, str) and shown.isprintable() and 0 < len(shown) <= 100 else name,
            oidc_issuer=self._settings.issuer,
            oidc_subject=subject,
        )
        self._events.record(
            Event(
                self._now(),
                EventKind.USER_ADDED,
                Outcome.DONE,
                f"person:{name}",
                details={"issuer": self._settings.issuer, "subject": subject, "groups": list(groups)},
            )
        )
        return user_id

    def _free_name(self, connection: Connection, claims: Mapping[str, Any], subject: str) -> str:
        """Returns a name that is nobody's and says which provider vouches for it."""
        told = claims.get("preferred_username")
        local = told.partition("@")[0].lower() if isinstance(told, str) else ""
        local = _NOT_IN_A_NAME.sub("-", local).strip("-._+")[:20] or "user"
        host = (urlsplit(self._settings.issuer).hostname or "")[-30:].strip("-.:").replace(":", "-")
        name = f"{local}@{host}"
        if connection.execute(select(users.c.id).where(users.c.name == name)).first() is None:
            return name
        digest = hashlib.sha256(f"{self._settings.issuer} {subject}".encode()).hexdigest()
        return f"{local}-{digest[:10]}@{host}"

    def _end_outdated(self, connection: Connection, user: Row[Any], groups: tuple[str, ...]) -> None:
        """Ends sessions that hold a group which the person is no longer in."""
        rows = connection.execute(
            select(sessions.c.handle, sessions.c.factors).where(sessions.c.user_id == user.id)
        ).all()
        ended = [row.handle for row in rows if not set(row.factors["groups"]) <= set(groups)]
        if not ended:
            return
        connection.execute(delete(sessions).where(sessions.c.handle.in_(ended)))
        grow_revision(connection)
        for handle in ended:
            self._events.record(
                Event(
                    self._now(),
                    EventKind.SESSION_ENDED,
                    Outcome.DONE,
                    "server:this server",
                    subject=f"person:{user.name}",
                    why="groups-changed",
                    details={"session": handle},
                )
            )

    def _tell_refusal(self, refused: _RefusedError, address: str | None) -> None:
        with self._db.write():
            self._events.record(
                Event(
                    self._now(),
                    EventKind.SIGN_IN,
                    Outcome.REFUSED,
                    refused.actor,
                    why=refused.why,
                    factor="oidc",
                    address=address,
                    details={"issuer": self._settings.issuer},
                )
            )


def proves_two_factors(claims: Mapping[str, Any], required_acr: tuple[str, ...]) -> bool:
    """Whether a provider says that somebody proved two factors.

    Args:
        claims: of its ID token.
        required_acr: values of `acr` that mean so; empty where `amr` tells: `mfa`, or methods of two kinds.
    """
    if required_acr:
        return isinstance(claims.get("acr"), str) and claims["acr"] in required_acr
    told = claims.get("amr")
    methods = [one for one in told if isinstance(one, str)] if isinstance(told, list) else []
    return "mfa" in methods or len({_KINDS[one] for one in methods if one in _KINDS}) > 1


def _groups(connection: Connection, told: object) -> tuple[str, ...]:
    """Returns groups as a provider tells them; of very many those that were granted something."""
    listed = [told] if isinstance(told, str) else told
    if not isinstance(listed, list):
        return ()
    fitting = {one for one in listed if isinstance(one, str) and 0 < len(one) <= _LONGEST_GROUP and one.isprintable()}
    if len(fitting) > _MOST_GROUPS:
        granted = connection.scalars(select(grants.c.holder_id).where(grants.c.holder_kind == "group").distinct())
        fitting &= set(granted)
    return tuple(sorted(fitting))


def _derive(token: str, what: str) -> str:
    """Returns a secret of 256 bits that nobody without the token can know, and that tells nothing of the token."""
    made = hmac.digest(token.encode(), f"shipsight openid {what}".encode(), "sha256")
    return urlsafe_b64encode(made).rstrip(b"=").decode()


def _challenge_of(verifier: str) -> str:
    return urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
