# SPDX-License-Identifier: Apache-2.0
"""A bundle's variant, opened: images in, predictions out.

Leaves to others: reading the bundle (`model.bundle`), pixels and tensors (`vision`), running the graph (`engines`).
Invariants: the files that are run are the bytes whose hashes were checked; `predict` may be called from several
threads; one bad image raises and disturbs no other call. Stable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from shipsight.engines import EngineOptions, EngineSession, get_engine
from shipsight.errors import ImageError, UsageError
from shipsight.model import Card, ImagePredictions, Predictions, Variant
from shipsight.model.bundle import Bundle, open_bundle
from shipsight.vision import (
    PredictSettings,
    TileSettings,
    decode_image,
    postprocess,
    predict_windows,
    prepare,
    to_tensor,
)

__all__ = ["ImageInput", "Predictor", "load"]

ImageInput = str | Path | bytes | NDArray[np.uint8]
"""A path, an encoded image, or pixels of shape (height, width, 3), uint8, RGB."""


class Predictor:
    """A variant, opened.

    Args:
        session: the opened engine; closed with the predictor.
        card: what the model is, at the variant's input size.
        variant: which variant the session runs.
    """

    def __init__(self, session: EngineSession, card: Card, variant: Variant) -> None:
        self.session = session
        self.card = card.with_size(variant.size_hw)
        self.variant = variant

    def predict(
        self,
        images: ImageInput | Sequence[ImageInput],
        *,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        classes: Sequence[int] | None = None,
        agnostic_nms: bool = False,
        tile: int | None = None,
        overlap: float = 0.2,
        whole: bool = True,
    ) -> Predictions:
        """Predicts on one image or several, in order.

        Args:
            images: a path, encoded bytes or (height, width, 3) uint8 RGB pixels, or a sequence of these.
            conf: least score, 0 to 1.
            iou: overlap above which the lower-scored box is suppressed, 0 to 1.
            max_det: most predictions an image.
            classes: class ids to keep, None for all.
            agnostic_nms: whether boxes of different classes suppress each other.
            tile: side in pixels of the windows that each image is cut into, None for not cutting (`vision.tiling`).
            overlap: share of a window that the next one covers too, 0 to 0.9.
            whole: whether the whole image is one more window.

        Raises:
            ImageError: an image cannot be used; it is named.
            UsageError: a threshold or class id is out of range.
        """
        settings = PredictSettings(
            conf=conf,
            iou=iou,
            max_det=max_det,
            classes=None if classes is None else tuple(classes),
            agnostic_nms=agnostic_nms,
        )
        unknown = [c for c in settings.classes or () if not 0 <= c < len(self.card.class_names)]
        if unknown:
            raise UsageError(
                "no such class", where="classes", expected=f"0 to {len(self.card.class_names) - 1}", got=unknown
            )
        tiles = None if tile is None else TileSettings(tile, overlap, whole)
        return self.gather(
            self.predict_one(source, pixels, settings, tiles=tiles) for source, pixels in _each_image(images)
        )

    def predict_one(
        self,
        source: str | None,
        image_rgb: NDArray[np.uint8],
        settings: PredictSettings,
        *,
        tiles: TileSettings | None = None,
    ) -> ImagePredictions:
        """Predicts on decoded pixels: (height, width, 3) uint8 RGB; window by window where `tiles` says so."""
        if tiles is not None:
            return predict_windows(
                image_rgb,
                lambda pixels: self.predict_one(source, pixels, settings),
                tiles=tiles,
                settings=settings,
                task=self.card.task,
            )
        prepared, geometry = prepare(image_rgb, self.card.input)
        outputs = self.session.infer(to_tensor(prepared, self.card.input, self.variant.layout))
        return postprocess(
            outputs, card=self.card, form=self.variant.form, geometry=geometry, settings=settings, source=source
        )

    def gather(self, images: Iterator[ImagePredictions]) -> Predictions:
        """Returns predictions of several images under this model's name, version and variant."""
        return Predictions(
            model=self.card.name, version=self.card.version, variant=self.variant.name, images=tuple(images)
        )

    def close(self) -> None:
        """Gives back what the engine holds."""
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(
    path: str | Path | Bundle, *, variant: str | None = None, device: str = "cpu", threads: int | None = None
) -> Predictor:
    """Opens a variant of a bundle.

    Args:
        path: a bundle: folder, zip file, or already opened.
        variant: name of the variant; None for the bundle's default.
        device: `cpu` or `cuda[:index]`.
        threads: of the engine; None for one per core.

    Raises:
        TamperedError: a file differs from what the manifest promises.
        UsageError: the bundle has no such variant.
        EnvironmentLackError: the engine, device or precision is not available here.
    """
    bundle = path if isinstance(path, Bundle) else open_bundle(Path(path))
    chosen = bundle.default_variant if variant is None else bundle.variant(variant)
    session = get_engine(chosen.engine).open(
        bundle.variant_files(chosen.name), chosen, EngineOptions(device=device, threads=threads)
    )
    return Predictor(session, bundle.card, chosen)


def _each_image(images: ImageInput | Sequence[ImageInput]) -> Iterator[tuple[str | None, NDArray[np.uint8]]]:
    if isinstance(images, str | Path | bytes | np.ndarray):
        images = [images]
    for image in images:
        if isinstance(image, np.ndarray):
            yield None, _check_pixels(image)
        elif isinstance(image, bytes):
            yield None, decode_image(image)
        elif isinstance(image, str | Path):
            yield str(image), decode_image(Path(image))
        else:
            raise UsageError("not an image", expected="path, bytes or uint8 array", got=type(image).__name__)


def _check_pixels(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ImageError(
            "pixels have another shape or type",
            expected="(height, width, 3) uint8, RGB",
            got=f"{pixels.shape} {pixels.dtype}",
        )
    return pixels
