# SPDX-License-Identifier: Apache-2.0
"""The operator's own steps: what they may do, and that whatever else they do is their own affair."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import REPOSITORY
from tests.serve.conftest import Served
from tests.serve.test_isolate import children, eventually, is_gone, letters_bundle, serving_process

from shipsight import load
from shipsight.errors import StepError, UsageError
from shipsight.model import ImagePredictions
from shipsight.proof.scenes import make_scene
from shipsight.serve import StepSettings, parse_steps
from shipsight.serve.steps import StepPool, StepTable
from shipsight.serve.steps.mapping import map_predictions
from shipsight.serve.steps.reading import read_predictions
from shipsight.steps import after, before, kind_of

pytestmark = pytest.mark.slow  # servers that start, die and wait

__all__ = ["letters_bundle"]  # a fixture

HEAD = "import os, signal, sys, time\nimport numpy as np\nfrom shipsight.steps import after, before\n\n"
PREDICT = "/v1/models/digits/predict"
NOTHING = ImagePredictions(
    source="a.jpg",
    width=40,
    height=20,
    class_names=("cat", "dog"),
    class_ids=np.array([0, 1]),
    scores=np.array([0.9, 0.5], dtype=np.float32),
    boxes_xyxy=np.array([[0, 0, 10, 10], [20, 5, 40, 20]], dtype=np.float32),
)
IMAGE = np.arange(20 * 40 * 3, dtype=np.uint8).reshape(20, 40, 3)

Made = Callable[..., StepPool]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Made]:
    pools = []

    def pool(text: str, **options: Any) -> StepPool:
        path = tmp_path / f"steps{len(pools)}.py"
        path.write_text(HEAD + text, encoding="utf-8")
        pools.append(StepPool(path, **{"workers": 1, "timeout_s": 60.0, **options}))
        pools[-1].open()
        return pools[-1]

    yield pool
    for one in pools:
        one.close()


def test_marked_functions_stay_functions() -> None:
    @before
    def first(image_rgb: np.ndarray) -> np.ndarray:
        return image_rgb

    @after
    def last(image_rgb: np.ndarray, predictions: dict[str, Any]) -> dict[str, Any]:
        return predictions

    assert (kind_of(first), kind_of(last), kind_of(len), kind_of(3)) == ("before", "after", None, None)
    assert first(IMAGE) is IMAGE


def test_steps_run_in_the_order_of_the_file_in_processes_of_their_own(make: Made) -> None:
    pool = make(
        "@before\ndef double(image_rgb):\n    return image_rgb.repeat(2, axis=1)\n\n"
        "@before\ndef in_place(image_rgb):\n    image_rgb[:, :40] = 7\n    return image_rgb\n\n"
        "@after\ndef drop(image_rgb, predictions):\n"
        "    predictions['predictions'] = predictions['predictions'][1:]\n    return predictions\n\n"
        "@after\ndef tell(image_rgb, predictions):\n"
        "    predictions['predictions'][0]['score'] = (os.getpid() % 1000) / 1000\n    return predictions\n"
    )
    assert pool.before_steps == ("double", "in_place")
    assert pool.after_steps == ("drop", "tell")
    original = IMAGE.copy()
    seen = pool.before(original)
    expected = IMAGE.repeat(2, axis=1)
    expected[:, :40] = 7
    np.testing.assert_array_equal(seen.image_rgb, expected)
    np.testing.assert_array_equal(original, IMAGE)
    assert seen.shown_rgb is seen.image_rgb
    found = pool.after(IMAGE, NOTHING)
    assert found.class_ids.tolist() == [1]
    assert found.scores[0] != pytest.approx(os.getpid() % 1000 / 1000)
    assert "shipsight_operator_steps" not in sys.modules


def test_a_step_with_a_matrix_gives_predictions_in_the_pixels_of_the_image_that_came(make: Made) -> None:
    pool = make(
        "@before\ndef crop(image_rgb):\n    return image_rgb[5:, 10:], [[1, 0, 10], [0, 1, 5]]\n\n"
        "@before\ndef half(image_rgb):\n    return image_rgb[::2, ::2], [[2, 0, 0], [0, 2, 0]]\n"
    )
    seen = pool.before(IMAGE)
    np.testing.assert_array_equal(seen.image_rgb, IMAGE[5:, 10:][::2, ::2])
    assert seen.shown_rgb is IMAGE
    assert seen.matrix is not None
    np.testing.assert_array_equal(seen.matrix, [[2, 0, 10], [0, 2, 5]])
    small = replace(NOTHING, width=15, height=8, boxes_xyxy=np.array([[0, 0, 5, 5], [1, 2, 3, 4]], dtype=np.float32))
    placed = seen.place(small)
    assert (placed.width, placed.height) == (40, 20)
    np.testing.assert_allclose(placed.boxes_xyxy, [[10, 5, 20, 15], [12, 9, 16, 13]])


def test_a_matrix_leads_back_to_the_last_image_without_one(make: Made) -> None:
    pool = make(
        "@before\ndef pad(image_rgb):\n    return np.pad(image_rgb, ((3, 3), (3, 3), (0, 0)))\n\n"
        "@before\ndef crop(image_rgb):\n    return image_rgb[5:, 10:], [[1, 0, 10], [0, 1, 5]]\n"
    )
    seen = pool.before(IMAGE)
    np.testing.assert_array_equal(seen.shown_rgb, np.pad(IMAGE, ((3, 3), (3, 3), (0, 0))))
    np.testing.assert_array_equal(seen.image_rgb, seen.shown_rgb[5:, 10:])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise ValueError('a secret')", "the step bad raised ValueError"),
        ("sys.exit(3)", "the step bad raised SystemExit"),
        ("return None", "returned no image"),
        ("return image_rgb / 2", "returned no image"),
        ("return image_rgb[..., 0]", "returned no image"),
        ("return image_rgb[:0]", "returned no image"),
        ("return np.zeros((5000, 5000, 3), np.uint8)", "too large an image"),
        ("return image_rgb, [[1, 0], [0, 1]]", "returned no matrix"),
        ("return image_rgb, [[1, 0, 0], [0, float('nan'), 0]]", "returned no matrix"),
        ("return image_rgb, 'left'", "returned no matrix"),
        ("return image_rgb, 1, 2", "returned no image"),
        ("os._exit(0)", "ended its process"),
        ("os.kill(os.getpid(), signal.SIGSEGV); time.sleep(1)", "ended its process"),
        ("time.sleep(600)", "took too long"),
        ("os.kill(os.getpid(), signal.SIGSTOP); time.sleep(1)", "took too long"),
        ("[os.close(n) for n in range(3, 60) if n != 99 and os.path.exists(f'/proc/self/fd/{n}')]", ""),
    ],
)
def test_a_step_that_fails_is_a_named_error_of_that_image_alone(
    make: Made, body: str, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pool = make(
        f"@before\ndef bad(image_rgb):\n    if image_rgb[0, 0, 0] == 99:\n        {body}\n    return image_rgb\n",
        timeout_s=3.0,
        max_pixels=10_000_000,
    )
    bad = IMAGE.copy()
    bad[0, 0, 0] = 99
    for _ in range(2):
        with pytest.raises(StepError) as caught:
            pool.before(bad)
        assert told in str(caught.value)
        assert "secret" not in str(caught.value)
    deadline = time.monotonic() + 60
    while True:  # where its process ended, another takes its place
        try:
            np.testing.assert_array_equal(pool.before(IMAGE).image_rgb, IMAGE)
            break
        except StepError:
            assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("return None", "no predictions"),
        ("return []", "no predictions"),
        ("return {1, 2}", "no predictions"),
        ("predictions['predictions'][0]['score'] = float('nan'); return predictions", "no predictions"),
        ("predictions['mine'] = 1; return predictions", "predictions: "),
        ("del predictions['predictions']; return predictions", "predictions: "),
        ("predictions['width'] = 7; return predictions", "width: "),
        ("predictions['predictions'][1]['score'] = 1.5; return predictions", "predictions[1].score"),
        ("predictions['predictions'][1]['score'] = '1'; return predictions", "predictions[1].score"),
        ("predictions['predictions'][0]['class_id'] = 2; return predictions", "predictions[0].class_id"),
        ("predictions['predictions'][0]['class_id'] = True; return predictions", "predictions[0].class_id"),
        ("predictions['predictions'][0]['class_name'] = 'cow'; return predictions", "predictions[0].class_name"),
        ("predictions['predictions'][0]['box_xyxy'] = [1, 2, 3]; return predictions", "predictions[0].box_xyxy"),
        ("predictions['predictions'][0]['lane'] = 3; return predictions", "predictions[0]: "),
        ("raise KeyError('a secret')", "raised KeyError"),
    ],
)
def test_predictions_that_are_none_are_refused_with_the_place(make: Made, body: str, where: str) -> None:
    pool = make(f"@after\ndef bad(image_rgb, predictions):\n    {body}\n")
    with pytest.raises(StepError) as caught:
        pool.after(IMAGE, NOTHING)
    assert where in str(caught.value)
    assert "secret" not in str(caught.value)


def test_predictions_come_back_by_falling_score_and_may_be_added(make: Made) -> None:
    pool = make(
        "@after\ndef add(image_rgb, predictions):\n"
        "    one = dict(predictions['predictions'][1], score=0.7)\n"
        "    predictions['predictions'].append(one)\n    return predictions\n"
    )
    found = pool.after(IMAGE, NOTHING)
    np.testing.assert_allclose(found.scores, [0.9, 0.7, 0.5])
    assert found.class_ids.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(found.boxes_xyxy, NOTHING.boxes_xyxy[[0, 1, 1]])  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import there_is_no_such_module\n", "there_is_no_such_module"),
        ("def broken(:\n", "SyntaxError"),
        ("os._exit(1)\n", "ends its process"),
        ("sys.exit('no')\n", "SystemExit"),
        ("x = 1\n", "no step"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_at_the_start(make: Made, text: str, told: str) -> None:
    with pytest.raises(StepError) as caught:
        make(text)
    assert told in str(caught.value)


def test_a_file_may_import_its_neighbours_and_leaves_no_files_behind(make: Made, tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("LEVEL = 42\n", encoding="utf-8")
    pool = make(
        "import neighbour\n\n@before\ndef fill(image_rgb):\n    return np.full_like(image_rgb, neighbour.LEVEL)\n"
    )
    assert (pool.before(IMAGE).image_rgb == 42).all()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["neighbour.py", "steps0.py"]


def test_the_example_of_the_guide_does_what_the_guide_says(make: Made) -> None:
    guide = (REPOSITORY / "docs" / "steps.md").read_text(encoding="utf-8")
    pool = make(guide.partition("```python\n")[2].partition("```")[0])
    image = np.arange(60 * 30 * 3, dtype=np.uint8).reshape(60, 30, 3)
    seen = pool.before(image)
    np.testing.assert_array_equal(seen.image_rgb, image[40:])
    found = replace(NOTHING, width=30, height=20, boxes_xyxy=np.array([[0, 0, 30, 20], [0, 0, 5, 5]], dtype=np.float32))
    (one,) = pool.after(seen.shown_rgb, seen.place(found)).to_dict()["predictions"]
    assert one["box_xyxy"] == [0, 40, 30, 60]


def test_steps_of_several_images_run_side_by_side(make: Made, tmp_path: Path) -> None:
    # Each waits for the other: one after the other they would wait for ever.
    pool = make(
        f"PLACE = {str(tmp_path)!r}\n\n@before\ndef meet(image_rgb):\n"
        "    mine, other = ('a', 'b') if image_rgb[0, 0, 0] else ('b', 'a')\n"
        "    open(f'{PLACE}/{mine}', 'w').close()\n"
        "    while not os.path.exists(f'{PLACE}/{other}'):\n        time.sleep(0.01)\n"
        "    return image_rgb\n",
        workers=2,
    )
    errors: list[BaseException] = []

    def run(level: int) -> None:
        try:
            pool.before(np.full_like(IMAGE, level))
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(level,)) for level in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_what_a_step_started_ends_with_it(make: Made, tmp_path: Path) -> None:
    pool = make(
        f"import subprocess\nPLACE = {str(tmp_path)!r}\n\n@before\ndef start(image_rgb):\n"
        "    child = subprocess.Popen(['sleep', '600'], close_fds=False)\n"
        "    open(f'{PLACE}/pid', 'w').write(str(child.pid))\n    os._exit(1)\n"
    )
    with pytest.raises(StepError):
        pool.before(IMAGE)
    pid = int((tmp_path / "pid").read_text(encoding="ascii"))
    eventually(lambda: is_gone(pid))


numbers = st.floats(-50, 90, width=32)
boxes = st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=5)


def with_boxes(rows: list[tuple[float, ...]]) -> ImagePredictions:
    return replace(
        NOTHING,
        class_ids=np.zeros(len(rows), np.int64),
        scores=np.zeros(len(rows), np.float32),
        boxes_xyxy=np.array(rows, np.float32).reshape(-1, 4),
    )


@given(boxes)
def test_mapping_that_moves_nothing_only_clips(rows: list[tuple[float, ...]]) -> None:
    ordered = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in rows]
    mapped = map_predictions(with_boxes(ordered), np.eye(3)[:2], (20, 40))
    expected = np.clip(np.array(ordered, np.float32).reshape(-1, 4), 0, [40, 20, 40, 20])
    np.testing.assert_array_equal(mapped.boxes_xyxy, expected)


def test_mapping_of_a_mirrored_image_brings_everything_back() -> None:
    mask = np.zeros((1, 4, 6), np.bool_)
    mask[0, 1:3, 0:2] = True
    mirrored = ImagePredictions(
        source=None,
        width=6,
        height=4,
        class_names=("cat",),
        class_ids=np.array([0]),
        scores=np.array([0.5], np.float32),
        boxes_xyxy=np.array([[0, 1, 2, 3]], np.float32),
        corners_xy=np.array([[[0, 1], [2, 1], [2, 3], [0, 3]]], np.float32),
        keypoints_xyc=np.array([[[1, 2, 0.5], [-3, 2, 0.5]]], np.float32),
        masks=mask,
    )
    found = map_predictions(mirrored, np.array([[-1.0, 0, 6], [0, 1, 0]]), (4, 6))
    np.testing.assert_allclose(found.boxes_xyxy, [[4, 1, 6, 3]])
    np.testing.assert_allclose(found.corners_xy, [[[6, 1], [4, 1], [4, 3], [6, 3]]])
    np.testing.assert_allclose(found.keypoints_xyc, [[[5, 2, 0.5], [6, 2, 0.5]]])
    np.testing.assert_array_equal(found.masks, mask[:, :, ::-1])
    away = map_predictions(mirrored, np.array([[1.0, 0, 50], [0, 1, 0]]), (4, 6))
    assert len(away) == 0, "of the mask nothing is left"


@pytest.mark.parametrize("task", ["segment", "pose", "obb", "classify"])
def test_predictions_of_every_task_read_back_as_they_were(task: str) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "segment": {"masks": np.random.default_rng(0).random((2, 20, 40)) > 0.5},
        "pose": {"keypoints_xyc": np.arange(18, dtype=np.float32).reshape(2, 3, 3)},
        "obb": {"boxes_xyxy": None, "corners_xy": np.arange(16, dtype=np.float32).reshape(2, 4, 2)},
        "classify": {
            "class_ids": np.zeros(0, np.int64),
            "scores": np.zeros(0, np.float32),
            "boxes_xyxy": None,
            "probabilities": np.array([0.25, 0.75], np.float32),
        },
    }
    predictions = replace(NOTHING, **kinds[task])
    found = read_predictions(json.loads(json.dumps(predictions.to_dict())), predictions)
    for name in ("class_ids", "scores", "boxes_xyxy", "corners_xy", "keypoints_xyc", "masks", "probabilities"):
        was, got = getattr(predictions, name), getattr(found, name)
        assert (was is None) == (got is None), name
        if was is not None:
            np.testing.assert_array_equal(was, got)
            assert was.dtype == got.dtype
    empty = read_predictions({**predictions.to_dict(), "predictions": []}, predictions) if task != "classify" else None
    assert empty is None or len(empty) == 0


def test_files_of_steps_are_for_all_models_or_for_one(tmp_path: Path) -> None:
    assert parse_steps("mine.py") == ("", Path("mine.py"))
    assert parse_steps("digits=mine.py") == ("digits", Path("mine.py"))
    assert parse_steps("./a=b.py") == ("", Path("a=b.py"))
    file = tmp_path / "mine.py"
    with pytest.raises(UsageError, match="no such file"):
        StepSettings((("", file),))
    file.touch()
    with pytest.raises(UsageError, match="one file"):
        StepSettings((("a", file), ("a", file)))
    table = StepTable(StepSettings((("digits", file),)))
    assert table.of("digits") is not None
    assert table.of("letters") is None
    with pytest.raises(UsageError, match="not served"):
        table.check(["letters"])
    table.close()


STEPS = (
    HEAD
    + """
@before
def crop(image_rgb):
    if image_rgb.shape[0] == 100:
        raise RuntimeError("a secret")
    if image_rgb.shape[0] == 101:
        os.kill(os.getpid(), signal.SIGKILL)
    print("not for standard output", flush=True)
    return image_rgb[20:, 40:].copy(), [[1, 0, 40], [0, 1, 20]]


@after
def best_only(image_rgb, predictions):
    predictions["predictions"] = predictions["predictions"][:1]
    return predictions
"""
)


@pytest.fixture(scope="module")
def steps_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("steps") / "lane.py"
    path.write_text(STEPS, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def stepping(start: Callable[..., Served], digits_bundle: Path, letters_bundle: Path, steps_file: Path) -> Served:
    arguments = ("--streams", "1", "--steps", f"digits={steps_file}")
    return start(digits_bundle, letters_bundle, *arguments)


def test_a_served_model_with_steps_answers_in_the_pixels_of_the_image_sent(
    stepping: Served, digits_bundle: Path, steps_file: Path, jpeg: bytes
) -> None:
    with stepping.client as client:
        answer = client.post(PREDICT, content=jpeg)
        plain = client.post(PREDICT.replace("digits", "letters"), content=jpeg)
        drawn = client.post(PREDICT, content=jpeg, headers={"accept": "image/jpeg"})
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    with load(digits_bundle) as model:
        (expected,) = model.predict(np.ascontiguousarray(pixels[20:, 40:])).to_dict()["images"]
        (whole,) = model.predict(jpeg).to_dict()["images"]
    (image,) = answer.json()["images"]
    assert (image["width"], image["height"]) == (320, 240)
    (one,) = image["predictions"]
    assert one["score"] == pytest.approx(expected["predictions"][0]["score"], abs=1e-3)
    np.testing.assert_allclose(
        one["box_xyxy"], np.add(expected["predictions"][0]["box_xyxy"], [40, 20, 40, 20]), atol=0.5
    )
    assert len(plain.json()["images"][0]["predictions"]) == len(whole["predictions"]), "no steps for this model"
    assert "steps;dur=" in answer.headers["server-timing"]
    assert "steps" not in plain.headers["server-timing"]
    assert cv2.imdecode(np.frombuffer(drawn.content, np.uint8), cv2.IMREAD_COLOR).shape == (240, 320, 3)
    with stepping.client as client:
        assert 'stage="steps"' in client.get("/metrics").text


@pytest.mark.parametrize("height", [100, 101])
def test_a_step_that_fails_over_http_is_a_500_with_its_code_and_no_other_request_notices(
    stepping: Served, jpeg: bytes, height: int
) -> None:
    scene = cv2.resize(make_scene(1), (160, height))
    bad = cv2.imencode(".jpg", scene)[1].tobytes()
    with stepping.client as client:
        for _ in range(3):
            answer = client.post(PREDICT, content=bad)
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "step")
            assert "crop" in answer.json()["error"]["what"]
            assert "secret" not in answer.text
            assert "Traceback" not in answer.text
            assert client.post(PREDICT.replace("digits", "letters"), content=jpeg).status_code == 200
            assert client.post(PREDICT, content=jpeg).status_code == 200


def test_processes_of_steps_end_with_the_server(
    start: Callable[..., Served], digits_bundle: Path, steps_file: Path
) -> None:
    server = start(digits_bundle, "--streams", "1", "--steps", steps_file, "--step-workers", "3")
    serving = serving_process(server)
    pids = children(serving)
    assert len(pids) == 3
    os.kill(serving, signal.SIGKILL)
    eventually(lambda: all(map(is_gone, pids)))
    events = server.events()
    assert [next(events)["event"] for _ in range(2)] == ["restart", "ready"]
    pids = children(serving_process(server))
    assert len(pids) == 3
    assert server.stop() == 0
    assert all(map(is_gone, pids))


def test_a_file_that_cannot_be_imported_ends_the_start_with_its_reason(digits_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import there_is_no_such_module\n", encoding="utf-8")
    sound = tmp_path / "sound.py"
    sound.write_text(STEPS, encoding="utf-8")
    for arguments, told in (
        (["--steps", str(file)], "there_is_no_such_module"),
        (["--steps", f"other={sound}"], "not served"),
        (["--steps", str(tmp_path / "gone.py")], "no such file"),
    ):
        command = [sys.executable, "-m", "shipsight", "serve", str(digits_bundle), "--port", "0", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 2
        assert told in done.stderr


def test_predict_runs_the_same_steps(digits_bundle: Path, steps_file: Path, tmp_path: Path, jpeg: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg)
    command = [sys.executable, "-m", "shipsight", "predict", str(digits_bundle), str(tmp_path / "a.jpg"), "--json"]
    told = subprocess.run(
        [*command, "--steps", str(steps_file)], capture_output=True, text=True, timeout=120, check=True
    )
    (image,) = json.loads(told.stdout)["images"]
    assert (image["width"], image["height"], len(image["predictions"])) == (320, 240, 1)
