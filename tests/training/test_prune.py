# SPDX-License-Identifier: Apache-2.0
"""The whole way of `shipsight optimize prune`, small: networks of every task, a few images drawn here, one epoch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.training.test_channels import TASKS

from shipsight.build.progress import Silent
from shipsight.errors import UsageError
from shipsight.training import PruneOptions, PruneResult, TrainOptions, prune

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.long]

SIZE = 64
TASK_OF = {"": "detect", "-seg": "segment", "-pose": "pose", "-obb": "obb", "-cls": "classify"}


def write_data(folder: Path, task: str) -> Path:
    """Images with one bright square each, labelled as the task has it: two classes by colour."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 4)):
        for number in range(count):
            pixels = draw.integers(0, 60, (SIZE, SIZE, 3), np.uint8)
            kind = number % 2
            x, y = draw.integers(4, 36, 2)
            pixels[y : y + 20, x : x + 20, kind] = 255
            x0, y0, x1, y1 = (value / SIZE for value in (x, y, x + 20, y + 20))
            box = f"{(x0 + x1) / 2} {(y0 + y1) / 2} {x1 - x0} {y1 - y0}"
            corners = f"{x0} {y0} {x1} {y0} {x1} {y1} {x0} {y1}"
            if task == "classify":
                image = folder / part / f"class{kind}" / f"{number}.png"
            else:
                image = folder / "images" / part / f"{number}.png"
                points = " ".join(f"{(x0 + x1) / 2} {(y0 + y1) / 2} 2" for _ in range(17))
                rows = {"detect": box, "segment": corners, "obb": corners, "pose": f"{box} {points}"}
                label = folder / "labels" / part / f"{number}.txt"
                label.parent.mkdir(parents=True, exist_ok=True)
                label.write_text(f"{0 if task == 'pose' else kind} {rows[task]}\n")
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(image)
    if task == "classify":
        return folder
    names = ["person"] if task == "pose" else ["class0", "class1"]
    told: dict[str, Any] = {"train": "images/train", "val": "images/val", "names": names}
    if task == "pose":
        told["kpt_shape"] = [17, 3]
    (folder / "data.yaml").write_text(yaml.safe_dump(told))
    return folder / "data.yaml"


def write_model(folder: Path, suffix: str) -> Path:
    """A network that was never trained, with the classes of `write_data`, as a checkpoint."""
    import torch
    from ultralytics.nn import tasks

    count = 1 if suffix == "-pose" else 2
    network = getattr(tasks, TASKS[suffix])(f"yolo11n{suffix}.yaml", nc=count, verbose=False)
    names = ["person"] if suffix == "-pose" else ["class0", "class1"]
    network.names = dict(enumerate(names))
    network.args = {"task": TASK_OF[suffix], "imgsz": SIZE}
    place = folder / f"tiny{suffix}.pt"
    torch.save({"epoch": -1, "model": network.half(), "train_args": {"task": TASK_OF[suffix], "imgsz": SIZE}}, place)
    return place


def pruned(tmp_path: Path, suffix: str, **more: Any) -> PruneResult:
    data = write_data(tmp_path / "data", TASK_OF[suffix])
    training = TrainOptions(data=data, size_hw=(SIZE, SIZE), epochs=1, batch=4, **more)
    return prune(
        write_model(tmp_path, suffix),
        out=tmp_path / "pruned.pt",
        training=training,
        options=PruneOptions(share=0.6, multiple=8, images=8),
        progress=Silent(),
    )


@pytest.mark.parametrize("suffix", TASKS)
def test_a_model_of_every_task_is_pruned_and_stays_one_of_ultralytics(tmp_path: Path, suffix: str) -> None:
    result = pruned(tmp_path, suffix)
    assert result.share <= 0.6
    assert result.checkpoint == tmp_path / "pruned.pt"
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert told["images_measured"] == 4
    assert set(told["pruned"]) == set(told["controls"]) == {"0"}
    assert told["difference"]["low"] <= told["difference"]["value"] <= told["difference"]["high"]
    # Nothing was written beside the user's labels.
    assert not list((tmp_path / "data").rglob("*.cache"))
    stock_accepts(tmp_path, result.checkpoint)


def stock_accepts(folder: Path, checkpoint: Path) -> None:
    """A process that knows nothing of shipsight loads, runs, and exports the checkpoint."""
    program = """
import sys
from ultralytics import YOLO
assert not any(name.startswith("shipsight") for name in sys.modules)
model = YOLO(sys.argv[1])
assert {type(module).__module__.partition(".")[0] for module in model.model.modules()} == {"torch", "ultralytics"}
model.predict(sys.argv[2], imgsz=64, verbose=False, save=False)
print(model.export(format="onnx", imgsz=64, verbose=False, simplify=False))
"""
    image = next((folder / "data").rglob("*.png"))
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(folder / "settings"), "YOLO_OFFLINE": "true"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(checkpoint), str(image)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert checkpoint.with_suffix(".onnx").exists()


def test_it_is_trained_further_and_resumed_with_its_widths(tmp_path: Path) -> None:
    from shipsight.training import keeping_trainer

    result = pruned(tmp_path, "", has_control=False)
    assert result.difference is None
    import torch
    from ultralytics import YOLO

    def widths(path: Path) -> list[int]:
        network = YOLO(path).model
        return [module.out_channels for module in network.modules() if isinstance(module, torch.nn.Conv2d)]

    wanted = widths(result.checkpoint)
    common = {"workers": 0, "plots": False, "verbose": False, "device": "cpu", "amp": False}
    trained = YOLO(result.checkpoint)
    stopped = {"after": 0}

    def stop(trainer: Any) -> None:
        stopped["after"] += 1
        if stopped["after"] == 1:
            raise KeyboardInterrupt

    trained.add_callback("on_model_save", stop)
    with pytest.raises(KeyboardInterrupt):
        trained.train(
            data=tmp_path / "data" / "data.yaml",
            epochs=2,
            imgsz=SIZE,
            batch=4,
            project=tmp_path / "runs",
            name="on",
            trainer=keeping_trainer("detect"),
            **common,
        )
    last = tmp_path / "runs" / "on" / "weights" / "last.pt"
    assert widths(last) == wanted
    YOLO(last).train(resume=True, trainer=keeping_trainer("detect"), **common)
    assert widths(last) == wanted


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    data, model = write_data(tmp_path / "data", "detect"), write_model(tmp_path, "")
    command = [sys.executable, "-m", "shipsight", "optimize", "prune", str(model), "--data", str(data), "--json"]
    command += ["--out", str(tmp_path / "pruned.pt"), "--imgsz", str(SIZE), "--epochs", "6", "--batch", "4"]
    command += ["--target-flops", "0.6", "--multiple", "8", "--images", "8", "--no-control"]
    work = tmp_path / ".pruned.pt.work" / "seed-0"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0)
    end = time.monotonic() + 300
    while not list((work / "train-0").glob("resume-*.pt")):
        assert process.poll() is None, process.stderr.read().decode()[-2000:] if process.stderr else ""
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    decided = work.parent / "prune-0" / "result.json"
    plan = decided.stat().st_mtime_ns
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["difference"] is None
    assert (tmp_path / "pruned.pt").exists()
    assert decided.stat().st_mtime_ns == plan, "what was done is not done again"
    arguments = yaml.safe_load((work / "train-0" / "ultralytics" / "args.yaml").read_text())
    assert Path(arguments["resume"]).name.startswith("resume-")
    rows = (work / "train-0" / "ultralytics" / "results.csv").read_text().splitlines()[1:]
    assert [int(row.partition(",")[0]) for row in rows] == [1, 2, 3, 4, 5, 6]


class Watched(Silent):
    """Adds up what steps were said to take."""

    def __init__(self) -> None:
        self.planned = self.spent = 0.0

    def plan(self, cost: float) -> None:
        self.planned = cost

    def step(self, text: str, cost: float = 1.0) -> None:
        self.spent += cost


def test_a_latency_is_met_in_several_steps_that_were_planned(tmp_path: Path) -> None:
    """Whatever a machine takes for a network: half of that is asked for, and the time left is told from the whole."""
    from shipsight.build.sources import Sandbox
    from shipsight.training.measuring import compare_speed, open_measured

    data, model = write_data(tmp_path / "data", "detect"), write_model(tmp_path, "")
    source = open_measured(model, (256, 256), sandbox=Sandbox.REQUIRED)
    took_ms = compare_speed({"source": source}, threads=1).medians_ms["source"]
    progress = Watched()
    result = prune(
        model,
        out=tmp_path / "pruned.pt",
        training=TrainOptions(data=data, size_hw=(256, 256), epochs=2, batch=4, has_control=False, threads=1),
        options=PruneOptions(share=None, latency_ms=0.8 * took_ms, steps=2, multiple=8, images=8),
        progress=progress,
    )
    assert result.share < 0.95
    assert result.speed.speedup("pruned") > 1.1
    assert progress.spent == progress.planned


def test_seeds_share_what_does_not_depend_on_them(tmp_path: Path) -> None:
    result = pruned(tmp_path, "", seeds=(3, 4))
    assert set(result.pruned) == set(result.controls) == {3, 4}
    work = tmp_path / ".pruned.pt.work"
    assert {place.parent.name for place in work.rglob("prune-*/result.json")} == {"prune-0"}
    assert {place.parent.parent.name for place in work.rglob("train-*/result.json")} == {"seed-3", "seed-4"}
    assert result.to_dict()["spread"] is not None


def test_an_image_that_is_reported_on_trains_nobody_under_another_name(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", "detect").parent
    seen = data / "images" / "val" / "0.png"
    (data / "images" / "train" / "again.png").write_bytes(seen.read_bytes())
    (data / "labels" / "train" / "again.txt").write_bytes((data / "labels" / "val" / "0.txt").read_bytes())
    training = TrainOptions(data=data / "data.yaml", size_hw=(SIZE, SIZE), epochs=1, batch=4, has_control=False)
    options = PruneOptions(share=0.6, multiple=8, images=8)
    model = write_model(tmp_path, "")
    result = prune(model, out=tmp_path / "pruned.pt", training=training, options=options, progress=Silent())
    trained = (tmp_path / ".pruned.pt.work" / "data" / "images" / "train").iterdir()
    assert seen.read_bytes() not in [image.read_bytes() for image in trained]
    assert "duplicates-between-splits" in {one.code for one in result.warnings}


@pytest.mark.parametrize("name", ["pruned.pt", "pruned.html"])
def test_what_exists_is_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists"):
        pruned(tmp_path, "")
    assert (tmp_path / name).read_bytes() == b"mine"
