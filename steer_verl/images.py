"""Images are untrusted files: one door through which every one of them comes.

An image named by a dataset can be a bomb, a broken download, another format under a false suffix or a path that
leaves its folder. :func:`load_image` refuses all of these with one line that names the file and how to fix it;
:func:`decode_image` and :func:`plain_image` do so for images that come as bytes or as objects.

What a model sees is :func:`seen_image`: the student in training as pixels, everybody behind a server as a ``data:`` URI
(:func:`image_uri`) that decodes to the same pixels. A path or URL that a dataset wrote is never sent.
"""

from __future__ import annotations

import base64
import errno
import functools
import io
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from math import ceil, floor
from os import PathLike
from pathlib import Path
from stat import S_ISREG
from typing import TypeVar

from PIL import ExifTags, Image, ImageOps

from steer_verl.errors import DataError, disk_error
from steer_verl.jpeg import without_metadata

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 32_000_000
"""Pixels of one image; a decoded RGB one then takes at most 96 MB. Below Pillow's own warning at 89 million."""
_ORIENTED = (b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Keys of a PNG's texts in which Pillow looks for an orientation."""
_DEPTHS = {"L;2": 255 / 3, "L;4": 255 / 15, "RGB;16B": 1 / 256}
"""Of a PNG's pixels as Pillow reads them: a value in the file -> one of 8 bits."""
MAX_SIDE = 16_384
"""Longer side in pixels."""
MAX_ASPECT = 200
"""Longer over shorter side; Qwen2.5-VL's image processor (smart_resize) raises above it."""
MAX_BYTES = 64 * 2**20
"""Size of the file."""
SEEN_SIDE = 1536
"""Models see an image with its longer side, in pixels, at most this."""
JPEG_QUALITY = 95
"""Of a photo that is turned or shrunk, its colours not subsampled: a third of a PNG's size, with a PSNR of about 40 dB,
50 when it is brought to 512 x 512 pixels."""

T = TypeVar("T")
AnyPath = str | PathLike[str]
PAUSES = (0.1, 0.4, 1.6)
"""Seconds between the tries to open a file while too many are open."""
_NOWHERE = (None, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""What the system says of a path that leads to no file."""


class Change(StrEnum):
    """What the door does to an image that is not plain, for a reader."""

    UPRIGHT = "turned upright, as EXIF says"
    WHITE = "laid on white, where transparent"
    DEPTH = "brought from 16 bits of grey to 8"
    SMALLER = f"shrunk to {SEEN_SIDE} pixels, the longer side"


_open_lock = threading.Lock()  # warnings.catch_warnings changes process-wide state
_uri_locks = tuple(threading.Lock() for _ in range(16))


def resolve_image(path: AnyPath, *, root: AnyPath | None = None) -> Path:
    """The absolute path of an existing regular file; with ``root``, one that lies under it, links followed.

    Raises:
        DataError: a URL, a NUL, no such file, or (with ``root``) an absolute path, a ``..`` or a link that leads out.
    """
    return image_version(path, root=root)[0]


def image_version(path: AnyPath, *, root: AnyPath | None = None) -> tuple[Path, int, int]:
    """:func:`resolve_image`, and what tells whether the file has changed: mtime in nanoseconds, size in bytes.

    Raises:
        DataError: see :func:`resolve_image`.
    """
    name = str(path)
    if "\0" in name:
        raise DataError(f"image {name!r}: the path holds a NUL byte; remove it")
    if "://" in name or ";base64," in name or name.startswith("data:"):
        raise DataError(f"image {name[:80]!r}: a URL is not loaded; download the image and give its path")
    base = Path(root) if root is not None else Path()
    if root is not None and (Path(name).is_absolute() or ".." in Path(name).parts):
        raise DataError(f"image {name}: absolute or with '..'; give a path below {base}")
    full = base / name
    try:
        real = full.resolve(strict=True)
        stat = real.stat()
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: half a surrogate pair, which no file name holds
        raise _unread(full, error) from None
    if not S_ISREG(stat.st_mode):
        raise DataError(f"image {full}: not a regular file; give a PNG, JPEG or WEBP file")
    if root is not None and not real.is_relative_to(base.resolve()):
        raise DataError(f"image {full}: a link leads out of {base}; copy the image into it")
    return real, stat.st_mtime_ns, stat.st_size


def image_bytes(path: AnyPath) -> bytes:
    """What is in the file, as it lies there.

    Raises:
        DataError: see :func:`resolve_image`; also a file that goes away meanwhile, or that may not be read.
    """
    real = resolve_image(path)
    try:
        return _patiently(real.read_bytes)
    except OSError as error:
        raise _unread(real, error) from None


def _patiently(opens: Callable[[], T]) -> T:
    """What ``opens`` gives, tried again while too many files are open, which passes; it may take seconds."""
    for pause in PAUSES:
        try:
            return opens()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        time.sleep(pause)
    return opens()


def _unread(path: AnyPath, error: Exception) -> DataError:
    """What the system said of a file: that it is not there, or that it may not be read now."""
    if not isinstance(error, OSError) or error.errno in _NOWHERE:
        return DataError(f"image {path}: no such file; check the path or the image root")
    return DataError(f"image {disk_error(error, path, 'read')}")


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
    real, _, size = image_version(path, root=root)
    return _decoded(real, str(real), size, max_pixels, max_side)[0]


def decode_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, max_side: int = MAX_SIDE) -> Image.Image:
    """:func:`load_image` for the bytes of an image file; ``name`` says in errors which one.

    Raises:
        DataError: see :func:`load_image`.
    """
    return _decoded(data, name, len(data), max_pixels, max_side)[0]


def plain_image(
    image: Image.Image, name: str, *, max_pixels: int = MAX_PIXELS, max_side: int = MAX_SIDE
) -> Image.Image:
    """:func:`load_image` for an image that somebody else opened or drew; ``name`` says in errors which one.

    Raises:
        DataError: opened from another format than PNG, JPEG or WEBP, truncated, or beyond a cap.
    """
    if _format(image) not in (None, *FORMATS):
        raise DataError(f"image {name}: a {image.format} file, not a PNG, JPEG or WEBP; convert it")
    with _one_line_errors(name, max_pixels):
        _check_size(name, image.size, max_pixels, max_side)
        return _upright_rgb(image)[0]


def seen_image(path: AnyPath, *, root: AnyPath | None = None) -> Image.Image:
    """The pixels that every model is shown of a file, before its own resizing: :func:`load_image`, shrunk.

    The longer side is at most :data:`SEEN_SIDE` pixels. A JPEG file that has to be turned or shrunk is encoded anew,
    and what is seen is what that file decodes to: a PNG would be several times as large, and is sent turn after turn.

    Raises:
        DataError: see :func:`load_image`.
    """
    real, _, size = image_version(path, root=root)
    return _seen(real, size)[0]


def seen_size(path: AnyPath) -> tuple[int, int]:
    """Width and height of :func:`seen_image`, from the head of the file: nothing is decoded.

    Raises:
        DataError: see :func:`load_image`; what only decoding shows (a torn file) is not seen here.
    """
    real = resolve_image(path)
    with _one_line_errors(str(real), MAX_PIXELS), _open_header(real) as image:
        _check_size(str(real), image.size, MAX_PIXELS, MAX_SIDE)
        told = image.format != "PNG" or "exif" in image.info or _late_metadata(real)  # else Pillow decodes a PNG first
        turned = told and image.getexif().get(ExifTags.Base.Orientation, 1) in range(5, 9)
        width, height = reversed(image.size) if turned else image.size
    return _thumbnail_size(width, height)


def _late_metadata(path: Path) -> bool:
    """Whether a PNG has a chunk that may tell its orientation, perhaps behind its pixels."""
    with _patiently(lambda: path.open("rb")) as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            key = file.read(min(21, length)) if (length := int.from_bytes(head[:4], "big")) else b""
            if head[4:] == b"eXIf" or (head[5:] in (b"TXt", b"EXt") and key.startswith(_ORIENTED)):
                return True
            file.seek(length - len(key) + 4, 1)
    return False


def _thumbnail_size(width: int, height: int) -> tuple[int, int]:
    """The size that ``Image.thumbnail`` gives: within SEEN_SIDE, by the number nearest to the aspect."""
    if max(width, height) <= SEEN_SIDE:
        return width, height
    aspect = width / height
    if aspect <= 1:
        wide = SEEN_SIDE * aspect
        return max(min(floor(wide), ceil(wide), key=lambda n: abs(aspect - n / SEEN_SIDE)), 1), SEEN_SIDE
    high = SEEN_SIDE / aspect
    return SEEN_SIDE, max(min(floor(high), ceil(high), key=lambda n: abs(aspect - SEEN_SIDE / n) if n else 0), 1)


def image_and_changes(
    source: AnyPath | bytes, *, root: AnyPath | None = None, name: str = ""
) -> tuple[Image.Image, frozenset[Change]]:
    """:func:`load_image` of a file or of its bytes, and what :func:`seen_image` changes of it: decoded once for both.

    Args:
        source: the file, or its bytes.
        root: folder that a path may not leave.
        name: says in errors which one it is, where there is no path.

    Raises:
        DataError: see :func:`load_image`.
    """
    if isinstance(source, bytes):
        size = len(source)
    else:
        source, _, size = image_version(source, root=root)
    image, changes = _decoded(source, name or str(source), size, MAX_PIXELS, MAX_SIDE)
    return image, changes | {Change.SMALLER} if max(image.size) > SEEN_SIDE else changes


def image_uri(path: AnyPath, root: AnyPath | None = None) -> str:
    """A file as a server is sent it: a ``data:image/...;base64,`` URI that decodes to :func:`seen_image`, no metadata.

    A JPEG file that is upright, RGB or grey, and not too large goes with its own compressed data, other JPEG files as
    they are encoded anew, all else as PNG. The URI is kept for the next requests while the file stays the same.

    Raises:
        DataError: see :func:`load_image`.
    """
    real, mtime, size = image_version(path, root=root)
    with _uri_locks[hash(real) % len(_uri_locks)]:  # a group's rollouts come at once; one of them does the work
        return _sent(real, mtime, size)


def preview_uri(path: AnyPath, side: int, *, root: AnyPath | None = None) -> str:
    """A small image for a page that people read, as a ``data:`` URI; models are sent :func:`image_uri`.

    JPEG files become JPEG (quality 90), others PNG. The longer side is at most ``side`` pixels; nothing is enlarged.

    Raises:
        DataError: see :func:`load_image`.
    """
    image = load_image(path, root=root)
    image.thumbnail((side, side))
    return _uri("jpeg", _encoded(image, "JPEG", quality=90)) if image.format == "JPEG" else _png_uri(image)


@functools.lru_cache(maxsize=128)
def _sent(real: Path, _mtime: int, size: int) -> str:
    image, file = _seen(real, size)
    if file is None and image.format == "JPEG":
        file = _own_data(real, image)
    return _png_uri(image) if file is None else _uri("jpeg", file)


def _seen(real: Path, size: int) -> tuple[Image.Image, bytes | None]:
    """What is seen of a file, and the new JPEG file that it was decoded from, if it had to be written."""
    image, changes = _decoded(real, str(real), size, MAX_PIXELS, MAX_SIDE)
    small = max(image.size) <= SEEN_SIDE
    image.thumbnail((SEEN_SIDE, SEEN_SIDE))
    if image.format != "JPEG" or (small and Change.UPRIGHT not in changes):
        return image, None
    file = _encoded(image, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return decode_image(file, str(real)), file


def _own_data(real: Path, image: Image.Image) -> bytes | None:
    """A JPEG file without its metadata, if it then still decodes to ``image``.

    A file that is larger than its pixels is stuffed, and not sent on. Other decoders may make something else of CMYK.
    """
    with suppress(Exception):  # what cannot be read again or decoded is not the same
        data = without_metadata(_patiently(real.read_bytes))
        if data is None or len(data) > image.width * image.height * 3 + 4096:
            return None
        with _open_header(data) as plain:
            if plain.mode in ("RGB", "L") and plain.convert("RGB").tobytes() == image.tobytes():
                return data
    return None


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png_uri(image: Image.Image) -> str:
    return _uri("png", _encoded(image, "PNG"))


def _uri(kind: str, file: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file).decode('ascii')}"


def _decoded(
    source: Path | bytes, name: str, size: int, max_pixels: int, max_side: int
) -> tuple[Image.Image, frozenset[Change]]:
    if size > MAX_BYTES:
        raise DataError(f"image {name}: {size} bytes, more than {MAX_BYTES}; shrink it")
    with _one_line_errors(name, max_pixels), _open_header(source) as image:
        _check_size(name, image.size, max_pixels, max_side)
        if image.format == "PNG":
            _check_chunks(source)
        return _upright_rgb(image)


def _upright_rgb(image: Image.Image) -> tuple[Image.Image, frozenset[Change]]:
    _name_clear_colour(image)
    image.load()
    changes = frozenset(_changes(image))
    rgb = _plain_rgb(ImageOps.exif_transpose(image))
    rgb.format = _format(image)
    return rgb, changes


def _name_clear_colour(image: Image.Image) -> None:
    """Pillow tells a PNG's transparent colour in the depth of the file, and brings the pixels alone to 8 bits."""
    tiles = getattr(image, "tile", None) if image.format == "PNG" else None
    scale, clear = _DEPTHS.get(tiles[0].args) if tiles else None, image.info.get("transparency")
    if scale is not None and isinstance(clear, int):
        image.info["transparency"] = int(clear * scale)
    elif scale is not None and clear is not None:
        image.info["transparency"] = tuple(int(value * scale) for value in clear)


def _changes(image: Image.Image) -> Iterator[Change]:
    if image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9):
        yield Change.UPRIGHT
    if _is_deep(image):
        yield Change.DEPTH
    if "transparency" in image.info or ("A" in image.getbands() and image.getchannel("A").getextrema() != (255, 255)):
        yield Change.WHITE


def _format(image: Image.Image) -> str | None:
    """The file's format; a JPEG file with further images behind the first (MPO, as some phones write) is a JPEG."""
    return "JPEG" if image.format == "MPO" else image.format


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I")


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
    except OSError as error:  # Pillow's own have no number
        raise _unread(name, error) if error.errno else _broken(name, error) from None
    except Exception as error:  # decoders of hostile bytes raise almost anything; all of it means: unreadable
        raise _broken(name, error) from None


def _broken(name: str, error: Exception) -> DataError:
    return DataError(f"image {name}: broken or truncated ({error}); fetch or save it again")


def _open_header(source: Path | bytes) -> Image.Image:
    return _patiently(lambda: _header(source))


def _header(source: Path | bytes) -> Image.Image:
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
    if _is_deep(image):  # 16 bits of grey: keep the upper 8, where convert() would clip
        clear = image.info.get("transparency")
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
        if clear is not None:
            image.info["transparency"] = clear // 257
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    rgb = image.convert("RGB")
    rgb.info = {}
    return rgb
