# SPDX-License-Identifier: Apache-2.0
"""What is counted of a rollout: how versions answer, and how far a shadow agrees. Numbers only. Stable."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Any

from shipsight.proof.matching import MatchReport

__all__ = ["Agreement", "Latencies", "Tally", "find_worse"]

_LATEST = 2048
_ENOUGH = 100  # answers of each version below which nothing is said of which is worse
_MORE_FAILURES = 0.01  # share of failed answers above twice the current version's
_SLOWER = 1.5  # times the current version's p95


class Latencies:
    """The latest latencies. Not for several threads; those who hold one lock."""

    def __init__(self) -> None:
        self._ms: deque[float] = deque(maxlen=_LATEST)

    def add(self, ms: float) -> None:
        """Adds one, in milliseconds."""
        self._ms.append(ms)

    def quantile(self, share: float) -> float | None:
        """Returns the least latency that at least this share of the latest ones did not exceed; None without any."""
        ordered = sorted(self._ms)
        return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else None

    def to_dict(self) -> dict[str, float | None]:
        """Returns `p50` and `p95` in milliseconds."""
        found = {"p50": self.quantile(0.5), "p95": self.quantile(0.95)}
        return {name: None if ms is None else round(ms, 3) for name, ms in found.items()}


class Tally:
    """How one version answers requests that name none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latencies = Latencies()
        self.answered = 0
        self.failed = 0

    def add(self, ms: float, *, has_failed: bool) -> None:
        """Counts a request; the latency of one that failed says nothing."""
        with self._lock:
            if has_failed:
                self.failed += 1
            else:
                self.answered += 1
                self._latencies.add(ms)

    def to_dict(self) -> dict[str, Any]:
        """Returns `answered`, `failed`, `latency_ms`."""
        with self._lock:
            return {"answered": self.answered, "failed": self.failed, "latency_ms": self._latencies.to_dict()}


def find_worse(current: dict[str, Any], canary: dict[str, Any]) -> list[str]:
    """Returns in what a canary is clearly worse than the current version: `failures`, `p95`.

    Args:
        current: what `Tally.to_dict` returned.
        canary: likewise.
    """
    totals = [one["answered"] + one["failed"] for one in (current, canary)]
    if min(totals) < _ENOUGH:
        return []
    shares = [one["failed"] / total for one, total in zip((current, canary), totals, strict=True)]
    slow = [one["latency_ms"]["p95"] for one in (current, canary)]
    found = ["failures"] if shares[1] > 2 * shares[0] + _MORE_FAILURES else []
    if None not in slow and slow[1] > _SLOWER * slow[0]:
        found.append("p95")
    return found


class Agreement:
    """How far a shadow's predictions agree with those of the current version."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.compared = self.dropped = self.failed = self.confident = self.matched = 0
        self._worst_iou, self._worst_score = 1.0, 0.0
        self._current, self._shadow = Latencies(), Latencies()

    def add(self, report: MatchReport, *, current_ms: float, shadow_ms: float) -> None:
        """Counts an image that both predicted on."""
        with self._lock:
            self.compared += 1
            self.confident += report.confident
            self.matched += report.matched
            self._worst_iou = min(self._worst_iou, report.worst_iou)
            self._worst_score = max(self._worst_score, report.worst_score)
            self._current.add(current_ms)
            self._shadow.add(shadow_ms)

    def drop(self) -> None:
        """Counts an image that the shadow was not asked about: the server had work for callers."""
        with self._lock:
            self.dropped += 1

    def fail(self) -> None:
        """Counts an image that the shadow failed on."""
        with self._lock:
            self.failed += 1

    def to_dict(self) -> dict[str, Any]:
        """Returns counts, the share matched, the worst pair, and the latencies of both."""
        with self._lock:
            return {
                "images": {"compared": self.compared, "dropped": self.dropped, "failed": self.failed},
                "predictions": {
                    "confident": self.confident,
                    "matched": self.matched,
                    "share": round(self.matched / self.confident, 6) if self.confident else None,
                    "worst_iou": round(self._worst_iou, 6),
                    "worst_score": round(self._worst_score, 6),
                },
                "latency_ms": {"current": self._current.to_dict(), "shadow": self._shadow.to_dict()},
            }
