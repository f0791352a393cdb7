"""verl and vLLM on a machine without a GPU: asked for with ``STEER_CPU=1``, and never active where CUDA is.

Three doors, each the earliest that its workarounds need and no earlier; environment variables carry the wish into Ray's
workers and vLLM's subprocesses, which inherit them:

===================  =====================================================  ========================================
module               loaded by                                              what it gets past
===================  =====================================================  ========================================
``boot``             a ``.pth`` file, if ``install`` finds it is needed     torchvision's CUDA build beside a CPU torch
``verl_gaps``        entry point ``verl.plugins`` (steer_verl/plugin.py)    verl's platform, gloo, pinning, vLLM's name
``vllm_gaps``        entry point ``vllm.general_plugins``                   vLLM dropping weights that must be reloaded,
                                                                            sums that depend on company and processor
===================  =====================================================  ========================================

A Ray cluster that was started beforehand (``ray start``) must itself have been started with ``STEER_CPU=1``.
"""

from __future__ import annotations

import os

ENV = "STEER_CPU"

INSTRUCTIONS: dict[str, str] = (
    {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}
    if os.uname().machine == "x86_64"
    else {}
)
"""What holds torch, oneDNN and MKL to AVX2, on x86; ``vllm_gaps.one_instruction_set`` holds vLLM."""


def requested() -> bool:
    """Whether the environment asks for the CPU runtime."""
    return os.environ.get(ENV) == "1"


def active() -> bool:
    """Whether the CPU runtime is asked for and this process sees no CUDA device. Imports torch only when asked for."""
    if not requested():
        return False
    import torch

    return not torch.cuda.is_available()


def environment() -> dict[str, str]:
    """The environment variables of a CPU run; the user's own go before: ``{**environment(), **os.environ}``.

    ``VLLM_CPU_KVCACHE_SPACE`` is in GiB. One OpenMP thread per process, not bound to cores: several processes share few
    cores. Ray's memory monitor is off: it counts the page cache and kills workers of a healthy run on an 8 GiB machine.
    """
    return {
        ENV: "1",
        "VERL_ENGINE_DEVICE": "cuda",  # see verl_gaps.engine_device
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning, threads that wait made a busy machine ten times slower
        "TORCHDYNAMO_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_prestart_worker_first_driver": "0",  # workers that nobody asked for, on cores that all share
    }


def collect_rarely() -> None:
    """Let Python look for garbage after 20,000 new objects, not 700: verl, vLLM and transformers make millions.

    With :func:`environment` a Stage III of the laboratory took 3:29 on two cores, and 3:54 with Python's own setting
    and Ray's workers started ahead.
    """
    import gc

    gc.set_threshold(20_000, 50, 100)


def laboratory() -> dict[str, str]:
    """What the miniature students are computed under, besides :func:`environment`: sums are added up in one order, so
    that a seed's student is the same on every x86 machine, with AVX-512 or without, however many its cores.

    Meant for float32, which is as fast this way. bfloat16, in which larger models compute, is fifteen times slower.
    """
    return {**INSTRUCTIONS, "OMP_NUM_THREADS": "1"}
