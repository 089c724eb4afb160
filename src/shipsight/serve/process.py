# SPDX-License-Identifier: Apache-2.0
"""The serving process: takes a listening socket from its supervisor, loads the bundles, answers until told to leave.

`__main__` starts it; what to serve comes over the channel (`spawning`). On the report pipe it says that it is ready or
why it cannot serve, and that it is alive (`signs`). Not for direct use.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from shipsight import __version__
from shipsight.access import EventSink, LoggedEvents
from shipsight.access.extraction import Extraction
from shipsight.access.quotas import Quotas, QuotaSettings
from shipsight.errors import ShipsightError
from shipsight.serve.access_opening import open_gate
from shipsight.serve.audit_opening import AuditedEvents, opened_audit, starts_with
from shipsight.serve.auditing import open_audited
from shipsight.serve.configuration import told_options
from shipsight.serve.descriptors import allow_descriptors
from shipsight.serve.gate import Gate
from shipsight.serve.isolation import end_with_parent
from shipsight.serve.logs import configure_logs
from shipsight.serve.memory import keep_large_blocks_apart
from shipsight.serve.metrics import Metrics
from shipsight.serve.model_events import ModelEvents
from shipsight.serve.models import Models
from shipsight.serve.monitors import Monitors, open_monitors
from shipsight.serve.open_inference import OpenInference
from shipsight.serve.options import ServeOptions
from shipsight.serve.predicted import PredictionLog
from shipsight.serve.recordings import Recordings, open_recordings
from shipsight.serve.repository import Repository
from shipsight.serve.revocation import Revocations
from shipsight.serve.rollout_control import RolloutControl
from shipsight.serve.rollout_record import RolloutRecord
from shipsight.serve.runner import core_count
from shipsight.serve.scheduler import Scheduler
from shipsight.serve.sealed_only import SealedOnly
from shipsight.serve.sealing import Sealing, open_sealing
from shipsight.serve.service import PredictionService
from shipsight.serve.shadow import Shadow
from shipsight.serve.signs import SIGN_S, Reporter
from shipsight.serve.steps import StepTable
from shipsight.serve.suspicion import Suspicion
from shipsight.serve.tls import Reloaded, grpc_credentials, make_context
from shipsight.serve.traces import Traces
from shipsight.serve.watching import Watching
from shipsight.spawning import receive

if TYPE_CHECKING:
    import uvicorn

    from shipsight.access.audit.log import AuditLog

__all__ = ["main"]

_log = logging.getLogger("shipsight.serve")
_CERTIFICATES_S = 1.0
_LOOK_EVERY_S = 0.05


def serve(options: ServeOptions, listener: socket.socket, report: Reporter) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status."""
    keep_large_blocks_apart()
    with _recorded(options) as (audit, events):
        return _serve(options, listener, report, audit, events)


@contextmanager
def _recorded(options: ServeOptions) -> Iterator[tuple[AuditLog | None, EventSink]]:
    """Gives the audit log, where the server keeps one, and what takes events; that it was left as it should is its last entry."""
    with opened_audit(options.audit) as audit:
        if audit is None:
            yield None, LoggedEvents()
            return
        events = AuditedEvents(audit)
        starts_with(audit, events, options.audit)
        yield audit, events


def _serve(
    options: ServeOptions, listener: socket.socket, report: Reporter, audit: AuditLog | None, events: EventSink
) -> int:
    contexts, metrics = _watch_certificates(options), Metrics()
    scheduler = Scheduler(options.workers or core_count() + 2, own_threads=options.opening.isolate)
    models, rollouts = _make_models(options, scheduler, events, metrics)
    gate, close_gate = _make_gate(options, listener, audit, events, metrics)
    steps = StepTable(options.steps, max_pixels=options.limits.image_pixels)
    predicted = PredictionLog(events, now=gate.now) if options.audit.predictions else None
    suspicion = Suspicion(Extraction(gate.events, now=gate.now))
    metrics.watch_suspicion(suspicion)
    watching = Watching()
    recordings, monitors = _make_watchers(options, watching, models, gate, metrics)
    service = PredictionService(
        models,
        scheduler,
        options.limits,
        metrics,
        rollouts=rollouts,
        steps=steps,
        quotas=_make_quotas(options, gate, metrics),
        suspicion=suspicion,
        predicted=predicted,
        watching=watching,
        gate=gate,
        sealed_only=SealedOnly(options.sealing.required),
    )
    sealing = open_sealing(options.sealing, events=gate.events, now=gate.now, store=options.quotas.store)
    metrics.watch_sealing(sealing)
    stopping, ports = _Stop(service), Future[None]()
    stopping.at_signals()
    models.is_starting = True
    loading = (service, steps, recordings, options, stopping, report, ports)
    loader = threading.Thread(target=_load, args=loading, name="shipsight-loader")
    loader.start()
    traces = None if options.traces is None else Traces(options.traces)
    protocol = OpenInference(service)
    # Half a second of imports, while the engines compile.
    from shipsight.serve.http import make_server

    server = make_server(
        options,
        service,
        metrics,
        open_inference=protocol,
        contexts=contexts,
        traces=traces,
        sealing=sealing,
        recordings=recordings,
        monitors=monitors,
    )
    stopping.watch(server)
    try:
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(_answer(options, server, listener, report, protocol, metrics, ports, sealing, traces))
    finally:
        ports.cancel()
    loader.join()
    close_gate()
    for part in (watching, recordings, monitors, rollouts, models, steps, scheduler, suspicion, predicted, traces):
        if part is not None:
            part.close()
    return 0 if stopping.was_told else 1


def _make_models(
    options: ServeOptions, scheduler: Scheduler, events: EventSink, metrics: Metrics
) -> tuple[Models, RolloutControl]:
    """Returns what holds the models, none of them loaded yet, and what divides requests among their versions."""
    models = Models(
        scheduler,
        options.opening,
        repository=None if options.repository is None else Repository(options.repository),
        memory_bytes=None if options.memory_mb is None else int(options.memory_mb * 1e6),
        events=ModelEvents(events, late=events.record_late if isinstance(events, AuditedEvents) else None),
    )
    record = RolloutRecord(options.rollout.state_dir)
    rollouts = RolloutControl(models, Shadow(models, scheduler), record, events=events)
    metrics.watch(models, scheduler, rollouts)
    return models, rollouts


def _make_gate(
    options: ServeOptions, listener: socket.socket, audit: AuditLog | None, events: EventSink, metrics: Metrics
) -> tuple[Gate, Callable[[], None]]:
    """Returns what lets requests in, and what closes it; it answers about the audit log, where there is one."""
    gate, close_gate = open_gate(options, listener, events=events)
    metrics.watch_gate(gate)
    if audit is not None:
        gate.audit_state = partial(getattr, audit, "state")
        metrics.watch_audit(audit)
        if options.audit.key is not None:
            gate.audited = open_audited(audit, options.audit.key, copies=lambda: audit.copies, now=gate.now)
    return gate, close_gate


def _make_watchers(
    options: ServeOptions, watching: Watching, models: Models, gate: Gate, metrics: Metrics
) -> tuple[Recordings | None, Monitors | None]:
    """Returns what records of production and what looks for drift, None for what nobody wants; both see what was answered."""
    recordings = open_recordings(options.recording, models, watching, events=gate.events, now=gate.now)
    if recordings is not None:
        metrics.watch_recordings(recordings)
    monitors = open_monitors(options, models, watching, now=gate.now)
    if monitors is not None:
        metrics.watch_monitors(monitors)
    return recordings, monitors


def _make_quotas(options: ServeOptions, gate: Gate, metrics: Metrics) -> Quotas | None:
    """Returns what holds principals to their limits, None where nobody can have any: the server's are none, nor are there keys."""
    if options.quotas == QuotaSettings() and gate.access is None:
        return None
    quotas = Quotas(options.quotas, gate.events, now=gate.now)
    metrics.watch_quotas(quotas)
    return quotas


def _watch_certificates(options: ServeOptions) -> Reloaded[ssl.SSLContext] | None:
    """Returns contexts for new connections, None without TLS; SIGHUP has the files taken at once."""
    if options.tls is None:
        return None
    contexts = Reloaded(options.tls, make_context)
    contexts.watch(_CERTIFICATES_S)
    signal.signal(signal.SIGHUP, lambda number, frame: contexts.refresh())
    return contexts


class _Stop:
    """Ends a server, also one that is not made yet."""

    def __init__(self, service: PredictionService) -> None:
        self._service = service
        self._server: Any = None
        self._asked = False
        self.was_told = False  # by whoever runs it: not that it failed

    def at_signals(self) -> None:
        """Has SIGTERM and SIGINT end it."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._leave)

    def _leave(self, number: int, frame: object) -> None:
        self.was_told = True
        self._service.leave()
        self.stop()

    def watch(self, server: Any) -> None:  # noqa: ANN401 - uvicorn.Server, imported late
        """Learns which server is meant."""
        self._server = server
        server.should_exit = self._asked

    def stop(self) -> None:
        """Ends it."""
        self._asked = True
        if self._server is not None:
            self._server.should_exit = True


def _load(
    service: PredictionService,
    steps: StepTable,
    recordings: Recordings | None,
    options: ServeOptions,
    stopping: _Stop,
    report: Reporter,
    ports: Future[None],
) -> None:
    """Loads the bundles while health is answered already; tells the supervisor how it went."""
    models = service.models
    try:
        steps.open()
        # First what was decided in an earlier life: until its current version is there, a model does not answer.
        service.rollouts.recall()
        for path in options.bundles:
            models.load(path, is_pinned=True)
        service.rollouts.resume(options.rollout)
        names = {name for name, _ in models.known()}
        steps.check(names)
        SealedOnly(options.sealing.required).check_known(names)
        if recordings is not None:
            recordings.check()
        models.is_starting = False
        ports.result()
    except ShipsightError as error:
        service.gate.start_failed(error)
        report.tell({"error": error.to_dict(), "exit_code": error.exit_code})
        stopping.stop()
    except Exception as error:  # noqa: BLE001 - the edge of the process
        _log.exception("loading failed")
        report.tell({"error": {"code": "internal", "what": f"{type(error).__name__}: {error}"}, "exit_code": 70})
        stopping.stop()
    else:
        described = [
            {"name": one.name, "version": one.version, "variants": {n: r.streams for n, r in one.runners.items()}}
            for one in models.all()
        ]
        report.tell({"ready": described})
        gc.enable()  # `__main__` did without during the start


async def _answer(
    options: ServeOptions,
    server: uvicorn.Server,
    listener: socket.socket,
    report: Reporter,
    protocol: OpenInference,
    metrics: Metrics,
    ports: Future[None],
    sealing: Sealing,
    traces: Traces | None,
) -> None:
    """Serves, and gives signs of life from the event loop itself, also while it drains.

    Args:
        options: of the server.
        server: of HTTP.
        listener: its socket.
        report: to the supervisor.
        protocol: that gRPC speaks.
        metrics: counts.
        ports: done once all are open; or why one cannot be.
        sealing: of the server.
        traces: where spans go, None for nowhere.
    """

    async def live() -> None:
        while True:
            report.alive()
            await asyncio.sleep(SIGN_S)

    await protocol.service.gate.started(
        tls=options.tls is not None,
        host=options.host,
        release=__version__,
        machine=socket.gethostname(),
        options=told_options(options.audit.configuration) or None,
    )
    living, sealing_watch = asyncio.create_task(live()), asyncio.create_task(sealing.keys.watch())
    try:
        if options.grpc_port:
            await _serve_both(options, server, listener, protocol, metrics, ports, traces)
        else:
            ports.set_result(None)
            await server.serve(sockets=[listener])
    finally:
        living.cancel()
        sealing_watch.cancel()
        await sealing.seen.close()
        if protocol.service.quotas is not None:
            await protocol.service.quotas.close()


async def _serve_both(
    options: ServeOptions,
    server: uvicorn.Server,
    listener: socket.socket,
    protocol: OpenInference,
    metrics: Metrics,
    ports: Future[None],
    traces: Traces | None,
) -> None:
    # Nobody who does without gRPC pays for its import.
    from shipsight.serve.grpc import GrpcServer

    try:
        grpc_server = GrpcServer(
            protocol,
            metrics,
            host=options.host,
            port=options.grpc_port or 0,
            credentials=None if options.tls is None else grpc_credentials(options.tls),
            revocations=None if options.tls is None or options.tls.client_ca is None else Revocations(options.tls),
            logs_requests=options.logs.requests,
            proxy=options.access.proxy_rules(),
            traces=traces,
        )
        await grpc_server.start()
    except ShipsightError as error:
        ports.set_exception(error)
        return
    ports.set_result(None)
    http = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.should_exit and not http.done():
        await asyncio.sleep(_LOOK_EVERY_S)
    await asyncio.gather(http, grpc_server.stop(options.drain_s))


def main(arguments: list[str]) -> int:
    """Serves as the arguments and standard input say."""
    end_with_parent(signal.SIGTERM)
    given = receive(socket.socket(fileno=int(arguments[0])))
    if given is None:
        return 0
    listener, told = given
    options = ServeOptions.from_json(told)
    allow_descriptors(options.limits.connections)
    configure_logs(options.logs, sys.stderr)
    report = Reporter(int(arguments[1]))
    try:
        return serve(options, listener, report)
    except ShipsightError as error:
        report.tell({"error": error.to_dict(), "exit_code": error.exit_code})
        return 1
