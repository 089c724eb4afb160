# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of the data examination: tests, explanations, places of points, bootstraps; on made-up evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shipsight.doctor import Severity
from shipsight.doctor.data.borders import Border, add_border, crop_border, find_border, find_margins
from shipsight.doctor.data.content import Objects, compare_mix, compare_sizes, how_strange
from shipsight.doctor.data.correcting import MISTAKES, QUARTER, Correction, choose
from shipsight.doctor.data.costing import Cost, pool
from shipsight.doctor.data.deviations import compare, deviate, holm, ks_distance, ks_p_value
from shipsight.doctor.data.evidence import DataEvidence, Scores
from shipsight.doctor.data.explaining import Cause, Effect, Explanation, candidates, explain, measure_effect
from shipsight.doctor.data.rules_scenes import UnknownScenes
from shipsight.doctor.data.rules_shifts import ImagesDarker
from shipsight.doctor.data.shifts import KINDS, cast_kind
from shipsight.doctor.data.telling import judge
from shipsight.doctor.data.training import Distribution, Embedding
from shipsight.proof.statistics import summarize

BY_NAME = {one.name: one for one in KINDS}


def scene(seed: int, height: int = 60, width: int = 84) -> np.ndarray:
    """Blobs of light on a slope: not even anywhere, and unlike itself turned."""
    generator = np.random.default_rng(seed)
    ys, xs = np.mgrid[0:height, 0:width]
    image = np.stack([60 + xs * 0.8, 70 + ys * 0.9, 90 + xs * 0.3 + ys * 0.3], axis=2)
    for _ in range(6):
        y, x, size = generator.uniform(0, height), generator.uniform(0, width), generator.uniform(3, 12)
        image += generator.uniform(-60, 90, 3) * np.exp(-((ys - y) ** 2 + (xs - x) ** 2) / size**2)[..., None]
    return np.clip(image + generator.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def distribution(values: np.ndarray) -> Distribution:
    return Distribution.of(summarize(values.tolist()))


@given(st.integers(0, 10_000), st.integers(12, 64))
@settings(max_examples=30, deadline=None)
def test_distance_is_that_of_scipy_up_to_what_quantiles_leave_out(seed: int, count: int):
    generator = np.random.default_rng(seed)
    training, here = generator.normal(100, 20, 300), generator.normal(108, 20, count)
    ours = ks_distance(here, distribution(training))
    assert abs(ours - stats.ks_2samp(here, training).statistic) < 0.08
    assert 0 <= ours <= 1


@pytest.mark.parametrize("value", [0.2, 0.3, 0.45])
def test_chance_is_that_of_scipy(value: float):
    # Stephens' correction against the exact law of one sample of 40.
    assert ks_p_value(value, 40, 10**9) == pytest.approx(stats.kstwo.sf(value, 40), rel=0.15, abs=1e-6)


def test_value_that_all_images_share_is_no_deviation_and_another_is():
    training = distribution(np.full(200, 640.0))
    assert ks_distance(np.full(20, 640.0), training) == 0
    assert ks_distance(np.full(20, 320.0), training) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_passes_no_more_than_single_tests_and_no_less_than_bonferroni(p_values: list[float]):
    passed = holm(p_values, 0.05)
    for value, is_passed in zip(p_values, passed, strict=True):
        assert not is_passed or value <= 0.05
        assert is_passed or value > 0.05 / len(p_values)


def test_healthy_sets_pass_the_test_of_any_measure_at_the_stated_rate():
    generator = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        training = {
            name: distribution(generator.lognormal(4, 0.4, 128)) for name in ("brightness", "contrast", "noise")
        }
        here = {name: generator.lognormal(4, 0.4, 32).tolist() for name in training}
        alarms += any(one.is_clear for one in deviate(here, training))
    # 1 % is asked for; 300 draws of it exceed 9 in less than one of a thousand.
    assert alarms <= 9


@given(st.floats(0.3, 3.0))
@settings(max_examples=25, deadline=None)
def test_shift_of_a_measure_is_the_logarithm_of_its_factor(factor: float):
    values = np.random.default_rng(1).lognormal(4.5, 0.3, 400)
    found = compare("brightness", (values[:200] * factor).tolist(), distribution(values))
    assert found.shift == pytest.approx(np.log(factor), abs=0.12)


def test_order_of_images_does_not_matter():
    values = np.random.default_rng(2).lognormal(4, 0.4, 50)
    training = {"noise": distribution(np.random.default_rng(3).lognormal(4, 0.4, 100))}
    assert deviate({"noise": values.tolist()}, training) == deviate({"noise": values[::-1].tolist()}, training)


def test_files_that_are_compressed_less_are_no_deviation():
    training = {"jpeg_quality": distribution(np.full(100, 75.0))}
    assert deviate({"jpeg_quality": [95.0] * 30}, training) == ()
    (worse,) = deviate({"jpeg_quality": [30.0] * 30}, training)
    assert worse.is_clear


@pytest.mark.parametrize("kind", [*KINDS, cast_kind(np.array([0.1, 0.0, -0.3]))], ids=lambda one: one.name)
def test_kind_gives_images_and_moves_points_as_it_says(kind):
    image = scene(4)
    for strength in (kind.ladder[0], kind.ladder[-1]):
        moved = kind.apply(image, strength)
        assert moved.image_rgb.dtype == np.uint8
        assert moved.image_rgb.shape[2] == 3
        corner = moved.affine @ np.array([image.shape[1], image.shape[0], 1])
        assert np.abs(corner - moved.image_rgb.shape[1::-1]).max() < 1e-6
        assert kind.tell(strength)


@pytest.mark.parametrize("name", list(MISTAKES))
@given(seed=st.integers(0, 200))
@settings(max_examples=10, deadline=None)
def test_mistake_is_undone_and_its_points_are_where_it_says(name: str, seed: int):
    mistake, image = MISTAKES[name], scene(seed)
    moved = mistake.do(image)
    assert np.array_equal(mistake.undo(moved.image_rgb), image)
    generator = np.random.default_rng(seed)
    row, column = int(generator.integers(0, 60)), int(generator.integers(0, 84))
    x, y = moved.affine @ np.array([column + 0.5, row + 0.5, 1])
    there = moved.image_rgb[int(y), int(x)]
    expected = {"inverted": 255 - image[row, column], "swapped": image[row, column][::-1]}.get(name, image[row, column])
    assert np.array_equal(there, expected)


def test_correction_is_chosen_only_beyond_chance_and_by_enough():
    small = Correction("turned-90", 0.03, 0.01, 0.05, 0.5, 10)
    unsure = Correction("turned-180", 0.3, -0.01, 0.6, 0.5, 10)
    good = Correction("inverted", 0.2, 0.1, 0.3, 0.5, 10)
    better = Correction("swapped", 0.25, 0.1, 0.4, 0.5, 10)
    assert choose([small, unsure]) is None
    assert choose([small, good, unsure, better]) == better


@pytest.mark.parametrize(
    ("gain", "high", "is_refuted"),
    [(-0.2, -0.1, True), (-0.05, -0.001, True), (-0.04, -0.03, False), (-0.2, 0.01, False), (0.2, 0.3, False)],
)
def test_correction_is_refuted_only_where_the_model_is_clearly_less_sure(gain: float, high: float, is_refuted: bool):
    assert Correction("turned-90", gain, -1.0, high, 0.5, 10).is_refuted is is_refuted


@given(st.integers(0, 100), st.integers(2, 30), st.integers(0, 30), st.integers(0, 255))
@settings(max_examples=25, deadline=None)
def test_border_that_was_added_is_found_and_cut_off_again(seed: int, top: int, left: int, level: int):
    images = [scene(seed + number) for number in range(12)]
    height, width = images[0].shape[:2]
    full_height, full_width = height + 2 * top, width + 2 * left
    margins = (top / full_height, top / full_height, left / full_width, left / full_width)
    border = Border(1.0, margins, (level, level, level))
    framed = [add_border(image, border).image_rgb for image in images]
    found = find_border(framed)
    if found is None:
        # Lines of the scene itself are never even: it can only be missing where it is thinner than 2 %.
        assert top < max(2, 0.02 * full_height)
        return
    assert found.level == (level, level, level)
    assert found.margins[0] == pytest.approx(margins[0], abs=1.01 / full_height)
    if left == 0 or left >= max(2, 0.02 * full_width):
        assert np.array_equal(crop_border(framed[0]), images[0])


def test_even_image_and_single_framed_images_have_no_border():
    assert find_margins(np.full((40, 50, 3), 7, dtype=np.uint8)) == (0, 0, 0, 0)
    images = [scene(number) for number in range(10)]
    images[0] = add_border(images[0], Border(1.0, (0.2, 0.2, 0.0, 0.0), (0, 0, 0))).image_rgb
    assert find_border(images) is None


@given(st.integers(0, 50))
@settings(max_examples=10, deadline=None)
def test_pooled_cost_is_the_share_and_its_interval_holds_it(seed: int):
    generator = np.random.default_rng(seed)
    confident = generator.integers(2, 20, 8).astype(float)
    matched = np.floor(confident * generator.uniform(0.2, 1.0, 8))
    cost = pool(np.stack([confident, matched], axis=1))
    assert cost is not None
    assert cost.value == pytest.approx(1 - matched.sum() / confident.sum())
    assert cost.low <= cost.value + 0.02
    assert cost.high >= cost.value - 0.02
    assert pool(np.array([[1.0, 1.0]])) is None


MEASURES = ("brightness", "contrast", "sharpness", "noise")


def deviations_of(shifts: dict[str, float]):
    generator = np.random.default_rng(5)
    training = {name: generator.lognormal(4, 0.3, 400) for name in MEASURES}
    here = {name: (generator.lognormal(4, 0.3, 64) * np.exp(shifts.get(name, 0.0))).tolist() for name in MEASURES}
    return deviate(here, {name: distribution(values) for name, values in training.items()})


def effect(name: str, strengths: tuple[float, ...], slopes: tuple[float, ...]) -> Effect:
    rising = np.array(sorted({*strengths, 0.0}))
    return Effect(BY_NAME[name], rising, rising[:, None] * np.array(slopes)[None])


EFFECTS = [
    effect("gain", (-3.0, -1.0), (0.69, 0.69, 1.38, 0.69)),
    effect("contrast", (-3.0, -1.0), (0.0, 0.69, 1.38, 0.69)),
    effect("blur", (1.0, 4.0), (0.0, -0.05, -0.9, -0.5)),
    effect("noise", (5.0, 50.0), (0.0, 0.002, 0.06, 0.05)),
]


def test_one_cause_is_named_for_the_symptoms_that_follow_from_it():
    found = explain(deviations_of({"brightness": -0.7, "contrast": -0.7, "sharpness": -1.4, "noise": -0.7}), EFFECTS)
    assert [one.rule for one in found.causes] == ["images-darker"]
    assert found.causes[0].strength == pytest.approx(-1.0, abs=0.2)
    assert found.share > 0.9


def test_pair_of_causes_is_named_when_one_does_not_do():
    found = explain(deviations_of({"brightness": -0.7, "contrast": -0.8, "sharpness": -3.2, "noise": -1.7}), EFFECTS)
    assert {one.rule for one in found.causes} == {"images-darker", "images-blurred"}


def test_nothing_is_named_where_nothing_fits_or_nothing_deviates():
    strange = explain(
        deviations_of({"brightness": 1.0, "contrast": -1.0, "sharpness": 1.0, "noise": -1.0}), EFFECTS[2:]
    )
    assert strange.causes == ()
    assert explain(deviations_of({}), EFFECTS).causes == ()


def test_exchanged_sides_are_a_quarter_turn_and_not_a_stretch():
    names = ("width", "height", "aspect")
    generator = np.random.default_rng(6)
    widths, heights = 640 + 4 * generator.standard_normal(400), 480 + 4 * generator.standard_normal(400)

    def sides(these: np.ndarray, others: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, (these, others, these / others), strict=True))

    training = {name: distribution(values) for name, values in sides(widths, heights).items()}
    here = {name: values.tolist() for name, values in sides(heights[:64], widths[:64]).items()}
    images = [np.zeros((480, 640, 3), dtype=np.uint8)]
    kinds = [*KINDS, QUARTER]
    deviations = deviate(here, training)
    measures = [one.measure for one in deviations]
    effects = [
        measure_effect(kind, strengths, images, measures)
        for kind, strengths in candidates(deviations, kinds)
        if kind.name in ("scale", "stretch", "flatten", "quarter")
    ]
    assert len(effects) >= 3
    [cause] = explain(deviations, effects).causes
    assert (cause.kind.name, cause.strength, cause.rule) == ("quarter", 1.0, "orientation-ignored")
    [without, *_] = explain(deviations, [one for one in effects if one.kind.name != "quarter"]).causes
    assert without.rule == "aspect-changed"


def test_only_kinds_that_move_what_deviates_the_right_way_are_candidates():
    names = {kind.name: strengths for kind, strengths in candidates(deviations_of({"brightness": -1.0}), KINDS)}
    assert set(names) == {"gain", "gamma", "offset"}
    assert max(names["gain"]) < 0


def test_class_that_became_common_is_named_and_the_same_shares_are_not():
    names, training = ["a", "b", "c"], {"a": 700, "b": 200, "c": 100}
    generator = np.random.default_rng(0)

    def objects(shares: list[float]) -> list[Objects]:
        return [Objects(generator.choice(3, 5, p=shares), np.full(5, 0.1)) for _ in range(40)]

    same = compare_mix(objects([0.7, 0.2, 0.1]), names, training)
    other = compare_mix(objects([0.2, 0.2, 0.6]), names, training)
    assert same is not None
    assert same.changed == ()
    assert other is not None
    assert {one.name for one in other.changed} == {"a", "c"}
    assert compare_mix(objects([0.7, 0.2, 0.1])[:11], names, training) is None


@given(st.floats(0.3, 3.0))
@settings(max_examples=15, deadline=None)
def test_change_of_size_is_measured(factor: float):
    generator = np.random.default_rng(1)
    training = distribution(generator.lognormal(-2, 0.4, 600))
    objects = [Objects(np.zeros(4, dtype=np.int64), generator.lognormal(-2, 0.4, 4) * factor) for _ in range(40)]
    sizes = compare_sizes(objects, training)
    assert sizes is not None
    assert sizes.shift == pytest.approx(np.log(factor), abs=0.2)


def test_features_of_training_are_near_and_others_far_unless_explained():
    generator = np.random.default_rng(2)
    mix = generator.normal(size=(10, 10))
    vectors = generator.normal(size=(300, 10)) @ mix
    centred = vectors - vectors.mean(axis=0)
    recorded = {"mean": vectors.mean(axis=0), "covariance": centred.T @ centred / 299, "images": 300}
    training = Embedding.of(recorded)
    move = 3 * mix.sum(axis=0)
    near, far = how_strange(vectors[:40], training), how_strange(vectors[:40] + move, training)
    assert near.middle < 0.1
    assert far.middle > 1
    assert how_strange(vectors[:40] + move, training, move).left == pytest.approx(near.left, abs=1e-6)


@pytest.mark.parametrize(
    ("cost", "severity"),
    [
        (Cost(0.3, 0.1, 0.5, 8, 40), Severity.ERROR),
        (Cost(0.08, 0.01, 0.2, 8, 40), Severity.WARNING),
        (Cost(0.08, 0.0, 0.2, 8, 40), Severity.NOTE),
        (Cost(0.01, 0.005, 0.02, 8, 40), Severity.NOTE),
    ],
)
def test_severity_follows_from_what_was_measured(cost: Cost, severity: Severity):
    cause = Cause(BY_NAME["gain"], -1.0, 0.95)
    evidence = DataEvidence(
        looked_at=40,
        distinct=40,
        deviations=deviations_of({"brightness": -1.5}),
        explanation=Explanation((cause,), 100.0, 5.0),
        costs={"images-darker": cost},
    )
    (finding,) = ImagesDarker().look(evidence)
    assert finding.severity is severity
    assert finding.weight == cost.value
    doubtful = [replace(one, p_value=1e-4) for one in evidence.deviations]
    (finding,) = ImagesDarker().look(replace(evidence, deviations=tuple(doubtful)))
    assert finding.severity is Severity.NOTE


def test_unmeasured_cost_falls_back_on_scores_with_half_the_certainty():
    evidence = DataEvidence(looked_at=40, scores=Scores(0.4, 0.8, 1e-6))
    assert judge(None, evidence) == (Severity.WARNING, 0.5, 0.5)
    assert judge(None, DataEvidence(looked_at=40, scores=Scores(0.4, 0.8, 0.5)))[0] is Severity.NOTE


def test_unknown_scenes_need_features_that_no_plain_change_explains():
    from shipsight.doctor.data.content import Strangeness

    far = Strangeness(middle=2.0, far=4.0, left=2.0, images=40)
    clear = deviations_of({"brightness": -1.5})
    explained = Explanation((Cause(BY_NAME["gain"], -1.0, 0.95),), 100.0, 5.0)
    scores = Scores(0.4, 0.8, 1e-6)
    lone = DataEvidence(looked_at=40, strangeness=far, deviations=clear, scores=scores)
    (finding,) = UnknownScenes().look(lone)
    assert finding.severity is Severity.ERROR
    assert finding.weight == pytest.approx(0.5)
    known = DataEvidence(looked_at=40, strangeness=far, deviations=clear, scores=scores, explanation=explained)
    assert list(UnknownScenes().look(known)) == []
