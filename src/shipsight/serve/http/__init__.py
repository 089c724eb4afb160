# SPDX-License-Identifier: Apache-2.0
"""HTTP: the app and one file a protocol."""

from shipsight.serve.http.app import build_app

__all__ = ["build_app"]
