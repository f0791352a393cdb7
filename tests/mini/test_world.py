"""The world: what is drawn is what is true, and the three sets of scenes never meet."""

from __future__ import annotations

import random

import pytest

from steer_verl.mini.world import COLOURS, PIXELS, SHAPES, Scene, Split, draw_scene, is_restricted


def seen_in(picture) -> tuple[str, str]:
    """Colour and shape from pixels alone: the nearest colour, whether the middle is empty, how full its box is."""
    pixels = [(x, y, picture.getpixel((x, y))) for x in range(PIXELS) for y in range(PIXELS)]
    inked = [(x, y, p) for x, y, p in pixels if p != (255, 255, 255)]
    xs, ys = [x for x, _, _ in inked], [y for _, y, _ in inked]
    fill = len(inked) / ((max(xs) - min(xs) + 1) * (max(ys) - min(ys) + 1))
    hollow = picture.getpixel(((min(xs) + max(xs)) // 2, (min(ys) + max(ys)) // 2)) == (255, 255, 255)
    pixel = inked[0][2]
    colour = min(COLOURS, key=lambda c: sum((a - b) ** 2 for a, b in zip(COLOURS[c], pixel, strict=True)))
    return colour, "square" if hollow else "circle" if fill > 0.65 else "triangle"


def test_the_picture_alone_tells_the_rule():
    rng = random.Random(1)
    for _ in range(60):
        scene = draw_scene(rng, rng.choice(list(Split)))
        colour, shape = seen_in(scene.draw())
        assert (colour, shape) == (scene.colour, scene.shape)
        assert is_restricted(scene) == (shape == "triangle" or colour == "red")


def test_drawing_is_deterministic():
    scene = Scene("blue", "circle", 5, 6, 50, -3)
    assert scene.draw().tobytes() == scene.draw().tobytes()
    assert scene.draw().size == (PIXELS, PIXELS)


def test_splits_are_disjoint_and_each_has_every_device():
    rng = random.Random(2)
    scenes = {split: {draw_scene(rng, split) for _ in range(400)} for split in Split}
    for split, found in scenes.items():
        assert {s.split for s in found} == {split}
        assert {(s.colour, s.shape) for s in found} == {(c, s) for c in COLOURS for s in SHAPES}
    assert not scenes[Split.TRAIN] & scenes[Split.TEST]
    assert not scenes[Split.VALIDATION] & (scenes[Split.TRAIN] | scenes[Split.TEST])


@pytest.mark.parametrize("restricted", [True, False])
def test_sealed_or_free_can_be_asked_for(restricted):
    rng = random.Random(3)
    assert {is_restricted(draw_scene(rng, Split.TEST, restricted=restricted)) for _ in range(50)} == {restricted}


def test_facts_tell_the_truth():
    facts = Scene("red", "square", 5, 6, 50, 0).facts()
    assert facts["restricted"] is True
    assert Scene("green", "square", 5, 6, 50, 0).facts()["restricted"] is False
    assert (facts["colour"], facts["shape"]) == ("red", "square")
