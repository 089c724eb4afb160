# SPDX-License-Identifier: Apache-2.0
"""Who asks over gRPC: `authorization: Bearer ssk_...` or `x-api-key` in the metadata, or the connection's certificate. Private.

Sessions are for browsers, and not taken here. What stays open asks again who its client is: `Asking`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from shipsight.access import NOBODY, Certificate, Principal
from shipsight.errors import AuthenticationError, CertificateError, ForbiddenError, OverloadedError
from shipsight.serve.gate import KEY_PREFIX, Caller, Gate, Shown, several_credentials
from shipsight.serve.needs import Needs
from shipsight.serve.proxy_rules import SECRET_HEADER, ProxyRules, is_forwarding, read_user
from shipsight.serve.request_notes import note_principal
from shipsight.serve.revocation import Revocations
from shipsight.serve.tls import read_certificate

__all__ = ["Asking"]

_MOST_CHARACTERS = 512
_NO_KEY = "\x00"  # what is shown is none, and never accepted


class Asking:
    """Who asks, for as long as a call lasts.

    Args:
        context: of the call.
        gate: lets calls in.
        needs: of the method.
        route: for records.
        proxy: how the operator's own is known.
        revocations: of clients' certificates, None where none are asked for.

    Attributes:
        caller: who, with the rights that they had when they were last looked at.
    """

    def __init__(
        self,
        context: Any,  # noqa: ANN401 - gRPC brings no types along
        gate: Gate,
        needs: Needs,
        *,
        route: str,
        proxy: ProxyRules,
        revocations: Revocations | None,
    ) -> None:
        self.caller = Caller(NOBODY)
        self._context, self._gate, self._needs, self._route, self._proxy = context, gate, needs, route, proxy
        self._revocations = revocations

    @property
    def principal(self) -> Principal:
        """Who asks."""
        return self.caller.principal

    async def enter(self) -> None:
        """Finds who asks, and whether they may.

        Raises:
            AccessError: they may not.
            CertificateError: it has ended or was revoked since the client connected.
            OverloadedError: too many ask.
        """
        self.caller = Caller(NOBODY, address=_address(self._context.peer()))
        try:
            shown = self._shown()
            self.caller = Caller(NOBODY, address=shown.address, client=shown.client)
            self.caller = await self._gate.identify(shown)
        except (AuthenticationError, OverloadedError):
            if not self._needs.is_health:
                raise
        note_principal(self.principal)
        await self._gate.admit(self.caller, self._needs, {}, route=self._route)

    async def still(self) -> None:
        """Looks again at what they may do.

        Raises:
            ForbiddenError: they may not go on.
            CertificateError: their certificate was revoked.
        """
        self._check_revoked()
        principal = await self._gate.still(self.principal)
        if principal is None and self._needs.is_public:
            principal = NOBODY
        action = self._needs.action
        if principal is None or (
            action is not None and (principal.must_enrol or not principal.rights.allows_somewhere(action))
        ):
            raise ForbiddenError("this is not allowed to you any more", got=self.principal.told())
        self.caller = replace(self.caller, principal=principal)

    def _shown(self) -> Shown:
        peer = self.caller.address
        told = [(name, value) for name, value in self._context.invocation_metadata() or () if isinstance(value, str)]
        is_vouched = self._proxy.knows(peer, (value for name, value in told if name == SECRET_HEADER))
        header = (self._proxy.user_header or "").lower()
        user = read_user([value for name, value in told if name == header]) if is_vouched and header else None
        return Shown(
            key=self._key(told),
            certificate=self._certificate(),
            is_vouched=is_vouched,
            user=user,
            address=peer,
            client=peer if self._gate.rules.knows_clients(is_vouched=is_vouched) else None,
            is_forwarded=not is_vouched and any(is_forwarding(name) for name, _ in told),
        )

    def _key(self, told: list[tuple[str, str]]) -> str | None:
        found = [value for name, value in told if name == "x-api-key"]
        for name, value in told:
            if name == "authorization":
                scheme, _, key = value.partition(" ")
                found.append(key.strip() if scheme.lower() == "bearer" else _NO_KEY)
        if self._gate.rules.behind is not None:
            # What a platform puts there is for itself; ours are known by how they begin.
            found = [one for one in found if one.startswith(KEY_PREFIX)]
        if len(set(found)) > 1:
            raise several_credentials()
        return found[0][:_MOST_CHARACTERS] if found else None

    def _certificate(self) -> Certificate | None:
        shown = self._context.auth_context().get("x509_pem_cert")
        if not shown:
            return None
        certificate = read_certificate(shown[0])
        if datetime.now(UTC) > certificate.not_after:
            ended = f"{certificate.not_after:%F %T} UTC"
            raise CertificateError("the client's certificate has ended", where=certificate.subject, got=ended)
        self._check_revoked()
        return certificate

    def _check_revoked(self) -> None:
        told = self._context.auth_context()
        shown = told.get("x509_pem_cert")
        if shown and self._revocations is not None:
            self._revocations.check(shown[0], told.get("x509_pem_cert_chain", ()), datetime.now(UTC))


def _address(peer: str) -> str | None:
    """Returns the address of a peer as gRPC writes it: `ipv4:127.0.0.1:50000`, `ipv6:%5B::1%5D:50000`."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    return rest.rpartition(":")[0].strip("[]")
