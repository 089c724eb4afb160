# SPDX-License-Identifier: Apache-2.0
"""A small bundle and its parts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.model.small_bundle import CARD, FILES, VARIANTS, make_bundle

from shipsight.model import Bundle, Card, Variant


@pytest.fixture
def card() -> Card:
    return CARD


@pytest.fixture
def variants() -> tuple[Variant, ...]:
    return VARIANTS


@pytest.fixture
def files() -> dict[str, bytes | Path]:
    return dict(FILES)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "cells.bundle")
