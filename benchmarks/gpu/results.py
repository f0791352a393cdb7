"""What a run found: one JSON file a part, written as soon as it is known, so that a cut run keeps what it has."""

from __future__ import annotations

import json
import os
import platform
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from steer_verl.errors import DataError
from steer_verl.records import write_whole

PARTS = ("processor", "estimator", "lora", "full")
"""Every part, in the order in which a whole run takes them: the cheap ones first."""

PACKAGES = ("torch", "transformers", "vllm", "verl", "ray", "flash-attn")

Figures = dict[str, Any]


def machine() -> dict[str, str]:
    """Where and with what this was measured. Opens the device: call it in a process that may hold a little memory."""
    import torch

    card = torch.cuda.get_device_properties(0)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": date.today().isoformat(),
        "device": f"{card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}",
        "host": f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, Python {platform.python_version()}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    }


def save(out: Path, part: str, where: dict[str, str], figures: Figures) -> None:
    """Write ``<out>/<part>.json``, atomically."""
    write_whole(out / f"{part}.json", json.dumps({"machine": where, "figures": figures}, indent=1))


def load(out: Path) -> dict[str, Figures]:
    """Part -> ``{"machine": ..., "figures": ...}`` of every part that was measured.

    Raises:
        DataError: nothing was measured, or a file cannot be read.
    """
    found = {}
    for part in PARTS:
        path = out / f"{part}.json"
        try:
            if path.exists():
                found[part] = json.loads(path.read_text())
        except ValueError:
            raise DataError(f"{path}: not JSON; remove it and measure again with --only {part}") from None
    if not found:
        raise DataError(f"{out}: no result of any part; run `python -m benchmarks.gpu --out {out}` on a GPU first")
    return found


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
