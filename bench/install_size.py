# SPDX-License-Identifier: Apache-2.0
"""Measures what an installation weighs: the serving install, and the smallest that predicts, each in a new environment.

    python bench/install_size.py --out bench/results/install-size.md

Sizes are of `site-packages` without pip and setuptools and without byte code, in 10^6 bytes, hard links counted once. The
smallest install takes one engine alone, by hand, because both are dependencies of the core:

    pip install numpy pyyaml typer rich opencv-python-headless simplejpeg onnxruntime
    pip install --no-deps shipsight

Downloads some hundred megabytes.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BASE = ("numpy", "pyyaml", "typer", "rich", "opencv-python-headless", "simplejpeg")
IMPORT_LIMIT_S = 0.3


@dataclass(frozen=True)
class Install:
    """One way to install.

    Attributes:
        name: shown in the table.
        limit_mb: what it may weigh, 10^6 bytes; None for no limit.
        steps: arguments of `pip install`, one tuple a call.
        engines: engines that must be there and no others.
    """

    name: str
    limit_mb: float | None
    steps: tuple[tuple[str, ...], ...]
    engines: frozenset[str]


def read_installs() -> tuple[Install, ...]:
    """Returns what is measured."""
    here = str(REPOSITORY)
    return (
        Install("serving: `.[serve]`", 650, ((f"{here}[serve]",),), frozenset({"onnxruntime", "openvino"})),
        Install("ONNX Runtime alone", 360, ((*BASE, "onnxruntime"), ("--no-deps", here)), frozenset({"onnxruntime"})),
        Install("OpenVINO alone", None, ((*BASE, "openvino"), ("--no-deps", here)), frozenset({"openvino"})),
    )


def measure_folder(folder: Path) -> dict[str, int]:
    """Returns bytes by top-level entry of `site-packages`, without pip, setuptools and byte code."""
    seen: set[tuple[int, int]] = set()
    sizes: dict[str, int] = {}
    for path in folder.rglob("*"):
        top = path.relative_to(folder).parts[0]
        if path.is_symlink() or not path.is_file() or path.suffix == ".pyc" or top.startswith(("pip", "setuptools")):
            continue
        status = path.stat()
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            sizes[top] = sizes.get(top, 0) + status.st_size
    return sizes


def ask(python: Path, code: str) -> str:
    """Runs code in an environment's interpreter, away from the sources, and returns what it printed."""
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd=python.parent)
    return done.stdout.strip()


def time_import(python: Path) -> float:
    """Returns the median time in seconds of importing shipsight in a new interpreter, byte code compiled."""
    code = "import time; begin = time.perf_counter(); import shipsight; print(time.perf_counter() - begin)"
    return statistics.median([float(ask(python, code)) for _ in range(8)][1:])


def measure(install: Install) -> dict[str, object]:
    """Installs into a new environment and measures it.

    Raises:
        SystemExit: torch came with it, or an engine is missing or too many.
    """
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder) / "bin" / "python"
        for step in install.steps:
            command = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *step]
            subprocess.run(command, check=True)
        versions = dict(
            json.loads(
                ask(
                    python,
                    "import json, importlib.metadata as m;"
                    "print(json.dumps([(d.name.lower(), d.version) for d in m.distributions()]))",
                )
            )
        )
        engines = {"onnxruntime", "openvino"} & set(versions)
        if "torch" in versions or engines != install.engines:
            sys.exit(f"{install.name}: torch {versions.get('torch')}, engines {sorted(engines)}")
        site = Path(ask(python, "import sysconfig; print(sysconfig.get_path('purelib'))"))
        sizes = measure_folder(site)
        return {
            "name": install.name,
            "mb": sum(sizes.values()) / 1e6,
            "limit_mb": install.limit_mb,
            "import_s": time_import(python),
            "largest": sorted(sizes.items(), key=lambda item: -item[1])[:8],
            "versions": versions,
        }


def write_page(rows: list[dict[str, object]]) -> str:
    """Returns the results as Markdown."""
    lines = [
        "# Install size",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {platform.system()} {platform.machine()}. "
        "`python bench/install_size.py`. Bytes of site-packages in 10^6, without pip, setuptools and byte code; import",
        "is the median of 7 new interpreters. No install brings torch (the script fails if one does).",
        "",
        "| install | MB | limit | import of shipsight, s | largest parts, MB |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        largest = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in row["largest"])  # type: ignore[attr-defined]  # a list
        limit = "none" if row["limit_mb"] is None else f"{row['limit_mb']:.0f}"
        lines.append(f"| {row['name']} | {row['mb']:.0f} | {limit} | {row['import_s']:.3f} | {largest} |")
    versions = rows[0]["versions"]
    assert isinstance(versions, dict)
    lines += ["", "Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + "."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Reads the command line, measures, prints, and fails where a limit is exceeded."""
    parser = argparse.ArgumentParser(description="Measure what an installation weighs.")
    parser.add_argument("--out", type=Path, help="file for the table, Markdown")
    options = parser.parse_args()
    rows = [measure(install) for install in read_installs()]
    page = write_page(rows)
    print(page)
    if options.out is not None:
        options.out.write_text(page, encoding="utf-8")
    heavy = [row for row in rows if row["limit_mb"] is not None and row["mb"] > row["limit_mb"]]  # type: ignore[operator]  # numbers
    if heavy or any(row["import_s"] > IMPORT_LIMIT_S for row in rows):  # type: ignore[operator]  # a number
        sys.exit("a limit is exceeded")


if __name__ == "__main__":
    main()
