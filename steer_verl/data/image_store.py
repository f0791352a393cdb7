"""The build's own images: each is decoded safely, encoded anew and named by its pixels.

The same pixels are the same file, whatever they came as. A PNG, or an image that somebody drew, stays a PNG; others
become JPEG, and so does one of so many pixels that its PNG could be too large to be opened again. EXIF and text chunks
go.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from steer_verl.images import MAX_BYTES

JPEG_QUALITY = 95
_LOSSY = ("JPEG", "WEBP")
PNG_PIXELS = (MAX_BYTES - 2**20) // 3
"""Of the largest PNG: even noise, which cannot be packed, then stays below the cap on a file."""
TONES = 8
"""Fields a side of the colour sketch."""
FLAT = 8
"""Grey levels between the darkest and the lightest field below which an image has nothing to be known by."""


class ImageStore:
    """A folder of images, made when the first one comes. Several processes may write to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, image: Image.Image) -> str:
        """The path below the folder of an image that steer_verl/images.py gave; it is written unless it is there."""
        digest = pixel_digest(image)
        lossy = image.format in _LOSSY or image.width * image.height > PNG_PIXELS
        suffixes = (".jpg", ".png") if lossy else (".png", ".jpg")
        names = [f"{digest[:2]}/{digest}{suffix}" for suffix in suffixes]
        there = next((name for name in names if (self.folder / name).exists()), None)
        if there is None:
            _write(image, self.folder / names[0])
        return there or names[0]


def pixel_digest(image: Image.Image) -> str:
    """Of size and pixels of an RGB image, 32 hexadecimal digits. It is the stem of the image's name in a store."""
    digest = hashlib.blake2b(f"{image.width}x{image.height}\n".encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Look:
    """What an image keeps when it is saved in another format or size."""

    shape: int
    """The 64-bit difference hash: whether each of 8 x 8 grey fields is darker than its right neighbour."""
    tones: bytes
    """8 x 8 RGB values. Drawings on white have much the same shape: their colours tell them apart."""


def look(image: Image.Image) -> Look | None:
    """An image's look; ``None`` for one that is of one colour nearly, which is known by its pixels alone."""
    small = image.convert("RGB").resize((9 * TONES, 8 * TONES), Image.Resampling.BOX)
    grey = np.asarray(small.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    if int(grey.max()) - int(grey.min()) < FLAT:
        return None
    bits = np.packbits((grey[:, :-1] < grey[:, 1:]).flatten())
    tones = small.resize((TONES, TONES), Image.Resampling.BOX)
    return Look(int.from_bytes(bits.tobytes(), "big"), tones.tobytes())


def _write(image: Image.Image, path: Path) -> None:
    """Under a name of its own first, so that no reader and no killed run ever leaves half an image."""
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


def path_below(path: str, root: Path) -> str:
    """An absolute path to a place below ``root``, by whatever links the two are named, as one that begins there; any
    other as it is."""
    if not os.path.isabs(path) or "\0" in path:
        return path
    real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    return os.path.relpath(real, base) if Path(real).is_relative_to(base := os.path.realpath(root)) else path
