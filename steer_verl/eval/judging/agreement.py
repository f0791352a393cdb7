"""How far two judges agree on the same answers: ``agreement.json`` of ``steer eval rejudge``.

What is compared are the turns that both have rated. A cluster is a dialogue: its turns are not independent, and the
intervals are those of whole dialogues (delete-one jackknife on the figure's own scale, steer_verl/statistics). Arrays
carry their shape as a suffix: C dialogues, X tables, V values of a scale; rows are the former judge, columns the new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steer_verl.eval.records import EvalDialogue, Rating
from steer_verl.statistics.intervals import UNDEFINED, Interval, bounded, interval_dict

SCALES = {"harmless": (-3, 3), "helpful": (0, 3)}
"""The marks' ends."""
FIGURES = {
    "equal": "share of answers with the same mark",
    "difference": "mean absolute difference of the marks",
    "alpha": "Krippendorff's alpha (interval): 1 is perfect, 0 is chance",
    "kappa": "Cohen's kappa of failures: harmless below {below:g}",
}
"""The figures of a scale, in the order in which they are printed; kappa is of ``harmless`` alone."""


@dataclass(frozen=True)
class Agreement:
    """Two judges on the same answers."""

    former: str
    judge: str
    turns: int
    """Answers that both have rated."""
    dialogues: int
    """That they lie in."""
    only_former: int
    """Answers that the former judge alone has rated."""
    only_judge: int
    fail_below: float
    """An answer with a lower harmless mark is a failure."""
    figures: dict[str, dict[str, Interval]]
    """Scale -> figure."""
    harmless_VV: np.ndarray
    """Answers by both judges' harmless marks, -3..3: rows the former, columns the new one."""

    def as_dict(self) -> dict[str, Any]:
        """``agreement.json``: plain JSON values; what is undefined is null."""
        figures = {
            scale: {name: interval_dict(value) for name, value in found.items()}
            for scale, found in self.figures.items()
        }
        return {**vars(self), "figures": figures, "harmless_VV": self.harmless_VV.astype(int).tolist()}

    def report(self) -> str:
        """A short text for a terminal."""
        both = f"{self.turns:,} answers of {self.dialogues:,} dialogues rated by both"
        alone = f"{self.only_former:,} by the former alone, {self.only_judge:,} by this one alone"
        lines = [f"{self.judge}, beside {self.former}: {both}; {alone}"]
        for scale, found in self.figures.items():
            for name, value in found.items():
                lines.append(f"{scale:9}{f'{value:.3f}':26}{FIGURES[name].format(below=self.fail_below)}")
        return "\n".join(lines)


def agreement_of(dialogues: Sequence[EvalDialogue], fail_below: float) -> Agreement:
    """The judges of rejudged dialogues, each turn's with the last of the earlier ones.

    Args:
        dialogues: of one run.
        fail_below: where a harmless mark becomes a failure.

    Raises:
        ConfigError: scipy is not installed.
    """
    pairs = [[(t.earlier[-1], t.judged) for t in d.turns if t.earlier] for d in dialogues]
    both = [[(a, b) for a, b in turns if isinstance(a, Rating) and isinstance(b, Rating)] for turns in pairs]
    both = [turns for turns in both if turns]
    flat = [pair for turns in pairs for pair in turns]
    figures, tables = {}, {}
    for scale, (low, high) in SCALES.items():
        tables[scale] = np.zeros((len(both), high - low + 1, high - low + 1))
        for cluster, turns in enumerate(both):
            for a, b in turns:
                tables[scale][cluster, getattr(a, scale) - low, getattr(b, scale) - low] += 1
        cut = None if scale == "helpful" else sum(value < fail_below for value in range(low, high + 1))
        figures[scale] = figures_of(tables[scale], high - low, cut)
    return Agreement(
        former=_names(a.judge for a, _ in flat),
        judge=_names(b.judge for _, b in flat),
        turns=sum(map(len, both)),
        dialogues=len(both),
        only_former=sum(isinstance(a, Rating) and not isinstance(b, Rating) for a, b in flat),
        only_judge=sum(isinstance(b, Rating) and not isinstance(a, Rating) for a, b in flat),
        fail_below=fail_below,
        figures=figures,
        harmless_VV=tables["harmless"].sum(axis=0),
    )


def _names(judges: Any) -> str:
    return ", ".join(dict.fromkeys(judges)) or "nobody"


def figures_of(tables_CVV: np.ndarray, span: int, cut: int | None) -> dict[str, Interval]:
    """The figures of all dialogues together, with their intervals.

    Args:
        tables_CVV: of each dialogue, answers by both judges' marks.
        span: from the least mark to the greatest.
        cut: how many of the least marks are failures; ``None``: there is no kappa.
    """
    scales = {"equal": (0.0, 1.0), "difference": (0.0, float(span)), "alpha": (-1.0, 1.0), "kappa": (-1.0, 1.0)}
    whole_VV = tables_CVV.sum(axis=0)
    values = _of_tables(whole_VV[None], cut)
    without = _of_tables(whole_VV - tables_CVV, cut)
    marks_CV = tables_CVV.sum(axis=1) + tables_CVV.sum(axis=2)
    n = dict.fromkeys(scales, float(len(tables_CVV))) | {"alpha": _telling(marks_CV)}
    if cut is not None:
        n["kappa"] = _telling(np.stack([marks_CV[:, :cut].sum(axis=1), marks_CV[:, cut:].sum(axis=1)], axis=1))
    return {name: _interval(values[name][0], without[name], n[name], scales[name]) for name in values}


def _telling(marks_CV: np.ndarray) -> float:
    """Dialogues, as independent observations of equal weight (Kish, 1965), that tell how far an agreement is beyond
    chance: those that have another mark than the commonest, weighed by how far off it lies."""
    step_V = np.arange(marks_CV.shape[1])
    weight_C = marks_CV @ (step_V - marks_CV.sum(axis=0).argmax()) ** 2.0 if len(marks_CV) else np.zeros(0)
    return float(weight_C.sum() ** 2 / (weight_C**2).sum()) if weight_C.any() else 0.0


def _of_tables(tables_XVV: np.ndarray, cut: int | None) -> dict[str, np.ndarray]:
    """Each figure of each table; NaN where it is undefined."""
    step_V = np.arange(tables_XVV.shape[1])
    apart_VV = np.abs(step_V[:, None] - step_V).astype(float)
    n_X = tables_XVV.sum(axis=(1, 2))
    totals_XV = tables_XVV.sum(axis=1) + tables_XVV.sum(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "equal": np.trace(tables_XVV, axis1=1, axis2=2) / n_X,
            "difference": (tables_XVV * apart_VV).sum(axis=(1, 2)) / n_X,
        }
        seen_X = 2 * (tables_XVV * apart_VV**2).sum(axis=(1, 2))
        chance_X = np.einsum("xv,vw,xw->x", totals_XV, apart_VV**2, totals_XV)
        found["alpha"] = np.where(chance_X > 0, 1 - (2 * n_X - 1) * seen_X / chance_X, np.nan)
        if cut is not None:
            bad_X = tables_XVV[:, :cut, :cut].sum(axis=(1, 2))
            former_X, new_X = tables_XVV[:, :cut].sum(axis=(1, 2)), tables_XVV[:, :, :cut].sum(axis=(1, 2))
            alike_X = (n_X - former_X - new_X + 2 * bad_X) / n_X
            luck_X = (former_X * new_X + (n_X - former_X) * (n_X - new_X)) / n_X**2
            found["kappa"] = np.where(luck_X < 1, (alike_X - luck_X) / (1 - luck_X), np.nan)
    return found


def _interval(value: float, without_C: np.ndarray, n: float, scale: tuple[float, float]) -> Interval:
    """By the jackknife over dialogues, of which ``n`` tell something; undefined with the value."""
    if not np.isfinite(value):
        return UNDEFINED
    clusters = len(without_C)
    variance = (clusters - 1) / clusters * ((without_C - without_C.mean()) ** 2).sum() if clusters > 1 else np.nan
    low, high = bounded(np.array([value]), np.array([variance]), np.array([n]), scale, np.array([max(n - 1, 1e-9)]))
    return Interval(float(value), float(low[0]), float(high[0]))
