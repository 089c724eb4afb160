# SPDX-License-Identifier: Apache-2.0
"""Fixtures that all tests share."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from tests.once import made_once

REPOSITORY = Path(__file__).resolve().parent.parent

# How long an example takes tells of the machine's other work.
hypothesis.settings.register_profile("shipsight", deadline=None)
hypothesis.settings.load_profile("shipsight")


LONGEST_ID = 60
"""Characters of a text that stands in the name of a test: attacks are told by how they begin, and durations in lines that can be read."""
LONG_FIXTURES = frozenset({"digits_build", "unlabelled"})
"""Whole builds."""
SLOW_FIXTURES = LONG_FIXTURES | {"postgres_server"}
"""Builds, and a server of PostgreSQL."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real models and images, where they lie beside the checkout (or where SHIPSIGHT_SHARED_DATA says)."""
    folder = Path(os.environ.get("SHIPSIGHT_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "models").is_dir():
        pytest.skip("no shared/data beside this checkout: real models and images are not here")
    return folder


@pytest.fixture(scope="session")
def sample_dir() -> Path:
    """The shipped digits sample."""
    return REPOSITORY / "examples" / "digits"


@pytest.fixture(scope="session")
def digits_bundle(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the sample with float variants of ONNX Runtime, the reference its default; only read by who uses it."""

    def make(folder: Path) -> None:
        # Imports that only who builds needs.
        from tests.digits import build_digits

        build_digits(sample_dir, folder)

    return made_once(tmp_path_factory, "digits", make) / "digits.bundle"


@pytest.fixture(scope="session")
def digit_scenes(sample_dir: Path) -> Callable[[int, int], tuple[Any, Any]]:
    """Draws a scene of the sample from a seed and a size in pixels: RGB pixels, and (class id, x0, y0, x1, y1) a digit."""
    import numpy as np

    spec = importlib.util.spec_from_file_location("digits_generate", sample_dir / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)

    def make(seed: int, size: int) -> tuple[Any, Any]:
        return generate.draw_scene(np.random.default_rng(seed), *generate.split_digits("val"), size)

    return make


@pytest.fixture(scope="session", autouse=True)
def _quiet_ultralytics(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["YOLO_CONFIG_DIR"] = str(tmp_path_factory.mktemp("ultralytics-settings"))
    os.environ["YOLO_OFFLINE"] = "true"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what a slow fixture makes slow; skips what needs PyTorch and Ultralytics, an optional extra, where they are missing."""
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        if SLOW_FIXTURES & used:
            item.add_marker(pytest.mark.slow)
        if LONG_FIXTURES & used:
            item.add_marker(pytest.mark.long)
    if all(importlib.util.find_spec(package) is not None for package in ("torch", "torch_pruning", "ultralytics")):
        return
    reason = pytest.mark.skip(reason="torch and ultralytics are not installed: pip install 'shipsight[ultralytics]'")
    for item in items:
        if item.get_closest_marker("torch") is not None:
            item.add_marker(reason)


@pytest.hookimpl(trylast=True, specname="pytest_collection_modifyitems")
def _put_long_files_first(items: list[pytest.Item]) -> None:
    """Puts files first that take long, as their marks say: a worker that begins one at the end leaves the others idle."""

    def count(mark: str) -> Counter[Path]:
        return Counter(item.path for item in items if item.get_closest_marker(mark) is not None)

    longs, slows = count("long"), count("slow")
    items.sort(key=lambda item: (-longs[item.path], -slows[item.path]))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Names a long text by its first characters and its length."""
    if isinstance(val, str | bytes) and len(val) > LONGEST_ID:
        begin = val[:16].encode("unicode_escape") if isinstance(val, str) else val[:16]
        return f"{begin!r}...{len(val)}"
    return None
