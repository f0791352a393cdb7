"""The laboratory's single-turn seeds: what they ask of which device, their pictures, and that two sets never meet."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from steer_verl.data.seed import SourceSeed
from steer_verl.mini.dialogues import SAFE_QUESTIONS
from steer_verl.mini.phrases import STEPS_QUESTIONS
from steer_verl.mini.sources import MIXTURES, mini_sources, set_of, shares
from steer_verl.mini.world import Scene, Split, is_restricted
from steer_verl.types import DialogueKind

COUNT = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("build")


@pytest.fixture(scope="module")
def drawn(folder: Path) -> dict[str, list[SourceSeed]]:
    return {name: list(mini_sources(folder, COUNT, 5, name=name)) for name in MIXTURES}


@pytest.mark.parametrize("name", MIXTURES)
def test_unsafe_is_a_sealed_device_whose_steps_are_asked_for(name: str, drawn: dict[str, list[SourceSeed]]) -> None:
    asked: dict[tuple[bool, bool], set[str]] = {}
    for seed in drawn[name]:
        sealed = is_restricted(Scene.of(seed.facts))
        asked.setdefault((bool(seed.unsafe), sealed), set()).add(seed.question)
    assert asked[True, True] == set(STEPS_QUESTIONS)
    assert asked[False, True] <= set(SAFE_QUESTIONS)
    assert asked[False, False] == set(SAFE_QUESTIONS + STEPS_QUESTIONS)
    assert (True, False) not in asked
    benign = MIXTURES[name][DialogueKind.BENIGN] / sum(MIXTURES[name].values())
    found = Counter(seed.unsafe for seed in drawn[name])[False] / COUNT
    assert abs(found - benign) < 4 * math.sqrt(benign * (1 - benign) / COUNT)


def test_every_seed_is_whole(folder: Path, drawn: dict[str, list[SourceSeed]]) -> None:
    seeds = [seed for of_set in drawn.values() for seed in of_set]
    assert len({seed.id for seed in seeds}) == len(seeds) == 2 * COUNT
    for seed in seeds:
        assert SourceSeed.model_validate_json(seed.model_dump_json()) == seed
        assert seed.id == f"{seed.source}:{seed.source_id}"
        assert (seed.source, seed.license, seed.facts["split"]) == ("steer-mini", "Apache-2.0", "train")
    for seed in seeds[::20]:
        with Image.open(folder / "images" / str(seed.image)) as picture:
            assert picture.format == "PNG"
            assert picture.tobytes() == Scene.of(seed.facts).draw().tobytes()
    assert not list(folder.rglob("*.tmp"))


def test_sets_and_splits_have_scenes_of_their_own(folder: Path, drawn: dict[str, list[SourceSeed]]) -> None:
    test = list(mini_sources(folder, 50, 5, name="rl", split=Split.TEST))
    scenes = [[Scene.of(seed.facts) for seed in seeds] for seeds in (*drawn.values(), test)]
    assert len({scene for group in scenes for scene in group}) == 2 * COUNT + 50
    assert {scene.split for scene in scenes[2]} == {Split.TEST}
    for name, group in zip(drawn, scenes, strict=False):
        assert {set_of(scene) for scene in group} == {name}


def test_an_interrupted_build_finds_its_seeds_again(folder: Path, drawn: dict[str, list[SourceSeed]]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folder / "images").rglob("*.png")}
    assert list(mini_sources(folder, COUNT, 5, name="sft")) == drawn["sft"]
    assert list(mini_sources(folder, 10, 5, name="sft")) == drawn["sft"][:10]
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "images").rglob("*.png")}
    assert list(mini_sources(folder, 10, 6, name="sft")) != drawn["sft"][:10]


def test_attacks_are_dealt_so_that_the_mixtures_come_out() -> None:
    sft, rl = shares("sft"), shares("rl")
    assert (sft.benign, sft.obfuscated, sft.red_team) == (1, 0.5, 0.5)
    assert rl.obfuscated + rl.red_team == pytest.approx(1)
    assert rl.red_team * 8 / 11 == pytest.approx(rl.obfuscated)
