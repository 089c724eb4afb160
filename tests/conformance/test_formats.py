# SPDX-License-Identifier: Apache-2.0
"""Every format against the one contract."""

from __future__ import annotations

from format_suite import FormatSuite


class TestOnnx(FormatSuite):
    format_name = "onnx"


class TestOpenVinoIr(FormatSuite):
    format_name = "openvino"
