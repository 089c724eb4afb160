# SPDX-License-Identifier: Apache-2.0
"""Which entries are of one sort for the rules: administration, sensitive acts, failures; and what grants give. Private to the room."""

from __future__ import annotations

from collections.abc import Iterable

from shipsight.access.events import Event, EventKind, Outcome
from shipsight.access.permissions import ROLES, Action

__all__ = [
    "ADMINISTRATION",
    "FACTORS",
    "GIVING",
    "SENSITIVE",
    "Roles",
    "failed_account",
    "grants_after",
    "grants_before",
    "texts",
]

ADMINISTRATION = frozenset(
    {
        EventKind.USER_ADDED,
        EventKind.USER_CHANGED,
        EventKind.USER_REMOVED,
        EventKind.INVITED,
        EventKind.GRANTS_CHANGED,
        EventKind.ROLE_CHANGED,
        EventKind.CERTIFICATE_ADDED,
        EventKind.CERTIFICATE_REMOVED,
        EventKind.RESTORED,
        EventKind.BACKED_UP,
        EventKind.AUDIT_KEY_ADDED,
        EventKind.AUDIT_KEY_RETIRED,
        EventKind.AUDIT_ERASED,
        EventKind.AUDIT_ARCHIVED,
    }
)
"""What only who manages access does; keys are not among it, since people make and end their own."""
SENSITIVE = ADMINISTRATION | {EventKind.KEY_RELEASED, EventKind.EXPORTED}
"""What cannot be taken back, or gives somebody more."""
GIVING = frozenset({EventKind.USER_ADDED, EventKind.GRANTS_CHANGED, EventKind.KEY_ADDED, EventKind.CERTIFICATE_ADDED})
"""What gives rights."""
FACTORS = frozenset({EventKind.FACTOR_REMOVED, EventKind.INVITED})
"""With which an administrator lets somebody prove anew who they are."""
_STRONG = frozenset(
    {
        Action.ACCESS_CHANGE,
        Action.DATA_EXPORT,
        Action.KEYS_RELEASE,
        Action.LABELS_READ,
        Action.AUDIT_READ,
        Action.AUDIT_REVIEW,
    }
)
_PACES = frozenset({"password", "code"})


def texts(value: object) -> tuple[str, ...]:
    """Returns a detail that is a list of texts; nothing where it is none."""
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list | tuple) else ()


def grants_before(event: Event) -> tuple[str, ...]:
    """Returns grants that somebody held before an event that gives or takes some."""
    return texts(event.details.get("before"))


def grants_after(event: Event) -> tuple[str, ...]:
    """Returns grants that they hold afterwards."""
    return texts(event.details.get("after" if event.kind is EventKind.GRANTS_CHANGED else "grants"))


def failed_account(event: Event) -> str | None:
    """Returns whose sign-in failed, None for anything else: also one that came too early after others."""
    is_try = event.kind in (EventKind.SIGN_IN, EventKind.STEP_UP) and event.outcome is Outcome.REFUSED
    is_slowed = event.kind is EventKind.LIMITED and event.factor in _PACES
    return event.actor if is_try or is_slowed else None


class Roles:
    """What roles allow, as far as the log tells: ours, and those that were applied."""

    def __init__(self) -> None:
        self._strong = {name: frozenset(role.actions & _STRONG) for name, role in ROLES.items()}

    def see(self, event: Event) -> None:
        """Learns of a role that changed."""
        name = (event.subject or "").removeprefix("role:")
        if event.kind is EventKind.ROLE_CHANGED and name not in ROLES:
            actions = set(texts(event.details.get("after")))
            self._strong[name] = frozenset(one for one in _STRONG if one.value in actions)

    def strong(self, grants: Iterable[str]) -> frozenset[str]:
        """Returns those actions that grants allow which give power over others, data or keys; what an unknown role allows is not known."""
        return frozenset(
            action.value for one in grants for action in self._strong.get(one.partition("@")[0], frozenset())
        )
