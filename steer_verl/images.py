"""Images are untrusted files: one door through which every one of them comes.

An image named by a dataset can be a bomb, a broken download, another format under a false suffix or a path that
leaves its folder. :func:`load_image` refuses all of these with one line that names the file and how to fix it;
:func:`decode_image` and :func:`plain_image` do so for images that come as bytes or as objects. To a tutor's server a
image goes as a re-encoded ``data:`` URI (:func:`data_uri`), never as a path or URL that a dataset wrote.
"""

from __future__ import annotations

import base64
import functools
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from PIL import Image, ImageOps

from steer_verl.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 32_000_000
"""Pixels of one image; a decoded RGB one then takes at most 96 MB. Below Pillow's own warning at 89 million."""
MAX_SIDE = 16_384
"""Longer side in pixels."""
MAX_ASPECT = 200
"""Longer over shorter side; Qwen2.5-VL's image processor (smart_resize) raises above it."""
MAX_BYTES = 64 * 2**20
"""Size of the file."""
SENT_SIDE = 1536
"""Images go to a server with their longer side, in pixels, at most this."""

AnyPath = str | PathLike[str]

_open_lock = threading.Lock()  # warnings.catch_warnings changes process-wide state


def resolve_image(path: AnyPath, *, root: AnyPath | None = None) -> Path:
    """The absolute path of an existing regular file; with ``root``, one that lies under it, links followed.

    Raises:
        DataError: a URL, a NUL, no such file, or (with ``root``) an absolute path, a ``..`` or a link that leads out.
    """
    name = str(path)
    if "\0" in name:
        raise DataError(f"image {name!r}: the path holds a NUL byte; remove it")
    if "://" in name or name.startswith("data:"):
        raise DataError(f"image {name[:80]!r}: a URL is not loaded; download the image and give its path")
    base = Path(root) if root is not None else Path()
    if root is not None and (Path(name).is_absolute() or ".." in Path(name).parts):
        raise DataError(f"image {name}: absolute or with '..'; give a path below {base}")
    full = base / name
    try:
        real = full.resolve(strict=True)
        regular = real.is_file()
    except (OSError, RuntimeError):
        raise DataError(f"image {full}: no such file; check the path or the image root") from None
    if not regular:
        raise DataError(f"image {full}: not a regular file; give a PNG, JPEG or WEBP file")
    if root is not None and not real.is_relative_to(base.resolve()):
        raise DataError(f"image {full}: a link leads out of {base}; copy the image into it")
    return real


def load_image(
    path: AnyPath, *, root: AnyPath | None = None, max_pixels: int = MAX_PIXELS, max_side: int = MAX_SIDE
) -> Image.Image:
    """Decode an image completely: upright by its EXIF orientation, RGB, without metadata; an animation's first frame.

    ``format`` of the result still names the file's own, ``PNG``, ``JPEG`` or ``WEBP``.

    Args:
        path: the file; below ``root`` when that is given (see :func:`resolve_image`).
        root: folder that the path may not leave.
        max_pixels: largest width x height, read from the header before anything is decoded.
        max_side: largest width or height, in pixels.

    Raises:
        DataError: not a readable PNG, JPEG or WEBP, truncated, or beyond a cap. One line, with a hint.
    """
    real = resolve_image(path, root=root)
    return _decoded(real, str(real), real.stat().st_size, max_pixels, max_side)


def decode_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, max_side: int = MAX_SIDE) -> Image.Image:
    """:func:`load_image` for the bytes of an image file; ``name`` says in errors which one.

    Raises:
        DataError: see :func:`load_image`.
    """
    return _decoded(data, name, len(data), max_pixels, max_side)


def plain_image(
    image: Image.Image, name: str, *, max_pixels: int = MAX_PIXELS, max_side: int = MAX_SIDE
) -> Image.Image:
    """:func:`load_image` for an image that somebody else opened or drew; ``name`` says in errors which one.

    Raises:
        DataError: opened from another format than PNG, JPEG or WEBP, truncated, or beyond a cap.
    """
    if image.format not in (None, *FORMATS):
        raise DataError(f"image {name}: a {image.format} file, not a PNG, JPEG or WEBP; convert it")
    with _one_line_errors(name, max_pixels):
        _check_size(name, image.size, max_pixels, max_side)
        return _upright_rgb(image)


def data_uri(path: AnyPath, *, max_side: int | None = None, root: AnyPath | None = None) -> str:
    """The image, loaded safely and encoded anew without metadata, as a ``data:image/...;base64,`` URI.

    JPEG files become JPEG (quality 90), others PNG. ``max_side`` shrinks the image so that its longer side, in
    pixels, is at most that; it never enlarges.

    Raises:
        DataError: see :func:`load_image`.
    """
    image = load_image(path, root=root)
    if max_side is not None:
        image.thumbnail((max_side, max_side))
    jpeg = Path(path).suffix.lower() in (".jpg", ".jpeg")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90) if jpeg else image.save(buffer, "PNG")
    kind = "jpeg" if jpeg else "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def image_uri(path: AnyPath, root: AnyPath | None = None) -> str:
    """The ``data:`` URI of an image as a server is sent it, kept for the next requests while the file stays the same.

    Raises:
        DataError: the image is missing or must not be opened.
    """
    stat = resolve_image(path, root=root).stat()
    return _sent(str(path if root is None else Path(root) / path), stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=128)
def _sent(path: str, _mtime: int, _size: int) -> str:
    return data_uri(path, max_side=SENT_SIDE)


def _decoded(source: Path | bytes, name: str, size: int, max_pixels: int, max_side: int) -> Image.Image:
    if size > MAX_BYTES:
        raise DataError(f"image {name}: {size} bytes, more than {MAX_BYTES}; shrink it")
    with _one_line_errors(name, max_pixels), _open_header(source) as image:
        _check_size(name, image.size, max_pixels, max_side)
        if image.format == "PNG":
            _check_chunks(source)
        return _upright_rgb(image)


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    rgb = _plain_rgb(ImageOps.exif_transpose(image))
    rgb.format = image.format
    return rgb


@contextmanager
def _one_line_errors(name: str, max_pixels: int) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(f"image {name}: a decompression bomb, more than {max_pixels} pixels; shrink it") from None
    except Image.UnidentifiedImageError:
        raise DataError(f"image {name}: not a PNG, JPEG or WEBP file, whatever its suffix; convert it") from None
    except Exception as error:  # decoders of hostile bytes raise almost anything; all of it means: unreadable
        raise DataError(f"image {name}: broken or truncated ({error}); fetch or save it again") from None


def _open_header(source: Path | bytes) -> Image.Image:
    with _open_lock, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _check_chunks(source: Path | bytes) -> None:
    """Read a PNG to its end, checksums included: its decoder stops at the last row and would not miss a torn tail."""
    with _open_header(source) as image:
        image.verify()


def _check_size(name: str, size: tuple[int, int], max_pixels: int, max_side: int) -> None:
    width, height = size
    if width * height > max_pixels or max(size) > max_side:
        raise DataError(
            f"image {name}: {width}x{height} is beyond {max_pixels} pixels or {max_side} a side; shrink the image"
        )
    if not 0 < max(size) <= MAX_ASPECT * min(size):
        raise DataError(f"image {name}: {width}x{height} is longer than {MAX_ASPECT}:1; crop it")


def _plain_rgb(image: Image.Image) -> Image.Image:
    """RGB on white, with an empty ``info``: hidden colours under transparency stay hidden, EXIF and text chunks go."""
    if image.mode.startswith("I"):  # 16 bits of grey: keep the upper 8, where convert() would clip
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    rgb = image.convert("RGB")
    rgb.info = {}
    return rgb
