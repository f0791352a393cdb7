"""Hostile and odd pictures at the one door."""

from __future__ import annotations

import base64
import errno
import io
import os
import resource
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageOps, ImageStat, PngImagePlugin

from steer_verl import images
from steer_verl.errors import DataError
from steer_verl.images import (
    SEEN_SIDE,
    Change,
    image_and_changes,
    image_bytes,
    image_uri,
    load_image,
    plain_image,
    preview_uri,
    resolve_image,
    seen_image,
    seen_size,
)
from tests.data.samples import picture
from tests.odd_images import BIG, SIZE, decoded, scene, write_odd_images

DOORS = [load_image, seen_image, seen_size, image_and_changes, image_uri, image_bytes, partial(preview_uri, side=20)]
"""Every way to an image file."""


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, int, int]:
    red, green, blue = image.convert("RGB").getpixel((x, y))  # type: ignore[misc]
    return red, green, blue


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_the_three_formats_load_as_plain_rgb(tmp_path: Path, suffix: str) -> None:
    image = load_image(picture(tmp_path / f"a.{suffix}", (40, 30)))
    assert (image.mode, image.size, image.info) == ("RGB", (40, 30), {})
    red, green, blue = pixel(image, 20, 15)
    assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (60_000, 60_000), (20_000, 300)])
def test_a_bomb_is_refused_from_its_header_without_a_warning(tmp_path: Path, width: int, height: int) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_header(width, height))
    with warnings.catch_warnings(record=True) as seen, pytest.raises(DataError, match=r"bomb\.png.*shrink"):
        warnings.simplefilter("always")
        load_image(bomb)
    assert not seen


def test_caps_are_the_callers_and_exact(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", (40, 30))
    assert load_image(path, max_pixels=1200, max_side=40).size == (40, 30)
    with pytest.raises(DataError, match="40x30"):
        load_image(path, max_pixels=1199)
    with pytest.raises(DataError, match="40x30"):
        load_image(path, max_side=39)


def test_a_strip_that_the_student_cannot_take_is_refused(tmp_path: Path) -> None:
    assert load_image(picture(tmp_path / "a.png", (200, 1))).size == (200, 1)
    with pytest.raises(DataError, match="201x1"):
        load_image(picture(tmp_path / "b.png", (201, 1)))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_every_truncation_that_loses_picture_data_is_refused(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole.{suffix}"
    Image.effect_noise((64, 64), 80).convert("RGB").save(whole)
    data, torn = whole.read_bytes(), tmp_path / f"torn.{suffix}"
    for keep in (0, 1, 7, 20, len(data) // 3, len(data) // 2, len(data) * 9 // 10):
        torn.write_bytes(data[:keep])
        with pytest.raises(DataError, match="torn"):
            load_image(torn)


def test_a_png_cut_after_its_last_row_is_refused(tmp_path: Path) -> None:
    data = picture(tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[:-12])
    with pytest.raises(DataError, match="broken or truncated"):
        load_image(tmp_path / "b.png")


@pytest.mark.parametrize("name", ["a.gif", "a.bmp", "a.tiff"])
def test_other_formats_are_refused_under_any_suffix(tmp_path: Path, name: str) -> None:
    disguised = picture(tmp_path / name).rename(tmp_path / "a.png")
    with pytest.raises(DataError, match="not a PNG, JPEG or WEBP"):
        load_image(disguised)


@pytest.mark.parametrize(
    "text", ["<svg xmlns='http://www.w3.org/2000/svg'/>", "<html>404</html>", "", "%!PS-Adobe-3.0"]
)
def test_text_under_a_picture_suffix_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.png").write_text(text)
    with pytest.raises(DataError, match=r"a\.png"):
        load_image(tmp_path / "a.png")


def test_a_wrong_suffix_of_an_allowed_format_is_read_by_its_content(tmp_path: Path) -> None:
    assert load_image(picture(tmp_path / "a.png").rename(tmp_path / "a.jpg")).size == (56, 56)


def test_exif_rotation_is_applied_and_dropped(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (0, 0, 20, 20))
    exif = image.getexif()
    exif[0x0112], exif[0x010F] = 6, "a secret camera"
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    loaded = load_image(tmp_path / "a.jpg")
    assert loaded.size == (20, 40)
    assert pixel(loaded, 10, 5)[2] > 200 and pixel(loaded, 10, 35)[0] > 200
    assert not loaded.getexif()
    assert b"secret" not in base64.b64decode(image_uri(tmp_path / "a.jpg").split(",")[1])


def test_text_chunks_do_not_leave(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "a secret place")
    path = picture(tmp_path / "a.png", pnginfo=info)
    assert b"secret" in path.read_bytes()
    assert b"secret" not in base64.b64decode(image_uri(path).split(",")[1])


def test_palette_grey_16_bit_cmyk_and_transparency_keep_their_colours(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (200, 30, 90)).quantize(4).save(tmp_path / "palette.png")
    Image.new("L", (8, 8), 77).save(tmp_path / "grey.png")
    Image.new("I;16", (8, 8), 0x8080).save(tmp_path / "deep.png")
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=95)
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("1", (8, 8), 1).save(tmp_path / "bit.png")
    expected = {
        "palette.png": (200, 30, 90),
        "grey.png": (77, 77, 77),
        "deep.png": (128, 128, 128),
        "cmyk.jpg": (255, 0, 0),
        "clear.png": (255, 255, 255),  # what lies under full transparency stays hidden
        "bit.png": (255, 255, 255),
    }
    for name, colour in expected.items():
        loaded = load_image(tmp_path / name)
        assert loaded.mode == "RGB", name
        assert all(abs(a - b) <= 3 for a, b in zip(pixel(loaded, 4, 4), colour, strict=True)), (
            name,
            pixel(loaded, 4, 4),
        )


def test_of_an_animation_the_first_frame_is_seen(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert pixel(load_image(tmp_path / "a.webp"), 8, 8) == (255, 0, 0)


def test_paths_may_not_leave_their_root(tmp_path: Path) -> None:
    outside = picture(tmp_path / "outside.png")
    root = tmp_path / "root"
    picture(root / "deep/in.png")
    (root / "out.png").symlink_to(outside)
    (root / "up").symlink_to(tmp_path)
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "alias.png").symlink_to(root / "deep/in.png")
    for good in ("deep/in.png", "./deep/in.png", "alias.png"):
        assert load_image(good, root=root).size == (56, 56)
    absolute, dotted = str(root / "deep/in.png"), "deep/../../outside.png"
    for bad in (absolute, dotted, "out.png", "up/outside.png", "loop.png", "no.png", "deep", "a\0.png", "", "x" * 5000):
        with pytest.raises(DataError):
            load_image(bad, root=root)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a.png", "file:///etc/hostname", "data:image/png;base64,AAAA"])
def test_urls_are_not_followed(url: str) -> None:
    with pytest.raises(DataError, match="URL"):
        load_image(url)


@pytest.mark.parametrize("door", DOORS)
def test_a_name_that_no_file_can_have_is_told_as_one_that_is_not_there(door: Callable[[Path], object]) -> None:
    with pytest.raises(DataError, match="no such file; check the path"):
        door(Path("/tmp/\ud800.png"))


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="not a regular file"):
        resolve_image(tmp_path / "pipe.png")


@pytest.mark.parametrize("looks", range(0, 6))
@pytest.mark.parametrize("door", DOORS)
def test_a_file_that_goes_away_meanwhile_is_told_as_one_that_was_never_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, door: Callable[[Path], object], looks: int
) -> None:
    """Taken away after so many looks at it, wherever the door is at that moment."""
    path, seen = picture(tmp_path / "a.png"), 0

    def disappearing(name: str) -> None:
        look = getattr(Path, name)

        def looked(self: Path, *args: Any, **more: Any) -> Any:
            nonlocal seen
            if self.name == path.name and (seen := seen + 1) > looks:
                path.unlink(missing_ok=True)
            return look(self, *args, **more)

        monkeypatch.setattr(Path, name, looked)

    for name in ("resolve", "stat", "open", "read_bytes"):
        disappearing(name)
    try:
        door(path)
    except DataError as error:
        assert "no such file; check the path" in str(error)
    assert seen


@pytest.mark.parametrize("refuses", ["resolve", "stat", "open", "read_bytes"])
@pytest.mark.parametrize("door", DOORS)
def test_what_the_system_refuses_is_neither_missing_nor_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, door: Callable[[Path], object], refuses: str
) -> None:
    path, plain, refused = picture(tmp_path / "a.png"), getattr(Path, refuses), False

    def refusing(self: Path, *args: Any, **more: Any) -> Any:
        nonlocal refused
        if self.name == path.name:
            refused = True
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(self))
        return plain(self, *args, **more)

    monkeypatch.setattr(Path, refuses, refusing)
    monkeypatch.setattr(images, "PAUSES", ())
    try:
        door(path)
    except DataError as error:
        assert f"{path}: cannot be read (Too many open files); too many files are open" in str(error)
    else:
        assert not refused


@pytest.mark.parametrize("door", DOORS)
def test_an_image_is_tried_again_while_too_many_files_are_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, door: Callable[[Path], object]
) -> None:
    path, other = picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    door(other)  # what it imports is there
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hoard: list[int] = []
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            while hoard:
                os.close(hoard.pop())

    monkeypatch.setattr(images.time, "sleep", sleep)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                hoard.append(os.open(os.devnull, os.O_RDONLY))
        door(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        while hoard:
            os.close(hoard.pop())
    assert slept == list(images.PAUSES[:2])


def test_a_huge_file_is_refused_before_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_BYTES", 20)
    with pytest.raises(DataError, match="bytes, more than 20"):
        load_image(path)


@pytest.mark.parametrize(("suffix", "kind"), [("png", "png"), ("jpg", "jpeg"), ("webp", "png")])
def test_a_preview_is_shrunk_but_never_enlarged(tmp_path: Path, suffix: str, kind: str) -> None:
    path = picture(tmp_path / f"a.{suffix}", (80, 40), "blue")
    for side, size in ((20, (20, 10)), (500, (80, 40))):
        head, _, body = preview_uri(path, side).partition(",")
        assert head == f"data:image/{kind};base64"
        image = Image.open(io.BytesIO(base64.b64decode(body, validate=True)))
        assert (image.format, image.size) == (kind.upper(), size)
        assert pixel(image, 5, 5)[2] > 240


def far(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two images of one size, in levels of 0 to 255."""
    assert one.size == other.size
    return float(ImageStat.Stat(ImageChops.difference(one, other)).mean[0])


def test_what_is_sent_decodes_to_what_is_seen(tmp_path: Path) -> None:
    for name, path in write_odd_images(tmp_path).items():
        seen = seen_image(path)
        sent = decoded(image_uri(path))
        assert (seen.mode, seen.info) == ("RGB", {}), name
        assert (sent.size, sent.tobytes()) == (seen.size, seen.tobytes()), name
        assert max(seen.size) <= SEEN_SIDE, name


def test_what_is_seen_is_the_scene_upright_and_on_white(tmp_path: Path) -> None:
    made = write_odd_images(tmp_path)
    turned = {6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90, 5: Image.Transpose.TRANSPOSE}
    for orientation in range(1, 9):
        for name in (f"exif_{orientation}", f"exif_png_{orientation}"):
            with Image.open(made[name]) as image:
                upright = ImageOps.exif_transpose(image)
            assert far(seen_image(made[name]), upright) < 2, name
            assert seen_image(made[name]).size == (SIZE[::-1] if orientation > 4 else SIZE)
        if orientation in turned:
            assert far(seen_image(made[f"exif_{orientation}"]), scene().transpose(turned[orientation])) < 4
    assert far(seen_image(made["deep"]), scene().convert("L").convert("RGB")) < 1
    on_white = Image.composite(scene(), Image.new("RGB", SIZE, "white"), Image.linear_gradient("L").resize(SIZE))
    for name in ("rgba", "webp_clear"):
        assert far(seen_image(made[name]), on_white) < 1, name
    assert far(seen_image(made["la"]), on_white.convert("L").convert("RGB")) < 1
    assert far(seen_image(made["two_images"]), scene()) < 4
    for name in ("big", "big_photo"):
        small = scene(BIG)
        small.thumbnail((SEEN_SIDE, SEEN_SIDE))
        assert far(seen_image(made[name]), small) < 3, name


@pytest.mark.parametrize("size", [(16_384, 82), (82, 16_384), (1537, 8), (9999, 1600), (1536, 1536)])
def test_a_shrunk_strip_is_still_one_that_the_student_can_take(tmp_path: Path, size: tuple[int, int]) -> None:
    seen = seen_image(picture(tmp_path / "a.png", size))
    assert max(seen.size) == SEEN_SIDE and max(seen.size) <= images.MAX_ASPECT * min(seen.size)


def test_a_photo_that_is_plain_goes_with_its_own_data_and_others_as_little_as_can_be(tmp_path: Path) -> None:
    made = write_odd_images(tmp_path)
    for name in ("photo", "progressive", "grey_photo", "exif_1", "two_images"):
        assert image_uri(made[name]).startswith("data:image/jpeg;"), name
        assert scan_data(Path(made[name]).read_bytes()) in base64.b64decode(image_uri(made[name]).split(",")[1]), name
    for name in ("exif_6", "big_photo"):
        assert image_uri(made[name]).startswith("data:image/jpeg;"), name
    for name in ("cmyk", "webp", "rgba", "big", "exif_png_6"):
        assert image_uri(made[name]).startswith("data:image/png;"), name


def scan_data(jpeg: bytes) -> bytes:
    """Some compressed data of the first image."""
    start = jpeg.index(b"\xff\xda")
    return jpeg[start : start + 200]


def test_the_changes_are_told(tmp_path: Path) -> None:
    made = write_odd_images(tmp_path)
    looked = {name: image_and_changes(path) for name, path in made.items()}
    assert all(image == load_image(made[name]) for name, (image, _) in looked.items()), "one decode tells both"
    assert image_and_changes(Path(made["exif_6"]).read_bytes()) == looked["exif_6"]
    told = {name: changes for name, (_, changes) in looked.items()}
    assert {name for name, changes in told.items() if Change.UPRIGHT in changes} == {
        *(f"exif_{orientation}" for orientation in range(2, 9)),
        *(f"exif_png_{orientation}" for orientation in range(2, 9)),
    }
    assert {name for name, changes in told.items() if Change.SMALLER in changes} == {"big", "big_photo"}
    assert {name for name, changes in told.items() if Change.DEPTH in changes} == {"deep"}
    clear = {"rgba", "la", "palette_clear", "grey_clear", "webp_clear"}
    assert {name for name, changes in told.items() if Change.WHITE in changes} == clear
    Image.merge("RGBA", (*scene().split(), Image.new("L", SIZE, 255))).save(tmp_path / "opaque.png")
    assert not image_and_changes(tmp_path / "opaque.png")[1], "an alpha channel that hides nothing changes nothing"


def test_a_deep_image_keeps_the_grey_that_is_not_its_clear_one(tmp_path: Path) -> None:
    image = Image.new("I;16", (8, 8), 0x2020)
    image.paste(0x8080, (0, 0, 4, 8))
    image.save(tmp_path / "a.png", transparency=0x8080)
    seen = seen_image(tmp_path / "a.png")
    assert (pixel(seen, 1, 1), pixel(seen, 6, 6)) == ((255, 255, 255), (32, 32, 32))


@pytest.mark.parametrize(
    ("depth", "kind", "clear", "other", "shown"),
    [
        (2, 0, b"\x55", b"\xaa", (170,) * 3),  # four pixels a byte, all of value 1, or of 2
        (4, 0, b"\x77", b"\x33", (51,) * 3),
        (8, 0, b"\x77", b"\x33", (51,) * 3),
        (8, 2, b"\x01\x02\x03", b"\x03\x02\x01", (3, 2, 1)),
        (16, 2, b"\x01\x02\x03\x04\x05\x06", b"\x03\x02\x01\x04\x05\x06", (3, 1, 5)),
    ],
)
def test_a_clear_colour_is_hidden_at_any_depth(
    tmp_path: Path, depth: int, kind: int, clear: bytes, other: bytes, shown: tuple[int, ...]
) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    samples = 3 if kind == 2 else 1
    mask = 2**depth - 1
    values = [
        int.from_bytes(clear[2 * at : 2 * at + 2], "big") if depth == 16 else clear[at] & mask for at in range(samples)
    ]
    line = 4 * depth * samples // 8 // len(clear)
    head = struct.pack(">IIBBBBB", 4, 2, depth, kind, 0, 0, 0)
    body = zlib.compress(b"\0" + clear * line + b"\0" + other * line)
    chunks = chunk(b"IHDR", head), chunk(b"tRNS", struct.pack(f">{samples}H", *values)), chunk(b"IDAT", body)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b""))
    seen = seen_image(tmp_path / "a.png")
    assert (pixel(seen, 1, 0), pixel(seen, 1, 1)) == ((255, 255, 255), shown)
    with Image.open(tmp_path / "a.png") as opened:
        opened.load()
        assert pixel(plain_image(opened, "a.png"), 1, 1) == shown


def test_one_of_many_who_ask_at_once_does_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, asked = picture(tmp_path / "a.png"), list[object]()
    plain = images._seen
    monkeypatch.setattr(images, "_seen", lambda real, size: (asked.append(real), time.sleep(0.1), plain(real, size))[2])
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(image_uri, [path] * 8))) == 1
    assert len(asked) == 1
