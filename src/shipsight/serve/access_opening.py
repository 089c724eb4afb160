# SPDX-License-Identifier: Apache-2.0
"""Access to a server is opened: once by whoever starts it, which checks the rules of starting, then by each serving process.

A server that other machines reach answers only with TLS and an administrator, or behind a platform that the operator named.
Where nobody is known, a code is made by which the first administrator sets a password. Imports nothing of identities
where there are none. Stable.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass

from shipsight.access import EventSink
from shipsight.errors import UsageError
from shipsight.serve.gate import Gate
from shipsight.serve.options import ServeOptions
from shipsight.serve.tls import read_server_certificate

__all__ = ["FirstLook", "first_look", "open_gate", "origin_of"]

_SETUP_S = 3600.0


@dataclass(frozen=True)
class FirstLook:
    """What whoever starts a server tells people.

    Attributes:
        is_open: whether anyone on this machine may ask anything.
        setup_code: makes the first administrator, once and within an hour; None where somebody is known.
        setup_url: page that takes it.
    """

    is_open: bool
    setup_code: str | None
    setup_url: str


def origin_of(options: ServeOptions, listener: socket.socket) -> str:
    """Returns the origin that browsers see where no `--public-url` says so.

    On this machine that is `localhost`: a passkey belongs to a name, never to an address.
    """
    bound = listener.getsockname()
    if not isinstance(bound, tuple):
        return "http://localhost"
    if options.tls is not None:
        name = read_server_certificate(options.tls).name_for("localhost" if options.is_local else options.host)
    else:
        name = "localhost" if options.is_local else options.host
    return f"http{'s' if options.tls is not None else ''}://{_in_url(name)}:{bound[1]}"


def _in_url(name: str) -> str:
    try:
        return f"[{name}]" if ipaddress.ip_address(name).version == 6 else name
    except ValueError:
        return name


def first_look(options: ServeOptions, origin: str, *, events: EventSink | None = None) -> FirstLook:
    """Checks who may ask before anything is started, and brings the database to what this version needs.

    Args:
        options: of the server.
        origin: that browsers see.
        events: takes what happens; None for the log.

    Raises:
        UsageError: other machines reach it, and nobody is an administrator.
        EnvironmentLackError: the database or its key cannot be used.
    """
    options.access.proxy_rules()
    settings = options.access.settings
    is_closed = options.access.is_required or options.access.behind is not None or not options.is_local
    if settings is None:
        return FirstLook(not is_closed, None, origin)
    from shipsight.access.service import Access

    with Access.open(settings, origin=origin, events=events) as access:
        directory = access.directory
        if not options.is_local and options.access.behind is None and not directory.has_administrator():
            raise UsageError(
                "a server that other machines reach needs an administrator",
                where=f"--host {options.host}",
                expected="an administrator in --database",
                hint="Run: shipsight user add NAME --grant admin",
            )
        is_known = directory.knows_anyone()
        code = None if is_known else directory.setup_code(lives_s=_SETUP_S)
        return FirstLook(not is_known and not is_closed, code, f"{access.origin}/invitation")


def open_gate(
    options: ServeOptions, listener: socket.socket, *, events: EventSink | None = None
) -> tuple[Gate, Callable[[], None]]:
    """Returns the gate of a serving process, and what closes it.

    Args:
        options: of the server.
        listener: its socket.
        events: takes what is decided; None for the log.

    Raises:
        UsageError, EnvironmentLackError: the database or its key cannot be used.
    """
    rules = options.access.gate_rules(is_local=options.is_local)
    origin = origin_of(options, listener)
    if options.access.settings is None:
        gate = Gate(rules, events=events, origin=origin)
        return gate, gate.close
    from shipsight.access.authenticate import Authenticator
    from shipsight.access.service import Access

    access = Access.open(options.access.settings, origin=origin, events=events, migrate=False)
    authenticator = Authenticator(access)
    gate = Gate(
        rules,
        access=access,
        authenticator=authenticator,
        events=access.events,
        now=access.now,
        origin=access.origin,
    )

    def close() -> None:
        gate.close()
        authenticator.close()
        access.close()

    return gate, close
