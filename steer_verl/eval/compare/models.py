"""The sides of a comparison: models, each made of one finished run or of several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from steer_verl.errors import ConfigError, DataError
from steer_verl.eval.compare.pairing import COPY, Keys, keys_of
from steer_verl.eval.figures import Figures, figures_of
from steer_verl.eval.marks import DialogueMarks, of_several_turns
from steer_verl.eval.published import whole
from steer_verl.eval.runs import EvalRun
from steer_verl.eval.summary import marked


@dataclass(frozen=True)
class Model:
    """One column of the table."""

    name: str
    runs: tuple[EvalRun, ...]
    """Several: of different training seeds, or on different benchmarks."""
    figures: Mapping[str, Figures]
    """Benchmark -> its dialogues, in the order of the runs."""

    @property
    def pooled(self) -> bool:
        """Whether students of several training seeds played one benchmark."""
        return any(len(found.runs) > 1 for found in self.figures.values())

    @property
    def uneven(self) -> bool:
        """Whether not all of them played the same dialogues of it."""
        return any(found.of_all(found.runs).keys != found.keys for found in self.figures.values())

    def whole(self, benchmarks: Collection[str]) -> bool:
        """Whether no dialogue of these was ended by its run's ``max_turns``."""
        return all(whole(d.oddities) for run in self.runs for d in run.dialogues if d.benchmark in benchmarks)


def models_of(runs: Sequence[EvalRun], baseline: str | None) -> tuple[list[Model], Model, list[str]]:
    """The models of ``runs`` in their order, the one that the others are compared with, and notes on their pairing.

    Runs of one name are one model unless a training seed (``student.run``) played one benchmark in two of them, or is
    of two students: then each stands for itself and is told apart by its folder. All are measured under the baseline's
    thresholds.

    Raises:
        ConfigError: no run is called ``baseline``, or two have one name and one folder.
        DataError: a run has no dialogues, or two have a benchmark of which nothing is common.
    """
    if empty := [run for run in runs if not run.dialogues]:
        raise DataError(f"{empty[0].folder}: a run without dialogues; leave it out")
    sides = _sides(runs)
    first = _find(sides, baseline)
    ordered = [*sides[first], *(run for name, side in sides.items() if name != first for run in side)]
    keys, notes = keys_of(ordered)
    keys_by_run = dict(zip(map(id, ordered), keys, strict=True))
    thresholds, several = (
        sides[first][0].about.mark_settings,
        of_several_turns(d for run in runs for d in run.dialogues),
    )
    models = []
    for name, side in sides.items():
        marks = [mark for run in side for mark in _marks(run, keys_by_run[id(run)], several)]
        benchmarks = dict.fromkeys(benchmark for run in side for benchmark in run.benchmarks)
        names = [*benchmarks, *sorted({mark.benchmark for mark in marks} - benchmarks.keys())]
        rows = {name: [mark for mark in marks if mark.benchmark == name] for name in names}
        figures = {benchmark: figures_of(some, thresholds) for benchmark, some in rows.items() if some}
        models.append(Model(name, tuple(side), figures))
    return models, next(model for model in models if model.name == first), notes


def _sides(runs: Sequence[EvalRun]) -> dict[str, list[EvalRun]]:
    groups: dict[str, list[EvalRun]] = {}
    for run in runs:
        groups.setdefault(run.name, []).append(run)
    sides: dict[str, list[EvalRun]] = {}
    for name, group in groups.items():
        played = Counter(part for run in group for part in {(d.run, d.benchmark) for d in run.dialogues})
        students = {(d.run, run.about.student) for run in group for d in run.dialogues}
        if max(played.values()) == 1 and len(students) == len({seed for seed, _ in students}):
            sides[name] = group
        else:
            sides |= {f"{name} ({run.folder})": [run] for run in group}
    if sum(map(len, sides.values())) < len(runs):
        raise ConfigError("two of the runs have one name and one folder; give each run once")
    return sides


def _find(sides: Mapping[str, Sequence[EvalRun]], wanted: str | None) -> str:
    """The side called ``wanted``, by its name or one of its folders, or the first."""
    if wanted is None or wanted in sides:
        return next(iter(sides)) if wanted is None else wanted
    place = Path(wanted).resolve()
    found = [name for name, side in sides.items() if any(run.folder.resolve() == place for run in side)]
    found = found or [name for name, side in sides.items() if any(run.folder.name == wanted for run in side)]
    if len(found) != 1:
        what = "more than one of the runs is" if found else "none of the runs is"
        raise ConfigError(f"--baseline {wanted}: {what} called that; choose one of {', '.join(sides)}")
    return found[0]


def _marks(run: EvalRun, keys: Keys, several: Collection[str]) -> list[DialogueMarks]:
    """What measures read of a run, each dialogue under its key. Copies are one dialogue, and a benchmark has one turn
    only where it has no more in any run."""
    return [
        mark.model_copy(
            update={"digest": keys[mark.seed_id].partition(COPY)[0], "single": mark.benchmark not in several}
        )
        for mark in marked(run)
    ]
