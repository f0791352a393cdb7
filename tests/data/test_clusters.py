"""Clusters of images against a comparison of all with all."""

from __future__ import annotations

import io
import random
import tracemalloc
from collections import Counter
from itertools import combinations

import pytest
from PIL import Image, ImageDraw

from steer_verl.data.collect.clusters import TONES_APART, Clusters, alike
from steer_verl.data.image_store import Look


def looks(seed: int, count: int) -> dict[str, Look | None]:
    """Many of them others with some bits and tones changed, to both sides of what is still alike."""
    rng = random.Random(seed)
    found: dict[str, Look | None] = {}
    for _ in range(count):
        known = [look for look in found.values() if look]
        look = Look(rng.getrandbits(64), rng.randbytes(192))
        if known and rng.random() < 0.8:
            base = rng.choice(known)
            shape, tones = base.shape, bytearray(base.tones)
            for _ in range(rng.randrange(7)):
                shape ^= 1 << rng.randrange(64)
            step = rng.choice((0, 3, TONES_APART, TONES_APART + 1)) * rng.choice((-1, 1))
            for place in rng.sample(range(192), rng.choice((1, 20, 192))):
                tones[place] = min(max(tones[place] + step, 0), 255)
            look = Look(shape, bytes(tones))
        found[f"{rng.getrandbits(64):016x}"] = None if rng.random() < 0.1 else look
    return found


def twin(found: dict[str, Look | None], bits: int) -> dict[str, str]:
    """Each image's cluster, by joining whatever is alike until nothing changes."""
    names = {pixels: pixels for pixels in found}
    changed = True
    while changed:
        changed = False
        for a, b in combinations(found, 2):
            one, other = found[a], found[b]
            if names[a] != names[b] and one and other and alike(one, other, bits):
                names[a] = names[b] = min(names[a], names[b])
                changed = True
    return names


@pytest.mark.parametrize("bits", [0, 1, 4, 9])
@pytest.mark.parametrize("seed", [1, 2])
def test_it_finds_what_a_comparison_of_all_with_all_finds(seed: int, bits: int) -> None:
    found = looks(seed, 160)
    expected = twin(found, bits)
    assert len(set(expected.values())) < len(found) - 5
    for order in (list(found), sorted(found)):
        clusters = Clusters(bits)
        for pixels in order:
            clusters.add(pixels, found[pixels])
            clusters.add(pixels, found[pixels])
        assert {pixels: clusters.name(pixels) for pixels in found} == expected, "whatever the order"


def drawing(seed: int) -> Image.Image:
    """A triangle in thin lines, its corners named."""
    rng = random.Random(seed)
    image = Image.new("RGB", (300, 300), "white")
    corners = [(rng.randint(20, 280), rng.randint(20, 280)) for _ in range(3)]
    pen = ImageDraw.Draw(image)
    pen.polygon(corners, outline="black", width=2)
    for corner, letter in zip(corners, "ABC", strict=True):
        pen.text(corner, letter, fill="black")
    return image


def test_drawings_in_thin_lines_are_not_one_cluster_and_each_is_its_own_in_another_form() -> None:
    clusters = Clusters(4)
    for number in range(150):
        image, file = drawing(number), io.BytesIO()
        image.resize((150, 150)).save(file, "JPEG", quality=60)
        clusters.see(f"{number}.png", image)
        clusters.see(f"{number}-again.jpg", Image.open(file))
        assert clusters.name(f"{number}.png") == clusters.name(f"{number}-again.jpg")
    sizes = Counter(clusters.name(f"{number}.png") for number in range(150))
    assert max(sizes.values()) <= 3, "they would all serve one set"


def test_memory_does_not_grow_with_the_images() -> None:
    peaks = []
    for count in (500, 5000):
        clusters, rng = Clusters(4), random.Random(3)
        tracemalloc.start()
        for number in range(count):
            clusters.add(f"{number:016x}", Look(rng.getrandbits(64), rng.randbytes(192)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5 + 2**18, peaks
