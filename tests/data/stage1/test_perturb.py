"""Perturbation: on the configured share, as strong as configured, of the same size, and the same in every run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from steer_verl.data.seed import SetName
from steer_verl.data.stages.facts import Facts, Perturbed
from steer_verl.data.stages.settings import PerturbSettings
from steer_verl.data.stages.stage1.perturb import ROWS, is_drawn, luminance, noise, perturbed, typography
from steer_verl.errors import DataError
from steer_verl.models.failure import AgentFailed
from tests.data.samples import picture
from tests.data.scripted import ScriptedAgents, changed, kept, make, source

ALL = PerturbSettings(share=1.0)


def pixels(image: Image.Image) -> np.ndarray:
    """Colours as numbers."""
    return np.asarray(image, dtype=np.float64)


def opened(folder: Path, name: str | None) -> Image.Image:
    """A image of the build."""
    assert name is not None
    return Image.open(folder / name).convert("RGB")


@pytest.mark.parametrize("sigma", [0.01, 0.03, 0.1])
def test_noise_has_the_strength_it_says(sigma: float) -> None:
    grey = Image.new("RGB", (300, 200), (128, 128, 128))
    changed, facts = noise(grey, sigma, np.random.default_rng(1))
    difference = (pixels(changed) - 128) / 255
    assert changed.size == grey.size and facts == Perturbed(kind="noise", sigma=sigma)
    assert abs(difference.std() - sigma) < 0.02 * sigma + 0.0002
    assert abs(difference.mean()) < 5 * sigma / difference.size**0.5
    channels = np.corrcoef(difference.reshape(-1, 3).T)
    assert np.abs(channels - np.eye(3)).max() < 0.03


def test_the_share_is_that_of_the_seeds_and_so_is_each_kinds(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (96, 64))
    settings = PerturbSettings(share=0.1, typography=0.5, phrases=("STEP",))
    chosen = [source(str(n)) for n in range(1500) if is_drawn(source(str(n)), settings)]
    kinds = [perturbed(seed, tmp_path, settings).facts["perturbation"]["kind"] for seed in chosen]
    assert abs(len(kinds) - 150) < 5 * (1500 * 0.1 * 0.9) ** 0.5
    assert abs(kinds.count("noise") - len(kinds) / 2) < 5 * (len(kinds) / 4) ** 0.5


@pytest.mark.parametrize("kind", ["noise", "typography"])
@pytest.mark.parametrize("size", [(56, 56), (200, 90), (90, 200), (640, 480)])
def test_a_perturbed_image_lies_beside_the_original_and_keeps_its_size(
    tmp_path: Path, kind: str, size: tuple[int, int]
) -> None:
    picture(tmp_path / "ab" / "a.jpg", size)
    before = (tmp_path / "ab" / "a.jpg").read_bytes()
    settings = PerturbSettings(share=1.0, typography=float(kind == "typography"), phrases=("STEP",))
    seed = perturbed(source(image="ab/a.jpg", facts={"x": 1}), tmp_path, settings)
    facts = seed.facts["perturbation"]
    assert seed.facts["x"] == 1 and facts["kind"] == kind and facts["original"] == "ab/a.jpg"
    assert seed.image != "ab/a.jpg" and opened(tmp_path, seed.image).size == size
    assert (tmp_path / "ab" / "a.jpg").read_bytes() == before
    again = perturbed(source(image="ab/a.jpg", facts={"x": 1}), tmp_path, settings)
    assert again == seed and len(list((tmp_path).rglob("*.*"))) == 2


def test_no_two_seeds_have_the_same_noise(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    settings = PerturbSettings(share=1.0, typography=0)
    images = {perturbed(source(str(n)), tmp_path, settings).image for n in range(20)}
    assert len(images) == 20


@pytest.mark.parametrize("ground", ["black", "white", "red", "blue", "yellow", (120, 120, 120), (90, 140, 60)])
def test_words_stand_inside_and_stand_out(ground: str | tuple[int, int, int]) -> None:
    image = Image.new("RGB", (320, 240), ground)
    places = set()
    for number in range(40):
        made = typography(image, PerturbSettings().phrases, np.random.default_rng(number))
        assert made is not None
        written, facts = made
        changed = np.argwhere(np.abs(pixels(written) - pixels(image)).max(axis=2) > 0)
        x0, y0, x1, y1 = facts.box
        assert 0 <= x0 < x1 <= 320 and 0 <= y0 < y1 <= 240
        top, left = changed.min(axis=0)
        bottom, right = changed.max(axis=0)
        assert x0 <= left and right < x1 and y0 <= top and bottom < y1
        assert (right - left + 1) >= 0.8 * (x1 - x0)  # nothing was cut at the edge
        colours = sorted([luminance(np.asarray(image.getpixel((0, 0)))), float(facts.colour == "white")])
        assert (colours[1] + 0.05) / (colours[0] + 0.05) >= 4.5
        places.add((x0, y0))
    assert len(places) > 30


def test_a_image_too_small_for_words_gets_noise(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (20, 20))
    seed = perturbed(source(), tmp_path, PerturbSettings(share=1.0, typography=1.0))
    assert seed.facts["perturbation"]["kind"] == "noise"


@pytest.mark.parametrize("name", ["../a.png", "/etc/hostname", "none.png"])
def test_an_image_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError):
        perturbed(source(image=name), tmp_path / "images", ALL)


# ----- on a seed's way

EVERY = changed(perturb={"share": 1})


@pytest.mark.parametrize("side", [SetName.SFT, SetName.RL])
async def test_training_images_are_perturbed_before_anybody_is_asked(tmp_path: Path, side: SetName) -> None:
    picture(tmp_path / "a.png")
    agents = ScriptedAgents()
    seed = kept(await make(agents, source(side=side, facts={"x": 1}), EVERY, tmp_path))
    (image,) = seed.turns[0].images
    assert Facts.of(seed.facts).perturbation.original == "a.png" != image and seed.facts["x"] == 1  # type: ignore[union-attr]
    assert agents.heard_by("probe")[0][0].image == image


async def test_an_image_of_the_benchmark_stays_as_it_is(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    seed = kept(await make(ScriptedAgents(), source(side=SetName.BENCH), EVERY, tmp_path))
    assert seed.turns[0].images == ("a.png",) and "perturbation" not in seed.facts
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


async def test_a_seed_without_an_image_is_not_perturbed(tmp_path: Path) -> None:
    kept(await make(ScriptedAgents(), source(image=None, side=SetName.RL), EVERY, tmp_path))


async def test_an_image_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    """It could be when the seed was made: the disk is away, or damaged."""
    (tmp_path / "a.png").write_bytes(b"no image")
    agents = ScriptedAgents()
    with pytest.raises(AgentFailed) as failed:
        await make(agents, source(side=SetName.RL), EVERY, tmp_path)
    assert (failed.value.stage, failed.value.reason, failed.value.transient) == ("perturb", "image", True)
    assert "a.png" in failed.value.detail and not agents.calls


async def test_the_event_loop_goes_on_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise on the image of a camera takes more than a second."""
    threads = []

    def slow(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return perturbed(*arguments)

    monkeypatch.setattr("steer_verl.data.stages.make.perturbed", slow)
    picture(tmp_path / "a.png")
    kept(await make(ScriptedAgents(), source(side=SetName.RL), EVERY, tmp_path))
    assert len(threads) == 1 and threads[0] is not threading.main_thread()


def test_noise_is_the_same_in_parts_and_differs_between_them() -> None:
    """A large image gets its noise in bands of rows; each band has its own."""
    grey = Image.new("RGB", (40, 3 * ROWS), (128, 128, 128))
    changed, _ = noise(grey, 0.03, np.random.default_rng(1))
    bands = pixels(changed).reshape(3, ROWS, 40, 3)
    assert all(abs(band.std() / 255 - 0.03) < 0.002 for band in bands)
    assert not np.array_equal(bands[0], bands[1]) and not np.array_equal(bands[1], bands[2])
