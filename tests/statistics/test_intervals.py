"""Intervals: against scipy and by hand, and what each of them must obey."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from scipy.stats import t as student

from steer_verl.errors import ConfigError
from steer_verl.statistics.intervals import (
    UNDEFINED,
    Interval,
    Scale,
    Z,
    bounded,
    difference,
    effective_number,
    interval_dict,
    over_repetitions,
    share,
    student_t,
    wilson,
)

UNIT = (0.0, 1.0)


def one(value: float, variance: float, n: float, freedom: float, scale: Scale = UNIT) -> tuple[float, float]:
    low, high = bounded(np.array(value), np.array(variance), np.array(n), scale, np.array(freedom))
    return float(low), float(high)


@settings(deadline=None)
@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_shares_have_wilsons_interval(counts: tuple[int, int]) -> None:
    hits, of = counts
    theirs = binomtest(hits, of).proportion_ci(0.95, "wilson")
    ours = share(hits, of)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    p = hits / of
    plain = one(p, p * (1 - p) / (of - 1) if of > 1 else math.nan, of, of - 1)
    assert plain == pytest.approx((ours.low, ours.high), abs=1e-9), "the one formula gives it of a share's variance"


def test_a_share_of_nothing_is_undefined() -> None:
    assert math.isnan(share(0, 0).value)


@settings(deadline=None)
@given(st.integers(1, 400))
def test_shares_are_monotone_in_successes(n: int) -> None:
    lows, highs = zip(*((i.low, i.high) for i in (share(k, n) for k in range(n + 1))), strict=True)
    assert list(lows) == sorted(lows) and list(highs) == sorted(highs)
    assert all(high > low for low, high in zip(lows, highs, strict=True))


anything = st.tuples(
    st.floats(0, 1),
    st.one_of(st.just(math.nan), st.just(0.0), st.floats(1e-12, 0.25)),
    st.floats(0.5, 5000),
    st.integers(1, 500),
)


@settings(deadline=None)
@given(anything, st.sampled_from([UNIT, (-3.0, 3.0), (1.0, 10.0), (0.0, 100.0)]))
def test_an_interval_holds_its_value_stays_on_the_scale_and_has_a_width(
    case: tuple[float, float, float, int], scale: tuple[float, float]
) -> None:
    m, variance, n, freedom = case
    span = scale[1] - scale[0]
    value = min(scale[0] + span * m, scale[1])
    low, high = one(value, variance * span**2, n, freedom, scale)
    assert scale[0] - 1e-9 <= low <= value <= high <= scale[1] + 1e-9 and high - low > 1e-4 * span
    wide = one(value, variance * span**2, n / 2, freedom, scale)
    assert wide[0] <= low + 1e-9 and high <= wide[1] + 1e-9, "more dialogues never widen it"


def test_equal_values_leave_as_much_open_as_their_number() -> None:
    for n in (1, 10, 265):
        hidden = Z**2 / (n + Z**2)
        assert one(3.0, 0.0, n, n - 1 or math.nan, (-3, 3)) == pytest.approx((3 - 6 * hidden, 3))
        assert one(1.0, 0.0, n, n - 1 or math.nan, (-3, 3))[0] <= 1 - 4 * hidden + 1e-9


def test_what_few_dialogues_say_is_less_by_students_t_but_not_less_than_as_many_passes_and_failures() -> None:
    number = effective_number(np.array(0.5), np.array(1e-4), np.array(10.0), UNIT, np.array(9.0))
    assert float(number) == pytest.approx(0.25 / 1e-4 * (Z / student.ppf(0.975, 9)) ** 2)
    broad = effective_number(np.array(0.5), np.array(0.25 / 9), np.array(10.0), UNIT, np.array(9.0))
    assert float(broad) == pytest.approx(10)
    assert float(effective_number(np.array(0.5), np.array(0.1), np.array(10.0), UNIT, np.array(9.0))) < 10


def test_a_correlation_narrows_a_difference_by_square_and_add() -> None:
    """Newcombe's example (1998, method 8 without correlation): 56 of 70 and 48 of 80; 0.0524 to 0.3339."""
    (a, b), n = (share(56, 70), share(48, 80)), np.array(1e12)
    apart = difference(_ends(a), _ends(b), np.array(0.0), n)
    assert (float(apart[0]), float(apart[1])) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    together = difference(_ends(a), _ends(b), np.array(0.5), n)
    assert apart[0] < together[0] < together[1] < apart[1]
    turned = difference(_ends(b), _ends(a), np.array(0.5), n)
    assert (-float(turned[1]), -float(turned[0])) == pytest.approx((float(together[0]), float(together[1])))


def test_two_that_never_disagreed_may_yet_differ() -> None:
    same = _ends(share(30, 60))
    low, high = difference(same, same, np.array(1.0), np.array(60.0))
    assert low < -0.02 and high > 0.02


def _ends(interval: Interval) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    return np.array(interval.value), (np.array(interval.low), np.array(interval.high))


def test_over_seeds_each_is_one_observation() -> None:
    values = [50.0, 50.2, 49.8]
    found = over_repetitions(values, 1e9, (0, 100))
    half = student.ppf(0.975, 2) * np.std(values, ddof=1) / 3**0.5
    assert (found.value, found.low, found.high) == pytest.approx((50, 50 - half, 50 + half), rel=1e-3)
    assert math.isnan(over_repetitions([1.0], 9, (0, 100)).low)
    equal = over_repetitions([90.0, 90.0], 60, (0, 100))
    assert equal.low < 86 and equal.high > 90.5, "no width of zero"
    unlike = over_repetitions([99.0, 1.0], 265, (0, 100))
    assert unlike.low < 5 and unlike.high > 95 and unlike.high <= 100


def test_without_scipy_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(ConfigError, match=r"pip install .?scipy"):
        student_t(3)


def test_nobody_loads_scipy_by_importing() -> None:
    names = ("summary", "compare.write", "differences", "survival")
    code = f"import sys, {', '.join(f'steer_verl.eval.{name}' for name in names)}; assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_students_quantiles_are_scipys() -> None:
    assert student_t(np.array([1, 2, 30])) == pytest.approx(student.ppf(0.975, [1, 2, 30]))
    assert math.isnan(student_t(0)) and wilson(0.5, 0) == pytest.approx((0, 1), abs=1e-9)


def test_an_interval_is_written_in_one_way() -> None:
    assert f"{Interval(0.5, -0.25, 1):+.2f}" == "+0.50 (-0.25 .. +1.00)"
    assert f"{UNDEFINED:.3f}" == "undefined" and interval_dict(UNDEFINED) == {"value": None, "low": None, "high": None}
