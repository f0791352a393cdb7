"""A tutor on a scripted server, with pauses that are recorded and not waited for."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from steer_verl.config import EndpointConfig, TutorConfig
from steer_verl.transport.pool import Pool
from steer_verl.tutor.client import OpenAITutor
from tests.transport.fault_server import MODEL, FaultServer, Step

Lab = tuple[OpenAITutor, FaultServer, list[float]]
OpenLab = Callable[..., AbstractAsyncContextManager[Lab]]


def config_for(server: FaultServer, *mirrors: FaultServer, **settings: Any) -> EndpointConfig:
    """An endpoint on scripted servers."""
    others = [{"base_url": mirror.base_url} for mirror in mirrors]
    given = {"base_url": server.base_url, "model": MODEL, "timeout": 20, "mirrors": others, **settings}
    return EndpointConfig.model_validate(given)


def instant(tutor: OpenAITutor, config: EndpointConfig) -> list[float]:
    """Let the endpoint's pauses pass at once; returns the list in which they are kept."""
    return instant_pool(tutor.endpoint(config))


def instant_pool(pool: Pool) -> list[float]:
    """As :func:`instant`. To the breakers, the pauses take their time."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    pool.sleep, pool.rng = sleep, random.Random(0)
    for server in pool.servers:
        server.breaker.clock = lambda: time.monotonic() + sum(pauses)
    return pauses


@pytest.fixture
def lab() -> OpenLab:
    """``async with lab(step, ..., setting=value) as (tutor, server, pauses)``."""

    @contextlib.asynccontextmanager
    async def opened(*script: Step, **settings: Any) -> AsyncIterator[Lab]:
        async with FaultServer(*script) as server:
            config = config_for(server, **settings)
            tutor = OpenAITutor(TutorConfig(endpoint=config))
            try:
                yield tutor, server, instant(tutor, config)
            finally:
                await tutor.close()

    return opened
