# SPDX-License-Identifier: Apache-2.0
"""Sessions as answers tell them, one's own and those of others. Private to the room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from shipsight.serve.http.access_edge import Asked, told_time
from shipsight.serve.http.answers import json_answer

__all__ = ["ENDED", "SESSIONS", "tell_sessions"]

SESSIONS: Mapping[str, Any] = {
    "type": "object",
    "properties": {"sessions": {"type": "array", "items": {"type": "object"}}},
    "required": ["sessions"],
}
ENDED: Mapping[str, Any] = {
    "type": "object",
    "properties": {"ended": {"type": "integer", "minimum": 0}},
    "required": ["ended"],
}


def tell_sessions(asked: Asked, user_id: str) -> Response:
    """Lists the sessions of a person that have not ended."""
    return json_answer(
        {
            "sessions": [
                {
                    "id": one.handle,
                    "is_this": one.handle == asked.principal.session,
                    "created_at": told_time(one.created_at),
                    "seen_at": told_time(one.seen_at),
                    "expires_at": told_time(one.expires_at),
                    "factors": list(one.factors),
                    "address": one.address,
                    "agent": one.agent,
                }
                for one in asked.access.sessions.list(user_id)
            ]
        }
    )
