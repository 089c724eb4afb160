# SPDX-License-Identifier: Apache-2.0
"""Files of a model over HTTP: who may take what, that it is recorded first, and that nothing but the manifest's own files leaves."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serve.gated import Answered, Gated, Headers, gated

from shipsight.access import SERVER, Action, EventKind, Outcome, Role
from shipsight.model.bundle import open_bundle
from shipsight.serve.http import files

FILES = "/v1/models/digits/versions/1/files"


class Room:
    """An app that serves a bundle of its own, which tests may spoil."""

    def __init__(self, app: Gated, bundle: Path) -> None:
        self.app, self.bundle, self.manifest = app, bundle, open_bundle(bundle).manifest
        self.viewer = app.person("vera", "viewer")
        self.operator = app.key("oscar", "operator")
        for role, action in (("exporter", Action.DATA_EXPORT), ("labeller", Action.GOLDEN_READ)):
            app.access.directory.apply_role(SERVER, Role(role, frozenset({action})))
        self.exporter = app.person("dora", "exporter")
        self.deployer = app.person("dean", "deployer")
        self.other = app.person("otto", "exporter@bolts")
        self.weights = next(one for one in self.manifest.files if one.name.startswith("variants/"))
        self.golden = next(one for one in self.manifest.files if one.name.startswith("proof/golden/"))

    def ask(self, path: str, who: Headers, method: str = "GET") -> Answered:
        self.app.events.events.clear()
        return asyncio.run(self.app.ask(method, FILES + path, who))

    def kinds(self) -> list[EventKind]:
        return [one.kind for one in self.app.events.events]


@pytest.fixture(scope="module")
def room(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("files")
    shutil.copytree(digits_bundle, folder / "digits.bundle")
    with gated(folder) as app:
        app.service.models.load(folder / "digits.bundle")
        yield Room(app, folder / "digits.bundle")


def golden_reader(room: Room) -> Headers:
    """Who may read golden images, by a role of the operator's own."""
    return room.app.key(f"labels-{len(room.app.access.keys.list())}", "labeller")


def test_list_tells_what_the_manifest_names(room: Room) -> None:
    told = room.ask("", room.viewer).json()
    assert told["digest"] == open_bundle(room.bundle).digest
    assert [(one["name"], one["size"], one["sha256"]) for one in told["files"]] == [
        (one.name, one.size, one.sha256) for one in room.manifest.files
    ]


def test_every_file_is_given_as_the_manifest_promises_it(room: Room) -> None:
    for one in room.manifest.files:
        answered = room.ask(f"/{one.name}", room.exporter)
        if one.name == "report.html" or one.name.startswith("proof/golden/"):
            assert answered.status == 403, one.name
            continue
        assert (answered.status, hashlib.sha256(answered.body).hexdigest()) == (200, one.sha256)
        assert answered.headers["content-length"] == str(one.size)


def test_weights_are_an_export_and_recorded_before_the_first_byte(room: Room) -> None:
    answered = room.ask(f"/{room.weights.name}", room.exporter)
    assert answered.status == 200
    assert room.kinds() == [EventKind.ALLOWED, EventKind.EXPORTED]
    event = room.app.events.events[-1]
    assert (event.actor, event.subject, event.outcome) == ("person:dora", "model:digits", Outcome.DONE)
    assert event.details["file"] == room.weights.name
    assert event.details["sha256"] == room.weights.sha256
    assert event.details["version"] == "1"
    assert event.address == "192.0.2.1"


def test_golden_images_are_read_by_who_may_and_recorded(room: Room) -> None:
    reader = golden_reader(room)
    answered = room.ask(f"/{room.golden.name}", reader)
    assert hashlib.sha256(answered.body).hexdigest() == room.golden.sha256
    assert room.kinds() == [EventKind.KEY_USED, EventKind.DATA_READ]
    assert room.app.events.events[-1].details["file"] == room.golden.name
    assert room.ask(f"/{room.weights.name}", reader).status == 403


@pytest.mark.parametrize("who", ["viewer", "operator", "deployer", "other"])
def test_who_may_not_export_gets_no_weights(room: Room, who: str) -> None:
    answered = room.ask(f"/{room.weights.name}", getattr(room, who))
    assert answered.status == 403
    assert room.kinds()[-1] is EventKind.REFUSED
    assert EventKind.EXPORTED not in room.kinds()


def test_an_export_needs_a_fresh_proof(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    now = room.app.gate.now
    monkeypatch.setattr(room.app.gate, "now", lambda: now() + timedelta(minutes=10))
    answered = room.ask(f"/{room.weights.name}", room.exporter)
    assert (answered.status, answered.json()["error"]["code"]) == (401, "step-up")
    assert EventKind.EXPORTED not in room.kinds()


def test_what_cannot_be_recorded_is_not_given(room: Room) -> None:
    """ASVS 16.5.3."""
    room.app.events.fails = True
    try:
        export = room.ask(f"/{room.weights.name}", room.exporter)
        golden = room.ask(f"/{room.golden.name}", golden_reader_before(room))
    finally:
        room.app.events.fails = False
    assert {export.status, golden.status} == {500}
    assert len(export.body) < 500


def golden_reader_before(room: Room) -> Headers:
    room.app.events.fails = False
    found = golden_reader(room)
    room.ask("", found)  # its use is told
    room.app.events.fails = True
    return found


def test_a_file_is_no_page_of_this_servers(room: Room) -> None:
    reader = golden_reader(room)
    for name in ("report.html", room.golden.name):
        headers = room.ask(f"/{name}", reader).headers
        assert headers["content-type"] == "application/octet-stream"
        assert headers["content-disposition"].startswith("attachment;")
        assert headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"


def test_head_tells_the_size_and_exports_nothing(room: Room) -> None:
    answered = room.ask(f"/{room.weights.name}", room.exporter, method="HEAD")
    assert (answered.status, answered.body) == (200, b"")
    assert answered.headers["content-length"] == str(room.weights.size)
    assert EventKind.EXPORTED not in room.kinds()


# --- attacks ----------------------------------------------------------------------------------------------------------

OUTSIDE = [
    "/../../../../../etc/passwd", "/..%2f..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/%252e%252e%252fetc/passwd",
    "//etc/passwd", "/./MODEL_CARD.md", "/proof/./reference.json", "/proof//reference.json", "/proof/../bundle.yaml",
    "/proof/golden/../../bundle.yaml", "/proof/golden/../reference.json", "/bundle.yaml", "/signature.json", "/", "/proof",
    "/proof/golden/", "/variants/", "/report.html/", "/REPORT.HTML", "/model_card.md", "/MODEL_CARD.md\x00.png",
    "/MODEL_CARD.md%00", "/MODEL_CARD.md ", "/MODEL_CARD.md.", "/C:\\windows\\win.ini", "/proof\\reference.json",
    "/\\\\host\\share", "/MODEL_CARD.md?x=1/../../bundle.yaml", "/\u2025/etc/passwd", "/MODEL_CARD.md;.png",
    "/..;/bundle.yaml", "/unnamed.txt", "/" + "a/" * 2000, "/file:///etc/passwd",
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE, ids=range(len(OUTSIDE)))
def test_nothing_but_a_file_of_the_manifest_is_given(room: Room, path: str) -> None:
    """Traversal, double encoding, other separators, names that the manifest has not. ASVS 5.3.2."""
    (room.bundle.parent / "outside.txt").write_text("outside")
    known = {one.sha256: one.name for one in room.manifest.files}
    for who in (room.exporter, room.viewer):
        answered = room.ask(path, who)
        if answered.status == 200:  # a query is no part of a name
            assert path.startswith("/MODEL_CARD.md?")
            assert known[hashlib.sha256(answered.body).hexdigest()] == "MODEL_CARD.md"
            continue
        assert answered.status in (403, 404), (path, answered.body)
        assert b"root:" not in answered.body
        assert EventKind.EXPORTED not in room.kinds()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_no_name_but_the_manifests_is_answered(room: Room, name: str) -> None:
    names = {one.name for one in room.manifest.files}
    if name.partition("?")[0] in names:
        return
    assert room.ask(f"/{name}", room.exporter).status in (403, 404)


def test_an_unnamed_file_in_the_bundle_refuses_all(room: Room) -> None:
    extra = room.bundle / "proof" / "extra.json"
    extra.write_text("{}")
    try:
        for path in ("/proof/extra.json", f"/{room.weights.name}"):
            answered = room.ask(path, room.exporter)
            assert (answered.status, answered.json()["error"]["code"]) == (422, "tampered-unnamed-file")
            assert str(room.bundle) not in answered.body.decode()
            assert EventKind.EXPORTED not in room.kinds()
    finally:
        extra.unlink()


def test_a_changed_file_is_refused_before_its_first_byte(room: Room) -> None:
    path = room.bundle / room.weights.name
    before = path.read_bytes()
    changed = bytearray(before)
    changed[len(changed) // 2] ^= 1
    path.write_bytes(bytes(changed))
    try:
        answered = room.ask(f"/{room.weights.name}", room.exporter)
    finally:
        path.write_bytes(before)
    assert (answered.status, answered.json()["error"]["code"]) == (422, "tampered-hash")
    assert EventKind.EXPORTED not in room.kinds()


def test_a_link_in_place_of_a_file_is_refused(room: Room) -> None:
    path = room.bundle / room.weights.name
    kept = path.with_name("kept")
    shutil.move(path, room.bundle.parent / "kept")
    try:
        path.symlink_to("/etc/passwd")
        answered = room.ask(f"/{room.weights.name}", room.exporter)
        assert (answered.status, answered.json()["error"]["code"]) == (422, "tampered-link")
    finally:
        path.unlink()
        shutil.move(room.bundle.parent / "kept", path)
        assert not kept.exists()


def test_another_bundle_in_the_place_of_the_one_that_answers_is_refused(
    room: Room, second_version: Path, tmp_path: Path
) -> None:
    shutil.move(room.bundle, tmp_path / "kept")
    try:
        shutil.copytree(second_version, room.bundle)
        assert room.ask(f"/{room.weights.name}", room.exporter).status == 422
    finally:
        shutil.rmtree(room.bundle)
        shutil.move(tmp_path / "kept", room.bundle)


def test_a_file_that_is_changed_while_it_is_sent_is_never_whole(room: Room) -> None:
    """The last piece leaves only once all of it was found to be right."""
    large = room.bundle / room.weights.name
    before = large.read_bytes()
    opened = open_bundle(room.bundle)
    pieces = opened.pieces(room.weights.name)
    large.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    sent: list[bytes] = []

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        if message["type"] == "http.response.body":
            sent.append(message["body"])
            assert message["more_body"], "it looks whole"

    async def run() -> None:
        held = files._Files()
        held._under_way = 1
        await files._FileAnswer(room.weights.name, len(before), pieces, held)({"method": "GET"}, asyncio.sleep, send)  # type: ignore[arg-type]
        assert held._under_way == 0

    try:
        asyncio.run(run())
    finally:
        large.write_bytes(before)
    assert len(b"".join(sent)) < len(before)


def test_a_model_that_is_not_in_service_has_no_files(room: Room) -> None:
    for who, path in ((room.viewer, ""), (room.exporter, "/MODEL_CARD.md")):
        assert asyncio.run(room.app.ask("GET", f"/v1/models/digits/versions/9/files{path}", who)).status == 404


def test_only_a_few_files_are_taken_at_once(room: Room) -> None:
    """Each is read twice; who asks for many does not hold the disk."""

    async def run() -> list[int]:
        asked = [room.app.ask("GET", f"{FILES}/{room.weights.name}", room.exporter) for _ in range(12)]
        return sorted({one.status for one in await asyncio.gather(*asked)})

    assert asyncio.run(run()) == [200, 503]
    assert room.ask(f"/{room.weights.name}", room.exporter).status == 200  # and places are given back
