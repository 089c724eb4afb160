# SPDX-License-Identifier: Apache-2.0
"""What the labels and the proof say of the source and the suspect: rules over measured accuracy. Pure. Stable."""

from __future__ import annotations

from collections.abc import Iterable

from shipsight.doctor.dataset.agreement import find_moves
from shipsight.doctor.dataset.evidence import Boxes, DatasetEvidence
from shipsight.doctor.dataset.pairing import agreement, pair_all
from shipsight.doctor.dataset.prediction_rules import is_stale
from shipsight.doctor.dataset.transforms import fit_boxes
from shipsight.doctor.finding import Finding, Severity
from shipsight.doctor.rule import Rule

__all__ = ["AccuracyBelowReference", "LabelsSuspect", "MetricDefinitionDiffers"]

_LEAST_DROP = 0.02
"""Drop of accuracy that is looked into at all: INT8 variants are built with up to 0.01."""

_LABEL_SHIFT = 0.006
"""Least systematic offset of labels as a share of the input's side (4 px of 640): people gave up to 0.002."""

_FAR_BELOW = 0.1
"""How far below the recorded accuracy other images of the same kind may come, beside what their number explains."""

_DEFINITIONS = 0.03
"""How far definitions of mAP were seen apart on the same images: rectangles against squares 0.027, several labels a box 0.005."""


class LabelsSuspect(Rule[DatasetEvidence]):
    """The labels contradict the source where it is sure, systematically: another order of classes, or an offset of all boxes."""

    id = "labels-suspect"
    title = "The labels are wrong"

    def look(self, evidence: DatasetEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        labelled = [one for one in evidence.seen if one.labels is not None]
        if not labelled:
            return
        source = [one.source for one in labelled]
        labels = [one.labels for one in labelled if one.labels is not None]
        names, theirs = evidence.class_names, evidence.label_names
        if theirs is not None and theirs != names and sorted(theirs) == sorted(names):
            wrong = next(i for i, (one, other) in enumerate(zip(names, theirs, strict=True)) if one != other)
            reason = f"the label file's names stand in another order, first class {wrong}: {theirs[wrong]!r} for {names[wrong]!r}"
            yield self._finding(evidence, reason, _gain(source, labels, {}), certainty=1.0)
            return
        moves = find_moves(pair_all(source, labels, conf=0.4), len(names))
        if moves is not None:
            told = ", ".join(
                f"{_name(names, old)} is labelled {_name(names, new)}" for old, new in list(moves.table.items())[:3]
            )
            reason = f"{told}: {moves.objects} objects of {len(labelled)} images, chance {moves.chance:.1g}"
            back = {new: old for old, new in moves.table.items()}
            yield self._finding(evidence, reason, _gain(source, labels, back), certainty=1 - moves.chance)
            return
        if evidence.is_classifier:
            return
        ratios = [one.ratio for one in labelled]
        shifted = fit_boxes(pair_all(source, labels, conf=0.4, least_iou=0.3), ratios, evidence.side)
        if (
            shifted is not None
            and shifted.typical_px >= _LABEL_SHIFT * evidence.side
            and shifted.low_px >= shifted.typical_px / 2
        ):
            undone = [shifted.undo(one, ratio) for one, ratio in zip(labels, ratios, strict=True)]
            gain = max(agreement(source, undone) - agreement(source, labels), 0.0)
            reason = (
                f"their boxes lie {shifted.typical_px:.1f} px off in the model's input by one rule, "
                f"over {shifted.pairs} boxes of {len(labelled)} images"
            )
            yield self._finding(evidence, reason, gain, certainty=0.95)

    def _finding(self, evidence: DatasetEvidence, reason: str, gain: float, *, certainty: float) -> Finding:
        count = sum(len(one.labels) for one in evidence.seen if one.labels is not None)
        return Finding(
            rule=self.id,
            severity=Severity.ERROR,
            what="The labels contradict what the source is sure of, all in the same way: they are wrong, not the model.",
            evidence=f"{reason[0].upper()}{reason[1:]}; put right, agreement with the source rises by {gain:.2f}; {count} labels.",
            remedy="Put `names` of the data set in the order of training and write its labels anew, then measure again.",
            command="shipsight evaluate BUNDLE --data DATA",
            weight=gain,
            certainty=certainty,
            figures={"share_lost": gain, "labels": count},
        )


class AccuracyBelowReference(Rule[DatasetEvidence]):
    """Less accurate than the source on the labelled images, beyond chance, and nothing else found here says why.

    Or the source itself is far below what the proof recorded.
    """

    id = "accuracy-below-reference"
    title = "Accuracy is below the reference"

    def look(self, evidence: DatasetEvidence) -> Iterable[Finding]:
        """Returns the findings, if any."""
        measured = evidence.measured
        if measured is None or any(True for _ in LabelsSuspect().look(evidence)):
            return
        found, metric = evidence.explained, "top-1" if evidence.is_classifier else "mAP50-95"
        is_explained = found.boxes or found.moves or found.scores or found.lost or is_stale(evidence) or evidence.baked
        if measured.drop.low > 0 and measured.drop.value >= _LEAST_DROP and not is_explained:
            yield Finding(
                rule=self.id,
                severity=Severity.ERROR,
                what="The suspect is less accurate than the source on the same labelled images, and its answers do not say why.",
                evidence=f"{metric} {measured.suspect:.3f} against {measured.source:.3f}: {measured.drop.value:.3f} lost "
                f"({measured.drop.low:.3f} to {measured.drop.high:.3f}, {len(evidence.seen)} images).",
                remedy="Look at what export and conversion changed, layer by layer, or put a variant of higher precision in service.",
                command="shipsight inspect BUNDLE",
                weight=measured.drop.value,
                certainty=0.6,
                figures={
                    "share_lost": measured.drop.value,
                    "low": measured.drop.low,
                    "high": measured.drop.high,
                    "images": len(evidence.seen),
                },
            )
        recorded, images = evidence.recorded, len(evidence.seen)
        if recorded is None or not images:
            return
        # The record says its number of images alone: its error is taken to shrink as this one's with the root of that.
        wide = (measured.high - measured.low) / 2
        error = (wide**2 + wide**2 * images / max(evidence.recorded_images, 1)) ** 0.5
        below = recorded - measured.source
        if below > 1.5 * error and below >= _FAR_BELOW:
            yield Finding(
                rule=self.id,
                severity=Severity.WARNING,
                what="The trained model itself is less accurate on these images than where it was measured: the images or labels differ.",
                evidence=f"{metric} {measured.source:.3f} ({measured.low:.3f} to {measured.high:.3f}, {images} images) against {recorded:.3f} "
                f"in the proof ({evidence.recorded_images} images).",
                remedy="Compare these images with those of training, and read some of their labels.",
                command="shipsight doctor accuracy BUNDLE --images FOLDER --only data",
                weight=below,
                certainty=0.5,
                figures={"share_lost": below, "recorded": recorded, "measured": measured.source, "images": images},
            )


class MetricDefinitionDiffers(Rule[DatasetEvidence]):
    """What training reported and what is measured here differ by no more than their definitions do."""

    id = "metric-definition-differs"
    title = "mAP is defined otherwise"

    def look(self, evidence: DatasetEvidence) -> Iterable[Finding]:
        """Returns a note, if any."""
        measured = evidence.measured
        reported = next((value for key, value in evidence.reported.items() if key.startswith("metrics/mAP50-95")), None)
        if measured is None or reported is None or measured.multi_label is None:
            return
        away = reported - measured.source
        if not 0.002 <= abs(away) <= _DEFINITIONS:
            return
        yield Finding(
            rule=self.id,
            severity=Severity.NOTE,
            what="Training reported another mAP than is measured here, by as much as the definitions of mAP differ: nothing was lost.",
            evidence=f"Training {reported:.4f}, here {measured.source:.4f} with one class a box and {measured.multi_label:.4f} with several, "
            f"on {len(evidence.seen)} images; `val` pads to rectangles by default, which is worth up to 0.027.",
            remedy="Compare numbers of one definition alone: the same images, square inputs, the same classes a box.",
            command="yolo val model=best.pt data=data.yaml rect=False",
            figures={
                "reported": reported,
                "measured": measured.source,
                "multi_label": measured.multi_label,
                "images": len(evidence.seen),
            },
        )


def _gain(source: list[Boxes], labels: list[Boxes], back: dict[int, int]) -> float:
    """Returns by how much agreement of labels and source rises with classes put right; of names alone, by what pairs show."""
    if not back:
        moves = find_moves(
            pair_all(source, labels, conf=0.4),
            1 + max((int(one.class_ids.max(initial=0)) for one in labels), default=0),
        )
        back = {} if moves is None else {new: old for old, new in moves.table.items()}
    put_right = [_renamed(one, back) for one in labels]
    return max(agreement(source, put_right) - agreement(source, labels), 0.0)


def _renamed(boxes: Boxes, back: dict[int, int]) -> Boxes:
    import numpy as np

    return Boxes(
        np.array([back.get(int(one), int(one)) for one in boxes.class_ids], np.int64), boxes.scores, boxes.boxes_xyxy
    )


def _name(names: tuple[str, ...], class_id: int) -> str:
    return names[class_id] if 0 <= class_id < len(names) else f"class {class_id}"
