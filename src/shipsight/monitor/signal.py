# SPDX-License-Identifier: Apache-2.0
"""What one look at a model in production says of one thing: it fires, or it does not. Pure. Stable.

Leaves to others: how it was found (the statistics of drift), and what becomes of it (`alerts`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Signal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One thing that was looked at.

    Attributes:
        name: of the thing, such as `drift-brightness`.
        severity: how bad it is where it fires.
        what: one sentence.
        evidence: figures.
        remedy: what to do.
        is_firing: whether it is so.
        value: that was measured, None where that is no number.
        threshold: that it is held against, None where there is none.
        subject: model/variant.
    """

    name: str
    severity: Literal["error", "warning", "note"]
    what: str
    evidence: str
    remedy: str
    is_firing: bool
    value: float | None
    threshold: float | None
    subject: str
