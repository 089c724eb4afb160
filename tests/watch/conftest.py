# SPDX-License-Identifier: Apache-2.0
"""A clip of moving digits, and a camera that can be cut off and come back."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

SYSTEM_PYTHON = "/usr/bin/python3"
CLIP_FPS = 20
CLIP_FRAMES = 60


@pytest.fixture(scope="session")
def clip(digit_scenes: Callable[[int, int], tuple[Any, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of a view that wanders over a scene of digits."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    scene, _ = digit_scenes(5, 400)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), CLIP_FPS, (256, 256))
    for step in range(CLIP_FRAMES):
        writer.write(scene[step : step + 256, 2 * step : 2 * step + 256, ::-1].copy())
    writer.release()
    return path


class Camera:
    """An RTSP camera: GStreamer's server, ffmpeg's stream. Comes back at the same address."""

    def __init__(self, clip: Path, *credentials: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._arguments = [str(self.port), str(clip), *credentials]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Begins to answer."""
        script = Path(__file__).with_name("rtsp_server.py")
        command = [SYSTEM_PYTHON, str(script), *self._arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def cut(self) -> None:
        """Ends the server and its streams at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def hang(self) -> None:
        """Stops everything without closing anything."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)


@pytest.fixture
def make_camera(clip: Path) -> Iterator[Callable[..., Camera]]:
    """Makes cameras; skips where what they need is not installed."""
    check = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    is_there = (
        shutil.which("ffmpeg") is not None
        and Path(SYSTEM_PYTHON).exists()
        and subprocess.run([SYSTEM_PYTHON, "-c", check], capture_output=True, check=False).returncode == 0
    )
    if not is_there:
        pytest.skip(
            "no RTSP server: apt-get install ffmpeg python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good"
        )
    made: list[Camera] = []

    def make(*credentials: str) -> Camera:
        made.append(Camera(clip, *credentials))
        return made[-1]

    yield make
    for one in made:
        one.cut()
