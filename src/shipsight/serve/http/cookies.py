# SPDX-License-Identifier: Apache-2.0
"""The cookie of a session: for this host alone, hidden from scripts, never sent by another site's page. Private to the room.

Sources: OWASP ASVS 5.0, 3.3.1 to 3.3.4; RFC 6265bis, 4.1.3.2.
"""

from __future__ import annotations

from starlette.responses import Response

__all__ = ["clear_session_cookie", "session_cookie_name", "set_session_cookie"]

_NAME = "shipsight"


def session_cookie_name(origin: str) -> str:
    """Returns the cookie's name: `__Host-shipsight` where browsers speak TLS with the server, else `shipsight`.

    Args:
        origin: that browsers see, `Gate.origin`.
    """
    return f"__Host-{_NAME}" if origin.startswith("https:") else _NAME


def set_session_cookie(response: Response, token: str, *, origin: str) -> None:
    """Gives the browser a session; it forgets it when it is closed, the server when the session ends.

    Args:
        response: takes the cookie.
        token: of the session, `Session.token`.
        origin: that browsers see, `Gate.origin`.
    """
    _put(response, token, origin, "")


def clear_session_cookie(response: Response, *, origin: str) -> None:
    """Takes it away."""
    _put(response, "", origin, "; Max-Age=0")


def _put(response: Response, value: str, origin: str, more: str) -> None:
    secure = "; Secure" if origin.startswith("https:") else ""
    text = f"{session_cookie_name(origin)}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{more}"
    response.headers.append("set-cookie", text)
