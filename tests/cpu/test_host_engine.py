"""The checkpoint engine ``host`` between real processes: two actors, two rollout workers, as verl drives them."""

import asyncio
import itertools
import math
import multiprocessing
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

pytest.importorskip("verl")
torch = pytest.importorskip("torch")

from steer_verl.cpu.host_engine import BACKEND, IN_FLIGHT, HostCheckpointEngine, WeightTransferError  # noqa: E402
from steer_verl.errors import ConfigError  # noqa: E402

pytestmark = pytest.mark.slow  # verl's checkpoint engine imports Ray and all of its workers

BUCKET = 1000
"""Bytes: not a multiple of any dtype's size, so that chunks cut elements in two."""
ACTORS, ROLLOUTS, SYNCS = 2, 2, 2


def weights(sync: int) -> Iterator[tuple[str, Any]]:
    """Tensors smaller than a bucket, of several buckets, of several dtypes, and bits that a conversion would lose."""
    torch.manual_seed(sync)
    yield "odd bits", torch.tensor([math.nan, -0.0, math.inf, 1e-45, 0.1]).view(torch.int32).add(sync).view(torch.float)
    yield "several buckets", torch.randn(97, 31)
    yield "one bucket", torch.randint(0, 255, (BUCKET,), dtype=torch.uint8)
    yield "parameter", torch.nn.Parameter(torch.randn(8, 8))
    yield "transposed", torch.randn(7, 300).t()
    yield "scalar", torch.tensor(sync)
    yield "half", torch.randn(3, 5, 7).to(torch.bfloat16)
    for index in range(10 * IN_FLIGHT):
        yield f"small {index}", torch.randn(index + 1)


def plain(named: Iterator[tuple[str, Any]]) -> list[tuple[str, str, list[int], bytes]]:
    """Name, dtype, shape and bytes: equal only if every bit is."""
    return [(n, str(w.dtype), list(w.shape), _bytes(w)) for n, w in named]


def _bytes(weight: Any) -> bytes:
    data: bytes = weight.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return data


def actor(rank: int, call: Any) -> None:
    """A trainer's process; both tell how many weights their generator has given, and to how many they are connected."""
    engine = HostCheckpointEngine(is_master=rank == 0, bucket_size=BUCKET, timeout=20)
    for sync in range(SYNCS):
        call.send(engine.prepare())
        engine.init_process_group(**call.recv())
        walked = itertools.count()
        named = (weight for weight, _ in zip(weights(sync), walked, strict=False))
        asyncio.run(engine.send_weights(named, global_steps=sync))
        call.send((next(walked), len(engine.pipes)))
        call.recv()
        engine.finalize()


def rollout(rank: int, call: Any) -> None:
    """A rollout worker's process; rank 1 is slow, so that the sender has to wait for it."""

    async def receive() -> list[tuple[str, Any]]:
        arrived = []
        async for name, weight in engine.receive_weights(global_steps=0):
            await asyncio.sleep(0.01 * rank)
            arrived.append((name, weight))
        return arrived

    engine = HostCheckpointEngine(bucket_size=BUCKET, timeout=20)
    for _ in range(SYNCS):
        call.send(engine.prepare())
        engine.init_process_group(**call.recv())
        call.send(plain(iter(asyncio.run(receive()))))
        call.recv()
        engine.finalize()


@pytest.fixture(scope="module")
def results() -> Iterator[list[list[Any]]]:
    """Of each synchronisation, what each process told: this process does what ``CheckpointEngineManager`` does."""
    fork = multiprocessing.get_context("fork")
    calls, running = [], []
    for role, rank in [(actor, rank) for rank in range(ACTORS)] + [(rollout, rank) for rank in range(ROLLOUTS)]:
        ours, theirs = fork.Pipe()
        running.append(fork.Process(target=role, args=(rank, theirs), daemon=True))
        running[-1].start()
        calls.append(ours)
    told = []
    for _ in range(SYNCS):
        metadata = [answer(call) for call in calls]
        trainer, workers = HostCheckpointEngine.build_topology(ACTORS, ROLLOUTS, metadata)
        assert {len(values) for values in trainer.values()} == {ACTORS}
        assert {len(values) for values in workers.values()} == {ROLLOUTS}
        every = [*zip(*trainer.values(), strict=True), *zip(*workers.values(), strict=True)]
        for call, values in zip(calls, every, strict=True):
            call.send(dict(zip(trainer, values, strict=True)))
        told.append([answer(call) for call in calls])
        for call in calls:
            call.send("finalize")
    yield told
    for process in running:
        process.join(20)
        assert process.exitcode == 0


def answer(call: Any) -> Any:
    """What a process tells, or a failure rather than a test that waits for ever."""
    assert call.poll(40), "a process is silent"
    return call.recv()


@pytest.mark.parametrize("sync", range(SYNCS))
@pytest.mark.parametrize("worker", range(ROLLOUTS))
def test_weights_arrive_bit_for_bit(results: list[list[Any]], sync: int, worker: int) -> None:
    assert results[sync][ACTORS + worker] == plain(weights(sync))


@pytest.mark.parametrize("sync", range(SYNCS))
def test_the_other_actors_walk_the_generator_and_send_nothing(results: list[list[Any]], sync: int) -> None:
    count = len(list(weights(sync)))
    assert results[sync][:ACTORS] == [(count, ROLLOUTS), (count, 0)]


def test_verl_finds_the_engine() -> None:
    from verl.checkpoint_engine import CheckpointEngineRegistry
    from verl.utils.import_utils import import_external_libs

    import_external_libs("steer_verl.cpu.host_engine")
    assert CheckpointEngineRegistry.get(BACKEND) is HostCheckpointEngine
    engine = CheckpointEngineRegistry.new(BACKEND, is_master=False, bucket_size=BUCKET, timeout=3)
    assert engine.timeout == 3 and engine.wire_format == "named_tensors"


def test_two_machines_are_refused() -> None:
    here, there = ({"machine": name, "address": None} for name in ("here", "there"))
    with pytest.raises(ConfigError, match=r"one machine, these are here, there; set .*backend=nccl"):
        HostCheckpointEngine.build_topology(1, 1, [here, there])


@pytest.fixture
async def pair() -> AsyncGenerator[tuple[HostCheckpointEngine, HostCheckpointEngine], None]:
    """A sender and a receiver in this process, connected, that give up soon."""
    sender, receiver = (HostCheckpointEngine(BUCKET, is_master=master, timeout=0.3) for master in (True, None))
    trainer, _ = HostCheckpointEngine.build_topology(1, 1, [sender.prepare(), receiver.prepare()])
    sender.init_process_group(trainer["receivers"][0])
    yield sender, receiver
    sender.finalize()
    receiver.finalize()
    assert sender.pipes == receiver.pipes == []


async def test_a_receiver_that_is_stuck_ends_the_sending(
    pair: tuple[HostCheckpointEngine, HostCheckpointEngine],
) -> None:
    endless = (("weight", torch.zeros(BUCKET)) for _ in range(100_000))
    with pytest.raises(WeightTransferError, match=r"no weights have moved for 0.3 s.*engine_kwargs.host.timeout"):
        await asyncio.wait_for(pair[0].send_weights(endless), 30)


async def test_a_sender_that_died_ends_the_receiving(pair: tuple[HostCheckpointEngine, HostCheckpointEngine]) -> None:
    async def receive() -> None:
        async for _ in pair[1].receive_weights():
            pass

    with pytest.raises(WeightTransferError, match="no weights have moved"):
        await asyncio.wait_for(receive(), 30)
