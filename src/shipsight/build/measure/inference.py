# SPDX-License-Identifier: Apache-2.0
"""Predictions of an opened variant over many samples.

What for: the road from image files to predictions when accuracy is measured. Leaves to others: decoding, fitting and
postprocessing (`vision`), the engine, the numbers (`accuracy`). Invariants: predictions come in the order of the
samples and do not depend on how many are in flight; at most `in_flight` + 1 images are held, apart from what a cache
holds. Stable.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from shipsight.build.measure.dataset import Sample
from shipsight.engines.contract import EngineSession
from shipsight.errors import UsageError
from shipsight.model import Card, Head, ImagePredictions, InputContract, OutputForm, Variant
from shipsight.vision import Geometry, PredictSettings, decode_image, postprocess, prepare, to_tensor

__all__ = ["PreparedImages", "evaluation_settings", "iterate_predictions", "predict_samples"]

_MULTI_LABEL_HEADS = (Head.YOLOV8, Head.YOLOX)

Prepared = tuple[NDArray[np.uint8], Geometry]


def evaluation_settings(card: Card, form: OutputForm, *, multi_label: bool = True) -> PredictSettings:
    """Returns what mAP is measured with: confidence 0.001, IoU 0.7, at most 300 predictions an image.

    Args:
        card: of the model.
        form: of the variant.
        multi_label: whether one anchor may give several classes, where the model's outputs allow it: raw outputs of
            the heads `yolov8` and `yolox`. It is worth up to 0.007 mAP, so compare variants with the same choice.
    """
    possible = form is OutputForm.RAW and card.output.head in _MULTI_LABEL_HEADS
    return PredictSettings(conf=0.001, iou=0.7, max_det=300, multi_label=multi_label and possible)


class PreparedImages:
    """Remembers decoded and fitted images, so that variants of one size share the work; bounded, safe with threads.

    Holds uint8 arrays: 1.2 MB an image at 640 x 640. Over the limit the image that was least recently used goes.
    """

    def __init__(self, *, limit_bytes: int = 1 << 29) -> None:
        """Starts empty.

        Args:
            limit_bytes: most bytes held, 0 and more (default 512 MiB: 436 images of 640 x 640).

        Raises:
            UsageError: the limit is negative.
        """
        if limit_bytes < 0:
            raise UsageError("limit out of range", where="limit_bytes", expected="0 or more", got=limit_bytes)
        self._limit_bytes = limit_bytes
        self._held: OrderedDict[tuple[Path, InputContract], Prepared] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of pixels that are held now."""
        return self._bytes

    def get(self, image: Path, contract: InputContract) -> Prepared:
        """Returns the fitted image and its geometry, decoding it if it is not held.

        Args:
            image: path of the image file.
            contract: what the model must be fed, size included.

        Returns:
            (height, width, 3) uint8 RGB, not to be written to, and the geometry.

        Raises:
            ImageError: the image cannot be decoded.
        """
        key = image, contract
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        prepared = prepare(decode_image(image), contract)
        with self._lock:
            if key not in self._held and prepared[0].nbytes <= self._limit_bytes:
                self._held[key] = prepared
                self._bytes += prepared[0].nbytes
                while self._bytes > self._limit_bytes:
                    _, (oldest, _) = self._held.popitem(last=False)
                    self._bytes -= oldest.nbytes
        return prepared


def iterate_predictions(
    session: EngineSession,
    card: Card,
    variant: Variant,
    samples: Sequence[Sample],
    settings: PredictSettings,
    *,
    prepared_cache: PreparedImages | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    in_flight: int = 2,
) -> Iterator[ImagePredictions]:
    """Yields the predictions of each sample, in order.

    Args:
        session: opened variant; its tensor holds one image.
        card: of the model; its input size is replaced by the variant's.
        variant: says size, layout and form.
        samples: to predict.
        settings: thresholds; mAP wants `evaluation_settings`.
        prepared_cache: decoded images, shared between variants; None decodes each image once here.
        on_progress: called with (images done, images in all) after each.
        in_flight: images worked on at the same time, 1 to 64; one is decoded while another runs.

    Raises:
        ImageError: an image cannot be decoded.
        UsageError: `in_flight` is out of range.
    """
    if not 1 <= in_flight <= 64:
        raise UsageError("images in flight out of range", where="in_flight", expected="1 to 64", got=in_flight)
    sized = card.with_size(variant.size_hw)
    cache = PreparedImages(limit_bytes=0) if prepared_cache is None else prepared_cache

    def predict(sample: Sample) -> ImagePredictions:
        pixels, geometry = cache.get(sample.image, sized.input)
        tensor = to_tensor(pixels, sized.input, variant.layout)
        outputs = session.infer(tensor)
        return postprocess(
            outputs, card=sized, form=variant.form, geometry=geometry, settings=settings, source=str(sample.image)
        )

    pending: deque[Future[ImagePredictions]] = deque()
    remaining = iter(samples)
    done = 0
    with ThreadPoolExecutor(max_workers=in_flight, thread_name_prefix="shipsight-measure") as pool:
        try:
            for sample in remaining:
                pending.append(pool.submit(predict, sample))
                if len(pending) <= in_flight:
                    continue
                yield pending.popleft().result()
                done += 1
                if on_progress is not None:
                    on_progress(done, len(samples))
            while pending:
                yield pending.popleft().result()
                done += 1
                if on_progress is not None:
                    on_progress(done, len(samples))
        finally:
            for future in pending:
                future.cancel()


def predict_samples(
    session: EngineSession,
    card: Card,
    variant: Variant,
    samples: Sequence[Sample],
    settings: PredictSettings,
    *,
    prepared_cache: PreparedImages | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    in_flight: int = 2,
) -> list[ImagePredictions]:
    """Returns the predictions of all samples, in order; arguments and errors as `iterate_predictions`.

    For segment prefer `iterate_predictions` into `evaluate`: 300 masks of one 640 x 480 image take 92 MB.
    """
    return list(
        iterate_predictions(
            session,
            card,
            variant,
            samples,
            settings,
            prepared_cache=prepared_cache,
            on_progress=on_progress,
            in_flight=in_flight,
        )
    )
