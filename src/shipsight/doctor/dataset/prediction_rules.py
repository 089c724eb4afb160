# SPDX-License-Identifier: Apache-2.0
"""What differs between the source and the suspect on the same images: rules over `agreement.explain`. Pure. Stable."""

from __future__ import annotations

from collections.abc import Iterable

from shipsight.doctor.dataset.evidence import DatasetEvidence
from shipsight.doctor.finding import Finding, Severity
from shipsight.doctor.rule import Rule

__all__ = [
    "BoxesShifted",
    "ClassesPermuted",
    "OneClassLost",
    "ScoresCompressed",
    "StaleModel",
    "ThresholdsDiffer",
    "is_stale",
]

_COSTS = 0.01
"""Loss of agreement from which on a difference costs something: half of what healthy INT8 variants lose by chance."""

_SCORES_OF_WEIGHT = 0.09
"""Change of scores that no healthy variant showed (the largest was 0.074, ONNX Runtime INT8 on 16 images)."""

_FLOAT_SHARE, _ANY_SHARE, _OWN_MARGIN = 0.9, 0.6, 0.15
"""Least share matched: floats gave 0.99 and more, bf16 0.95, INT8 0.66 to 0.99; a variant's own share at its build varies by 0.1."""


class ClassesPermuted(Rule[DatasetEvidence]):
    """Objects are found where they are, and called something else, each class consistently: from pairs of boxes of any class.

    Or the names themselves stand in another order.
    """

    id = "classes-permuted"
    title = "Classes stand in another order"

    def look(self, evidence: DatasetEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        found = evidence.explained
        names = evidence.class_names
        if found.moves is not None:
            table = found.moves.table
            told = ", ".join(
                f"{_name(names, old)} is called {_name(names, new)}" for old, new in list(table.items())[:3]
            )
            more = f" and {len(table) - 3} more classes" if len(table) > 3 else ""
            weight = max(found.after_moves - found.after_boxes, 0.0)
            yield Finding(
                rule=self.id,
                severity=Severity.ERROR,
                what="The suspect finds the objects and calls them by other classes: its classes stand in another order.",
                evidence=f"{told}{more}: {found.moves.objects} objects in {found.images} images, chance {found.moves.chance:.1g}; "
                f"with the order put right agreement with the source rises from {found.after_boxes:.2f} to {found.after_moves:.2f}.",
                remedy="Give the suspect the class names in the order of training, as they stand on the bundle's card.",
                command="shipsight inspect BUNDLE --json",
                weight=weight,
                certainty=1 - found.moves.chance,
                figures={
                    "share_lost": weight,
                    "objects": found.moves.objects,
                    "images": found.images,
                    "classes": list(table),
                    "became": list(table.values()),
                },
            )
            return
        theirs = evidence.suspect_names
        if theirs is None or theirs == names or sorted(theirs) != sorted(names):
            return
        wrong = [i for i, (one, other) in enumerate(zip(names, theirs, strict=True)) if one != other]
        share = _share_of(evidence, wrong)
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR,
            what="The suspect's class names stand in another order than those of training, while its class numbers are right.",
            evidence=f"{len(wrong)} of {len(names)} names differ, first class {wrong[0]}: {theirs[wrong[0]]!r} instead of "
            f"{names[wrong[0]]!r}; {share:.0%} of the predictions in {len(evidence.seen)} images carry a wrong name.",
            remedy="Give the suspect the class names in the order of training, as they stand on the bundle's card.",
            command="shipsight inspect BUNDLE --json",
            weight=share,
            figures={"share_lost": share, "names": len(wrong), "images": len(evidence.seen)},
        )


class BoxesShifted(Rule[DatasetEvidence]):
    """Boxes are moved, scaled or grown by the same rule in all images: from corners of pairs, in pixels of the model's input."""

    id = "boxes-shifted"
    title = "Boxes are shifted or scaled"
    explained_by = "conversion"

    def look(self, evidence: DatasetEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        found, boxes = evidence.explained, evidence.explained.boxes
        if boxes is None:
            return
        weight = max(found.after_boxes - found.before, 0.0)
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR if weight >= _COSTS else Severity.WARNING,
            what="The suspect's boxes are shifted or scaled against the source's by one and the same rule.",
            evidence=f"Edges lie {boxes.typical_px:.1f} px off (at least {boxes.low_px:.1f}) in the model's input: "
            f"shift {boxes.shift_xy[0]:+.1f}, {boxes.shift_xy[1]:+.1f} px, scale {boxes.scale_xy[0]:.3f}, {boxes.scale_xy[1]:.3f}, "
            f"size {1 + boxes.grow_xy[0]:.3f}, {1 + boxes.grow_xy[1]:.3f}; {boxes.pairs} boxes of {found.images} images, "
            f"{boxes.gain:.0%} of the distance explained; undone, agreement rises from {found.before:.2f} to {found.after_boxes:.2f}.",
            remedy="Map boxes back through the letterbox that the image went through: take off the padding, then divide by the scale.",
            weight=weight,
            figures={
                "share_lost": weight,
                "shift_x_px": boxes.shift_xy[0],
                "shift_y_px": boxes.shift_xy[1],
                "scale_x": boxes.scale_xy[0],
                "scale_y": boxes.scale_xy[1],
                "typical_px": boxes.typical_px,
                "boxes": boxes.pairs,
                "images": found.images,
            },
        )


class ScoresCompressed(Rule[DatasetEvidence]):
    """Scores are changed by one and the same rule (rule Q5): from pairs of one class.

    A threshold that was fitted to the source then cuts elsewhere.
    """

    id = "scores-compressed"
    title = "Scores are compressed or moved"
    explained_by = "conversion"

    def look(self, evidence: DatasetEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        found, scores = evidence.explained, evidence.explained.scores
        if scores is None:
            return
        weight = max(found.after_scores - found.after_lost, 0.0)
        is_heavy = abs(scores.change) >= _SCORES_OF_WEIGHT and not evidence.is_same_file
        yield Finding(
            rule=self.id,
            severity=Severity.NOTE if not is_heavy else Severity.ERROR if weight >= _COSTS else Severity.WARNING,
            what="The suspect's scores are changed by one rule: a threshold fitted to the source cuts elsewhere.",
            evidence=f"Scores change by {scores.change:+.2f} (95 % interval from {scores.bound:+.2f}) over {scores.pairs} pairs of "
            f"{found.images} images; {scores.threshold:.2f} of the suspect stands for 0.25 of the source.",
            remedy=f"Use a threshold of {scores.threshold:.2f} where 0.25 was meant, or keep the head's sigmoid in floats when quantizing.",
            command="shipsight build MODEL --data DATA",
            weight=weight if is_heavy else 0.0,
            figures={
                "share_lost": weight,
                "score_change": scores.change,
                "score_change_bound": scores.bound,
                "slope": scores.slope,
                "threshold": scores.threshold,
                "pairs": scores.pairs,
                "images": found.images,
            },
        )


class OneClassLost(Rule[DatasetEvidence]):
    """A class is found much less than the others: from pairs of boxes, class by class, against the others' loss."""

    id = "one-class-lost"
    title = "A class is lost"
    explained_by = "conversion"

    def look(self, evidence: DatasetEvidence) -> Iterable[Finding]:
        """Returns one finding for all classes that are lost, if any."""
        found = evidence.explained
        if not found.lost:
            return
        first = found.lost[0]
        name = _name(evidence.class_names, first.class_id)
        became = "" if first.became is None else f", most are called {_name(evidence.class_names, first.became)}"
        more = f"; {len(found.lost) - 1} more classes likewise" if len(found.lost) > 1 else ""
        weight = max(found.after_lost - found.after_moves, 0.0)
        weight = max(weight, sum(one.lost for one in found.lost) / max(found.confident, 1))
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR,
            what="The suspect does not find a class any more, while it finds the others.",
            evidence=f"{name}: {first.lost} of {first.count} objects are lost{became}, of all other classes {first.others:.0%}{more}; "
            f"{found.images} images.",
            remedy="Compare the suspect's last layers with the source's for that class, or put the variant in service that was measured.",
            command="shipsight verify BUNDLE",
            weight=weight,
            figures={
                "share_lost": weight,
                "classes": [one.class_id for one in found.lost],
                "lost": [one.lost for one in found.lost],
                "objects": [one.count for one in found.lost],
                "others_share_lost": first.others,
                "became": first.became,
                "images": found.images,
            },
        )


class ThresholdsDiffer(Rule[DatasetEvidence]):
    """The suspect holds to thresholds of its own (rules P4, P6): from what it never says, while the source does when asked for the same."""

    id = "thresholds-differ"
    title = "Thresholds are built in"
    explained_by = "conversion"

    def look(self, evidence: DatasetEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        baked = evidence.baked
        if baked is None:
            return
        parts = [
            f"a confidence of {baked.conf:g}" if baked.conf is not None else "",
            f"at most {baked.max_det} predictions" if baked.max_det is not None else "",
            ("no suppression" if baked.iou == 1 else f"an overlap of {baked.iou:g}") if baked.iou is not None else "",
        ]
        weight = 1 - baked.agreement
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR if weight >= 0.05 else Severity.WARNING,
            what="The suspect holds to thresholds of its own, whatever it is asked for.",
            evidence=f"It answers with {' and '.join(part for part in parts if part)}; {evidence.floor:g}, {evidence.most} and "
            f"{evidence.iou:g} were asked; {baked.missing} predictions of {baked.images} images differ for it.",
            remedy="Export without suppression, or with conf=0.001, and give thresholds when asking; never measure mAP above 0.001.",
            command="yolo export model=best.pt format=onnx nms=False",
            weight=weight,
            figures={
                "share_lost": weight,
                "conf": baked.conf,
                "max_det": baked.max_det,
                "iou": baked.iou,
                "missing": baked.missing,
                "images": baked.images,
            },
        )


class StaleModel(Rule[DatasetEvidence]):
    """No form of this model: it disagrees with the source by more than any precision does, and no order, shift or change explains it.

    Or the server says that it serves another bundle.
    """

    id = "stale-model"
    title = "Another model runs"
    explained_by = "conversion"

    def look(self, evidence: DatasetEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        found = evidence.explained
        is_other = _serves_another(evidence)
        stale = is_stale(evidence)
        if not stale and not is_other:
            return
        weight = max(1 - found.after_scores, 0.0) if stale else 0.0
        measured = evidence.measured
        if stale and measured is not None:
            weight = max(measured.drop.value, 0.0)
        says = " It says itself that it serves another bundle." if is_other else ""
        what = (
            "What runs in production is another model than the bundle's: other weights."
            if stale
            else "What runs in production is another bundle; on these images it answers as a form of this model may."
        )
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR if stale else Severity.WARNING,
            what=what,
            evidence=f"{found.share:.0%} ± {2 * found.share_error:.0%} of {found.confident} confident predictions match the source's, at least "
            f"{_limit(evidence):.0%} do for a sound form of this model; {found.images} images.{says}",
            remedy="Put this bundle in service, and see that no older file lies where the server reads.",
            command="shipsight serve BUNDLE",
            weight=weight,
            figures={
                "share_matched": found.share,
                "share_matched_error": found.share_error,
                "least_share": _limit(evidence),
                "is_other_digest": is_other,
                "images": found.images,
            },
        )


def is_stale(evidence: DatasetEvidence) -> bool:
    """Returns whether the suspect disagrees with the source by more than any precision does, whatever else was undone."""
    found = evidence.explained
    if found.confident < 12:
        return False
    # Thresholds explain what is missing, unless it is known that another model answers: then they are read off its other scores.
    if evidence.baked is not None and not _serves_another(evidence):
        return False
    return found.share + 2 * found.share_error < _limit(evidence)


def _serves_another(evidence: DatasetEvidence) -> bool:
    """Returns whether the suspect says itself that it is another bundle."""
    return bool(evidence.suspect_digest) and bool(evidence.digest) and evidence.suspect_digest != evidence.digest


def _limit(evidence: DatasetEvidence) -> float:
    if evidence.expected_share is not None:
        return max(min(evidence.expected_share - _OWN_MARGIN, _FLOAT_SHARE), 0.4)
    return _FLOAT_SHARE if evidence.is_integer is False else _ANY_SHARE


def _name(names: tuple[str, ...], class_id: int) -> str:
    return names[class_id] if 0 <= class_id < len(names) else f"class {class_id}"


def _share_of(evidence: DatasetEvidence, classes: list[int]) -> float:
    shown = [int(one) for seen in evidence.seen for one in seen.suspect.class_ids[seen.suspect.scores >= 0.25]]
    return sum(one in set(classes) for one in shown) / max(len(shown), 1)
