# SPDX-License-Identifier: Apache-2.0
"""What a server is told of access: where identities are kept, how long sessions live, who else vouches for people. Stable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shipsight.errors import UsageError

__all__ = ["DEVICE_LIVES_S", "AccessSettings", "OpenIdSettings"]

DEVICE_LIVES_S = 365 * 86400
"""Seconds for which a browser that somebody signed in with is known, here and in its cookie."""


@dataclass(frozen=True)
class OpenIdSettings:
    """A provider of OpenID Connect that people sign in with.

    Attributes:
        issuer: its URL; the rest is discovered below it.
        client_id: that it knows this server by.
        secret_file: holds the client's secret; None for a public client, which PKCE (proof key for code exchange) protects alone.
        groups_claim: claim of the ID token that lists groups.
        required_acr: values of `acr` that count as two factors; empty where `amr` tells (`mfa`, or two methods of different
            kinds: what one knows, has, is).
        scopes: asked for beside `openid`.
        ca_file: authorities that its certificate is checked by, in PEM; None for those of the system and of Mozilla.
        max_age_s: seconds within which the provider must have asked the person to prove who they are; a sign-in counts as a
            fresh proof, so this is as long as one does. None where the provider cannot tell (`auth_time`).
    """

    issuer: str
    client_id: str
    secret_file: Path | None = None
    groups_claim: str = "groups"
    required_acr: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ("profile",)
    ca_file: Path | None = None
    max_age_s: float | None = 300.0

    def __post_init__(self) -> None:
        if self.max_age_s is not None and not self.max_age_s >= 0:
            raise UsageError("out of range", where="openid.max_age_s", expected="0 or more", got=self.max_age_s)


@dataclass(frozen=True)
class AccessSettings:
    """Access to one server.

    Attributes:
        database: path of SQLite's file, or `postgresql://...`.
        secrets_key: file of the key that secrets in the database are encrypted with; made where it is missing.
        public_url: scheme, host and port that people's browsers see; None for the address that is listened on.
        idle_s: seconds without a request after which a session ends; half an hour, as NIST SP 800-63B-3, 4.2.3 has it
            (ASVS 7.3.1 asks for a limit, and names no number).
        absolute_s: seconds after which a session ends in any case; half a day, from the same place.
        fresh_s: seconds for which a proof of who somebody is allows what is sensitive.
        openid: provider that people may sign in with, None for none.
    """

    database: str
    secrets_key: Path
    public_url: str | None = None
    idle_s: float = 1800.0
    absolute_s: float = 12 * 3600.0
    fresh_s: float = 300.0
    openid: OpenIdSettings | None = None

    def __post_init__(self) -> None:
        for name in ("idle_s", "absolute_s", "fresh_s"):
            if not getattr(self, name) > 0:
                raise UsageError("out of range", where=name, expected="above 0", got=getattr(self, name))
        if self.public_url is not None:
            parts = urlsplit(self.public_url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
                raise UsageError(
                    "not an origin", where="--public-url", expected="https://host[:port]", got=self.public_url
                )

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as plain values."""
        told = asdict(self)
        told["secrets_key"] = str(self.secrets_key)
        if self.openid is not None:
            for name in ("secret_file", "ca_file"):
                path = told["openid"][name]
                told["openid"][name] = None if path is None else str(path)
        return told

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> AccessSettings:
        """Reads what `to_dict` returns, also by way of JSON."""
        openid = told["openid"]
        if openid is not None:
            openid = OpenIdSettings(
                **{
                    **openid,
                    **{
                        name: None if openid[name] is None else Path(openid[name])
                        for name in ("secret_file", "ca_file")
                    },
                    "required_acr": tuple(openid["required_acr"]),
                    "scopes": tuple(openid["scopes"]),
                }
            )
        return cls(**{**told, "secrets_key": Path(told["secrets_key"]), "openid": openid})
