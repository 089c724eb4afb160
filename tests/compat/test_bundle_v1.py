# SPDX-License-Identifier: Apache-2.0
"""The bundle of schema version 1 opens, verifies and replays in this release."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.compat.make_bundle_v1 import CARD, VARIANT, make, make_model

from shipsight.engines import get_engine
from shipsight.errors import ReplayMismatchError
from shipsight.model import open_bundle, zip_bundle
from shipsight.proof import GoldenFiles, replay

FIXTURE = Path(__file__).parent / "bundle-v1"
DIGEST = "7080d1093b3adc56c0aa1c2ecc14e28978d661e536482bdc1ccb9977277b2358"


def test_bundle_v1_opens_and_verifies():
    bundle = open_bundle(FIXTURE, digest=DIGEST)
    bundle.verify_files()
    assert bundle.card == CARD
    assert bundle.variants == (VARIANT,)
    assert bundle.default_variant == VARIANT
    assert bundle.manifest.golden.synthetic == 16
    assert bundle.read_json("proof/reference.json") == {"source": {"map50_95": 0.5}}


def test_bundle_v1_opens_and_verifies_as_a_zip_file(tmp_path):
    zip_bundle(FIXTURE, tmp_path / "v1.zip").verify_files()
    assert open_bundle(tmp_path / "v1.zip").digest == DIGEST


def test_bundle_v1_replays():
    bundle = open_bundle(FIXTURE, digest=DIGEST)
    golden = GoldenFiles.of(bundle)
    with get_engine("onnxruntime").open(bundle.variant_files(VARIANT.name), VARIANT) as session:
        report = replay(session, VARIANT, bundle.card, golden)
    assert report.inputs == 16
    assert report.predictions.share == 1.0
    assert report.predictions.confident > 16
    assert len(golden.source((32, 32))) == 16
    other = make_model().replace(b"\x00\x00\x00\x41", b"\x00\x00\x80\x40")  # 8.0 -> 4.0 in the weights
    with (
        get_engine("onnxruntime").open({"model.onnx": other}, VARIANT) as session,
        pytest.raises(ReplayMismatchError),
    ):
        replay(session, VARIANT, bundle.card, golden)


def test_bundle_v1_is_what_its_script_still_writes(tmp_path):
    """All but PNG and `.npz`, whose compression may differ between builds of zlib."""
    written, kept = make(tmp_path / "v1"), open_bundle(FIXTURE)
    assert written.names == kept.names
    for name in kept.names:
        if not name.endswith((".png", ".npz")):
            assert written.read(name) == kept.read(name), name
