# SPDX-License-Identifier: Apache-2.0
"""What a server may be told. Frozen, checked on creation, and passed to the serving process as JSON. Stable."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from shipsight.access.quotas import QuotaSettings
from shipsight.errors import UsageError
from shipsight.serve.access_options import AccessOptions
from shipsight.serve.audit_options import AuditOptions
from shipsight.serve.limits import Limits
from shipsight.serve.logs import LogFormat, LogSettings
from shipsight.serve.monitoring_options import MonitoringOptions
from shipsight.serve.opening import OpenSettings
from shipsight.serve.recording_options import RecordingOptions
from shipsight.serve.rollout import RolloutOptions
from shipsight.serve.sealing_options import SealingOptions
from shipsight.serve.step_settings import StepSettings
from shipsight.serve.tls import TlsSettings
from shipsight.serve.traces import TraceSettings

__all__ = ["ServeOptions", "VertexRoutes"]


@dataclass(frozen=True)
class VertexRoutes:
    """The routes that Vertex AI asks on.

    Attributes:
        health: `AIP_HEALTH_ROUTE`.
        predict: `AIP_PREDICT_ROUTE`.
    """

    health: str
    predict: str

    def __post_init__(self) -> None:
        for name in ("health", "predict"):
            value = getattr(self, name)
            if not value.startswith("/") or set(value) & set("{}?#"):
                raise UsageError("not a route", where=f"AIP_{name.upper()}_ROUTE", expected="/path", got=value)


@dataclass(frozen=True)
class ServeOptions:
    """One server.

    Attributes:
        bundles: paths of bundles; one and more, or none with a repository.
        repository: folder of bundles that may be loaded by name, None for none.
        memory_mb: memory for all models together in 10^6 bytes, None for any.
        rollout: of requests over versions.
        host: address that is listened on.
        port: TCP port, 0 for any free one.
        grpc_port: TCP port for gRPC, 0 for any free one, None for no gRPC.
        workers: threads that decode, infer and postprocess; None for two more than the cores.
        opening: how variants are opened.
        drain_s: seconds that requests in flight are given when the server leaves.
        hang_s: seconds without a sign of life after which the serving process is killed and started anew.
        vertex: routes that Vertex AI named, None outside of it.
        limits: on requests.
        tls: files of it, None for plain HTTP.
        steps: the operator's own, before and after models.
        logs: what is logged, and how.
        traces: where they are sent, None for nowhere.
        quotas: rates and quotas of principals.
        access: who may ask.
        sealing: requests that only the server reads.
        audit: where what happens is recorded.
        recording: what is recorded of production, and where.
        monitoring: how drift is looked for.
    """

    bundles: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    workers: int | None = None
    opening: OpenSettings = field(default_factory=OpenSettings)
    drain_s: float = 20.0
    hang_s: float = 30.0
    vertex: VertexRoutes | None = None
    limits: Limits = field(default_factory=Limits)
    repository: Path | None = None
    memory_mb: float | None = None
    rollout: RolloutOptions = field(default_factory=RolloutOptions)
    tls: TlsSettings | None = None
    steps: StepSettings = field(default_factory=StepSettings)
    logs: LogSettings = field(default_factory=LogSettings)
    traces: TraceSettings | None = None
    quotas: QuotaSettings = field(default_factory=QuotaSettings)
    access: AccessOptions = field(default_factory=AccessOptions)
    sealing: SealingOptions = field(default_factory=SealingOptions)
    audit: AuditOptions = field(default_factory=AuditOptions)
    recording: RecordingOptions = field(default_factory=RecordingOptions)
    monitoring: MonitoringOptions = field(default_factory=MonitoringOptions)

    def __post_init__(self) -> None:
        if not self.bundles and self.repository is None:
            raise UsageError("a server needs a bundle, or a --repository of bundles", where="BUNDLE", got=0)
        if self.repository is not None and not self.repository.is_dir():
            raise UsageError("no such folder", where="--repository", got=self.repository)
        if self.memory_mb is not None and not self.memory_mb > 0:
            raise UsageError("too little", where="--memory-mb", expected="above 0", got=self.memory_mb)
        if len({path.resolve() for path in self.bundles}) != len(self.bundles):
            raise UsageError("a bundle is named twice", where="BUNDLE", got=", ".join(map(str, self.bundles)))
        if not 0 <= self.port <= 65535:
            raise UsageError("no such port", where="--port", expected="0 to 65535", got=self.port)
        if self.hang_s < 3:
            raise UsageError("too short", where="--hang-seconds", expected="3 or more", got=self.hang_s)
        if self.grpc_port is not None and not 0 <= self.grpc_port <= 65535:
            raise UsageError("no such port", where="--grpc-port", expected="0 to 65535", got=self.grpc_port)
        if self.grpc_port and self.grpc_port == self.port:
            raise UsageError("HTTP and gRPC need a port each", where="--grpc-port", got=self.grpc_port)
        if self.workers is not None and self.workers < 1:
            raise UsageError("too few", where="--workers", expected="1 or more", got=self.workers)
        self._check_monitoring()
        self._check_reach()

    @property
    def is_local(self) -> bool:
        """Whether nothing but its own machine reaches it."""
        return self.access.uds is not None or self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback

    @property
    def looks_for_drift(self) -> bool:
        """Whether statistics are taken of what is answered: unless the policy or `--drift-per-second 0` says no."""
        policy = self.recording.policy
        return self.monitoring.per_second > 0 and (policy is None or policy["mode"] != "off")

    def _check_monitoring(self) -> None:
        """Refuses what would look for drift where nobody looks, or where it must not.

        Raises:
            UsageError: it would.
        """
        wanted = self.monitoring
        if not self.looks_for_drift:
            off = "a --record-policy with mode: off"
            if wanted.alerts is not None:
                raise UsageError("alerts need somebody who looks", where="--alerts", got=off)
            if wanted.embeddings:
                raise UsageError("embeddings need somebody who looks", where="--drift-embeddings", got=off)
        if wanted.embeddings and self.opening.isolate:
            raise UsageError(
                "embeddings are made in the serving process, where --isolate lets no model run",
                where="--drift-embeddings",
                expected="one of the two",
                got="--isolate",
            )

    def _check_reach(self) -> None:
        """Refuses what would let other machines in without anybody asking who is there.

        Raises:
            UsageError: it would; or options contradict each other.
        """
        if self.host != "localhost":
            try:
                ipaddress.ip_address(self.host)
            except ValueError:
                raise UsageError(
                    "not an address", where="--host", expected="127.0.0.1, ::1, 0.0.0.0, ...", got=self.host
                ) from None
        access = self.access
        if access.uds is not None and self.tls is not None:
            raise UsageError("a unix socket carries no TLS", where="--uds", got="--tls-cert")
        if access.uds is not None and self.grpc_port is not None:
            raise UsageError("gRPC has a port, which a unix socket does not guard", where="--uds", got="--grpc-port")
        if self.is_local or access.behind is not None:
            return
        if self.tls is None or access.settings is None:
            raise UsageError(
                "a server that other machines reach needs TLS and an administrator",
                where=f"--host {self.host}",
                expected="--tls-cert, --tls-key and --database",
                hint="Or say with --behind who does both.",
            )

    def after_start(self) -> ServeOptions:
        """Returns what a serving process is told that takes another's place."""
        return replace(self, rollout=self.rollout.after_start())

    def to_json(self) -> str:
        """Returns the options as text."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> ServeOptions:
        """Reads what `to_json` wrote."""
        told = json.loads(text)
        opening = told["opening"]
        return cls(
            **{
                **told,
                "bundles": tuple(map(Path, told["bundles"])),
                "opening": OpenSettings(
                    **{
                        **opening,
                        "variants": tuple(opening["variants"]),
                        "cache_dir": None if opening["cache_dir"] is None else Path(opening["cache_dir"]),
                    }
                ),
                "vertex": None if told["vertex"] is None else VertexRoutes(**told["vertex"]),
                "limits": Limits(**told["limits"]),
                "repository": None if told["repository"] is None else Path(told["repository"]),
                "rollout": RolloutOptions.from_dict(told["rollout"]),
                "logs": LogSettings(LogFormat(told["logs"]["format"]), told["logs"]["requests"]),
                "traces": None if told["traces"] is None else TraceSettings(**told["traces"]),
                "quotas": QuotaSettings(**told["quotas"]),
                "access": AccessOptions.from_dict(told["access"]),
                "sealing": SealingOptions.from_dict(told["sealing"]),
                "audit": AuditOptions.from_dict(told["audit"]),
                "recording": RecordingOptions.from_dict(told["recording"]),
                "monitoring": MonitoringOptions.from_dict(told["monitoring"]),
                "tls": None if told["tls"] is None else TlsSettings.from_dict(told["tls"]),
                "steps": StepSettings(
                    **{**told["steps"], "files": tuple((name, Path(file)) for name, file in told["steps"]["files"])}
                ),
            }
        )
