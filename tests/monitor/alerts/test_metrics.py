# SPDX-License-Identifier: Apache-2.0
"""Figures of alerts, as Prometheus would have them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from tests.monitor.alerts.receivers import Trust, webhook
from tests.monitor.alerts.signals import FIRES, NOON, after
from tests.monitor.alerts.test_alerts import hooked, opened, wait_until

from shipsight.monitor.alerts import Sample, samples

REPOSITORY = Path(__file__).resolve().parents[3]


class Shown(Collector):
    """What a server makes of samples."""

    def __init__(self, told: list[Sample]) -> None:
        self._told = told

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Any] = {}
        for one in self._told:
            kind = CounterMetricFamily if one.is_counter else GaugeMetricFamily
            family = families.setdefault(one.name, kind(one.name, one.help, labels=list(one.labels)))
            family.add_metric(list(one.labels.values()), one.value)
        return families.values()


def test_figures_tell_of_signals_alerts_and_receivers(tmp_path: Path, trust: Trust) -> None:
    subject = 'gate "a"\n/x'
    told = [
        replace(FIRES, subject=subject),
        replace(FIRES, name="drift-noise", is_firing=False, value=None, threshold=None),
        replace(FIRES, name="drift-new", severity="error"),
    ]
    with webhook(trust) as hook:
        hook.answers = [404]
        with opened(tmp_path, hooked(tmp_path, hook.url, trust), for_s=60) as alerts:
            alerts.take(told[:2], NOON)
            alerts.take(told, after(60))
            wait_until(lambda: alerts.state.receivers[0].failed == 1)
            found = samples(alerts.state)
    registry = CollectorRegistry()
    registry.register(Shown(found))
    text = generate_latest(registry).decode()
    shown = 'gate \\"a\\"\\n/x'
    gate = FIRES.subject
    for line in (
        f'shipsight_drift_value{{signal="drift-brightness",subject="{shown}"}} 0.42',
        f'shipsight_drift_threshold{{signal="drift-brightness",subject="{shown}"}} 0.1',
        f'shipsight_drift_firing{{severity="warning",signal="drift-brightness",subject="{shown}"}} 1.0',
        f'shipsight_drift_firing{{severity="warning",signal="drift-noise",subject="{gate}"}} 0.0',
        f'shipsight_alerts_firing{{severity="warning",subject="{shown}"}} 1.0',
        f'shipsight_alerts_pending{{severity="error",subject="{gate}"}} 1.0',
        'shipsight_alert_messages_sent_total{receiver="ops"} 0.0',
        'shipsight_alert_messages_failed_total{receiver="ops"} 1.0',
        'shipsight_alert_messages_dropped_total{receiver="ops"} 0.0',
        'shipsight_alert_messages_waiting{receiver="ops"} 0.0',
        'shipsight_alert_receiver_up{receiver="ops"} 0.0',
        "shipsight_alerts_kept 1.0",
    ):
        assert line in _sorted_labels(text), line
    assert 'shipsight_drift_value{signal="drift-noise"' not in text


def _sorted_labels(text: str) -> list[str]:
    def sort(found: re.Match[str]) -> str:
        return "{" + ",".join(sorted(re.findall(r'\w+="(?:[^"\\]|\\.)*"', found[1]))) + "}"

    return [re.sub(r"\{(.*)\}", sort, line) for line in text.splitlines()]


def test_page_names_every_family(tmp_path: Path, trust: Trust) -> None:
    page = (REPOSITORY / "docs" / "alerts.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`(shipsight_\w+)`", page))
    with opened(tmp_path, hooked(tmp_path, "https://localhost:9/", trust)) as alerts:
        alerts.take([FIRES], NOON)
        names = {f"{one.name}_total" if one.is_counter else one.name for one in samples(alerts.state)}
    assert listed == names | {"shipsight_alerts_pending"}
