# SPDX-License-Identifier: Apache-2.0
"""Who asks, and what they may do. Pure domain, no HTTP.

`principal` and `permissions` are light, and all that a server without users needs; `store` and what stands on it are imported
by those that have some.
"""

from shipsight.access.events import Event, EventKind, EventSink, LoggedEvents, Outcome
from shipsight.access.permissions import NO_RIGHTS, OPEN_RIGHTS, ROLES, Action, Grant, Rights, Role
from shipsight.access.principal import (
    LOOPBACK,
    NOBODY,
    SERVER,
    Certificate,
    Principal,
    PrincipalKind,
    certificate_principal,
)

__all__ = [
    "LOOPBACK",
    "NOBODY",
    "NO_RIGHTS",
    "OPEN_RIGHTS",
    "ROLES",
    "SERVER",
    "Action",
    "Certificate",
    "Event",
    "EventKind",
    "EventSink",
    "Grant",
    "LoggedEvents",
    "Outcome",
    "Principal",
    "PrincipalKind",
    "Rights",
    "Role",
    "certificate_principal",
]
