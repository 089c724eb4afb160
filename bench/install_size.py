# SPDX-License-Identifier: Apache-2.0
"""What an installation weighs, and whether it works: the server's, and the smallest (one engine, no server).

    python bench/install_size.py --bundle digits.bundle [--json]

Each is installed from the package index into a fresh virtual environment in a temporary folder. Size is the sum of the
sizes of the files in `site-packages` without pip, setuptools and `__pycache__`, in MB of 10^6 bytes. Import time is
that of `import shipsight` in fresh processes, measured within them, median of seven, files warm in the page cache.
Exit code 1 if an installation exceeds its limit, contains PyTorch, or cannot predict.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
IMPORT_RUNS = 7
NOT_COUNTED = {"pip", "setuptools", "_distutils_hack", "distutils"}
NAMED = ("shipsight", "numpy", "onnxruntime", "openvino", "opencv-python-headless", "simplejpeg")

IMPORT = "import time; begin = time.perf_counter(); import shipsight; print(time.perf_counter() - begin)"
PREDICT = """
import json, sys
import numpy as np
import shipsight
from shipsight.errors import ShipsightError
from shipsight.model import open_bundle

answers = {}
image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
for name in (None, *(variant.name for variant in open_bundle(sys.argv[1]).variants)):
    try:
        with shipsight.load(sys.argv[1], variant=name) as model:
            model.predict(image)
        answers[name or "default"] = "predicts"
    except ShipsightError as error:
        answers[name or "default"] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
"""
INSTALLED = """
import importlib.metadata, importlib.util, json
names = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
print(json.dumps({"torch": importlib.util.find_spec("torch") is not None, "packages": names}))
"""


@dataclass(frozen=True)
class Kind:
    """An installation: its name, the argument lists of `pip install`, its limit in MB."""

    name: str
    pip: tuple[tuple[str, ...], ...]
    limit_mb: int


KINDS = (
    Kind("serving", ((f"{REPOSITORY}[serve]",),), 650),
    Kind(
        "smallest",
        (
            ("--no-deps", str(REPOSITORY)),
            ("numpy", "pyyaml", "typer", "rich", "onnxruntime", "opencv-python-headless", "simplejpeg"),
        ),
        360,
    ),
)


@dataclass(frozen=True)
class Measured:
    """What was found in one installation; sizes in MB of 10^6 bytes."""

    name: str
    limit_mb: int
    size_mb: float
    largest_mb: dict[str, float]
    has_torch: bool
    import_s: float
    variants: dict[str, str]
    packages: dict[str, str]

    @property
    def holds(self) -> bool:
        """Whether it is small enough, free of PyTorch, and predicts with at least one variant."""
        return self.size_mb <= self.limit_mb and not self.has_torch and "predicts" in self.variants.values()


def measure(kind: Kind, folder: Path, bundle: Path) -> Measured:
    """Installs one kind into a fresh virtual environment under a folder and looks at it."""
    home = folder / kind.name
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    python = home / "bin" / "python"
    for arguments in kind.pip:
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-cache-dir"]
        subprocess.run([*pip, *arguments], check=True)
    # Sizes come first: what runs afterwards may write caches.
    parts = weigh(home)
    found = json.loads(ask(python, folder, INSTALLED))
    ask(python, folder, IMPORT)
    times = [float(ask(python, folder, IMPORT)) for _ in range(IMPORT_RUNS)]
    return Measured(
        name=kind.name,
        limit_mb=kind.limit_mb,
        size_mb=round(sum(parts.values()) / 1e6, 1),
        largest_mb={name: round(size / 1e6, 1) for name, size in sorted(parts.items(), key=lambda one: -one[1])[:6]},
        has_torch=found["torch"],
        import_s=round(statistics.median(times), 3),
        variants=json.loads(ask(python, folder, PREDICT, str(bundle.resolve()))),
        packages=found["packages"],
    )


def weigh(home: Path) -> dict[str, int]:
    """Returns bytes by first folder (or file) of `site-packages`, without pip, setuptools and compiled caches."""
    parts: dict[str, int] = {}
    for site in home.glob("lib/python*/site-packages"):
        for path in site.rglob("*"):
            inside = path.relative_to(site).parts
            if (
                path.is_symlink()
                or not path.is_file()
                or "__pycache__" in inside
                or inside[0].split("-")[0] in NOT_COUNTED
            ):
                continue
            parts[inside[0]] = parts.get(inside[0], 0) + path.stat().st_size
    return parts


def ask(python: Path, folder: Path, code: str, *arguments: str) -> str:
    """Returns what a program prints, run outside the checkout and deaf to the caller's Python settings."""
    command = [str(python), "-I", "-c", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout


def table(rows: list[Measured]) -> str:
    """Returns the figures as a Markdown table."""
    lines = [
        "| installation | MB | limit | PyTorch | import, ms | largest, MB |",
        "|---|---|---|---|---|---|",
    ]
    for one in rows:
        largest = ", ".join(f"{name} {size:g}" for name, size in one.largest_mb.items())
        torch = "yes" if one.has_torch else "no"
        lines.append(
            f"| {one.name} | {one.size_mb:g} | {one.limit_mb} | {torch} | {1000 * one.import_s:.0f} | {largest} |"
        )
    for one in rows:
        lines += ["", f"{one.name}, `shipsight.load(bundle, variant=...)`:", ""]
        lines += [f"- {variant}: {answer}" for variant, answer in one.variants.items()]
        versions = [f"{name} {one.packages[name]}" for name in NAMED if name in one.packages]
        lines += ["", f"{len(one.packages)} packages, among them {', '.join(versions)}."]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="What an installation weighs, and whether it works.")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle that the installations are to predict with")
    parser.add_argument("--only", choices=[kind.name for kind in KINDS], help="one installation")
    parser.add_argument("--json", action="store_true", help="print JSON with all package versions")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="install-size-") as folder:
        rows = [measure(kind, Path(folder), arguments.bundle) for kind in KINDS if arguments.only in (None, kind.name)]
    if arguments.json:
        machine = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.platform()}
        print(json.dumps({"machine": machine, "installations": [asdict(row) for row in rows]}, indent=2))
    else:
        print(table(rows))
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
