# SPDX-License-Identifier: Apache-2.0
"""What a build of the small network leaves."""

from __future__ import annotations

import pytest
from tests.proof.tiny_network import Built, build, make_network


@pytest.fixture(scope="session")
def built() -> Built:
    return build(make_network())
