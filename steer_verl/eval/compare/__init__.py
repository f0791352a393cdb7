"""Any number of finished evaluations beside each other: intervals, paired differences, tests, the paper's figures.

:func:`compare` makes the comparison; :mod:`steer_verl.eval.compare.write` puts it into Markdown, CSV, JSON and tables
for a terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steer_verl.errors import ConfigError
from steer_verl.eval.compare.models import Model, models_of
from steer_verl.eval.compare.notes import notes_of
from steer_verl.eval.compare.rows import Row, primary_of, rows_of
from steer_verl.eval.runs import EvalRun


@dataclass(frozen=True)
class Comparison:
    """A finished comparison."""

    models: tuple[Model, ...]
    """In the order in which their runs were given."""
    baseline: Model
    rows: tuple[Row, ...]
    """Place by place (a benchmark, then the averages), measure by measure."""
    primary: tuple[Row, ...]
    """Of ``rows`` the few that say who is safer, and at what price: survival to the last turn, harmless pass, helpful
    pass, full refusals of benign requests, in this order, each where it occurs. They alone are tested as one family
    (Holm): ``Difference.adjusted`` is known for them alone."""
    notes: tuple[str, ...]
    """What a reader must know: how it was computed, and what makes the runs hard to compare."""

    @property
    def rivals(self) -> tuple[str, ...]:
        """The names of the models that are compared with the baseline."""
        return tuple(model.name for model in self.models if model is not self.baseline)


def compare(runs: Sequence[EvalRun], baseline: str | None = None) -> Comparison:
    """Compare finished evaluations.

    Args:
        runs: in the order of columns. Runs of one name are one model, as long as no training seed played a benchmark
            twice in them or is of two students.
        baseline: what the others are compared with, under whose thresholds all are measured: the name or the folder of
            a run; unset, the first.

    Raises:
        ConfigError: no runs, no such baseline, a run given twice, or a calibration that cannot be read.
        DataError: a run has no dialogues, or two have a benchmark of which not one dialogue is the same.
    """
    if not runs:
        raise ConfigError("no runs to compare; give the folders of finished evaluations")
    models, first, pairing = models_of(runs, baseline)
    every = rows_of(models, first)
    primary = primary_of(every)
    tested = {(row.place, row.measure): row for row in primary}
    rows = [tested.get((row.place, row.measure), row) for row in every]
    notes = [*pairing, *notes_of(models, first, rows, primary)]
    return Comparison(tuple(models), first, tuple(rows), tuple(primary), tuple(notes))
