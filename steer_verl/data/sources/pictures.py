"""The build's own pictures: every one of them decoded safely, encoded anew and named by its pixels.

The same pixels are the same file, whatever they came as. A PNG, or a picture that somebody drew, stays a PNG; others
become JPEG. EXIF and text chunks go.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from steer_verl.data.sources.bad import Refused
from steer_verl.errors import DataError
from steer_verl.images import decode_image, load_image, plain_image

JPEG_QUALITY = 95
_LOSSY = ("JPEG", "WEBP")


class PictureStore:
    """A folder of pictures. Several processes may write to it.

    Args:
        folder: made when the first picture comes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, image: Image.Image) -> str:
        """The picture's path below the folder; it is written unless it is there.

        Args:
            image: as steer_verl/images.py gives it: RGB, ``format`` that of the file it came from.
        """
        digest = pixel_digest(image)
        suffixes = (".jpg", ".png") if image.format in _LOSSY else (".png", ".jpg")
        names = [f"{digest[:2]}/{digest}{suffix}" for suffix in suffixes]
        for name in names:
            if (self.folder / name).exists():
                return name
        _write(image, self.folder / names[0])
        return names[0]


def picture_of(value: Any, root: Path, name: str) -> Image.Image | None:
    """A row's picture, decoded through the one door; ``None`` when the row has none.

    Args:
        value: a path, bytes, ``{"bytes", "path"}`` as Hugging Face files have it, or an opened picture.
        root: folder that a path may not leave; an absolute path must lie in it too.
        name: says in errors which one it is, where there is no path.

    Raises:
        Refused: missing, broken, hostile or of another type.
    """
    if isinstance(value, dict) and set(value) <= {"bytes", "path"}:
        value, name = (value["bytes"], value.get("path") or name) if value.get("bytes") else (value.get("path"), name)
    try:
        if value is None:
            return None
        if isinstance(value, str):
            return load_image(_below(value, root), root=root)
        if isinstance(value, bytes):
            return decode_image(value, name)
        if isinstance(value, Image.Image):
            return plain_image(value, name)
    except DataError as error:
        what, _, cure = str(error).partition("; ")
        raise Refused("picture", what, cure) from None
    raise Refused("picture", f"image: a {type(value).__name__}", "give a path, or the bytes of a picture file")


def pixel_digest(image: Image.Image) -> str:
    """Of size and pixels of an RGB picture, 32 hexadecimal digits."""
    digest = hashlib.blake2b(f"{image.width}x{image.height}\n".encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.hexdigest()


def _below(path: str, root: Path) -> str:
    """An absolute path that lies in the root, as the path from there; others are the door's to refuse."""
    try:
        return str(Path(path).relative_to(root.absolute())) if Path(path).is_absolute() else path
    except ValueError:
        return path


def _write(image: Image.Image, path: Path) -> None:
    """Under a name of its own first, so that no reader and no killed run ever leaves half a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            if path.suffix == ".png":
                image.save(stream, "PNG")
            else:
                image.save(stream, "JPEG", quality=JPEG_QUALITY)
        os.chmod(fresh, 0o644)  # mkstemp's own is for one user
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise
