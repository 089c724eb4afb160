# SPDX-License-Identifier: Apache-2.0
"""What is counted, in Prometheus' terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shipsight.serve.models import Models, ModelState
from shipsight.serve.rollout_control import RolloutControl
from shipsight.serve.rollout_metrics import RolloutMetrics
from shipsight.serve.scheduler import Scheduler
from shipsight.serve.service import Observer

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
        self._requests = Counter(
            "shipsight_requests", "Requests by route and status.", ["route", "status"], registry=self.registry
        )

    def image_done(self, model: str, version: str, variant: str, stages_ms: Mapping[str, float]) -> None:
        """Counts an image."""
        self._images.labels(model, version, variant).inc()
        for stage, ms in stages_ms.items():
            self._stages.labels(model, version, variant, stage).observe(ms / 1e3)

    def request_done(self, route: str, status: int | str) -> None:
        """Counts a request: HTTP's status is a number, gRPC's a name."""
        self._requests.labels(route, str(status)).inc()

    def watch(self, models: Models, scheduler: Scheduler, rollouts: RolloutControl) -> None:
        """Adds readiness, queues and rollouts, read when they are asked for."""
        self.registry.register(_Gauges(models, scheduler))
        self.registry.register(RolloutMetrics(models, rollouts))

    def render(self) -> bytes:
        """Returns the text that Prometheus reads."""
        return generate_latest(self.registry)


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
