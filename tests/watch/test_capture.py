# SPDX-License-Identifier: Apache-2.0
"""Frames of a file: all of them, or the newest alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.watch.conftest import CLIP_FPS, CLIP_FRAMES, Camera

from shipsight.errors import ImageUnreadableError, StreamLostError, UsageError
from shipsight.watch import Capture, CaptureOptions, Connected, SourceBroken, parse_source


def test_a_file_gives_every_frame_to_whoever_is_slow(clip: Path) -> None:
    told: list[Connected | SourceBroken] = []
    with Capture(parse_source(str(clip)), on_event=told.append) as capture:
        found = []
        for frame in capture.frames():
            found.append((frame.index, frame.position_s, frame.dropped))
            assert frame.image_rgb.shape == (256, 256, 3)
            time.sleep(0.005)
    assert [index for index, _, _ in found] == list(range(CLIP_FRAMES))
    assert [position for _, position, _ in found] == pytest.approx([i / CLIP_FPS for i in range(CLIP_FRAMES)], abs=1e-3)
    assert {dropped for _, _, dropped in found} == {0}
    assert told == [Connected(256, 256, CLIP_FPS)]


def test_a_file_in_its_own_time_gives_the_newest_frame(clip: Path) -> None:
    begin = time.monotonic()
    with Capture(parse_source(str(clip)), CaptureOptions(is_realtime=True)) as capture:
        found = []
        for frame in capture.frames():
            assert time.monotonic() - begin >= (frame.position_s or 0.0) - 0.01, "not before its time"
            found.append(frame)
            time.sleep(0.3)
    assert 5 <= len(found) <= 12, "three seconds, a frame every 0.3 s"
    assert found[-1].dropped > CLIP_FRAMES / 2
    assert found[-1].dropped + len(found) == found[-1].index + 1


def test_whoever_is_slow_gets_the_present_of_a_stream(make_camera: Callable[..., Camera]) -> None:
    camera = make_camera()
    camera.start()
    ages, indices = [], []
    with Capture(parse_source(f"rtsp://127.0.0.1:{camera.port}/camera"), CaptureOptions(give_up_s=60)) as capture:
        for frame in capture.frames():
            ages.append(time.time() - frame.captured_s)
            indices.append(frame.index)
            if len(indices) == 12:
                break
            time.sleep(0.5)
    assert statistics.median(ages) < 1.0, "whoever was given each frame would be seconds behind"
    assert frame.dropped + len(indices) == frame.index + 1
    assert indices[-1] - indices[2] > 9 * 0.5 * CLIP_FPS / 2, "the stream went on meanwhile"


def test_colours_are_rgb(tmp_path: Path) -> None:
    import cv2
    import numpy as np

    path = tmp_path / "red.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    writer.write(np.full((64, 64, 3), (0, 0, 250), dtype=np.uint8))
    writer.release()
    with Capture(parse_source(str(path))) as capture:
        (frame,) = capture.frames()
    assert frame.image_rgb.mean(axis=(0, 1)) == pytest.approx((250, 0, 0), abs=6)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(ImageUnreadableError), Capture(parse_source(str(path))) as capture:
        list(capture.frames())


def test_a_stream_that_nobody_gives_is_asked_for_after_growing_pauses_and_given_up() -> None:
    told: list[Connected | SourceBroken] = []
    options = CaptureOptions(timeout_s=1, first_pause_s=0.2, longest_pause_s=0.5, give_up_s=2)
    begin = time.monotonic()
    source = parse_source("rtsp://user:secret@127.0.0.1:9/x")
    with pytest.raises(StreamLostError) as caught, Capture(source, options, on_event=told.append) as capture:
        list(capture.frames())
    assert time.monotonic() - begin >= 2
    assert [one.pause_s for one in told if isinstance(one, SourceBroken)][:4] == [0.2, 0.4, 0.5, 0.5]
    assert "secret" not in str(caught.value)


def test_waiting_ends_when_nobody_wants_more() -> None:
    end = time.monotonic() + 1
    with Capture(parse_source("rtsp://127.0.0.1:9/x"), CaptureOptions(first_pause_s=60)) as capture:
        assert list(capture.frames(lambda: time.monotonic() < end)) == []
    assert time.monotonic() - end < 10


@pytest.mark.parametrize("wrong", [{"timeout_s": 0}, {"give_up_s": -1}, {"longest_pause_s": float("nan")}], ids=str)
def test_times_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        CaptureOptions(**wrong)  # type: ignore[arg-type]
