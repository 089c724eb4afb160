# SPDX-License-Identifier: Apache-2.0
"""Traces: a span for each request, call of gRPC and frame of a stream, and one for each stage of each image.

They are sent by OTLP over HTTP to whom the operator names.

Nothing is imported and nothing is sent where nobody is named. A client's `traceparent` (W3C Trace Context) is carried
on. Spans hold names, sizes and times; no image, tensor, prediction, path or header. They are made when a request is
answered, from times that were taken anyway, and are sent by a thread of OpenTelemetry's. Private to the room.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from shipsight import __version__
from shipsight.errors import MissingDependencyError, UsageError
from shipsight.serve.request_notes import RequestNote

__all__ = ["CARRIED", "TraceSettings", "Traces", "check_traces"]

CARRIED = ("traceparent", "tracestate")
"""Headers by which a client makes a request part of its own trace (W3C Trace Context)."""

_LAST_WORDS_S = 3.0


@dataclass(frozen=True)
class TraceSettings:
    """Where traces go.

    Attributes:
        endpoint: of a collector; `/v1/traces` is added where it names no path.
    """

    endpoint: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("not an address", where="--otlp-endpoint", expected="http://host:4318", got=self.endpoint)

    @property
    def url(self) -> str:
        """That spans are posted to."""
        has_path = urlsplit(self.endpoint).path.strip("/")
        return self.endpoint if has_path else self.endpoint.rstrip("/") + "/v1/traces"


def check_traces() -> None:
    """Finds out whether traces can be sent at all.

    Raises:
        MissingDependencyError: OpenTelemetry is not installed.
    """
    from importlib.util import find_spec

    for package, name in (
        ("opentelemetry-sdk", "opentelemetry.sdk"),
        ("opentelemetry-exporter-otlp-proto-http", "opentelemetry.exporter.otlp.proto.http"),
    ):
        try:
            found = find_spec(name)
        except ModuleNotFoundError:  # a package above it is missing
            found = None
        if found is None:
            raise MissingDependencyError(
                f"package {package} is not installed", hint="Run: pip install 'shipsight[serve,otel]'"
            )


class Traces:
    """Sends spans.

    Args:
        settings: where.
    """

    def __init__(self, settings: TraceSettings) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({"service.name": "shipsight", "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.url)))
        self._tracer = self._provider.get_tracer("shipsight", __version__)
        self._carried = TraceContextTextMapPropagator()
        self._api = trace

    def ended(
        self,
        note: RequestNote,
        *,
        name: str,
        attributes: Mapping[str, str | int | None],
        is_failed: bool,
        carrier: Mapping[str, str],
        begin_s: float,
    ) -> None:
        """Makes the spans of a request, a call or a frame that ends now.

        Args:
            note: of it.
            name: of its span: method and route.
            attributes: of its protocol; None leaves one out.
            is_failed: whether that is the server's fault.
            carrier: `traceparent` and `tracestate` as they came.
            begin_s: monotonic seconds.
        """
        end_ns, since_1970 = time.monotonic_ns(), time.time_ns() - time.monotonic_ns()

        def at(seconds: float) -> int:
            return int(seconds * 1e9) + since_1970

        told = {
            **attributes,
            "error.type": note.error,
            "shipsight.request_id": note.id,
            "shipsight.model": note.model,
            "shipsight.version": note.version,
            "shipsight.variant": note.variant,
        }
        span = self._tracer.start_span(
            name,
            context=self._carried.extract(carrier),
            kind=self._api.SpanKind.SERVER,
            attributes={key: value for key, value in told.items() if value is not None},
            start_time=at(begin_s),
        )
        if is_failed:
            span.set_status(self._api.StatusCode.ERROR)
        inside = self._api.set_span_in_context(span)
        for image, stage, begin, end in note.stages:
            inner = self._tracer.start_span(
                stage, context=inside, attributes={"shipsight.image": image}, start_time=at(begin)
            )
            inner.end(at(end))
        span.end(end_ns + since_1970)

    def close(self) -> None:
        """Sends what waits, for a few seconds at most: a collector that does not answer holds nobody up."""
        last = threading.Thread(target=self._provider.shutdown, name="shipsight-traces", daemon=True)
        last.start()
        last.join(_LAST_WORDS_S)
