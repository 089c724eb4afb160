# SPDX-License-Identifier: Apache-2.0
"""Who asks, told from the connection alone: a header that names a client is never believed. Private to the room."""

from __future__ import annotations

from starlette.types import Scope

from shipsight.access import LOOPBACK, Certificate, Principal, certificate_principal

__all__ = ["CLIENT_CERTIFICATE", "principal_of"]

CLIENT_CERTIFICATE = "shipsight.client_certificate"
"""The extension of ASGI's scope that holds the `Certificate` of a TLS connection, None where the client showed none."""


def principal_of(scope: Scope) -> Principal:
    """Returns who asks: whose certificate the connection showed, else whoever is on this machine."""
    certificate: Certificate | None = scope.get("extensions", {}).get(CLIENT_CERTIFICATE)
    return LOOPBACK if certificate is None else certificate_principal(certificate)
