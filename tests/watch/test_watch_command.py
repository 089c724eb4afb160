# SPDX-License-Identifier: Apache-2.0
"""`shipsight watch` in a process of its own, on files and on a real RTSP stream that is cut and restored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
from tests.watch.conftest import CLIP_FPS, CLIP_FRAMES, Camera

pytestmark = pytest.mark.slow  # servers that start, die and wait

PATIENCE_S = 120


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shipsight", "watch", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **environment}
    )


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Reads what was written, which must be whole lines."""
    text = path.read_text(encoding="utf-8")
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def frames_of(path: Path) -> int:
    video = cv2.VideoCapture(str(path))
    assert video.isOpened()
    count = 0
    while video.read()[0]:
        count += 1
    video.release()
    return count


class Watching:
    """A running watch."""

    def __init__(self, folder: Path, *arguments: object, **environment: str) -> None:
        self.out = folder / "out.jsonl"
        self.errors = folder / "errors.txt"
        command = [sys.executable, "-m", "shipsight", "watch", *map(str, arguments), "--out", str(self.out)]
        with self.errors.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                command, stderr=errors, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
            )

    def told(self) -> str:
        return self.errors.read_text(encoding="utf-8")

    def frames(self) -> int:
        return self.out.read_text(encoding="utf-8").count("\n") if self.out.exists() else 0

    def wait_for(self, is_true: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not is_true():
            assert self.process.poll() is None, self.told()
            assert time.monotonic() < end, self.told()
            time.sleep(0.05)

    def wait_for_frames(self) -> None:
        """Waits until more frames than now were answered."""
        wanted = self.frames() + 3
        self.wait_for(lambda: self.frames() >= wanted)

    def end(self, number: int) -> dict[str, Any]:
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, self.told()
        summary = json.loads(out)
        assert isinstance(summary, dict)
        return summary


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Watching]]:
    started: list[Watching] = []

    def begin(*arguments: object, **environment: str) -> Watching:
        started.append(Watching(tmp_path, *arguments, **environment))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def test_a_file_is_answered_frame_by_frame_as_predict_answers_it(
    digits_bundle: Path, clip: Path, tmp_path: Path
) -> None:
    out, video = tmp_path / "out.jsonl", tmp_path / "out.mp4"
    done = run(clip, "--bundle", digits_bundle, "--out", out, "--video", video, "--json")
    assert done.returncode == 0, done.stderr
    lines = lines_of(out)
    command = [sys.executable, "-m", "shipsight", "predict", str(digits_bundle), str(clip), "--json"]
    expected = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert [line["images"][0] for line in lines] == expected["images"]
    assert sum(len(line["images"][0]["predictions"]) for line in lines) > CLIP_FRAMES
    assert [line["frame"] for line in lines] == list(range(CLIP_FRAMES))
    assert lines[20]["position_s"] == pytest.approx(20 / CLIP_FPS, abs=1e-3)
    assert {line["model"] for line in lines} == {"digits"}
    assert frames_of(video) == CLIP_FRAMES
    summary = json.loads(done.stdout)
    assert (summary["frames"], summary["dropped"], summary["reconnects"], summary["tracks"]) == (
        CLIP_FRAMES,
        0,
        0,
        None,
    )


def test_objects_are_followed_through_a_file(digits_bundle: Path, clip: Path) -> None:
    done = run(clip, "--bundle", digits_bundle, "--track", "--out", "-")
    assert done.returncode == 0, done.stderr
    ids = [
        [one["track_id"] for one in json.loads(line)["images"][0]["predictions"]] for line in done.stdout.splitlines()
    ]
    assert len(ids) == CLIP_FRAMES
    longest = max(sum(number in frame for frame in ids) for number in {one for frame in ids for one in frame})
    assert longest > CLIP_FRAMES / 2
    assert "objects followed" in done.stderr


def test_enough_is_enough(digits_bundle: Path, clip: Path) -> None:
    done = run(clip, "--bundle", digits_bundle, "--frames", 5, "--json")
    assert json.loads(done.stdout)["frames"] == 5
    begin = time.monotonic()
    done = run("rtsp://127.0.0.1:9/nobody", "--bundle", digits_bundle, "--seconds", 2, "--json")
    assert (done.returncode, json.loads(done.stdout)["frames"]) == (0, 0)
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gone.mp4"], "no such video"),
        (["concat://x"], "streams of this kind"),
        (["CLIP", "--json", "--out", "-"], "one of the two"),
        (["CLIP", "--out", "BUNDLE/bundle.yaml"], "there already"),
        (["CLIP", "--out", "BUNDLE/gone/out.jsonl"], "cannot be written"),
        (["CLIP", "--video", "out.gif"], "not a kind of video"),
        (["CLIP", "--video", "BUNDLE/gone/out.mp4"], "cannot be written"),
        (["CLIP", "--classes", "99"], "no such class"),
        (["CLIP", "--conf", "2"], "out of range"),
        (["CLIP", "--seconds", "0"], "out of range"),
        (["CLIP", "--timeout", "0"], "out of range"),
        (["BUNDLE/bundle.yaml"], "not a video"),
    ],
    ids=str,
)
def test_wrong_use_is_named(digits_bundle: Path, clip: Path, arguments: list[str], told: str) -> None:
    given = [one.replace("CLIP", str(clip)).replace("BUNDLE", str(digits_bundle)) for one in arguments]
    done = run(*given, "--bundle", digits_bundle)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr


def test_a_stream_that_never_comes_is_given_up_where_that_was_asked(digits_bundle: Path) -> None:
    done = run("rtsp://user:secret@127.0.0.1:9/x", "--bundle", digits_bundle, "--give-up", "2", "--timeout", "1")
    assert done.returncode == 1
    assert "(stream-lost)" in done.stderr
    assert "(source-broken) rtsp://127.0.0.1:9/x: it cannot be opened; opened again in 1 s" in done.stderr
    assert "secret" not in done.stderr


def test_a_stream_that_is_cut_or_hangs_is_taken_up_again(
    digits_bundle: Path, make_camera: Callable[..., Camera], start: Callable[..., Watching], tmp_path: Path
) -> None:
    camera = make_camera("viewer", "secret")
    address = f"rtsp://viewer:secret@127.0.0.1:{camera.port}/camera"
    video = tmp_path / "out.mp4"
    options = (
        "--bundle",
        digits_bundle,
        "--track",
        "--video",
        video,
        "--timeout",
        "3",
        "--longest-pause",
        "2",
        "--json",
    )
    # Nobody is there yet; the address comes from the environment, where no other user reads it.
    watching = start(*options, SHIPSIGHT_SOURCE=address)
    watching.wait_for(lambda: "cannot be opened; opened again in 2 s" in watching.told())
    camera.start()
    watching.wait_for_frames()
    camera.cut()
    watching.wait_for(lambda: "it ended" in watching.told() or watching.told().count("cannot be opened") > 3)
    camera.start()
    watching.wait_for_frames()
    camera.hang()
    watching.wait_for(lambda: "no frame for 3" in watching.told())
    camera.cut()
    camera.start()
    watching.wait_for_frames()
    summary = watching.end(signal.SIGINT)
    lines = lines_of(watching.out)
    assert summary["frames"] == len(lines)
    assert summary["reconnects"] == 2
    assert [line["frame"] for line in lines] == sorted({line["frame"] for line in lines})
    assert lines[-1]["dropped"] + len(lines) == lines[-1]["frame"] + 1
    assert any(line["images"][0]["predictions"] for line in lines)
    assert {line["position_s"] for line in lines} == {None}
    assert frames_of(video) > 0
    for text in (watching.told(), watching.out.read_text(encoding="utf-8"), json.dumps(summary)):
        assert "secret" not in text
        assert "viewer" not in text


def test_a_wrong_password_is_told_without_it(digits_bundle: Path, make_camera: Callable[..., Camera]) -> None:
    camera = make_camera("viewer", "right")
    camera.start()
    done = run(f"rtsp://viewer:wrongsecret@127.0.0.1:{camera.port}/camera", "--bundle", digits_bundle, "--give-up", "2")
    assert done.returncode == 1
    assert "cannot be opened" in done.stderr
    assert "wrongsecret" not in done.stderr


def test_a_watch_that_is_told_to_leave_ends_well(
    digits_bundle: Path, make_camera: Callable[..., Camera], start: Callable[..., Watching]
) -> None:
    camera = make_camera()
    camera.start()
    watching = start(f"rtsp://127.0.0.1:{camera.port}/camera", "--bundle", digits_bundle, "--json")
    watching.wait_for_frames()
    summary = watching.end(signal.SIGTERM)
    assert summary["frames"] == len(lines_of(watching.out))
    assert summary["source"] == f"rtsp://127.0.0.1:{camera.port}/camera"
