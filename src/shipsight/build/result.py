# SPDX-License-Identifier: Apache-2.0
"""What a build found out: one record a variant, and the whole.

Invariant: `to_dict` is the stable shape of `shipsight build --json` (`docs/commands/build.md`). Stable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shipsight.model import Variant
from shipsight.model.warning import BuildWarning

__all__ = ["BuildResult", "VariantResult"]


@dataclass(frozen=True)
class VariantResult:
    """One variant, measured.

    Attributes:
        variant: which.
        accuracy: metrics by name (`map50_95`, `map50`, or `top1`, `top5`), None where not measured.
        drop: paired interval of source minus variant, keys `value, low, high`, None where not measured.
        outcome: `passed`, `failed` or `undecided`; `reference` for the reference; `not measured` without data.
        threshold: confidence of best F1 on the report images, None where not measured.
        speed: keys `latency_ms`, `engine_ms` (each p50, p95, p99), `throughput_ips`, `cold_start_ms`, `memory_mb`,
            `is_steady`.
        size_mb: of its files, 10^6 bytes.
        int8_layers: (integer convolutions, all convolutions) as executed here.
        float_type: what its other layers run in here.
        kept: whether it is in the bundle.
        on_front: whether no other variant is both faster and more accurate.
        is_default: whether it answers when nobody asks for another.
        dropped_because: why it is not kept, empty where it is.
        float_ratio: of int8 variants, latency of the fastest float variant of the same engine and size over this one's,
            in alternating rounds of one run; above 1 where int8 is faster. None for float variants.
    """

    variant: Variant
    accuracy: Mapping[str, float] | None
    drop: Mapping[str, float] | None
    outcome: str
    threshold: float | None
    speed: Mapping[str, Any]
    size_mb: float
    int8_layers: tuple[int, int]
    float_type: str
    kept: bool = True
    on_front: bool = False
    is_default: bool = False
    dropped_because: str = ""
    float_ratio: float | None = None

    @property
    def latency_ms(self) -> float:
        """Median of decoded image to predictions, in milliseconds."""
        return float(self.speed["latency_ms"]["p50"])

    @property
    def main_metric(self) -> float | None:
        """mAP50-95, or top-1 for classification; None where not measured."""
        if self.accuracy is None:
            return None
        return self.accuracy["top1"] if "top1" in self.accuracy else self.accuracy["map50_95"]

    def to_dict(self) -> dict[str, Any]:
        """Returns one entry of `variants`; metrics that were not measured are None."""
        metrics = dict(self.accuracy) if self.accuracy else {"map50_95": None, "map50": None}
        return {
            "name": self.variant.name,
            "engine": self.variant.engine,
            "precision": self.variant.precision.value,
            "imgsz": self.variant.imgsz,
            **metrics,
            "latency_ms": dict(self.speed["latency_ms"]),
            "engine_ms": dict(self.speed["engine_ms"]),
            "throughput_ips": self.speed["throughput_ips"],
            "cold_start_ms": self.speed["cold_start_ms"],
            "is_steady": self.speed["is_steady"],
            "size_mb": self.size_mb,
            "memory_mb": self.speed["memory_mb"],
            "int8_layers": list(self.int8_layers),
            "float_type": self.float_type,
            "is_default": self.is_default,
            "is_reference": self.variant.is_reference,
            "kept": self.kept,
            "on_front": self.on_front,
            "outcome": self.outcome,
            "drop": None if self.drop is None else dict(self.drop),
            "threshold": self.threshold,
            "dropped_because": self.dropped_because,
            "float_ratio": self.float_ratio,
        }


@dataclass(frozen=True)
class BuildResult:
    """A finished build.

    Attributes:
        bundle: where the bundle lies.
        digest: its identity: SHA-256 of its manifest, hexadecimal.
        default_variant: name of the variant that answers when nobody asks for another.
        default_reason: why that one.
        source: metrics of the source model, None where not measured.
        variants: every variant measured, dropped ones too.
        images_measured: number of report images.
        warnings: what the user should know, in order.
        unmet: requirements that nothing meets, empty where all is well.
    """

    bundle: Path
    digest: str
    default_variant: str
    default_reason: str
    source: Mapping[str, float] | None
    variants: tuple[VariantResult, ...]
    images_measured: int
    warnings: tuple[BuildWarning, ...] = ()
    unmet: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Returns the stable shape of `shipsight build --json`."""
        return {
            "bundle": str(self.bundle),
            "digest": self.digest,
            "default_variant": self.default_variant,
            "default_reason": self.default_reason,
            "source": {"map50_95": None, "map50": None} if self.source is None else dict(self.source),
            "variants": [one.to_dict() for one in self.variants],
            "images_measured": self.images_measured,
            "warnings": [one.to_dict() for one in self.warnings],
            "unmet": list(self.unmet),
        }
