"""The platform ``cpu`` for verl's device layer (verl 0.9.1, plugin/platform/platform_base.py)."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import torch
from verl.plugin.platform import PlatformBase


def _nothing(*_: Any, **__: Any) -> None:
    """What an accelerator call comes to without an accelerator."""


def _peak_memory(*_: Any, **__: Any) -> int:
    """This process's largest resident size so far, in bytes (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _free_and_total_memory(*_: Any, **__: Any) -> tuple[int, int]:
    """Available and total bytes of the machine's memory, as torch.cuda.mem_get_info has it."""
    memory = psutil.virtual_memory()
    return memory.available, memory.total


class CpuDeviceModule(ModuleType):
    """``torch.cpu`` and, besides, what verl calls on ``torch.cuda`` (every ``get_torch_device().x`` in verl 0.9.1)."""

    empty_cache = ipc_collect = set_per_process_memory_fraction = staticmethod(_nothing)
    reset_peak_memory_stats = reset_max_memory_allocated = staticmethod(_nothing)
    memory_allocated = max_memory_allocated = memory_reserved = max_memory_reserved = staticmethod(_peak_memory)
    mem_get_info = staticmethod(_free_and_total_memory)
    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    @staticmethod
    def get_rng_state(*_: Any) -> torch.Tensor:
        """torch's own generator state: there is one device and one generator."""
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, *_: Any) -> None:
        """The inverse of :meth:`get_rng_state`."""
        torch.set_rng_state(state)

    @staticmethod
    def get_device_name(*_: Any) -> str:
        """The name in verl's FLOPS table lookup; ``cpu`` is not in it, and verl then reports none."""
        return "cpu"

    @staticmethod
    def get_device_properties(*_: Any) -> SimpleNamespace:
        """Name and total memory in bytes."""
        return SimpleNamespace(name="cpu", total_memory=psutil.virtual_memory().total)


class PlatformCPU(PlatformBase):
    """One CPU device. Ray is told that it is a GPU: verl places its workers on Ray's resource ``GPU`` or ``NPU``."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = CpuDeviceModule("steer_verl.cpu.device")

    def is_available(self) -> bool:
        """Always: the processor is there."""
        return True

    def current_device(self) -> str:
        """``cpu``, used as ``.to(device)``: an index would name an accelerator."""
        return "cpu"

    def device_count(self) -> int:
        """One device for each worker process."""
        return 1

    def set_device(self, device_index: int) -> None:
        """There is no other device to choose."""

    def synchronize(self, device_index: int | None = None) -> None:
        """CPU operations are done when they return."""

    def manual_seed(self, seed: int) -> None:
        """Seed torch's generator."""
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        """Seed torch's generator, the only one."""
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        """The CPU allocator has none."""

    def empty_cache(self) -> None:
        """The CPU allocator keeps no cache."""

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        """No compute capability."""
        return None, None

    def communication_backend_name(self) -> str:
        """gloo."""
        return "gloo"

    def visible_devices_envvar(self) -> str:
        """Ray sets this for the resource ``GPU``; nothing reads it here."""
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        """No profiler ranges."""
        yield

    def profiler_start(self) -> None:
        """No device profiler."""

    def profiler_stop(self) -> None:
        """No device profiler."""

    def ray_resource_name(self) -> str:
        """``GPU``: start Ray with ``num_gpus`` equal to the number of workers wanted."""
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        """Ray may set what it likes: no device is chosen by environment."""
        return []

    def is_ipc_supported(self) -> bool:
        """False: weights go to the rollout engine through POSIX shared memory."""
        return False

    def cudart(self) -> None:
        """No CUDA runtime."""
        return None
