# SPDX-License-Identifier: Apache-2.0
"""Times production's images against forms that are cheaper to decode. Private to the room."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
from numpy.typing import NDArray

from shipsight.build.progress import Progress
from shipsight.doctor.speed.case import Encoded, SpeedCase, encode_jpeg
from shipsight.doctor.speed.images import ImagesEvidence, OtherForm
from shipsight.doctor.speed.racing import cycle, race
from shipsight.engines import EngineOptions
from shipsight.predictor import Predictor
from shipsight.vision import PredictSettings, decode_image, prepare
from shipsight.vision.image_header import ImageFormat, ImageHeader, read_header

__all__ = ["collect_images"]

_LEAST_FACTOR = 2.0
"""Below, libjpeg's reduced decoding may take longer than the full one."""
_SLOW = frozenset({ImageFormat.PNG, ImageFormat.WEBP, ImageFormat.BMP})


@dataclass(frozen=True)
class _Seen:
    """An image with its header, and the size at which it fills the model's input."""

    image: Encoded
    header: ImageHeader
    needed_hw: tuple[int, int]

    @property
    def is_reducible(self) -> bool:
        """Whether it is a JPEG at least twice as large as it need be on both sides."""
        # A stored height may be the width of the upright picture: the longer need holds for both.
        need = max(self.needed_hw)
        is_jpeg = self.header.format is ImageFormat.JPEG and self.header.channels == 3
        return is_jpeg and min(self.header.height, self.header.width) >= _LEAST_FACTOR * need


def collect_images(case: SpeedCase, seconds: float, progress: Progress) -> ImagesEvidence:
    """Collects the evidence of a case.

    Args:
        case: what is examined.
        seconds: that it may take, roughly.
        progress: is told of parts.

    Raises:
        ImageError: an image cannot be decoded.
        ShipsightError: the variant cannot be opened.
    """
    sized = case.card.with_size(case.variant.size_hw)
    seen, decode_s = [], []
    for image in case.encoded:
        header = read_header(image.content, str(image.path))
        begin = time.perf_counter()
        pixels = decode_image(image.content)
        decode_s.append(time.perf_counter() - begin)
        _, geometry = prepare(pixels, sized.input)
        scale_x, scale_y = geometry.scale_xy
        needed = round(pixels.shape[0] * scale_y), round(pixels.shape[1] * scale_x)
        seen.append(_Seen(image, header, needed))
    with Predictor(case.open(EngineOptions(threads=case.threads)), case.card, case.variant) as predictor:
        large = [one for one in seen if one.is_reducible]
        reduced = None if not large else _compare_reduced(predictor, large, seconds / 2)
        progress.part(1, 2)
        slow = [one for one in seen if one.header.format in _SLOW]
        as_jpeg = None if not slow else _compare_jpeg(predictor, slow, seconds / 2)
    height, width = case.variant.size_hw
    return ImagesEvidence(
        images=len(seen),
        formats=Counter(one.header.format.value for one in seen),
        megapixels=median(one.header.width * one.header.height for one in seen) / 1e6,
        input_megapixels=height * width / 1e6,
        decode_ms=median(decode_s) * 1e3,
        reduced=reduced,
        as_jpeg=as_jpeg,
    )


def _compare_reduced(predictor: Predictor, large: Sequence[_Seen], seconds: float) -> OtherForm:
    whole = cycle([partial(_answer, predictor, one.image.content) for one in large])
    parts = cycle([partial(_answer_reduced, predictor, one) for one in large])
    found = race({"whole": whole, "reduced": parts}, seconds=seconds, clock=time.perf_counter)
    return OtherForm(len(large), found.values["whole"], found.values["reduced"], found.gains["reduced"])


def _compare_jpeg(predictor: Predictor, slow: Sequence[_Seen], seconds: float) -> OtherForm:
    jpegs = [encode_jpeg(decode_image(one.image.content)) for one in slow]
    now = cycle([partial(_answer, predictor, one.image.content) for one in slow])
    then = cycle([partial(_answer, predictor, one) for one in jpegs])
    found = race({"now": now, "jpeg": then}, seconds=seconds, clock=time.perf_counter)
    return OtherForm(len(slow), found.values["now"], found.values["jpeg"], found.gains["jpeg"])


def _answer(predictor: Predictor, content: bytes) -> object:
    return predictor.predict_one(None, decode_image(content), PredictSettings())


def _answer_reduced(predictor: Predictor, one: _Seen) -> object:
    import simplejpeg

    need = max(one.needed_hw)
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
        one.image.content, "RGB", min_height=need, min_width=need, min_factor=_LEAST_FACTOR
    )
    return predictor.predict_one(None, pixels, PredictSettings())
