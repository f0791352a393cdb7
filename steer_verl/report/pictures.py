"""The pictures of dialogues, small and encoded anew, each once however many dialogues and runs show it."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from steer_verl.errors import DataError
from steer_verl.images import load_image

QUALITY = 70
"""Of WEBP, at which a photo of 160 pixels takes 3 to 5 kB."""


@dataclass
class Album:
    """Thumbnails by path."""

    pictures: list[str] = field(default_factory=list)
    """WEBP files in base64."""
    places: dict[str, int | str] = field(default_factory=dict)
    """Path -> its place in ``pictures``, or why it cannot be shown."""


def album(paths: Iterable[str], side: int) -> Album:
    """The pictures of ``paths``, decoded by a thread per core.

    Args:
        paths: may repeat.
        side: the longer side of a thumbnail in pixels; 0: none are made, and none is opened.
    """
    unique, found, known = tuple(dict.fromkeys(paths)), Album(), dict[bytes, int]()
    if not side:
        return Album(places=dict.fromkeys(unique, "pictures were left out of this page"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, made in zip(unique, pool.map(lambda path: _thumbnail(path, side), unique), strict=True):
            if isinstance(made, str):
                found.places[path] = made
                continue
            digest = hashlib.sha256(made).digest()
            if digest not in known:
                known[digest] = len(found.pictures)
                found.pictures.append(base64.b64encode(made).decode("ascii"))
            found.places[path] = known[digest]
    return found


def _thumbnail(path: str, side: int) -> bytes | str:
    """The file of the small picture, or why there is none."""
    try:
        image = load_image(path)
    except DataError as error:
        return str(error)
    image.thumbnail((side, side), reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=2)
    return buffer.getvalue()
