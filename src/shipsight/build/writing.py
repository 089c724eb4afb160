# SPDX-License-Identifier: Apache-2.0
"""The last stage: what was found becomes the bundle's files, and the bundle exists whole or not at all.

Private to `build`. The files are described in `docs/formats/bundle.md`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shipsight.build.job import Job, Measured
from shipsight.build.measure import Accuracy
from shipsight.build.measuring import metrics_of
from shipsight.build.proving import Proof
from shipsight.build.report import ReportData, render_model_card, render_report, render_sbom
from shipsight.build.result import BuildResult
from shipsight.model.bundle import write_bundle
from shipsight.proof.calibration import PLACE as CALIBRATION_PLACE
from shipsight.proof.calibration import calibrate

__all__ = ["write"]


# Long, but one straight list of what a bundle holds, in the order in which it is made.
def write(
    job: Job,
    place: Path,
    *,
    measured: Sequence[Measured],
    source_accuracy: Accuracy | None,
    proof: Proof,
    reason: str,
    unmet: Sequence[str],
) -> BuildResult:
    """Writes the bundle and returns what was found."""
    kept = [one for one in measured if one.result.kept]
    default = next(one.result.variant.name for one in kept if one.result.is_default)
    images_measured = 0 if job.material.splits is None else len(job.material.splits.report)
    documents: dict[str, Any] = {
        "proof/reference.json": _reference(job, measured, source_accuracy, reason, images_measured),
        "proof/measurements.json": _measurements(job, measured),
        "proof/parity.json": proof.parity,
        "proof/training-stats.json": proof.training_stats,
        "proof/environment.json": proof.environment,
    }
    files: dict[str, bytes] = {name: _to_json(value) for name, value in documents.items()}
    # Two numbers an image, range and variant: on lines of their own they would outweigh the rest of the proof.
    files[CALIBRATION_PLACE] = json.dumps(_calibrations(measured), separators=(",", ":")).encode()
    files |= proof.files
    for one in kept:
        variant = one.result.variant
        files |= {f"variants/{variant.name}/{name}": data for name, data in one.candidate.files.items()}
    data = ReportData(
        card=job.card.to_dict(),
        variants=[one.result.to_dict() for one in measured],
        reference=documents["proof/reference.json"],
        measurements=documents["proof/measurements.json"],
        training_stats=proof.training_stats,
        environment=proof.environment,
        parity=proof.parity,
        guard_steps=_guard_steps(measured),
        worst_images=proof.worst_images,
        warnings=[one.to_dict() for one in job.warnings],
        default_reason=reason,
        images_measured=images_measured,
        files={name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()},
    )
    files["report.html"] = render_report(data).encode()
    files["MODEL_CARD.md"] = render_model_card(data).encode()
    files["sbom.cdx.json"] = render_sbom(data).encode()
    bundle = write_bundle(
        place,
        files,
        card=job.card,
        variants=tuple(one.result.variant for one in kept),
        default_variant=default,
        golden=proof.golden,
        force=job.options.force,
    )
    return BuildResult(
        bundle=place,
        digest=bundle.digest,
        default_variant=default,
        default_reason=reason,
        source=None if source_accuracy is None else metrics_of(source_accuracy),
        variants=tuple(one.result for one in measured),
        images_measured=images_measured,
        warnings=tuple(job.warnings),
        unmet=tuple(unmet),
    )


def _to_json(value: object) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _reference(
    job: Job, measured: Sequence[Measured], source: Accuracy | None, reason: str, images_measured: int
) -> dict[str, Any]:
    splits, dataset = job.material.splits, job.material.dataset
    return {
        "data": None if dataset is None else {"name": dataset.origin.name, "split": "val", "images": images_measured},
        "sets": None
        if splits is None
        else {"calibration": len(splits.calibration), "guard": len(splits.guard), "report": len(splits.report)},
        "definition": "one class an anchor, conf 0.001, iou 0.7, at most 300 predictions; docs/accuracy.md",
        "max_drop": job.options.max_drop,
        "seed": job.options.seed,
        "default_reason": reason,
        "source": _accuracy(source),
        "variants": {
            one.result.variant.name: {
                **_accuracy(one.accuracy),
                "metrics": None if one.result.accuracy is None else dict(one.result.accuracy),
                "drop": None if one.result.drop is None else dict(one.result.drop),
                "outcome": one.result.outcome,
            }
            for one in measured
        },
        "guard_steps": _guard_steps(measured),
        "warnings": [one.to_dict() for one in job.warnings],
    }


def _accuracy(accuracy: Accuracy | None) -> dict[str, Any]:
    if accuracy is None:
        return {}
    found = accuracy.to_dict()
    by_class = {one["class_name"]: one for one in found["by_class"]}
    threshold = {"conf": accuracy.best_confidence, "f1": accuracy.best_f1}
    return {**found, "by_class": by_class, "threshold": threshold}


def _measurements(job: Job, measured: Sequence[Measured]) -> dict[str, Any]:
    return {
        "threads": job.options.threads,
        "variants": {one.result.variant.name: {**dict(one.result.speed), **one.result.to_dict()} for one in measured},
    }


def _calibrations(measured: Sequence[Measured]) -> dict[str, Any]:
    """Returns how often each shipped variant was right at which score; none of a classifier, or where too little was predicted."""
    found = {}
    for one in measured:
        accuracy = one.accuracy
        if not one.result.kept or accuracy is None or accuracy.table is None or accuracy.best_confidence is None:
            continue
        table = accuracy.table
        counted = ~table.ignored[0]
        image, scores, right = (part[counted] for part in (table.image, table.scores, table.matched[0]))
        made = calibrate(image, scores, right, images=accuracy.image_count, conf=accuracy.best_confidence)
        if made is not None:
            found[one.result.variant.name] = made.to_dict()
    return found


def _guard_steps(measured: Sequence[Measured]) -> list[Mapping[str, Any]]:
    seen: dict[int, Measured] = {id(one.candidate.guard): one for one in measured if one.candidate.guard is not None}
    return [step for one in seen.values() if one.candidate.guard for step in one.candidate.guard.steps]
