"""Visual perturbation of a share of the seeds: Gaussian noise, or a phrase written on the image (paper, Stage I).

Which seed is perturbed, how, where and with what noise is drawn by a hash of its id. The new image lies beside the
original under the digest of its pixels, as a PNG, which keeps the noise as it is (steer_verl/data/image_store.py has an
exception for the largest); the seed's facts name the original.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from steer_verl.data.drawn import drawn
from steer_verl.data.image_store import ImageStore
from steer_verl.data.seed import SourceSeed
from steer_verl.data.stages.facts import Facts, Perturbed
from steer_verl.data.stages.settings import PerturbSettings
from steer_verl.errors import DataError
from steer_verl.images import load_image
from steer_verl.types import Seed

LETTERS = (1 / 14, 1 / 7)
"""Height of the letters, as a share of the image's shorter side."""
MIN_LETTERS = 7
"""Pixels. An image too small for letters of this height gets noise."""
WITHIN = 0.92
"""Share of the image's width and height that words may take."""
ROWS = 256
"""Of pixels that get their noise at a time: a large image as numbers takes many times its room."""


def is_drawn(seed: SourceSeed, settings: PerturbSettings) -> bool:
    """Whether the seed's image is perturbed."""
    return seed.image is not None and drawn("perturb", seed.id) < settings.share


def perturbed(seed: SourceSeed, images: Path, settings: PerturbSettings) -> SourceSeed:
    """The seed with a perturbed image beside its own below ``images``. A large one takes seconds: call it in a thread.

    Raises ``DataError``: the image cannot be opened.
    """
    assert seed.image is not None
    path, how = _perturbed(seed.id, seed.image, images, settings)
    return seed.model_copy(update={"image": path, "facts": Facts(perturbation=how).beside(seed.facts)})


def restore(dialogue: Seed, images: Path, settings: PerturbSettings) -> None:
    """Make a dialogue's perturbed image again, if it is gone and its original is there."""
    change, shown = Facts.of(dialogue.facts).perturbation, dialogue.turns[0].images
    if change is not None and change.original and shown and not (images / shown[0]).exists():
        with suppress(DataError):
            _perturbed(dialogue.id.rpartition("/")[0], change.original, images, settings)


def _perturbed(seed: str, original: str, images: Path, settings: PerturbSettings) -> tuple[str, Perturbed]:
    """The path below ``images`` of a seed's perturbed image, and how it was changed."""
    image = load_image(original, root=images)
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"perturb/{seed}".encode()).digest()[:8], "big"))
    words = drawn("perturbation", seed) < settings.typography
    done = typography(image, settings.phrases, rng) if words else None
    changed, how = done or noise(image, settings.sigma, rng)
    return ImageStore(images).add(changed), how.model_copy(update={"original": original})


def noise(image: Image.Image, sigma: float, rng: np.random.Generator) -> tuple[Image.Image, Perturbed]:
    """An RGB image with Gaussian noise on every colour of every pixel, clipped to the range.

    ``sigma`` is the standard deviation, of the range [0, 1].
    """
    levels_HWC = np.array(image)
    for start in range(0, len(levels_HWC), ROWS):
        band = levels_HWC[start : start + ROWS]
        noisy = band + rng.standard_normal(band.shape, dtype=np.float32) * (255 * sigma)
        band[:] = np.rint(np.clip(noisy, 0, 255))
    return Image.fromarray(levels_HWC), Perturbed(kind="noise", sigma=sigma)


def typography(
    image: Image.Image, phrases: tuple[str, ...], rng: np.random.Generator
) -> tuple[Image.Image, Perturbed] | None:
    """The image with one of the phrases at a random place, wholly inside, black or white by what lies behind it.

    ``None`` when not even small letters fit.
    """
    phrase = str(rng.choice(np.asarray(phrases, dtype=object)))
    letters = max(rng.uniform(*LETTERS) * min(image.size), MIN_LETTERS)
    mask = _mask(phrase, math.ceil(2 * min(letters, 3 * image.width / len(phrase))))  # larger than it will stand there
    scale = min(letters / mask.height, WITHIN * image.width / mask.width, WITHIN * image.height / mask.height)
    width, height = round(scale * mask.width), round(scale * mask.height)
    if height < MIN_LETTERS:
        return None
    x, y = (int(rng.integers(0, room + 1)) for room in (image.width - width, image.height - height))
    box = (x, y, x + width, y + height)
    colour = _contrast(image, box)
    written = image.copy()
    written.paste(colour, box, mask.resize((width, height)))
    return written, Perturbed(kind="typography", phrase=phrase, box=box, colour=colour)


def _mask(phrase: str, em: int) -> Image.Image:
    """The phrase in letters of ``em`` pixels, white on black and without a margin."""
    font = ImageFont.load_default(em)
    mask = Image.new("L", (math.ceil(font.getlength(phrase)) + em, 2 * em))
    ImageDraw.Draw(mask).text((0, 0), phrase, fill="white", font=font)
    return mask.crop(mask.getbbox())


def luminance(rgb: np.ndarray) -> float:
    """Relative luminance in [0, 1] of an sRGB colour (3 values of 0..255), as WCAG 2 defines it."""
    share = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _contrast(image: Image.Image, box: tuple[int, int, int, int]) -> str:
    """Black or white, whichever stands out more: (lighter + 0.05) / (darker + 0.05), at least 4.5 on an even ground."""
    ground = luminance(np.asarray(image.crop(box), dtype=np.float64).reshape(-1, 3).mean(axis=0))
    return "white" if 1.05 / (ground + 0.05) > (ground + 0.05) / 0.05 else "black"
