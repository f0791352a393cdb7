"""The pipeline in the laboratory: every seed is accounted for, the sets are whole, and no two of them share a scene."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from steer_verl.data.rows.parquet import load_seeds
from steer_verl.mini.sets import make_sets
from steer_verl.mini.world import Scene, Split
from steer_verl.types import DialogueKind
from steer_verl.work.manifest import read_manifest

SFT, RL = 60, 40
Made = tuple[Path, dict[str, Path]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    out = tmp_path_factory.mktemp("sets")
    return out, make_sets(out, sft=SFT, rl=RL, seed=2)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_seed_ends_once(made: Made) -> None:
    _, builds = made
    for name, rows, drawn in (("sft", SFT, SFT + SFT // 25 + 5), ("rl", RL, RL + RL // 5 + 20)):
        seeds, dialogues = read_manifest(builds[name] / "manifest.json").steps
        assert (seeds.step, dialogues.step) == ("seeds", "dialogues")
        assert seeds.complete and dialogues.complete and not dialogues.usage.requests
        assert seeds.entered == seeds.kept == dialogues.entered == drawn
        report = json.loads((builds[name] / "sets" / "sets.json").read_text())
        assert (report[name]["offered"], report[name]["kept"]) == (dialogues.kept, rows)
        assert sum(one["offered"] for one in report.values()) == dialogues.kept, "each build serves one set"
        assert (name, set(dialogues.rejected)) in (("sft", set()), ("rl", {"risky_alone"}))
        left_out = lines(builds[name] / "sets" / "left_out.jsonl")
        assert Counter(row["reason"] for row in left_out) == report[name]["left_out"]


def test_the_files_are_whole_and_no_two_sets_share_a_scene(made: Made) -> None:
    import pyarrow.parquet as pq

    out, builds = made
    table = pq.read_table(out / "sft.parquet").to_pylist()
    rl = load_seeds(out / "rl_train.parquet")
    assert {seed.id for seed in load_seeds(builds["rl"] / "sets" / "rl.jsonl")} == {seed.id for seed in rl}
    assert (len(table), len({row["id"] for row in table}), len({seed.id for seed in rl})) == (SFT, SFT, RL)
    assert all(len(row["images"]) == 1 and row["license"] == "Apache-2.0" for row in table)
    benign = sum(seed.kind is DialogueKind.BENIGN for seed in rl)
    assert benign == RL // 2
    whole = Counter(seed.kind for seed in rl)
    for size in range(1, RL + 1):  # every stretch of the file holds the mixture
        stretch = Counter(seed.kind for seed in rl[:size])
        assert all(abs(stretch[kind] - size * count / RL) <= 1 for kind, count in whole.items())
    scenes = {Scene.of(seed.facts) for seed in rl}
    assert {scene.split for scene in scenes} == {Split.TRAIN}
    shown = {row["images"][0] for row in lines(builds["sft"] / "sets" / "sft.jsonl")}
    assert not shown & {row["images"][0] for row in lines(builds["rl"] / "sets" / "rl.jsonl")}
    assert all((build / "cards" / name / "card.html").is_file() for name, build in builds.items())


def test_it_goes_on_where_it_was_and_makes_the_same(made: Made) -> None:
    out, builds = made
    files = [*out.glob("*.parquet"), *(build / "sets" / f"{name}.jsonl" for name, build in builds.items())]
    before = {path: path.read_bytes() for path in files}
    (log,) = builds["sft"].glob("steps/dialogues/shard-*/outcomes-*.jsonl")
    whole = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(whole[:20]) + whole[20][:50])  # a killed run: the last line is torn
    assert make_sets(out, sft=SFT, rl=RL, seed=2) == builds
    assert {path: path.read_bytes() for path in before} == before


def test_the_rules_settings_and_the_seed_decide(made: Made, tmp_path: Path) -> None:
    _, builds = made
    others = make_sets(tmp_path, sft=SFT, rl=RL, seed=3)
    for name in ("sft", "rl"):
        file = f"sets/{name}.jsonl"
        assert (others[name] / file).read_bytes() != (builds[name] / file).read_bytes()
    mine, theirs = ({scene_of(row) for row in lines(some["rl"] / "sets" / "rl.jsonl")} for some in (builds, others))
    assert not mine & theirs


def scene_of(row: dict[str, Any]) -> Scene:
    return Scene.of(row["metadata"]["facts"])
