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
