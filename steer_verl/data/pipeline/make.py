"""``steer data build``: from sources to sets, step by step. Each step reads what the one before it has kept.

::

    out/pictures          every picture, re-encoded, named by its pixels        out/sets       the three sets and their
    out/steps/seeds       rows -> seeds, each with the kind it is planned for                  account (sets.json)
    out/steps/dialogues   Stage I: seeds -> dialogues, the user's side          out/cards      a card for each set
    out/steps/bootstrap   Stage II: the SFT side's dialogues, played            out/calls      every attempt at a model
    out/steps/history     the RL side's: is the risk in the history?            out/manifest.json   all counts
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from steer_verl.data.likeness import indexes_in
from steer_verl.data.pipeline.collect import CollectStep, PlannedSeed, row_id
from steer_verl.data.pipeline.config import BuildConfig
from steer_verl.data.pipeline.stages import BOOTSTRAP, DIALOGUES, HISTORY, agents_of, make_step, names_of
from steer_verl.data.sources.assign import check_disjoint
from steer_verl.data.sources.bad import BadRow
from steer_verl.data.sources.seed import SourceSeed
from steer_verl.data.stage2.assemble import SetReport, assemble, source_seed
from steer_verl.data.stage2.bootstrap import Bootstrapped
from steer_verl.data.stage2.splits import SetName, split_of
from steer_verl.data.student_format import STUDENT_FORMAT
from steer_verl.errors import ConfigError
from steer_verl.types import DialogueKind, Seed
from steer_verl.work.manifest import Manifest, account, read_manifest, write_manifest
from steer_verl.work.outcomes import read_kept
from steer_verl.work.plan import read_plan
from steer_verl.work.run import Job, run
from steer_verl.work.settings import WorkSettings

SEEDS = CollectStep.name
STEPS = (SEEDS, DIALOGUES, BOOTSTRAP, HISTORY)
Rows = Callable[[], Iterable[SourceSeed | BadRow]]
ONE_BY_ONE = WorkSettings(shards=1, in_flight=1)
"""Near-duplicates are found among the seeds that came before."""


def build(
    config: BuildConfig,
    *,
    rows: Rows | None = None,
    until: str | None = None,
    ray: bool = False,
    accept_changes: bool = False,
    console: Console | None = None,
) -> Manifest:
    """Make the sets, or go on making them; what is done is not done again.

    Args:
        config: of the build.
        rows: in place of ``config.sources``.
        until: the last step to be worked (:data:`STEPS`); unset, the sets and their cards are made too.
        ray: Stages I and II as Ray tasks.
        accept_changes: go on in a folder that was begun with other models, prompts or settings.
        console: where progress is shown.

    Returns:
        The account of every step, as in ``out/manifest.json``.

    Raises:
        ConfigError: nothing to read, or the folder was begun with other settings.
        DataError: a source cannot be read.
        SteerError: an endpoint is dead; the same command goes on.
    """
    if rows is None and not config.sources:
        raise ConfigError("sources: none; give at least one set and its path (recipes/data has examples)")
    book = _Book(config)
    for name in STEPS:
        try:
            if name == SEEDS:
                run(_collecting(config, rows), _rows_made_with(config), accept_changes=accept_changes, console=console)
            else:
                _stage(config, name, book, ray=ray, accept_changes=accept_changes, console=console)
        finally:  # a run that stops leaves its account too
            book.close(name)
        if name == until:
            return book.manifest()
    manifest = book.manifest()
    check_disjoint({kind.value: _planned(config, kind) for kind in DialogueKind})
    reports = make_sets(config)
    from steer_verl.data.pipeline.cards import write_cards

    write_cards(config, manifest, reports)
    return manifest


class _Book:
    """The account of every step, kept in ``out/manifest.json``.

    Args:
        config: of the build.
    """

    def __init__(self, config: BuildConfig) -> None:
        self.config, self.path = config, config.out / "manifest.json"
        earlier = read_manifest(self.path).steps if self.path.exists() else []
        self.steps = {step.step: step for step in earlier}

    def close(self, name: str) -> None:
        """Count a step that was worked, or begun, and write everything down."""
        if read_plan(self.config.step(name)) is not None:
            self.steps[name] = account(self.config.step(name), _names(self.config, name))
            write_manifest(self.path, self.steps.values())

    def manifest(self) -> Manifest:
        """All of it, in the order of work."""
        return Manifest(steps=[self.steps[name] for name in STEPS if name in self.steps])


def make_sets(config: BuildConfig) -> dict[SetName, SetReport]:
    """Fill the sets from what the steps have kept."""
    with tempfile.TemporaryDirectory(dir=config.out) as folder:
        return assemble(
            config.out / "sets",
            sft=read_kept(config.step(BOOTSTRAP), Bootstrapped),
            rl=read_kept(config.step(HISTORY), Seed),
            bench=_side(config, SetName.BENCH),
            pictures=config.pictures,
            index=indexes_in(Path(folder), config.duplicates),
            settings=config.sets,
            system_prompt=STUDENT_FORMAT if config.student_format else None,
        )


def _collecting(config: BuildConfig, rows: Rows | None) -> Job[Any]:
    step = functools.partial(CollectStep, config.step(SEEDS) / "index.sqlite", config.pictures)

    def make(_: int) -> CollectStep:
        return step(config.duplicates, config.kinds)

    return Job(SEEDS, config.step(SEEDS), make, rows or functools.partial(_read, config), ONE_BY_ONE, row_id)


def _read(config: BuildConfig) -> Iterator[SourceSeed | BadRow]:
    from steer_verl.data.sources.read import read_sources

    return read_sources(config.sources, config.pictures)


def _stage(config: BuildConfig, name: str, book: _Book, **options: Any) -> None:
    """Work one of the steps that ask agents."""
    job = Job(
        name,
        config.step(name),
        functools.partial(make_step, config, name),
        functools.partial(_items, config, name),
        config.work,
    )
    run(job, _made_with(config, name), total=book.steps[SEEDS].kept if name == DIALOGUES else None, **options)


def _items(config: BuildConfig, name: str) -> Iterable[Any]:
    """What a step works on."""
    if name == DIALOGUES:
        return read_kept(config.step(SEEDS), PlannedSeed)
    return _side(config, SetName.SFT if name == BOOTSTRAP else SetName.RL)


def _planned(config: BuildConfig, kind: DialogueKind) -> Iterator[str]:
    """Ids of one of the three seed sets."""
    return (planned.id for planned in read_kept(config.step(SEEDS), PlannedSeed) if planned.kind is kind)


def _side(config: BuildConfig, name: SetName) -> Iterator[Seed]:
    """Stage I's dialogues on one set's side."""
    for seed in read_kept(config.step(DIALOGUES), Seed):
        if split_of(source_seed(seed), seed.source, config.splits) is name:
            yield seed


def _names(config: BuildConfig, name: str) -> dict[str, str]:
    return {} if name == SEEDS else names_of(agents_of(config), name)


def _rows_made_with(config: BuildConfig) -> dict[str, Any]:
    sections = ("sources", "duplicates", "kinds")
    return {section: config.model_dump(mode="json")[section] for section in sections}


def _made_with(config: BuildConfig, name: str) -> dict[str, Any]:
    """What decides a step's results: its agents, whose names hold model and prompt, and its settings."""
    sections = {DIALOGUES: ("perturb", "expand", "red_team"), BOOTSTRAP: ("splits", "bootstrap")}
    plain = config.model_dump(mode="json")
    return {
        "agents": _names(config, name),
        **{section: plain[section] for section in sections.get(name, ("splits", "history"))},
    }
