# SPDX-License-Identifier: Apache-2.0
"""A principal: who acts. Every handler of a server takes one as an argument. Stable."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["LOOPBACK", "SERVER", "Principal", "PrincipalKind"]


class PrincipalKind(StrEnum):
    """What kind of principal acts."""

    LOOPBACK = "loopback"
    SERVER = "server"


@dataclass(frozen=True)
class Principal:
    """Who acts.

    Attributes:
        kind: how it is known.
        name: unique among its kind.
    """

    kind: PrincipalKind
    name: str


LOOPBACK = Principal(PrincipalKind.LOOPBACK, "this machine")
"""Anyone who reaches a server that listens on this machine alone."""

SERVER = Principal(PrincipalKind.SERVER, "this server")
"""The server itself, on behalf of whoever started it."""
