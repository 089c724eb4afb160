# SPDX-License-Identifier: Apache-2.0
"""HTTP: the server, the app, and one file a protocol."""

from shipsight.serve.http.app import build_app
from shipsight.serve.http.server import HttpServer, make_server

__all__ = ["HttpServer", "build_app", "make_server"]
