# SPDX-License-Identifier: Apache-2.0
"""Steps on the ways in, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.access.people import PASSWORD, People

from shipsight.access.store.tables import passkeys as passkey_rows
from shipsight.errors import (
    AuthenticationError,
)


def pending(people: People, name: str = "ada") -> str:
    step = people.sign_in.begin(name, PASSWORD)
    assert step.kind == "second-factor"
    assert step.session is None
    assert step.pending is not None
    return step.pending


def put_passkey(people: People, user_id: str) -> dict[str, Any]:
    """A passkey that somebody has, as a row, and what it answers."""
    with people.database.write() as connection:
        connection.execute(
            passkey_rows.insert().values(
                id=f"p-{user_id}",
                user_id=user_id,
                credential_id=user_id.encode(),
                public_key=b"x",
                sign_count=0,
                is_backed_up=False,
                name="a key",
                transports=[],
                created_at=people.clock(),
            )
        )
    return {"user_id": user_id, "verified": True}


def refusal(act: Callable[[], object]) -> AuthenticationError:
    with pytest.raises(AuthenticationError) as caught:
        act()
    return caught.value
