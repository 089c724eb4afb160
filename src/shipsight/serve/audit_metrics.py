# SPDX-License-Identifier: Apache-2.0
"""How the audit log fares, in Prometheus' terms: what waits, what was lost, how old the newest signature is, whether somebody reviews.

Reading never waits for the log's disk: whether a review is overdue is found out in a thread, once a minute while somebody asks. Stable.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    # SQLAlchemy, which a server that records nothing does not need.
    from shipsight.access.audit.log import AuditLog

__all__ = ["AuditMetrics", "Overdue"]

_log = logging.getLogger("shipsight.serve")
_LOOK_S = 60.0


class Overdue:
    """For how long the next review is overdue, as of a minute ago at most.

    Args:
        look: finds out, seconds; may wait for a disk.
        clock: monotonic seconds.
    """

    def __init__(self, look: Callable[[], float], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._look, self._clock = look, clock
        self._lock = threading.Lock()
        self._looked_s: float | None = None
        self._found: float | None = None

    def seconds(self) -> float | None:
        """Returns it, 0 where it is not; None while nobody knows. Never waits."""
        with self._lock:
            is_due = self._looked_s is None or self._clock() - self._looked_s > _LOOK_S
            if is_due:
                self._looked_s = self._clock()
                threading.Thread(target=self._find, name="shipsight-review-due", daemon=True).start()
        return self._found

    def _find(self) -> None:
        try:
            self._found = self._look()
        except Exception:  # noqa: BLE001 - the edge of the thread: it is unknown, and said to be
            self._found = None
            _log.warning("whether a review of the audit log is overdue cannot be told", exc_info=True)


class AuditMetrics(Collector):
    """Reads the log's state when somebody asks.

    Args:
        log: that this server writes.
        overdue: tells whether its review is; None where nobody looks.
        now: tells the time.
    """

    def __init__(
        self,
        log: AuditLog,
        *,
        overdue: Overdue | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._audit, self._overdue, self._now = log, overdue, now

    def collect(self) -> Iterator[Metric]:
        """Yields what there is to tell now."""
        state = self._audit.state
        up = "1 where the audit log can be written."
        yield GaugeMetricFamily("shipsight_audit_up", up, float(not state.is_degraded))
        yield GaugeMetricFamily("shipsight_audit_entries", "Entries of the audit log.", float(state.size))
        yield CounterMetricFamily("shipsight_audit_written", "Entries that this process wrote.", state.written)
        yield GaugeMetricFamily("shipsight_audit_buffered", "Events that wait to be written.", float(state.buffered))
        lost = "Events that could not be kept, nor wait any longer."
        yield CounterMetricFamily("shipsight_audit_lost", lost, state.lost)
        unsigned = "Entries that no checkpoint covers yet."
        tail = float(max(state.size - state.checkpoint_size, 0))
        yield GaugeMetricFamily("shipsight_audit_unsigned_entries", unsigned, tail)
        if state.checkpoint_at is not None:
            age_s = (self._now() - state.checkpoint_at).total_seconds()
            yield GaugeMetricFamily("shipsight_audit_checkpoint_age_seconds", "Of the newest checkpoint.", age_s)
        yield from self._copies()
        overdue_s = None if self._overdue is None else self._overdue.seconds()
        if overdue_s is not None:
            yield GaugeMetricFamily(
                "shipsight_audit_review_overdue_seconds", "Since the audit log should have been reviewed.", overdue_s
            )

    def _copies(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("shipsight_audit_copy_up", "1 where a second place takes checkpoints.", labels=["place"])
        entries = GaugeMetricFamily(
            "shipsight_audit_copy_entries", "Entries that the newest checkpoint there covers.", labels=["place"]
        )
        failures = CounterMetricFamily("shipsight_audit_copy_failures", "Attempts that failed.", labels=["place"])
        refusing = GaugeMetricFamily(
            "shipsight_audit_copy_refusing", "1 where a witness knows this log otherwise.", labels=["place"]
        )
        for one in self._audit.copies:
            up.add_metric([one.place], float(one.error is None))
            entries.add_metric([one.place], float(one.size))
            failures.add_metric([one.place], one.failures)
            refusing.add_metric([one.place], float(one.is_refusing))
        yield from (up, entries, failures, refusing)
