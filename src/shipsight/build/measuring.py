# SPDX-License-Identifier: Apache-2.0
"""A variant's accuracy: predictions on one set of samples, evaluated and compared with the source's on the same.

Two definitions are measured (`docs/accuracy.md`): one class an anchor, as `predict` answers, for every variant and for
every difference between variants; several classes an anchor for raw outputs only, as Ultralytics' `val` measures.
Private to `build`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shipsight.build.measure import (
    Accuracy,
    PreparedImages,
    Sample,
    evaluate,
    evaluation_settings,
    predict_samples,
)
from shipsight.engines import EngineOptions, EngineSession, VariantFiles, get_engine
from shipsight.model import Card, Head, OutputForm, Task, Variant

__all__ = ["Evaluator", "metrics_of", "open_variant"]

_MULTI_LABEL_HEADS = (Head.YOLOV8, Head.YOLOX)


def open_variant(files: VariantFiles, variant: Variant, *, threads: int | None, requests: int = 1) -> EngineSession:
    """Opens a variant on the CPU."""
    return get_engine(variant.engine).open(files, variant, EngineOptions(threads=threads, requests=requests))


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Measures accuracy on one set of samples.

    Attributes:
        card: what the model is.
        samples: what is measured on.
        cache: images brought to the input size, shared between variants of one size.
    """

    card: Card
    samples: Sequence[Sample]
    cache: PreparedImages = field(default_factory=PreparedImages)

    def accuracy(
        self,
        session: EngineSession,
        variant: Variant,
        *,
        multi_label: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Accuracy:
        """Returns the accuracy of an opened variant.

        Args:
            session: runs it.
            variant: says what it is fed and what leaves it.
            multi_label: whether one anchor may give several classes; needs raw outputs.
            on_progress: called with (images done, images in all).
        """
        predictions = predict_samples(
            session,
            self.card,
            variant,
            self.samples,
            evaluation_settings(self.card, variant.form, multi_label=multi_label),
            prepared_cache=self.cache,
            on_progress=on_progress,
        )
        return evaluate(predictions, self.samples, task=self.card.task, class_names=self.card.class_names)

    def has_multi_label(self, variant: Variant) -> bool:
        """Tells whether several classes an anchor can be measured of a variant."""
        return (
            self.card.task is not Task.CLASSIFY
            and variant.form is OutputForm.RAW
            and self.card.output.head in _MULTI_LABEL_HEADS
        )


def metrics_of(accuracy: Accuracy, multi_label: Accuracy | None = None) -> Mapping[str, float]:
    """Returns metrics by name: `map50_95, map50` (and `..._multilabel`), or `top1, top5`."""
    names = ("top1", "top5") if accuracy.task is Task.CLASSIFY else ("map50_95", "map50")
    found = {name: _required(accuracy, name) for name in names}
    if multi_label is not None:
        found |= {f"{name}_multilabel": _required(multi_label, name) for name in names}
    return found


def _required(accuracy: Accuracy, name: str) -> float:
    value = getattr(accuracy, name)
    # A set without a single label has no mAP: COCO writes -1, and "no label" is not "no accuracy".
    return -1.0 if value is None else float(value)
