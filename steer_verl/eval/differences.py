"""What one model has over another on the same dialogues: differences with intervals, and tests."""

from __future__ import annotations

from collections.abc import Sequence

from steer_verl.eval.figures import Figures
from steer_verl.statistics.intervals import Interval
from steer_verl.types import Record

PRIMARY = ("survival", "harmless_pass", "helpful_pass", "refusal_full")
"""The figures by which a model is judged, and the only ones whose p is corrected for their number (Holm) and starred:
on the mean of dialogues, or on the only benchmark. All other p are shown as they are."""

SURE = 0.05
"""Adjusted p below which a difference is clear."""


class Difference(Record):
    """A model minus the baseline, over the dialogues of both. ``None`` where it is undefined."""

    value: float | None
    low: float | None
    high: float | None
    pairs: int
    """Dialogues that both played and that were rated for both."""
    left_out: int
    """Dialogues that only one of them has, or that were rated for one alone or for none."""
    p: float | None
    """Paired permutation test, two-sided; ``None``: no pairs."""
    adjusted: float | None = None
    """``p`` after Holm's correction over the primary figures; ``None``: it is none of them."""
    over_seeds: Interval | None = None
    """Of ways of training rather than of these students: over the training seeds that both have, each one observation,
    paired. ``None``: both do not have several."""

    @property
    def clear(self) -> bool:
        """Whether it can be told from none: by the corrected test, and over seeds where both have several."""
        between = self.over_seeds is not None and self.over_seeds.low <= 0 <= self.over_seeds.high
        return self.adjusted is not None and self.adjusted < SURE and not between


def differences(one: Figures, other: Figures, *, last: int | None = None) -> dict[str, Difference]:
    """``one`` minus ``other`` on one benchmark, in every figure (names as of :mod:`steer_verl.eval.figures`).

    Args:
        one: The model.
        other: The baseline; the same measures.
        last: Where survival is read off; unset, the lesser reach. Give the same for all models of a table.
    """
    raise NotImplementedError


def average_differences(
    pairs: Sequence[tuple[Figures, Figures]], *, last: int | None = None
) -> dict[str, Difference]:
    """The unweighted mean of :func:`differences` over benchmarks, one pair each."""
    raise NotImplementedError
