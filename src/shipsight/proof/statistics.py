# SPDX-License-Identifier: Apache-2.0
"""Statistics of the training images: what production is compared with later. Holds `proof/training-stats.json`.

Leaves to others: which images (the pipeline), comparing (`doctor`, `monitor`). Invariants: the same images, labels and
model give the same bytes; images are taken one at a time, none is kept; no pixel, name or path of an image is written.
Stable; described in `docs/formats/bundle.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.model import Card, OutputForm, TensorLayout
from shipsight.proof.embedding import find_embedding, pool
from shipsight.proof.image_measures import MEASURES, estimate_jpeg_quality, measure_image
from shipsight.proof.layers import import_onnx, read_tensors
from shipsight.proof.subject import views
from shipsight.vision import Geometry, decode_image, prepare, to_tensor

__all__ = ["Features", "Seen", "StatisticsCollector", "TrainingImage", "collect_statistics", "summarize"]

_BINS = 24
_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


@dataclass(frozen=True, eq=False)
class TrainingImage:
    """One training image with its labels.

    Attributes:
        path: of the image file.
        class_ids: one a label; empty where nothing is labelled.
        sizes_wh: (N, 2) width and height of each label as shares of the image's, 0 to 1; None for classify.
    """

    path: Path
    class_ids: Sequence[int] = ()
    sizes_wh: NDArray[np.floating] | None = None


@dataclass(frozen=True, eq=False)
class Seen:
    """What the model makes of one image.

    Attributes:
        vector: (D,) float64, D at most 64: the last backbone feature map, pooled.
        outputs: name -> raw output, batch 1.
        geometry: where the image lies in the input.
        tensor: (1, 3, h, w) float32, what was fed.
    """

    vector: NDArray[np.float64]
    outputs: Mapping[str, NDArray[np.float32]]
    geometry: Geometry
    tensor: NDArray[np.float32]


class Features:
    """The model's own view of an image: its last backbone feature map, pooled (`embedding`), and its outputs. Needs `onnx`.

    Args:
        reference_onnx: the float reference, float input, raw outputs.
        card: of the model, with the reference's input size.

    Raises:
        MissingDependencyError: `onnx` or ONNX Runtime is not installed.
    """

    def __init__(self, reference_onnx: bytes, card: Card) -> None:
        graph = import_onnx().load_from_string(reference_onnx).graph
        self.tensor = find_embedding(graph)
        self._outputs = [output.name for output in graph.output]
        self._run = read_tensors(reference_onnx, [*self._outputs, self.tensor])
        self._card = card

    def of(self, image_rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """Returns the vector (D,), D at most 64, and tables of tensors: `input` (positions, 3) and the outputs'."""
        seen = self.see(image_rgb)
        outputs = views(seen.outputs, self._card, OutputForm.RAW)
        return seen.vector, {"input": seen.tensor[0].reshape(3, -1).T, **outputs}

    def see(self, image_rgb: NDArray[np.uint8]) -> Seen:
        """Returns what the model makes of an image, (H, W, 3) uint8 RGB."""
        prepared, geometry = prepare(image_rgb, self._card.input)
        tensor = to_tensor(prepared, self._card.input, TensorLayout.FLOAT_NCHW)
        found = self._run(tensor)
        return Seen(pool(found[self.tensor][0]), {name: found[name] for name in self._outputs}, geometry, tensor)


@dataclass(eq=False)
class StatisticsCollector:
    """Takes images one at a time and summarizes them.

    Attributes:
        class_names: of the model; position = class id.
        features: the model's view, None leaves embedding and tensors out.
        feature_limit: most images that the model looks at, the first ones.
    """

    class_names: Sequence[str]
    features: Features | None = None
    feature_limit: int = 200
    _values: dict[str, list[float]] = field(default_factory=dict)
    _labels: dict[int, int] = field(default_factory=dict)
    _vectors: list[NDArray[np.float64]] = field(default_factory=list)
    _tensors: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    _count: int = 0

    def add(self, data: bytes, image_rgb: NDArray[np.uint8], labels: TrainingImage | None = None) -> None:
        """Takes one image.

        Args:
            data: the file, for its compression.
            image_rgb: the same, decoded: (H, W, 3) uint8 RGB.
            labels: what is labelled in it.
        """
        self._count += 1
        for name, value in measure_image(image_rgb).items():
            self._add(name, value)
        quality = estimate_jpeg_quality(data)
        if quality is not None:
            self._add("jpeg_quality", quality)
        if labels is not None:
            self._add_labels(labels)
        if self.features is not None and len(self._vectors) < self.feature_limit:
            vector, tables = self.features.of(image_rgb)
            self._vectors.append(vector)
            for name, table in tables.items():
                both = np.stack((table.mean(axis=0, dtype=np.float64), (table.astype(np.float64) ** 2).mean(axis=0)))
                self._tensors.setdefault(name, []).append(both)
            if "scores" in tables:
                self._add("best_score", float(tables["scores"].max()))

    def _add(self, name: str, value: float) -> None:
        self._values.setdefault(name, []).append(float(value))

    def _add_labels(self, labels: TrainingImage) -> None:
        self._add("objects", float(len(labels.class_ids)))
        for class_id in labels.class_ids:
            self._labels[int(class_id)] = self._labels.get(int(class_id), 0) + 1
        if labels.sizes_wh is not None:
            for width, height in np.asarray(labels.sizes_wh, dtype=np.float64).reshape(-1, 2):
                self._add("object_size", float(np.sqrt(width * height)))
                if height > 0 and width > 0:
                    self._add("object_aspect", float(width / height))

    def to_dict(self, *, available: int | None = None, seed: int | None = None) -> dict[str, Any]:
        """Returns what `proof/training-stats.json` holds.

        Args:
            available: how many images there were to choose from.
            seed: of the choice.
        """
        units = {**MEASURES, **_UNITS}
        return {
            "images": self._count,
            "available": self._count if available is None else available,
            "seed": seed,
            "histograms": {name: _histogram(values, units[name]) for name, values in sorted(self._values.items())},
            "quantiles": {name: summarize(values) for name, values in sorted(self._values.items())},
            "classes": {self._name(one): self._labels[one] for one in sorted(self._labels)},
            "embedding": self._embedding(),
            "tensors": {name: _tensor_summary(tables) for name, tables in sorted(self._tensors.items())},
        }

    def _name(self, class_id: int) -> str:
        return self.class_names[class_id] if class_id < len(self.class_names) else str(class_id)

    def _embedding(self) -> dict[str, Any] | None:
        if self.features is None or not self._vectors:
            return None
        vectors = np.stack(self._vectors)
        centred = vectors - vectors.mean(axis=0)
        covariance = centred.T @ centred / max(len(vectors) - 1, 1)
        return {
            "tensor": self.features.tensor,
            "images": len(vectors),
            "dimensions": vectors.shape[1],
            "mean": _short(vectors.mean(axis=0)),
            "covariance": [_short(row) for row in covariance],
        }


_UNITS = {
    "jpeg_quality": "1 to 100, estimated",
    "objects": "labels an image",
    "object_size": "square root of the area's share of the image",
    "object_aspect": "width / height, as shares of the image's sides",
    "best_score": "highest score in the image, 0 to 1",
}


def collect_statistics(
    images: Sequence[TrainingImage],
    card: Card,
    *,
    reference_onnx: bytes | None = None,
    limit: int = 500,
    feature_limit: int = 200,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Describes training images.

    Args:
        images: all there are.
        card: of the model, with the input size of the reference.
        reference_onnx: the float reference; None leaves embedding and tensors out.
        limit: most images to look at, chosen by the seed.
        feature_limit: most of them that the model looks at.
        seed: of the choice.
        progress: called with images done and images in all.

    Returns:
        What `proof/training-stats.json` holds.

    Raises:
        ImageError: an image cannot be read.
        MissingDependencyError: `onnx` or ONNX Runtime is not installed.
    """
    order = np.random.RandomState(seed % 2**32).permutation(len(images))[:limit].tolist()
    features = None if reference_onnx is None else Features(reference_onnx, card)
    collector = StatisticsCollector(card.class_names, features, feature_limit)
    for number, index in enumerate(order, start=1):
        one = images[index]
        data = one.path.read_bytes()
        collector.add(data, decode_image(data), one)
        if progress is not None:
            progress(number, len(order))
    return collector.to_dict(available=len(images), seed=seed)


def summarize(values: Sequence[float]) -> dict[str, float | int]:
    """Returns count, mean, standard deviation and quantiles (`q00` to `q100`) of numbers, one and more."""
    array = np.asarray(values, dtype=np.float64)
    quantiles = np.quantile(array, _QUANTILES)
    named = {f"q{round(share * 100):02d}": value for share, value in zip(_QUANTILES, _short(quantiles), strict=True)}
    mean, spread = _short(np.array([array.mean(), array.std()]))
    return {"count": len(array), "mean": mean, "std": spread, **named}


def _histogram(values: Sequence[float], unit: str) -> dict[str, Any]:
    array = np.asarray(values, dtype=np.float64)
    low, high = float(array.min()), float(array.max())
    if high - low < 1e-9:  # one value: a bin around it
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(array, bins=_BINS, range=(low, high))
    return {"unit": unit, "edges": _short(edges), "counts": counts.tolist()}


def _tensor_summary(tables: Sequence[NDArray[np.float64]]) -> Mapping[str, Any]:
    mean, square = np.stack(tables).mean(axis=0)
    return {"mean": _short(mean), "std": _short(np.sqrt(np.maximum(square - mean**2, 0)))}


def _short(values: NDArray[np.float64]) -> list[float]:
    """Rounds to seven significant digits, so that the last bits of a sum do not show."""
    return [float(f"{value:.7g}") for value in values.tolist()]
