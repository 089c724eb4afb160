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
    quantized = nncf.quantize(
        model,
        nncf.Dataset(images, lambda image: feed(np.asarray(image), proto, card)),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        fast_bias_correction=True,
        ignored_scope=nncf.IgnoredScope(names=_openvino_names(model, frozenset(job["float_nodes"])), validate=False),
        advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix(job["overflow_fix"])),
    )
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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
