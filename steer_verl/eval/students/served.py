"""A student in a folder: a vLLM server is started for it when it is first needed, and ended with it."""

from __future__ import annotations

import asyncio
import importlib.util
from dataclasses import replace
from pathlib import Path

from steer_verl.config import BreakerConfig, EndpointConfig
from steer_verl.errors import ConfigError, SteerError, StudentError
from steer_verl.eval.students.answers import KeptAnswers, Setup
from steer_verl.eval.students.checkpoint import resolve_checkpoint
from steer_verl.eval.students.endpoint import EndpointStudent
from steer_verl.eval.students.protocol import Messages, Reply
from steer_verl.eval.students.server import VllmServer
from steer_verl.models.failure import AgentFailed
from steer_verl.models.place import Place

LAST_BREATH = 15.0
"""Seconds that a server which is failing is given to end, so that its end is told and not the failure."""


class ServedStudent(KeptAnswers):
    """See the module."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._server: VllmServer | None = None
        self._student: EndpointStudent | None = None
        self._starting = asyncio.Lock()
        self._fault: SteerError | None = None
        """Why it could not be started: everybody who waits for it is told, and none starts it again."""

    async def check(self) -> None:
        """Start the server, and have it answer a question about a small image."""
        await (await self._started()).check()

    async def asked(self, messages: Messages, place: Place, name: str) -> Reply:
        """Ask the server.

        Raises:
            AgentFailed: see the protocol.
            StudentError: the server cannot be started, or has ended: the run stops, and no item is blamed for it.
        """
        student = await self._started()
        try:
            return await student.asked(messages, place, name)
        except AgentFailed as failure:
            if failure.transient and self._server is not None and await self._server.ended(LAST_BREATH):
                raise StudentError(self._server.epitaph()) from None
            raise

    async def close(self) -> None:
        """End the server, all of it."""
        student, self._student = self._student, None
        server, self._server = self._server, None
        if student is not None:
            await student.close()
        if server is not None:
            await server.stop()

    async def _started(self) -> EndpointStudent:
        async with self._starting:
            if self._fault is not None:
                raise self._fault
            if self._student is None:
                try:
                    self._student = await self._start()
                except SteerError as fault:
                    self._fault = fault
                    raise
            return self._student

    async def _start(self) -> EndpointStudent:
        settings, out = self.setup.settings, self.setup.out
        if importlib.util.find_spec("vllm") is None:
            raise ConfigError("student.path: vLLM is not installed; install it, or serve the model and set endpoint")
        path, trusted = Path(str(settings.path)), settings.trust_checkpoint
        folder = await asyncio.to_thread(resolve_checkpoint, path, out, trusted=trusted)
        self._server = server = VllmServer(folder, settings, out, self.setup.tell)
        await server.start()
        config = EndpointConfig(
            base_url=server.base_url,
            model=server.model,
            api_key_env="",  # it asks for none, and no other's goes there
            timeout=settings.timeout,
            max_concurrency=settings.max_concurrency,
            max_retries=2,
            breaker=BreakerConfig(failures=10**6),  # whether it lives is seen at the process, not guessed
        )
        return EndpointStudent(replace(self.setup, cache=None), config, "student.path")
