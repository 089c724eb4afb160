# SPDX-License-Identifier: Apache-2.0
"""What looking for drift costs a server: the processor time of its thread under load, as a share of the whole process's.

Throughput of a server with and without cannot tell 2 % on a machine that does other things, too; the kernel's count of a thread's time can. `wrk` asks for real JPEGs
over 8 connections; py-spy says which of the threads it is.

    python bench/monitor_server.py --bundle yolo11n.bundle --images coco128/images/val2017 --seconds 100

Needs `wrk` (Debian: apt-get install wrk) and py-spy (`pip install py-spy`).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import httpx
from peers.launch import Running

from access import start
from shipsight.proof.environment import cpu_class

NAME = "shipsight-watching"


def thread_seconds(process: int) -> dict[int, float]:
    """Returns the processor time of each thread."""
    found = {}
    for path in Path(f"/proc/{process}/task").glob("*/stat"):
        fields = path.read_text(encoding="ascii").rpartition(")")[2].split()
        found[int(path.parent.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=100)
    parser.add_argument("--embeddings", action="store_true", help="with --drift-embeddings")
    arguments = parser.parse_args()
    bodies = sorted(arguments.images.glob("*.jpg"))[:16]
    with tempfile.TemporaryDirectory() as folder:
        options = ["--state", f"{folder}/state", *(["--drift-embeddings"] if arguments.embeddings else [])]
        _, running = start("drift", arguments.bundle, bodies, dict(os.environ), None, *options)
        try:
            measure(running, bodies, Path(folder), arguments.seconds)
        finally:
            running.stop()


def measure(running: Running, bodies: list[Path], folder: Path, seconds: int) -> None:
    model = httpx.get(f"{running.url}/v1/models").json()["models"][0]["name"]
    script = folder / "ask.lua"
    files = ",".join(f'"{path}"' for path in bodies)
    script.write_text(
        f'local bodies, n = {{}}, 0\nfor i, name in ipairs({{{files}}}) do local f = io.open(name, "rb"); bodies[i] = f:read("*a"); f:close() end\n'
        f'request = function() n = n + 1; return wrk.format("POST", "/v1/models/{model}/predict", {{}}, bodies[n % #bodies + 1]) end\n',
        encoding="utf-8",
    )
    command = ["wrk", "-t1", "-c8", f"-d{seconds + 5}s", "-s", str(script), running.url]
    asking = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    time.sleep(3)
    children = subprocess.run(["pgrep", "-P", str(running.process.pid)], capture_output=True, text=True, check=True)
    process = int(children.stdout.split()[0])
    dump = subprocess.run(["py-spy", "dump", "--pid", str(process)], capture_output=True, text=True, check=True).stdout
    (thread,) = (int(one) for one in re.findall(rf'Thread (\d+) \([^)]*\): "{NAME}"', dump))
    before = thread_seconds(process)
    time.sleep(seconds)
    after = thread_seconds(process)
    told = asking.communicate()[0]
    spent = {name: value - before.get(name, 0.0) for name, value in after.items()}
    rate = re.search(r"Requests/sec:\s+(\S+)", told)
    taken = re.search(
        r"^shipsight_monitor_taken_total\S* (\S+)$", httpx.get(f"{running.url}/metrics").text, re.MULTILINE
    )
    print(
        f"{spent[thread]:.2f} s of {sum(spent.values()):.1f} s of the process ({spent[thread] / sum(spent.values()):.2%}) in {seconds} s, "
        f"{taken and taken[1]} images looked at since the start, {rate and rate[1]} requests/s. {cpu_class()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}."
    )


if __name__ == "__main__":
    main()
