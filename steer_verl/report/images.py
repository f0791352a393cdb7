"""The images of dialogues, small and encoded anew, each once however many dialogues and runs show it.

Who wrote a run's files may not be who makes the page: an image is opened only where that run's images belong.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from steer_verl.errors import DataError
from steer_verl.eval.images import locator
from steer_verl.eval.runs import EvalRun
from steer_verl.images import load_image

QUALITY = 70
"""Of WEBP, at which a photo of 160 pixels takes 3 to 5 kB."""

Places = dict[str, int | str]
"""Path, as a dialogue names it -> number of its thumbnail, or why it is not shown."""


def album(runs: Sequence[EvalRun], side: int) -> tuple[list[str], list[Places]]:
    """Thumbnails of all images that dialogues show, made by a thread per core.

    Args:
        runs: whose dialogues name images.
        side: the longer side of a thumbnail in pixels; 0: none are made, and no image is opened.

    Returns:
        WEBP files in base64, and for each run where its images are among them.
    """
    named = [
        dict.fromkeys(path for d in run.dialogues for turn in d.turns for path in turn.user.images) for run in runs
    ]
    if not side:
        return [], [dict.fromkeys(paths, "images were left out of this page") for paths in named]
    files = [{path: found(path) for path in paths} for found, paths in zip(map(locator, runs), named, strict=True)]
    wanted = dict.fromkeys(file for found in files for file in found.values() if file)
    numbers, places = dict[str, int](), dict[Path | None, int | str]()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for file, (text, fault) in zip(wanted, pool.map(lambda file: _thumbnail(file, side), wanted), strict=True):
            places[file] = fault or numbers.setdefault(text, len(numbers))
    outside = "{} lies outside the folders of this run's images"
    shown = [{path: places.get(file, outside.format(Path(path).name)) for path, file in f.items()} for f in files]
    return list(numbers), shown


def _thumbnail(file: Path, side: int) -> tuple[str, str]:
    """The small image, or why there is none."""
    try:
        image = load_image(file)
    except DataError as error:
        return "", str(error)
    image.thumbnail((side, side), reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=2)
    return base64.b64encode(buffer.getvalue()).decode("ascii"), ""
