"""95 % intervals of figures on a scale with two ends, of their differences, and of few repetitions.

One formula serves shares, means, survival and averages: Wilson's score interval of the figure brought to 0..1, with the
number of observations that a share of the same variance would have. It stays on the scale, holds the value, and says
little where little was seen. Arrays: F figures; numbers do as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steer_verl.errors import ConfigError, install_command

Z = 1.959963984540054
"""The 97.5 % quantile of the normal law."""

Scale = tuple[float, float]
"""The least and the greatest value that a figure can have."""

Ends = tuple[np.ndarray, np.ndarray]
"""Low and high of intervals."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; NaN where it is undefined."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        """``f"{interval:.3f}"`` is ``0.612 (0.540 .. 0.683)``, or without an interval ``0.612``, or ``undefined``."""
        if not np.isfinite(self.value):
            return "undefined"
        if not np.isfinite(self.low):
            return f"{self.value:{spec}}"
        return f"{self.value:{spec}} ({self.low:{spec}} .. {self.high:{spec}})"


UNDEFINED = Interval(np.nan, np.nan, np.nan)


def json_number(value: float) -> float | None:
    """JSON has no NaN: an undefined value is null."""
    return float(value) if np.isfinite(value) else None


def interval_dict(interval: Interval) -> dict[str, float | None]:
    """An interval as plain JSON values."""
    return {name: json_number(value) for name, value in vars(interval).items()}


def student_t(freedom: np.ndarray | float) -> np.ndarray:
    """The 97.5 % quantile of Student's t; NaN without a degree of freedom.

    Raises:
        ConfigError: scipy is not installed.
    """
    try:
        from scipy.special import stdtrit
    except ImportError:
        what = "intervals and tests need the scipy package (1.11 or newer)"
        raise ConfigError(f"{what}: {install_command('eval')}") from None
    freedom = np.asarray(freedom, dtype=float)
    return np.asarray(stdtrit(np.where(freedom > 0, freedom, np.nan), 0.975))


def wilson(share: np.ndarray | float, n: np.ndarray | float) -> Ends:
    """Both ends of Wilson's score interval (1927) for a share of ``n``, which need not be whole; 0..1 for none."""
    extra = Z**2 / np.maximum(n, 1e-12)
    middle = share + extra / 2
    half = np.sqrt(share * (1 - share) * extra + extra**2 / 4)
    low, high = (middle - half) / (1 + extra), (middle + half) / (1 + extra)
    return np.clip(np.minimum(low, share), 0, 1), np.clip(np.maximum(high, share), 0, 1)


def share(hits: int, of: int) -> Interval:
    """A share of independent trials, 0..1, with Wilson's interval; undefined for none of none."""
    if not of:
        return UNDEFINED
    low, high = wilson(hits / of, of)
    return Interval(hits / of, float(low), float(high))


def bounded(
    value: np.ndarray, variance: np.ndarray, n: np.ndarray, scale: Scale | np.ndarray, freedom: np.ndarray
) -> Ends:
    """The interval of a figure on a scale; for the arguments see :func:`effective_number`."""
    return _on_scale(value, effective_number(value, variance, n, scale, freedom), n, scale)


def effective_number(
    value: np.ndarray, variance: np.ndarray, n: np.ndarray, scale: Scale | np.ndarray, freedom: np.ndarray
) -> np.ndarray:
    """As many independent yes-or-no observations would have the same variance: m (1 - m) / variance (m: the figure
    brought to 0..1), less what Student's t takes for few of them (Korn and Graubard, Survey Methodology 24, 1998). That
    is not taken below ``n``: of a plain share it leaves Wilson's interval. ``n`` where the variance is unknown.

    Args:
        value: Shape (F,), as all.
        variance: Its jackknife variance; NaN where it is unknown.
        n: Independent observations behind it.
        scale: Least and greatest value: two numbers, or (2, F).
        freedom: Degrees of freedom of ``variance``.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        m, whole = _brought(value, scale), 1 + 1 / freedom
        plain = m * (1 - m) * whole * (scale[1] - scale[0]) ** 2 / variance
        careful = plain / whole * (Z / student_t(freedom)) ** 2
        effective = np.fmax(careful, np.fmin(plain, n))
    return np.asarray(np.where(np.isnan(effective), n, effective))


def over_repetitions(values: Sequence[float] | np.ndarray, n: float, scale: Scale) -> Interval:
    """Mean over repetitions (training seeds), each one observation, by Student's t brought onto the scale; no interval
    for a single one.

    Args:
        values: One for each.
        n: Dialogues that each was measured on: what is equal for all seeds is known no better than these can tell.
        scale: Least and greatest value.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, np.nan, np.nan)
    variance = np.var(values, ddof=1) / len(values) * (student_t(len(values) - 1) / Z) ** 2
    m = _brought(mean, scale)
    effective = m * (1 - m) * (scale[1] - scale[0]) ** 2 / variance if variance > 0 else np.inf
    low, high = _on_scale(mean, effective, n, scale)
    return Interval(mean, float(low), float(high))


def difference(
    one: tuple[np.ndarray, Ends],
    other: tuple[np.ndarray, Ends],
    correlation: np.ndarray,
    n: np.ndarray,
) -> Ends:
    """The interval of ``one`` minus ``other`` (each a value with its ends) by square-and-add: Newcombe's method 10 for
    paired shares (Statistics in Medicine 17, 1998) for any two figures. The correlation is drawn towards 0 as Wilson's
    middle is: that two students never disagreed in ``n`` dialogues is no proof that they never do.

    Args:
        one: Shape (F,), as all.
        other: What is taken away.
        correlation: Of the two over the pairs; 0 where it is unknown.
        n: Independent pairs.
    """
    (a, (low_a, high_a)), (b, (low_b, high_b)) = one, other
    r = correlation * (1 - hidden_share(n))
    return a - b - _joined(a - low_a, high_b - b, r), a - b + _joined(high_a - a, b - low_b, r)


def _joined(x: np.ndarray, y: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(x**2 - 2 * correlation * x * y + y**2, 0))


def hidden_share(n: np.ndarray | float) -> np.ndarray:
    """The share of all that may be at either end of the scale though ``n`` observations were equal: Wilson's limit."""
    return np.asarray(Z**2 / (n + Z**2))


def _brought(value: np.ndarray | float, scale: Scale | np.ndarray) -> np.ndarray:
    """Onto 0..1."""
    return np.clip((value - scale[0]) / np.maximum(scale[1] - scale[0], 1e-12), 0, 1)


def _on_scale(
    value: np.ndarray | float,
    effective: np.ndarray | float,
    n: np.ndarray | float,
    scale: Scale | np.ndarray,
) -> Ends:
    """Wilson's interval for ``effective`` observations, never narrower than what ``n`` equal ones allow."""
    m, (bottom, span), hidden = _brought(value, scale), (scale[0], scale[1] - scale[0]), hidden_share(n)
    low, high = wilson(m, effective)
    low, high = np.minimum(low, m * (1 - hidden)), np.maximum(high, m + (1 - m) * hidden)
    return np.minimum(bottom + span * low, value), np.maximum(bottom + span * high, value)
