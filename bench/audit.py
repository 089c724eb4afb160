# SPDX-License-Identifier: Apache-2.0
"""What it costs to record every prediction: one server with `--audit off`, one with `--audit-predictions`, in alternating rounds.

Both ask for the same API key. Real JPEGs over keep-alive HTTP, sent by `wrk`, as in `bench/access.py`; then requests that need no model and
leave no entry. Afterwards the log must hold an entry for each answer, and verify.

    python bench/audit.py --bundle yolo11n.bundle --images coco128/images/val2017 --out bench/results/audit.md

Needs `wrk` (Debian: apt-get install wrk).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2

import shipsight
from access import measure, shipsight_json, start, table
from shipsight.proof.environment import cpu_class


def recorded(place: Path) -> tuple[int, int]:
    """Predictions in the log, and entries in all, once it was verified."""
    command = [sys.executable, "-m", "shipsight", "audit"]
    subprocess.run([*command, "verify", "--audit", str(place)], check=True, stdout=subprocess.DEVNULL)
    # What others than the counting need is imported by them alone.
    from shipsight.access import EventKind
    from shipsight.access.audit.reading import AuditReader

    reader = AuditReader.open(str(place))
    predictions = sum(1 for _ in reader.entries(kinds=(EventKind.PREDICTED,)))
    return predictions, reader.size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    begin_load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bodies = []
        for position, path in enumerate(sorted(arguments.images.glob("*.jpg"))[:16]):
            bodies.append(folder / f"{position}.jpg")
            cv2.imwrite(str(bodies[-1]), cv2.resize(cv2.imread(str(path)), (640, 480)))
        place = folder / "audit.db"
        asked = {**os.environ, "SHIPSIGHT_DATABASE": str(folder / "access.db"), "SHIPSIGHT_AUDIT": str(place)}
        secret = shipsight_json("key", "add", "bench", "--grant", "predictor", environment=asked)["secret"]
        servers = [
            start("audit off", arguments.bundle, bodies, asked, secret, "--audit", "off"),
            start("every prediction", arguments.bundle, bodies, asked, secret, "--audit-predictions"),
        ]
        try:
            rates = measure(servers, folder, rounds=arguments.rounds, seconds=arguments.seconds)
        finally:
            for _, running in servers:
                running.stop()
        predictions, entries = recorded(place)
    answered = sum(rate * arguments.seconds for rate in servers[1][0].rates)
    if predictions < answered:
        raise SystemExit(f"{predictions} recorded, but {answered:.0f} were answered: {json.dumps(rates)}")
    lines = [
        *table([one for one, _ in servers], rates, "of the one without"),
        "",
        f"{predictions} predictions recorded, {entries} entries in all, which verify.",
        "",
        f"{arguments.rounds} rounds of {arguments.seconds} s; load average before the first: {begin_load:.2f}. Machine: {cpu_class()}, "
        f"{os.cpu_count()} cores. shipsight {shipsight.__version__}.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
