# SPDX-License-Identifier: Apache-2.0
"""The native protocol: an image in, predictions out. Described in `docs/protocols/native.md`.

POST /v1/models/{model}[/versions/{version}]/predict
    body      image/* (one image), multipart/form-data (several files), or JSON {"images": [base64, ...]}
    query     conf, iou, max_det, classes, agnostic_nms, variant, deadline_ms, tile, overlap, whole
    Accept    application/json (default), image/jpeg (drawn; one image), application/vnd.coco+json
GET  /v1/models, /v1/models/{model}, /v1/me
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import simplejpeg
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route

from shipsight.access import Action, Principal
from shipsight.errors import UsageError
from shipsight.model import ImagePredictions
from shipsight.protect import MEDIA_TYPE, SealedProtocol
from shipsight.serve.http.answers import json_answer
from shipsight.serve.http.body import read_body, read_view
from shipsight.serve.http.description import DescribedRoute, Operation, answer, operation, query
from shipsight.serve.http.forms import read_form
from shipsight.serve.http.handlers import Handler, bind
from shipsight.serve.http.json_body import read_json
from shipsight.serve.http.routing import read_key
from shipsight.serve.http.schemas import ref, thresholds
from shipsight.serve.limits import Limits
from shipsight.serve.models import ServedModel
from shipsight.serve.needs import HANDLER, KNOWN, Needs
from shipsight.serve.questions import Answer, EncodedImage, Question, Target
from shipsight.serve.service import PredictionService
from shipsight.vision import PredictSettings, TileSettings
from shipsight.vision.draw import draw

__all__ = [
    "check_options",
    "describe_model",
    "native_routes",
    "options_of",
    "predict",
    "prediction_operation",
    "query_settings",
    "query_tiles",
    "read_flag",
    "read_number",
]

_OPTIONS = ("conf", "iou", "max_det", "classes", "agnostic_nms", "variant", "deadline_ms", "tile", "overlap", "whole")
_TRUTHS = ("true", "false", "True", "False", "1", "0")
_TAG = "native"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def native_routes(service: PredictionService) -> list[Route]:
    """Returns the protocol's routes."""

    def route(path: str, handler: Handler, method: str, described: Operation, needs: Needs) -> Route:
        sealed = SealedProtocol.NATIVE if handler is _predict else None
        endpoint = bind(service, handler, sealed=sealed)
        return DescribedRoute(path, endpoint, method=method, described=described, needs=needs)

    reads, predicts = Needs(Action.MODELS_READ, "model"), Needs(Action.MODELS_PREDICT, "model")

    asked = prediction_operation(service.limits, takes_sealed=True)
    who = answer("who the server takes the client for", {"application/json": ref("Principal")})
    listed = answer("all models", {"application/json": _listing("models")})
    one = answer("all versions of one model", {"application/json": _listing("versions")})
    return [
        route("/v1/me", _me, "GET", operation("Tells who asks", tag=_TAG, answers={200: who}), KNOWN),
        route(
            "/v1/models",
            _list,
            "GET",
            operation("Lists the models", tag=_TAG, answers={200: listed}),
            Needs(Action.MODELS_READ, HANDLER),
        ),
        route(
            "/v1/models/{model}",
            _describe,
            "GET",
            operation("Describes a model", tag=_TAG, answers={200: one}, errors=(404,)),
            reads,
        ),
        route("/v1/models/{model}/predict", _predict, "POST", asked, predicts),
        route("/v1/models/{model}/versions/{version}/predict", _predict, "POST", asked, predicts),
    ]


async def _me(service: PredictionService, principal: Principal, request: Request) -> Response:
    certificate = None
    if principal.certificate is not None:
        shown = asdict(principal.certificate)
        certificate = {**shown, "not_after": f"{principal.certificate.not_after:%FT%TZ}"}
    return json_answer({"kind": principal.kind.value, "name": principal.name, "certificate": certificate})


def _listing(key: str) -> dict[str, Any]:
    return {"type": "object", "properties": {key: {"type": "array", "items": ref("Model")}}, "required": [key]}


def prediction_operation(
    limits: Limits, *, tag: str = _TAG, more: Sequence[Operation] = (), takes_sealed: bool = False
) -> Operation:
    """Describes `predict`.

    Args:
        limits: of the server.
        tag: the protocol that carries it.
        more: options in the query that this protocol adds.
        takes_sealed: whether requests may come sealed.
    """
    sealed: dict[str, dict[str, Any]] = {MEDIA_TYPE: {}} if takes_sealed else {}
    told = {
        "application/json": ref("Predictions"),
        "application/vnd.coco+json": {"type": "array", "items": ref("CocoResult")},
        "image/jpeg": {},
    }
    return operation(
        "Predicts on images",
        tag=tag,
        parameters=[*(query(name, schema) for name, schema in _options_schema(limits).items()), *more],
        body={**_bodies_schema(limits), **sealed},
        answers={200: answer("predictions; the form is chosen by `Accept`", {**told, **sealed})},
        errors=(404, 413, 415, 504),
    )


def _options_schema(limits: Limits) -> Mapping[str, Mapping[str, Any]]:
    settings = thresholds(limits)
    # In a query there are no types: these texts are what is read as one of the two.
    truth = {"type": "string", "enum": list(_TRUTHS)}
    settings["agnostic_nms"] = {**settings["agnostic_nms"], **truth, "default": "false"}
    longest_ms = limits.longest_deadline_s * 1e3
    options = {
        **settings,
        "variant": {"type": "string", "description": "one that the server offers"},
        "deadline_ms": {"type": "number", "exclusiveMinimum": 0, "maximum": longest_ms},
        "tile": {
            "type": "integer",
            "minimum": 32,
            "description": "side of the windows that images are cut into, pixels",
        },
        "overlap": {"type": "number", "minimum": 0, "maximum": 0.9, "default": TileSettings.overlap},
        "whole": {**truth, "default": "true", "description": "whether the whole image is a window, too"},
    }
    assert tuple(options) == _OPTIONS
    return options


def _bodies_schema(limits: Limits) -> dict[str, dict[str, Any]]:
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    image = {"type": "string", "contentEncoding": "base64"}
    return {
        **{kind: {} for kind in ("image/jpeg", "image/png", "image/webp", "image/bmp", "application/octet-stream")},
        "multipart/form-data": {"type": "object", "properties": {"image": {"type": "array", "items": file}}},
        "application/json": {
            "type": "object",
            "properties": {"images": {"type": "array", "items": image, "minItems": 1, "maxItems": limits.images}},
            "required": ["images"],
            "additionalProperties": False,
        },
    }


async def _list(service: PredictionService, principal: Principal, request: Request) -> Response:
    return json_answer(
        {
            "models": [
                _describe_in(service, one)
                for one in service.models.all()
                if principal.may(Action.MODELS_READ, one.name)
            ]
        }
    )


async def _describe(service: PredictionService, principal: Principal, request: Request) -> Response:
    name = request.path_params["model"]
    found = [_describe_in(service, one) for one in service.models.all() if one.name == name]
    if not found:
        service.models.get(name)
    return json_answer({"name": name, "versions": found})


def _describe_in(service: PredictionService, model: ServedModel) -> dict[str, Any]:
    return {**describe_model(model), "role": service.rollouts.role_of(model.name, model.version)}


def describe_model(model: ServedModel) -> dict[str, Any]:
    """Returns what anyone who may see it may know of a model in service."""
    return {
        "name": model.name,
        "version": model.version,
        "state": model.state.value,
        "task": model.card.task.value,
        "digest": model.digest,
        "class_names": list(model.card.class_names),
        "default_variant": model.default_variant,
        "variants": [
            {"name": name, "streams": runner.streams, "size_hw": list(runner.variant.size_hw)}
            for name, runner in model.runners.items()
        ],
        "memory_mb": round(model.memory_bytes / 1e6, 1),
        "is_pinned": model.is_pinned,
        "error": None if model.error is None else {"code": model.error.code, "what": model.error.what},
    }


async def _predict(service: PredictionService, principal: Principal, request: Request) -> Response:
    path = request.path_params
    return await predict(
        service,
        principal,
        request,
        model=path["model"],
        version=path.get("version"),
        options=options_of(request),
    )


def options_of(request: HTTPConnection) -> dict[str, str]:
    """Returns the query.

    Raises:
        UsageError: an option stands in it twice.
    """
    given = request.query_params.multi_items()
    options = dict(given)
    if len(options) != len(given):
        twice = sorted(name for name, count in Counter(name for name, _ in given).items() if count > 1)
        raise UsageError("given twice", where=", ".join(twice)[:200])
    return options


async def predict(
    service: PredictionService,
    principal: Principal,
    request: Request,
    *,
    model: str,
    version: str | None = None,
    options: Mapping[str, str],
) -> Response:
    """Answers a request of the native protocol; for other protocols that carry the same under other routes.

    Args:
        service: answers.
        principal: who asks.
        request: its body holds the images, `Accept` says what is wanted.
        model: name of the model asked.
        version: of it, None for the current one, or the canary.
        options: the query.

    Raises:
        ShipsightError: as `PredictionService.predict`; and what cannot be read.
    """
    check_options(options)
    wants_picture = _wants(request, "image/jpeg")
    images = await _read_images(request, service.limits)
    if wants_picture and len(images) != 1:
        raise UsageError(
            "a drawn answer is of one image", where="Accept: image/jpeg", expected="1 image", got=len(images)
        )
    question = Question(
        target=Target(model, version, options.get("variant"), **read_key(request)),
        images=images,
        settings=query_settings(options),
        deadline_s=read_number(options, "deadline_ms", 0.0) / 1e3 if "deadline_ms" in options else None,
        tiles=query_tiles(options),
        render=_draw if wants_picture else None,
        subject=service.subject_of(request.headers.getlist),
    )
    told = await service.predict(principal, question)
    headers = {"server-timing": ", ".join(f"{stage};dur={ms:.2f}" for stage, ms in told.stages_ms.items())}
    if wants_picture:
        return Response(told.rendered[0], headers=headers, media_type="image/jpeg")
    if _wants(request, "application/vnd.coco+json"):
        return json_answer(_to_coco(told), headers=headers)
    return json_answer(told.predictions.to_dict(), headers=headers)


def _draw(pixels: Any, predictions: ImagePredictions) -> bytes:  # noqa: ANN401 - uint8 RGB array
    return bytes(simplejpeg.encode_jpeg(draw(pixels, predictions), quality=90, colorspace="RGB"))


def _wants(request: Request, kind: str) -> bool:
    """Tells whether a kind is asked for by name; `*/*` asks for JSON."""
    return any(part.partition(";")[0].strip() == kind for part in request.headers.get("accept", "").split(","))


def check_options(options: Mapping[str, str], *, more: Sequence[str] = ()) -> None:
    """Refuses a query that names what there is not.

    Args:
        options: the query.
        more: names that this route knows beside the protocol's own.

    Raises:
        UsageError: an unknown name.
    """
    known = (*_OPTIONS, *more)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UsageError("no such option", where=", ".join(unknown)[:200], expected=", ".join(known))


def query_settings(options: Mapping[str, str]) -> PredictSettings:
    """Reads the thresholds of a query.

    Raises:
        UsageError: a value does not fit.
    """
    defaults = PredictSettings()
    classes = options.get("classes")
    return PredictSettings(
        conf=read_number(options, "conf", defaults.conf),
        iou=read_number(options, "iou", defaults.iou),
        max_det=_whole("max_det", options.get("max_det", str(defaults.max_det))),
        classes=None if classes is None else tuple(_whole("classes", one) for one in classes.split(",")),
        agnostic_nms=read_flag(options, "agnostic_nms"),
    )


def query_tiles(options: Mapping[str, str]) -> TileSettings | None:
    """Reads how images are to be cut, None for not at all.

    Raises:
        UsageError: a value does not fit, or says how to cut where nothing is cut.
    """
    tile = options.get("tile")
    if tile is None:
        alone = sorted({"overlap", "whole"} & set(options))
        if alone:
            raise UsageError("says how to cut, but not that", where=", ".join(alone), expected="tile as well")
        return None
    return TileSettings(
        size=_whole("tile", tile),
        overlap=read_number(options, "overlap", TileSettings.overlap),
        whole=read_flag(options, "whole", default=True),
    )


def read_flag(options: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """Reads a truth value of a query.

    Raises:
        UsageError: it is something else.
    """
    text = options.get(name, str(default))
    if text not in _TRUTHS:
        raise UsageError("not a truth value", where=name, expected="true or false", got=text[:40])
    return text in ("true", "True", "1")


def read_number(options: Mapping[str, str], name: str, default: float) -> float:
    """Reads a number of a query.

    Raises:
        UsageError: it is none.
    """
    text = options.get(name)
    if text is None:
        return default
    # `float` takes underscores, blanks and digits of other scripts, too.
    if not _NUMBER.fullmatch(text):
        raise UsageError("not a number", where=name, got=text[:40])
    return float(text)


def _whole(name: str, text: str) -> int:
    # `int` takes underscores, blanks and digits of other scripts, too.
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UsageError("not a whole number", where=name, got=text[:40])
    return int(text)


async def _read_images(request: Request, limits: Limits) -> list[EncodedImage]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return read_form(await read_body(request, limits), request.headers["content-type"], limits.images)
    if kind == "application/json":
        return _read_json(await read_body(request, limits), limits)
    # What the bytes are is told from the bytes: clients send images as octets, as forms and without any type.
    return [EncodedImage(await read_view(request, limits))]


def _read_json(body: bytes, limits: Limits) -> list[EncodedImage]:
    told = read_json(body)
    if not isinstance(told, dict) or set(told) != {"images"} or not isinstance(told["images"], list):
        raise UsageError("not a request", where="body", expected='{"images": [base64, ...]}')
    limits.check_images(len(told["images"]))
    images = []
    for position, text in enumerate(told["images"]):
        try:
            if not isinstance(text, str):
                raise TypeError
            images.append(EncodedImage(base64.b64decode(text, validate=True)))
        except (TypeError, ValueError, binascii.Error):
            raise UsageError("not base64", where=f"images[{position}]") from None
    return images


def _to_coco(answer: Answer) -> list[dict[str, Any]]:
    """Returns COCO's result format: boxes x, y, width, height; `image_id` is the image's place in the request."""
    found = []
    for image_id, image in enumerate(answer.predictions.images):
        for one in image.to_dict().get("predictions", []):
            entry: dict[str, Any] = {"image_id": image_id, "category_id": one["class_id"], "score": one["score"]}
            if "box_xyxy" in one:
                x0, y0, x1, y1 = one["box_xyxy"]
                entry["bbox"] = [x0, y0, x1 - x0, y1 - y0]
            if "corners_xy" in one:
                entry["segmentation"] = [[value for corner in one["corners_xy"] for value in corner]]
            if "keypoints_xyc" in one:
                entry["keypoints"] = [value for point in one["keypoints_xyc"] for value in point]
            if "mask" in one:
                entry["segmentation"] = {"size": one["mask"]["size_hw"], "counts": one["mask"]["counts"]}
            found.append(entry)
    return found
