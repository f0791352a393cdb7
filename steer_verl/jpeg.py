"""A JPEG file without its metadata: the same compressed pixels, and nothing that a camera or an editor put beside.

The segments are those of ITU-T T.81, annex B. Nothing is decoded here, so the pixels stay as they are to the last bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
APP0, APP14 = 0xE0, 0xEE
KEPT = frozenset({0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, SOS})
"""Frames that every decoder knows (baseline, extended, progressive), tables, restart interval, scans."""
DROPPED = frozenset({*range(APP0, 0xF0), 0xFE})
"""APP0 to APP15 and comments. Of APP0 and APP14 the part that says how to read the colours is kept."""

_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
"""The first marker after a scan's data: there, FF is followed by 00, by a restart marker or by more FF."""


def without_metadata(data: bytes) -> bytes | None:
    """The JPEG file from its first to its end marker, without EXIF, XMP, ICC, thumbnails, comments and the like.

    Of the application segments the JFIF header (14 bytes, its thumbnail cut) and Adobe's (12 bytes) stay: by them a
    decoder knows the colour space.

    Returns:
        ``None`` for a file that is broken, has no end marker, or is of a kind that some decoders do not know
        (lossless, arithmetic, hierarchical).
    """
    try:
        return b"".join(_kept(data))
    except (IndexError, ValueError):
        return None


def _kept(data: bytes) -> Iterator[bytes]:
    if data[:2] != bytes((0xFF, SOI)):
        raise ValueError("no JPEG file")
    yield data[:2]
    at = 2
    while (marker := _marker(data, at)) != EOI:
        while data[at + 1] == 0xFF:  # fill bytes
            at += 1
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        after = at + 2 + length
        if length < 2 or after > len(data):
            raise ValueError("a segment leaves the file")
        yield from _segment(marker, data[at + 4 : after], data[at:after])
        at = after
        if marker == SOS:
            at = _scan_end(data, after)
            yield data[after:at]
    yield bytes((0xFF, EOI))


def _marker(data: bytes, at: int) -> int:
    if data[at] != 0xFF:
        raise ValueError("no marker where one must be")
    while data[at] == 0xFF:
        at += 1
    return data[at]


def _segment(marker: int, body: bytes, whole: bytes) -> Iterator[bytes]:
    if marker in KEPT:
        yield whole
    elif marker == APP0 and body[:5] == b"JFIF\0" and len(body) >= 14:
        yield b"\xff\xe0\x00\x10" + body[:12] + b"\0\0"
    elif marker == APP14 and body[:5] == b"Adobe" and len(body) >= 12:
        yield b"\xff\xee\x00\x0e" + body[:12]
    elif marker not in DROPPED:
        raise ValueError("a segment that not every decoder knows")


def _scan_end(data: bytes, start: int) -> int:
    found = _MARKER.search(data, start)
    if found is None:
        raise ValueError("no end marker")
    return found.start()
