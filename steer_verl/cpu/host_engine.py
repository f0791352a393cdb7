"""verl's checkpoint engine ``host``: weights go from the trainer to the rollout workers through this machine's memory.

``trainer.v1.trainer_mode: separate_async`` refuses the backend ``naive`` (trainer/ppo/v1/trainer_separate_async.py:68),
and every other engine of verl 0.9.1 needs CUDA, an NPU or RDMA. Here actor rank 0 pushes each weight, cut into chunks
of at most a bucket, over one local ZeroMQ pipe to each rollout worker. The bytes are copied and never converted: what
arrives is equal bit for bit. verl imports this module in every process that moves weights, where a recipe says so
(checkpoint_engine/base.py:336,417; workers/engine_workers.py:685)::

    actor_rollout_ref.rollout.checkpoint_engine: {backend: host, custom_backend_module: steer_verl.cpu.host_engine}

A synchronisation, as ``CheckpointEngineManager.update_weights`` drives it: ``prepare`` opens a fresh pipe at every
receiver, ``build_topology`` gives all addresses to actor rank 0, ``init_process_group`` connects it, then sending and
receiving, then ``finalize``. Nothing is kept in files or in /dev/shm, so a killed run leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any, TypeAlias

import torch
import zmq
import zmq.asyncio
from verl.checkpoint_engine.base import (
    CheckpointEngine,
    CheckpointEngineRegistry,
    TensorMeta,
    merge_weight_chunks,
    split_weight_chunks,
)

from steer_verl.errors import ConfigError, SteerError

BACKEND = "host"
IN_FLIGHT = 4
"""Chunks that may wait at each end of a pipe: what bounds memory, and holds the sender back behind a slow receiver."""

Weights: TypeAlias = Generator[tuple[str, torch.Tensor], None, None]


class WeightTransferError(SteerError):
    """The other end of a pipe is silent: its process is dead or stuck."""


@CheckpointEngineRegistry.register(BACKEND)
class HostCheckpointEngine(CheckpointEngine):
    """One end of the transfer; verl makes one in each actor process and one in each rollout worker.

    Args:
        bucket_size: most bytes of a chunk (``update_weights_bucket_megabytes``).
        is_master: whether this is actor rank 0; verl tells actors alone (engine_workers.py:687), so ``None`` is a
            rollout worker.
        timeout: seconds without any progress after which a transfer fails (``engine_kwargs.host.timeout``).
    """

    def __init__(self, bucket_size: int, is_master: bool | None = None, timeout: float = 600.0) -> None:
        self.bucket_size, self.is_master, self.timeout = bucket_size, is_master, timeout
        self.pipes: list[zmq.asyncio.Socket] = []

    def prepare(self) -> dict[str, str | None]:
        """This machine's name and, of a rollout worker, the address at which it receives."""
        address = None
        if self.is_master is None:
            pipe = self._open(zmq.PULL)
            address = f"tcp://127.0.0.1:{pipe.bind_to_random_port('tcp://127.0.0.1')}"
        return {"machine": socket.gethostname(), "address": address}

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[dict[str, str | None]]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """Keyword arguments of :meth:`init_process_group`: all addresses for actor rank 0, none for anybody else.

        Raises:
            ConfigError: the processes are spread over several machines.
        """
        machines = sorted({str(end["machine"]) for end in metadata})
        if len(machines) > 1:
            raise ConfigError(
                f"checkpoint_engine.backend={BACKEND} works on one machine, these are {', '.join(machines)}; "
                "set actor_rollout_ref.rollout.checkpoint_engine.backend=nccl"
            )
        receivers = [end["address"] for end in metadata[actor_wg_world_size:]]
        others: list[Any] = [[] for _ in range(actor_wg_world_size - 1)]
        return {"receivers": [receivers, *others]}, {"receivers": [[] for _ in range(rollout_world_size)]}

    def init_process_group(self, receivers: Sequence[str]) -> None:
        """Connect a pipe to each of ``receivers``."""
        for address in receivers:
            self._open(zmq.PUSH).connect(address)

    def finalize(self) -> None:
        """Close the pipes: a message of this transfer can never reach the next one."""
        while self.pipes:
            self.pipes.pop().close(linger=0)

    async def send_weights(self, weights: Weights, global_steps: int | None = None) -> None:
        """Send every weight to every receiver; actor ranks above 0 only walk the generator, which is collective.

        Raises:
            WeightTransferError: a receiver has taken nothing for ``timeout`` seconds.
        """
        if not self.is_master:
            for _ in weights:
                pass
            return
        plain = ((name, weight.detach().contiguous()) for name, weight in weights)
        async for meta, chunk in split_weight_chunks(plain, self.bucket_size):
            await self._push(_header(meta), chunk.cpu().numpy().tobytes())
        await self._push(b"")

    async def receive_weights(self, global_steps: int | None = None) -> AsyncGenerator[tuple[str, torch.Tensor], None]:
        """Yield each weight's name and the weight, in memory of its own.

        Raises:
            WeightTransferError: nothing has come for ``timeout`` seconds.
        """
        async for name, weight in merge_weight_chunks(self._chunks(), self.bucket_size):
            yield name, weight

    async def _chunks(self) -> AsyncGenerator[tuple[TensorMeta, torch.Tensor], None]:
        (pipe,) = self.pipes
        while (message := await self._timely(pipe.recv_multipart()))[0]:
            header, payload = message
            yield _meta(header), torch.frombuffer(bytearray(payload), dtype=torch.uint8)

    async def _push(self, *message: bytes) -> None:
        """To each receiver in turn; waits where one is ``IN_FLIGHT`` chunks behind."""
        for pipe in self.pipes:
            await self._timely(pipe.send_multipart(message))

    async def _timely(self, transfer: Any) -> Any:
        try:
            return await asyncio.wait_for(transfer, self.timeout)
        except TimeoutError:
            raise WeightTransferError(
                f"checkpoint engine {BACKEND}: no weights have moved for {self.timeout:g} s; see whether the trainer "
                "or a rollout worker has died, or raise rollout.checkpoint_engine.engine_kwargs.host.timeout"
            ) from None

    def _open(self, kind: int) -> zmq.asyncio.Socket:
        pipe = zmq.asyncio.Context.instance().socket(kind)
        pipe.set_hwm(IN_FLIGHT)
        self.pipes.append(pipe)
        return pipe


def _header(meta: TensorMeta) -> bytes:
    """JSON rather than a pickle: whoever finds the port can run nothing here."""
    dtype = str(meta.dtype).removeprefix("torch.")
    return json.dumps([meta.name, list(meta.shape), dtype, meta.chunk_offset, meta.chunk_size]).encode()


def _meta(header: bytes) -> TensorMeta:
    name, shape, dtype, chunk_offset, chunk_size = json.loads(header)
    return TensorMeta(name, torch.Size(shape), getattr(torch, dtype), chunk_offset, chunk_size, offset=0)
