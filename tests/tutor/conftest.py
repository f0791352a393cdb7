"""A tutor on a scripted server, with pauses that are recorded and not waited for."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from steer_verl.config import EndpointConfig, TutorConfig
from steer_verl.models import endpoint as endpoint_module
from steer_verl.models.endpoint import Endpoint
from steer_verl.tutor.client import OpenAITutor
from tests.models.fault_server import MODEL, FaultServer, Step

Lab = tuple[OpenAITutor, FaultServer, list[float]]
OpenLab = Callable[..., AbstractAsyncContextManager[Lab]]


def config_for(server: FaultServer, *mirrors: FaultServer, **settings: Any) -> EndpointConfig:
    """An endpoint on scripted servers."""
    others = [{"base_url": mirror.base_url} for mirror in mirrors]
    given = {"base_url": server.base_url, "model": MODEL, "timeout": 20, "mirrors": others, **settings}
    return EndpointConfig.model_validate(given)


def instant(tutor: OpenAITutor) -> list[float]:
    """Let the pauses of the tutor's endpoints pass at once; returns the list in which they are kept."""
    pauses = instant_endpoint(tutor.adjudicator)
    if tutor.attacker is not tutor.adjudicator:
        instant_endpoint(tutor.attacker, pauses)
    return pauses


def instant_endpoint(endpoint: Endpoint, pauses: list[float] | None = None) -> list[float]:
    """As :func:`instant`. To the breakers, the pauses take their time."""
    pauses = [] if pauses is None else pauses

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    endpoint.sleep, endpoint.rng = sleep, random.Random(0)
    for server in endpoint.servers:
        server.breaker.clock = lambda: time.monotonic() + sum(pauses)
    return pauses


@contextlib.contextmanager
def no_back_off() -> Iterator[None]:
    """Endpoints that somebody else makes pause no longer than a server asks for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoint_module, "BACKOFF_BASE", 0.0)
        yield


@pytest.fixture
def lab() -> OpenLab:
    """``async with lab(step, ..., setting=value) as (tutor, server, pauses)``."""

    @contextlib.asynccontextmanager
    async def opened(*script: Step, **settings: Any) -> AsyncIterator[Lab]:
        async with FaultServer(*script) as server:
            config = config_for(server, **settings)
            tutor = OpenAITutor(TutorConfig(endpoint=config))
            try:
                yield tutor, server, instant(tutor)
            finally:
                await tutor.close()

    return opened
