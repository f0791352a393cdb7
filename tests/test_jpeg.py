"""What leaves in a JPEG file is its pixels: nothing that stands beside them, and nothing but what a decoder reads."""

from __future__ import annotations

import base64
import io
import random
import struct
import time
from pathlib import Path

import pytest
from PIL import Image

from steer_verl.errors import DataError
from steer_verl.images import image_uri, load_image, seen_image
from steer_verl.jpeg import without_metadata
from tests.odd_images import scene

SECRETS = [
    b"GPS of home",
    b"a colour profile",
    b"<x:xmpmeta>who",
    b"a comment",
    b"behind the end",
    b"a thumbnail",
    b"app",
]


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def photo(**options: object) -> bytes:
    buffer = io.BytesIO()
    scene().save(buffer, "JPEG", **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def stuffed(data: bytes) -> bytes:
    """A JPEG file with a secret of every kind in it."""
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "GPS of home"
    exif[0x0112] = 1
    beside = [
        segment(0xE0, b"JFXX\0\x13" + b"a thumbnail"),
        segment(0xE1, b"Exif\0\0" + exif.tobytes()),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>who</x:xmpmeta>"),
        segment(0xE2, b"ICC_PROFILE\0\1\1a colour profile"),
        *(segment(0xE0 + number, b"app") for number in (3, 8, 12, 13, 15)),
        segment(0xFE, b"a comment"),
    ]
    assert data[2:4] == b"\xff\xe0"
    after_jfif = 4 + int.from_bytes(data[4:6], "big")
    end = data.rindex(b"\xff\xd9")
    late = segment(0xFE, b"a comment") + segment(0xE1, b"a thumbnail")
    return data[:after_jfif] + b"".join(beside) + data[after_jfif:end] + late + data[end:] + b"behind the end" * 99


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"subsampling": 0}])
def test_no_metadata_leaves_and_no_pixel_changes(tmp_path: Path, options: dict[str, object]) -> None:
    data = stuffed(photo(**options))
    assert all(secret in data for secret in SECRETS)
    (tmp_path / "a.jpg").write_bytes(data)
    uri = image_uri(tmp_path / "a.jpg")
    sent = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"), validate=True)
    assert not any(secret in sent for secret in SECRETS)
    assert sent == without_metadata(data) == without_metadata(sent) and sent.endswith(b"\xff\xd9")
    with Image.open(io.BytesIO(sent)) as image:
        assert not image.getexif() and set(image.info) <= {
            "jfif",
            "jfif_version",
            "jfif_unit",
            "jfif_density",
            "progressive",
            "progression",
        }
        assert image.tobytes() == load_image(tmp_path / "a.jpg").tobytes()


def test_the_thumbnail_of_the_jfif_header_and_what_follows_adobes_mark_go() -> None:
    data = photo()
    body = b"JFIF\0\1\1\0\0\1\0\1\2\2" + b"\1\2\3" * 4
    start = 4 + int.from_bytes(data[4:6], "big")
    adobe = segment(0xEE, b"Adobe\0d\0\0\0\0\1" + b"hidden")
    kept = without_metadata(data[:2] + segment(0xE0, body) + adobe + data[start:])
    assert kept is not None and b"hidden" not in kept and b"\1\2\3\1\2\3" not in kept
    assert kept[:20] == data[:2] + segment(0xE0, body[:12] + b"\0\0")
    assert kept[20:36] == segment(0xEE, b"Adobe\0d\0\0\0\0\1")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"\xff\xd8",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0\0\1",
        b"\xff\xd8\xff\xe0\xff\xff",
        b"\xff\xd8\0\0",
        b"\xff\xd8" + b"\xff" * 1000,
        b"\x89PNG\r\n\x1a\n",
        photo()[:-2],
        photo()[: len(photo()) // 2],
        photo().replace(b"\xff\xc0", b"\xff\xc9", 1),
    ],
    ids=range(12),
)
def test_what_is_broken_or_unknown_has_no_such_form(data: bytes) -> None:
    assert without_metadata(data) is None


def test_a_scan_without_an_end_is_read_once() -> None:
    head = photo()[: photo().index(b"\xff\xda") + 14]
    for filling in (b"\xff" * 8_000_000, b"\xff\0" * 4_000_000, b"\xff\xd0" * 4_000_000):
        began = time.perf_counter()
        assert without_metadata(head + filling) is None
        assert time.perf_counter() - began < 2


def test_a_file_stuffed_inside_its_data_is_not_sent_on(tmp_path: Path) -> None:
    data = photo()
    table = data[data.index(b"\xff\xdb") :][: 2 + 67]
    (tmp_path / "a.jpg").write_bytes(data[:20] + table * 2000 + data[20:])
    assert len(image_uri(tmp_path / "a.jpg")) < 40_000


def test_damaged_files_are_refused_or_sent_as_they_are_seen(tmp_path: Path) -> None:
    rng, refused = random.Random(0), 0
    for number in range(300):
        data = bytearray(stuffed(photo(progressive=number % 2 == 0)))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(data)
        try:
            seen = seen_image(path)
        except DataError:
            refused += 1
            with pytest.raises(DataError, match=path.name):
                image_uri(path)
            continue
        with Image.open(io.BytesIO(base64.b64decode(image_uri(path).split(",")[1]))) as sent:
            assert sent.convert("RGB").tobytes() == seen.tobytes()
    assert 0 < refused < 300
