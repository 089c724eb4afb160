# SPDX-License-Identifier: Apache-2.0
"""Which form of a graph is faster, how fast a variant is, whether int8 pays: questions to the clock.

Comparisons that decide something are made in alternating rounds of one run, since a shared machine drifts by more than
the differences. Private to `build`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.measure import ColdStart, SpeedSubject, alternate, measure_cold_start, measure_speed
from shipsight.build.measuring import open_variant
from shipsight.engines import EngineOptions, EngineSession, get_engine
from shipsight.errors import InternalError
from shipsight.model import Card, ImagePredictions, Variant
from shipsight.vision import PredictSettings, postprocess, prepare, to_tensor

__all__ = ["are_equal", "compare_latency", "predict_pixels", "time_variants"]

Pixels = NDArray[np.uint8]
Form = tuple[Variant, Mapping[str, bytes]]
_SCORE_TOLERANCE = 1e-3
_BOX_TOLERANCE_PX = 0.5


def predict_pixels(
    session: EngineSession, card: Card, variant: Variant, image_rgb: Pixels, settings: PredictSettings
) -> ImagePredictions:
    """Predicts on decoded pixels, (height, width, 3) uint8 RGB."""
    sized = card.with_size(variant.size_hw)
    prepared, geometry = prepare(image_rgb, sized.input)
    outputs = session.infer(to_tensor(prepared, sized.input, variant.layout))
    return postprocess(outputs, card=sized, form=variant.form, geometry=geometry, settings=settings)


def time_variants(
    forms: Sequence[Form],
    card: Card,
    image_rgb: Pixels,
    *,
    threads: int | None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Measures latency in alternating rounds, throughput, cold start, memory and size of variants.

    Args:
        forms: variants with their files; all are open at once.
        card: what the model is.
        image_rgb: image to predict, (height, width, 3) uint8 RGB.
        threads: of the engines, None leaves the choice to them.
        on_progress: called with parts done and parts in all.

    Returns:
        By name of the variant: `Speed.to_dict()`, cold start, memory and size included.
    """
    settings = PredictSettings()

    def subject(variant: Variant, files: Mapping[str, bytes]) -> SpeedSubject:
        return SpeedSubject(
            open_session=lambda options: get_engine(variant.engine).open(files, variant, options),
            predict_one=lambda session: predict_pixels(session, card, variant, image_rgb, settings),
        )

    speeds = measure_speed(
        {variant.name: subject(variant, files) for variant, files in forms}, threads=threads, on_progress=on_progress
    )
    return {
        variant.name: {
            **speeds[variant.name].with_cold_start(_cold_start(variant, files, card, image_rgb, threads)).to_dict(),
            "size_mb": sum(map(len, files.values())) / 1e6,
        }
        for variant, files in forms
    }


def _cold_start(
    variant: Variant, files: Mapping[str, bytes], card: Card, image_rgb: Pixels, threads: int | None
) -> ColdStart:
    with tempfile.TemporaryDirectory(prefix="shipsight-cold-") as name:
        for file, data in files.items():
            (Path(name) / file).write_bytes(data)
        # One level above the variant's files: an engine opens the whole folder.
        with tempfile.NamedTemporaryFile(prefix="shipsight-cold-", suffix=".png") as image:
            image.write(_encode_png(image_rgb))
            image.flush()
            return measure_cold_start(
                Path(name), variant, card, Path(image.name), options=EngineOptions(threads=threads)
            )


def compare_latency(
    candidates: Sequence[Form], card: Card, image_rgb: Pixels, *, threads: int | None
) -> dict[str, float]:
    """Returns the median milliseconds from decoded image to predictions by variant name, in alternating rounds."""
    settings = PredictSettings()
    sessions = {variant.name: open_variant(files, variant, threads=threads) for variant, files in candidates}
    try:
        calls = {
            variant.name: lambda v=variant: predict_pixels(sessions[v.name], card, v, image_rgb, settings)
            for variant, _ in candidates
        }
        return dict(alternate(calls, rounds=6, runs=3).medians_ms)
    finally:
        for session in sessions.values():
            session.close()


def _encode_png(image_rgb: Pixels) -> bytes:
    import cv2

    written, data = cv2.imencode(".png", image_rgb[..., ::-1])
    if not written:
        raise InternalError("OpenCV could not encode a PNG", got=image_rgb.shape)
    return bytes(data.tobytes())


def are_equal(a: ImagePredictions, b: ImagePredictions) -> bool:
    """Tells whether two variants say the same of an image, up to the noise of float arithmetic."""
    if len(a) != len(b):
        return False
    order_a, order_b = _stable_order(a), _stable_order(b)
    if not np.array_equal(a.class_ids[order_a], b.class_ids[order_b]):
        return False
    if np.abs(a.scores[order_a] - b.scores[order_b]).max(initial=0) > _SCORE_TOLERANCE:
        return False
    pairs = ((a.boxes_xyxy, b.boxes_xyxy), (a.corners_xy, b.corners_xy))
    return all(
        one is None or other is None or np.abs(one[order_a] - other[order_b]).max(initial=0) <= _BOX_TOLERANCE_PX
        for one, other in pairs
    )


def _stable_order(one: ImagePredictions) -> NDArray[np.int64]:
    """Orders predictions by class and place, since equal scores come in no fixed order."""
    places = one.boxes_xyxy if one.boxes_xyxy is not None else one.corners_xy
    if places is None:
        return np.arange(len(one))
    flat = np.round(places.reshape(len(one), -1)[:, :2] if len(one) else np.zeros((0, 2)))
    return np.lexsort((flat[:, 1], flat[:, 0], one.class_ids))
