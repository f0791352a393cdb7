"""``steer tutor calibrate``: how a tutor's safety scores compare with people's, on answers that people have scored.

Results are stored with the tutor's identity, because they say nothing about any other model, rubric or prompt.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from steer_verl.errors import DataError
from steer_verl.eval.intervals import Interval, bootstrap, interval_dict
from steer_verl.rubric import BREACH_SAFETY
from steer_verl.tutor.identity import Identity
from steer_verl.types import TurnVerdict, Unscored, Usage, Verdict
from steer_verl.vetting.agreement import Detection, detection, krippendorff_alpha, spearman
from steer_verl.vetting.labelled import LabelledSet

logger = logging.getLogger(__name__)

FIGURES = {
    "mae": "mean absolute error, points of 9",
    "bias": "mean of tutor minus human",
    "spearman": "Spearman's rank correlation",
    "alpha": "Krippendorff's alpha (interval), tutor with the human mean",
    "alpha_humans": "Krippendorff's alpha (interval), among the humans",
    "sensitivity": "share of human-called breaches that the tutor calls breaches",
    "specificity": "share of human-called safe answers that the tutor calls safe",
}
"""The figures, in the order in which they are printed."""


@dataclass(frozen=True)
class Calibration:
    """A finished comparison. Figures are over the answers that the tutor scored."""

    identity: Identity
    data: LabelledSet
    tutor_N: np.ndarray
    """The tutor's safety (1..10) by row; NaN where it gave none."""
    unscored: dict[str, int]
    """Answers without a score, by reason."""
    figures: dict[str, Interval]
    known: Detection
    threshold: float
    usage: Usage
    date: str

    @property
    def human_N(self) -> np.ndarray:
        """Mean safety (1..10) over the people who rated each row."""
        return np.nanmean(self.data.ratings_RN, axis=0)

    @property
    def scored_N(self) -> np.ndarray:
        """Which rows the tutor scored."""
        return np.isfinite(self.tutor_N)

    def levels(self) -> list[dict[str, float]]:
        """By human level (rounded to a whole point): how many answers, and the tutor's mean and spread there."""
        human_N, tutor_N = np.round(self.human_N[self.scored_N]), self.tutor_N[self.scored_N]
        by_level = {float(level): tutor_N[human_N == level] for level in np.unique(human_N)}
        return [
            {"human": level, "n": len(given), "mean": float(given.mean()), "sd": float(given.std())}
            for level, given in by_level.items()
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


def compare(
    data: LabelledSet,
    judgements: Mapping[str, TurnVerdict],
    identity: Identity,
    *,
    threshold: float = BREACH_SAFETY,
    usage: Usage | None = None,
    seed: int = 0,
) -> Calibration:
    """The figures of a tutor against people.

    Args:
        data: what people said.
        judgements: what the tutor said, by ``Labelled.key``.
        identity: which tutor.
        threshold: safety at or below this is a breach, to both.
        usage: what the judgements cost.
        seed: of the bootstrap, which draws answers.

    Raises:
        DataError: not one answer was scored.
    """
    found = [judgements[row.key] for row in data.rows]
    unscored = Counter(verdict.reason.value for verdict in found if isinstance(verdict, Unscored))
    tutor_N = np.array([j.scores.safety if isinstance(j, Verdict) else np.nan for j in found], dtype=float)
    scored_N = np.isfinite(tutor_N)
    if not scored_N.any():
        reasons = ", ".join(f"{count} {reason}" for reason, count in unscored.most_common())
        raise DataError(f"{data.name}: none of {len(found)} answers was scored ({reasons}); run steer tutor check")
    ratings_RN = data.ratings_RN[:, scored_N]
    human_N = np.nanmean(ratings_RN, axis=0)
    return Calibration(
        identity=identity,
        data=data,
        tutor_N=tutor_N,
        unscored=dict(unscored),
        figures=_figures(ratings_RN, tutor_N[scored_N], threshold, seed),
        known=detection(human_N, tutor_N[scored_N], threshold),
        threshold=threshold,
        usage=usage or Usage(),
        date=datetime.now(timezone.utc).date().isoformat(),
    )


def _figures(ratings_RN: np.ndarray, tutor_N: np.ndarray, threshold: float, seed: int) -> dict[str, Interval]:
    human_N = np.nanmean(ratings_RN, axis=0)

    def found(drawn_N: np.ndarray) -> Detection:
        return detection(human_N[drawn_N], tutor_N[drawn_N], threshold)

    statistics: dict[str, Callable[[np.ndarray], float]] = {
        "mae": lambda i_N: float(np.abs(tutor_N[i_N] - human_N[i_N]).mean()),
        "bias": lambda i_N: float((tutor_N[i_N] - human_N[i_N]).mean()),
        "spearman": lambda i_N: spearman(human_N[i_N], tutor_N[i_N]),
        "alpha": lambda i_N: krippendorff_alpha(np.stack([human_N[i_N], tutor_N[i_N]])),
        "alpha_humans": lambda i_N: krippendorff_alpha(ratings_RN[:, i_N]),
        "sensitivity": lambda i_N: found(i_N).sensitivity,
        "specificity": lambda i_N: found(i_N).specificity,
    }
    if len(ratings_RN) == 1:
        del statistics["alpha_humans"]
    return {name: bootstrap(f, len(tutor_N), seed) for name, f in statistics.items()}


def write(calibration: Calibration, folder: Path) -> list[Path]:
    """Store calibration.json, calibration.md and, where matplotlib is installed, reliability.png; what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    stored, told, drawn = (folder / name for name in ("calibration.json", "calibration.md", "reliability.png"))
    stored.write_text(json.dumps(calibration.as_dict(), indent=2) + "\n", encoding="utf-8")
    written = [stored, told]
    try:
        from steer_verl.plots import reliability_plot

        keep = calibration.scored_N
        title = f"Tutor and people: {keep.sum()} answers of {calibration.data.name}"
        subtitle = f"{calibration.identity.tutor[:60]}, {calibration.date}"
        reliability_plot(
            calibration.human_N[keep], calibration.tutor_N[keep], drawn, title, subtitle, calibration.threshold
        )
        written.append(drawn)
    except ImportError:  # the figures are worth having without the picture
        drawn.unlink(missing_ok=True)
        logger.warning("no %s: matplotlib is not installed; pip install 'steer-verl[plots]'", drawn.name)
    told.write_text(markdown(calibration, picture=drawn.name if drawn in written else ""), encoding="utf-8")
    return written


def markdown(calibration: Calibration, picture: str = "") -> str:
    """The report for people."""
    identity, known = calibration.identity, calibration.known
    lost = sum(calibration.unscored.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(calibration.unscored.items()))
    lines = [
        f"# Calibration of {identity.tutor}",
        "",
        f"{calibration.date}; {calibration.data.name} (human scale: {calibration.data.scale.value}, "
        f"{len(calibration.data.raters)} human scores each); identity {identity.key}, prompt {identity.prompt}.",
        f"{calibration.scored_N.sum()} answers scored, {lost} unscored{f' ({reasons})' if lost else ''}; unscored ones "
        f"enter no figure. A breach is safety <= {calibration.threshold:g}.",
        "",
        *_table(
            ("figure", "value", "95 % interval"),
            [(FIGURES[name], *_words(interval)) for name, interval in calibration.figures.items()],
        ),
        "",
        f"Breaches: {known.caught} caught, {known.missed} missed. Safe answers: {known.cleared} cleared, "
        f"{known.blamed} called breaches. `corrected_pass_rate` of `steer_verl.vetting.agreement` corrects pass "
        "rates by these counts.",
        "",
        *_table(
            ("human level", "answers", "tutor's mean", "spread (sd)"),
            [(f"{r['human']:g}", str(r["n"]), f"{r['mean']:.2f}", f"{r['sd']:.2f}") for r in calibration.levels()],
        ),
        *(("", f"![human and tutor scores]({picture})") if picture else ()),
    ]
    return "\n".join(lines) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def _words(interval: Interval) -> tuple[str, str]:
    if not np.isfinite(interval.value):
        return "undefined", ""
    return f"{interval.value:.3f}", f"{interval.low:.3f} .. {interval.high:.3f}"
