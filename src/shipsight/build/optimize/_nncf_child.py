# SPDX-License-Identifier: Apache-2.0
"""The process that NNCF runs in: reads one job from a folder, writes the quantized model beside it. Private.

A process of its own keeps what NNCF and the packages it pulls in would leave behind out of the caller: progress bars on standard output, warnings, logging set up, global random state, a gigabyte of memory.
It is given, in its working folder: `model.onnx`, `calibration.npy` ((n, h, w, 3) uint8) and `job.json`
(`card, float_nodes, overflow_fix, seed`). It writes `model.xml` and `model.bin`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["main"]


def main(folder: Path) -> None:
    """Does the job in a folder."""
    # NNCF imports PyTorch where it is installed, for seconds; the OpenVINO side does without.
    sys.modules["torch"] = None  # type: ignore[assignment]
    import nncf
    import openvino
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet
    from openvino._offline_transformations import apply_moc_transformations

    from shipsight.build.formats import write_ir
    from shipsight.build.optimize._calibration import feed
    from shipsight.build.optimize._graph import load_named
    from shipsight.model import Card

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    card = Card.from_dict(job["card"])
    proto = load_named((folder / "model.onnx").read_bytes())
    images = np.load(folder / "calibration.npy", mmap_mode="r", allow_pickle=False)
    np.random.seed(job["seed"])
    model = openvino.Core().read_model(folder / "model.onnx")
    # Folds what the ONNX reader spells out (a shape computation for each bias), as OpenVINO's own converter does.
    apply_moc_transformations(model, False)
    _use_strided_slices(model)
    quantized = nncf.quantize(
        model,
        nncf.Dataset(images, lambda image: feed(np.asarray(image), proto, card)),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        fast_bias_correction=True,
        ignored_scope=nncf.IgnoredScope(names=_openvino_names(model, frozenset(job["float_nodes"])), validate=False),
        advanced_parameters=AdvancedQuantizationParameters(
            overflow_fix=OverflowFix(job["overflow_fix"]),
            # The range with the least error over all values, not the mean of extremes.
            activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM,
        ),
    )
    _keep_pixels(quantized)
    for name, content in write_ir(quantized).items():
        (folder / name).write_bytes(content)


def _openvino_names(model: Any, nodes: frozenset[str]) -> list[str]:  # noqa: ANN401 - openvino.Model is untyped
    """Returns the names of the operations that OpenVINO made of ONNX nodes.

    The last operation of a node is named after it, the others `<node>/<part>`. Fused ones say in `fused_names_0` whose
    part they took.
    """
    found = []
    for operation in model.get_ordered_ops():
        if operation.get_type_name() in ("Constant", "Parameter", "Result"):
            continue
        name = str(operation.get_friendly_name())
        info = operation.get_rt_info()
        fused = str(info["fused_names_0"].astype(str)).split(",") if "fused_names_0" in info else []
        if any(part in nodes or part.rpartition("/")[0] in nodes for part in (name, *fused)):
            found.append(name)
    return sorted(found)


def _use_strided_slices(model: Any) -> None:  # noqa: ANN401
    """Turns each `Slice` with fixed bounds into a `StridedSlice`: NNCF carries quantizers over the latter only."""
    import openvino.opset13 as operations

    for piece in [operation for operation in model.get_ordered_ops() if operation.get_type_name() == "Slice"]:
        data, *bounds = [port.get_source_output() for port in piece.inputs()]
        nodes = [bound.get_node() for bound in bounds]
        if any(node.get_type_name() != "Constant" for node in nodes) or len(nodes) != 4:
            continue
        starts, stops, steps, axes = (np.asarray(node.get_data()) for node in nodes)
        begin, end, stride, is_whole = (np.full(len(data.get_partial_shape()), value) for value in (0, 0, 1, 1))
        begin[axes], end[axes], stride[axes], is_whole[axes] = starts, stops, steps, 0
        whole = is_whole.tolist()
        strided = operations.strided_slice(data, *(np.int64(one) for one in (begin, end, stride)), whole, whole)
        strided.set_friendly_name(piece.get_friendly_name())
        for reader in piece.output(0).get_target_inputs():
            reader.replace_source_output(strided.output(0))


def _keep_pixels(model: Any) -> None:  # noqa: ANN401
    """Quantizes uint8 input by itself: calibration's brightest pixel may lie below 255, and the engine skips an identity."""
    import openvino.opset13 as operations

    for quantizer in [
        operation for operation in model.get_ordered_ops() if operation.get_type_name() == "FakeQuantize"
    ]:
        cast = quantizer.input_value(0).get_node()
        is_pixels = cast.get_type_name() == "Convert" and cast.input_value(0).get_element_type().get_type_name() == "u8"
        if is_pixels and quantizer.get_attributes()["levels"] == 256:
            for port, value in zip(quantizer.inputs()[1:], (0, 255, 0, 255), strict=True):
                limit = operations.constant(np.full((1, 1, 1, 1), value, np.float32))
                port.replace_source_output(limit.output(0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
