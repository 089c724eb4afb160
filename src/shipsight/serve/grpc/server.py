# SPDX-License-Identifier: Apache-2.0
"""The gRPC server: its port, its limits, its end. It runs in the event loop that also serves HTTP. Stable.

Its port is opened with SO_REUSEPORT beside the supervisor's own bound socket, which keeps the number while no serving
process is there (`serve.supervisor.reserve_port`).
"""

from __future__ import annotations

import grpc

from shipsight.errors import EnvironmentLackError
from shipsight.serve.grpc.handlers import Binding
from shipsight.serve.grpc.health import health_service
from shipsight.serve.grpc.open_inference import open_inference_service
from shipsight.serve.limits import Limits
from shipsight.serve.metrics import Metrics
from shipsight.serve.open_inference import OpenInference
from shipsight.serve.proxy_rules import ProxyRules
from shipsight.serve.revocation import Revocations
from shipsight.serve.traces import Traces

__all__ = ["GrpcServer"]

_IDLE_S = 300  # a connection without a call is closed; clients open the next unasked
_PING_S = 60  # a peer that is gone without a word is noticed
_PING_ANSWER_S = 20
_STREAMS = 100  # calls at once on one connection, as HTTP/2 recommends
_ONLY_IDENTITY = 1  # a bit set of compressions: a few bytes that unpack to gigabytes are not taken


class GrpcServer:
    """The protocol and the health service on a port.

    Args:
        protocol: answers.
        metrics: counts.
        host: address to listen on.
        port: TCP port, above 0.
        credentials: of TLS; None listens in the clear.
        revocations: of clients' certificates, which gRPC itself does not heed; None where none are asked for.
        logs_requests: whether each call is told in the log.
        proxy: how the operator's own is known, None where there is none.
        traces: where spans go, None for nowhere.
    """

    def __init__(
        self,
        protocol: OpenInference,
        metrics: Metrics,
        *,
        host: str,
        port: int,
        credentials: grpc.ServerCredentials | None = None,
        revocations: Revocations | None = None,
        logs_requests: bool = True,
        proxy: ProxyRules | None = None,
        traces: Traces | None = None,
    ) -> None:
        self._proxy, self._revocations, self._traces = proxy, revocations, traces
        self._protocol = protocol
        self._metrics = metrics
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._credentials = credentials
        self._logs_requests = logs_requests
        self._server: grpc.aio.Server | None = None
        self._binding: Binding | None = None

    async def start(self) -> None:
        """Opens the port and answers.

        Raises:
            EnvironmentLackError: the port cannot be opened.
        """
        limits = self._protocol.service.limits
        gate = self._protocol.service.gate
        self._binding = Binding(
            limits,
            self._metrics,
            gate,
            proxy=self._proxy,
            revocations=self._revocations,
            logs_requests=self._logs_requests,
            traces=self._traces,
        )
        self._server = grpc.aio.server(options=_options(limits), maximum_concurrent_rpcs=limits.connections)
        self._server.add_generic_rpc_handlers(
            (
                open_inference_service(self._protocol, self._binding),
                health_service(self._protocol.service, self._binding),
            )
        )
        try:
            if self._credentials is None:
                self._server.add_insecure_port(self._address)
            else:
                self._server.add_secure_port(self._address, self._credentials)
        except RuntimeError as error:
            raise EnvironmentLackError("this port cannot be opened", where=self._address, got=error) from error
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Takes no new call; those that have begun have some seconds to end."""
        if self._server is not None and self._binding is not None:
            self._binding.leave()
            await self._server.stop(grace_s)


def _options(limits: Limits) -> list[tuple[str, int]]:
    """Returns gRPC's own settings, by its names."""
    return [
        ("grpc.max_receive_message_length", limits.body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.compression_enabled_algorithms_bitset", _ONLY_IDENTITY),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_concurrent_streams", _STREAMS),
        ("grpc.server_handshake_timeout_ms", int(limits.header_s * 1000)),
        ("grpc.max_connection_idle_ms", _IDLE_S * 1000),
        ("grpc.keepalive_time_ms", _PING_S * 1000),
        ("grpc.keepalive_timeout_ms", _PING_ANSWER_S * 1000),
        ("grpc.so_reuseport", 1),
    ]
