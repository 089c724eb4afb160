# SPDX-License-Identifier: Apache-2.0
"""Who is let in: what a request shows becomes a principal, and what it wants is allowed or not, whatever wire it came over.

A server is open only where nothing but its own machine reaches it and nobody is known: then whoever asks may do everything
but change access and read the audit log. It closes as soon as somebody is known, and does not open again. Elsewhere everything needs a credential,
unless a platform that the operator named vouches for who asks. Invariants: at most one credential counts; one that is
shown and not accepted is refused; what changes something is recorded before it is done. Leaves to others: reading
credentials off a wire (`http/principals.py`, `grpc/callers.py`), keeping identities (`access`). Stable.
Source: OWASP ASVS 5.0, 8.1 to 8.3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from shipsight.access import (
    AUDIT_ACTIONS,
    LOOPBACK,
    NOBODY,
    OPEN_RIGHTS,
    ROLES,
    SERVER,
    Action,
    Certificate,
    Event,
    EventKind,
    EventSink,
    Grant,
    LoggedEvents,
    Outcome,
    Principal,
    PrincipalKind,
    Rights,
    certificate_principal,
)
from shipsight.access.events import asked_from, note_client
from shipsight.errors import AuthenticationError, CertificateError, ForbiddenError, NotFoundError, ShipsightError
from shipsight.serve.lanes import Lane, network_of
from shipsight.serve.needs import HANDLER, Needs
from shipsight.serve.uses import Uses

if TYPE_CHECKING:
    # Half a second of imports that a server without users does not need.
    from shipsight.access.audit.settings import AuditState
    from shipsight.access.authenticate import Authenticator
    from shipsight.access.service import Access
    from shipsight.serve.auditing import Audited

__all__ = [
    "KEY_PREFIX",
    "PLATFORM_RIGHTS",
    "Behind",
    "Caller",
    "Gate",
    "GateRules",
    "Shown",
    "conceal",
    "several_credentials",
]

KEY_PREFIX = "ssk_"
_MOST_PROVED = 20_000
PLATFORM_RIGHTS = Rights.of((Grant("viewer"), Grant("predictor")), ROLES)
"""Those of whoever a platform lets through: they see and ask models, and change nothing."""


class Behind(StrEnum):
    """Who encrypts and asks who is there, in front of a server."""

    SAGEMAKER = "sagemaker"
    VERTEX = "vertex"
    AZUREML = "azureml"
    KSERVE = "kserve"
    PROXY = "proxy"


@dataclass(frozen=True)
class GateRules:
    """How a server was started.

    Attributes:
        is_local: whether nothing but its own machine reaches it.
        is_required: whether everything needs a credential, also where nobody is known.
        behind: who stands in front of it, None for nobody.
        takes_user: whether the proxy names the person who asks.
    """

    is_local: bool = True
    is_required: bool = False
    behind: Behind | None = None
    takes_user: bool = False

    def knows_clients(self, *, is_vouched: bool) -> bool:
        """Tells whether a connection comes from whoever asks, and not from a platform or from the operator's proxy.

        Args:
            is_vouched: whether it came through that proxy.
        """
        return self.behind is None or (self.behind is Behind.PROXY and not is_vouched)


@dataclass(frozen=True)
class Shown:
    """What a request shows of who asks; secrets are not in its repr.

    Attributes:
        key: text of an API key.
        session: token of a session.
        certificate: of the connection, verified.
        is_vouched: whether it came through the proxy that the operator named.
        user: whom that proxy names.
        address: that it came from.
        client: address of whoever asks, None where it is not known: that of a platform or proxy is not theirs.
        is_forwarded: whether somebody passed it on who is not known here.
    """

    key: str | None = field(default=None, repr=False)
    session: str | None = field(default=None, repr=False)
    certificate: Certificate | None = None
    is_vouched: bool = False
    user: str | None = None
    address: str | None = None
    client: str | None = None
    is_forwarded: bool = False


@dataclass(frozen=True)
class Caller:
    """Who asks, found.

    Attributes:
        principal: who.
        csrf: token that a page has to send along with a session, None without one.
        address: that the request came from, None where that has none.
        client: address of whoever asks, None where it is not known.
    """

    principal: Principal
    csrf: str | None = field(default=None, repr=False)
    address: str | None = None
    client: str | None = None


class Gate:
    """Lets requests in, or refuses them.

    What may wait for a database or a disk is done in threads: in one lane for who is known, in another for who is not, and for
    credentials that were never accepted by this process. So whoever guesses at keys costs nothing those who show their own.

    Args:
        rules: how the server was started.
        access: identities, None for a server that keeps none.
        authenticator: looks at credentials; given with `access`.
        events: takes what is decided.
        now: tells the time.
        origin: that browsers see, `https://host[:port]`.

    Attributes:
        audit_state: how the audit log fares, None for a server that keeps none.
        audited: the log for those who may read it, likewise.
    """

    def __init__(
        self,
        rules: GateRules = GateRules(),
        *,
        access: Access | None = None,
        authenticator: Authenticator | None = None,
        events: EventSink | None = None,
        now: Callable[[], datetime] | None = None,
        origin: str = "http://127.0.0.1",
    ) -> None:
        self.rules = rules
        self.access = access
        self.events = events or LoggedEvents()
        self.now = now or _utc_now
        self.origin = origin
        self.audited: Audited | None = None
        self.audit_state: Callable[[], AuditState] | None = None
        self._authenticator = authenticator
        self._lane = Lane("gate", threads=4, places=256)
        self._strangers = Lane("gate-strangers", threads=2, places=512, share=64)
        # What is recorded may wait for a disk; who asks is found out meanwhile. Events that wait together are kept together.
        self._recording = Lane("gate-record", threads=8, places=256)
        self._uses = Uses(self.events, now=self.now)
        self._proved: dict[bytes, None] = {}  # digests of keys and sessions that were accepted, the last one last
        self._has_closed = rules.is_required or not rules.is_local or rules.behind is not None

    def close(self) -> None:
        """Ends its threads."""
        self._lane.close()
        self._strangers.close()
        self._recording.close()
        if self.audited is not None:
            self.audited.close()

    @property
    def has_closed(self) -> bool:
        """Whether it was seen closed."""
        return self._has_closed

    async def is_open(self) -> bool:
        """Tells whether anyone may ask anything; once that has ended it has for good."""
        if self._has_closed or self.access is None:
            return not self._has_closed
        if await self._lane.submit(self.access.directory.knows_anyone):
            self._has_closed = True
        return not self._has_closed

    # --- who asks ---

    async def identify(self, shown: Shown) -> Caller:
        """Returns who asks.

        Raises:
            AuthenticationError: a credential is not accepted, or several are shown.
            ForbiddenError: the server is open to its own machine, and a proxy passed this on from elsewhere.
            OverloadedError: too many ask.
        """
        note_client(shown.address)
        caller = await self._identify(shown)
        self._uses.note(caller.principal, caller.address)
        return caller

    async def _identify(self, shown: Shown) -> Caller:
        if await self.is_open():
            if shown.is_forwarded:
                raise ForbiddenError(
                    "a proxy passed this on, but the server was started without --behind",
                    where="X-Forwarded-*, Forwarded, X-Real-IP",
                    hint="Start it with --behind proxy, or give it a person who may sign in.",
                )
            return _caller(shown, _open_principal(shown.certificate))
        if shown.key is not None and shown.session is not None:
            raise several_credentials()
        if self._authenticator is None:
            return self._without_store(shown)
        known = self._known(self._authenticator, shown)
        if known is not None:
            return known
        secret = shown.session if shown.key is None else shown.key
        if secret is None and shown.certificate is None and shown.user is None:
            return _caller(shown, self._vouched(shown))
        return await self._prove(self._authenticator, shown, secret)

    async def _prove(self, authenticator: Authenticator, shown: Shown, secret: str | None) -> Caller:
        """Looks a credential up; one that was accepted before does not wait for those that were not.

        A certificate was proved by its connection's handshake, and a person by the proxy.
        """
        if secret is None:
            return await self._lane.submit(self._look_up, authenticator, shown)
        name = hashlib.sha256(secret.encode(errors="surrogatepass")).digest()
        lane = self._lane if name in self._proved else self._strangers
        try:
            caller = await lane.submit(self._look_up, authenticator, shown, whose=network_of(shown.client))
        except AuthenticationError:
            self._proved.pop(name, None)
            raise
        self._proved.pop(name, None)
        self._proved[name] = None
        while len(self._proved) > _MOST_PROVED:
            del self._proved[next(iter(self._proved))]
        return caller

    def _known(self, authenticator: Authenticator, shown: Shown) -> Caller | None:
        """Returns who shows a single credential, where that is at hand; None where it has to be looked up."""
        match (shown.key, shown.session, shown.certificate):
            case (str() as key, None, None):
                principal = authenticator.known_key(key)
                return None if principal is None else _caller(shown, principal)
            case (None, str() as session, None):
                found = authenticator.known_session(session)
                return None if found is None else _caller(shown, *found)
            case (None, None, Certificate() as certificate):
                principal = authenticator.known_certificate(certificate)
                return None if principal is None else _caller(shown, principal)
            case _:
                return None

    def _look_up(self, authenticator: Authenticator, shown: Shown) -> Caller:
        with asked_from(shown.address):
            return self._find(authenticator, shown)

    def _find(self, authenticator: Authenticator, shown: Shown) -> Caller:
        by_certificate = None
        if shown.certificate is not None:
            by_certificate = authenticator.by_certificate(shown.certificate)
        if shown.key is None and shown.session is None:
            return _caller(shown, by_certificate or self._vouched(shown))
        if by_certificate is not None and by_certificate.id is not None:
            raise several_credentials()
        if shown.key is not None:
            return _caller(shown, authenticator.by_key(shown.key))
        found = authenticator.by_session(shown.session or "")
        if found is None:
            raise AuthenticationError("this session has ended", hint="Sign in again.")
        return _caller(shown, *found)

    def _without_store(self, shown: Shown) -> Caller:
        """Tells who asks a server that keeps no identities and is not open: it stands behind a platform."""
        if shown.key is not None:
            raise AuthenticationError("this server knows no keys")
        return _caller(shown, certificate_principal(shown.certificate) if shown.certificate else self._vouched(shown))

    def _vouched(self, shown: Shown) -> Principal:
        """Returns who asks without a credential of ours."""
        behind = self.rules.behind
        if behind is None or (behind is Behind.PROXY and not shown.is_vouched):
            return NOBODY
        if not self.rules.takes_user:
            return Principal(PrincipalKind.PLATFORM, behind.value, rights=PLATFORM_RIGHTS)
        return NOBODY if shown.user is None else self._person(shown.user)

    def _person(self, name: str) -> Principal:
        """Returns a person whom the proxy names; for what changes anything, and for the audit log, they have to sign in here.

        The proxy's word is one factor, whatever it asked for.
        """
        if self.access is None:
            return Principal(PrincipalKind.PERSON, name, rights=PLATFORM_RIGHTS, factors=("proxy",))
        try:
            user = self.access.directory.user(name)
        except NotFoundError:
            return Principal(PrincipalKind.PERSON, name, factors=("proxy",))
        if user.is_disabled or user.name != name.lower():  # the directory finds people by their id, too
            return Principal(PrincipalKind.PERSON, name, factors=("proxy",))
        rights = _without_second_factor(self.access.directory.rights_of_user(user.id))
        return Principal(PrincipalKind.PERSON, user.name, rights=rights, id=user.id, factors=("proxy",))

    async def still(self, principal: Principal) -> Principal | None:
        """Returns a principal with the rights that it has now, None where it has none any more; for what stays open."""
        certificate = principal.certificate
        if certificate is not None and self.now() > certificate.not_after:
            return None
        if await self.is_open():
            return principal
        if principal.kind is PrincipalKind.LOOPBACK or (certificate is not None and principal.rights is OPEN_RIGHTS):
            return None
        if principal.kind in (PrincipalKind.PLATFORM, PrincipalKind.NOBODY) or self._authenticator is None:
            return principal
        if principal.factors == ("proxy",):
            return await self._lane.submit(self._person, principal.name)
        known = self._authenticator.known_still(principal)
        if known is not None:
            return known
        return await self._lane.submit(self._authenticator.still, principal)

    # --- what they may do ---

    async def admit(
        self, caller: Caller, needs: Needs, path: Mapping[str, str], *, route: str, is_again: bool = False
    ) -> None:
        """Lets a request pass to its handler.

        Args:
            caller: who asks.
            needs: of the route.
            path: parameters of its path.
            route: for the record.
            is_again: whether it was let pass and recorded before, and is looked at once more now that it is whole.

        Raises:
            AuthenticationError: nobody is known by what was shown.
            StepUpError: a person has to prove again who they are.
            ForbiddenError: it is not allowed.
        """
        if needs.is_public:
            return
        principal = caller.principal
        if principal.kind is PrincipalKind.NOBODY:
            raise AuthenticationError("say who you are", expected="an API key, a session or a client certificate")
        is_stranger = principal.kind is PrincipalKind.CERTIFICATE and principal.id is None
        if is_stranger and self._authenticator is not None and not await self.is_open():
            # An authority signed it, but it was never added here, or was removed.
            raise ForbiddenError("this certificate stands for nobody here", got=principal.told())
        if principal.must_enrol and not needs.may_enrol:
            raise ForbiddenError("this is not allowed to you", got=principal.told(), hint="Add a second factor first.")
        if needs.action is None:
            return
        if needs.model != HANDLER:
            model = None if needs.model is None else path[needs.model]
            await self.allow(caller, needs.action, model, route=route, is_again=is_again)
        elif not principal.rights.allows_somewhere(needs.action):
            raise ForbiddenError("this is not allowed to you", expected=needs.action.value, got=principal.told())

    async def allow(
        self, caller: Caller, action: Action, model: str | None, *, route: str, is_again: bool = False
    ) -> None:
        """Lets an action pass, and records one that changes something before it is done, unless it was recorded before.

        Raises:
            ForbiddenError, StepUpError: as `Principal.require`.
        """
        caller.principal.require(action, model, now=self.now())
        if action.changes and not is_again:
            told = {"action": action.value, "route": route}
            await self.record(EventKind.ALLOWED, caller, model, details=told)

    async def refused(self, error: ShipsightError, caller: Caller, *, model: str | None, route: str) -> None:
        """Records that a request was refused.

        Args:
            error: why.
            caller: who asked.
            model: that it was for.
            route: that it came by.

        Raises:
            OverloadedError: too much of those who are not known is to be recorded.
        """
        action = error.expected if isinstance(error, ForbiddenError) and error.expected in set(Action) else None
        model = model or (error.where if action is not None else None)
        kind, told = EventKind.REFUSED, {"action": action, "route": route}
        if isinstance(error, CertificateError):
            kind = EventKind.CERTIFICATE_REFUSED
            told = {"certificate": error.where, "reason": error.what, "got": error.got, "route": route}
        await self.record(kind, caller, model, why=error.code, details=told)

    async def started(self, **details: str | bool | list[str] | None) -> None:
        """Records that a server with these rules answers from now on.

        Raises:
            AuditError: that cannot be recorded.
        """
        behind = None if self.rules.behind is None else self.rules.behind.value
        is_open, is_required = await self.is_open(), self.rules.is_required
        told = {"behind": behind, "open": is_open, "required": is_required, **details}
        await self.record(EventKind.STARTED, Caller(SERVER), None, details=told)

    def start_failed(self, error: ShipsightError) -> None:
        """Records that what was recorded as started cannot serve; where that cannot be kept, it is lost and counted."""
        self.events.record(Event(self.now(), EventKind.STARTED, Outcome.REFUSED, SERVER.told(), why=error.code))

    async def record(
        self,
        kind: EventKind,
        caller: Caller,
        model: str | None,
        *,
        why: str | None = None,
        details: Mapping[str, str | int | bool | list[str] | None],
    ) -> None:
        """Records what a request is about to do, before it does it, or why it was refused.

        Args:
            kind: of event.
            caller: who asks.
            model: that it is done to, None for none.
            why: code of what refused it, None where it is done.
            details: more; what is None is left out.

        Raises:
            AuditError: it cannot be recorded, so it must not be done.
            OverloadedError: too much waits to be recorded.
        """
        event = Event(
            at=self.now(),
            kind=kind,
            outcome=Outcome.DONE if why is None else Outcome.REFUSED,
            actor=caller.principal.told(),
            subject=None if model is None else f"model:{model}",
            why=why,
            address=caller.address,
            details={key: one for key, one in details.items() if one is not None},
        )
        # A sink may write to a disk or a database.
        is_stranger = caller.principal.kind in (PrincipalKind.NOBODY, PrincipalKind.PLATFORM)
        lane = self._strangers if is_stranger else self._recording
        await lane.submit(self.events.record, event, whose=network_of(caller.client) if is_stranger else None)


def several_credentials() -> AuthenticationError:
    """Returns the error of a request that shows more than one credential."""
    return AuthenticationError("more than one credential is shown", expected="one")


def conceal(error: ShipsightError, principal: Principal) -> ShipsightError:
    """Returns an error without the names of models that a principal may not see."""
    if isinstance(error, NotFoundError) and error.expected is not None and not principal.may(Action.MODELS_READ):
        return NotFoundError(error.what, where=error.where, got=error.got, hint=error.hint)
    return error


def _caller(shown: Shown, principal: Principal, csrf: str | None = None) -> Caller:
    return Caller(principal, csrf, shown.address, shown.client)


def _open_principal(certificate: Certificate | None) -> Principal:
    return LOOPBACK if certificate is None else replace(certificate_principal(certificate), rights=OPEN_RIGHTS)


def _without_second_factor(rights: Rights) -> Rights:
    """Returns rights without what takes two factors."""
    kept = (
        (frozenset(one for one in actions if not one.changes and one not in AUDIT_ACTIONS), grant)
        for actions, grant in rights.grants
    )
    return Rights(tuple((actions, grant) for actions, grant in kept if actions))


def _utc_now() -> datetime:
    return datetime.now(UTC)
