# SPDX-License-Identifier: Apache-2.0
"""What stands in requests and answers, as JSON Schema: the nouns of several protocols. Private to the room.

The words are those of `docs/formats/predictions.md` and `docs/protocols/`. A protocol's own nouns stand beside its routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shipsight import errors
from shipsight.access import PrincipalKind
from shipsight.model import Task
from shipsight.serve.limits import Limits
from shipsight.serve.models import ModelState
from shipsight.vision import PredictSettings

__all__ = ["SCHEMAS", "ref", "thresholds"]

Schema = Mapping[str, Any]

_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_TEXT: Schema = {"type": "string"}
_TEXT_OR_NONE: Schema = {"type": ["string", "null"]}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}


def _numbers(count: int) -> Schema:
    return {"type": "array", "items": _NUMBER, "minItems": count, "maxItems": count}


def _object(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> Schema:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


def ref(name: str) -> dict[str, str]:
    """Returns a reference to one of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def thresholds(limits: Limits) -> dict[str, Schema]:
    """Returns what a request may set, within the limits of this server."""
    defaults = PredictSettings()
    return {
        "conf": {**_SHARE, "default": defaults.conf, "description": "least score"},
        "iou": {**_SHARE, "default": defaults.iou, "description": "overlap above which the lower-scored box goes"},
        "max_det": {
            "type": "integer",
            "minimum": 1,
            "maximum": limits.detections,
            "default": min(defaults.max_det, limits.detections),
            "description": "most predictions an image",
        },
        "classes": {"type": "array", "items": _COUNT, "minItems": 1, "description": "class ids to keep"},
        "agnostic_nms": {
            "type": "boolean",
            "default": defaults.agnostic_nms,
            "description": "whether boxes of different classes suppress each other",
        },
    }


_PREDICTION = _object(
    {"class_id": _COUNT, "class_name": _TEXT, "score": _SHARE},
    {
        "box_xyxy": {**_numbers(4), "description": "left, top, right, bottom in pixels of the image"},
        "corners_xy": {"type": "array", "items": _numbers(2), "minItems": 4, "maxItems": 4},
        "keypoints_xyc": {"type": "array", "items": _numbers(3)},
        "mask": _object({"size_hw": {"type": "array", "items": _COUNT, "minItems": 2, "maxItems": 2}, "counts": _TEXT}),
    },
)
_CODES = sorted({getattr(errors, name).code for name in errors.__all__})

SCHEMAS: Mapping[str, Schema] = {
    "Prediction": _PREDICTION,
    "ImagePredictions": _object(
        {"source": _TEXT_OR_NONE, "width": _COUNT, "height": _COUNT},
        {
            "predictions": {"type": "array", "items": ref("Prediction")},
            "probabilities": {"type": "array", "items": _SHARE},
        },
    ),
    "Predictions": _object(
        {
            "model": _TEXT,
            "version": _TEXT,
            "variant": _TEXT,
            "images": {"type": "array", "items": ref("ImagePredictions")},
        }
    ),
    "Principal": _object(
        {
            "kind": {"enum": [kind.value for kind in PrincipalKind]},
            "name": _TEXT,
            "certificate": {"type": ["object", "null"]},
        }
    ),
    "CocoResult": _object(
        {"image_id": _COUNT, "category_id": _COUNT, "score": _SHARE},
        {"bbox": _numbers(4), "segmentation": {}, "keypoints": {"type": "array", "items": _NUMBER}},
    ),
    "Model": _object(
        {
            "name": _TEXT,
            "version": _TEXT,
            "state": {"enum": [state.value for state in ModelState]},
            "task": {"enum": [task.value for task in Task]},
            "digest": _TEXT,
            "class_names": {"type": "array", "items": _TEXT},
            "default_variant": _TEXT,
            "variants": {
                "type": "array",
                "items": _object(
                    {"name": _TEXT, "streams": _COUNT, "size_hw": {"type": "array", "items": _COUNT}},
                ),
            },
            "error": {"type": ["object", "null"]},
        }
    ),
    "Error": _object(
        {
            "error": _object(
                {
                    "code": {"enum": _CODES},
                    "what": _TEXT,
                    "where": _TEXT_OR_NONE,
                    "expected": _TEXT_OR_NONE,
                    "got": _TEXT_OR_NONE,
                    "hint": _TEXT_OR_NONE,
                }
            )
        }
    ),
    "PlainError": _object({"error": _TEXT, "code": {"enum": _CODES}}),
}
"""Name -> schema."""
