# SPDX-License-Identifier: Apache-2.0
"""Parity: a variant compared with the source model on the golden set: what conversion and precision cost.

Leaves to others: comparing a variant with its own recording (`replay`), layer by layer (`layers`), accuracy on labelled
images (`build.measure`). Invariants: raw tables and predictions are both compared; the gate is strict where nothing
but rounding may differ (fp32) and stated in words for the others. Stable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import ParityError
from shipsight.model import Precision
from shipsight.proof.answers import Answer
from shipsight.proof.matching import MatchCriteria, MatchReport, match

__all__ = ["GATES", "ParityGate", "ParityReport", "TensorParity", "compare_answers", "compare_arrays"]


@dataclass(frozen=True)
class ParityGate:
    """What a precision may cost on the golden set.

    Attributes:
        least_share: share of confident predictions matched.
        most_score: largest difference in score of a pair.
        most_box_px: largest difference of a corner of a pair in pixels of the original image.
    """

    least_share: float
    most_score: float
    most_box_px: float | None

    def __str__(self) -> str:
        box = "" if self.most_box_px is None else f", boxes within {self.most_box_px:g} px"
        return f"at least {self.least_share:.0%} of predictions matched, scores within {self.most_score:g}{box}"


GATES: Mapping[Precision, ParityGate] = {
    # fp32: torch against ONNX Runtime was measured at 4.5e-6 in score and 4.3e-4 px; 200 and 100 times that
    Precision.FP32: ParityGate(1.0, 1e-3, 0.05),
    Precision.FP16: ParityGate(0.97, 0.05, None),
    Precision.BF16: ParityGate(0.9, 0.1, None),
    Precision.INT8: ParityGate(0.8, 0.1, None),
}
"""Gate by precision; those below fp32 only catch a broken conversion, accuracy on labelled images decides the rest."""


@dataclass(frozen=True)
class TensorParity:
    """How far two tables of numbers agree.

    Attributes:
        cosine: of the angle between them, 1 for equal.
        sqnr_db: signal to quantization noise ratio in dB; 200 where they are equal.
        max_error: largest absolute difference.
    """

    cosine: float
    sqnr_db: float
    max_error: float

    def to_dict(self) -> dict[str, float]:
        """Returns the numbers, rounded."""
        return {
            "cosine": round(self.cosine, 8),
            "sqnr_db": round(self.sqnr_db, 2),
            "max_error": float(f"{self.max_error:.6g}"),
        }


@dataclass(frozen=True)
class ParityReport:
    """What a variant costs against the source.

    Attributes:
        tensors: table of outputs -> how far it agrees.
        predictions: how predictions match.
        gate: what was allowed.
        passed: whether it holds.
    """

    tensors: Mapping[str, TensorParity]
    predictions: MatchReport
    gate: ParityGate
    passed: bool

    def to_dict(self, groups: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Returns the report as plain values.

        Args:
            groups: per layer group, from `layers.compare_layers`.
        """
        predictions = self.predictions.to_dict()
        return {
            "tensors": {name: one.to_dict() for name, one in self.tensors.items()},
            "predictions": {"expected": predictions.pop("confident"), **predictions},
            "gate": str(self.gate),
            "passed": self.passed,
            "groups": [dict(group) for group in groups],
        }

    def require(self, name: str) -> None:
        """Does nothing where the gate holds.

        Args:
            name: of the variant.

        Raises:
            ParityError: it does not hold.
        """
        if not self.passed:
            raise ParityError(
                "the variant differs from the source model by more than its gate allows",
                where=name,
                expected=str(self.gate),
                got=self.predictions.to_dict(),
            )


def compare_answers(
    source: Sequence[Answer], variant: Sequence[Answer], *, precision: Precision, criteria: MatchCriteria
) -> ParityReport:
    """Compares a variant with the source on the same inputs.

    Args:
        source: what the source gave, in raw form.
        variant: what the variant gave; in best-class form its scores are compared with the source's best.
        precision: of the variant; it chooses the gate.
        criteria: when two predictions are the same.
    """
    tensors: dict[str, TensorParity] = {}
    names = set(source[0].tables) & set(variant[0].tables) if source else set()
    for name in sorted(names):
        ours = [_like(one.tables[name], other.tables[name]) for one, other in zip(source, variant, strict=True)]
        tensors[name] = compare_arrays(ours, [one.tables[name] for one in variant])
    predictions = match([one.found for one in source], [one.found for one in variant], criteria)
    gate = GATES[precision]
    passed = predictions.share >= gate.least_share and predictions.worst_score <= gate.most_score
    if gate.most_box_px is not None:
        passed = passed and predictions.worst_box_px <= gate.most_box_px
    return ParityReport(tensors, predictions, gate, passed)


def _like(table: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the source's best score of each row where the variant gives only that."""
    return table.max(axis=1, keepdims=True) if other.shape[1] == 1 and table.shape[1] > 1 else table


def compare_arrays(ours: Sequence[NDArray[Any]], theirs: Sequence[NDArray[Any]]) -> TensorParity:
    """Compares arrays of equal shapes, all as one signal; the first are the truth."""
    dot = one_square = other_square = noise = 0.0
    worst = 0.0
    for truth, given in zip(ours, theirs, strict=True):
        a, b = truth.astype(np.float64).ravel(), given.astype(np.float64).ravel()
        difference = a - b
        dot += float(a @ b)
        one_square += float(a @ a)
        other_square += float(b @ b)
        noise += float(difference @ difference)
        worst = max(worst, float(np.abs(difference).max(initial=0.0)))
    both = np.sqrt(one_square) * np.sqrt(other_square)
    cosine = dot / both if both else float(one_square == other_square)
    if not noise:
        return TensorParity(float(cosine), 200.0, worst)
    sqnr = 10 * np.log10(one_square / noise) if one_square else -200.0
    return TensorParity(float(cosine), float(np.clip(sqnr, -200, 200)), worst)
