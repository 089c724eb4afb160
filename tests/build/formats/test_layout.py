# SPDX-License-Identifier: Apache-2.0
"""Other layouts give the same values, and graphs that are not known stay as they are."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from shipsight.build.formats._layout import average_by_anchor, join_whole
from shipsight.build.formats._onnx_model import OnnxEditor

FLOAT = TensorProto.FLOAT


def _constants(**values: np.ndarray) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(value, name) for name, value in values.items()]


def _model(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], shape: tuple[int, ...]) -> bytes:
    """A graph with the input `images` (1, 3, h, w) and the output `out`."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", FLOAT, shape)],
        [helper.make_tensor_value_info("out", FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def _distributions(
    levels: list[tuple[int, int]],
    bins: int,
    weights: np.ndarray,
    *,
    softmax_axis: int = 1,
    perm: tuple[int, ...] = (0, 2, 1, 3),
) -> bytes:
    """Levels of 4 distributions an anchor, from one image by resizing and a convolution each, averaged as exporters do."""
    nodes, parts = [], []
    constants = _constants(
        flat=np.array([1, 4 * bins, -1]), split=np.array([1, 4, bins, -1]), sides=np.array([1, 4, -1]), dfl=weights
    )
    draw = np.random.default_rng(5)
    for number, (height, width) in enumerate(levels):
        constants += _constants(
            **{
                f"sizes{number}": np.array([1, 3, height, width]),
                f"w{number}": draw.normal(0, 2, (4 * bins, 3, 1, 1)).astype(np.float32),
            }
        )
        nodes += [
            helper.make_node("Resize", ["images", "", "", f"sizes{number}"], [f"small{number}"], mode="nearest"),
            helper.make_node("Conv", [f"small{number}", f"w{number}"], [f"level{number}"]),
            helper.make_node("Reshape", [f"level{number}", "flat"], [f"flat{number}"]),
        ]
        parts.append(f"flat{number}")
    nodes += [
        helper.make_node("Concat", parts, ["joined"], axis=-1),
        helper.make_node("Reshape", ["joined", "split"], ["separate"]),
        helper.make_node("Transpose", ["separate"], ["turned"], perm=perm),
        helper.make_node("Softmax", ["turned"], ["share"], axis=softmax_axis),
        helper.make_node("Conv", ["share", "dfl"], ["mean"]),
        helper.make_node("Reshape", ["mean", "sides"], ["distances"]),
        helper.make_node("Sigmoid", ["distances"], ["out"]),
    ]
    return _model(nodes, constants, (1, 3, 16, 16))


def _run(model: bytes, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model)
    return np.asarray(session.run(None, {"images": image})[0])


def _image(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, shape).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    levels=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3),
    bins=st.integers(2, 17),
    seed=st.integers(0, 2**31),
)
def test_means_by_anchor_are_the_same_whatever_the_levels_and_bins(
    levels: list[tuple[int, int]], bins: int, seed: int
) -> None:
    weights = np.random.default_rng(seed).uniform(-3, 20, (1, bins, 1, 1)).astype(np.float32)
    before = _distributions(levels, bins, weights)
    editor = OnnxEditor(before)
    assert average_by_anchor(editor) == 1
    after = editor.dump()
    assert not any(
        node.op_type == "Conv" and "dfl" in node.input for node in onnx.load_model_from_string(after).graph.node
    )
    image = _image((1, 3, 16, 16), seed)
    np.testing.assert_allclose(_run(after, image), _run(before, image), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e6])
def test_means_stay_means_however_far_the_peaks_lie_apart(scale: float) -> None:
    weights = np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1)
    before = _distributions([(8, 8), (4, 4)], 16, weights)
    editor = OnnxEditor(before)
    average_by_anchor(editor)
    image = _image((1, 3, 16, 16), 4) * np.float32(scale)
    means, told = (_run(model, image) for model in (editor.dump(), before))
    # A sigmoid of means between 0 and 15.
    assert np.isfinite(means).all()
    assert means.min() >= 0.5 - 1e-6
    assert means.max() <= 1 / (1 + np.exp(-15.0)) + 1e-6
    if scale == 1.0:
        np.testing.assert_allclose(means, told, rtol=1e-5, atol=1e-6)


def test_before_opset_11_nothing_is_rewritten() -> None:
    model = onnx.load_model_from_string(_distributions([(4, 4)], 4, np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)))
    model.opset_import[0].version = 10
    assert average_by_anchor(OnnxEditor(model.SerializeToString())) == 0


@pytest.mark.parametrize(
    "options",
    [{"softmax_axis": 2}, {"perm": (0, 2, 1, 3), "softmax_axis": 3}],
    ids=["softmax-over-sides", "softmax-over-anchors"],
)
def test_what_is_no_mean_of_distributions_stays(options: dict[str, int]) -> None:
    model = _distributions([(4, 4)], 4, np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1), **options)
    editor = OnnxEditor(model)
    assert average_by_anchor(editor) == 0
    image = _image((1, 3, 16, 16), 1)
    assert np.array_equal(_run(editor.dump(), image), _run(model, image))


def _joined(order: list[str], axis: int = 1) -> bytes:
    """x is split in two; one half is worked on, and parts are joined in some order."""
    draw = np.random.default_rng(3)
    constants = _constants(
        first=draw.normal(size=(8, 3, 1, 1)).astype(np.float32),
        second=draw.normal(size=(4, 4, 3, 3)).astype(np.float32),
    )
    nodes = [
        helper.make_node("Conv", ["images", "first"], ["x"]),
        helper.make_node("Split", ["x"], ["a", "b"], axis=1),
        helper.make_node("Conv", ["b", "second"], ["m"], pads=[1, 1, 1, 1]),
        helper.make_node("Concat", order, ["out"], axis=axis),
    ]
    return _model(nodes, constants, (1, 3, 10, 6))


@pytest.mark.parametrize(
    ("order", "axis", "count"),
    [
        (["a", "b", "m"], 1, 1),
        (["a", "b", "m", "m"], 1, 1),
        (["a", "m", "b"], 1, 0),
        (["b", "a", "m"], 1, 0),
        (["a", "b", "m"], 2, 0),
    ],
    ids=["all-first", "joined-twice", "not-together", "turned-round", "another-axis"],
)
def test_parts_are_joined_as_one_only_where_that_is_the_same(order: list[str], axis: int, count: int) -> None:
    model = _joined(order, axis)
    editor = OnnxEditor(model)
    assert join_whole(editor) == count
    after = editor.dump()
    kinds = {node.op_type for node in onnx.load_model_from_string(after).graph.node}
    assert ("Split" in kinds) is (count == 0)
    image = _image((1, 3, 10, 6), 2)
    assert np.array_equal(_run(after, image), _run(model, image))


def test_the_sample_is_rewritten(sample_dir) -> None:
    editor = OnnxEditor((sample_dir / "digits.onnx").read_bytes())
    assert (average_by_anchor(editor), join_whole(editor)) == (1, 8)
