# SPDX-License-Identifier: Apache-2.0
"""What tests of both commands of the doctor ask."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def server(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real server of the sample, every variant of it."""
    command = [
        sys.executable,
        "-m",
        "shipsight",
        "serve",
        str(digits_bundle),
        "--variant",
        "all",
        "--port",
        "0",
        "--json",
    ]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["event"] == "ready", ready
        try:
            yield ready["url"]
        finally:
            process.terminate()
