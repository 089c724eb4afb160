# SPDX-License-Identifier: Apache-2.0
"""The tiny models live with the conformance suites."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))
