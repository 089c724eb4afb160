# SPDX-License-Identifier: Apache-2.0
"""What the doctor finds: faults planted in real pipelines on real models, at three strengths, and pipelines in which nothing is wrong.

First labels say what each fault costs, without the doctor (`--costs` keeps that); by it is decided what the doctor has to say (`faults.plan`). Then the
command line is asked, as a user would, and its JSON read. Rules were repaired by what seed 20260 showed, so measure with another (`--seed`).

    python bench/doctor_faults.py --bundles DIR --data DIR --out bench/results/doctor-faults.md

`--bundles` holds `yolo11n.bundle` (640 px), `bccd.bundle` (320 px) and `digits.bundle`; `--data` the models and images that they were built
from. About 2 hours on two cores; `--only FAMILY` and `--names TEXT` choose, `--done FILE` goes on with what is done already.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from faults.cost import loss
from faults.plan import faults, healthy
from faults.planting import Costed, Planted, Scene, scene

import shipsight
from access import start

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
    return [dataclasses.replace(one, others=made[number - 1].images) for number, one in enumerate(made)]


def cost(one: Planted, where: Scene, seed: int) -> dict[str, float] | str:
    """Returns what a fault costs by labels, or in a word why that is not known."""
    if not one.right or not isinstance(one.plant, Costed):
        return "not measured"
    plant = one.plant
    found = loss(where.pipeline, where.data, lambda folder: plant.wrong(where, folder, seed))
    return "all" if found is None else found.to_dict()


def visibly_hurts(known: dict[str, float] | str) -> bool:
    """Whether labels say that a fault costs accuracy."""
    return known == "all" if isinstance(known, str) else known["low"] > 0


def must_weigh(known: dict[str, float] | str) -> bool:
    """Whether a fault must be told as an error or a warning: it hurts, or labels cannot say."""
    return isinstance(known, str) or visibly_hurts(known)


def diagnose(one: Planted, where: Scene, seed: int, known: dict[str, float] | str) -> dict[str, Any]:
    """Plants a fault and asks the doctor; returns what it said."""
    with tempfile.TemporaryDirectory(prefix="shipsight-fault-") as made:
        about, *given = one.plant(where, Path(made), seed)
        bundle = where.bundle if one.bundle is None else one.bundle(where, Path(made), seed)
        environment = {**os.environ, **({} if one.environment is None else one.environment())}
        around = contextlib.nullcontext() if one.around is None else one.around(where, Path(made), seed)
        with held_to(one.cores) as before, served(one, where, Path(made), seed) as against, around as address:
            command = [sys.executable, "-m", "shipsight", "doctor", about, address or str(bundle), *given, "--json"]
            begin_s = time.monotonic()
            done = subprocess.run(
                [*one.before, *before, *command, *against],
                capture_output=True,
                text=True,
                timeout=1800,
                env=environment,
            )
            took_s = time.monotonic() - begin_s
    told: dict[str, Any] = {"findings": [], "said": done.stderr[-600:]}
    with contextlib.suppress(ValueError):
        told |= json.loads(done.stdout)  # of an error, no findings
    found = [(item["rule"], item["severity"], item["weight"], item["evidence"]) for item in told["findings"]]
    weighty = [rule for rule, severity, _, _ in found if severity in OF_WEIGHT]
    named = [(rule, severity) for rule, severity, *_ in found if rule not in NEVER_A_CAUSE - one.right]
    return {
        "name": one.name,
        "family": one.family,
        "strength": one.strength,
        "model": where.name,
        "seed": seed,
        "right": sorted(one.right),
        "cost": known,
        "is_unsaid": bool(one.right) and not weighty and visibly_hurts(known),
        "found": found[:4],
        "is_right": judge(one, named, weighty, known) and done.returncode in (0, 1),
        "is_seen": bool(named) if one.right else bool(weighty),
        "exit": done.returncode,
        "said": told.get("said", ""),
        "took_s": took_s,
    }


@contextlib.contextmanager
def served(one: Planted, where: Scene, folder: Path, seed: int) -> Iterator[list[str]]:
    """Gives what names the server that answers in production; it ends with the block."""
    if one.serves is None:
        yield []
        return
    bundle = one.serves(where, folder, seed)
    options = ["--state", str(folder / "state")]
    _, running = start("older", bundle, [], dict(os.environ), None, *options)
    try:
        yield ["--against", running.url]
    finally:
        running.stop()


@contextlib.contextmanager
def held_to(cores: float | None) -> Iterator[list[str]]:
    """Gives what is run before a command so that its control group has so much of the processors; needs root, and version 1 or 2 mounted."""
    if cores is None:
        yield []
        return
    first = Path("/sys/fs/cgroup/cpu")
    group = (first if first.is_dir() else Path("/sys/fs/cgroup")) / f"shipsight-fault-{os.getpid()}"
    group.mkdir(exist_ok=True)
    if first.is_dir():
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text(str(int(cores * 100_000)))
    else:
        (group / "cpu.max").write_text(f"{int(cores * 100_000)} 100000")
    try:
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    finally:
        group.rmdir()


def judge(one: Planted, named: list[tuple[str, str]], weighty: list[str], known: dict[str, float] | str) -> bool:
    """Tells whether the doctor said what it has to (`faults.plan`)."""
    if not one.right:
        return not weighty
    if named and named[0][0] in one.right and (named[0][1] in OF_WEIGHT or not must_weigh(known)):
        return True
    if one.is_noted and named and named[0][0] in one.right:
        return True
    return one.may_be_unseen and not weighty


def table(done: list[dict[str, Any]]) -> str:
    lines = [
        "| fault | in | strength | model | mAP50-95 lost | first | right | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in done:
        first = f"{one['found'][0][0]} ({one['found'][0][1]})" if one["found"] else "-"
        mark = "yes" if one["is_right"] else f"**no**: {', '.join(one['right']) or 'nothing'}"
        if one["is_right"] and one["right"] and not one["is_seen"]:
            mark = "not visible, and said so"
        if one["exit"] not in (0, 1):
            first = f"exit {one['exit']}"
        lines.append(
            f"| {one['name']} | {one['family']} | {one['strength']} | {one['model']} | {shown(one['cost'])} | {first} | {mark} | {one['took_s']:.0f} |"
        )
    return "\n".join(lines)


def shown(known: dict[str, float] | str) -> str:
    if isinstance(known, str):
        return known
    return f"{known['value']:.3f} [{known['low']:.3f}, {known['high']:.3f}]"


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
        unsaid = sum(one["is_right"] and one["is_unsaid"] for one in planted)
        lines += [
            "",
            f"{right} of {len(planted)} planted faults: the right rule came first, or silence where that is right ({right / len(planted):.1%}).",
            "",
            f"{unsaid} of them may go unsaid, did, and hurt by labels: were silence wrong there, {right - unsaid} would be right ({(right - unsaid) / len(planted):.1%}).",
        ]
    if well:
        quiet = sum(one["is_right"] for one in well)
        lines += ["", f"{quiet} of {len(well)} healthy pipelines: nothing of weight was found."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--only",
        help="family: tensor, predictions, camera, export, labels, stages, environment, speed, server, healthy",
    )
    parser.add_argument("--names", help="part of a fault's name")
    parser.add_argument("--models", default="bccd,yolo11n,digits")
    parser.add_argument("--seed", type=int, default=20260)
    parser.add_argument("--costs", type=Path, help="file of what faults cost: lines of JSON, added to")
    parser.add_argument("--only-costs", action="store_true", help="measure what faults cost, and ask nobody")
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
        cases += [(number, one, able[number % len(able)])] if able else []
    cases += [(number, one, where) for number, one in enumerate(healthy(), start=1000) for where in every]
    wanted = [
        case
        for case in cases
        if (arguments.only or case[1].family) == case[1].family and (arguments.names or "") in case[1].name
    ]
    costs = {tuple(line["key"]): line["cost"] for line in read_lines(arguments.costs)}
    for number, one, where in wanted:
        key = (one.name, one.family, one.strength, where.name, arguments.seed + number)
        if key not in costs:
            costs[key] = cost(one, where, arguments.seed + number)
            add_line(arguments.costs, {"key": key, "cost": costs[key]})
            print(f"cost {key}: {shown(costs[key])}", file=sys.stderr, flush=True)
    planned = {
        (one.name, one.family, one.strength, where.name, arguments.seed + number) for number, one, where in wanted
    }
    # Of what was done, what is planned still.
    done = [one for one in read_lines(arguments.done) if key_of(one) in planned]
    known = {key_of(one) for one in done}
    for number, one, where in [] if arguments.only_costs else wanted:
        key = (one.name, one.family, one.strength, where.name, arguments.seed + number)
        if key in known:
            continue
        told = diagnose(one, where, arguments.seed + number, costs[key])
        done.append(told)
        print(f"{'ok  ' if told['is_right'] else 'NO  '}{told['family']} {told['name']} {told['strength']} {told['model']}: "
              f"{[f'{r} {s} {w:.2f}' for r, s, w, _ in told['found']]} {shown(told['cost'])} {told['took_s']:.0f} s", file=sys.stderr, flush=True)  # fmt: skip
        add_line(arguments.done, told)
    return done


def key_of(told: dict[str, Any]) -> tuple[Any, ...]:
    return told["name"], told["family"], told["strength"], told["model"], told["seed"]


def read_lines(file: Path | None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file and file.exists() else []


def add_line(file: Path | None, told: dict[str, Any]) -> None:
    if file is not None:
        with file.open("a") as lines:
            lines.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
