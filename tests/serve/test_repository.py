# SPDX-License-Identifier: Apache-2.0
"""A folder of bundles: what lies there is known by name and version, and loaded by name alone."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.serve.conftest import Served, rewritten

from shipsight.errors import NotFoundError, UsageError
from shipsight.model.bundle import zip_bundle
from shipsight.serve.repository import Repository, version_order

pytestmark = pytest.mark.slow  # servers that start, die and wait


@pytest.fixture
def folder(digits_bundle: Path, second_version: Path, tmp_path: Path) -> Path:
    """Versions 1 (zipped) and 2 of digits, and things that are no bundles."""
    zip_bundle(digits_bundle, tmp_path / "one.zip")
    shutil.copytree(second_version, tmp_path / "two")
    (tmp_path / "notes.txt").write_text("no bundle", encoding="ascii")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "broken.zip").write_bytes(b"PK no zip")
    return tmp_path


def test_folders_and_zips_are_known_and_anything_else_is_passed_over(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    repository = Repository(folder)
    assert [(one.name, one.version, one.path.name) for one in repository.list()] == [
        ("digits", "1", "one.zip"),
        ("digits", "2", "two"),
    ]
    assert "broken.zip" in caplog.text
    caplog.clear()
    repository.list()
    assert caplog.text == "", "what has not changed is not told again"


def test_what_comes_and_goes_is_seen(folder: Path, digits_bundle: Path) -> None:
    repository = Repository(folder)
    assert repository.find("digits").version == "2"
    rewritten(digits_bundle, folder / "ten", version="10")
    assert repository.find("digits").version == "10"
    shutil.rmtree(folder / "ten")
    assert repository.find("digits").version == "2"
    shutil.rmtree(folder / "two")
    rewritten(digits_bundle, folder / "two", version="3")
    assert [one.version for one in repository.list()] == ["1", "3"]


def test_what_is_not_there_is_named(folder: Path) -> None:
    repository = Repository(folder)
    with pytest.raises(NotFoundError, match="no such version; expected 1, 2; got 7"):
        repository.find("digits", "7")
    with pytest.raises(NotFoundError, match="no such model; expected digits"):
        repository.find("other")
    with pytest.raises(UsageError, match="no such folder"):
        Repository(folder / "gone")


def test_two_bundles_of_one_version_are_refused(folder: Path) -> None:
    shutil.copytree(folder / "two", folder / "copy")
    with pytest.raises(UsageError, match="copy, two"):
        Repository(folder).find("digits", "2")
    assert Repository(folder).find("digits", "1").version == "1"


def test_versions_are_ordered_by_their_numbers() -> None:
    ordered = ["1", "2", "9", "10", "10.1", "10.2", "10.10", "rc1", "rc2", "rc10"]
    shuffled = random.Random(4).sample(ordered, len(ordered))
    assert sorted(shuffled, key=version_order) == ordered


def test_a_server_of_a_repository_alone_loads_by_name(start: Callable[..., Served], folder: Path, jpeg: bytes) -> None:
    server = start("--repository", folder, "--streams", "1")
    assert server.models == []
    with server.client as client:
        assert client.get("/readyz").status_code == 200
        index = client.post("/v2/repository/index").json()
        assert [(one["name"], one["version"], one["state"]) for one in index] == [
            ("digits", "1", "UNAVAILABLE"),
            ("digits", "2", "UNAVAILABLE"),
        ]
        assert client.post("/v1/models/digits/predict", content=jpeg).status_code == 404
        assert client.post("/v2/repository/models/digits/load").status_code == 200
        assert client.post("/v1/models/digits/predict", content=jpeg).json()["version"] == "2"
        version = {"parameters": {"version": "1"}}
        assert client.post("/v2/repository/models/digits/load", json=version).status_code == 200
        assert client.post("/v1/models/digits/versions/1/predict", content=jpeg).json()["version"] == "1"
        assert client.post("/v1/models/digits/predict", content=jpeg).json()["version"] == "2"
        index = client.post("/v2/repository/index").json()
        assert {(one["version"], one["state"]) for one in index} == {("1", "READY"), ("2", "READY")}
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("other", None, 404),
        ("..%2Ftwo", None, 404),
        ("digits", {"parameters": {"version": "7"}}, 404),
        ("digits", {"parameters": {"path": "/etc"}}, 400),
        ("digits", {"parameters": {"version": 2}}, 400),
        ("digits", ["version"], 400),
    ],
    ids=["unknown", "path", "version", "parameter", "number", "list"],
)
def test_a_client_cannot_load_what_is_not_named(
    repository_server: Served, name: str, body: object, status: int
) -> None:
    with repository_server.client as client:
        answer = client.post(f"/v2/repository/models/{name}/load", **({} if body is None else {"json": body}))
        assert answer.status_code == status, answer.text
        assert client.get("/readyz").status_code == 200


@pytest.fixture(scope="module")
def repository_server(
    start: Callable[..., Served], second_version: Path, tmp_path_factory: pytest.TempPathFactory
) -> Served:
    place = tmp_path_factory.mktemp("repository")
    shutil.copytree(second_version, place / "two")
    return start("--repository", place, "--streams", "1")
