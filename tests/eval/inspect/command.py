"""``inspect`` as a user runs it: in a process of its own, which finds us by the entry point, as once installed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def environment(folder: Path) -> dict[str, str]:
    """Variables of a process in which this source is installed, and whose caches lie below ``folder``."""
    installed = folder / "site" / "steer_verl-0.dist-info"
    installed.mkdir(parents=True, exist_ok=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: steer-verl\nVersion: 0\n")
    (installed / "entry_points.txt").write_text("[inspect_ai]\nsteer_verl = steer_verl.eval.inspect.registry\n")
    (installed / "direct_url.json").write_text(json.dumps({"url": ROOT.as_uri(), "dir_info": {"editable": True}}))
    caches = {"XDG_CACHE_HOME": str(folder / "cache"), "INSPECT_CACHE_DIR": str(folder / "replies")}
    path = os.pathsep.join([str(installed.parent), str(ROOT)])
    return {**os.environ, **caches, "PYTHONPATH": path, "INSPECT_DISPLAY": "plain", "COLUMNS": "200"}


async def inspect(folder: Path, *arguments: str, **variables: str) -> asyncio.subprocess.Process:
    """Start ``inspect`` in ``folder``."""
    return await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("inspect")),
        *arguments,
        cwd=folder,
        env={**environment(folder), **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def inspected(folder: Path, *arguments: str, **variables: str) -> str:
    """What ``inspect`` prints, once it has ended well."""
    process = await inspect(folder, *arguments, **variables)
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    return said
