# SPDX-License-Identifier: Apache-2.0
"""Replay passes for the model that was measured and fails for every other one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.proof.tiny_network import CARD, SIDE, VARIANT, Built, build, make_network, open_network

from shipsight.errors import CorruptError, MissingFileError, ReplayMismatchError, UsageError
from shipsight.model import Card, Fit, write_bundle
from shipsight.proof import GoldenFiles, ReplayReport, replay, synthetic_half
from shipsight.proof.arrays import read_arrays, write_arrays, write_png

INDEX = "proof/golden/golden.json"


def replayed(files: dict[str, bytes], model: bytes, card: Card = CARD, kind: str | None = None) -> ReplayReport:
    with open_network(model, threads=2) as session:
        return replay(session, VARIANT, card, GoldenFiles(files.__getitem__), kind=kind)


def on_another_processor(files: dict[str, bytes]) -> dict[str, bytes]:
    index = json.loads(files[INDEX])
    for one in index["variants"].values():
        one["cpu_class"] = "arm-dotprod"
    return {**files, INDEX: json.dumps(index).encode()}


@pytest.fixture(params=["same processor", "another processor"])
def files(request, built: Built) -> dict[str, bytes]:
    return built.files if request.param == "same processor" else on_another_processor(built.files)


def test_replay_passes_where_the_model_is_the_one_that_was_measured(built: Built, files):
    report = replayed(files, built.model)
    assert report.inputs == 20
    assert report.levels == 0
    assert report.predictions.share == 1.0
    assert report.predictions.confident >= 40
    assert report.criterion == ("outputs" if files is built.files else "predictions")
    assert json.dumps(report.to_dict(), allow_nan=False)


def test_replay_fails_with_other_weights(files):
    with pytest.raises(ReplayMismatchError, match=VARIANT.name):
        replayed(files, make_network(seed=1))


@pytest.mark.parametrize("layer", range(5))
def test_replay_fails_with_one_layer_zeroed(files, layer):
    with pytest.raises(ReplayMismatchError):
        replayed(files, make_network(zeroed=layer))


def test_replay_fails_with_the_wrong_colour_order(built: Built, files):
    with pytest.raises(ReplayMismatchError):
        replayed(files, built.model, replace(CARD, input=replace(CARD.input, colour="bgr")))


def test_replay_fails_with_another_normalisation(built: Built, files):
    with pytest.raises(ReplayMismatchError):
        replayed(
            files, built.model, replace(CARD, input=replace(CARD.input, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2)))
        )


def test_replay_fails_with_a_stretched_letterbox(built: Built, files):
    stretched = dict(files)
    for one in built.golden.inputs:
        name = f"proof/golden/tensors-{SIDE}/{one.key}.png"
        stretched[name] = write_png(cv2.resize(one.image_rgb, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR))
    with pytest.raises(ReplayMismatchError, match="prepared otherwise"):
        replayed(stretched, built.model)


@pytest.mark.parametrize("changed", [{"fit": Fit.LETTERBOX_TOP_LEFT}, {"fit": Fit.CENTRE_CROP}, {"pad_value": 0}])
def test_replay_fails_with_images_fitted_otherwise(built: Built, files, changed):
    with pytest.raises(ReplayMismatchError, match="prepared otherwise"):
        replayed(files, built.model, replace(CARD, input=replace(CARD.input, **changed)))


def test_replay_allows_one_level_and_no_more(built: Built):
    for levels in (1, 2):
        moved = dict(built.files)
        key = built.golden.inputs[0].key
        name = f"proof/golden/tensors-{SIDE}/{key}.png"
        tensor = built.read().tensor(key, (SIDE, SIDE)).astype(np.int16)
        moved[name] = write_png(np.where(tensor > 128, tensor - levels, tensor + levels).astype(np.uint8))
        if levels == 2:
            with pytest.raises(ReplayMismatchError, match="2 levels"):
                replayed(moved, built.model)
        else:
            assert replayed(on_another_processor(moved), built.model).levels == 1


@pytest.mark.parametrize("kind", ["images", "synthetic"])
def test_replay_works_with_one_half_alone(built: Built, files, kind):
    assert replayed(files, built.model, kind=kind).inputs == {"images": 4, "synthetic": 16}[kind]
    with pytest.raises(ReplayMismatchError):
        replayed(files, make_network(seed=1), kind=kind)


def test_synthetic_half_holds_nothing_of_the_images_and_still_tells_models_apart(built: Built, files):
    half = synthetic_half({**files, "report.html": b"kept"})
    assert half.pop("report.html") == b"kept"
    assert not [name for name in half if "image-" in name]
    for name, data in half.items():
        if name.endswith(".npz"):
            assert {key.split("-")[0] for key in read_arrays(data, where=name)} == {"synthetic"}
    assert b"image-" not in half[INDEX]
    assert replayed(half, built.model).inputs == 16
    with pytest.raises(ReplayMismatchError):
        replayed(half, make_network(seed=1))
    with pytest.raises(ReplayMismatchError, match="nothing to replay"):
        replayed(half, built.model, kind="images")


def test_synthetic_half_is_refused_where_there_is_none(built: Built):
    index = json.loads(built.files[INDEX])
    index["inputs"] = [one for one in index["inputs"] if one["kind"] == "images"]
    with pytest.raises(UsageError):
        synthetic_half({**built.files, INDEX: json.dumps(index).encode()})


def test_model_that_sees_nothing_is_told_from_another_that_sees_nothing():
    """Scores far below any threshold: only the raw outputs can tell."""
    import onnx
    from onnx import numpy_helper

    def blind(seed: int) -> bytes:
        model = onnx.load_from_string(make_network(seed))
        bias = next(one for one in model.graph.initializer if one.name == "b4")
        values = numpy_helper.to_array(bias).copy()
        values[4:] -= 7
        bias.CopyFrom(numpy_helper.from_array(values, "b4"))
        return model.SerializeToString()

    with open_network(blind(0)) as session:
        from shipsight.proof import Subject, choose_golden

        golden, warnings = choose_golden(Subject.of(session, VARIANT, CARD), candidates=16)
    assert [one.code for one in warnings] == ["golden-unconfident"]
    assert golden.criteria.conf < 0.25
    from shipsight.proof import golden_files, record_variant

    recording, _ = record_variant(lambda threads: open_network(blind(0), threads), VARIANT, CARD, golden)
    files = golden_files(golden, [CARD.input], source={}, variants={VARIANT.name: recording})
    assert replayed(files, blind(0)).criterion == "outputs"
    with pytest.raises(ReplayMismatchError):
        replayed(files, blind(1))


def test_golden_files_are_the_same_bytes_when_built_again(built: Built):
    assert build(built.model).files == built.files


def test_golden_set_is_read_from_a_bundle(built: Built, tmp_path: Path):
    bundle = write_bundle(
        tmp_path / "tiny.bundle",
        {**built.files, f"variants/{VARIANT.name}/model.onnx": built.model},
        card=CARD,
        variants=(VARIANT,),
        default_variant=VARIANT.name,
        golden=built.golden.info,
    )
    golden = GoldenFiles.of(bundle)
    assert len(golden.keys()) == bundle.manifest.golden.images + bundle.manifest.golden.synthetic == 20
    assert set(golden.source((SIDE, SIDE))) == set(golden.keys())
    with open_network(bundle.variant_files(VARIANT.name)["model.onnx"]) as session:
        assert replay(session, VARIANT, bundle.card, golden).predictions.share == 1.0


def damaged(built: Built) -> list[tuple[str, dict[str, bytes]]]:
    recording = f"proof/golden/variant-{VARIANT.name}.npz"
    arrays = read_arrays(built.files[recording], where="x")
    some = next(name for name in arrays if name.endswith("/boxes/positions"))
    index = json.loads(built.files[INDEX])
    return [
        ("no json", {INDEX: b"{"}),
        ("unknown key", {INDEX: json.dumps({**index, "more": 1}).encode()}),
        ("no variants", {INDEX: json.dumps({**index, "variants": []}).encode()}),
        ("no zip", {recording: b"PK"}),
        ("an array less", {recording: write_arrays({k: v for k, v in arrays.items() if k != some})}),
        ("negative row", {recording: write_arrays({**arrays, some: arrays[some] - 5})}),
        ("more rows", {recording: write_arrays({**arrays, some: arrays[some][:-1]})}),
        ("odd name", {recording: write_arrays({**arrays, "x": arrays[some]})}),
        ("small tensor", {f"proof/golden/tensors-{SIDE}/synthetic-00.png": write_png(np.zeros((8, 8, 3), np.uint8))}),
    ]


def test_damaged_golden_set_is_refused(built: Built):
    for _, change in damaged(built):
        with pytest.raises(CorruptError):
            replayed({**built.files, **change}, built.model)


def test_variant_without_recording_is_refused(built: Built):
    with pytest.raises(MissingFileError, match="another"):
        built.read().variant("another")
