"""The build's own images: the same pixels are the same file, and nothing else of a file comes along."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from steer_verl.data.collect.clusters import alike
from steer_verl.data.image_store import ImageStore, look, pixel_digest
from steer_verl.errors import DataError
from steer_verl.images import decode_image, load_image, plain_image
from tests.data.samples import picture
from tests.data.sources.samples import picture_bytes
from tests.test_images import png_header


def test_the_same_pixels_are_one_file_whatever_they_came_as(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "pictures")
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "a secret place")
    one = picture(tmp_path / "one.png", pnginfo=info)
    Image.open(one).quantize(4).save(tmp_path / "two.png", optimize=True)
    Image.open(one).save(tmp_path / "three.webp", lossless=True)
    names = {store.add(load_image(tmp_path / name)) for name in ("one.png", "two.png", "three.webp")}
    (name,) = names
    assert name == f"{Path(name).stem[:2]}/{Path(name).stem}.png"
    stored = tmp_path / "pictures" / name
    assert b"secret" not in stored.read_bytes() and pixel_digest(load_image(stored)) == stored.stem
    assert stored.stat().st_mode & 0o777 == 0o644
    other = store.add(load_image(picture(tmp_path / "four.png", colour="blue")))
    assert other != name


def test_size_is_part_of_the_digest() -> None:
    assert pixel_digest(Image.new("RGB", (10, 20))) != pixel_digest(Image.new("RGB", (20, 10)))


def test_jpeg_and_webp_become_jpeg_upright_and_without_exif(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "red")
    exif = image.getexif()
    exif[0x0112], exif[0x010F] = 6, "a secret camera"
    image.save(tmp_path / "a.jpg", exif=exif)
    store = ImageStore(tmp_path / "out")
    name = store.add(load_image(tmp_path / "a.jpg"))
    assert name.endswith(".jpg") and b"secret" not in (tmp_path / "out" / name).read_bytes()
    with Image.open(tmp_path / "out" / name) as stored:
        assert (stored.format, stored.size, dict(stored.getexif())) == ("JPEG", (20, 40), {})
    Image.effect_noise((16, 16), 90).convert("RGB").save(tmp_path / "b.webp")
    assert store.add(load_image(tmp_path / "b.webp")).endswith(".jpg")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        ImageStore(tmp_path / "out").add(Image.new("RGB", (8, 8)))
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file()]


def _store_some(folder: Path) -> None:
    store = ImageStore(folder)
    for shade in range(30):
        store.add(Image.new("RGB", (64, 64), (shade, 0, 0)))


def test_processes_may_store_the_same_pictures_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_store_some, args=(tmp_path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) == 30 and all(pixel_digest(load_image(file)) == file.stem for file in files)


def blobs(rng: np.random.Generator) -> Image.Image:
    small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    return small.resize((240, 200), Image.Resampling.BICUBIC)


def test_the_look_stays_when_an_image_is_saved_otherwise_and_differs_between_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    images = [blobs(rng) for _ in range(12)]
    for image in images:
        image.save(tmp_path / "a.jpg", quality=60)
        for other in (load_image(tmp_path / "a.jpg"), image.resize((120, 100)), image.resize((480, 400))):
            assert alike(look(image), look(other), 4)
    assert not any(alike(look(a), look(b), 4) for place, a in enumerate(images) for b in images[:place])


def test_drawings_of_one_shape_are_told_apart_by_their_colours() -> None:
    red, blue = (Image.new("RGB", (64, 64), "white") for _ in range(2))
    red.paste("red", (8, 8, 40, 40))
    blue.paste("blue", (8, 8, 40, 40))
    one, other = look(red), look(blue)
    assert one and other and one.shape == other.shape and not alike(one, other, 4) and alike(one, one, 0)


def test_an_image_of_one_colour_has_no_look() -> None:
    assert look(Image.new("RGB", (64, 64), "red")) is None
    assert look(Image.effect_noise((64, 64), 90).convert("RGB")) is not None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_bytes_and_opened_pictures_give_what_their_file_gives(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(picture_bytes((10, 200, 90), kind))
    loaded = load_image(path)
    for other in (decode_image(path.read_bytes(), "a"), plain_image(Image.open(path), "a")):
        assert (other.tobytes(), other.mode, other.format, other.info) == (loaded.tobytes(), "RGB", kind, {})


def test_bytes_are_refused_as_files_are() -> None:
    for data, fault in (
        (b"", "not a PNG"),
        (png_header(60_000, 60_000), "shrink"),
        (picture_bytes()[:-9], "truncated"),
    ):
        with pytest.raises(DataError, match=f"image it: .*{fault}"):
            decode_image(data, "it")
    with pytest.raises(DataError, match=r"image it: .*beyond"):
        plain_image(Image.new("1", (6000, 6000)), "it")


def test_a_large_png_that_cannot_be_packed_can_be_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steer_verl.images.MAX_BYTES", 100_000)
    monkeypatch.setattr("steer_verl.data.image_store.PNG_PIXELS", 30_000)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (250, 250), dtype=np.uint8))
    noise.save(tmp_path / "grey.png")  # one value a pixel; as RGB there are three
    name = ImageStore(tmp_path / "store").add(load_image(tmp_path / "grey.png"))
    assert load_image(name, root=tmp_path / "store").size == noise.size
