"""Figures of evaluated dialogues: every measure, and survival by turn, with interval and bounds.

A figure is a function of sums over clusters. A cluster is one dialogue of a benchmark with all that the pooled training
seeds' students made of it; turns of a dialogue are never taken apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from steer_verl.eval.config import MarkSettings
from steer_verl.eval.estimate import Estimate
from steer_verl.eval.marks import DialogueMarks, Key
from steer_verl.eval.measures import MEASURES, Measure
from steer_verl.statistics.intervals import Interval

# Names of figures: the measures' (measures.py, MEASURES), and where attacked dialogues of several turns are:
# "survival:<t>" (S at turn t, in percent), "survival" (at turn `last`) and "mean_turns" (turns survived of `last`).


@dataclass(frozen=True)
class Figures:
    """Dialogues of one benchmark, or of several together, ready to be measured."""

    measures: Mapping[str, Measure]

    @property
    def keys(self) -> tuple[Key, ...]:
        """The clusters, sorted: ``(benchmark, digest or id)``."""
        raise NotImplementedError

    @property
    def runs(self) -> tuple[int, ...]:
        """The training seeds whose students played, sorted."""
        raise NotImplementedError

    @property
    def reach(self) -> int:
        """The last turn to speak of: that 20 attacked dialogues have, or half of fewer than 40. 0: nobody is attacked
        over several turns, and there is no survival."""
        raise NotImplementedError

    def choose(self, keys: Collection[Key]) -> Figures:
        """Only these clusters."""
        raise NotImplementedError

    def of_run(self, run: int) -> Figures:
        """Only what the student of this training seed made."""
        raise NotImplementedError

    def estimates(self, last: int | None = None) -> dict[str, Estimate]:
        """Every figure that applies to these dialogues; ``last`` (unset: :attr:`reach`) is where survival is read
        off."""
        raise NotImplementedError


def figures_of(
    dialogues: Sequence[DialogueMarks], thresholds: MarkSettings, measures: Mapping[str, Measure] = MEASURES
) -> Figures:
    """``dialogues`` measured under ``thresholds``."""
    raise NotImplementedError


def average(figures: Sequence[Figures], last: int | None = None) -> dict[str, Estimate]:
    """Unweighted mean of every figure that all of ``figures`` (one a benchmark) have; survival up to turn ``last``
    (unset: the least :attr:`Figures.reach`), where all have it."""
    raise NotImplementedError


def over_seeds(figures: Sequence[Figures], last: int | None = None) -> dict[str, Interval]:
    """Every figure of a way of training: its mean over training seeds, each one observation. Of several ``figures`` (one
    a benchmark) it is that of their average, over the seeds that played all. Empty for a single seed."""
    raise NotImplementedError
