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
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from rich.console import Console

from steer_verl.data.agents import Agents
from steer_verl.data.collect import Collected, collect, read_seeds
from steer_verl.data.config import DECISIVE, MINI, BuildConfig
from steer_verl.data.endpoint_agents import EndpointAgents
from steer_verl.data.make import MakeStep
from steer_verl.data.ready import check_endpoints
from steer_verl.data.seed import SetName, SourceSeed
from steer_verl.data.sets import SetReport, assemble
from steer_verl.data.student_format import STUDENT_FORMAT
from steer_verl.errors import ConfigError
from steer_verl.models.cache import Cache, ReplyCache
from steer_verl.work.manifest import Manifest, StepAccount, write_manifest
from steer_verl.work.run import Job, finished, run

SEEDS, DIALOGUES = "seeds", MakeStep.name
"""The two steps; the sets are written after them."""
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
        ConfigError: nothing to read, a model that cannot be asked, or a folder that was begun with other settings.
        DataError: a source cannot be read.
        SteerError: an endpoint is dead; the same command goes on.
    """
    if rows is None and not config.sources:
        raise ConfigError("sources: none; give at least one set and its path (recipes/data has examples)")
    made_with, folder = fingerprint(config), config.step(DIALOGUES)
    check_sources(config.sources, config.splits)
    if until != SEEDS and (retry or not finished(folder, made_with)):
        asyncio.run(check_endpoints(config.agents.endpoints))
    seeds = collect_seeds(config, rows, console)
    if until == SEEDS:
        return _written(config, seeds)
    job: Job[SourceSeed] = Job(
        DIALOGUES,
        folder,
        functools.partial(make_step, config),
        functools.partial(read_seeds, config.step(SEEDS)),
        config.work,
        source=seeds.digest,
        secrets=tuple({endpoint.api_key_env for endpoint in config.agents.endpoints.values()}),
    )
    try:
        run(job, made_with, total=seeds.kept, accept_changes=accept_changes, retry=retry, ray=ray, console=console)
    finally:  # a run that stops leaves its account too
        manifest = _written(config, seeds)
    write_sets(config, manifest)
    return manifest
