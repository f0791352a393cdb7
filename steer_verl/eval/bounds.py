"""What survival could have been, had the missing marks been there.

Whatever fills the unrated and unplayed turns, S(t) lies between two extremes, and both are reached. Two facts about
the product limit give them, whatever the other dialogues do: failing somewhere up to t makes S(t) smaller than not
failing, and failing later (but not after t) makes it smaller than failing earlier, because dialogues that end in
between leave their weight to those that are still at risk. So

* at the greatest S(t), a dialogue without a rated failure up to t passes its missing turns, and one that has such a
  failure fails already at its first missing turn before it;
* at the least S(t), a dialogue fails at its rated failure if that is not after t, else at its last missing turn that is
  not.

Arrays: N dialogues, T turns (index 0 is turn 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steer_verl.eval.marks import DialogueMarks
from steer_verl.eval.survival import HORIZON, SAFE_FROM, product_limit


@dataclass(frozen=True)
class Turns:
    """Where dialogues fail, where they are unknown, and how long they are."""

    failed_NT: np.ndarray
    missing_NT: np.ndarray
    length_N: np.ndarray

    @property
    def first_failure_N(self) -> np.ndarray:
        """The turn (from 1) of the first rated failure; T + 1 where there is none."""
        return _first(self.failed_NT)

    @property
    def open_NT(self) -> np.ndarray:
        """Missing turns before the first rated failure: the dialogue might have failed there."""
        turn_T = np.arange(1, self.missing_NT.shape[1] + 1)
        return self.missing_NT & (turn_T < self.first_failure_N[:, None])


def turns_of(dialogues: Sequence[DialogueMarks], horizon: int = HORIZON, fail_below: int = SAFE_FROM) -> Turns:
    """The turns of ``dialogues`` up to ``horizon``."""
    failed_NT = np.zeros((len(dialogues), horizon), dtype=bool)
    missing_NT = np.zeros_like(failed_NT)
    for row, d in enumerate(dialogues):
        for t, mark in enumerate(d.harmless[:horizon]):
            failed_NT[row, t] = mark is not None and mark < fail_below
            missing_NT[row, t] = mark is None
    lengths = [min(d.length, horizon) for d in dialogues]
    return Turns(failed_NT, missing_NT, np.array(lengths, dtype=int))


def survival_bounds(turns: Turns) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest S(t), t = 1..T."""
    last, first_N, open_NT = turns.failed_NT.shape[1], turns.first_failure_N, turns.open_NT
    earliest_N = np.minimum(_first(open_NT), first_N)
    least_T, greatest_T = np.ones(last), np.ones(last)
    for t in range(1, last + 1):
        broke_N = first_N <= t
        latest_N = np.where(broke_N, first_N, _last(open_NT[:, :t]))
        least_T[t - 1] = _survival(latest_N, latest_N > 0, turns.length_N, t)
        greatest_T[t - 1] = _survival(earliest_N, broke_N, turns.length_N, t)
    return least_T, greatest_T


def hazard_bounds(turns: Turns) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest share of those at risk that fail at turn 1..T; NaN where nobody can be at risk."""
    turn_T = np.arange(1, turns.failed_NT.shape[1] + 1)
    first_N1 = turns.first_failure_N[:, None]
    here_NT = (turn_T <= turns.length_N[:, None]) & (first_N1 >= turn_T)
    fails_NT = here_NT & (turns.failed_NT | turns.missing_NT)
    holds_NT = here_NT & (first_N1 > turn_T)
    gone_NT = here_NT & (_first(turns.missing_NT)[:, None] < turn_T)
    most_T = _share(fails_NT, holds_NT & ~fails_NT & ~gone_NT, np.where(here_NT.any(axis=0), 0.0, np.nan))
    must_fail_NT = fails_NT & ~holds_NT & ~gone_NT
    least_T = _share(must_fail_NT, holds_NT, np.where(here_NT.any(axis=0), 1.0, np.nan))
    return least_T, most_T


def possible_at_risk(turns: Turns) -> np.ndarray:
    """How many dialogues could have been at risk at turn 1..T."""
    turn_T = np.arange(1, turns.failed_NT.shape[1] + 1)
    here_NT = (turn_T <= turns.length_N[:, None]) & (turns.first_failure_N[:, None] >= turn_T)
    return here_NT.sum(axis=0)


def _survival(fails_N: np.ndarray, failed_N: np.ndarray, length_N: np.ndarray, t: int) -> float:
    """S(t) when the dialogues of ``failed_N`` fail at ``fails_N`` and the others hold to their end."""
    turn_T = np.arange(1, t + 1)
    end_N = np.where(failed_N, fails_N, length_N)
    failed_T = ((fails_N[:, None] == turn_T) & failed_N[:, None]).sum(axis=0)
    return float(product_limit(failed_T, (end_N[:, None] >= turn_T).sum(axis=0))[-1])


def _share(failed_NT: np.ndarray, held_NT: np.ndarray, empty_T: np.ndarray) -> np.ndarray:
    failed_T, n_T = failed_NT.sum(axis=0), (failed_NT | held_NT).sum(axis=0)
    return np.divide(failed_T, n_T, out=empty_T.astype(float), where=n_T > 0)


def _first(flags_NT: np.ndarray) -> np.ndarray:
    """The first turn (from 1) that is set; T + 1 where none is."""
    return np.where(flags_NT.any(axis=1), flags_NT.argmax(axis=1), flags_NT.shape[1]) + 1


def _last(flags_NT: np.ndarray) -> np.ndarray:
    """The last turn (from 1) that is set; 0 where none is."""
    return np.where(flags_NT.any(axis=1), flags_NT.shape[1] - flags_NT[:, ::-1].argmax(axis=1), 0)
