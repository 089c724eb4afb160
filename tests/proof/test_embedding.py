# SPDX-License-Identifier: Apache-2.0
"""Vectors for monitors are those of the training statistics, whichever runtime makes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.digits import rewritten

from shipsight.errors import MissingDependencyError
from shipsight.model.bundle import open_bundle
from shipsight.proof import embedding, open_embedding
from shipsight.proof.embedding import find_embedding, is_plain
from shipsight.proof.statistics import Features

STATISTICS = "proof/training-stats.json"


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_vectors_are_those_of_the_statistics(
    digits_bundle: Path,
    digit_scenes: Callable[[int, int], tuple[Any, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    runtime: str,
) -> None:
    def missing() -> None:
        raise MissingDependencyError("openvino is not installed")

    if runtime != "openvino":
        monkeypatch.setattr(embedding, "import_openvino", missing)
    tensor = find_embedding(onnx.load(digits_bundle / "variants" / _reference(digits_bundle) / "model.onnx").graph)
    told = json.dumps({"embedding": {"tensor": tensor}}).encode()
    bundle = open_bundle(rewritten(digits_bundle, tmp_path / "a.bundle", with_files={STATISTICS: told}))
    reference = next(one for one in bundle.variants if is_plain(one) and one.is_reference)
    files = bundle.variant_files(reference.name)
    features = Features(next(iter(files.values())), bundle.card.with_size(reference.size_hw))
    embed = open_embedding(bundle)
    assert embed is not None
    for seed in range(3):
        image = digit_scenes(seed, 128)[0]
        wanted = features.see(image).vector
        assert embed(image) == pytest.approx(wanted, abs=1e-3 * np.abs(wanted).max())


def test_a_bundle_without_statistics_has_none(digits_bundle: Path) -> None:
    assert open_embedding(open_bundle(digits_bundle)) is None


def _reference(bundle: Path) -> str:
    return next(one.name for one in open_bundle(bundle).variants if one.is_reference)
