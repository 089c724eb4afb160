# SPDX-License-Identifier: Apache-2.0
"""Alerts: what a monitor's signals say, told to a webhook, by e-mail and to Prometheus, once and no more often than it helps.

`settings` says which, when and to whom; `standings` how each alert stands; `alerts` takes evaluations and keeps that; `delivering` sends, by `webhook` and
`mail`; `metrics` gives the figures. Knows no HTTP server. Stable.
"""

from shipsight.monitor.alerts.alerts import Alerts, AlertsState, Tried, try_receivers
from shipsight.monitor.alerts.delivering import Pace, ReceiverState
from shipsight.monitor.alerts.message import Alert, Message, Reason
from shipsight.monitor.alerts.metrics import Sample, alert_samples, samples, signal_samples
from shipsight.monitor.alerts.settings import AlertSettings, Email, Webhook, read_settings
from shipsight.monitor.alerts.standings import Key, Phase, Standing

__all__ = [
    "Alert",
    "AlertSettings",
    "Alerts",
    "AlertsState",
    "Email",
    "Key",
    "Message",
    "Pace",
    "Phase",
    "Reason",
    "ReceiverState",
    "Sample",
    "Standing",
    "Tried",
    "Webhook",
    "alert_samples",
    "read_settings",
    "samples",
    "signal_samples",
    "try_receivers",
]
