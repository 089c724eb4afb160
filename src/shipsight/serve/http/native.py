# SPDX-License-Identifier: Apache-2.0
"""The native protocol: an image in, predictions out. Described in `docs/protocols/native.md`.

POST /v1/models/{model}[/versions/{version}]/predict
    body      image/* (one image), multipart/form-data (several files), or JSON {"images": [base64, ...]}
    query     conf, iou, max_det, classes, agnostic_nms, variant, deadline_ms
    Accept    application/json (default), image/jpeg (drawn; one image), application/vnd.coco+json
GET  /v1/models, /v1/models/{model}, /v1/me
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import asdict
from typing import Any

import simplejpeg
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shipsight.access import Principal
from shipsight.errors import UsageError
from shipsight.model import ImagePredictions
from shipsight.serve.http.answers import json_answer
from shipsight.serve.http.body import read_body
from shipsight.serve.http.handlers import Handler, bind
from shipsight.serve.http.routing import read_key
from shipsight.serve.limits import Limits
from shipsight.serve.models import ServedModel
from shipsight.serve.service import Answer, EncodedImage, PredictionService, Question, Target
from shipsight.vision import PredictSettings
from shipsight.vision.draw import draw

__all__ = ["describe_model", "native_routes", "predict"]

_OPTIONS = ("conf", "iou", "max_det", "classes", "agnostic_nms", "variant", "deadline_ms")


def native_routes(service: PredictionService) -> list[Route]:
    """Returns the protocol's routes."""

    def route(path: str, handler: Handler, method: str) -> Route:
        return Route(path, bind(service, handler), methods=[method])

    return [
        route("/v1/me", _me, "GET"),
        route("/v1/models", _list, "GET"),
        route("/v1/models/{model}", _describe, "GET"),
        route("/v1/models/{model}/predict", _predict, "POST"),
        route("/v1/models/{model}/versions/{version}/predict", _predict, "POST"),
    ]


async def _me(service: PredictionService, principal: Principal, request: Request) -> Response:
    certificate = None
    if principal.certificate is not None:
        shown = asdict(principal.certificate)
        certificate = {**shown, "not_after": f"{principal.certificate.not_after:%FT%TZ}"}
    return json_answer({"kind": principal.kind.value, "name": principal.name, "certificate": certificate})


async def _list(service: PredictionService, principal: Principal, request: Request) -> Response:
    return json_answer({"models": [_describe_in(service, one) for one in service.models.all()]})


async def _describe(service: PredictionService, principal: Principal, request: Request) -> Response:
    name = request.path_params["model"]
    found = [_describe_in(service, one) for one in service.models.all() if one.name == name]
    if not found:
        service.models.get(name)
    return json_answer({"name": name, "versions": found})


def _describe_in(service: PredictionService, model: ServedModel) -> dict[str, Any]:
    return {**describe_model(model), "role": service.rollouts.role_of(model.name, model.version)}


def describe_model(model: ServedModel) -> dict[str, Any]:
    """Returns what anyone may know of a model in service."""
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
        options=dict(request.query_params),
    )


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
    _check_options(options)
    wants_picture = _wants(request, "image/jpeg")
    images = await _read_images(request, service.limits)
    if wants_picture and len(images) != 1:
        raise UsageError(
            "a drawn answer is of one image", where="Accept: image/jpeg", expected="1 image", got=len(images)
        )
    question = Question(
        target=Target(model, version, options.get("variant"), **read_key(request)),
        images=images,
        settings=_settings(options),
        deadline_s=_number(options, "deadline_ms", 0.0) / 1e3 if "deadline_ms" in options else None,
        render=_draw if wants_picture else None,
    )
    answer = await service.predict(principal, question)
    headers = {"server-timing": ", ".join(f"{stage};dur={ms:.2f}" for stage, ms in answer.stages_ms.items())}
    if wants_picture:
        return Response(answer.rendered[0], headers=headers, media_type="image/jpeg")
    if _wants(request, "application/vnd.coco+json"):
        return json_answer(_to_coco(answer), headers=headers)
    return json_answer(answer.predictions.to_dict(), headers=headers)


def _draw(pixels: Any, predictions: ImagePredictions) -> bytes:  # noqa: ANN401 - uint8 RGB array
    return bytes(simplejpeg.encode_jpeg(draw(pixels, predictions), quality=90, colorspace="RGB"))


def _wants(request: Request, kind: str) -> bool:
    """Tells whether a kind is asked for by name; `*/*` asks for JSON."""
    return any(part.partition(";")[0].strip() == kind for part in request.headers.get("accept", "").split(","))


def _check_options(options: Mapping[str, str]) -> None:
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise UsageError("no such option", where=", ".join(unknown)[:200], expected=", ".join(_OPTIONS))


def _settings(options: Mapping[str, str]) -> PredictSettings:
    defaults = PredictSettings()
    classes = options.get("classes")
    agnostic = options.get("agnostic_nms", "false").lower()
    if agnostic not in ("true", "false", "1", "0"):
        raise UsageError("not a truth value", where="agnostic_nms", expected="true or false", got=agnostic[:40])
    return PredictSettings(
        conf=_number(options, "conf", defaults.conf),
        iou=_number(options, "iou", defaults.iou),
        max_det=_whole("max_det", options.get("max_det", str(defaults.max_det))),
        classes=None if classes is None else tuple(_whole("classes", one) for one in classes.split(",")),
        agnostic_nms=agnostic in ("true", "1"),
    )


def _number(options: Mapping[str, str], name: str, default: float) -> float:
    text = options.get(name)
    if text is None:
        return default
    try:
        return float(text)
    except ValueError:
        raise UsageError("not a number", where=name, got=text[:40]) from None


def _whole(name: str, text: str) -> int:
    # `int` takes underscores, blanks and digits of other scripts, too.
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UsageError("not a whole number", where=name, got=text[:40])
    return int(text)


async def _read_images(request: Request, limits: Limits) -> list[EncodedImage]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_form(request, limits)
    body = await read_body(request, limits)
    if kind == "application/json":
        return _read_json(body)
    # What the bytes are is told from the bytes: clients send images as octets, as forms and without any type.
    return [EncodedImage(body)]


async def _read_form(request: Request, limits: Limits) -> list[EncodedImage]:
    body = await read_body(request, limits)

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        request.headers,
        chunks(),
        max_files=limits.images + 1,
        max_fields=0,
        max_part_size=limits.body_bytes,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        got = error.message if isinstance(error, MultiPartException) else "no boundary"
        raise UsageError("not a form of files", where="body", got=got[:200]) from None
    try:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        return [EncodedImage(await file.read(), file.filename or None) for file in files]
    finally:
        await form.close()


def _read_json(body: bytes) -> list[EncodedImage]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise UsageError("the body is not JSON", where="body") from None
    if not isinstance(told, dict) or set(told) != {"images"} or not isinstance(told["images"], list):
        raise UsageError("not a request", where="body", expected='{"images": [base64, ...]}')
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
