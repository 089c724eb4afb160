# SPDX-License-Identifier: Apache-2.0
"""How a client reaches a server: checked once, before anything is sent. Private to the room."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shipsight.client.address import Address, trust
from shipsight.client.calls import check_headers
from shipsight.client.sealing import Sealing
from shipsight.client.transport import check_proxy
from shipsight.errors import UsageError

__all__ = ["Way"]


@dataclass(frozen=True)
class Way:
    """A way to a server.

    Attributes:
        address: of the server.
        headers: of every request; a key stands in them.
        context: of TLS, None where it is not spoken.
        sealing: how predictions are sealed, None where they are not.
    """

    address: Address
    headers: Mapping[str, str] = field(repr=False)
    context: ssl.SSLContext | None
    sealing: Sealing | None

    @classmethod
    def open(
        cls,
        url: str,
        *,
        key: str | None,
        certificate: tuple[str | Path, str | Path] | None,
        ca: str | Path | None,
        seal: str | None,
        trust_first: bool,
        headers: Mapping[str, str],
        proxy: str | None,
    ) -> Way:
        """Checks what a client was given (`client.Client`).

        Raises:
            UsageError: something does not fit.
            SealingIdentityError: the sealing identity is none.
        """
        address = Address.read(url)
        if key is not None:
            address.check_secret(where="url")
        if ca is not None or certificate is not None:
            address.check_certificates(where="ca" if ca is not None else "certificate")
        check_proxy(proxy, address)
        if seal is None and trust_first:
            raise UsageError("nothing is sealed", where="trust_first", expected='seal="required"')
        return cls(
            address,
            check_headers(headers, key),
            trust(ca, certificate, where="ca") if address.is_tls else None,
            None if seal is None else Sealing(seal, trust_first=trust_first),
        )
