# SPDX-License-Identifier: Apache-2.0
"""Who asks: principals. Pure domain, no HTTP."""

from shipsight.access.principal import LOOPBACK, SERVER, Certificate, Principal, PrincipalKind, certificate_principal

__all__ = ["LOOPBACK", "SERVER", "Certificate", "Principal", "PrincipalKind", "certificate_principal"]
