# SPDX-License-Identifier: Apache-2.0
"""The rules of the controlled data set, over made-up evidence: each fault is named, and noise is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shipsight.build.measure import Interval
from shipsight.doctor import Finding, Severity, by_weight
from shipsight.doctor.dataset import Boxes, DatasetEvidence, DatasetExamination, Measured, Seen

NAMES = tuple(f"class {i}" for i in range(6))
IMAGES, OBJECTS = 24, 8

Change = Callable[[Boxes, np.random.Generator], Boxes]


def scene(seed: int) -> list[Boxes]:
    """Predictions as a detector gives them: confident ones, and a tail down to 0.001."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(IMAGES):
        count = OBJECTS + 30
        # A grid keeps objects apart, so that pairs are certain.
        cells = rng.permutation(64)[:count]
        centre = np.stack([cells % 8 * 80 + 40, cells // 8 * 80 + 40], axis=1) + rng.uniform(-5, 5, (count, 2))
        half = rng.uniform(10, 32, (count, 2))
        scores = np.concatenate([rng.uniform(0.35, 0.95, OBJECTS), np.exp(rng.uniform(np.log(0.001), np.log(0.3), 30))])
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        images.append(Boxes(rng.integers(0, len(NAMES), count), scores, boxes))
    return images


def noise(boxes: Boxes, rng: np.random.Generator) -> Boxes:
    """What a healthy INT8 variant does."""
    logits = np.log(boxes.scores / (1 - boxes.scores)) + rng.normal(0, 0.12, len(boxes))
    moved = boxes.boxes_xyxy + rng.normal(0, 0.5, boxes.boxes_xyxy.shape)
    return Boxes(boxes.class_ids, np.maximum(1 / (1 + np.exp(-logits)), 0.001), moved)


def evidence(seed: int, change: Change | None = None, **named: object) -> DatasetEvidence:
    rng = np.random.default_rng([seed, 1])
    seen = []
    for one in scene(seed):
        other = noise(one, rng)
        seen.append(Seen(1.0, one, other if change is None else change(other, rng)))
    made = DatasetEvidence(class_names=NAMES, suspect_names=None, seen=tuple(seen))
    return replace(made, **named)  # type: ignore[arg-type]  # fields by name


def findings(found: DatasetEvidence) -> list[Finding]:
    return by_weight(one for rule in DatasetExamination.rules for one in rule.look(found))


def heavy(found: DatasetEvidence) -> list[str]:
    return [one.rule for one in findings(found) if one.severity is not Severity.NOTE]


def moved(shift_xy: tuple[float, float], scale: float = 1.0) -> Change:
    shift = np.array([*shift_xy, *shift_xy])
    return lambda boxes, rng: Boxes(boxes.class_ids, boxes.scores, boxes.boxes_xyxy * scale + shift)


def renamed(table: NDArray[np.int64]) -> Change:
    return lambda boxes, rng: Boxes(table[boxes.class_ids], boxes.scores, boxes.boxes_xyxy)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_healthy_suspect_has_no_finding_of_weight(seed: int) -> None:
    assert heavy(evidence(seed)) == []


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(len(NAMES))))
def test_every_order_of_classes_is_found_and_named(seed: int, order: list[int]) -> None:
    found = findings(evidence(seed, renamed(np.array(order))))
    moved_classes = {old: new for old, new in enumerate(order) if old != new}
    if not moved_classes:
        assert [one for one in found if one.severity is not Severity.NOTE] == []
        return
    assert found[0].rule == "classes-permuted"
    assert dict(zip(found[0].figures["classes"], found[0].figures["became"], strict=True)) == moved_classes  # type: ignore[arg-type]  # both are lists
    assert [one.rule for one in found if one.severity is not Severity.NOTE] == ["classes-permuted"]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(2, 200), st.floats(0, 2 * np.pi), st.sampled_from([0.5, 0.8, 1.0, 1.25, 2.0]))
def test_shift_and_scale_of_boxes_are_measured(seed: int, length: float, angle: float, scale: float) -> None:
    shift = length * np.cos(angle), length * np.sin(angle)
    found = findings(evidence(seed, moved(shift, scale)))
    assert found[0].rule == "boxes-shifted"
    assert found[0].figures["scale_x"] == pytest.approx(scale, abs=0.01)
    assert found[0].figures["shift_x_px"] == pytest.approx(shift[0], abs=2)
    assert found[0].figures["shift_y_px"] == pytest.approx(shift[1], abs=2)
    assert [one.rule for one in found if one.severity is not Severity.NOTE] == ["boxes-shifted"]


@pytest.mark.parametrize("factor", [0.45, 0.6, 0.75])
def test_compressed_scores_are_found_with_the_threshold_that_stands_for_a_quarter(factor: float) -> None:
    def change(boxes: Boxes, rng: np.random.Generator) -> Boxes:
        return Boxes(boxes.class_ids, np.maximum(boxes.scores * factor, 0.001), boxes.boxes_xyxy)

    found = findings(evidence(3, change))
    assert found[0].rule == "scores-compressed"
    assert found[0].figures["threshold"] == pytest.approx(0.25 * factor, abs=0.08)


@pytest.mark.parametrize("share", [0.7, 1.0])
def test_lost_class_is_found(share: float) -> None:
    def change(boxes: Boxes, rng: np.random.Generator) -> Boxes:
        return boxes.pick(~((boxes.class_ids == 2) & (rng.random(len(boxes)) < share)))

    found = findings(evidence(4, change))
    assert found[0].rule == "one-class-lost"
    assert found[0].figures["classes"] == [2]


def test_class_that_became_another_is_lost_rather_than_permuted() -> None:
    found = findings(evidence(5, renamed(np.array([0, 1, 3, 3, 4, 5]))))
    assert found[0].rule == "one-class-lost"
    assert (found[0].figures["classes"], found[0].figures["became"]) == ([2], 3)


@pytest.mark.parametrize("conf", [0.02, 0.1, 0.25])
def test_confidence_that_is_built_in_is_read_off(conf: float) -> None:
    found = findings(evidence(6, lambda boxes, rng: boxes.pick(boxes.scores >= conf)))
    assert found[0].rule == "thresholds-differ"
    assert found[0].figures["conf"] == pytest.approx(conf, abs=0.03)


def test_most_predictions_that_are_built_in_are_read_off() -> None:
    def change(boxes: Boxes, rng: np.random.Generator) -> Boxes:
        order = np.argsort(-boxes.scores)[:12]
        return Boxes(boxes.class_ids[order], boxes.scores[order], boxes.boxes_xyxy[order])

    found = findings(evidence(7, change))
    assert (found[0].rule, found[0].figures["max_det"]) == ("thresholds-differ", 12)


def test_other_model_is_stale_and_nothing_else() -> None:
    made = evidence(8)
    others = scene(9)
    seen = tuple(replace(one, suspect=other) for one, other in zip(made.seen, others, strict=True))
    assert heavy(replace(made, seen=seen)) == ["stale-model"]


def test_server_of_another_bundle_is_told_though_it_agrees() -> None:
    found = findings(evidence(10, digest="a", suspect_digest="b"))
    assert [(one.rule, one.severity) for one in found if one.weight or one.severity is not Severity.NOTE] == [
        ("stale-model", Severity.WARNING)
    ]
    assert "other weights" not in found[0].what
    assert "another bundle" in found[0].what


def test_thresholds_are_not_read_off_another_model_that_is_known_to_answer() -> None:
    made = evidence(8)
    others = [one.pick(one.scores >= 0.1) for one in scene(9)]
    seen = tuple(replace(one, suspect=other) for one, other in zip(made.seen, others, strict=True))
    alike = replace(made, seen=seen)
    assert findings(alike)[0].rule == "thresholds-differ"
    found = findings(replace(alike, digest="a", suspect_digest="b"))[0]
    assert (found.rule, found.severity) == ("stale-model", Severity.ERROR)


def test_names_in_another_order_are_found_without_any_object() -> None:
    found = findings(evidence(11, suspect_names=(NAMES[1], NAMES[0], *NAMES[2:])))
    assert found[0].rule == "classes-permuted"
    assert found[0].figures["names"] == 2


def with_labels(made: DatasetEvidence, change: Change) -> DatasetEvidence:
    rng = np.random.default_rng(0)
    labelled = []
    for one in made.seen:
        kept = one.source.pick(one.source.scores >= 0.3)
        labels = change(
            Boxes(kept.class_ids, np.ones(len(kept)), kept.boxes_xyxy + rng.normal(0, 1, (len(kept), 4))), rng
        )
        labelled.append(replace(one, labels=labels))
    return replace(made, seen=tuple(labelled))


def test_labels_of_another_order_are_suspected_and_accuracy_is_not_blamed() -> None:
    made = evidence(
        12, measured=Measured(0.1, 0.1, Interval(0.0, -0.01, 0.01), 0.05, 0.15), recorded=0.6, recorded_images=64
    )
    assert heavy(with_labels(made, renamed(np.array([1, 2, 0, 3, 4, 5])))) == ["labels-suspect"]
    assert heavy(with_labels(made, lambda boxes, rng: boxes)) == ["accuracy-below-reference"]


def test_shifted_labels_are_suspected() -> None:
    assert heavy(with_labels(evidence(13), moved((9, 6)))) == ["labels-suspect"]
    assert heavy(with_labels(evidence(13), lambda boxes, rng: boxes)) == []


def test_drop_without_a_cause_is_told_with_its_interval() -> None:
    drop = Interval(0.06, 0.02, 0.1)
    found = findings(evidence(14, measured=Measured(0.5, 0.44, drop, 0.45, 0.55)))
    assert [one.rule for one in found if one.severity is not Severity.NOTE] == ["accuracy-below-reference"]
    assert found[0].weight == pytest.approx(0.06)


def test_definition_of_the_metric_is_a_note() -> None:
    measured = Measured(0.48, 0.48, Interval(0.0, 0.0, 0.0), 0.4, 0.56, multi_label=0.487)
    found = findings(evidence(15, measured=measured, reported={"metrics/mAP50-95(B)": 0.455}))
    assert [(one.rule, one.severity) for one in found] == [("metric-definition-differs", Severity.NOTE)]
