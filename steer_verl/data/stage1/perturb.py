"""Visual perturbation of a share of the seeds: Gaussian noise, or a phrase written on the picture (paper, Stage I).

Who is perturbed, how, where and with what noise is drawn by a hash of the seed's id. The new picture lies in the
pictures' folder under the digest of its pixels, as a PNG, which keeps the noise as it is; the original stays, and the
seed's facts name it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from steer_verl.data.drawn import drawn
from steer_verl.data.sources.pictures import PictureStore
from steer_verl.data.sources.seed import SourceSeed
from steer_verl.data.stage1.settings import PerturbSettings
from steer_verl.images import load_image

FACT = "perturbation"
"""Key of a perturbed seed's facts: kind, its figures, and ``original``, the picture that it was made of."""
LETTERS = (1 / 14, 1 / 7)
"""Height of the letters, as a share of the picture's shorter side."""
MIN_LETTERS = 7
"""Pixels. A picture too small for letters of this height gets noise."""
WITHIN = 0.92
"""Share of the picture's width and height that words may take."""

Box = tuple[int, int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def perturbed(seed: SourceSeed, pictures: Path, settings: PerturbSettings) -> SourceSeed:
    """The seed with a perturbed picture if the lot falls on it, else the seed itself.

    Args:
        seed: whose ``image`` lies below ``pictures``.
        pictures: the build's folder of pictures; the new one is written there.
        settings: share, kinds and strength.

    Raises:
        DataError: the picture cannot be opened.
    """
    if seed.image is None or drawn("perturb", seed.id) >= settings.share:
        return seed
    image = load_image(seed.image, root=pictures)
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"perturb/{seed.id}".encode()).digest()[:8], "big"))
    words = drawn("perturbation", seed.id) < settings.typography
    done = typography(image, settings.phrases, rng) if words else None
    changed, facts = done or noise(image, settings.sigma, rng)
    facts["original"] = seed.image
    return seed.model_copy(update={"image": PictureStore(pictures).add(changed), "facts": {**seed.facts, FACT: facts}})


def noise(image: Image.Image, sigma: float, rng: np.random.Generator) -> tuple[Image.Image, dict[str, Any]]:
    """The picture with Gaussian noise on every colour of every pixel, clipped to the range.

    Args:
        image: RGB.
        sigma: standard deviation, of the range [0, 1].
        rng: the noise's.
    """
    pixels_HWC = np.asarray(image, dtype=np.float32) / 255
    noisy_HWC = pixels_HWC + rng.normal(0.0, sigma, pixels_HWC.shape).astype(np.float32)
    levels_HWC = np.rint(np.clip(noisy_HWC, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(levels_HWC), {"kind": "noise", "sigma": sigma}


def typography(
    image: Image.Image, phrases: tuple[str, ...], rng: np.random.Generator
) -> tuple[Image.Image, dict[str, Any]] | None:
    """The picture with one of the phrases at a random place, wholly inside, black or white by what lies behind it.

    ``None`` when not even small letters fit.
    """
    phrase = str(rng.choice(np.asarray(phrases, dtype=object)))
    font = _fitting(phrase, image.size, rng.uniform(*LETTERS) * min(image.size))
    if font is None:
        return None
    left, top, right, bottom = _bounds(phrase, font)
    width, height = right - left, bottom - top
    x, y = (int(rng.integers(0, room + 1)) for room in (image.width - width, image.height - height))
    box = (x, y, x + width, y + height)
    colour = _contrast(image, box)
    written = image.copy()
    ImageDraw.Draw(written).text((x - left, y - top), phrase, fill=colour, font=font)
    return written, {"kind": "typography", "phrase": phrase, "box": list(box), "colour": colour}


def luminance(rgb: np.ndarray) -> float:
    """Relative luminance in [0, 1] of an sRGB colour (3 values of 0..255), as WCAG 2 defines it."""
    share = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _fitting(phrase: str, size: tuple[int, int], letters: float) -> Font | None:
    """The font at ``letters`` pixels, or smaller until the phrase fits into the picture."""
    pixels = max(int(letters), MIN_LETTERS)
    while pixels >= MIN_LETTERS:
        font = ImageFont.load_default(pixels)
        left, top, right, bottom = _bounds(phrase, font)
        room = min(WITHIN * size[0] / (right - left), WITHIN * size[1] / (bottom - top))
        if room >= 1:
            return font
        pixels = min(pixels - 1, int(pixels * room))
    return None


def _bounds(phrase: str, font: Font) -> Box:
    """Whole pixels that the phrase covers when it is written at (0, 0)."""
    left, top, right, bottom = font.getbbox(phrase)
    return int(np.floor(left)), int(np.floor(top)), int(np.ceil(right)), int(np.ceil(bottom))


def _contrast(image: Image.Image, box: Box) -> str:
    """Black or white, whichever stands out more: (lighter + 0.05) / (darker + 0.05), at least 4.5 on an even ground."""
    ground = luminance(np.asarray(image.crop(box), dtype=np.float64).reshape(-1, 3).mean(axis=0))
    return "white" if 1.05 / (ground + 0.05) > (ground + 0.05) / 0.05 else "black"
