"""How a tutor's safety scores compare with people's, on answers that people have scored.

Arrays carry their shape as a suffix: N answers, R people. Figures are over the answers that the tutor scored, and they
are stored with its identity: they say nothing about any other model, rubric or prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

import numpy as np

from steer_verl.errors import DataError
from steer_verl.rubric import BREACH_SAFETY
from steer_verl.statistics import Detection, Interval, bootstrap, detection, interval_dict, krippendorff_alpha, spearman
from steer_verl.tutor.identity import Identity
from steer_verl.tutor.labelled import LabelledSet
from steer_verl.types import TurnVerdict, Unscored, Usage, Verdict

FIGURES = {
    "mae": "mean absolute error, points of 9",
    "bias": "mean of tutor minus human",
    "spearman": "Spearman's rank correlation",
    "alpha": "Krippendorff's alpha (interval), tutor with the human mean",
    "alpha_humans": "Krippendorff's alpha (interval), among the humans",
    "sensitivity": "share of human-called breaches that the tutor calls breaches",
    "specificity": "share of human-called safe answers that the tutor calls safe",
}
"""The figures, in the order in which they are printed. ``alpha_humans`` needs two people."""


@dataclass(frozen=True)
class Calibration:
    """A tutor's verdicts against people's scores.

    Args:
        data: what people said.
        verdicts: what the tutor said, by ``Labelled.key``.
        identity: which tutor.
        threshold: safety at or below this is a breach, to both.
        usage: what the verdicts cost.
        seed: of the bootstrap, which draws answers.
        date: when it was made.

    Raises:
        DataError: not one answer was scored.
    """

    data: LabelledSet
    verdicts: Mapping[str, TurnVerdict]
    identity: Identity
    threshold: float = BREACH_SAFETY
    usage: Usage = field(default_factory=Usage)
    seed: int = 0
    date: str = field(default_factory=lambda: datetime.now(timezone.utc).date().isoformat())

    def __post_init__(self) -> None:
        if not self.scored_N.any():
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.unscored.items()))
            raise DataError(
                f"{self.data.name}: none of {len(self.tutor_N)} answers was scored ({reasons}); run steer tutor check"
            )

    @cached_property
    def tutor_N(self) -> np.ndarray:
        """The tutor's safety (1..10) by row; NaN where it gave none."""
        found = (self.verdicts[row.key] for row in self.data.rows)
        return np.array([v.scores.safety if isinstance(v, Verdict) else np.nan for v in found], dtype=float)

    @cached_property
    def human_N(self) -> np.ndarray:
        """Mean safety (1..10) over the people who rated each row."""
        return np.nanmean(self.data.ratings_RN, axis=0)

    @property
    def scored_N(self) -> np.ndarray:
        """Which rows the tutor scored."""
        return np.isfinite(self.tutor_N)

    @property
    def unscored(self) -> dict[str, int]:
        """Answers without a score, by reason."""
        found = (self.verdicts[row.key] for row in self.data.rows)
        return dict(Counter(verdict.reason.value for verdict in found if isinstance(verdict, Unscored)))

    @property
    def known(self) -> Detection:
        """The tutor's errors in finding breaches."""
        return detection(self.human_N[self.scored_N], self.tutor_N[self.scored_N], self.threshold)

    @cached_property
    def figures(self) -> dict[str, Interval]:
        """By the names of :data:`FIGURES`."""
        ratings_RN = self.data.ratings_RN[:, self.scored_N]
        return _figures(ratings_RN, self.tutor_N[self.scored_N], self.threshold, self.seed)

    def levels(self) -> list[dict[str, float]]:
        """By human level (rounded to a whole point): how many answers, and the tutor's mean and spread there."""
        human_N, tutor_N = np.round(self.human_N[self.scored_N]), self.tutor_N[self.scored_N]
        by_level = {float(level): tutor_N[human_N == level] for level in np.unique(human_N)}
        return [
            {"human": level, "n": len(scores), "mean": float(scores.mean()), "sd": float(scores.std())}
            for level, scores in by_level.items()
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is undefined is null."""
        return {
            "tutor": {**self.identity.model_dump(), "key": self.identity.key},
            "date": self.date,
            "data": self.data.name,
            "scale": self.data.scale.value,
            "raters": len(self.data.raters),
            "n": len(self.tutor_N),
            "scored": int(self.scored_N.sum()),
            "unscored": self.unscored,
            "breach_threshold": self.threshold,
            "figures": {name: interval_dict(interval) for name, interval in self.figures.items()},
            "detection": vars(self.known),
            "levels": self.levels(),
            "usage": self.usage.model_dump(),
        }


def _figures(ratings_RN: np.ndarray, tutor_N: np.ndarray, threshold: float, seed: int) -> dict[str, Interval]:
    human_N = np.nanmean(ratings_RN, axis=0)
    figures: dict[str, Callable[[np.ndarray], float]] = {  # each from the answers drawn
        "mae": lambda i_N: float(np.abs(tutor_N[i_N] - human_N[i_N]).mean()),
        "bias": lambda i_N: float((tutor_N[i_N] - human_N[i_N]).mean()),
        "spearman": lambda i_N: spearman(human_N[i_N], tutor_N[i_N]),
        "alpha": lambda i_N: krippendorff_alpha(np.stack([human_N[i_N], tutor_N[i_N]])),
        "alpha_humans": lambda i_N: krippendorff_alpha(ratings_RN[:, i_N]),
        "sensitivity": lambda i_N: detection(human_N[i_N], tutor_N[i_N], threshold).sensitivity,
        "specificity": lambda i_N: detection(human_N[i_N], tutor_N[i_N], threshold).specificity,
    }
    if len(ratings_RN) == 1:
        del figures["alpha_humans"]
    return {name: bootstrap(figure, len(tutor_N), seed) for name, figure in figures.items()}
