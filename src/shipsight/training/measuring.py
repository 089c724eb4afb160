# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint can do: its accuracy on images that no decision looked at, and its speed beside others in one run.

All are measured in one form, OpenVINO in float32, so that what differs is the network. Private to the room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shipsight.build.candidates import float_files, float_variants
from shipsight.build.measure import Accuracy, Alternation, Sample, alternate
from shipsight.build.measuring import Evaluator, open_variant
from shipsight.build.options import BuildOptions
from shipsight.build.sources import Sandbox, open_source
from shipsight.model import Card, Precision, Variant
from shipsight.model.warning import BuildWarning

__all__ = ["Measured", "compare_speed", "measure_accuracy", "open_measured"]


@dataclass(frozen=True, eq=False)
class Measured:
    """A checkpoint in the form that it is measured in.

    Attributes:
        card: what it is, at the size that is measured.
        warnings: what a person should know of it.
        variant: the form.
        files: of the form.
    """

    card: Card
    warnings: tuple[BuildWarning, ...]
    variant: Variant
    files: Mapping[str, bytes]


def open_measured(checkpoint: Path, size_hw: tuple[int, int] | None, *, sandbox: Sandbox) -> Measured:
    """Exports a checkpoint.

    Args:
        checkpoint: of Ultralytics.
        size_hw: of its input, None for the one that it was trained at.
        sandbox: whether it is opened only where that can be isolated.

    Raises:
        ArtefactError, LimitError, SandboxError: as `open_source`.
    """
    with open_source(checkpoint, sandbox=sandbox) as source:
        card = source.card if size_hw is None else source.card.with_size(size_hw)
        warnings, onnx = source.warnings, source.export_onnx(card.input.size_hw)
    options = BuildOptions(precisions=(Precision.FP32,))
    (variant,) = float_variants("openvino", card, options, has_bf16=False, is_trimmed=True)
    return Measured(card, warnings, variant, float_files(variant, onnx, card))


def measure_accuracy(one: Measured, samples: Sequence[Sample], *, threads: int | None) -> Accuracy:
    """Returns the accuracy on some images."""
    with open_variant(one.files, one.variant, threads=threads) as session:
        return Evaluator(one.card, samples).accuracy(session, one.variant)


def compare_speed(some: Mapping[str, Measured], *, threads: int | None) -> Alternation:
    """Times one inference of each in turns, on one image that is noise: what they compute does not depend on it."""
    sessions = {name: open_variant(one.files, one.variant, threads=threads) for name, one in some.items()}
    try:
        draw = np.random.default_rng(0)
        calls = {}
        for name, session in sessions.items():
            height, width = some[name].variant.size_hw
            pixels = draw.integers(0, 256, (1, height, width, 3), np.uint8)
            calls[name] = lambda session=session, pixels=pixels: session.infer(pixels)
        return alternate(calls, rounds=15, runs=8)
    finally:
        for session in sessions.values():
            session.close()
