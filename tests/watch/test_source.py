# SPDX-License-Identifier: Apache-2.0
"""What a source is, and that its name keeps secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipsight.errors import UsageError
from shipsight.watch import SourceKind, parse_source


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rtsp://cam.example/live", "rtsp://cam.example/live"),
        ("rtsp://user:secret@cam.example:554/live", "rtsp://cam.example:554/live"),
        ("RTSP://user:s@cret@cam.example/live", "rtsp://cam.example/live"),
        ("rtsp://cam.example/live?user=a&password=secret", "rtsp://cam.example/live"),
        ("rtsp://cam.example/user=a_password=secret_channel=1/0.sdp", "rtsp://cam.example/.../0.sdp"),
        ("rtsp://user:se/cret@cam.example/live", "rtsp://..."),
        ("rtsp://user:se?cret@cam.example/live", "rtsp://..."),
        ("rtsp://user:se#cret@cam.example/live", "rtsp://..."),
        ("rtsp://user:secret@[fe80::1]:554/live", "rtsp://[fe80::1]:554/live"),
    ],
)
def test_an_address_is_named_without_what_may_be_secret(text: str, name: str) -> None:
    source = parse_source(text)
    assert (source.kind, source.name, source.target) == (SourceKind.STREAM, name, text)
    assert source.is_live
    assert "cret" not in repr(source)


def test_cameras_and_files_are_told_apart(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"")
    assert parse_source("2").target == 2
    assert parse_source("/dev/video0").kind is SourceKind.CAMERA
    file = parse_source(str(clip))
    assert (file.kind, file.is_live, file.target) == (SourceKind.FILE, False, str(clip))


@pytest.mark.parametrize(
    "text",
    ["gone.mp4", ".", "", "concat://a", "file:///etc/passwd", "rtsp://", "rtsp://user:secret@", "rtsp://[secret/x"],
)
def test_what_cannot_be_watched_is_refused_without_telling_secrets(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_source(text)
    assert "secret" not in str(caught.value)
