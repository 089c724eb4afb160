# SPDX-License-Identifier: Apache-2.0
"""Watching a model in production: recordings of what it was asked and answered, by policy. Knows no HTTP. Stable."""

__all__: list[str] = []
