# SPDX-License-Identifier: Apache-2.0
"""What all rules of the data share: how a cost becomes a severity and a sentence. Pure. Private."""

from __future__ import annotations

from shipsight.doctor.data.costing import Cost
from shipsight.doctor.data.evidence import DataEvidence
from shipsight.doctor.finding import Severity

__all__ = ["cost_figures", "judge", "tell_cost"]

_ERROR = 0.05
_WARNING = 0.02


def judge(cost: Cost | None, evidence: DataEvidence) -> tuple[Severity, float, float]:
    """Returns severity, weight and certainty of a cause.

    An error costs 5 % of the answers at least, at the lower end of its interval; a warning 2 %, and surely something. Where golden images
    cannot tell, the fall of the scores stands in, with half the certainty.
    """
    if cost is None:
        lost = 0.0 if evidence.scores is None or evidence.scores.p_value > 0.01 else evidence.scores.lost
        return (Severity.WARNING if lost > _WARNING else Severity.NOTE), lost, 0.5
    weight = max(cost.value, 0.0)
    if cost.low >= _ERROR:
        return Severity.ERROR, weight, 1.0
    if cost.value >= _WARNING and cost.low > 0:
        return Severity.WARNING, weight, 1.0
    return Severity.NOTE, weight, 1.0


def tell_cost(cost: Cost | None) -> str:
    """Returns what the cost is, as the end of a sentence."""
    if cost is None:
        return "what it costs could not be measured: the model answers too little on the golden images"
    interval = f"{max(cost.low, 0):.0%} to {cost.high:.0%}"
    if cost.low <= 0 or cost.value < _WARNING:
        return f"the same done to {cost.images} golden images costs nothing measurable ({interval} of the answers)"
    return f"the same done to {cost.images} golden images loses {cost.value:.0%} of the answers ({interval})"


def cost_figures(cost: Cost | None) -> dict[str, float | int | None]:
    """Returns the cost as figures."""
    if cost is None:
        return {"share_lost": None}
    return {
        "share_lost": round(cost.value, 4),
        "share_lost_low": round(cost.low, 4),
        "share_lost_high": round(cost.high, 4),
        "golden_images": cost.images,
    }
