# SPDX-License-Identifier: Apache-2.0
"""What sources on the command line mean, and where drawn images go."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipsight.cli.predict import drawn_name, expand_sources
from shipsight.errors import UsageError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", "deep/c.webp", "clip.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def test_sources_expand_a_folder_in_name_order_without_other_files(tree: Path) -> None:
    names = [p.relative_to(tree).as_posix() for p in expand_sources([str(tree)])]
    assert names == ["a.PNG", "b.jpg", "clip.mp4", "deep/c.webp"]


def test_sources_expand_a_glob(tree: Path) -> None:
    assert [p.name for p in expand_sources([f"{tree}/**/*.webp"])] == ["c.webp"]


def test_sources_name_a_file_once_when_given_twice(tree: Path) -> None:
    assert expand_sources([str(tree / "b.jpg"), f"{tree}/*.jpg"]) == [tree / "b.jpg"]


def test_sources_take_a_file_of_any_suffix_when_it_is_named(tree: Path) -> None:
    assert expand_sources([str(tree / "notes.txt")]) == [tree / "notes.txt"]


@pytest.mark.parametrize("source", ["nowhere.jpg", "*.jpg", "[", ""])
def test_sources_are_refused_when_they_mean_nothing(tmp_path: Path, source: str) -> None:
    with pytest.raises(UsageError, match="no image or video there"):
        expand_sources([str(tmp_path / source) if source else str(tmp_path)])


@given(st.lists(st.sampled_from(["a/x.jpg", "b/x.jpg", "x.png", "x-2.jpg", "v.mp4#0", "v.mp4#1", "v-000000.png"])))
def test_drawn_images_never_share_a_name(sources: list[str]) -> None:
    taken: set[str] = set()
    names = [drawn_name(source, taken) for source in sources]
    assert len(set(names)) == len(names)
