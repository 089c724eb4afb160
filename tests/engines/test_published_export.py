# SPDX-License-Identifier: Apache-2.0
"""An OpenVINO export that shipsight did not make, with ports that have no names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shipsight.engines import get_engine
from shipsight.model import OutputForm, Precision, TensorLayout, Variant


@pytest.mark.shared
def test_openvino_opens_an_export_whose_outputs_have_no_name(shared_data: Path) -> None:
    variant = Variant(
        name="published",
        engine="openvino",
        precision=Precision.INT8,
        size_hw=(640, 640),
        layout=TensorLayout.FLOAT_NCHW,
        form=OutputForm.RAW,
        files=("yolo11n.xml", "yolo11n.bin"),
        rest=Precision.FP32,
    )
    folder = shared_data / "models" / "yolo11n_int8_openvino_model"
    with get_engine("openvino").open(folder, variant) as session:
        outputs = session.infer(np.zeros(session.input.shape, np.float32))
        assert [array.shape for array in outputs.values()] == [(1, 84, 8400)]
        assert session.precision().integer_convolutions >= 80
