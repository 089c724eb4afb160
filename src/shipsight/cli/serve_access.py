# SPDX-License-Identifier: Apache-2.0
"""The options of `serve` that say who may ask, and what is told of it at start. Private to `cli`."""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shipsight.cli.access_place import DATABASE_VARIABLE, default_database, default_secrets_key
from shipsight.errors import UsageError

if TYPE_CHECKING:
    from shipsight.access.settings import AccessSettings, OpenIdSettings
    from shipsight.serve import AccessOptions
    from shipsight.serve.access_opening import FirstLook

__all__ = ["open_id_settings", "read_access", "tell_first_look"]

_log = logging.getLogger("shipsight.serve")


def open_id_settings(
    issuer: str | None,
    client_id: str | None,
    secret_file: Path | None,
    groups_claim: str | None,
    acr: str | None,
    ca_file: Path | None,
    *,
    scopes: str | None = None,
    without_auth_time: bool = False,
) -> OpenIdSettings | None:
    """Returns the provider that people may sign in with, None where no option names one.

    Raises:
        UsageError: one option needs another.
    """
    given = {
        "--oidc-client-id": client_id,
        "--oidc-secret-file": secret_file,
        "--oidc-groups-claim": groups_claim,
        "--oidc-acr": acr,
        "--oidc-ca": ca_file,
        "--oidc-scopes": scopes,
        "--oidc-without-auth-time": without_auth_time or None,
    }
    if issuer is None:
        alone = [option for option, value in given.items() if value is not None]
        if alone:
            raise UsageError("needs --oidc-issuer", where=", ".join(alone))
        return None
    if client_id is None:
        raise UsageError("needs --oidc-client-id", where="--oidc-issuer", got=issuer)
    from shipsight.access.settings import OpenIdSettings

    return OpenIdSettings(
        issuer,
        client_id,
        secret_file,
        groups_claim or OpenIdSettings.groups_claim,
        tuple(acr.split(",")) if acr else (),
        ca_file=ca_file,
        scopes=OpenIdSettings.scopes if scopes is None else tuple(scopes.split(",")),
        max_age_s=None if without_auth_time else OpenIdSettings.max_age_s,
    )


def read_access(
    *,
    host: str,
    database: str | None,
    secrets_key: Path | None,
    public_url: str | None,
    require_access: bool,
    behind: str | None,
    uds: Path | None,
    proxy_peers: str | None,
    proxy_secret_file: Path | None,
    proxy_user_header: str | None,
    openid: OpenIdSettings | None,
    idle_minutes: float,
    session_hours: float,
    step_up_minutes: float,
) -> AccessOptions:
    """Returns who may ask, as the options of the command line have it.

    Identities are kept where an option or the environment names their database, where one is at its usual place, and where
    something asks for them; else nothing of them is even imported.

    Raises:
        UsageError: an option does not fit.
    """
    from shipsight.serve import AccessOptions, Behind

    kinds = {one.value: one for one in Behind}
    if behind is not None and behind not in kinds:
        raise UsageError("nothing of that name", where="--behind", expected=", ".join(kinds), got=behind)
    is_asked = require_access or openid is not None or public_url is not None or _is_reached(host, behind, uds)
    place = _database(database, is_asked=is_asked)
    settings: AccessSettings | None = None
    if place is not None:
        from shipsight.access.settings import AccessSettings

        if openid is not None and openid.max_age_s is not None:
            # No older a proof than the server itself takes for fresh.
            openid = replace(openid, max_age_s=min(openid.max_age_s, step_up_minutes * 60))
        settings = AccessSettings(
            database=place,
            secrets_key=(secrets_key or default_secrets_key(place)).absolute(),
            public_url=public_url,
            idle_s=idle_minutes * 60,
            absolute_s=session_hours * 3600,
            fresh_s=step_up_minutes * 60,
            openid=openid,
        )
    return AccessOptions(
        settings=settings,
        is_required=require_access,
        behind=None if behind is None else kinds[behind],
        uds=None if uds is None else uds.absolute(),
        proxy_peers=tuple(one.strip() for one in (proxy_peers or "").split(",") if one.strip()),
        proxy_secret_file=None if proxy_secret_file is None else proxy_secret_file.absolute(),
        proxy_user_header=proxy_user_header,
    )


def _is_reached(host: str, behind: str | None, uds: Path | None) -> bool:
    """Tells whether other machines reach the server, with nobody in front."""
    if behind is not None or uds is not None or host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # refused elsewhere, by its name


def _database(given: str | None, *, is_asked: bool) -> str | None:
    """Returns the database, None where nothing asks for one and none is there."""
    place = given or os.environ.get(DATABASE_VARIABLE)
    if place is None:
        try:
            place = default_database()
        except UsageError:
            if is_asked:
                raise
            return None
        if not is_asked and not Path(place).exists():
            return None
    return place if "://" in place else str(Path(place).absolute())


def tell_first_look(
    first: FirstLook, *, tell: Callable[[dict[str, Any]], None] | None, show: Callable[[str], None]
) -> None:
    """Tells people who may ask.

    Args:
        first: what was found.
        tell: prints for machines, None for people.
        show: prints a line for people.
    """
    from shipsight.serve.logs import fields

    if first.is_open:
        text = "nobody is known yet: whoever reaches this server on this machine may ask and change anything"
        _log.warning(text, extra=fields(code="access-open"))
    if first.setup_code is None:
        return
    if tell is not None:
        tell({"event": "setup", "url": first.setup_url, "code": first.setup_code})
        return
    show(f"  set up    {first.setup_url}   code {first.setup_code}   (once, within an hour)")
