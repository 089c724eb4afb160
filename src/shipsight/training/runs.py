# SPDX-License-Identifier: Apache-2.0
"""One job of the child process that prunes or trains, as its parent sees it: begun, gone on with after a kill, or done already.

Each job has a folder. What it is made of (`job.json` and the network it is given) is written there first; where the folder holds the
same job already, what is done is not done again, and a training that was killed goes on after its last whole epoch. Private to the room.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipsight.build.sources import child_environment, error_from_dict
from shipsight.build.workspace import digest_of
from shipsight.errors import TrainingError

__all__ = ["Run", "run_job"]

OnLine = Callable[[dict[str, Any]], None]
"""Takes a line about the progress of a job."""


@dataclass(frozen=True)
class Run:
    """What a job made.

    Attributes:
        network: the checkpoint.
        result: what it said in the end.
    """

    network: Path
    result: Mapping[str, Any]


def run_job(folder: Path, job: Mapping[str, Any], given: Path, on_line: OnLine) -> Run:
    """Does a job, or what of it is not done yet.

    Args:
        folder: of the job.
        job: as `_worker` takes it.
        given: checkpoint that it begins with.
        on_line: told of the progress.

    Raises:
        TrainingError: the child process ended without a result.
        ShipsightError: as the child process says.
    """
    data = given.read_bytes()
    told = {**job, "given": digest_of(data)}
    text = json.dumps(told, sort_keys=True)
    place = folder / "job.json"
    if not (place.exists() and place.read_text(encoding="utf-8") == text):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        (folder / "given.pt").write_bytes(data)
        half = folder / "job.half"
        half.write_text(text, encoding="utf-8")
        half.replace(place)
    result = folder / "result.json"
    if not result.exists():
        _run(folder, on_line)
    return Run(folder / "made.pt", json.loads(result.read_text(encoding="utf-8")))


def _run(folder: Path, on_line: OnLine) -> None:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-P", "-s", "-B", "-m", "shipsight.training._worker", str(folder.resolve())]
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd=home, env=_environment(home)
        )
        assert process.stdout is not None
        try:
            with process.stdout as lines:
                for line in lines:
                    told = json.loads(line)
                    if "error" in told:
                        raise error_from_dict(told["error"])
                    on_line(told)
            process.wait()
        finally:
            process.kill()  # of one that has ended, nothing
            process.wait()
    if not (folder / "result.json").exists():
        last = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise TrainingError(
            "the training ended without a result",
            where=folder / "log.txt",
            got=f"exit code {process.returncode}" + (f": {last[0][:300]}" if last else ""),
            hint="Give the command again: it goes on after the last whole epoch.",
        )


def _environment(home: Path) -> dict[str, str]:
    inherited = child_environment(str(home.resolve()))
    del inherited["OPENBLAS_NUM_THREADS"]
    return inherited
