# SPDX-License-Identifier: Apache-2.0
"""Where speed is measured: one file an examination; all input, output and clocks of `doctor speed` are here. Private to the room."""

from __future__ import annotations

__all__: list[str] = []
