# SPDX-License-Identifier: Apache-2.0
"""A verification is a stream: its memory does not grow with the log. Seconds are measured by `bench/audit_verify.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import REPOSITORY


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_of_a_verification_does_not_grow_with_the_log(folder: Path) -> None:
    peaks = {}
    for entries in (20_000, 100_000):
        made = folder / str(entries)
        made.mkdir()
        script = (
            "import sys; sys.path.insert(0, 'bench'); from pathlib import Path; import audit_verify, json;"
            "folder, entries = Path(sys.argv[1]), int(sys.argv[2]);"
            "audit_verify.make(folder, entries) if sys.argv[3] == 'make' else print(json.dumps(audit_verify.measure(folder)))"
        )
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
        for act in ("make", "verify"):
            command = [sys.executable, "-c", script, str(made), str(entries), act]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY, env=environment)
        told = json.loads(done.stdout)
        assert told["size"] == entries + 1  # and the entry of its key
        peaks[entries] = told["peak_mib"]
    assert peaks[100_000] < peaks[20_000] + 10
