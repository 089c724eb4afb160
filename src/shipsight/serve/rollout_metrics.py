# SPDX-License-Identifier: Apache-2.0
"""Rollouts in Prometheus' terms: roles, memory, how versions answer, how far shadows agree.

Counts begin anew when a rollout changes, as a counter does when a process starts. Stable.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shipsight.serve.models import Models, ModelState
from shipsight.serve.rollout_control import RolloutControl

__all__ = ["RolloutMetrics"]

_LABELS = ["model", "version"]
_QUANTILES = (("p50", "0.5"), ("p95", "0.95"))


class RolloutMetrics(Collector):
    """Reads rollouts when somebody asks.

    Args:
        models: in service.
        rollouts: of theirs.
    """

    def __init__(self, models: Models, rollouts: RolloutControl) -> None:
        self._models, self._rollouts = models, rollouts

    def collect(self) -> Iterator[Metric]:
        """Yields what there is to tell now."""
        yield from self._versions()
        yield from self._answers()
        yield from self._shadows()

    def _versions(self) -> Iterator[Metric]:
        roles = GaugeMetricFamily("shipsight_model_role", "1 for what a version is.", labels=[*_LABELS, "role"])
        share = GaugeMetricFamily("shipsight_canary_share", "Share of requests that goes to a canary.", labels=_LABELS)
        memory = GaugeMetricFamily(
            "shipsight_model_memory_bytes", "Memory that a model was measured to hold, 0 when evicted.", labels=_LABELS
        )
        for model in self._models.all():
            key = [model.name, model.version]
            role = self._rollouts.role_of(*key)
            if role is not None:
                roles.add_metric([*key, role], 1.0)
            memory.add_metric(key, float(model.memory_bytes if model.state is ModelState.READY else 0))
        for name in {model.name for model in self._models.all()}:
            canary = self._models.rollouts.of(name).canary
            if canary is not None:
                share.add_metric([name, canary.version], canary.share)
        yield from (roles, share, memory)

    def _answers(self) -> Iterator[Metric]:
        answers = CounterMetricFamily(
            "shipsight_rollout_answers", "Requests that named no version.", labels=[*_LABELS, "outcome"]
        )
        latency = GaugeMetricFamily(
            "shipsight_rollout_latency_seconds",
            "Of the latest of them, waiting included.",
            labels=[*_LABELS, "quantile"],
        )
        for (model, version), tally in self._rollouts.tallies().items():
            told = tally.to_dict()
            answers.add_metric([model, version, "answered"], told["answered"])
            answers.add_metric([model, version, "failed"], told["failed"])
            for name, quantile in _QUANTILES:
                if told["latency_ms"][name] is not None:
                    latency.add_metric([model, version, quantile], told["latency_ms"][name] / 1e3)
        yield from (answers, latency)

    def _shadows(self) -> Iterator[Metric]:
        images = CounterMetricFamily("shipsight_shadow_images", "Images mirrored.", labels=[*_LABELS, "outcome"])
        predictions = CounterMetricFamily(
            "shipsight_shadow_predictions",
            "Confident predictions of both sides, by whether they have a partner on the other.",
            labels=[*_LABELS, "matched"],
        )
        latency = GaugeMetricFamily(
            "shipsight_shadow_latency_seconds",
            "Work on the latest images compared, without waiting.",
            labels=[*_LABELS, "side", "quantile"],
        )
        for (model, version), agreement in self._rollouts.shadow.agreements().items():
            told = agreement.to_dict()
            for outcome, count in told["images"].items():
                images.add_metric([model, version, outcome], count)
            matched = told["predictions"]["matched"]
            predictions.add_metric([model, version, "true"], matched)
            predictions.add_metric([model, version, "false"], told["predictions"]["confident"] - matched)
            for side, found in told["latency_ms"].items():
                for name, quantile in _QUANTILES:
                    if found[name] is not None:
                        latency.add_metric([model, version, side, quantile], found[name] / 1e3)
        yield from (images, predictions, latency)
