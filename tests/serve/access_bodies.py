# SPDX-License-Identifier: Apache-2.0
"""The routes of access, with values that fit their fields and values that do not, for tests."""

from __future__ import annotations

from typing import Any

from shipsight.serve.http.access_account import ACCOUNT_ROUTES
from shipsight.serve.http.access_administration import ADMINISTRATION_ROUTES
from shipsight.serve.http.access_edge import AccessRoute
from shipsight.serve.http.access_fields import FieldKind
from shipsight.serve.http.access_sign_in import SIGN_IN_ROUTES

ROUTES = (*SIGN_IN_ROUTES, *ACCOUNT_ROUTES, *ADMINISTRATION_ROUTES)
WITH_BODY = [one for one in ROUTES if one.method in ("POST", "PUT", "PATCH")]
WRONG: dict[FieldKind, list[Any]] = {
    FieldKind.TEXT: [7, True, ["a"], {"a": 1}, "a\0b", "a" * 1001, "\ud800"],
    FieldKind.FLAG: ["true", 1, []],
    FieldKind.NUMBER: ["1", True, [1]],
    FieldKind.TEXTS: ["viewer", [1], ["a\0b"], {"viewer": "*"}, ["viewer"] * 201],
    FieldKind.MAPPING: ["{}", [], 3],
    FieldKind.TIME: ["2030-01-01", "2030-01-01T00:00:00", "tomorrow", 3, "9999-99-99T00:00:00Z"],
}
GOOD: dict[FieldKind, Any] = {
    FieldKind.TEXT: "text",
    FieldKind.FLAG: True,
    FieldKind.NUMBER: 60,
    FieldKind.TEXTS: ["viewer"],
    FieldKind.MAPPING: {},
    FieldKind.TIME: "2030-01-01T00:00:00Z",
}


def told_route(one: AccessRoute) -> str:
    return f"{one.method} {one.path}"


def path_of(one: AccessRoute) -> str:
    for name in ("user", "role", "key", "certificate", "session", "passkey", "group"):
        one_path = one.path.replace(f"{{{name}}}", "nobody").replace(f"{{{name}:path}}", "nobody")
        one = AccessRoute(one.method, one_path, one.summary, one.handler, one.needs)
    return one.path
