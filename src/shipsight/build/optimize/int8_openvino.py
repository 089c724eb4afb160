# SPDX-License-Identifier: Apache-2.0
"""INT8 for OpenVINO: NNCF's post-training quantization, with the layers that may not be quantized left in float.

Takes the ONNX that will be shipped, raw or trimmed (uint8 input, boxes out): NNCF calibrates on what that graph takes.
Activations are quantized by NNCF's `mixed` preset (asymmetric where a layer's range is not symmetric), their ranges chosen
from histograms, weights per channel, biases corrected. Whether weights keep 7 or 8 bits depends on the processor (`cpu_target`).

Leaves to others: which layers stay float (`layers`, `guard`), reading the images, measuring. Invariants: the same model,
images, options and versions give the same bytes; NNCF runs in a child process, which writes nothing outside a private
temporary folder and sends nothing anywhere. Stable. Source: NNCF, `nncf.quantize`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shipsight.build.optimize._calibration import check_calibration
from shipsight.build.optimize._graph import load_named
from shipsight.build.optimize.cpu_target import Int8Target, detect_target
from shipsight.build.optimize.layers import FloatLayers
from shipsight.errors import InternalError, LimitError, MissingDependencyError
from shipsight.model import Card

__all__ = ["quantize_openvino"]

_TIMEOUT_S = 3600.0


def quantize_openvino(
    model_onnx: bytes,
    calibration: Sequence[NDArray[np.uint8]],
    *,
    card: Card,
    float_layers: FloatLayers,
    target: Int8Target | None = None,
    seed: int = 0,
) -> dict[str, bytes]:
    """Quantizes a float ONNX model to an OpenVINO IR.

    Args:
        model_onnx: the float model, batch 1, static; input float32 NCHW or uint8 NHWC.
        calibration: images brought to the input size, (h, w, 3) uint8 RGB.
        card: says how a float input is normalised.
        float_layers: groups of `map_layers(model_onnx)` that stay float.
        target: kind of processor the file is made for; None (default) for this machine's.
        seed: of NNCF's random choices.

    Returns:
        `model.xml` and `model.bin`; the weights that stay float are float32.

    Raises:
        MissingDependencyError: NNCF, OpenVINO or onnx is not installed.
        CorruptError: the bytes are not an ONNX model.
        UnsupportedError: the model's input is neither of the two.
        TensorError: an image has another shape or type than the model takes.
        LimitError: quantization was ended by the system (memory) or took over an hour.
        InternalError: NNCF or OpenVINO failed.
    """
    for package in ("nncf", "openvino"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"package {package} is not installed", hint="Run: pip install 'shipsight[build]'"
            )
    proto = load_named(model_onnx)
    check_calibration(proto, calibration)
    target = detect_target() if target is None else target
    job = {
        "card": card.to_dict(),
        "float_nodes": sorted(float_layers.nodes),
        "overflow_fix": target.overflow_fix,
        "seed": seed,
    }
    with tempfile.TemporaryDirectory(prefix="shipsight-int8-") as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(proto.SerializeToString(deterministic=True))
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        np.save(folder / "calibration.npy", np.stack(calibration), allow_pickle=False)
        _run_child(folder)
        files = {file: (folder / file).read_bytes() for file in ("model.xml", "model.bin")}
    if os.fsencode(name) in files["model.xml"]:
        raise InternalError("the path of a temporary folder stands in the model", where="model.xml")
    return files


def _run_child(folder: Path) -> None:
    # NNCF_CI switches NNCF's reporting of use off; CI does so for OpenVINO's tools.
    environment = {**os.environ, "NNCF_CI": "1", "CI": "true", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "shipsight.build.optimize._nncf_child", str(folder)]
    try:
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LimitError("quantization took too long", expected=f"{_TIMEOUT_S:.0f} s at most") from error
    if done.returncode < 0:
        raise LimitError(
            "quantization was ended by the system",
            got=f"signal {-done.returncode}",
            hint="Give the build more memory, or fewer calibration images",
        )
    if done.returncode:
        raise InternalError("quantization failed", where="NNCF", got=done.stderr.strip()[-600:])
