# SPDX-License-Identifier: Apache-2.0
"""Bundles of the digits sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from shipsight.build import BuildOptions, build
from shipsight.model import Precision
from shipsight.model.bundle import open_bundle, write_bundle

__all__ = ["build_digits", "rewritten"]


def build_digits(sample: Path, folder: Path) -> None:
    """Builds `digits.bundle` with float variants of ONNX Runtime: seconds to build."""
    built = folder / "built.bundle"
    build(
        sample / "digits.onnx",
        out=built,
        options=BuildOptions(engines=("onnxruntime",), precisions=(Precision.FP32,)),
    )
    # Which of two is faster is chance here, and whether raw tensors are served hangs on it.
    rewritten(built, folder / "digits.bundle")


def rewritten(
    bundle: Path,
    place: Path,
    *,
    name: str = "digits",
    version: str = "1",
    weights_scale: float = 1.0,
    with_files: Mapping[str, bytes] | None = None,
) -> Path:
    """A bundle whose manifest fits its files, with another name, version, other weights or files; the reference is its default."""
    opened = open_bundle(bundle)
    files = {file: opened.read(file) for file in opened.names} | dict(with_files or {})
    for file in [file for file in files if file.endswith("model.onnx") and weights_scale != 1.0]:
        model = onnx.load_from_string(files[file])
        weights = max(model.graph.initializer, key=lambda one: len(one.raw_data))
        values = np.frombuffer(weights.raw_data, np.float32) * np.float32(weights_scale)
        weights.raw_data = values.tobytes()
        files[file] = model.SerializeToString()
    write_bundle(
        place,
        files,
        card=dataclasses.replace(opened.card, name=name, version=version),
        variants=opened.variants,
        default_variant=next(one.name for one in opened.variants if one.is_reference),
        golden=opened.manifest.golden,
    )
    return place
