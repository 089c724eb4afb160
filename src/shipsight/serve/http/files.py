# SPDX-License-Identifier: Apache-2.0
"""The files of a model in service. Described in `docs/protocols/native.md`.

GET /v1/models/{model}/versions/{version}/files                     what the manifest names
GET /v1/models/{model}/versions/{version}/files/report.html         the report
GET /v1/models/{model}/versions/{version}/files/proof/golden/...    the golden set
GET /v1/models/{model}/versions/{version}/files/...                 anything else: variants, measurements, model card

Invariants: a name is one of the manifest's, letter by letter, or there is no such file; nothing else of a path reaches the disk. A
file is hashed whole before its first byte is sent, and again while it is sent: its last piece leaves only once all of it was
found to be what the manifest promises. Who takes what is recorded before the first byte. What is sent is never a page of this
server's, whatever it holds. Private to the room. Source: OWASP ASVS 5.0, 5.3.2, 5.4 and 16.2.1.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from shipsight.access import Action, EventKind, Principal
from shipsight.errors import MissingFileError, NotFoundError, OverloadedError, ShipsightError
from shipsight.model.bundle import Bundle, open_bundle
from shipsight.serve.http.admission import admit_again
from shipsight.serve.http.answers import json_answer
from shipsight.serve.http.description import DescribedRoute, Operation, answer, operation
from shipsight.serve.http.handlers import Handler, bind
from shipsight.serve.needs import Needs
from shipsight.serve.service import PredictionService

__all__ = ["file_routes"]

_log = logging.getLogger("shipsight.serve")
_PREFIX = "/v1/models/{model}/versions/{version}/files"
_GOLDEN = "proof/golden/"
_REPORT = "report.html"
_MOST_AT_ONCE = 4  # each reads a disk twice
_PIECE_S = 60.0  # for a client to take 1 MiB

_TEXT = {"type": "string"}
_LISTED = {
    "type": "object",
    "properties": {
        "model": _TEXT,
        "version": _TEXT,
        "digest": _TEXT,
        "files": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": _TEXT, "size": {"type": "integer"}, "sha256": _TEXT},
                "required": ["name", "size", "sha256"],
            },
        },
    },
    "required": ["model", "version", "digest", "files"],
}


def file_routes(service: PredictionService) -> list[Route]:
    """Returns the routes."""
    files = _Files()

    def route(path: str, handler: Handler, described: Operation, action: Action) -> Route:
        needs = Needs(action, "model")
        return DescribedRoute(_PREFIX + path, bind(service, handler), method="GET", described=described, needs=needs)

    listed = operation(
        "Lists the files of a model",
        tag="native",
        answers={200: answer("what the manifest names", {"application/json": _LISTED})},
        errors=(404,),
    )
    golden = _described("Gives a file of the golden set")
    return [
        route("", _list, listed, Action.MODELS_READ),
        route(f"/{_REPORT}", files.report, _described("Gives the report"), Action.GOLDEN_READ),
        route(f"/{_GOLDEN}{{file:path}}", files.golden, golden, Action.GOLDEN_READ),
        route("/{file:path}", files.any, _described("Gives a file"), Action.DATA_EXPORT),
    ]


def _described(summary: str) -> Operation:
    return operation(
        summary,
        tag="native",
        answers={200: answer("its bytes, as the manifest promises them", {"application/octet-stream": {}})},
        errors=(404, 422),
    )


async def _list(service: PredictionService, principal: Principal, request: Request) -> Response:
    bundle = await asyncio.to_thread(_bundle_of, service, request)
    path = request.path_params
    files = [{"name": one.name, "size": one.size, "sha256": one.sha256} for one in bundle.manifest.files]
    told = {"model": path["model"], "version": path["version"], "digest": bundle.digest, "files": files}
    return json_answer(told)


class _Files:
    """Gives files, a few at once."""

    def __init__(self) -> None:
        self._under_way = 0

    async def report(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        return await self._give(service, request, _REPORT, EventKind.DATA_READ)

    async def golden(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        return await self._give(service, request, _GOLDEN + request.path_params["file"], EventKind.DATA_READ)

    async def any(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        return await self._give(service, request, request.path_params["file"], EventKind.EXPORTED)

    async def _give(self, service: PredictionService, request: Request, name: str, kind: EventKind) -> Response:
        if self._under_way >= _MOST_AT_ONCE:
            raise OverloadedError(
                "too many files are taken at once", where="files", expected=f"at most {_MOST_AT_ONCE}"
            )
        self._under_way += 1
        try:
            bundle = await asyncio.to_thread(_bundle_of, service, request)
            size = await asyncio.to_thread(_check, bundle, name)
            if request.method == "HEAD":
                return _FileAnswer(name, size, iter(()), self)
            caller = await admit_again(request.scope)  # hashing took a while, and rights are those of the act
            path = request.path_params
            told = {"file": name, "sha256": bundle.entry(name).sha256, "bytes": size}
            details = {"version": path["version"], "digest": bundle.digest, **told}
            await service.gate.record(kind, caller, path["model"], details=details)
            return _FileAnswer(name, size, bundle.pieces(name), self)
        except BaseException:
            self.left()
            raise

    def left(self) -> None:
        """Makes room for another."""
        self._under_way -= 1


class _FileAnswer(Response):
    """A file, sent in pieces; it must be sent, since it holds a place."""

    def __init__(self, name: str, size: int, pieces: Iterator[bytes], files: _Files) -> None:
        # An attachment of no known kind: a report is HTML with scripts of its own, and must not run as a page of this server's.
        last = name.rpartition("/")[2]
        headers = {"content-length": str(size), "content-disposition": f'attachment; filename="{last}"'}
        super().__init__(None, headers=headers, media_type="application/octet-stream")
        self._pieces, self._files, self._name = pieces, files, name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it; one that was changed meanwhile is cut off, and so is a client that does not take it."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while (
                scope["method"] != "HEAD" and (piece := await asyncio.to_thread(next, self._pieces, None)) is not None
            ):
                async with asyncio.timeout(_PIECE_S):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (ShipsightError, TimeoutError) as error:
            # Its length was promised: a server of HTTP closes the connection of an answer that ends early.
            _log.error("%s was not sent whole: %s", self._name, str(error) or "the client took too long")
        finally:
            self._files.left()


def _bundle_of(service: PredictionService, request: Request) -> Bundle:
    """Opens the bundle of a model in service.

    Raises:
        NotFoundError: it is not in service.
        TamperedError: the bundle is no longer the one that answers.
    """
    path = request.path_params
    model = service.models.find(path["model"], path["version"])
    return open_bundle(model.path, digest=model.digest)


def _check(bundle: Bundle, name: str) -> int:
    """Returns a file's size in bytes, once all of it was found to be what the manifest promises.

    Raises:
        NotFoundError: the manifest does not name it.
        TamperedError: it was changed.
    """
    try:
        entry = bundle.entry(name)
    except MissingFileError:
        raise NotFoundError("no such file", where="files", got=repr(name[:200])) from None
    for _ in bundle.pieces(name):
        continue
    return entry.size
