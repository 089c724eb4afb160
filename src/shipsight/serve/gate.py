# SPDX-License-Identifier: Apache-2.0
"""Who is let in: what a request shows becomes a principal, and what it wants is allowed or not, whatever wire it came over.

A server is open only where nothing but its own machine reaches it and nobody is known: then whoever asks may do everything
but read the audit log. It closes as soon as somebody is known, and does not open again. Elsewhere everything needs a credential,
unless a platform that the operator named vouches for who asks. Invariants: at most one credential counts; one that is
shown and not accepted is refused; what changes something is recorded before it is done. Leaves to others: reading
credentials off a wire (`http/principals.py`, `grpc/callers.py`), keeping identities (`access`). Stable.
Source: OWASP ASVS 5.0, 8.1 to 8.3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from shipsight.access import (
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
from shipsight.errors import AuthenticationError, ForbiddenError, NotFoundError, OverloadedError, ShipsightError
from shipsight.serve.needs import HANDLER, Needs

if TYPE_CHECKING:
    # Half a second of imports that a server without users does not need.
    from shipsight.access.authenticate import Authenticator
    from shipsight.access.service import Access

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

T = TypeVar("T")
KEY_PREFIX = "ssk_"
_THREADS = 4
_MOST_WAITING = 256
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
    """

    key: str | None = field(default=None, repr=False)
    session: str | None = field(default=None, repr=False)
    certificate: Certificate | None = None
    is_vouched: bool = False
    user: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class Caller:
    """Who asks, found.

    Attributes:
        principal: who.
        csrf: token that a page has to send along with a session, None without one.
        address: that the request came from, None where that has none.
    """

    principal: Principal
    csrf: str | None = field(default=None, repr=False)
    address: str | None = None


class Gate:
    """Lets requests in, or refuses them.

    Args:
        rules: how the server was started.
        access: identities, None for a server that keeps none.
        authenticator: looks at credentials; given with `access`.
        events: takes what is decided.
        now: tells the time.
        origin: that browsers see, `https://host[:port]`.
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
        self._authenticator = authenticator
        self._threads = ThreadPoolExecutor(_THREADS, "shipsight-gate")
        self._waiting = 0
        self._has_closed = rules.is_required or not rules.is_local or rules.behind is not None

    def close(self) -> None:
        """Ends its threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Does what may wait for a database or a disk; a flood of it costs those nothing who are known already.

        Raises:
            OverloadedError: too many wait.
        """
        if self._waiting >= _MOST_WAITING:
            raise OverloadedError("too many ask who they are at once", expected=f"at most {_MOST_WAITING}")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        finally:
            self._waiting -= 1

    @property
    def has_closed(self) -> bool:
        """Whether it was seen closed."""
        return self._has_closed

    async def is_open(self) -> bool:
        """Tells whether anyone may ask anything; once that has ended it has for good."""
        if self._has_closed or self.access is None:
            return not self._has_closed
        if await self._in_thread(self.access.directory.knows_anyone):
            self._has_closed = True
        return not self._has_closed

    # --- who asks ---

    async def identify(self, shown: Shown) -> Caller:
        """Returns who asks.

        Raises:
            AuthenticationError: a credential is not accepted, or several are shown.
        """
        if await self.is_open():
            return Caller(_open_principal(shown.certificate), address=shown.address)
        if shown.key is not None and shown.session is not None:
            raise several_credentials()
        if self._authenticator is None:
            return self._without_store(shown)
        known = self._known(self._authenticator, shown)
        if known is not None:
            return known
        return await self._in_thread(self._look_up, self._authenticator, shown)

    def _known(self, authenticator: Authenticator, shown: Shown) -> Caller | None:
        """Returns who shows a single credential, where that is at hand; None where it has to be looked up."""
        match (shown.key, shown.session, shown.certificate):
            case (str() as key, None, None):
                principal = authenticator.known_key(key)
                return None if principal is None else Caller(principal, address=shown.address)
            case (None, str() as session, None):
                found = authenticator.known_session(session)
                return None if found is None else Caller(*found, shown.address)
            case (None, None, Certificate() as certificate):
                principal = authenticator.known_certificate(certificate)
                return None if principal is None else Caller(principal, address=shown.address)
            case _:
                return None

    def _look_up(self, authenticator: Authenticator, shown: Shown) -> Caller:
        by_certificate = None
        if shown.certificate is not None:
            by_certificate = authenticator.by_certificate(shown.certificate)
        if shown.key is None and shown.session is None:
            principal = by_certificate or self._vouched(shown)
            return Caller(principal, address=shown.address)
        if by_certificate is not None and by_certificate.id is not None:
            raise several_credentials()
        if shown.key is not None:
            return Caller(authenticator.by_key(shown.key), address=shown.address)
        found = authenticator.by_session(shown.session or "")
        if found is None:
            raise AuthenticationError("this session has ended", hint="Sign in again.")
        principal, csrf = found
        return Caller(principal, csrf, shown.address)

    def _without_store(self, shown: Shown) -> Caller:
        """Tells who asks a server that keeps no identities and is not open: it stands behind a platform."""
        if shown.key is not None:
            raise AuthenticationError("this server knows no keys")
        principal = certificate_principal(shown.certificate) if shown.certificate else self._vouched(shown)
        return Caller(principal, address=shown.address)

    def _vouched(self, shown: Shown) -> Principal:
        """Returns who asks without a credential of ours."""
        behind = self.rules.behind
        if behind is None or (behind is Behind.PROXY and not shown.is_vouched):
            return NOBODY
        if not self.rules.takes_user:
            return Principal(PrincipalKind.PLATFORM, behind.value, rights=PLATFORM_RIGHTS)
        return NOBODY if shown.user is None else self._person(shown.user)

    def _person(self, name: str) -> Principal:
        """Returns a person whom the proxy names; what is sensitive they have to prove here, with a session of their own."""
        if self.access is None:
            return Principal(PrincipalKind.PERSON, name, rights=PLATFORM_RIGHTS, factors=("proxy",))
        try:
            user = self.access.directory.user(name)
        except NotFoundError:
            return Principal(PrincipalKind.PERSON, name, factors=("proxy",))
        if user.is_disabled or user.name != name.lower():  # the directory finds people by their id, too
            return Principal(PrincipalKind.PERSON, name, factors=("proxy",))
        rights = self.access.directory.rights_of_user(user.id)
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
            return await self._in_thread(self._person, principal.name)
        known = self._authenticator.known_still(principal)
        if known is not None:
            return known
        return await self._in_thread(self._authenticator.still, principal)

    # --- what they may do ---

    async def admit(self, caller: Caller, needs: Needs, path: Mapping[str, str], *, route: str) -> None:
        """Lets a request pass to its handler.

        Args:
            caller: who asks.
            needs: of the route.
            path: parameters of its path.
            route: for the record.

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
            await self.allow(caller, needs.action, model, route=route)
        elif not principal.rights.allows_somewhere(needs.action):
            raise ForbiddenError("this is not allowed to you", expected=needs.action.value, got=principal.told())

    async def allow(self, caller: Caller, action: Action, model: str | None, *, route: str) -> None:
        """Lets an action pass, and records one that changes something before it is done.

        Raises:
            ForbiddenError, StepUpError: as `Principal.require`.
        """
        caller.principal.require(action, model, now=self.now())
        if action.changes:
            told = {"action": action.value, "route": route}
            await self._record(EventKind.ALLOWED, caller.principal, caller.address, model, details=told)

    async def refused(
        self, error: ShipsightError, principal: Principal, *, address: str | None, model: str | None, route: str
    ) -> None:
        """Records that a request was refused.

        Args:
            error: why.
            principal: who asked.
            address: that it came from.
            model: that it was for.
            route: that it came by.
        """
        action = error.expected if isinstance(error, ForbiddenError) and error.expected in set(Action) else None
        model = model or (error.where if action is not None else None)
        told = {"action": action, "route": route}
        await self._record(EventKind.REFUSED, principal, address, model, why=error.code, details=told)

    async def started(self, **details: str | bool | None) -> None:
        """Records that a server with these rules answers from now on."""
        behind = None if self.rules.behind is None else self.rules.behind.value
        is_open, is_required = await self.is_open(), self.rules.is_required
        told = {"behind": behind, "open": is_open, "required": is_required, **details}
        await self._record(EventKind.STARTED, SERVER, None, None, details=told)

    async def _record(
        self,
        kind: EventKind,
        principal: Principal,
        address: str | None,
        model: str | None,
        *,
        why: str | None = None,
        details: Mapping[str, str | bool | None],
    ) -> None:
        event = Event(
            at=self.now(),
            kind=kind,
            outcome=Outcome.DONE if why is None else Outcome.REFUSED,
            actor=principal.told(),
            subject=None if model is None else f"model:{model}",
            why=why,
            address=address,
            details={key: one for key, one in details.items() if one is not None},
        )
        # A sink may write to a disk or a database.
        await self._in_thread(self.events.record, event)


def several_credentials() -> AuthenticationError:
    """Returns the error of a request that shows more than one credential."""
    return AuthenticationError("more than one credential is shown", expected="one")


def conceal(error: ShipsightError, principal: Principal) -> ShipsightError:
    """Returns an error without the names of models that a principal may not see."""
    if isinstance(error, NotFoundError) and error.expected is not None and not principal.may(Action.MODELS_READ):
        return NotFoundError(error.what, where=error.where, got=error.got, hint=error.hint)
    return error


def _open_principal(certificate: Certificate | None) -> Principal:
    return LOOPBACK if certificate is None else replace(certificate_principal(certificate), rights=OPEN_RIGHTS)


def _utc_now() -> datetime:
    return datetime.now(UTC)
