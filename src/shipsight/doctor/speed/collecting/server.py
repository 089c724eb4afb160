# SPDX-License-Identifier: Apache-2.0
"""Asks a server in several ways, and times each. Private to the room.

Asked over plain `http.client` connections, one a thread: what connecting costs can then be told apart. Invariants: a key goes over
TLS or within this machine alone; no redirect is followed; no proxy is taken from the environment.
"""

from __future__ import annotations

import http.client
import itertools
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import NDArray

from shipsight.build.measure import Interval
from shipsight.build.progress import Progress
from shipsight.client.address import Address, trust
from shipsight.client.answers import MOST_ANSWER_BYTES, error_of, read_json
from shipsight.client.calls import check_headers
from shipsight.client.tensors import HEADER, write_tensors
from shipsight.doctor.speed.case import ServerCase
from shipsight.doctor.speed.racing import Call, race, race_once, race_throughput
from shipsight.doctor.speed.server import Payload, ServerEvidence
from shipsight.doctor.suspect_server import read_address
from shipsight.errors import NotFoundError, ServiceError, UnsupportedError, UsageError

__all__ = ["Connection", "collect_server", "read_server_timing"]

_TIMEOUT_S = 30.0
_CONNECTIONS = 4
_CONNECTS = 7
_FEWEST = 20
_TYPES: Mapping[str, type[np.generic]] = {"FP32": np.float32, "FP16": np.float16, "UINT8": np.uint8}
_STAGE = re.compile(
    r"([A-Za-z][A-Za-z0-9_-]{0,40})\s*;(?:[^;]{0,200};){0,4}?\s*dur=([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(?:;|$)"
)


@dataclass(frozen=True)
class _Way:
    """A request: where it goes, and how its body is written anew each time."""

    target: str
    write: Callable[[], tuple[bytes, dict[str, str]]]


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    closes: bool = False


class Connection:
    """One connection to a server, opened when it is first needed and anew where the server closed it.

    Args:
        address: of the server.
        headers: of every request.
        context: of TLS, None where it is not spoken.
    """

    def __init__(self, address: Address, headers: Mapping[str, str], context: ssl.SSLContext | None) -> None:
        self._address, self._headers = address, headers
        self._is_used = False
        port = address.port
        if context is not None:
            self._line: http.client.HTTPConnection = http.client.HTTPSConnection(
                address.host, port, timeout=_TIMEOUT_S, context=context
            )
        else:
            self._line = http.client.HTTPConnection(address.host, port, timeout=_TIMEOUT_S)

    def ask(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> _Answer:
        """Asks, and hears the whole answer.

        Raises:
            ServiceError: the server does not answer.
        """
        sent = {"Accept-Encoding": "identity", **self._headers, **(headers or {})}
        is_used = self._is_used
        try:
            return self._ask_once(method, target, body, sent)
        except (OSError, http.client.HTTPException) as error:
            self._line.close()
            # One that was idle may have been closed: what is asked here changes nothing, so it is asked again.
            if is_used and isinstance(error, ConnectionError):
                self._is_used = False
                return self.ask(method, target, body, headers)
            raise ServiceError(
                "the server does not answer", where=self._address.url, got=str(error) or type(error).__name__
            ) from error

    def _ask_once(self, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> _Answer:
        self._line.request(method, target, body or None, dict(headers))
        heard = self._line.getresponse()
        told = {name.lower(): value for name, value in heard.getheaders()}
        closes = heard.will_close
        content = heard.read(MOST_ANSWER_BYTES)
        self._is_used = True
        return _Answer(heard.status, told, content, closes)

    def close(self) -> None:
        """Closes it."""
        self._line.close()


@dataclass(frozen=True)
class _Server:
    """How a server is reached, and the model that is asked."""

    address: Address
    headers: Mapping[str, str] = field(repr=False)
    context: ssl.SSLContext | None
    model: str
    version: str | None

    def connect(self) -> Connection:
        """Returns a connection that is not open yet."""
        return Connection(self.address, self.headers, self.context)

    def path(self, protocol: str, verb: str = "") -> str:
        """Returns a path of the model: `v1` or `v2`."""
        version = "" if self.version is None else f"/versions/{quote(self.version, safe='')}"
        return f"/{protocol}/models/{quote(self.model, safe='')}{version}" + (f"/{verb}" if verb else "")


def collect_server(case: ServerCase, progress: Progress) -> ServerEvidence:
    """Collects the evidence of a case.

    Args:
        case: what is examined.
        progress: is told of parts.

    Raises:
        UsageError: the address is none, or names no model where there are several.
        ServiceError: the server does not answer.
        ShipsightError: what the server says.
    """
    server = _reach(case)
    is_tensors = urlsplit(case.url).path.startswith("/v2/")
    left_out: dict[str, str] = {}
    with closing(server.connect()) as line:
        ways = _find_ways(server, line, case, is_tensors=is_tensors, left_out=left_out)
        main = ways["tensor-binary"] if is_tensors and "tensor-binary" in ways else next(iter(ways.values()))
        progress.part(1, 5)
        taken_ms, stages, closes = _ask_alone(line, main, case.seconds * 0.3)
        progress.part(2, 5)
        connect_ms, tls_ms = _time_connecting(server)
        anew = None if closes else _race_connecting(server, line, main, case.seconds * 0.25)
        progress.part(3, 5)
        crowded_ms, crowded_queue_ms, gain = _ask_crowded(server, main, case.seconds * 0.35)
        progress.part(4, 5)
        payloads = _race_payloads(line, ways)
    return ServerEvidence(
        is_tls=server.address.is_tls,
        speaks="tensor" if is_tensors else "image",
        latency_ms=median(taken_ms),
        stages_ms={name: median(values) for name, values in stages.items()},
        connect_ms=connect_ms,
        tls_ms=tls_ms,
        closes=closes,
        anew=anew,
        requests=len(taken_ms),
        connections=_CONNECTIONS,
        crowded_ms=crowded_ms,
        crowded_queue_ms=crowded_queue_ms,
        crowded_gain=gain,
        payloads=payloads,
        left_out=left_out,
    )


def _reach(case: ServerCase) -> _Server:
    url, model, version = read_address(case.url, "", where="URL")
    address = Address.read(url, where="URL", takes_sockets=False)
    if case.key is not None:
        address.check_secret(where="URL")
    if case.ca is not None:
        address.check_certificates(where="--ca")
    context = trust(case.ca, where="--ca") if address.is_tls else None
    server = _Server(address, check_headers({}, case.key), context, model, version)
    if model:
        return server
    with closing(server.connect()) as line:
        names = _list_models(line, address.url)
    if len(names) != 1:
        raise UsageError(
            "the address names no model", where="URL", expected=f"{address.url}/MODEL", got=", ".join(names) or "none"
        )
    return _Server(address, server.headers, context, names[0], None)


def _list_models(line: Connection, url: str) -> list[str]:
    """Returns the names of the models that a server has: ours, or one with the repository extension of the protocol."""
    heard = line.ask("GET", "/v1/models")
    if heard.status == 404:
        heard = line.ask("POST", "/v2/repository/index", b"{}", {"Content-Type": "application/json"})
        if heard.status != 200:
            return []
        told = json.loads(heard.body)
        return sorted({str(one["name"]) for one in told if isinstance(one, dict) and "name" in one})
    told = read_json(heard.status, heard.body, where=url)
    return sorted({str(one["name"]) for one in told.get("models", [])})


def _find_ways(
    server: _Server, line: Connection, case: ServerCase, *, is_tensors: bool, left_out: dict[str, str]
) -> dict[str, _Way]:
    """Returns the ways that the server answers to, each tried once."""
    turn = itertools.cycle(case.encoded)
    target = server.path("v1", "predict")
    kinds = {"Content-Type": "application/octet-stream", "Accept": "application/json"}
    ways = {"image": _Way(target, lambda: (next(turn).content, kinds))}
    heard = _ask(line, ways["image"])
    # Who sends images need not know what tensors would cost.
    tried = {} if heard.status == 200 and not is_tensors else _tensor_ways(server, line, left_out)
    last = heard
    if heard.status != 200:
        left_out["image"] = f"status {heard.status}"
        ways = {}
    for name, way in tried.items():
        heard = _ask(line, way)
        if heard.status == 200:
            ways[name] = way
            continue
        left_out[name] = f"status {heard.status}"
        last = heard if last.status in (200, 404) else last
    if ways:
        return ways
    if last.status != 404:
        raise error_of(last.status, last.body, where=server.address.url, retry_after=last.headers.get("retry-after"))
    raise NotFoundError(
        "the server answers to no image or tensor of this model", where=server.address.url, expected=server.model
    )


def _tensor_ways(server: _Server, line: Connection, left_out: dict[str, str]) -> dict[str, _Way]:
    heard = line.ask("GET", server.path("v2"))
    if heard.status != 200:
        left_out["tensor"] = f"status {heard.status}"
        return {}
    told = read_json(heard.status, heard.body, where=server.address.url)
    try:
        name, tensor = _make_tensor(told)
    except UnsupportedError as error:
        left_out["tensor"] = error.what
        return {}
    datatype = str(told["inputs"][0]["datatype"])
    target = server.path("v2", "infer")

    def write_binary() -> tuple[bytes, dict[str, str]]:
        body, size = write_tensors({name: tensor})
        return body, {HEADER: str(size), "Content-Type": "application/octet-stream"}

    def write_json() -> tuple[bytes, dict[str, str]]:
        one = {"name": name, "shape": list(tensor.shape), "datatype": datatype, "data": tensor.ravel().tolist()}
        return json.dumps({"inputs": [one]}).encode(), {"Content-Type": "application/json"}

    return {"tensor-binary": _Way(target, write_binary), "tensor-json": _Way(target, write_json)}


def _make_tensor(told: Mapping[str, Any]) -> tuple[str, NDArray[Any]]:
    """Returns the name of a model's input and a tensor of its shape: what is in it does not change how long it takes.

    Raises:
        UnsupportedError: it is no image.
    """
    inputs = told.get("inputs")
    if isinstance(inputs, list) and len(inputs) == 1:
        shape = [int(side) for side in inputs[0].get("shape", [])]
        kind = _TYPES.get(str(inputs[0].get("datatype")))
        if kind is not None and len(shape) == 4:
            shape = [1 if at == 0 else 640 if side < 1 else side for at, side in enumerate(shape)]
            values = np.random.default_rng(0).integers(0, 256, shape)
            return str(inputs[0]["name"]), (values if kind is np.uint8 else values / 255).astype(kind)
    raise UnsupportedError("the model takes no image as one tensor", where="metadata")


def _ask(line: Connection, way: _Way) -> _Answer:
    body, headers = way.write()
    return line.ask("POST", way.target, body, headers)


def _ask_well(line: Connection, way: _Way) -> _Answer:
    """Asks what was answered before.

    Raises:
        ServiceError: it is not any more.
    """
    heard = _ask(line, way)
    if heard.status != 200:
        raise error_of(heard.status, heard.body, where=way.target, retry_after=heard.headers.get("retry-after"))
    return heard


def _ask_alone(line: Connection, way: _Way, seconds: float) -> tuple[list[float], dict[str, list[float]], bool]:
    """Returns milliseconds of each request, of each stage that the server tells, and whether it closes its connections."""
    taken_ms: list[float] = []
    stages: dict[str, list[float]] = {}
    closed = 0
    for _ in range(5):
        _ask_well(line, way)
    end = time.perf_counter() + seconds
    while len(taken_ms) < _FEWEST or time.perf_counter() < end:
        begin = time.perf_counter()
        heard = _ask_well(line, way)
        taken_ms.append((time.perf_counter() - begin) * 1e3)
        closed += heard.closes
        for name, value_ms in read_server_timing(heard.headers.get("server-timing", "")).items():
            stages.setdefault(name, []).append(value_ms)
    return taken_ms, stages, closed > len(taken_ms) / 2


def read_server_timing(text: str) -> dict[str, float]:
    """Reads the header `Server-Timing`: name of a stage -> milliseconds; what tells no duration is passed over."""
    found = (_STAGE.match(part.strip()) for part in text.split(","))
    return {match[1]: float(match[2]) for match in found if match is not None}


def _time_connecting(server: _Server) -> tuple[float, float]:
    """Returns the median milliseconds to connect, and of TLS' part of it."""
    address, context = server.address, server.context
    whole_ms, tls_ms = [], []
    for _ in range(_CONNECTS):
        begin = time.perf_counter()
        try:
            with socket.create_connection(
                (address.host, address.port or (443 if address.is_tls else 80)), _TIMEOUT_S
            ) as plain:
                middle = time.perf_counter()
                if context is not None:
                    with context.wrap_socket(plain, server_hostname=address.host):
                        pass
                end = time.perf_counter()
        except OSError as error:
            raise ServiceError("the server does not answer", where=address.url, got=error) from error
        whole_ms.append((end - begin) * 1e3)
        tls_ms.append((end - middle) * 1e3 if context is not None else 0.0)
    return median(whole_ms), median(tls_ms)


def _race_connecting(server: _Server, line: Connection, way: _Way, seconds: float) -> Interval:
    def ask_anew() -> object:
        with closing(server.connect()) as fresh:
            return _ask_well(fresh, way)

    ways: dict[str, Call] = {"new": ask_anew, "kept": lambda: _ask_well(line, way)}
    return race(ways, seconds=seconds, clock=time.perf_counter).gains["kept"]


def _ask_crowded(server: _Server, way: _Way, seconds: float) -> tuple[float, float | None, Interval]:
    """Returns median milliseconds of a request and of its wait with several connections, and the gain in requests a second."""
    own = threading.local()
    taken_ms: list[float] = []
    waited_ms: list[float] = []
    with ExitStack() as stack:

        def ask() -> object:
            if not hasattr(own, "line"):
                own.line = stack.enter_context(closing(server.connect()))
                return _ask_well(own.line, way)  # connecting is not what is timed here
            begin = time.perf_counter()
            heard = _ask_well(own.line, way)
            taken_ms.append((time.perf_counter() - begin) * 1e3)
            stages = read_server_timing(heard.headers.get("server-timing", ""))
            if "queue" in stages:
                waited_ms.append(stages["queue"])
            return heard

        single = stack.enter_context(closing(server.connect()))
        ways: dict[str, tuple[Call, int]] = {
            "one": (partial(_ask_well, single, way), 1),
            "several": (ask, _CONNECTIONS),
        }
        found = race_throughput(ways, seconds=seconds, clock=time.perf_counter)
    return median(taken_ms), median(waited_ms) if waited_ms else None, found.gains["several"]


def _race_payloads(line: Connection, ways: Mapping[str, _Way]) -> tuple[Payload, ...]:
    """Times the ways to send an image in turns; JSON first, where the server takes it."""
    names = sorted(ways, key=lambda name: name != "tensor-json")
    kilobytes = {name: len(ways[name].write()[0]) / 1e3 for name in names}
    if len(names) == 1:
        return ()
    calls: dict[str, Call] = {name: partial(_ask_well, line, ways[name]) for name in names}
    found = race_once(calls, clock=time.perf_counter)
    return tuple(Payload(name, kilobytes[name], found.values[name], found.gains.get(name)) for name in names)
