# SPDX-License-Identifier: Apache-2.0
"""What recording costs a server: off, statistics, samples of 1 % and of 10 %, in alternating rounds.

Real JPEGs over keep-alive HTTP, sent by `wrk`, 8 connections for throughput and 1 for latency. All servers stand at the same time, three idle
while the fourth is asked. Samples are re-encoded, sealed and written to a disk; `--redact` names classes of the bundle that are made
unrecognizable first, with one more inference for each sample. What was kept and dropped is told from the servers' own metrics. What a request
waits for, and the thread's time for a recording, is measured by `recording_cost.py`.

    python bench/recording_server.py --bundle yolo11n.bundle --images coco128/images/val2017 --out bench/results/recording-server.md

Needs `wrk` (Debian: apt-get install wrk).
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import urllib.request
from pathlib import Path

import cv2
import yaml
from peers.launch import Running

import shipsight
from access import measure, start, table
from shipsight.proof.environment import cpu_class

COUNTS = re.compile(
    r'^shipsight_recordings_(kept_total|dropped_total\{why="(?:no-room|failed)"\}) (\S+)$', re.MULTILINE
)


def policy_of(title: str, rate: float | None, redact: str | None) -> dict[str, object]:
    """A policy; without a rate of that mode, else of samples."""
    if rate is None:
        return {"schema": 1, "mode": title}
    policy: dict[str, object] = {
        "schema": 1,
        "mode": "samples",
        "purposes": ["to measure"],
        "samples": {"rate": rate, "most_day": 10**9},
        "retention": {"most_bytes": 1 << 34},
    }
    if redact is not None:
        policy["redaction"] = {"classes": redact.split(",")}
    return policy


def counts(running: Running) -> str:
    """What a server recorded, and what it dropped."""
    with urllib.request.urlopen(f"{running.url}/metrics", timeout=60) as told:
        found = dict(COUNTS.findall(told.read().decode()))
    kept, *dropped = (int(float(found[name])) for name in sorted(found, reverse=True))
    return f"{kept} kept, {sum(dropped)} dropped or failed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--redact", help="classes of the bundle, by commas")
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
        environment = {**os.environ, "XDG_STATE_HOME": str(folder / "nobody")}
        environment.pop("SHIPSIGHT_DATABASE", None)
        servers, recording = [], []
        for title, rate in (("off", None), ("statistics", None), ("samples, 1 %", 0.01), ("samples, 10 %", 0.1)):
            place = folder / f"store-{len(servers)}"
            policy = folder / f"{place.name}.yaml"
            policy.write_text(yaml.safe_dump(policy_of(title, rate, arguments.redact)), encoding="utf-8")
            options = ["--record-policy", str(policy)] + ([] if rate is None else ["--recordings", str(place)])
            servers.append(start(title, arguments.bundle, bodies, environment, None, *options))
            if rate is not None:
                recording.append(servers[-1])
        try:
            rates = measure(servers, folder, rounds=arguments.rounds, seconds=arguments.seconds)
            kept = [f"{one.title}: {counts(running)}" for one, running in recording]
        finally:
            for _, running in servers:
                running.stop()
    redacted = "" if arguments.redact is None else f" Redacted: {arguments.redact}."
    lines = [
        *table([one for one, _ in servers], rates, "of that with recording off"),
        "",
        f"{'; '.join(kept)}.{redacted}",
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
