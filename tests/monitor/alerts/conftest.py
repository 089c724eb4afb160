# SPDX-License-Identifier: Apache-2.0
"""An authority for receivers of alerts."""

from __future__ import annotations

import pytest
from tests.monitor.alerts.receivers import Trust, make_trust


@pytest.fixture(scope="session")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    return make_trust(tmp_path_factory.mktemp("trust") / "certificates")
