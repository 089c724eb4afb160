# SPDX-License-Identifier: Apache-2.0
"""What is counted, in Prometheus' terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shipsight.access.quotas import Quotas
from shipsight.serve.audit_metrics import AuditMetrics, Overdue
from shipsight.serve.engine_metrics import EngineMetrics
from shipsight.serve.gate import Gate
from shipsight.serve.image_work import Observer
from shipsight.serve.models import Models, ModelState
from shipsight.serve.monitor_metrics import MonitorMetrics
from shipsight.serve.monitors import Monitors
from shipsight.serve.recording_metrics import RecordingMetrics
from shipsight.serve.rollout_control import RolloutControl
from shipsight.serve.rollout_metrics import RolloutMetrics
from shipsight.serve.scheduler import Scheduler
from shipsight.serve.sealing import Sealing
from shipsight.serve.suspicion import Suspicion

if TYPE_CHECKING:
    # SQLAlchemy, which a server that records nothing does not need.
    from shipsight.access.audit.log import AuditLog
    from shipsight.serve.recordings import Recordings

__all__ = ["Metrics"]

_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics(Observer):
    """Counters and histograms of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ["model", "version", "variant"]
        self._images = Counter("shipsight_images", "Images predicted on.", labels, registry=self.registry)
        self._stages = Histogram(
            "shipsight_stage_seconds",
            "Time of an image in each stage.",
            [*labels, "stage"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._errors = Counter(
            "shipsight_errors",
            "Requests that were answered with an error, by its code.",
            ["route", "code"],
            registry=self.registry,
        )
        self._requests = Counter(
            "shipsight_requests", "Requests by route and status.", ["route", "status"], registry=self.registry
        )
        self._frames = Counter(
            "shipsight_stream_frames",
            "Frames of streams by what became of them: answered, dropped for a newer one, failed.",
            ["model", "result"],
            registry=self.registry,
        )

    def image_done(self, model: str, version: str, variant: str, stages_ms: Mapping[str, float]) -> None:
        """Counts an image."""
        self._images.labels(model, version, variant).inc()
        for stage, ms in stages_ms.items():
            self._stages.labels(model, version, variant, stage).observe(ms / 1e3)

    def request_done(self, route: str, status: int | str, error: str | None = None) -> None:
        """Counts a request: HTTP's status is a number, gRPC's a name; `error` is the code of the error that it was answered with."""
        self._requests.labels(route, str(status)).inc()
        if error is not None:
            self._errors.labels(route, error).inc()

    def frame_done(self, model: str, result: str) -> None:
        """Counts a frame of a stream: `answered`, `dropped` or `failed`."""
        self._frames.labels(model, result).inc()

    def watch(self, models: Models, scheduler: Scheduler, rollouts: RolloutControl) -> None:
        """Adds readiness, queues, engines and rollouts, read when they are asked for."""
        self.registry.register(_Gauges(models, scheduler))
        self.registry.register(EngineMetrics(models))
        self.registry.register(RolloutMetrics(models, rollouts))

    def watch_quotas(self, quotas: Quotas) -> None:
        """Adds who was limited, by model: never by name, of which there may be any number."""
        self.registry.register(_Quotas(quotas))

    def watch_gate(self, gate: Gate) -> None:
        """Adds how requests are let in."""
        self.registry.register(_GateGauges(gate))

    def watch_audit(self, log: AuditLog) -> None:
        """Adds how the audit log fares, and whether its review is overdue."""
        # What stands on it is imported by a server that records.
        from shipsight.access.review import overdue_s

        overdue = Overdue(lambda: overdue_s(log, datetime.now(UTC)))
        self.registry.register(AuditMetrics(log, overdue=overdue))

    def watch_suspicion(self, suspicion: Suspicion) -> None:
        """Adds how often somebody was suspected of copying a model."""
        self.registry.register(_Suspicion(suspicion))

    def watch_recordings(self, recordings: Recordings) -> None:
        """Adds how recording fares."""
        self.registry.register(RecordingMetrics(recordings))

    def watch_monitors(self, monitors: Monitors) -> None:
        """Adds drift and alerts."""
        self.registry.register(MonitorMetrics(monitors))

    def watch_sealing(self, sealing: Sealing) -> None:
        """Adds when the last sealing key ends."""
        self.registry.register(_SealingGauges(sealing))

    def render(self) -> bytes:
        """Returns the text that Prometheus reads."""
        return generate_latest(self.registry)


class _Quotas(Collector):
    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas

    def collect(self) -> Iterator[Metric]:
        counts = self._quotas.counts()
        limited = CounterMetricFamily(
            "shipsight_limited_requests", "Requests refused by a rate or a quota.", labels=["model", "limit"]
        )
        for key, number in counts.limited.items():
            limited.add_metric(key, number)
        yield limited
        if counts.is_store_up is not None:
            yield GaugeMetricFamily(
                "shipsight_limits_store_up", "1 where the shared store of limits answers.", float(counts.is_store_up)
            )
            yield CounterMetricFamily(
                "shipsight_limits_local_decisions", "Decisions without the shared store of limits.", counts.local
            )


class _GateGauges(Collector):
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "shipsight_access_open",
            "1 where anyone on this machine may ask anything.",
            float(not self._gate.has_closed),
        )
        behind = GaugeMetricFamily(
            "shipsight_behind", "1 for who encrypts and asks who is there in front of this server.", labels=["behind"]
        )
        if self._gate.rules.behind is not None:
            behind.add_metric([self._gate.rules.behind.value], 1.0)
        yield behind


class _SealingGauges(Collector):
    def __init__(self, sealing: Sealing) -> None:
        self._sealing = sealing

    def collect(self) -> Iterator[Metric]:
        keys = self._sealing.keys
        yield GaugeMetricFamily(
            "shipsight_sealing_key_seconds",
            "How long the last sealing key lives still; 0 and less where none does.",
            (keys.newest_ms() - keys.now_ms()) / 1e3,
        )


class _Suspicion(Collector):
    def __init__(self, suspicion: Suspicion) -> None:
        self._suspicion = suspicion

    def collect(self) -> Iterator[Metric]:
        suspected = CounterMetricFamily(
            "shipsight_extraction_suspected", "Principals whose questions look like copying.", labels=["model", "sign"]
        )
        for key, number in self._suspicion.extraction.suspected().items():
            suspected.add_metric(key, number)
        yield suspected
        yield CounterMetricFamily(
            "shipsight_extraction_dropped", "Answers that were not looked at.", self._suspicion.dropped
        )


class _Gauges(Collector):
    def __init__(self, models: Models, scheduler: Scheduler) -> None:
        self._models, self._scheduler = models, scheduler

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "version"]
        ready = GaugeMetricFamily("shipsight_model_ready", "1 where a model answers.", labels=labels)
        waiting = GaugeMetricFamily("shipsight_queue_jobs", "Images that wait.", labels=labels)
        wait = GaugeMetricFamily("shipsight_queue_seconds", "How long a new image would wait.", labels=labels)
        deaths = CounterMetricFamily(
            "shipsight_engine_deaths", "Ends of a model's worker process that nobody asked for.", labels=labels
        )
        for model in self._models.all():
            load = self._scheduler.load(model.lane)
            key = [model.name, model.version]
            ready.add_metric(key, float(model.state is ModelState.READY))
            waiting.add_metric(key, float(load.waiting))
            wait.add_metric(key, load.wait_s)
            deaths.add_metric(key, float(model.deaths))
        yield from (ready, waiting, wait, deaths)
