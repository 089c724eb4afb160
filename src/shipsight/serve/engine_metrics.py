# SPDX-License-Identifier: Apache-2.0
"""What engines truly compute in, in Prometheus' terms: read from the runtime's own compiled graph, once for each variant. Stable."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shipsight.errors import EngineDiedError, UsageError
from shipsight.serve.models import Models

__all__ = ["EngineMetrics"]


class EngineMetrics(Collector):
    """Reads variants when somebody asks; the first time takes up to half a second for each.

    Args:
        models: in service.
    """

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Yields what there is to tell now."""
        labels = ["model", "version", "variant"]
        engines = GaugeMetricFamily(
            "shipsight_engine_precision",
            "1 for each variant, with what it computes in here: as promised, and what float layers run in.",
            labels=[*labels, "engine", "precision", "float_type"],
        )
        integers = GaugeMetricFamily(
            "shipsight_engine_integer_convolutions", "Share of convolutions that run in 8-bit integers.", labels=labels
        )
        for model in self._models.all():
            for name, runner in list(model.runners.items()):
                try:
                    report = runner.precision
                except (UsageError, EngineDiedError):
                    continue  # it was closed, or its worker ended, meanwhile
                key = [model.name, model.version, name]
                variant = runner.variant
                engines.add_metric([*key, variant.engine, variant.precision.value, report.float_type], 1.0)
                if report.convolutions:
                    integers.add_metric(key, report.integer_convolutions / report.convolutions)
        yield from (engines, integers)
