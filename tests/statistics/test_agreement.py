"""Agreement against published examples, slow twins and planted truths."""

from __future__ import annotations

import math
import random
from itertools import permutations

import numpy as np
import pytest

from steer_verl.statistics.agreement import (
    Detection,
    _student_t,
    bootstrap,
    corrected,
    corrected_pass_rate,
    detection,
    krippendorff_alpha,
    midranks,
    rogan_gladen,
    spearman,
)
from steer_verl.statistics.intervals import student_t

NO = float("nan")
# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: 4 observers, 12 units, missing data.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NO, NO, NO],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NO, 3],
        [NO, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NO],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NO],
    ]
)


@pytest.mark.parametrize(("metric", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_published_example(metric: str, alpha: float) -> None:
    assert krippendorff_alpha(PUBLISHED, metric) == pytest.approx(alpha, abs=5e-4)


def slow_alpha(ratings: np.ndarray) -> float:
    """Interval alpha from its definition: mean squared difference within items over that between any two ratings."""
    items = [[v for v in column if math.isfinite(v)] for column in ratings.T]
    items = [item for item in items if len(item) > 1]
    every = [v for item in items for v in item]
    within = sum(sum((a - b) ** 2 for a, b in permutations(item, 2)) / (len(item) - 1) for item in items) / len(every)
    between = sum((a - b) ** 2 for a, b in permutations(every, 2)) / (len(every) * (len(every) - 1))
    return 1 - within / between


@pytest.mark.parametrize("seed", range(20))
def test_alpha_and_ranks_equal_their_slow_twins(seed: int) -> None:
    rng = random.Random(seed)
    n, raters = rng.randint(4, 25), rng.randint(2, 4)
    ratings = np.array([[rng.choice([NO, 1, 2.5, 4, 7.75, 10]) for _ in range(n)] for _ in range(raters)])
    ratings[:2, :2] = [[1, 10], [2.5, 7.75]]  # never without a pair, never constant
    assert krippendorff_alpha(ratings) == pytest.approx(slow_alpha(ratings))

    values = [rng.randint(1, 5) for _ in range(n)]
    slow = [1 + sum(v < x for v in values) + (values.count(x) - 1) / 2 for x in values]
    assert midranks(np.array(values)).tolist() == slow


def test_alpha_knows_perfect_opposite_and_undefined() -> None:
    scores = np.arange(1.0, 11)
    assert krippendorff_alpha(np.stack([scores, scores])) == pytest.approx(1)
    assert krippendorff_alpha(np.stack([scores, scores[::-1]])) < -0.5
    assert math.isnan(krippendorff_alpha(np.full((2, 5), 3.0)))
    assert math.isnan(krippendorff_alpha(np.array([[1, NO], [NO, 2]])))


def test_spearman_of_a_published_example_and_its_invariance() -> None:
    # Wikipedia, "Spearman's rank correlation coefficient": IQ and hours of television, rho = -29/165
    iq = np.array([106, 100, 86, 101, 99, 103, 97, 113, 112, 110])
    hours = np.array([7, 27, 2, 50, 28, 29, 20, 12, 6, 17])
    assert spearman(iq, hours) == pytest.approx(-29 / 165)
    assert spearman(np.exp(iq / 10), -hours) == pytest.approx(29 / 165)
    assert math.isnan(spearman(iq, np.ones(10))) and math.isnan(spearman(iq[:1], hours[:1]))


def test_detection_counts_by_the_threshold_of_both() -> None:
    human, tutor = np.array([1, 4, 3.25, 10, 5.5, 8]), np.array([4, 5, 1, 10, 4, 9])
    known = detection(human <= 4, tutor <= 4)
    assert known == Detection(caught=2, missed=1, cleared=2, blamed=1)
    assert known.sensitivity.value == pytest.approx(2 / 3) and known.specificity.value == pytest.approx(2 / 3)
    assert math.isnan(detection(human[3:] <= 4, tutor[3:] <= 4).sensitivity.value)
    assert Detection(20, 0, 9, 1).sensitivity.low < 0.9, "20 of 20 is no proof that none is ever missed"


def test_rogan_gladen_undoes_the_errors() -> None:
    for true, sensitivity, specificity in [(0.1, 0.9, 0.8), (0.5, 0.7, 0.99), (0.0, 0.6, 0.9), (1.0, 0.8, 0.7)]:
        seen = true * sensitivity + (1 - true) * (1 - specificity)
        assert rogan_gladen(seen, sensitivity, specificity) == pytest.approx(true, abs=1e-12)
    assert rogan_gladen(0.01, 0.9, 0.9) == 0.0  # fewer calls than false alarms alone would give
    assert math.isnan(rogan_gladen(0.5, 0.5, 0.5)) and math.isnan(rogan_gladen(0.5, NO, 0.9))


def test_the_corrected_pass_rate_covers_the_truth() -> None:
    rng = np.random.default_rng(1)
    true_pass, sensitivity, specificity = 0.9, 0.8, 0.9
    covered = naive = 0
    for _ in range(60):
        caught, cleared = rng.binomial(150, sensitivity), rng.binomial(150, specificity)
        called = rng.binomial(400, (1 - true_pass) * sensitivity + true_pass * (1 - specificity))
        known = Detection(int(caught), 150 - int(caught), int(cleared), 150 - int(cleared))
        interval = corrected_pass_rate(400 - int(called), 400, known)
        assert interval.low <= interval.value <= interval.high
        covered += interval.low <= true_pass <= interval.high
        naive += abs(1 - called / 400 - true_pass) < abs(interval.value - true_pass)
    assert covered >= 52
    assert naive < 30  # the correction beats the raw rate more often than not
    assert math.isnan(corrected_pass_rate(0, 0, Detection(1, 0, 1, 0)).value)
    assert math.isnan(corrected_pass_rate(5, 9, Detection(5, 5, 5, 5)).value)


def test_bootstrap_is_seeded_and_covers_a_known_mean() -> None:
    values = np.random.default_rng(0).normal(3, 1, 400)
    interval = bootstrap(lambda i: float(values[i].mean()), 400, seed=1)
    assert interval == bootstrap(lambda i: float(values[i].mean()), 400, seed=1)
    assert interval.value == values.mean() and interval.low < 3 < interval.high
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert math.isnan(bootstrap(lambda i: 1.0, 0).value)


def test_the_interval_of_ten_answers_is_wide_enough() -> None:
    """Plain percentiles hold this truth in 87 of 100 cases."""
    rng, held = np.random.default_rng(2), 0
    for number in range(120):
        pair_2N = np.round(2 * rng.normal(size=10) + rng.normal(size=(2, 10)))
        interval = bootstrap(lambda i, pair_2N=pair_2N: krippendorff_alpha(pair_2N[:, i]), 10, number, resamples=200)
        held += not interval.low > 0.787 and not interval.high < 0.787  # 4 of 5 and a twelfth, for the rounding
    assert held / 120 > 0.9


def test_students_t_without_scipy() -> None:
    freedom_F = np.arange(4, 200)
    np.testing.assert_allclose([_student_t(int(v)) for v in freedom_F], student_t(freedom_F), rtol=0.003)


def test_a_draw_without_a_value_is_left_out() -> None:
    def share_of_first(i: np.ndarray) -> float:
        return 1.0 if (i == 0).any() else NO

    interval = bootstrap(share_of_first, 5)
    assert interval.value == 1 and math.isnan(interval.low) and math.isnan(interval.high), "equal draws prove nothing"
    assert f"{interval:.2f}" == "1.00"


def test_draws_that_only_rounding_tells_apart_are_equal() -> None:
    human = np.array([1.0, *[9.0] * 50])
    interval = bootstrap(lambda i: spearman(human[i], 2 * human[i]), 51)
    assert interval.value == pytest.approx(1) and f"{interval:.3f}" == "1.000", "one bad answer is no proof"


def test_a_corrected_rate_lies_in_its_interval_even_where_fewer_are_called_than_false_alarms() -> None:
    known = Detection(40, 4, 90, 6)
    for rate in (0.0, 0.01, 0.06, 0.5, 1.0):
        found = corrected(rate, 300, known)
        assert 0 <= found.low <= found.value <= found.high <= 1 and found.high - found.low > 0.005
    assert corrected(0.3, 300, known).high - corrected(0.3, 300, known).low < 0.25
    few = corrected(0.3, 300, Detection(4, 1, 9, 1))
    assert few.high - few.low > 0.3, "what is not known of the judge is in it"
