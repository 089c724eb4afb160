# SPDX-License-Identifier: Apache-2.0
"""A monitor learns, watches, alarms, and goes on after a restart."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipsight.errors import CorruptError, ImageError, UnsupportedError, UsageError
from shipsight.model import ImagePredictions
from shipsight.monitor import Monitor, MonitorSettings, Phase
from shipsight.proof.image_measures import MEASURES

NAMES = ("cat", "dog", "bird")
FAST = MonitorSettings(reference=60, window=40, most_per_s=1e6)


class Scene:
    """Images of noise at some brightness, and answers that go with them."""

    def __init__(self, seed: int = 0) -> None:
        self.draw = np.random.default_rng(seed)

    def image(self, brightness: float = 120.0) -> np.ndarray:
        middle = brightness + self.draw.normal(0, 8)
        return self.draw.normal(middle, 20, (48, 64, 3)).clip(0, 255).astype(np.uint8)

    def answer(self, shares: tuple[float, float, float] = (0.6, 0.4, 0.0)) -> ImagePredictions:
        count = int(self.draw.integers(0, 5))
        corners = self.draw.uniform(0, 30, (count, 2))
        return ImagePredictions(
            source=None,
            width=64,
            height=48,
            class_names=NAMES,
            class_ids=self.draw.choice(3, count, p=shares),
            scores=self.draw.uniform(0.3, 0.95, count).astype(np.float32),
            boxes_xyxy=np.hstack([corners, corners + self.draw.uniform(4, 16, (count, 2))]).astype(np.float32),
        )


def feed(monitor: Monitor, scene: Scene, count: int, **how: float) -> None:
    for _ in range(count):
        monitor.observe(scene.image(**how), scene.answer())


def ticking() -> float:
    ticking.now += 1.0  # type: ignore[attr-defined]
    return float(ticking.now)  # type: ignore[attr-defined]


ticking.now = 0.0  # type: ignore[attr-defined]


def made(state_file: Path | None = None, options: MonitorSettings = FAST) -> Monitor:
    return Monitor("animals/v1", settings=options, state_file=state_file, clock=ticking)


def test_it_learns_waits_watches_and_alarms_at_what_changed() -> None:
    monitor, scene = made(), Scene()
    feed(monitor, scene, 30)
    assert monitor.report().phase is Phase.LEARNING
    feed(monitor, scene, 30)
    assert monitor.report().phase is Phase.WAITING
    assert monitor.signals() == []
    feed(monitor, scene, 40)
    report = monitor.report()
    assert (report.phase, report.windows, report.alarms) == (Phase.WATCHING, 1, ())
    feed(monitor, scene, 40, brightness=60.0)
    names = [one.feature for one in monitor.report().alarms]
    assert "brightness" in names
    assert "objects" not in names
    told = next(one for one in monitor.signals() if one.name == "drift-brightness")
    assert told.is_firing
    assert told.subject == "animals/v1"
    assert "median 60" in told.evidence or "median 59" in told.evidence or "median 61" in told.evidence
    feed(monitor, scene, 40)
    assert not [one for one in monitor.report().drifts if one.is_alarm]
    assert not [one for one in monitor.signals() if one.is_firing and one.name.startswith("drift-")]
    # What is looked for in the stream knows of the dark images for longer, and forgets them, too.
    feed(monitor, scene, 160)
    assert monitor.report().alarms == ()
    assert not any(one.is_firing for one in monitor.signals())


def test_a_small_shift_is_told_as_a_trend_over_a_restart(tmp_path: Path) -> None:
    options = MonitorSettings(reference=200, window=100, most_per_s=1e6)
    scene, file = Scene(), tmp_path / "state.json"
    monitor = made(file, options)
    feed(monitor, scene, 400)
    assert monitor.report().alarms == ()
    feed(monitor, scene, 300, brightness=124.0)  # half a standard deviation
    monitor.save()
    again = made(file, options)
    assert again.report() == monitor.report()
    trend = next(one for one in again.report().trends if one.feature == "brightness")
    assert trend.is_alarm
    told = {one.name: one for one in again.signals()}["trend-brightness"]
    assert told.is_firing
    assert f"{trend.images} images since it last changed" in told.evidence


def test_a_new_class_is_told_by_its_name() -> None:
    monitor, scene = made(), Scene()
    feed(monitor, scene, 100)
    for _ in range(40):
        monitor.observe(scene.image(), scene.answer((0.2, 0.1, 0.7)))
    (alarm,) = [one for one in monitor.report().alarms if one.feature == "classes"]
    assert alarm.here == "bird"
    assert str(alarm.before).startswith("0% to ") or str(alarm.before).startswith("in 0% to ")


def test_certain_and_small_is_no_alarm() -> None:
    monitor, scene = made(options=MonitorSettings(reference=600, window=600, most_per_s=1e6)), Scene()
    feed(monitor, scene, 600)
    feed(monitor, scene, 600, brightness=122.5)
    seen = next(one for one in monitor.report().drifts if one.feature == "brightness")
    assert seen.p_family < 0.05
    assert not seen.is_alarm


def test_most_images_are_not_even_decoded() -> None:
    now = [0.0]
    monitor = Monitor("a/b", settings=MonitorSettings(most_per_s=2.0), clock=lambda: now[0])
    scene, decoded = Scene(), []

    def decode() -> np.ndarray:
        decoded.append(now[0])
        return scene.image()

    for step in range(1000):
        now[0] = step / 100
        monitor.observe(decode, scene.answer())
    assert 19 <= len(decoded) <= 21
    report = monitor.report()
    assert (report.seen, report.taken) == (1000, len(decoded))


def test_frames_that_resemble_each_other_are_taken_farther_apart() -> None:
    monitor, scene = made(), Scene()
    level = 120.0
    for _ in range(60 * 40):
        level = 120 + 0.9 * (level - 120) + scene.draw.normal(0, 6)
        image = scene.draw.normal(level, 20, (48, 64, 3)).clip(0, 255).astype(np.uint8)
        monitor.observe(image, scene.answer())
    assert monitor.report().spacing >= 8
    assert monitor.report().reference == 60


def test_an_image_that_cannot_be_read_is_counted_and_no_more() -> None:
    monitor = made()

    def broken() -> np.ndarray:
        raise ImageError("not an image")

    monitor.observe(broken, Scene().answer())
    report = monitor.report()
    assert (report.taken, report.unreadable, report.reference) == (1, 1, 0)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3)),
        None,
    ],
    ids=["grey", "empty", "four channels", "float", "nothing"],
)
def test_what_is_no_image_is_counted_and_no_more(image: np.ndarray) -> None:
    monitor = made()
    monitor.observe(image, Scene().answer())
    report = monitor.report()
    assert (report.taken, report.unreadable, report.reference) == (1, 1, 0)


def test_an_answer_with_a_score_that_is_no_number_is_counted_and_no_more(tmp_path: Path) -> None:
    monitor, scene = made(tmp_path / "monitor.json"), Scene()
    scores = np.array([0.5, np.nan], np.float32)
    monitor.observe(scene.image(), ImagePredictions(None, 64, 48, NAMES, np.zeros(2, np.int64), scores))
    monitor.save()
    assert (monitor.report().unreadable, made(tmp_path / "monitor.json").report().unreadable) == (1, 1)


def test_what_was_learned_is_kept_before_the_first_comparison(tmp_path: Path) -> None:
    monitor, scene = made(tmp_path / "monitor.json"), Scene()
    while monitor.report().phase is Phase.LEARNING:
        feed(monitor, scene, 1)
    assert made(tmp_path / "monitor.json").report().phase is Phase.WAITING


def test_the_strictest_level_can_alarm() -> None:
    strict = MonitorSettings(reference=60, window=40, most_per_s=1e6, error=0.0005)
    monitor, scene = made(options=strict), Scene()
    while monitor.report().phase is Phase.LEARNING:
        feed(monitor, scene, 1)
    for _ in range(40 * monitor.report().spacing):
        monitor.observe(scene.image(brightness=40.0), scene.answer())
    assert "brightness" in [one.feature for one in monitor.report().alarms]


def test_a_monitor_refuses_a_second_model() -> None:
    monitor, scene = made(), Scene()
    feed(monitor, scene, 1)
    other = ImagePredictions(None, 64, 48, ("a",), np.zeros(0, np.int64), np.zeros(0, np.float32))
    with pytest.raises(UsageError, match="one model"):
        monitor.observe(scene.image(), other)


@settings(max_examples=12, deadline=None)
@given(stops=st.lists(st.integers(1, 149), max_size=3, unique=True))
def test_restarts_change_nothing(tmp_path_factory: pytest.TempPathFactory, stops: list[int]) -> None:
    through, scene, again = made(), Scene(1), Scene(1)
    file = tmp_path_factory.mktemp("state") / "monitor.json"
    stopped = made(file)
    for number in range(150):
        if number in stops:
            stopped.save()
            stopped = made(file)
        for monitor, one in ((through, scene), (stopped, again)):
            feed(monitor, one, 1, brightness=120.0 if number < 100 else 90.0)
    assert stopped.report() == through.report()
    assert stopped.signals() == through.signals()


def test_any_changed_byte_of_a_state_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "monitor.json"
    monitor = made(file)
    feed(monitor, Scene(), 14)
    monitor.save()
    assert file.stat().st_mode & 0o777 == 0o600
    whole = file.read_bytes()
    draw = np.random.default_rng(0)
    for place in [0, 63, 64, 65, len(whole) - 1, *draw.integers(0, len(whole), 200)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(draw.integers(0, 8))
        file.write_bytes(damaged)
        with pytest.raises(CorruptError):
            made(file)
    for cut in (0, 10, 70, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(CorruptError):
            made(file)


def test_a_state_is_its_subjects_and_its_settings_alone(tmp_path: Path) -> None:
    file = tmp_path / "monitor.json"
    made(file).save()
    with pytest.raises(UsageError, match="another settings"):
        made(file, MonitorSettings(window=50))
    with pytest.raises(UsageError, match="another subject"):
        Monitor("other/v1", settings=FAST, state_file=file)


def test_a_state_that_cannot_be_written_ends_nothing_and_is_told(tmp_path: Path) -> None:
    monitor, scene = made(tmp_path / "gone" / "monitor.json"), Scene()
    feed(monitor, scene, 100)
    report = monitor.report()
    assert (report.windows, report.is_kept) == (1, False)
    (tmp_path / "gone").mkdir()
    feed(monitor, scene, 40)
    assert monitor.report().is_kept


def test_forgetting_begins_anew(tmp_path: Path) -> None:
    monitor, scene = made(tmp_path / "monitor.json"), Scene()
    feed(monitor, scene, 100)
    monitor.forget()
    assert made(tmp_path / "monitor.json").report().phase is Phase.LEARNING
    feed(monitor, scene, 100, brightness=40.0)
    assert monitor.report().alarms == ()


def test_many_threads_lose_no_image() -> None:
    monitor = made()
    # Learned by one: how threads take turns is chance, and what chance looks like memory is spaced.
    feed(monitor, Scene(), monitor.settings.reference)
    assert monitor.report().spacing == 1

    def work(seed: int) -> None:
        feed(monitor, Scene(seed), 100)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    report = monitor.report()
    assert report.seen == report.taken == 400 + report.reference
    assert report.windows * monitor.settings.window + report.window == 400


@pytest.mark.parametrize(
    ("name", "value"),
    [("reference", 3), ("window", 5001), ("error", 0.0), ("least_effect", 1.5), ("most_per_s", float("nan"))],
)
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match="out of range"):
        MonitorSettings(**{name: value})


def rewritten(file: Path, **changes: object) -> None:
    """Writes a state anew, with a digest that fits; a value of None removes its key."""
    content = {**json.loads(file.read_bytes().partition(b"\n")[2]), **changes}
    text = json.dumps({name: value for name, value in content.items() if value is not None})
    file.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}\n")


def test_a_state_of_another_version_is_unsupported_and_not_damaged(tmp_path: Path) -> None:
    file = tmp_path / "monitor.json"
    made(file).save()
    rewritten(file, version=4)
    with pytest.raises(UnsupportedError, match="another version; expected 3; got 4"):
        made(file)


@pytest.mark.parametrize("cameras", [2, 4])
def test_cameras_in_step_are_all_looked_at(cameras: int) -> None:
    now, looked = [0.0], []
    monitor, scene = Monitor("a/b", MonitorSettings(most_per_s=2.0), clock=lambda: now[0]), Scene()
    for number in range(2000):
        now[0] = number / (2.0 * cameras)
        if monitor.observe(scene.image, scene.answer()):
            looked.append(number % cameras)
    shares = np.bincount(looked, minlength=cameras) / len(looked)
    assert shares.min() > 0.5 / cameras


def test_a_reference_that_is_thinned_keeps_all_cameras() -> None:
    monitor, scene, tint = made(), Scene(), (np.array([10.0, 0, -10]), np.array([-10.0, 0, 10]))
    number, cloud = 0, 0.0
    while not monitor.report().is_learned and number < 20_000:
        # Both see the same sky, which passes slowly; one is red, the other blue.
        cloud = 0.95 * cloud + scene.draw.normal(0, 5)
        pixels = scene.draw.normal(120 + cloud, 5, (16, 16, 3)) + tint[number % 2]
        monitor.observe(pixels.clip(0, 255).astype(np.uint8), scene.answer())
        number += 1
    red, blue = (list(MEASURES).index(name) for name in ("red", "blue"))
    assert monitor.report().spacing > 1
    first = [one.numbers[red] > one.numbers[blue] for one in monitor._state.reference]
    assert 0.25 < np.mean(first) < 0.75


def test_a_slow_disk_holds_up_no_image(tmp_path: Path) -> None:
    monitor, scene = made(tmp_path / "monitor.json"), Scene()
    feed(monitor, scene, 5)
    with monitor._writing:
        saving = threading.Thread(target=monitor.save)
        saving.start()
        feed(monitor, scene, 5)
        assert monitor.report().taken == 10
        assert saving.is_alive()
    saving.join()
    # What is written is what is known when it is written.
    assert made(tmp_path / "monitor.json").report().taken == 10
