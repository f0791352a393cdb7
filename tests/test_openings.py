"""Opening turns are measured by the sizes of their images, and the measure is verl's own, token for token."""

from __future__ import annotations

import random
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from steer_verl.images import SEEN_SIDE, _thumbnail_size, seen_image, seen_size
from steer_verl.preflight import openings

SIZES = [(64, 48), (1000, 700), (3000, 1999), (1536, 1536), (1537, 40), (28, 28), (333, 1777), (4032, 3024), (57, 999)]
PIXELS: list[dict[str, int]] = [
    {},
    {"min_pixels": 56 * 56, "max_pixels": 28 * 28 * 1280},
    {"min_pixels": 50176, "max_pixels": 262144},
]


def save(path: Path, size: tuple[int, int], orientation: int = 1) -> str:
    """An image file of one colour, perhaps lying on its side."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, "red").save(path, exif=exif)
    return str(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_is_that_of_the_image_that_is_seen(suffix: str, orientation: int, tmp_path: Path) -> None:
    for number, size in enumerate(SIZES):
        path = save(tmp_path / f"{number}.{suffix}", size, orientation)
        assert seen_size(path) == seen_image(path).size


def test_an_orientation_behind_a_pngs_pixels_counts(tmp_path: Path) -> None:
    path = Path(save(tmp_path / "a.png", (60, 40), 6))
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    length = int.from_bytes(data[start : start + 4], "big") + 12
    chunk, end = data[start : start + length], data.index(b"IEND") - 4
    path.write_bytes(data[:start] + data[start + length : end] + chunk + data[end:])
    assert seen_size(path) == seen_image(path).size == (40, 60)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.integers(1, 6000), st.integers(1, 6000))
def test_the_bound_is_pillows(width: int, height: int) -> None:
    class Sized(Image.Image):
        """Of any size, without pixels."""

        def load(self) -> None: ...

        def resize(self, size: Any, *args: Any, **kwargs: Any) -> Any:
            self.asked = size
            return Image.new("1", (1, 1))

    image = Sized()
    image._size, image._mode, image.asked = (width, height), "RGB", (width, height)
    image.thumbnail((SEEN_SIDE, SEEN_SIDE))
    assert _thumbnail_size(width, height) == tuple(image.asked)


@pytest.fixture(scope="module")
def processor() -> Any:
    """The miniature student's processor, with the family's limits for the size of an image."""
    pytest.importorskip("verl")
    from transformers import Qwen2VLImageProcessor

    from steer_verl.mini.model import make_processor

    made = make_processor()
    made.image_processor = Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=28 * 28 * 1280)
    return made


def row(images: list[str], text: str = "What is this?") -> dict[str, Any]:
    content = "<image>" * len(images) + text
    return {"prompt": [{"role": "user", "content": content}], "images": images}


@pytest.mark.parametrize("options", PIXELS, ids=["plain", "family", "paper"])
def test_the_measure_is_verls_own(options: dict[str, int], processor: Any, tmp_path: Path) -> None:
    rng = random.Random(0)
    sides = [(rng.randint(30, 2500), rng.randint(30, 2500)) for _ in range(12)]
    paths = [save(tmp_path / f"{n}.jpg", size, rng.choice([1, 6])) for n, size in enumerate([*SIZES, *sides])]
    data = OmegaConf.create({"mm_processor_kwargs": options} if options else {})
    measure = openings.measure_of(processor, data)
    assert measure.func is openings.sized_tokens  # type: ignore[attr-defined]
    rows = [row([]), row(paths[:3], "two\n<|im_end|> lines"), *(row([path]) for path in paths)]
    for one in rows:
        theirs = openings.opening_tokens(processor, data, deepcopy(one))  # verl's method changes the row
        assert measure(one) == theirs


def test_another_processor_is_measured_by_verl(processor: Any) -> None:
    data = OmegaConf.create({"mm_processor_kwargs": {"max_pixels": 5000}})
    assert openings.measure_of(processor, data).func is openings.opening_tokens  # type: ignore[attr-defined]


def test_no_image_is_decoded_and_a_slow_file_says_how_long_it_takes(
    processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "a.jpg", (800, 600))
    monkeypatch.setattr(openings, "PATIENCE", 0.0)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    measure = openings.measure_of(processor, OmegaConf.create({}))
    numbered = openings.told(((n, row([path])) for n in range(1, 51)), 50, "opening turns of data.train_files")
    began = time.monotonic()
    assert len({measure(one) for _, one in numbered}) == 1
    assert time.monotonic() - began < 10
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("preflight: 49 of 50 opening turns of data.train_files measured, about 0 s left")
