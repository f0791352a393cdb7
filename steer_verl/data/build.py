"""``steer data build``: from sources to sets.

::

    out/images            every image, re-encoded, named by its pixels       out/sets       the three sets, their card
    out/steps/seeds       rows -> seeds: what each becomes, whom it serves   out/cards      a page for each set
    out/steps/dialogues   seeds -> dialogues: Stages I and II                out/calls      every attempt at a model
                                                                             out/manifest.json   all counts
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console

from steer_verl import __version__
from steer_verl.data.collect.collect import Collected, collect, read_seeds
from steer_verl.data.config import DECISIVE, MINI, BuildConfig
from steer_verl.data.jsonl import regular_file
from steer_verl.data.licences import training_forbidden
from steer_verl.data.ready import check_endpoints
from steer_verl.data.seed import SourceSeed, seed_content
from steer_verl.data.sets.assemble import SetReport, assemble
from steer_verl.data.sets.files import IMAGES
from steer_verl.data.sources.read import source_files
from steer_verl.data.sources.settings import SourceSettings, SplitSettings
from steer_verl.data.stages.agents import Agents
from steer_verl.data.stages.endpoint_agents import EndpointAgents
from steer_verl.data.stages.make import MakeStep
from steer_verl.data.stages.settings import StageSettings
from steer_verl.data.stages.stage1.perturb import restore
from steer_verl.data.student_format import STUDENT_FORMAT
from steer_verl.errors import ConfigError, DataError
from steer_verl.models.cache import ReplyCache
from steer_verl.models.endpoint import servers_of
from steer_verl.records import held, write_whole
from steer_verl.work.job import Job, share
from steer_verl.work.manifest import Manifest, StepAccount, account, read_manifest, write_manifest
from steer_verl.work.outcomes import outcome_pointers, read_at
from steer_verl.work.run import run
from steer_verl.work.step import given_up

SEEDS, DIALOGUES = "seeds", MakeStep.name
"""The two steps; the sets are written after them."""
MANIFEST = "manifest.json"
REPORTS = TypeAdapter(dict[str, SetReport])
MADE_OF = ".made_of"
"""Digest of what the sets were made of and where, and the number of their images."""
Rows = Callable[[], Iterable[SourceSeed]]


def build(
    config: BuildConfig,
    *,
    rows: Rows | None = None,
    until: str | None = None,
    ray: bool = False,
    retry: bool = False,
    accept_changes: bool = False,
    console: Console | None = None,
) -> Manifest:
    """Make the sets, or go on making them; what is done is not done again.

    Args:
        config: of the build.
        rows: in place of ``config.sources``.
        until: ``seeds`` stops before anybody is asked.
        ray: the dialogues as Ray tasks.
        retry: try again what was given up because a model failed for the moment.
        accept_changes: make all dialogues anew in a folder that was begun with other models, prompts or settings.
        console: where progress is shown.

    Returns:
        The account of both steps, as in ``out/manifest.json``.

    Raises:
        ConfigError: nothing to read, a model that cannot be asked, or a folder that was begun with other settings or in
            which another build is at work.
        DataError: a source cannot be read.
        SteerError: an endpoint is dead; the same command goes on.
    """
    if rows is None and not config.sources:
        raise ConfigError("sources: none; give at least one set and its path (recipes/data has examples)")
    made_with = fingerprint(config)
    _look_for(config.sources, config.splits)
    with held(config.out):
        checked = until != SEEDS and (retry or not _is_done(config, made_with))
        if checked:
            asyncio.run(check_endpoints(config.agents.endpoints))
        seeds = _collected(config, rows, console)
        if until == SEEDS:
            return _account(config, seeds)
        try:
            run(
                _dialogues(config, seeds, checked=checked),
                made_with,
                total=seeds.kept,
                accept_changes=accept_changes,
                retry=given_up if retry else None,
                ray=ray,
                console=console,
            )
        finally:  # a run that stops leaves its account too
            manifest = _account(config, seeds)
        _write_sets(config, manifest)
        return manifest


def _dialogues(config: BuildConfig, seeds: Collected, *, checked: bool) -> Job[SourceSeed]:
    """The step that makes them of the seeds; the endpoints were ``checked``, or are before anybody is asked."""
    return Job(
        DIALOGUES,
        config.step(DIALOGUES),
        functools.partial(make_step, config, checked=checked),
        functools.partial(read_seeds, config.step(SEEDS)),
        config.work,
        content=seed_content,
        source=seeds.digest,
        secrets=tuple({one.api_key_env for each in config.agents.endpoints.values() for one in servers_of(each)}),
    )


def _look_for(sources: Sequence[SourceSettings], splits: SplitSettings) -> None:
    """Whether every file of the sources is there and may serve as it is to; what is in them is read later.

    Raises:
        ConfigError: a source must not be trained on.
        DataError: files are not there; of each source the first.
    """
    if why := training_forbidden(sources, splits):
        raise ConfigError(why)
    faults = []
    for source in sources:
        try:
            files = [regular_file(file) for file in source_files(source)]
            if source.path is not None and not files:
                asked = f" of the pattern {source.files!r}" if source.files else ""
                what = f"no parquet, JSONL, JSON or CSV file{asked} in it"
                raise DataError(f"{source.place}: {what}; correct sources.path or files, or unpack what is in it")
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError(" | ".join(faults))


def make_step(config: BuildConfig, processes: int, cache: ReplyCache, *, checked: bool = True) -> MakeStep:
    """The step of one process, which shares every server's bound with the others.

    Where the endpoints were not ``checked``, they are before the first item that is left to work.
    """
    ready = None if checked else functools.partial(check_endpoints, config.agents.endpoints)
    return MakeStep(agents_of(config, processes, cache), config, config.images, ready)


def agents_of(config: BuildConfig, processes: int = 1, cache: ReplyCache | None = None) -> Agents:
    """Who takes part.

    Raises:
        ConfigError: an address, rubric or file cannot be used.
    """
    settings = config.agents
    if settings.kind == "mini":
        module, _, name = MINI.partition(":")
        agents: Agents = getattr(import_module(module), name)(seed=settings.seed)
        return agents
    shared = {
        role: endpoint.model_copy(update={"max_concurrency": share(endpoint.max_concurrency, processes)})
        for role, endpoint in settings.endpoints.items()
    }
    return EndpointAgents(
        shared,
        config.images,
        cache=cache,
        guidelines=settings.guidelines,
        rubric=settings.rubric,
        calls=str(config.out / "calls"),
    )


def fingerprint(config: BuildConfig) -> dict[str, Any]:
    """What decides the dialogues: who takes part, at which endpoints, under which settings and files."""
    plain = config.model_dump(mode="json")
    strategies = config.red_team.strategies
    return {
        "agents": agents_of(config).names(),
        "endpoints": {role: _decisive(plain_of) for role, plain_of in _endpoints(config).items()},
        **{section: plain[section] for section in StageSettings.model_fields},
        **({"strategies": _digest(Path(strategies))} if strategies else {}),
    }


def _endpoints(config: BuildConfig) -> dict[str, dict[str, Any]]:
    return {role: endpoint.model_dump(mode="json") for role, endpoint in config.agents.endpoints.items()}


def _decisive(endpoint: dict[str, Any]) -> dict[str, Any]:
    mirrors = [{name: mirror[name] for name in ("base_url", "model")} for mirror in endpoint["mirrors"]]
    return {**{name: endpoint[name] for name in DECISIVE}, "mirrors": mirrors}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _is_done(config: BuildConfig, made_with: dict[str, Any]) -> bool:
    """Whether the dialogues of an earlier run are all there; then nobody is asked, unless the sources have changed."""
    with suppress(DataError):
        for step in read_manifest(config.out / MANIFEST).steps:
            if step.step == DIALOGUES:
                return step.complete and step.fingerprint == json.loads(json.dumps(made_with))
    return False


def _collected(config: BuildConfig, rows: Rows | None, console: Console | None) -> Collected:
    """The seeds, and what each is to become."""
    return collect(
        config.step(SEEDS),
        config.images,
        config.sources,
        duplicates=config.duplicates,
        kinds=config.kinds,
        splits=config.splits,
        rows=rows,
        console=console,
    )


def _account(config: BuildConfig, seeds: Collected) -> Manifest:
    """Write ``manifest.json``: the account of each step that was begun."""
    steps = [
        StepAccount(
            step=SEEDS,
            entered=seeds.entered,
            kept=seeds.kept,
            rejected=seeds.rejected,
            undone=0,
            complete=True,
            source=seeds.digest,
            fingerprint={},
        )
    ]
    with suppress(DataError):  # not begun
        steps.append(account(config.step(DIALOGUES), agents_of(config).names()))
    return write_manifest(config.out / MANIFEST, steps)


def _write_sets(config: BuildConfig, manifest: Manifest) -> None:
    """The sets and their cards, out of what was kept; nothing is opened if they are there and nothing has changed."""
    prompt = STUDENT_FORMAT if config.student_format else None
    account = {step.step: step.model_dump(mode="json", by_alias=True) for step in manifest.steps}
    settings = [section.model_dump(mode="json") for section in (config.sets, config.duplicates)]
    place = str(config.out.resolve())  # rl.parquet names its images by it
    made_of = hashlib.sha256(json.dumps([__version__, prompt, settings, account, place]).encode()).hexdigest()
    sets, stamp = config.out / "sets", config.out / "sets" / MADE_OF
    if stamp.is_file() and stamp.read_text() == f"{made_of} {_images(sets)}" and _all_there(sets):
        return
    stamp.unlink(missing_ok=True)
    assemble(
        config.out,
        outcome_pointers(config.step(DIALOGUES)),
        read_at,
        config.images,
        settings=config.sets,
        duplicates=config.duplicates,
        system_prompt=prompt,
        account=account,
        restore=functools.partial(restore, images=config.images, settings=config.perturb),
    )
    write_whole(stamp, f"{made_of} {_images(sets)}")


def _images(sets: Path) -> int:
    """How many images lie with the sets."""
    return sum(len(files) for _, _, files in os.walk(sets / IMAGES))


def _all_there(sets: Path) -> bool:
    """Whether every file of the sets but its images and every card is where it was written."""
    with suppress(OSError, ValueError):
        reports = {
            name: SetReport.model_validate(one, strict=False)
            for name, one in json.loads((sets / "sets.json").read_text()).items()
        }
        files = [sets / "README.md", sets / "left_out.jsonl"]
        files += [sets / file for report in reports.values() for file in report.files]
        files += [sets.parent / "cards" / name / "card.html" for name, report in reports.items() if report.kept]
        return all(file.is_file() for file in files)
    return False
