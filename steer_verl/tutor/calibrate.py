"""How a tutor's safety scores compare with people's, on answers that people have scored.

Arrays carry their shape as a suffix: R people, N answers that the tutor scored; an unscored one enters no figure. The
figures are stored with the tutor's identity: they say nothing about any other model, rubric or prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np

from steer_verl.errors import DataError
from steer_verl.rubric import BREACH_SAFETY
from steer_verl.statistics.agreement import Detection, bootstrap, detection, krippendorff_alpha, spearman
from steer_verl.statistics.intervals import Interval, interval_dict
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
    """A tutor's verdicts, by ``Labelled.key``, against people's scores. Raises ``DataError``: none was scored."""

    data: LabelledSet
    verdicts: Mapping[str, TurnVerdict]
    identity: Identity
    threshold: float = BREACH_SAFETY  # safety at or below this is a breach, to both
    usage: Usage = field(default_factory=Usage)  # what the verdicts cost
    seed: int = 0  # of the bootstrap, which draws answers
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())

    def __post_init__(self) -> None:
        if not len(self.tutor_N):
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.unscored.items()))
            raise DataError(
                f"{self.data.name}: none of {len(self.data.rows)} answers was scored ({reasons}); run steer tutor check"
            )

    @cached_property
    def tutor_N(self) -> np.ndarray:
        """The tutor's safety, 1..10."""
        found = (self.verdicts[row.key] for row in self.data.rows)
        return np.array([verdict.scores.safety for verdict in found if isinstance(verdict, Verdict)], dtype=float)

    @cached_property
    def ratings_RN(self) -> np.ndarray:
        """Safety (1..10) by each person; NaN where one did not rate."""
        scored = [isinstance(self.verdicts[row.key], Verdict) for row in self.data.rows]
        return self.data.ratings_RN[:, scored]

    @cached_property
    def human_N(self) -> np.ndarray:
        """Mean safety (1..10) over the people who rated each answer."""
        return np.nanmean(self.ratings_RN, axis=0)

    @property
    def unscored(self) -> dict[str, int]:
        """Answers without a score, by reason."""
        found = (self.verdicts[row.key] for row in self.data.rows)
        return dict(Counter(verdict.reason.value for verdict in found if isinstance(verdict, Unscored)))

    @property
    def known(self) -> Detection:
        """The tutor's errors in finding breaches."""
        return detection(self.human_N <= self.threshold, self.tutor_N <= self.threshold)

    @cached_property
    def figures(self) -> dict[str, Interval]:
        """By the names of :data:`FIGURES`, each with its interval."""
        human_N, tutor_N = self.human_N, self.tutor_N
        figures: dict[str, Callable[[np.ndarray], float]] = {
            "mae": lambda i_N: float(np.abs(tutor_N[i_N] - human_N[i_N]).mean()),
            "bias": lambda i_N: float((tutor_N[i_N] - human_N[i_N]).mean()),
            "spearman": lambda i_N: spearman(human_N[i_N], tutor_N[i_N]),
            "alpha": lambda i_N: krippendorff_alpha(np.stack([human_N[i_N], tutor_N[i_N]])),
            "alpha_humans": lambda i_N: krippendorff_alpha(self.ratings_RN[:, i_N]),
        }
        if len(self.ratings_RN) == 1:
            del figures["alpha_humans"]
        found = {name: bootstrap(figure, len(tutor_N), self.seed) for name, figure in figures.items()}
        return {**found, "sensitivity": self.known.sensitivity, "specificity": self.known.specificity}

    def levels(self) -> list[dict[str, float]]:
        """By human level (rounded to a whole point): how many answers, and the tutor's mean and spread there."""
        rounded_N = np.round(self.human_N)
        by_level = {float(level): self.tutor_N[rounded_N == level] for level in np.unique(rounded_N)}
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
            "n": len(self.data.rows),
            "scored": len(self.tutor_N),
            "unscored": self.unscored,
            "breach_threshold": self.threshold,
            "figures": {name: interval_dict(interval) for name, interval in self.figures.items()},
            "detection": vars(self.known),
            "levels": self.levels(),
            "usage": self.usage.model_dump(),
        }
