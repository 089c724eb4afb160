# SPDX-License-Identifier: Apache-2.0
"""A principal: who acts, and what they may do. Every handler of a server takes one as an argument. Stable."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from shipsight.access.permissions import NO_RIGHTS, OPEN_RIGHTS, SERVER_RIGHTS, Action, Rights
from shipsight.errors import ForbiddenError, StepUpError

__all__ = ["LOOPBACK", "NOBODY", "SERVER", "Certificate", "Principal", "PrincipalKind", "certificate_principal"]


class PrincipalKind(StrEnum):
    """What kind of principal acts."""

    LOOPBACK = "loopback"
    SERVER = "server"
    NOBODY = "nobody"
    PERSON = "person"
    KEY = "key"
    CERTIFICATE = "certificate"
    DEVICE = "device"
    PLATFORM = "platform"


@dataclass(frozen=True)
class Certificate:
    """A client's certificate, verified when the connection was made; not whether it is still valid now.

    Attributes:
        subject: as RFC 4514 writes it, empty where it has none.
        alternative_names: `DNS:`, `URI:`, `email:` and `IP:` names, in its order.
        issuer: subject of who signed it.
        serial: number that the issuer gave it, in hexadecimal.
        sha256: digest of the whole certificate, in hexadecimal.
        not_after: when it ends, UTC.
    """

    subject: str
    alternative_names: tuple[str, ...]
    issuer: str
    serial: str
    sha256: str
    not_after: datetime


@dataclass(frozen=True)
class Principal:
    """Who acts.

    Attributes:
        kind: how it is known.
        name: unique among its kind.
        certificate: that it showed, None for other kinds.
        rights: what it may do.
        id: that the store knows it by, None where it is not kept there.
        factors: how a person proved who they are, `password`, `totp`, `passkey`, `recovery`, `oidc`; empty for others.
        must_enrol: whether a person has to add a second factor before anything else.
        proved_at: when a person last proved who they are, None for others.
        fresh_until: until when that is enough for what is sensitive, None for others.
        session: handle of the session, None without one; no secret.
        rate: requests that it may make (`quotas`), as its key or certificate tells; None where that tells nothing.
        quota: images that it may ask about, likewise.
        owner_id: person whom a key belongs to, None for a service's and for other kinds.
        secret: digest of what a key showed, so that what stays open ends with it; None for others. Not told, and not compared.
    """

    kind: PrincipalKind
    name: str
    certificate: Certificate | None = None
    rights: Rights = NO_RIGHTS
    id: str | None = None
    factors: tuple[str, ...] = ()
    must_enrol: bool = False
    proved_at: datetime | None = None
    fresh_until: datetime | None = None
    session: str | None = None
    rate: str | None = None
    quota: str | None = None
    owner_id: str | None = None
    secret: bytes | None = field(default=None, repr=False, compare=False)

    def told(self) -> str:
        """Returns the principal as a record tells it: `loopback`, `person:ada`, `certificate:CN=camera-1`."""
        alone = self.kind in (PrincipalKind.LOOPBACK, PrincipalKind.NOBODY)
        return self.kind.value if alone else f"{self.kind.value}:{self.name}"

    @property
    def is_person(self) -> bool:
        """Whether it is somebody who signed in."""
        return self.kind is PrincipalKind.PERSON

    def may(self, action: Action, model: str | None = None) -> bool:
        """Whether it is allowed to; a person who has yet to add a second factor is allowed nothing."""
        return not self.must_enrol and self.rights.allows(action, model)

    def require(self, action: Action, model: str | None = None, *, now: datetime | None = None) -> None:
        """Lets pass who is allowed to.

        Args:
            action: what is to be done.
            model: to which; None for an action that concerns none.
            now: time; given where the action is sensitive, so that what a person proved may be too old.

        Raises:
            ForbiddenError: it is not allowed to.
            StepUpError: it is, but has to prove again who it is.
        """
        if not self.may(action, model):
            raise ForbiddenError(
                "this is not allowed to you",
                where=model,
                expected=action.value,
                got=self.told(),
                hint="Add a second factor first." if self.must_enrol else None,
            )
        if action.is_sensitive and self.is_person and now is not None and not self.is_fresh(now):
            raise StepUpError("prove again who you are", expected=action.value, got=self.told())

    def is_fresh(self, now: datetime) -> bool:
        """Whether a person proved who they are a short enough while ago; others prove it with each request."""
        return not self.is_person or (self.fresh_until is not None and now < self.fresh_until)


LOOPBACK = Principal(PrincipalKind.LOOPBACK, "this machine", rights=OPEN_RIGHTS)
"""Anyone who reaches a server that listens on this machine alone, and that knows nobody yet."""

NOBODY = Principal(PrincipalKind.NOBODY, "nobody")
"""Who asks without saying who they are."""

SERVER = Principal(PrincipalKind.SERVER, "this server", rights=SERVER_RIGHTS)
"""The server itself, on behalf of whoever started it."""


def certificate_principal(certificate: Certificate) -> Principal:
    """Returns who shows a certificate: its subject, else its first alternative name, else its digest; without rights."""
    name = certificate.subject or next(iter(certificate.alternative_names), f"sha256:{certificate.sha256}")
    return Principal(PrincipalKind.CERTIFICATE, name, certificate)
