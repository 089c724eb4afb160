# SPDX-License-Identifier: Apache-2.0
"""Parity layer group by layer group: where in the network a precision loses its signal.

Leaves to others: parity of outputs (`parity`). The last feature map of each layer group that both graphs name is read
out by making it an output of a copy; what a runtime fuses may differ a little in such a copy, so the numbers point to
layers and are no gate. Groups are the `/model.N/` of Ultralytics' exports, or else convolutions spread over the graph.
Needs `onnx` (the extra `build`). Stable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.engines._onnxruntime_import import import_onnxruntime
from shipsight.engines._openvino_import import import_openvino
from shipsight.errors import MissingDependencyError, UnsupportedError
from shipsight.model import Card, Precision, TensorLayout, Variant
from shipsight.proof.parity import compare_arrays
from shipsight.vision import to_tensor

__all__ = ["LayerGroup", "compare_layers", "find_groups", "import_onnx", "read_tensors"]

_GROUP = re.compile(r"/model\.(\d+)/")
_UPSAMPLING = frozenset({"Resize", "Upsample"})
_FEW_GROUPS, _SPREAD = 4, 12
Run = Callable[[NDArray[Any]], dict[str, NDArray[np.float32]]]


@dataclass(frozen=True)
class LayerGroup:
    """Layers that follow each other.

    Attributes:
        name: `model.4`, or a convolution's output.
        stage: `backbone`, `neck` or `head`.
        tensors: names of its feature maps, the last of the group first.
    """

    name: str
    stage: str
    tensors: tuple[str, ...]


def import_onnx() -> Any:  # noqa: ANN401 - a module without types
    """Returns the module `onnx`.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            "onnx is not installed", where="onnx", got=error, hint="Run: pip install 'shipsight[build]'"
        ) from error
    return onnx


def find_groups(model_onnx: bytes) -> tuple[LayerGroup, ...]:
    """Finds the layer groups of a graph, in the order in which they compute."""
    nodes = import_onnx().load_from_string(model_onnx).graph.node
    tensors: dict[str, list[str]] = {}
    upsampling: list[str] = []
    for node in nodes:
        found = _GROUP.search(node.name) or next(filter(None, map(_GROUP.search, node.output)), None)
        if found is None:
            continue
        group = f"model.{found[1]}"
        tensors.setdefault(group, []).extend(node.output[:1])
        if node.op_type in _UPSAMPLING:
            upsampling.append(group)
    if len(tensors) < _FEW_GROUPS:
        return _spread_groups(nodes)
    names = sorted(tensors, key=lambda name: int(name.partition(".")[2]))  # exporters may write a head's nodes early
    neck = min(map(names.index, upsampling)) if upsampling else len(names) - 1
    return tuple(
        LayerGroup(name, _stage(position, neck, len(names)), tuple(reversed(tensors[name])))
        for position, name in enumerate(names)
    )


def _stage(position: int, neck: int, count: int) -> str:
    if position == count - 1:
        return "head"
    return "backbone" if position < neck else "neck"


def _spread_groups(nodes: Sequence[Any]) -> tuple[LayerGroup, ...]:
    outputs = [node.output[0] for node in nodes if node.op_type == "Conv"]
    if not outputs:
        return ()
    picked = sorted({int(at) for at in np.linspace(0, len(outputs) - 1, _SPREAD)})
    resized = [number for number, node in enumerate(nodes) if node.op_type in _UPSAMPLING]
    where = {node.output[0]: number for number, node in enumerate(nodes)}
    first = resized[0] if resized else len(nodes)
    return tuple(
        LayerGroup(outputs[at], "backbone" if where[outputs[at]] < first else "neck", (outputs[at],)) for at in picked
    )


def compare_layers(
    reference_onnx: bytes,
    files: Mapping[str, bytes],
    variant: Variant,
    card: Card,
    prepared: Sequence[NDArray[np.uint8]],
) -> list[dict[str, Any]]:
    """Compares a variant's feature maps with the float reference's.

    Args:
        reference_onnx: the float reference of the variant's input size, float input.
        files: of the variant.
        variant: what they are: ONNX or OpenVINO IR.
        card: of the model.
        prepared: images of the variant's input size, (h, w, 3) uint8 RGB, one and more.

    Returns:
        One mapping a group that both graphs name: `name, stage, tensor, cosine, sqnr_db, max_error`.

    Raises:
        UnsupportedError: the variant's engine has no graph to look into.
        MissingDependencyError: `onnx` or the runtime is not installed.
    """
    contract = card.with_size(variant.size_hw).input
    groups = find_groups(reference_onnx)
    known = _tensor_names(files, variant)
    chosen = {group: next((one for one in group.tensors if one in known), None) for group in groups}
    wanted = [name for name in chosen.values() if name is not None]
    if not wanted:
        return []
    run = _open(files, variant, wanted)
    reference = _open_onnx(reference_onnx, wanted)
    sums: dict[str, list[tuple[NDArray[np.float32], NDArray[np.float32]]]] = {name: [] for name in wanted}
    for image in prepared:
        truth = reference(to_tensor(image, contract, TensorLayout.FLOAT_NCHW))
        given = run(to_tensor(image, contract, variant.layout))
        for name in wanted:
            if truth[name].ndim >= 3 and truth[name].shape == given[name].shape:
                sums[name].append((truth[name], given[name]))
    rows: list[dict[str, Any]] = []
    for group, tensor in chosen.items():
        if tensor is not None and sums[tensor]:
            found = compare_arrays([truth for truth, _ in sums[tensor]], [given for _, given in sums[tensor]])
            rows.append({"name": group.name, "stage": group.stage, "tensor": tensor, **found.to_dict()})
    return rows


def read_tensors(model_onnx: bytes, names: Sequence[str], *, threads: int = 2, is_cut: bool = False) -> Run:
    """Opens a graph in ONNX Runtime so that it gives the named tensors, as float32.

    Args:
        model_onnx: the model.
        names: of tensors.
        threads: that compute.
        is_cut: whether only what leads to them is run.

    Raises:
        MissingDependencyError: `onnx` or ONNX Runtime is not installed.
    """
    return _open_onnx(model_onnx, list(names), threads, is_cut=is_cut)


def _tensor_names(files: Mapping[str, bytes], variant: Variant) -> frozenset[str]:
    if variant.engine == "openvino":
        model = _read_ir(files, variant)
        return frozenset(
            name
            for operation in model.get_ordered_ops()
            if operation.get_type_name() not in ("Constant", "Result")
            for output in operation.outputs()
            for name in output.get_names()
        )
    if variant.engine != "onnxruntime":
        raise UnsupportedError("no graph to look into", where=variant.name, got=variant.engine)
    graph = import_onnx().load_from_string(files[variant.files[0]]).graph
    return frozenset(name for node in graph.node for name in node.output)


def _open(files: Mapping[str, bytes], variant: Variant, names: list[str]) -> Run:
    if variant.engine == "openvino":
        return _open_ir(files, variant, names)
    return _open_onnx(files[variant.files[0]], names)


def _open_onnx(model_onnx: bytes, names: list[str], threads: int = 2, *, is_cut: bool = False) -> Run:
    onnx, runtime = import_onnx(), import_onnxruntime()
    model = onnx.load_from_string(model_onnx)
    if is_cut:
        del model.graph.output[:]
    present = {output.name for output in model.graph.output}
    # an entry without a type: the runtime takes the one that it infers
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    input_name = session.get_inputs()[0].name

    def run(tensor: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        found = session.run(names, {input_name: tensor})
        return {name: np.asarray(one, dtype=np.float32) for name, one in zip(names, found, strict=True)}

    return run


def _read_ir(files: Mapping[str, bytes], variant: Variant) -> Any:  # noqa: ANN401 - an OpenVINO model, without types
    openvino = import_openvino()
    weights = files[variant.files[1]]
    tensor = openvino.Tensor(np.frombuffer(weights, dtype=np.uint8).copy())
    return openvino.Core().read_model(files[variant.files[0]], tensor)


def _open_ir(files: Mapping[str, bytes], variant: Variant, names: list[str]) -> Run:
    openvino = import_openvino()
    model = _read_ir(files, variant)
    given = {name for output in model.outputs for name in output.get_names()}
    model.add_outputs([name for name in names if name not in given])
    hint = "bf16" if Precision.BF16 in (variant.precision, variant.rest) else "f32"
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})

    def run(tensor: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        found = compiled([tensor])
        return {name: np.array(found[compiled.output(name)], dtype=np.float32) for name in names}

    return run
