"""Where the images of a finished run may lie: who wrote its files may not be who reads them.

An image that a run names is opened only where that run's images belong, whether it is shown on a page or sent to a
judge.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from steer_verl.errors import DataError
from steer_verl.eval.runs import EvalRun
from steer_verl.images import MAX_BYTES, image_version

UNREADABLE = "unreadable"


def image_folders(run: EvalRun) -> list[Path]:
    """Where a run's images belong: its own folder, and the image folders that its benchmarks name.

    A path that is not absolute starts at the run's folder, or where the command was given. Never a folder that holds a
    home, such as the whole disk; but of a log of Inspect, because such a run has no images that the log itself does not
    hold.
    """
    if run.folder.is_file():
        return [Path(run.folder.absolute().anchor)]
    named = [run.folder]
    for settings in run.about.benchmarks.values():
        images, file = settings.get("images"), settings.get("file")
        folder = Path(images) if isinstance(images, str) else Path(file).parent if isinstance(file, str) else None
        named += [run.folder / folder, folder] if folder else []
    home = Path(os.path.realpath(os.path.expanduser("~")))
    real = [folder for path in named if (folder := _real(path))]
    return [folder for folder in real if not home.is_relative_to(folder) and folder != Path(folder.anchor)]


def locator(run: EvalRun) -> Callable[[str], Path | None]:
    """Finds the file of an image that the run names, links followed; ``None`` where it lies outside its folders."""
    folders = image_folders(run)

    def located(path: str) -> Path | None:
        file = _real(run.folder / path)
        return file if file and any(file.is_relative_to(folder) for folder in folders) else None

    return located


def image_digest(path: str) -> str:
    """What is in an image's file, wherever it lies: sha256 of its bytes, or one word. Whoever opens it tells why."""
    try:
        real, mtime, size = image_version(path)
        return _of_bytes(real, mtime, size) if size <= MAX_BYTES else "too large"
    except (DataError, OSError):
        return UNREADABLE


@lru_cache(maxsize=2**14)
def _of_bytes(real: Path, _mtime: int, _size: int) -> str:
    return hashlib.sha256(real.read_bytes()).hexdigest()


def _real(path: Path) -> Path | None:
    try:
        return Path(os.path.realpath(path))
    except ValueError:  # a character that no path can have
        return None
