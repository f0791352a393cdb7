"""The two sides of a comparison: models, each made of one finished run or of several training seeds' runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from steer_verl.errors import ConfigError, DataError
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.contributions import Contributions, Key, contributions
from steer_verl.eval.life_table import LifeTable, life_table
from steer_verl.eval.marks import DialogueMarks
from steer_verl.eval.runs import EvalRun
from steer_verl.eval.summary import SHOWN, marked


@dataclass(frozen=True)
class Seed:
    """One training seed's student on one benchmark."""

    values_K: np.ndarray
    """The measures."""
    survival_T: np.ndarray
    """S(t) of its attacked dialogues of several turns, t = 1..T."""


@dataclass(frozen=True)
class Model:
    """One column of the table."""

    name: str
    runs: tuple[EvalRun, ...]
    """Several: of different training seeds."""
    marks: tuple[DialogueMarks, ...]
    found: Mapping[str, Contributions]
    """Benchmark -> what its dialogues add to the measures."""
    lives: Mapping[str, LifeTable]
    """Benchmark -> its attacked dialogues of several turns, where there are any."""
    single: frozenset[str]
    """Benchmarks of one turn."""
    attacked: frozenset[str]
    """Benchmarks with attacked dialogues."""

    seeds: Mapping[str, Mapping[int, Seed]]
    """Benchmark -> training seed -> its student alone; empty unless several are pooled."""

    @property
    def played(self) -> int:
        """How many training seeds' students played."""
        return len({d.run for d in self.marks})

    @property
    def pooled(self) -> bool:
        """Whether it was more than one."""
        return self.played > 1

    def keys(self, benchmark: str) -> frozenset[Key]:
        """The dialogues of a benchmark."""
        return frozenset(self.found[benchmark].keys)


def models_of(runs: Sequence[EvalRun], settings: MarkSettings) -> list[Model]:
    """The models of ``runs``, in their order, under the thresholds ``settings``.

    Runs of one name are one model when their training seeds (``student.run``) differ; otherwise each stands for itself
    and is told apart by its folder.

    Raises:
        DataError: a run has no dialogues.
    """
    groups: dict[str, list[EvalRun]] = {}
    for run in runs:
        groups.setdefault(run.name, []).append(run)
    named: list[tuple[str, list[EvalRun]]] = []
    for name, group in groups.items():
        seeds = Counter(seed for run in group for seed in {d.run for d in run.dialogues})
        if len(group) == 1 or max(seeds.values(), default=0) == 1:
            named.append((name, group))
        else:
            named += [(f"{name} ({run.folder})", [run]) for run in group]
    return [_model(name, group, settings) for name, group in named]


def find(models: Sequence[Model], wanted: str | None) -> Model:
    """The model that others are compared with: ``wanted``, by its name or one of its folders, or the first.

    Raises:
        ConfigError: there is none of that name.
    """
    if wanted is None:
        return models[0]
    for model in models:
        if wanted in (model.name, *(str(run.folder) for run in model.runs), *(run.folder.name for run in model.runs)):
            return model
    known = ", ".join(model.name for model in models)
    raise ConfigError(f"--baseline {wanted}: none of the runs is called that; choose one of {known}")


def _model(name: str, runs: Sequence[EvalRun], settings: MarkSettings) -> Model:
    marks = tuple(mark for run in runs for mark in marked(run))
    if not marks:
        raise DataError(f"{runs[0].folder}: a run without dialogues; leave it out")
    by_benchmark: dict[str, list[DialogueMarks]] = {benchmark: [] for run in runs for benchmark in run.benchmarks}
    for mark in marks:
        by_benchmark.setdefault(mark.benchmark, []).append(mark)
    sets = {benchmark: rows for benchmark, rows in by_benchmark.items() if rows}
    tables = {benchmark: life_table(rows, settings) for benchmark, rows in sets.items()}
    runs_of = {benchmark: sorted({d.run for d in rows}) for benchmark, rows in sets.items()}
    return Model(
        name=name,
        runs=tuple(runs),
        marks=marks,
        found={benchmark: contributions(rows, SHOWN, settings) for benchmark, rows in sets.items()},
        lives={benchmark: table for benchmark, table in tables.items() if table.dialogues},
        single=frozenset(benchmark for benchmark, rows in sets.items() if all(d.single for d in rows)),
        attacked=frozenset(benchmark for benchmark, rows in sets.items() if any(d.attacked for d in rows)),
        seeds={
            benchmark: {run: _seed([d for d in rows if d.run == run], settings) for run in runs_of[benchmark]}
            for benchmark, rows in sets.items()
            if len(runs_of[benchmark]) > 1
        },
    )


def _seed(rows: Sequence[DialogueMarks], settings: MarkSettings) -> Seed:
    lives = life_table(rows, settings)
    survival_T = lives.survival_T if lives.dialogues else np.full(settings.horizon, np.nan)
    return Seed(contributions(rows, SHOWN, settings).values_K, survival_T)
