# SPDX-License-Identifier: Apache-2.0
"""What a report is made from: plain mappings in the shape in which the bundle stores them.

Leaves to others: measuring (`build.measure`), storing (`model.bundle`), drawing predictions on images (`vision`). Reads
nothing and asks nobody: every number on the page stands in this value. Unstable.

Every mapping may be empty, which means "not measured"; unknown keys are ignored, since a report is for people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ReportData", "WorstImage"]


@dataclass(frozen=True)
class WorstImage:
    """One image on which the default variant and the source differ most, drawn three times.

    Attributes:
        name: of the image.
        note: what is wrong with it, one sentence.
        labels_jpeg: the image with its labels, a JPEG file.
        source_jpeg: the image with the source model's predictions, a JPEG file.
        variant_jpeg: the image with the default variant's predictions, a JPEG file.
    """

    name: str
    note: str
    labels_jpeg: bytes
    source_jpeg: bytes
    variant_jpeg: bytes


@dataclass(frozen=True)
class ReportData:
    """Everything that `report.html`, `MODEL_CARD.md` and `sbom.cdx.json` say.

    Attributes:
        card: `Card.to_dict()`.
        variants: one mapping a variant that was measured, as in `build --json`: `name, engine, precision, imgsz,
            map50_95, map50` (`top1, top5` for classify), `latency_ms {p50, p95, p99}, engine_ms, throughput_ips,
            size_mb, memory_mb, cold_start_ms, is_steady, int8_layers [done, total], float_type, is_default,
            is_reference, kept, on_front, outcome, drop {value, low, high}, threshold, dropped_because`.
        reference: `proof/reference.json`: `data {name, split, images}`, `sets {calibration, guard, report}`,
            `max_drop`, `source` and `variants {name: ...}`, each `map50_95, map50, by_size {small, medium, large},
            by_class {name: {map50_95, map50, labels}}, threshold {conf, f1}`.
        measurements: `proof/measurements.json`: `machine {...}` and `threads` are shown with the environment; the
            variants' own numbers are taken from `variants`.
        training_stats: `proof/training-stats.json`: `images`, `histograms {name: {edges, counts, unit}}`,
            `classes {name: labels}`.
        environment: `proof/environment.json`: mappings of mappings, lists and scalars.
        parity: `variants {name: {groups [{name, sqnr_db, cosine, max_error}], predictions {expected, matched,
            worst_score, worst_box_px}, passed, gate}}`.
        guard_steps: one mapping a step of the INT8 guard: `variant, step, returned [layer or group names],
            accuracy, drop {value, low, high}, integer_convolutions, convolutions, outcome`.
        worst_images: worst first.
        warnings: `{code, text}` each.
        default_reason: why the default variant was chosen, one sentence.
        images_measured: number of images in the report set.
        shareable: whether pictures from the user's data may be shown.
        files: path in the bundle -> (size in bytes, SHA-256 in lower-case hexadecimal); for the bill of materials.
    """

    card: Mapping[str, Any]
    variants: Sequence[Mapping[str, Any]] = ()
    reference: Mapping[str, Any] = field(default_factory=dict)
    measurements: Mapping[str, Any] = field(default_factory=dict)
    training_stats: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    guard_steps: Sequence[Mapping[str, Any]] = ()
    worst_images: Sequence[WorstImage] = ()
    warnings: Sequence[Mapping[str, str]] = ()
    default_reason: str = ""
    images_measured: int = 0
    shareable: bool = True
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """Key of the accuracy that decides: `top1` for classify, else `map50_95`."""
        return "top1" if self.card.get("task") == "classify" else "map50_95"

    @property
    def second_metric(self) -> str:
        """Key of the accuracy shown beside it: `top5` for classify, else `map50`."""
        return "top5" if self.card.get("task") == "classify" else "map50"

    @property
    def source_accuracy(self) -> float | None:
        """Accuracy of the source model, None where it was not measured."""
        value = (self.reference.get("source") or {}).get(self.metric)
        return None if value is None else float(value)

    @property
    def max_drop(self) -> float | None:
        """Largest drop of accuracy that was allowed, absolute."""
        value = self.reference.get("max_drop")
        return None if value is None else float(value)

    @property
    def default_variant(self) -> Mapping[str, Any] | None:
        """The variant that is opened when none is named."""
        return next((variant for variant in self.variants if variant.get("is_default")), None)
