# SPDX-License-Identifier: Apache-2.0
"""What can be asked of a server, each as steps: how it is written, and how its answer is read. Private to the room."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from numpy.typing import NDArray

from shipsight.client.address import Address
from shipsight.client.answers import error_of, read_json
from shipsight.client.exchange import Asked, Heard, Steps, persist
from shipsight.client.images import SentImages
from shipsight.client.sealing import Sealing
from shipsight.client.tensors import HEADER, read_tensors, write_tensors
from shipsight.errors import CorruptError, ServiceError, ShipsightError, UsageError
from shipsight.model import Predictions
from shipsight.protect import PlainRequest, SealedFor, SealedProtocol

__all__ = ["Calls", "PredictOptions", "check_headers", "model_path", "tensors_path"]

_JSON, _JPEG, _BYTES = "application/json", "image/jpeg", "application/octet-stream"
_ROUTES = {SealedProtocol.NATIVE: ("/v1", "predict"), SealedProtocol.OPEN_INFERENCE: ("/v2", "infer")}
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Said by this room itself, or never.
_OURS = frozenset(
    [
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-routing-key",
    ]
)
_MOST_LETTERS = 4096


@dataclass(frozen=True)
class PredictOptions:
    """What a prediction is asked with; None for what the server makes of it. Named as in `shipsight.load(...).predict`.

    Attributes:
        conf: least score, 0 to 1.
        iou: overlap above which the lower-scored box is suppressed, 0 to 1.
        max_det: most predictions an image.
        classes: class ids to keep.
        agnostic_nms: whether boxes of different classes suppress each other.
        variant: one that the server offers.
        deadline_ms: milliseconds within which the server must begin; what waits longer is refused.
        tile: side in pixels of the windows that each image is cut into.
        overlap: share of a window that the next one covers too, 0 to 0.9.
        whole: whether the whole image is one more window.
    """

    conf: float | None = None
    iou: float | None = None
    max_det: int | None = None
    classes: Sequence[int] | None = None
    agnostic_nms: bool | None = None
    variant: str | None = None
    deadline_ms: float | None = None
    tile: int | None = None
    overlap: float | None = None
    whole: bool | None = None

    def query(self) -> str:
        """Returns the options as they stand in a query."""
        given = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return urlencode({name: _written(name, value) for name, value in given.items() if value is not None})


def _written(name: str, value: Any) -> str:  # noqa: ANN401 - of whatever type the option has
    if name == "classes":
        return ",".join(str(int(one)) for one in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


@dataclass(frozen=True)
class Calls:
    """Everything that a client asks.

    Attributes:
        address: of the server.
        timeout_s: seconds for a call, all attempts together.
        retries: most attempts beside the first.
        sealing: how predictions are sealed, None where they are not.

    Raises:
        UsageError: a number does not fit.
    """

    address: Address
    timeout_s: float
    retries: int
    sealing: Sealing | None

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s < 1e6 or not 0 <= self.retries <= 100:
            raise UsageError("out of range", where="timeout_s, retries", expected="above 0, and 0 to 100")

    def predict(
        self,
        images: SentImages,
        *,
        model: str,
        version: str | None,
        routing_key: str | None,
        class_names: Sequence[str] | None,
        options: PredictOptions,
    ) -> Steps[Predictions]:
        """Asks for predictions."""
        heard = yield from self._predict(images, model, version, routing_key, options, accept=_JSON)
        read = Predictions.from_dict(self._read(heard), class_names=class_names)
        if len(read) != len(images.sources):
            raise CorruptError("answers to other images than were asked", expected=len(images.sources), got=len(read))
        named = (
            one if source is None else dataclasses.replace(one, source=source)
            for one, source in zip(read, images.sources, strict=True)
        )
        return dataclasses.replace(read, images=tuple(named))

    def drawn(
        self, images: SentImages, *, model: str, version: str | None, routing_key: str | None, options: PredictOptions
    ) -> Steps[bytes]:
        """Asks for an image with its predictions drawn."""
        heard = yield from self._predict(images, model, version, routing_key, options, accept=_JPEG)
        if heard.status != 200 or heard.kind != _JPEG:
            raise self._error(heard)
        return heard.body

    def told(self, path: str, *, is_health: bool = False) -> Steps[dict[str, Any]]:
        """Asks for what stands under a path, as JSON.

        Args:
            path: quoted.
            is_health: whether a server that is not ready answers with 503, and that is what was asked.
        """
        heard = yield from self._persist(lambda until: self._plainly("GET", path, until), waits=not is_health)
        if is_health and heard.status == 503 and b'"status"' in heard.body:
            return read_json(200, heard.body, where=self.address.url)
        return self._read(heard)

    def listed(self, path: str, name: str) -> Steps[list[dict[str, Any]]]:
        """Asks for a list that stands under a path.

        Args:
            path: quoted.
            name: of the list, in the answer.
        """
        told = (yield from self.told(path)).get(name)
        if not isinstance(told, list):
            raise ServiceError("this is no server of shipsight, or an old one", where=self.address.url, got=path)
        return told

    def act(self, path: str, **said: str | None) -> Steps[dict[str, Any]]:
        """Changes something; it is asked once more only where it cannot have arrived."""
        body = json.dumps({name: text for name, text in said.items() if text is not None}).encode()
        heard = yield from self._persist(
            lambda until: self._plainly("POST", path, until, {"Content-Type": _JSON}, body), is_safe=False
        )
        return self._read(heard)

    def infer(
        self, tensors: Mapping[str, NDArray[Any]], *, model: str, version: str | None, routing_key: str | None
    ) -> Steps[dict[str, NDArray[Any]]]:
        """Asks for raw outputs, over the Open Inference Protocol."""
        body, size = write_tensors(tensors)
        headers = {HEADER: str(size), **_routed(routing_key)}
        request = PlainRequest(body, _BYTES, _BYTES, "", headers)
        heard = yield from self._ask_model(request, SealedFor(SealedProtocol.OPEN_INFERENCE, model, _said(version)))
        if heard.status != 200:
            raise self._error(heard)
        return read_tensors(heard.body, heard.headers.get(HEADER.lower()))

    def _predict(
        self,
        images: SentImages,
        model: str,
        version: str | None,
        routing_key: str | None,
        options: PredictOptions,
        *,
        accept: str,
    ) -> Steps[Heard]:
        request = PlainRequest(images.body, images.content_type, accept, options.query(), _routed(routing_key))
        return self._ask_model(request, SealedFor(SealedProtocol.NATIVE, model, _said(version)))

    def _ask_model(self, request: PlainRequest, asked: SealedFor) -> Steps[Heard]:
        """Asks a model, sealed where this client seals: the same request either way."""
        prefix, verb = _ROUTES[asked.protocol]
        path = f"{prefix}/models/{_step(asked.model)}"
        path += f"/versions/{_step(asked.version)}/{verb}" if asked.version else f"/{verb}"
        sealing = self.sealing
        if sealing is None:
            headers = {"Content-Type": request.content_type, "Accept": request.accept or _JSON, **request.headers}
            target = f"{path}?{request.query}" if request.query else path
            body = bytes(request.body)
            return self._persist(lambda until: self._plainly("POST", target, until, headers, body))
        return self._persist(
            lambda until: sealing.ask(request, target=path, sealed_for=asked, until=until, where=self.address.url)
        )

    def _persist(
        self, attempt: Callable[[float], Steps[Heard]], *, is_safe: bool = True, waits: bool = True
    ) -> Steps[Heard]:
        until = time.monotonic() + self.timeout_s
        where = self.address.url
        return persist(
            lambda: attempt(until), where=where, until=until, retries=self.retries, is_safe=is_safe, waits=waits
        )

    def _plainly(
        self, method: str, target: str, until: float, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Steps[Heard]:
        heard = yield Asked(method, target, until, headers or {}, body)
        assert heard is not None
        return heard

    def _read(self, heard: Heard) -> dict[str, Any]:
        after = heard.headers.get("retry-after")
        return read_json(heard.status, heard.body, where=self.address.url, retry_after=after)

    def _error(self, heard: Heard) -> ShipsightError:
        after = heard.headers.get("retry-after")
        return error_of(heard.status, heard.body, where=self.address.url, retry_after=after)


def model_path(name: str) -> str:
    """Returns the path under which a model is asked.

    Raises:
        UsageError: it is no name.
    """
    return f"/v1/models/{_step(name)}"


def tensors_path(name: str, version: str | None) -> str:
    """Returns the path under which the Open Inference Protocol has a model.

    Raises:
        UsageError: it is no name.
    """
    return f"/v2/models/{_step(name)}" + (f"/versions/{_step(version)}" if version else "")


def _routed(key: str | None) -> dict[str, str]:
    return {} if key is None else {"X-Routing-Key": _checked("routing_key", key)}


def _step(name: str) -> str:
    # What stands between may take the dots for steps up, and nothing for nothing.
    if name in ("", ".", ".."):
        raise UsageError("not a name", where="model, version", got=repr(name))
    return quote(name, safe="")


def _said(version: str | None) -> str:
    if version is None:
        return ""
    _step(version)
    return version


def check_headers(headers: Mapping[str, str], key: str | None) -> dict[str, str]:
    """Returns the headers of every request.

    Raises:
        UsageError: one is none, or not for the caller to say. The key's text is not repeated.
    """
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or name.lower() in _OURS:
            raise UsageError("not a header to be given here", where="headers", got=name[:40])
        _checked(name, value)
    if key is None:
        return dict(headers)
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError("not the text of a key", where="key")
    return {**headers, "Authorization": f"Bearer {key}"}


def _checked(name: str, value: str) -> str:
    if not value.isascii() or not value.isprintable() or len(value) > _MOST_LETTERS:
        raise UsageError("not a line of text", where=name)
    return value
