# SPDX-License-Identifier: Apache-2.0
"""Where the time of a request to a server goes: connecting, waiting, its stages, and how the image is sent. Pure. Stable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from shipsight.build.measure import Interval
from shipsight.build.progress import Progress
from shipsight.doctor.examination import Examination
from shipsight.doctor.finding import Figure, Finding, Picture, Severity
from shipsight.doctor.rule import Rule
from shipsight.doctor.speed.case import ServerCase
from shipsight.doctor.speed.drawings import draw_bars
from shipsight.doctor.speed.racing import is_worth, times

__all__ = [
    "ConnectionAnew",
    "Payload",
    "PayloadJson",
    "ServerEvidence",
    "ServerExamination",
    "ServerOverhead",
    "ServerQueueing",
]

_OUTSIDE, _OUTSIDE_MS = 0.3, 3.0
_QUEUED, _QUEUED_MS = 0.1, 1.0
_MOSTLY_QUEUED = 0.5


@dataclass(frozen=True)
class Payload:
    """One way to send an image, written, answered and read, timed in turns on a kept connection.

    Attributes:
        name: `image` (the encoded file), `tensor-binary` or `tensor-json` (Open Inference Protocol).
        kilobytes: of the request's body.
        value_ms: median.
        gain: how many times faster than the first of the ways; None for the first itself.
    """

    name: str
    kilobytes: float
    value_ms: float
    gain: Interval | None


@dataclass(frozen=True)
class ServerEvidence:
    """What was timed.

    Attributes:
        is_tls: whether TLS is spoken.
        speaks: `tensor` where the address given is the Open Inference Protocol's, else `image`.
        latency_ms: median of a request on a kept connection, nothing else of ours in flight.
        stages_ms: what `Server-Timing` says of it, medians; empty where the server does not tell.
        connect_ms: median to connect.
        tls_ms: median of TLS' part thereof, 0 without.
        closes: whether the server closes the connection after each answer.
        anew: how many times faster a kept connection is than a new one each time; None where it closes.
        requests: that were asked one after another.
        connections: of the second measurement.
        crowded_ms: median latency with that many connections busy.
        crowded_queue_ms: what the server says it waited then, None where it does not tell.
        crowded_gain: how many times more requests a second that gave.
        payloads: ways to send an image; the first is the slowest that is common.
        left_out: ways that the server refused -> its answer.
    """

    is_tls: bool
    speaks: str
    latency_ms: float
    stages_ms: Mapping[str, float]
    connect_ms: float
    tls_ms: float
    closes: bool
    anew: Interval | None
    requests: int
    connections: int
    crowded_ms: float
    crowded_queue_ms: float | None
    crowded_gain: Interval
    payloads: tuple[Payload, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


class ConnectionAnew(Rule[ServerEvidence]):
    """A connection for each request costs: new ones against a kept one, timed in turns; and whether the server closes it itself."""

    id = "connection-anew"
    title = "A connection for each request"

    def look(self, evidence: ServerEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        parts = f"{evidence.connect_ms:.1f} ms to connect" + (
            f", of these TLS {evidence.tls_ms:.1f} ms" if evidence.is_tls else ""
        )
        if evidence.closes:
            share = evidence.connect_ms / evidence.latency_ms if evidence.latency_ms else 0.0
            yield Finding(
                rule=self.id,
                severity=Severity.WARNING,
                what="The server closes the connection after each answer: every request connects anew.",
                evidence=f"{parts}; a request takes {evidence.latency_ms:.1f} ms with it, over {evidence.requests} requests.",
                remedy="Let the server, and the proxy before it, keep connections alive.",
                weight=min(share, 1.0),
                figures={
                    "connect_ms": evidence.connect_ms,
                    "tls_ms": evidence.tls_ms,
                    "latency_ms": evidence.latency_ms,
                },
            )
        elif evidence.anew is not None and is_worth(evidence.anew):
            yield Finding(
                rule=self.id,
                # Whether production's clients keep theirs is not seen from here.
                severity=Severity.NOTE,
                what="A client that connects anew for each request waits much longer.",
                evidence=f"{parts}; a kept connection is {times(evidence.anew)} as fast, {evidence.latency_ms:.1f} ms a request.",
                remedy="Use one client for all requests: `shipsight.Client` keeps its connections, so does an HTTP session.",
                figures={"gain": evidence.anew.value, "gain_low": evidence.anew.low, "connect_ms": evidence.connect_ms},
            )


class ServerQueueing(Rule[ServerEvidence]):
    """Requests wait for their turn: what `Server-Timing` says with one connection and with several."""

    id = "server-queueing"
    title = "Requests wait for their turn"

    def look(self, evidence: ServerEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        alone_ms = evidence.stages_ms.get("queue")
        if alone_ms is not None and alone_ms >= max(_QUEUED * evidence.latency_ms, _QUEUED_MS):
            share = alone_ms / evidence.latency_ms
            yield Finding(
                rule=self.id,
                severity=Severity.WARNING,
                what="A lone request waits for its turn: the server is busy with others.",
                evidence=f"{alone_ms:.1f} of {evidence.latency_ms:.1f} ms in the queue with nothing else of ours in flight, {evidence.requests} requests.",
                remedy="Add a server, or a faster variant; the server's metrics tell how many wait.",
                weight=min(share, 1.0),
                figures={"queue_ms": alone_ms, "latency_ms": evidence.latency_ms},
            )
        queue_ms = evidence.crowded_queue_ms
        if queue_ms is not None and queue_ms >= max(_MOSTLY_QUEUED * evidence.crowded_ms, _QUEUED_MS):
            yield Finding(
                rule=self.id,
                severity=Severity.NOTE,
                what="With several connections most of the time is waiting: the server answers hardly more than one at once.",
                evidence=f"{evidence.connections} connections: {evidence.crowded_ms:.1f} ms a request, {queue_ms:.1f} ms of them in the queue; "
                f"{times(evidence.crowded_gain)} as many requests a second as with one.",
                remedy="That is as it should be where one request fills the cores; else try more streams.",
                command="shipsight doctor speed BUNDLE --only sweep",
                figures={
                    "connections": evidence.connections,
                    "queue_ms": queue_ms,
                    "crowded_ms": evidence.crowded_ms,
                    "gain": evidence.crowded_gain.value,
                },
            )


class ServerOverhead(Rule[ServerEvidence]):
    """Much of a request is in none of the server's stages: the network, a proxy, reading and writing."""

    id = "server-overhead"
    title = "Much time outside the server's stages"

    def look(self, evidence: ServerEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        outside_ms = evidence.latency_ms - sum(evidence.stages_ms.values())
        if evidence.closes:
            outside_ms -= evidence.connect_ms  # that has a finding of its own
        if not evidence.stages_ms or outside_ms < max(_OUTSIDE * evidence.latency_ms, _OUTSIDE_MS):
            return
        share = outside_ms / evidence.latency_ms
        told = ", ".join(f"{name} {value:.1f}" for name, value in evidence.stages_ms.items())
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            what="Much of a request's time is in none of the server's stages: it is on the way.",
            evidence=f"{outside_ms:.1f} of {evidence.latency_ms:.1f} ms are outside ({told} ms); connecting takes {evidence.connect_ms:.1f} ms.",
            remedy="Ask from nearer, send smaller images, and look at the proxies between.",
            weight=min(share, 1.0),
            certainty=0.8,
            figures={"outside_ms": outside_ms, "latency_ms": evidence.latency_ms, "connect_ms": evidence.connect_ms},
        )


class PayloadJson(Rule[ServerEvidence]):
    """Tensors written as JSON numbers: timed against the same tensor as bytes, and against the encoded image."""

    id = "payload-json"
    title = "Tensors as JSON"

    def look(self, evidence: ServerEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        json = next((one for one in evidence.payloads if one.name == "tensor-json"), None)
        others = [one for one in evidence.payloads if one.gain is not None]
        if evidence.speaks != "tensor" or json is None or json.gain is not None or not others:
            return
        best = min(others, key=lambda one: one.value_ms)
        assert best.gain is not None
        if not is_worth(best.gain):
            return
        names = {"tensor-binary": "as bytes behind the JSON", "image": "as the encoded image"}
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            what="A tensor that is sent as JSON numbers costs far more than the model.",
            evidence=f"As JSON {json.kilobytes:.0f} kB and {json.value_ms:.1f} ms a request; {names[best.name]} {best.kilobytes:.0f} kB and "
            f"{best.value_ms:.1f} ms: {times(best.gain)} as fast.",
            remedy="Send bytes (`binary_data_size`, Open Inference Protocol), or the encoded image to a server that decodes: "
            "`shipsight.Client` does both.",
            weight=1 - 1 / best.gain.value,
            # How production's clients write theirs is not seen from here.
            certainty=0.5,
            figures={
                "gain": best.gain.value,
                "gain_low": best.gain.low,
                "json_kb": json.kilobytes,
                "best": best.name,
                "best_kb": best.kilobytes,
            },
        )


class ServerExamination(Examination[ServerCase, ServerEvidence]):
    """A server, asked from here."""

    name = "server"
    title = "Where does a request's time go?"
    rules: ClassVar[tuple[Rule[Any], ...]] = (ConnectionAnew(), ServerQueueing(), ServerOverhead(), PayloadJson())
    cost = 40.0

    def lacks(self, case: ServerCase) -> str | None:
        """Returns nothing: an address is all it takes."""
        return None

    def collect(self, case: ServerCase, progress: Progress) -> ServerEvidence:
        """Asks in several ways, in turns."""
        from shipsight.doctor.speed.collecting.server import collect_server

        return collect_server(case, progress)

    def figures(self, evidence: ServerEvidence) -> Mapping[str, Figure | list[Figure]]:
        """Returns latency, stages, connecting and ways to send."""
        told: dict[str, Figure | list[Figure]] = {
            "latency_ms": evidence.latency_ms,
            "connect_ms": evidence.connect_ms,
            "tls_ms": evidence.tls_ms,
            "connections": evidence.connections,
            "crowded_ms": evidence.crowded_ms,
            "crowded_gain": evidence.crowded_gain.value,
            "payloads": [one.name for one in evidence.payloads],
            "payloads_ms": [round(one.value_ms, 3) for one in evidence.payloads],
        }
        told |= {f"{name}_ms": round(value, 3) for name, value in evidence.stages_ms.items() if name.isidentifier()}
        return told

    def not_told(self, evidence: ServerEvidence) -> tuple[str, ...]:
        """Returns which ways to send the server refused, and what it said."""
        return tuple(f"Sending by {name} was not timed: {why}." for name, why in evidence.left_out.items())

    def pictures(self, evidence: ServerEvidence) -> tuple[Picture, ...]:
        """Returns bars of a request's parts, and of the ways to send it."""
        parts = dict(evidence.stages_ms)
        parts["outside"] = max(0.0, evidence.latency_ms - sum(parts.values()))
        rows = [(name, value, f"{value:.2f} ms") for name, value in parts.items()]
        pictures = [
            draw_bars(rows, "Parts of a request, as the server tells them; outside: network, reading, writing.")
        ]
        if len(evidence.payloads) > 1:
            sent = [
                (one.name, one.value_ms, f"{one.value_ms:.1f} ms, {one.kilobytes:.0f} kB") for one in evidence.payloads
            ]
            pictures.append(draw_bars(sent, "Milliseconds a request by the way the image is sent."))
        return tuple(pictures)
