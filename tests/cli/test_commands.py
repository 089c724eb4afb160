# SPDX-License-Identifier: Apache-2.0
"""The verbs on a bundle of the sample, through the command line as users run it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.cli.conftest import Built, shipsight

from shipsight.model.bundle import open_bundle
from shipsight.proof import calibration_of

VARIANT_KEYS = {
    "name", "engine", "precision", "imgsz", "map50_95", "map50", "latency_ms", "engine_ms", "throughput_ips", "size_mb",
    "memory_mb", "int8_layers", "is_default", "is_reference", "kept", "on_front", "outcome", "drop", "threshold",
}  # fmt: skip


def test_build_json_has_the_documented_keys(digits_build: Built) -> None:
    result = digits_build.answer.json
    assert {"bundle", "default_variant", "source", "variants", "images_measured", "warnings"} <= set(result)
    assert result["images_measured"] == 32
    assert {"map50_95", "map50"} <= set(result["source"])
    for variant in result["variants"]:
        assert set(variant) >= VARIANT_KEYS
        assert set(variant["latency_ms"]) >= {"p50", "p95", "p99"}
    assert sum(variant["is_default"] for variant in result["variants"]) == 1
    assert [variant["name"] for variant in result["variants"] if variant["is_reference"]] == ["onnxruntime-fp32-256"]


def test_build_measures_the_reference_as_accurate_as_the_source(digits_build: Built) -> None:
    result = digits_build.answer.json
    reference = next(variant for variant in result["variants"] if variant["is_reference"])
    # ONNX Runtime on both sides here; PyTorch against ONNX Runtime differs by 5e-6 in scores.
    assert reference["map50_95"] == pytest.approx(result["source"]["map50_95"], abs=1e-3)
    assert reference["map50_95"] > 0.5


def test_build_writes_every_promised_file(digits_build: Built) -> None:
    for name in ("bundle.yaml", "report.html", "MODEL_CARD.md", "sbom.cdx.json", "proof/reference.json",
                 "proof/measurements.json", "proof/training-stats.json", "proof/environment.json"):  # fmt: skip
        assert (digits_build.path / name).is_file(), name
    assert any((digits_build.path / "proof" / "golden").iterdir())


def test_build_keeps_how_often_the_reference_was_right(digits_build: Built) -> None:
    bundle = open_bundle(digits_build.path)
    (reference,) = (one.name for one in bundle.variants if one.is_reference)
    kept = calibration_of(bundle, reference)
    assert kept is not None
    told = bundle.read_json("proof/measurements.json")["variants"][reference]
    assert kept.conf == told["threshold"]
    assert len(kept.found) == 32
    by_class = bundle.read_json("proof/reference.json")["source"]["by_class"].values()
    right = [one["predictions"] * (one["precision"] or 0.0) for one in by_class]
    assert (kept.found.sum(), kept.right.sum()) == (sum(one["predictions"] for one in by_class), round(sum(right)))


def test_build_leaves_no_workspace_behind(digits_build: Built) -> None:
    assert [path.name for path in digits_build.path.parent.iterdir()] == [digits_build.path.name]


def test_build_is_refused_when_the_bundle_exists(digits_build: Built, sample_dir: Path) -> None:
    answer = shipsight("build", sample_dir / "digits.onnx", "--out", digits_build.path)
    assert answer.code == 2
    assert "--force" in answer.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--imgsz", "100"], "multiple of 32", id="size"),
        pytest.param(["--precision", "fp8"], "fp32, fp16, bf16, int8", id="precision"),
        pytest.param(["--engine", "tensorflow"], "openvino", id="engine"),
        pytest.param(["--data", "nowhere.yaml"], "nowhere.yaml", id="data"),
        pytest.param(["--max-drop", "2"], "0 to 1", id="drop"),
        pytest.param(["--golden", "images"], "--images", id="golden"),
    ],
)
def test_build_names_what_is_wrong(sample_dir: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    answer = shipsight("build", sample_dir / "digits.onnx", "--out", tmp_path / "b", *arguments, cwd=tmp_path)
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "b").exists()


def test_build_error_is_a_document_when_json_is_asked(sample_dir: Path, tmp_path: Path) -> None:
    answer = shipsight("build", tmp_path / "none.pt", "--json")
    assert answer.code == 2
    assert set(answer.json["error"]) == {"code", "what", "where", "expected", "got", "hint"}


def test_verify_says_yes_to_a_bundle_as_it_was_built(digits_build: Built) -> None:
    answer = shipsight("verify", digits_build.path, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["verified"] is True
    assert {one["variant"] for one in answer.json["replay"]} == {
        variant["name"] for variant in digits_build.answer.json["variants"] if variant["kept"]
    }


def test_verify_says_no_when_one_byte_of_a_model_changed(digits_build: Built, tmp_path: Path) -> None:
    copy = shutil.copytree(digits_build.path, tmp_path / "copy.bundle")
    victim = next((copy / "variants").rglob("model.onnx"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    answer = shipsight("verify", copy, "--json")
    assert answer.code == 1
    assert answer.json["error"]["code"] == "tampered-hash"


def test_verify_says_no_when_a_file_was_added(digits_build: Built, tmp_path: Path) -> None:
    copy = shutil.copytree(digits_build.path, tmp_path / "copy.bundle")
    (copy / "extra.txt").write_text("x")
    answer = shipsight("verify", copy)
    assert answer.code == 1
    assert "tampered-unnamed-file" in answer.err


def test_predict_gives_the_documented_shape_and_draws(digits_build: Built, digits_data: Path, tmp_path: Path) -> None:
    images = digits_data.parent / "images" / "val"
    answer = shipsight("predict", digits_build.path, images, "--draw", tmp_path / "drawn", "--json")
    assert answer.code == 0, answer.err
    result = answer.json
    assert result["model"] == "digits"
    assert result["variant"] == digits_build.answer.json["default_variant"]
    assert len(result["images"]) == 32
    first = result["images"][0]
    assert (first["width"], first["height"]) == (256, 256)
    found = [one for image in result["images"] for one in image["predictions"]]
    assert len(found) > 32
    assert set(found[0]) == {"class_id", "class_name", "score", "box_xyxy"}
    assert len(list((tmp_path / "drawn").glob("*.jpg"))) == 32


def test_predict_answers_the_others_when_one_image_is_broken(
    digits_build: Built, digits_data: Path, tmp_path: Path
) -> None:
    good = digits_data.parent / "images" / "val" / "00000.jpg"
    (tmp_path / "broken.jpg").write_bytes(good.read_bytes()[:200])
    shutil.copy(good, tmp_path / "good.jpg")
    answer = shipsight("predict", digits_build.path, tmp_path, "--json")
    assert answer.code == 2
    assert [Path(image["source"]).name for image in answer.json["images"]] == ["good.jpg"]
    assert answer.json["errors"][0]["code"].startswith("image-")


def test_predict_reads_a_video(digits_build: Built, digits_data: Path, tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5, (256, 256))
    for index in range(3):
        writer.write(cv2.imread(str(digits_data.parent / "images" / "val" / f"{index:05d}.jpg")))
    writer.release()
    answer = shipsight("predict", digits_build.path, path, "--json")
    assert answer.code == 0, answer.err
    assert [image["source"] for image in answer.json["images"]] == [f"{path}#{i}" for i in range(3)]


def test_evaluate_agrees_with_the_build(digits_build: Built, digits_data: Path) -> None:
    answer = shipsight("evaluate", digits_build.path, "--data", digits_data, "--json")
    assert answer.code == 0, answer.err
    built = next(one for one in digits_build.answer.json["variants"] if one["is_default"])
    assert answer.json["variants"][0]["map50_95"] == pytest.approx(built["map50_95"], abs=1e-6)


def test_inspect_shows_card_and_digest(digits_build: Built) -> None:
    answer = shipsight("inspect", digits_build.path, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["card"]["class_names"] == list("0123456789")
    assert answer.json["digest"] == digits_build.answer.json["digest"]


def test_tables_are_printed_when_json_is_not_asked(digits_build: Built) -> None:
    answer = shipsight("inspect", digits_build.path)
    assert answer.code == 0
    assert digits_build.answer.json["default_variant"] in answer.out


def test_python_load_predicts_as_the_command_does(digits_build: Built, digits_data: Path) -> None:
    import shipsight as package

    image = digits_data.parent / "images" / "val" / "00000.jpg"
    with package.load(digits_build.path) as model:
        here = model.predict([image, image]).to_dict()
    there = shipsight("predict", digits_build.path, image, "--json").json
    assert here["images"][0] == here["images"][1]
    assert json.loads(json.dumps(here["images"][0])) == there["images"][0]
