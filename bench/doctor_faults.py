# SPDX-License-Identifier: Apache-2.0
"""What the doctor finds: faults planted in real pipelines on real models, at three strengths, and pipelines in which nothing is wrong.

The command line is asked, as a user would, and its JSON read: the right rule must come first. Strengths stand here; rules were repaired by
what seed 20260 showed, so measure with another (`--seed`).

    python bench/doctor_faults.py --bundles DIR --data DIR --out bench/results/doctor-faults.md

`--bundles` holds `yolo11n.bundle` (640 px), `bccd.bundle` (320 px) and `digits.bundle`; `--data` the models and images that they were built
from. About 2 hours on two cores; `--only FAMILY` and `--names TEXT` choose, `--done FILE` goes on with what is done already.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml
from faults.plan import Planted, Scene, faults, healthy, scene

import shipsight

OF_WEIGHT = {"error", "warning"}
NEVER_A_CAUSE = {"images-too-few", "model-file-differs"}
"""Notes on what was given: they stand beside any cause."""


def scenes(bundles: Path, data: Path, digits: Path) -> list[Scene]:
    made = []
    for name, checkpoint, folder in (
        ("bccd", data / "models" / "bccd-yolo11n.pt", data / "bccd"),
        ("yolo11n", data / "models" / "yolo11n.pt", data / "coco128"),
        ("digits", Path("examples/digits/digits.pt"), digits),
    ):
        bundle = bundles / f"{name}.bundle"
        card = yaml.safe_load((bundle / "bundle.yaml").read_text(encoding="utf-8"))["card"]
        names = card.get("class_names") or card["names"]
        made.append(scene(name, bundle, checkpoint, tuple(map(str, names)), folder))
    return made


def diagnose(one: Planted, where: Scene, seed: int) -> dict[str, Any]:
    """Plants a fault and asks the doctor; returns what it said."""
    with tempfile.TemporaryDirectory(prefix="shipsight-fault-") as made:
        about, *given = one.plant(where, Path(made), seed)
        command = [sys.executable, "-m", "shipsight", "doctor", about, str(where.bundle), *given, "--json"]
        begin_s = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
        took_s = time.monotonic() - begin_s
    told: dict[str, Any] = {"findings": [], "said": done.stderr[-600:]}
    with contextlib.suppress(ValueError):
        told |= json.loads(done.stdout)  # of an error, no findings
    found = [(item["rule"], item["severity"], item["weight"], item["evidence"]) for item in told["findings"]]
    weighty = [rule for rule, severity, _, _ in found if severity in OF_WEIGHT]
    named = [rule for rule, *_ in found if rule not in NEVER_A_CAUSE]
    if one.right:
        # A note names its cause as well: it says that the model does not suffer from it.
        is_right = (bool(named) and named[0] in one.right) or (not weighty and one.may_be_unseen)
        is_seen = bool(named)
    else:
        is_right, is_seen = not weighty, bool(weighty)
    return {
        "name": one.name,
        "family": one.family,
        "strength": one.strength,
        "model": where.name,
        "seed": seed,
        "right": sorted(one.right),
        "found": found[:4],
        "is_right": is_right and done.returncode in (0, 1),
        "is_seen": is_seen,
        "exit": done.returncode,
        "said": told.get("said", ""),
        "took_s": took_s,
    }


def table(done: list[dict[str, Any]]) -> str:
    lines = ["| fault | in | strength | model | first | right | s |", "|---|---|---|---|---|---|---|"]
    for one in done:
        first = one["found"][0][0] if one["found"] else "-"
        mark = "yes" if one["is_right"] else f"**no**: {', '.join(one['right']) or 'nothing'}"
        if one["is_right"] and one["right"] and not one["is_seen"]:
            mark = "not visible, and said so"
        if one["exit"] not in (0, 1):
            first = f"exit {one['exit']}"
        lines.append(
            f"| {one['name']} | {one['family']} | {one['strength']} | {one['model']} | {first} | {mark} | {one['took_s']:.0f} |"
        )
    return "\n".join(lines)


def summary(done: list[dict[str, Any]]) -> str:
    families: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in done:
        families[one["family"]].append(one)
    lines = ["| family | right | of |", "|---|---|---|"]
    lines += [f"| {name} | {sum(one['is_right'] for one in some)} | {len(some)} |" for name, some in families.items()]
    planted = [one for one in done if one["right"]]
    well = [one for one in done if not one["right"]]
    right = sum(one["is_right"] for one in planted)
    if planted:
        lines += [
            "",
            f"{right} of {len(planted)} planted faults: the right rule came first ({right / len(planted):.1%}).",
        ]
    if well:
        quiet = sum(one["is_right"] for one in well)
        lines += ["", f"{quiet} of {len(well)} healthy pipelines: nothing of weight was found."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", help="family: tensor, predictions, camera, export, speed, healthy")
    parser.add_argument("--names", help="part of a fault's name")
    parser.add_argument("--models", default="bccd,yolo11n,digits")
    parser.add_argument("--seed", type=int, default=20260)
    parser.add_argument("--done", type=Path, help="file of what is done: lines of JSON, added to")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        digits = Path(made) / "digits"
        command = [sys.executable, "examples/digits/generate.py", "--out", str(digits), "--train", "48", "--val", "64"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        every = [
            one for one in scenes(arguments.bundles, arguments.data, digits) if one.name in arguments.models.split(",")
        ]
        done = run(arguments, every)
    text = "\n".join(
        [
            "# Faults that were planted, and what the doctor said first",
            "",
            f"`python bench/doctor_faults.py`, shipsight {shipsight.__version__}, seed {arguments.seed}, {os.cpu_count()} cores.",
            "",
            summary(done),
            "",
            table(done),
            "",
        ]
    )
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


def run(arguments: argparse.Namespace, every: list[Scene]) -> list[dict[str, Any]]:
    """Plants one fault after another, each in the next model."""
    cases = []
    for number, one in enumerate(faults()):
        able = [where for where in every if where.name in (one.models or {where.name})]
        cases.append((one, able[number % len(able) :][:1] if able else []))
    cases += [(one, every) for one in healthy()]
    before = arguments.done.read_text().splitlines() if arguments.done and arguments.done.exists() else []
    done: list[dict[str, Any]] = [json.loads(line) for line in before]
    known = {(one["name"], one["family"], one["strength"], one["model"]) for one in done}
    for number, (one, places) in enumerate(cases):
        if (arguments.only or one.family) != one.family or (arguments.names or "") not in one.name:
            continue
        for where in places:
            if (one.name, one.family, one.strength, where.name) in known:
                continue
            told = diagnose(one, where, arguments.seed + number)
            done.append(told)
            print(f"{'ok  ' if told['is_right'] else 'NO  '}{told['family']} {told['name']} {told['strength']} {told['model']}: "
                  f"{[f'{r} {s} {w:.2f}' for r, s, w, _ in told['found']]} {told['took_s']:.0f} s", file=sys.stderr, flush=True)  # fmt: skip
            if arguments.done is not None:
                with arguments.done.open("a") as file:
                    file.write(json.dumps(told) + "\n")
    return done


if __name__ == "__main__":
    main()
