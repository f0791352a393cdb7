"""A student in a folder: a vLLM server is started for it when it is first needed, and ended with it."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
from pathlib import Path

from steer_verl.config import BreakerConfig, EndpointConfig
from steer_verl.errors import ConfigError, SteerError, StudentError
from steer_verl.eval.config import StudentSettings
from steer_verl.eval.students.checkpoint import resolve_checkpoint
from steer_verl.eval.students.endpoint import EndpointStudent, digest
from steer_verl.eval.students.protocol import Messages, Reply
from steer_verl.eval.students.server import Tell, VllmServer
from steer_verl.models.cache import Cache, ReplyCache, remembered
from steer_verl.models.failure import AgentFailed
from steer_verl.models.log import RequestLog
from steer_verl.models.place import Place

LAST_BREATH = 15.0
"""Seconds that a server which is failing is given to end, so that its end is told and not the failure."""


class ServedStudent:
    """See the module (:class:`~steer_verl.eval.students.protocol.Student`).

    Args:
        settings: with a ``path``.
        out: folder of the server's log and of a merged checkpoint.
        name: see the protocol.
        system: a system message; empty: none.
        tell: shows the start's progress.
        cache: keeps every answer; without one, nothing is kept.
        log: where every attempt is written down, if anywhere.
    """

    def __init__(
        self,
        settings: StudentSettings,
        out: Path,
        *,
        name: str,
        system: str,
        tell: Tell,
        cache: ReplyCache | None = None,
        log: RequestLog | None = None,
    ) -> None:
        self.settings, self.out, self.name = settings, out, name
        self._system, self._tell, self._log = system, tell, log
        self._cache: ReplyCache = cache or Cache(None)
        self._server: VllmServer | None = None
        self._student: EndpointStudent | None = None
        self._starting = asyncio.Lock()
        self._fault: SteerError | None = None
        """Why it could not be started: everybody who waits for it is told, and none starts it again."""

    async def check(self) -> None:
        """Start the server, and have it answer a question about a small picture."""
        await (await self._started()).check()

    async def answer(self, messages: Messages, place: Place) -> Reply:
        """See the protocol.

        Raises:
            StudentError: the server cannot be started, or has ended: the run stops, and no item is blamed for it.
        """
        name = f"{self.name}/{digest(messages)}"
        return await remembered(self._cache, place, name, Reply, functools.partial(self._served, messages, place, name))

    async def close(self) -> None:
        """End the server, all of it."""
        student, self._student = self._student, None
        server, self._server = self._server, None
        if student is not None:
            await student.close()
        if server is not None:
            await server.stop()

    async def _served(self, messages: Messages, place: Place, name: str) -> Reply:
        student = await self._started()
        try:
            return await student.asked(messages, place, name)
        except AgentFailed as failure:
            if failure.transient and self._server is not None and await self._server.ended(LAST_BREATH):
                raise StudentError(self._server.epitaph()) from None
            raise

    async def _started(self) -> EndpointStudent:
        async with self._starting:
            if self._fault is not None:
                raise self._fault
            if self._student is None:
                try:
                    self._server = await self._make_server()
                    await self._server.start()
                except SteerError as fault:
                    self._fault = fault
                    raise
                self._student = self._at(self._server)
            return self._student

    async def _make_server(self) -> VllmServer:
        settings = self.settings
        if importlib.util.find_spec("vllm") is None:
            raise ConfigError("student.path: vLLM is not installed; install it, or serve the model and set endpoint")
        folder = await asyncio.to_thread(resolve_checkpoint, Path(str(settings.path)), self.out)
        places = settings.max_concurrency
        return VllmServer(folder, settings.server, self.out, seed=settings.seed, places=places, tell=self._tell)

    def _at(self, server: VllmServer) -> EndpointStudent:
        settings = self.settings
        config = EndpointConfig(
            base_url=server.base_url,
            model=server.model,
            api_key_env="",  # it asks for none, and no other's goes there
            timeout=settings.timeout,
            temperature=settings.temperature,
            max_concurrency=settings.max_concurrency,
            max_retries=2,
            breaker=BreakerConfig(failures=10**6),  # whether it lives is seen at the process, not guessed
        ).model_copy(update={"max_tokens": settings.max_answer_tokens})
        return EndpointStudent(
            config,
            name=self.name,
            system=self._system,
            top_p=settings.top_p,
            seed=settings.seed,
            log=self._log,
            where="student.path",
        )
