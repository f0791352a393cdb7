"""The pipeline in the laboratory: every seed is accounted for, the sets are whole, and no two of them share a scene."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from steer_verl.data.parquet import load_seeds
from steer_verl.data.stage2.assemble import SetReport
from steer_verl.data.stage2.splits import SetName
from steer_verl.data.work.manifest import read_manifest
from steer_verl.mini.sets import SamePicture, make_sets
from steer_verl.mini.world import Scene, Split
from steer_verl.types import DialogueKind

SFT, RL = 60, 40
Made = tuple[Path, dict[SetName, SetReport]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    out = tmp_path_factory.mktemp("sets")
    return out, make_sets(out, sft=SFT, rl=RL, seed=2)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_seed_ends_once_in_every_step(made: Made) -> None:
    out, reports = made
    for name, offered, last in (("sft", SFT, "bootstrap"), ("rl", RL + RL // 5 + 20, "history")):
        (folder,) = out.glob(f"pipeline/*/{name}")
        *first, final = read_manifest(folder / "manifest.json").steps
        assert [step.step for step in first] == [kind.value for kind in DialogueKind]
        assert final.step == last
        assert sum(step.entered for step in first) == len(lines(folder / "sources.jsonl")) == offered
        assert sum(step.kept for step in first) == final.entered == offered
        assert all(step.complete and not step.usage.requests for step in (*first, final))
        assert reports[SetName(name)].offered == final.kept
    assert reports[SetName.SFT].kept == SFT
    assert (set(final.rejected), reports[SetName.RL].kept) == ({"risky_alone"}, RL)
    left_out = Counter(row["set"] for row in lines(out / "left_out.jsonl"))
    assert left_out == {"rl": reports[SetName.RL].offered - RL}


def test_the_files_are_whole_and_no_two_sets_share_a_scene(made: Made) -> None:
    import pyarrow.parquet as pq

    out, _ = made
    table = pq.read_table(out / "sft.parquet").to_pylist()
    rl = load_seeds(out / "rl_train.jsonl")
    assert [seed.id for seed in load_seeds(out / "rl_train.parquet")] == [seed.id for seed in rl]
    assert (len(table), len({row["id"] for row in table}), len({seed.id for seed in rl})) == (SFT, SFT, RL)
    assert all(len(row["images"]) == 1 and row["license"] == "Apache-2.0" for row in table)
    benign = sum(seed.kind is DialogueKind.BENIGN for seed in rl)
    assert benign == RL * 2 // 5
    scenes = {Scene.of(seed.facts) for seed in rl}
    assert {scene.split for scene in scenes} == {Split.TRAIN}
    shown = {row["images"][0] for row in lines(out / "sft.jsonl")}
    assert not shown & {row["images"][0] for row in lines(out / "rl_train.jsonl")}


def test_it_goes_on_where_it_was_and_makes_the_same(made: Made) -> None:
    out, reports = made
    before = {path: path.read_bytes() for path in out.glob("*.*") if path.is_file()}
    (log,) = out.glob("pipeline/*/sft/bootstrap/shard-000/outcomes-*.jsonl")
    whole = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(whole[:20]) + whole[20][:50])  # a killed run: the last line is torn
    assert make_sets(out, sft=SFT, rl=RL, seed=2) == reports
    assert {path: path.read_bytes() for path in before} == before


def test_the_rules_settings_and_the_seed_decide(made: Made, tmp_path: Path) -> None:
    out, _ = made
    make_sets(tmp_path, sft=SFT, rl=RL, seed=3)
    for name in ("sft.jsonl", "rl_train.jsonl"):
        assert (tmp_path / name).read_bytes() != (out / name).read_bytes()
    assert not {scene_of(row) for row in lines(tmp_path / "rl_train.jsonl")} & {
        scene_of(row) for row in lines(out / "rl_train.jsonl")
    }


def scene_of(row: dict[str, Any]) -> Scene:
    return Scene.of(row["metadata"]["facts"])


def test_dialogues_about_the_same_picture_are_alike() -> None:
    from steer_verl.data.validate import Told

    index = SamePicture()
    index.add(Told(id="a", turns=2, text="one", images=("/x/pictures/aa/1.png",)))
    index.add(Told(id="b", turns=2, text="two", images=("/x/pictures/aa/1.png",)))
    assert index.first_like(Told(id="c", turns=3, text="three", images=("/y/aa/1.png",))) == "a"
    assert index.first_like(Told(id="d", turns=2, text="one", images=("/x/pictures/aa/2.png",))) is None
