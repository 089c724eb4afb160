# SPDX-License-Identifier: Apache-2.0
"""Talking to a server from Python. Needs nothing but the standard library."""

from shipsight.client.control import ServerControl

__all__ = ["ServerControl"]
