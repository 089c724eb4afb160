# SPDX-License-Identifier: Apache-2.0
"""What a route or method of gRPC needs of whoever asks; each has an entry, and a test refuses one without. Stable."""

from __future__ import annotations

from dataclasses import dataclass

from shipsight.access import Action

__all__ = ["ENROLLING", "HANDLER", "HEALTH", "KNOWN", "PUBLIC", "Needs"]

HANDLER = "\x00handler"


@dataclass(frozen=True)
class Needs:
    """What is needed.

    Attributes:
        action: that must be allowed; None where being known is enough.
        model: parameter of the path that names the model; None where the action concerns none; `HANDLER` where the handler
            learns the model from the request, and requires the action of the principal itself: before it is called, the
            action must be allowed on some model at all.
        is_public: whether anyone may ask.
        may_enrol: whether somebody may ask who has yet to add a second factor.
        is_health: whether a credential that is not accepted is passed over: a probe must not fail for it.
    """

    action: Action | None = None
    model: str | None = None
    is_public: bool = False
    may_enrol: bool = False
    is_health: bool = False


PUBLIC = Needs(is_public=True)
"""Anyone, known or not; who shows a credential that is not accepted is refused."""

HEALTH = Needs(is_public=True, is_health=True)
"""Anyone, whatever they show."""

KNOWN = Needs()
"""Anyone who is known."""

ENROLLING = Needs(may_enrol=True)
"""Anyone who is known, also before they have added a second factor."""
