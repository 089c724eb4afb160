# SPDX-License-Identifier: Apache-2.0
"""Who asks: principals. Pure domain, no HTTP."""

from shipsight.access.principal import LOOPBACK, SERVER, Principal, PrincipalKind

__all__ = ["LOOPBACK", "SERVER", "Principal", "PrincipalKind"]
