"""Images on their way into a log of Inspect and out of it.

A log holds images as ``data:`` URIs. Read back, each is a file again: the one that it was, where that still has the
same bytes, else a file of :func:`image_folder`, named by its bytes. A path or URL that a log names is never opened for
anything else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from steer_verl.images import MAX_BYTES, resolve_image, seen_size
from steer_verl.records import atomic

KINDS = {b"\x89PNG": "png", b"\xff\xd8": "jpeg", b"RIFF": "webp"}
"""How the files begin that a log may hold."""


def image_folder() -> Path:
    """Where images of logs are kept: ``$XDG_CACHE_HOME/steer-verl/images``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "steer-verl" / "images"


def shown(held: dict[str, str]) -> Callable[[str], str]:
    """Makes the ``data:`` URI of an image file as it is, and puts its digest into ``held``, by its path.

    What it returns raises ``DataError`` for what is no PNG, JPEG or WEBP file, or beyond a bound.
    """

    def uri(path: str) -> str:
        seen_size(path)
        data = resolve_image(path).read_bytes()
        held[path] = digest(data)
        return f"data:image/{_kind(data)};base64,{base64.b64encode(data).decode()}"

    return uri


def bytes_of(uri: str) -> bytes | None:
    """The image of a ``data:`` URI; ``None`` for a path, a URL, another kind of data, or one beyond the bound."""
    head, _, data = uri.partition(";base64,")
    if not head.startswith("data:image/") or len(data) > MAX_BYTES * 4 // 3 + 4:
        return None
    try:
        image = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None
    return image if _kind(image) else None


def digest(image: bytes) -> str:
    """What an image is known by in a log."""
    return hashlib.sha256(image).hexdigest()


def kept(image: bytes, was: str = "") -> str:
    """The path of a file with these bytes: ``was`` if that is one, else one of :func:`image_folder`."""
    if was and _same(Path(was), image):
        return was
    path = image_folder() / f"{digest(image)}.{_kind(image)}"
    if not _same(path, image):
        with atomic(path) as stream:
            stream.write(image)
    return str(path)


def absent(was: str) -> str:
    """A path at which there is nothing, for an image that a log names and does not hold."""
    return was if not os.path.lexists(was) else str(image_folder() / "not-in-the-log" / Path(was).name)


def _same(path: Path, image: bytes) -> bool:
    try:
        return path.is_file() and path.stat().st_size == len(image) and path.read_bytes() == image
    except (OSError, ValueError):
        return False


def _kind(image: bytes) -> str:
    return next((kind for start, kind in KINDS.items() if image.startswith(start)), "")
