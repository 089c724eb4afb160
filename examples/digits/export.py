# SPDX-License-Identifier: Apache-2.0
"""Exports the sample's checkpoint to the float ONNX that the demo starts from (needs `shipsight[ultralytics]`)."""

from __future__ import annotations

from pathlib import Path

from shipsight.build.sources import open_source

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Writes `digits.onnx` beside `digits.pt`."""
    with open_source(HERE / "digits.pt", name="digits") as source:
        (HERE / "digits.onnx").write_bytes(source.export_onnx(source.card.input.size_hw))


if __name__ == "__main__":
    main()
