# SPDX-License-Identifier: Apache-2.0
"""Results of finished steps survive a killed build and are never trusted when damaged."""

from __future__ import annotations

from pathlib import Path

from shipsight.build.workspace import Workspace, digest_of


def test_workspace_makes_once_and_returns_the_same_bytes(tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> dict[str, bytes]:
        calls.append(1)
        return {"model.onnx": b"abc", "empty": b""}

    first = Workspace(tmp_path / "work").files("key", make)
    second = Workspace(tmp_path / "work").files("key", make)
    assert first == second == {"model.onnx": b"abc", "empty": b""}
    assert len(calls) == 1


def test_workspace_makes_again_when_a_stored_byte_changed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "work")
    workspace.files("key", lambda: {"model.onnx": b"abc"})
    (tmp_path / "work" / "key" / digest_of_content(b"abc")).write_bytes(b"abd")
    assert workspace.files("key", lambda: {"model.onnx": b"fresh"}) == {"model.onnx": b"fresh"}


def digest_of_content(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def test_workspace_ignores_what_a_killed_write_left(tmp_path: Path) -> None:
    half_made = tmp_path / "work" / "half-made-x"
    half_made.mkdir(parents=True)
    (half_made / "index.json").write_text("{}")
    assert Workspace(tmp_path / "work").value("key", lambda: [1, 2]) == [1, 2]


def test_digest_changes_with_every_part_and_with_their_borders() -> None:
    digests = {
        digest_of("ab", "c"),
        digest_of("a", "bc"),
        digest_of("abc"),
        digest_of(b"abc"),
        digest_of({"a": 1}),
        digest_of({"a": 2}),
    }
    assert len(digests) == 6


def test_digest_ignores_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
