# SPDX-License-Identifier: Apache-2.0
"""Grants of people and groups over HTTP, and how long keys live there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.serve.gated import Answered, Gated, Headers, gated

from shipsight.access import SERVER
from shipsight.access.keys import KEY_LIVES


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    with gated(tmp_path_factory.mktemp("grants")) as made:
        yield made


@pytest.fixture(scope="module")
def ada(app: Gated) -> Headers:
    return app.person("ada", "admin")


def ask(app: Gated, who: Headers, method: str, path: str, body: object = None) -> Answered:
    told = b"" if body is None else json.dumps(body).encode()
    headers = {**who, **({"content-type": "application/json"} if told else {})}
    return asyncio.run(app.ask(method, f"/v1/access/{path}", headers, told))


def error_of(answered: Answered) -> tuple[int, str]:
    return answered.status, answered.json()["error"]["code"]


@pytest.mark.parametrize("path", ["users/bob/grants", "groups/crew/grants"])
def test_what_somebody_else_changed_meanwhile_is_not_undone(app: Gated, ada: Headers, path: str) -> None:
    """ASVS 2.3.4."""
    if path.startswith("users"):
        app.access.directory.add_user(SERVER, "bob")
    assert ask(app, ada, "PUT", path, {"grants": ["viewer", "deployer@a-*"], "before": []}).status == 200
    assert ask(app, ada, "PUT", path, {"grants": ["viewer"], "before": ["deployer@a-*", "viewer"]}).status == 200
    late = ask(app, ada, "PUT", path, {"grants": ["viewer", "predictor"], "before": ["viewer", "deployer@a-*"]})
    assert error_of(late) == (409, "conflict")
    assert late.json()["error"]["got"] == "viewer"
    assert ask(app, ada, "PUT", path, {"grants": [], "before": ["viewer@../x"]}).status == 400
    assert ask(app, ada, "PUT", path, {"grants": ["predictor"]}).status == 200


@pytest.mark.parametrize("name", ["/team-a/operators", "a/b/c", "grants", "a/grants"])
def test_group_whose_name_is_a_path_holds_grants(app: Gated, ada: Headers, name: str) -> None:
    """Keycloak tells full paths."""
    told = ask(app, ada, "PUT", f"groups/{name}/grants", {"grants": ["operator@team-a-*", "viewer"], "before": []})
    assert (told.status, told.json()) == (200, {"group": name, "grants": ["operator@team-a-*", "viewer"]})
    groups = ask(app, ada, "GET", "groups").json()["groups"]
    assert {"name": name, "grants": ["operator@team-a-*", "viewer"]} in groups
    assert ask(app, ada, "PUT", f"groups/{name}/grants", {"grants": []}).status == 200
    assert name not in [one["name"] for one in ask(app, ada, "GET", "groups").json()["groups"]]


def test_groups_are_told_to_who_may_read_access(app: Gated) -> None:
    """ASVS 8.2.1."""
    assert ask(app, app.person("alan", "auditor"), "GET", "groups").status == 200
    assert ask(app, app.person("dora", "deployer"), "GET", "groups").status == 403


@pytest.mark.parametrize(
    ("told", "lives"),
    [({}, KEY_LIVES), ({"expires_at": None}, KEY_LIVES), ({"expires_at": "never"}, None)],
    ids=["absent", "null", "never"],
)
@pytest.mark.parametrize("owner", [None, "me"])
def test_key_ends_unless_that_is_said_otherwise(
    app: Gated, owner: str | None, told: dict[str, Any], lives: timedelta | None
) -> None:
    """ASVS 13.3.4."""
    name = f"person-{owner}-{len(told)}-{lives is None}".lower()
    grants = ["admin", "viewer"]
    body = {"name": "ci", "grants": ["viewer"], "owner": owner, **told}
    made = ask(app, app.person(name, *grants), "POST", "keys", body)
    assert made.status == 201
    ends = made.json()["key"]["expires_at"]
    if lives is None:
        assert ends is None
    else:
        left = datetime.fromisoformat(ends) - app.access.now()
        assert lives - timedelta(minutes=5) < left <= lives
    assert lives is None or lives == timedelta(days=365)


@pytest.mark.parametrize("end", ["Never", "", "forever", 0])
def test_end_that_is_none_is_refused(app: Gated, ada: Headers, end: object) -> None:
    assert ask(app, ada, "POST", "keys", {"name": "ci", "grants": ["viewer"], "expires_at": end}).status == 400


def test_description_tells_that_never_may_stand_for_a_time(app: Gated) -> None:
    described = asyncio.run(app.ask("GET", "/openapi.json", app.key("reader", "viewer"))).json()["paths"]
    body = described["/v1/access/keys"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    either = body["properties"]["expires_at"]["anyOf"]
    assert either[0]["format"] == "date-time"
    assert either[1] == {"enum": ["never", None]}
    assert set(described["/v1/access/groups/{group}/grants"]["put"]["responses"]) >= {"200", "409"}
