# SPDX-License-Identifier: Apache-2.0
"""Parity: nothing between equal models, measured between others, and where it is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.proof.tiny_network import CARD, SIDE, VARIANT, Built, make_network, open_network

from shipsight.errors import ParityError, UnsupportedError
from shipsight.model import OutputForm, Precision, Variant
from shipsight.proof import MatchCriteria, Subject, ask, compare_answers, compare_layers
from shipsight.proof.matching import Found, match
from shipsight.proof.parity import compare_arrays
from shipsight.proof.subject import views
from shipsight.vision import prepare


def test_parity_is_perfect_between_equal_models(built: Built):
    report = compare_answers(built.answers, built.answers, precision=Precision.FP32, criteria=built.golden.criteria)
    assert report.passed
    assert report.predictions.share == 1.0
    assert {name: one.sqnr_db for name, one in report.tensors.items()} == {"boxes": 200.0, "scores": 200.0}
    report.require("x")


@pytest.mark.parametrize("precision", list(Precision))
def test_parity_fails_for_another_model_whatever_the_precision(built: Built, precision):
    with open_network(make_network(seed=1)) as session:
        answers = ask(Subject.of(session, VARIANT, CARD), built.golden)
    report = compare_answers(built.answers, answers, precision=precision, criteria=built.golden.criteria)
    assert not report.passed
    with pytest.raises(ParityError, match="some-variant"):
        report.require("some-variant")
    told = report.to_dict([{"name": "model.0"}])
    assert told["predictions"]["matched"] < told["predictions"]["expected"]
    assert told["groups"] == [{"name": "model.0"}]


def test_parity_is_strict_for_fp32_and_lenient_for_int8(built: Built):
    shifted = []
    for one in built.answers:
        found = Found(one.found.class_ids, one.found.scores - np.float32(0.02), one.found.corners_xy + np.float32(0.3))
        shifted.append(type(one)(one.key, one.tables, found))
    criteria = built.golden.criteria
    assert not compare_answers(built.answers, shifted, precision=Precision.FP32, criteria=criteria).passed
    assert compare_answers(built.answers, shifted, precision=Precision.INT8, criteria=criteria).passed


def test_parity_compares_best_class_outputs_with_the_best_of_raw_ones():
    random = np.random.RandomState(0)
    raw = random.uniform(size=(1, 7, 30)).astype(np.float32)
    best = {
        "boxes": raw[:, :4].transpose(0, 2, 1),
        "scores": raw[:, 4:].max(axis=1),
        "class_ids": raw[:, 4:].argmax(axis=1),
    }
    whole = views({"output0": raw}, CARD, OutputForm.RAW)
    trimmed = views(best, CARD, OutputForm.BEST_CLASS)
    assert np.array_equal(whole["boxes"], trimmed["boxes"])
    assert np.array_equal(whole["scores"].max(axis=1, keepdims=True), trimmed["scores"])


def test_sqnr_and_cosine_are_what_their_definitions_say():
    truth = np.array([3.0, 4.0])
    found = compare_arrays([truth], [np.array([3.0, 4.5])])
    assert found.sqnr_db == pytest.approx(10 * np.log10(25 / 0.25))
    assert found.cosine == pytest.approx((9 + 18) / (5 * np.hypot(3, 4.5)))
    assert found.max_error == 0.5


def boxes(*rows: tuple[int, float, float, float, float, float]) -> Found:
    table = np.array(rows, dtype=np.float32).reshape(-1, 6)
    corners = table[:, 2:][:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    return Found(table[:, 0].astype(np.int64), table[:, 1], corners)


@pytest.mark.parametrize(
    ("other", "matched"),
    [
        (boxes((0, 0.9, 0, 0, 10, 10)), 2),
        (boxes((1, 0.9, 0, 0, 10, 10)), 0),
        (boxes((0, 0.75, 0, 0, 10, 10)), 0),
        (boxes((0, 0.9, 0, 0, 10, 9)), 2),
        (boxes((0, 0.9, 0, 0, 10, 7)), 0),
        (boxes((0, 0.9, 50, 50, 60, 60)), 0),
        (boxes(), 0),
    ],
    ids=["equal", "class", "score", "close", "far", "elsewhere", "none"],
)
def test_match_wants_class_overlap_and_score(other, matched):
    report = match([boxes((0, 0.9, 0, 0, 10, 10))], [other], MatchCriteria())
    assert report.matched == matched
    assert report.confident == 1 + len(other.scores)


def test_match_forgives_a_partner_just_below_the_threshold_and_counts_extra_ones():
    report = match([boxes((0, 0.26, 0, 0, 10, 10))], [boxes((0, 0.2, 0, 0, 10, 10))], MatchCriteria())
    assert (report.confident, report.matched) == (1, 1)
    extra = boxes((0, 0.9, 0, 0, 10, 10), (0, 0.9, 30, 30, 40, 40))
    report = match([boxes((0, 0.9, 0, 0, 10, 10))], [extra], MatchCriteria())
    assert (report.confident, report.matched) == (3, 2)


@settings(max_examples=60, deadline=None)
@given(angle=st.floats(0, 6.28), turn=st.integers(0, 3), size=st.tuples(st.floats(2, 50), st.floats(2, 50)))
def test_match_of_rotated_boxes_does_not_depend_on_the_first_corner(angle, turn, size):
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    quad = (corners @ rotation.T).astype(np.float32)[None]
    one = Found(np.array([0]), np.array([0.9], np.float32), quad)
    other = Found(np.array([0]), np.array([0.9], np.float32), np.roll(quad, turn, axis=1))
    report = match([one], [other], MatchCriteria())
    assert report.share == 1.0
    assert report.worst_iou == pytest.approx(1, abs=1e-4)
    assert report.worst_box_px == 0


def test_overlap_of_half_shifted_squares_is_a_third():
    report = match([boxes((0, 0.9, 0, 0, 10, 10))], [boxes((0, 0.9, 5, 0, 15, 10))], MatchCriteria(iou=0.3))
    assert report.worst_iou == pytest.approx(1 / 3)


def openvino_variant(precision: Precision = Precision.FP32) -> Variant:
    values = {**VARIANT.to_dict(), "name": "openvino", "engine": "openvino", "files": ["model.xml", "model.bin"]}
    return Variant.from_dict({**values, "precision": precision.value, "rest": precision.value})


def to_ir(model: bytes, tmp_path) -> dict[str, bytes]:
    from shipsight.engines._openvino_import import import_openvino

    openvino = import_openvino()
    (tmp_path / "model.onnx").write_bytes(model)
    converted = openvino.convert_model(tmp_path / "model.onnx")
    openvino.save_model(converted, tmp_path / "model.xml", compress_to_fp16=False)
    return {name: (tmp_path / name).read_bytes() for name in ("model.xml", "model.bin")}


def test_layers_agree_between_runtimes_and_name_the_layer_where_they_do_not(built: Built, tmp_path):
    images = [prepare(one.image_rgb, CARD.input)[0] for one in built.golden.inputs[:2]]
    rows = compare_layers(built.model, to_ir(built.model, tmp_path), openvino_variant(), CARD, images)
    assert [(one["name"], one["stage"]) for one in rows] == [
        ("model.0", "backbone"),
        ("model.1", "backbone"),
        ("model.2", "backbone"),
        ("model.3", "neck"),
        ("model.4", "head"),
    ]
    assert min(one["sqnr_db"] for one in rows) > 80
    broken = compare_layers(built.model, {"model.onnx": make_network(zeroed=2)}, VARIANT, CARD, images)
    assert [one["sqnr_db"] > 80 for one in broken] == [True, True, False, False, False]


def test_layers_of_an_engine_without_a_graph_are_refused(built: Built):
    values = {**VARIANT.to_dict(), "engine": "pytorch"}
    with pytest.raises(UnsupportedError):
        compare_layers(
            built.model, {"model.onnx": b""}, Variant.from_dict(values), CARD, [np.zeros((SIDE, SIDE, 3), np.uint8)]
        )
