"""Hostile and odd pictures at the one door."""

from __future__ import annotations

import base64
import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from steer_verl import images
from steer_verl.errors import DataError
from steer_verl.images import data_uri, load_image, resolve_image
from tests.data.samples import picture


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
    assert b"secret" not in base64.b64decode(data_uri(tmp_path / "a.jpg").split(",")[1])


def test_text_chunks_do_not_leave(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "a secret place")
    path = picture(tmp_path / "a.png", pnginfo=info)
    assert b"secret" in path.read_bytes()
    assert b"secret" not in base64.b64decode(data_uri(path).split(",")[1])


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


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="not a regular file"):
        resolve_image(tmp_path / "pipe.png")


def test_a_huge_file_is_refused_before_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_BYTES", 20)
    with pytest.raises(DataError, match="bytes, more than 20"):
        load_image(path)


@pytest.mark.parametrize(("suffix", "kind"), [("png", "png"), ("jpg", "jpeg"), ("webp", "png")])
def test_a_data_uri_is_the_picture_shrunk_but_never_enlarged(tmp_path: Path, suffix: str, kind: str) -> None:
    path = picture(tmp_path / f"a.{suffix}", (80, 40), "blue")
    for max_side, size in ((None, (80, 40)), (20, (20, 10)), (500, (80, 40))):
        head, _, body = data_uri(path, max_side=max_side).partition(",")
        assert head == f"data:image/{kind};base64"
        image = Image.open(io.BytesIO(base64.b64decode(body, validate=True)))
        assert (image.format, image.size) == (kind.upper(), size)
        assert pixel(image, 5, 5)[2] > 240
