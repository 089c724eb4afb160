# SPDX-License-Identifier: Apache-2.0
"""What the options of `serve` make of access."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipsight.access.settings import OpenIdSettings
from shipsight.cli.serve_access import open_id_settings, read_access


def provider_of(folder: Path, *, step_up_minutes: float, without_auth_time: bool = False) -> OpenIdSettings:
    given = open_id_settings(
        "https://login.example", "shipsight", None, None, None, None, without_auth_time=without_auth_time
    )
    access = read_access(
        host="127.0.0.1", database=str(folder / "access.db"), secrets_key=None, public_url=None, require_access=False,
        behind=None, uds=None, proxy_peers=None, proxy_secret_file=None, proxy_user_header=None, openid=given,
        idle_minutes=30, session_hours=12, step_up_minutes=step_up_minutes,
    )  # fmt: skip
    assert access.settings is not None
    assert access.settings.fresh_s == step_up_minutes * 60
    assert access.settings.openid is not None
    return access.settings.openid


@pytest.mark.parametrize(("minutes", "expected"), [(1, 60), (0.5, 30), (5, 300), (60, 300)])
def test_provider_is_asked_for_a_proof_that_is_fresh_here(tmp_path: Path, minutes: float, expected: float) -> None:
    """ASVS 7.5.3: never an older one than five minutes."""
    assert provider_of(tmp_path, step_up_minutes=minutes).max_age_s == expected


def test_provider_that_cannot_tell_is_asked_for_none(tmp_path: Path) -> None:
    assert provider_of(tmp_path, step_up_minutes=1, without_auth_time=True).max_age_s is None
