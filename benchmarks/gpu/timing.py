"""Wall time of a few functions side by side: warmed up, interleaved, the device idle before and after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median


def interleaved(
    runs: Mapping[str, Callable[[], object]], *, repeats: int = 15, warm_up: int = 3, device: str = "cpu"
) -> dict[str, float]:
    """Median milliseconds of each of ``runs``.

    They take turns (A B C A B C ...), so that a machine that slows down slows all of them. On ``cuda`` the clock is
    read with the device idle: launching a kernel is not running it.
    """
    for run in runs.values():
        for _ in range(warm_up):
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            _idle(device)
            started = time.perf_counter()
            run()
            _idle(device)
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: median(found) for name, found in times.items()}


def _idle(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()
