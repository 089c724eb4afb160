# SPDX-License-Identifier: Apache-2.0
"""Who asks, and what they may do. Pure domain: it answers no request, and knows no framework that does.

One thing is asked over HTTP from here, the operator's provider of OpenID Connect (`provider`, by way of `fetching`), since what a token is
believed for hangs on keys that are fetched in the same act (docs/decisions/0010).
`principal` and `permissions` are light, and all that a server without users needs; `store` and what stands on it are imported
by those that have some.
"""

from shipsight.access.events import Event, EventKind, EventSink, LoggedEvents, Outcome
from shipsight.access.permissions import (
    AUDIT_ACTIONS,
    NO_RIGHTS,
    OPEN_RIGHTS,
    ROLES,
    SERVER_RIGHTS,
    Action,
    Grant,
    Rights,
    Role,
)
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
    "AUDIT_ACTIONS",
    "LOOPBACK",
    "NOBODY",
    "NO_RIGHTS",
    "OPEN_RIGHTS",
    "ROLES",
    "SERVER",
    "SERVER_RIGHTS",
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
