"""A tutor on a scripted server, with back-off that is recorded and not waited for."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from steer_verl.config import EndpointConfig, TutorConfig
from steer_verl.tutor.client import OpenAITutor
from tests.tutor.fake_server import MODEL, FakeServer, Step

Lab = tuple[OpenAITutor, FakeServer, list[float]]
OpenLab = Callable[..., AbstractAsyncContextManager[Lab]]


def config_for(server: FakeServer, **settings: Any) -> EndpointConfig:
    """An endpoint on a scripted server."""
    return EndpointConfig(**{"base_url": server.base_url, "model": MODEL, "timeout": 20, **settings})


def instant(tutor: OpenAITutor, config: EndpointConfig) -> list[float]:
    """Let the endpoint's pauses pass at once; returns the list in which they are kept."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    endpoint = tutor.endpoint(config)
    endpoint.sleep, endpoint.rng = sleep, random.Random(0)
    return pauses


@pytest.fixture
def lab() -> OpenLab:
    """``async with lab(step, ..., setting=value) as (tutor, server, pauses)``."""

    @contextlib.asynccontextmanager
    async def opened(*script: Step, **settings: Any) -> AsyncIterator[Lab]:
        async with FakeServer(*script) as server:
            config = config_for(server, **settings)
            tutor = OpenAITutor(TutorConfig(endpoint=config))
            try:
                yield tutor, server, instant(tutor, config)
            finally:
                await tutor.close()

    return opened
