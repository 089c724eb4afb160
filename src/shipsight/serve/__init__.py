# SPDX-License-Identifier: Apache-2.0
"""A bundle answers requests: scheduling, models in service, protocols, the app and its supervisor.

What stands here is light: the supervisor's process imports no engine.
"""

from shipsight.serve.access_options import AccessOptions
from shipsight.serve.descriptors import allow_descriptors
from shipsight.serve.gate import Behind
from shipsight.serve.limits import Limits
from shipsight.serve.logs import LogSettings
from shipsight.serve.monitoring_options import MonitoringOptions
from shipsight.serve.opening import OpenSettings
from shipsight.serve.options import ServeOptions, VertexRoutes
from shipsight.serve.recording_options import RecordingOptions
from shipsight.serve.rollout import RolloutOptions, parse_share
from shipsight.serve.sealing_options import SealingOptions
from shipsight.serve.step_settings import StepSettings, parse_steps
from shipsight.serve.supervisor import Supervisor, bind_listener, bind_unix_listener, reserve_port
from shipsight.serve.systemd import ServiceManager
from shipsight.serve.tls import TlsSettings

__all__ = [
    "AccessOptions",
    "Behind",
    "Limits",
    "LogSettings",
    "MonitoringOptions",
    "OpenSettings",
    "RecordingOptions",
    "RolloutOptions",
    "SealingOptions",
    "ServeOptions",
    "ServiceManager",
    "StepSettings",
    "Supervisor",
    "TlsSettings",
    "VertexRoutes",
    "allow_descriptors",
    "bind_listener",
    "bind_unix_listener",
    "parse_share",
    "parse_steps",
    "reserve_port",
]
