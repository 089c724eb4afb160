# SPDX-License-Identifier: Apache-2.0
"""A place to keep recordings in."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.monitor.recording.recordings import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)
