# SPDX-License-Identifier: Apache-2.0
"""Times the stages of an image, and the layers of the model. Private to the room."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from statistics import median

from shipsight.build.progress import Progress
from shipsight.doctor.speed.case import Encoded, SpeedCase
from shipsight.doctor.speed.profile import ProfileEvidence
from shipsight.engines import EngineOptions, LayerTime
from shipsight.predictor import Predictor
from shipsight.vision import PredictSettings, decode_image, postprocess, prepare, to_tensor

__all__ = ["collect_profile", "run_stages"]

_FEWEST_RUNS = 3
_LAYER_RUNS = 8


def run_stages(
    predictor: Predictor, image: Encoded, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Runs an image through the whole pipeline, as the server does it.

    Args:
        predictor: an opened variant.
        image: as it arrives; it is read from its file where it has one.
        clock: monotonic seconds.

    Returns:
        Stage -> seconds, in order: `read` (where there is a file), `decode`, `prepare`, `infer`, `postprocess`, `serialise`.
    """
    marks = [("", clock())]
    content = image.content
    if image.path is not None:
        content = image.path.read_bytes()
        marks.append(("read", clock()))
    pixels = decode_image(content)
    marks.append(("decode", clock()))
    prepared, geometry = prepare(pixels, predictor.card.input)
    tensor = to_tensor(prepared, predictor.card.input, predictor.variant.layout)
    marks.append(("prepare", clock()))
    outputs = predictor.session.infer(tensor)
    marks.append(("infer", clock()))
    settings, form = PredictSettings(), predictor.variant.form
    found = postprocess(outputs, card=predictor.card, form=form, geometry=geometry, settings=settings)
    marks.append(("postprocess", clock()))
    json.dumps(predictor.gather(iter([found])).to_dict())
    marks.append(("serialise", clock()))
    return {name: end - begin for (_, begin), (name, end) in itertools.pairwise(marks)}


def collect_profile(case: SpeedCase, seconds: float, progress: Progress) -> ProfileEvidence:
    """Collects the evidence of a case.

    Args:
        case: what is examined.
        seconds: that it may take, roughly.
        progress: is told of parts.

    Raises:
        ShipsightError: the variant cannot be opened, or an image cannot be decoded.
    """
    taken: dict[str, list[float]] = {}
    runs = 0
    with Predictor(case.open(EngineOptions(threads=case.threads)), case.card, case.variant) as predictor:
        run_stages(predictor, case.encoded[0])
        end = time.perf_counter() + seconds * 0.7
        while runs < _FEWEST_RUNS or time.perf_counter() < end:
            for image in case.encoded:
                for stage, value in run_stages(predictor, image).items():
                    taken.setdefault(stage, []).append(value)
            runs += 1
    progress.part(2, 3)
    return ProfileEvidence(
        precision=case.variant.precision.value,
        stages_ms={stage: median(values) * 1e3 for stage, values in taken.items()},
        images=len(case.encoded),
        runs=runs,
        layers=_time_layers(case),
    )


def _time_layers(case: SpeedCase) -> tuple[LayerTime, ...]:
    with Predictor(case.open(EngineOptions(threads=case.threads, profile=True)), case.card, case.variant) as predictor:
        for number in range(_LAYER_RUNS):
            run_stages(predictor, case.encoded[number % len(case.encoded)])
        return predictor.session.layer_times()
