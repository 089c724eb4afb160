# SPDX-License-Identifier: Apache-2.0
"""How long a verification of the audit log takes, and how much memory; and what keeping an event costs its caller and the server.

    python bench/audit_verify.py --entries 1000000

Makes a log of predictions and sign-ins with a checkpoint every 1000 entries, in a folder that is deleted afterwards (about 1 KB an entry),
verifies it in a process of its own, and prints seconds and peak memory beside those of a log of a tenth of the size.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from shipsight.access import Event, EventKind, Outcome
from shipsight.access.audit.appending import append, sign_head
from shipsight.access.audit.log import AuditLog
from shipsight.access.audit.reading import AuditReader
from shipsight.access.audit.record import prepare
from shipsight.access.audit.verify import verify

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
EVERY = 1000
CALLS = 9000


def event(number: int) -> Event:
    at = BEGAN + timedelta(seconds=number)
    if number % 10:
        details = {
            "variant": "openvino-int8-640",
            "sha256": f"{number:064x}",
            "images": 1,
            "predictions": number % 7,
            "version": "1",
        }
        return Event(
            at,
            EventKind.PREDICTED,
            Outcome.DONE,
            f"key:camera-{number % 50}",
            "model:yolo11n",
            address="192.0.2.20",
            details=details,
        )
    return Event(
        at, EventKind.SIGN_IN, Outcome.DONE, f"person:p{number % 40}", factor="password+totp", address="192.0.2.7"
    )


def make(folder: Path, entries: int) -> None:
    """Writes as the log's own thread does, without waiting for a disk between."""
    with AuditLog.open(str(folder / "log.db"), key=folder / "log.key", server="bench", has_session=False) as log:
        for begin in range(0, entries, 10_000):
            with log.writing() as (connection, head):
                for start in range(begin, min(begin + 10_000, entries), EVERY):
                    some = [prepare(event(one)) for one in range(start, min(start + EVERY, entries))]
                    head = append(connection, head, some, server="bench", now=BEGAN).head
                    signed = sign_head(connection, head, log.signer, now=BEGAN)
            log.wrote(head, 0, signed)


def measure(folder: Path) -> dict[str, float]:
    """Verifies in this process."""
    reader = AuditReader.open(str(folder / "log.db"))
    with AuditLog.open(str(folder / "log.db"), key=folder / "log.key", server="bench", has_session=False) as log:
        key = log.key
    wall, cpu = time.perf_counter(), time.process_time()
    found = verify(reader, keys=[key])
    told = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "size": found.size}
    assert found.is_ok, found
    return {**told, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def verified(folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def costs(folder: Path) -> tuple[float, float]:
    """Returns microseconds of the caller's processor time for an event that may be late, and of the whole process for keeping it."""
    with AuditLog.open(str(folder / "cost.db"), key=folder / "cost.key", server="bench") as log:
        events = [event(10 * one + 1) for one in range(CALLS)]
        whole, mine = time.process_time(), time.thread_time()
        for one in events:
            log.record(one)
        caller = time.thread_time() - mine
        log.checkpoint()
        return caller / CALLS * 1e6, (time.process_time() - whole) / CALLS * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure is not None:
        print(json.dumps(measure(given.measure)))
        return
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    for entries in (given.entries // 10, given.entries):
        with tempfile.TemporaryDirectory(prefix="shipsight-audit-") as name:
            folder = Path(name)
            begin = time.perf_counter()
            make(folder, entries)
            made_s = time.perf_counter() - begin
            told = verified(folder)
            size = (folder / "log.db").stat().st_size / entries
        print(
            f"{told['size']:.0f} entries of {size:.0f} bytes, written in {made_s:.1f} s: verified in {told['wall_s']:.1f} s "
            f"({told['cpu_s']:.1f} s of one core), peak {told['peak_mib']:.0f} MiB"
        )
    with tempfile.TemporaryDirectory(prefix="shipsight-audit-") as name:
        caller, whole = costs(Path(name))
    print(
        f"an event that may be late: {caller:.1f} us of its caller, {whole:.1f} us in all; 300 a second: {whole * 300 / 2e6:.2%} of two cores"
    )


if __name__ == "__main__":
    main()
