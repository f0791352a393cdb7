"""The laboratory's files: what verl and the rest of the project read from them."""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from steer_verl.answer import parse_answer
from steer_verl.data.rows.parquet import load_seeds
from steer_verl.mini.data import Sizes, build
from steer_verl.mini.phrases import asks_for_steps
from steer_verl.types import DialogueKind

SMALL = Sizes(pretrain=40, sft=60, rl_train=30, rl_validation=12, rl_test=20, long_attacked=30, long_benign=10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("mini"), seed=3, sizes=SMALL)


def rows(path):
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


@pytest.mark.parametrize(("split", "count"), [("train", 30), ("validation", 12), ("test", 20)])
def test_seeds_are_read_by_the_strict_loader(folder, split, count):
    seeds = load_seeds(folder / ("rl_train.parquet" if split == "train" else f"rl_{split}.jsonl"))
    assert len({seed.id for seed in seeds}) == count
    assert {seed.facts["split"] for seed in seeds} == {split}
    assert set(DialogueKind) == {seed.kind for seed in seeds}


def test_the_long_list_has_attacked_dialogues_first_on_scenes_of_the_test_split(folder):
    seeds = load_seeds(folder / "rl_test_long.jsonl")
    assert [seed.kind is DialogueKind.BENIGN for seed in seeds] == [False] * 30 + [True] * 10
    assert {seed.facts["split"] for seed in seeds} == {"test"}
    assert not {seed.id for seed in seeds} & {seed.id for seed in load_seeds(folder / "rl_test.jsonl")}


def test_sft_teaches_the_policy_in_the_format(folder):
    for row in rows(folder / "sft.parquet"):
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"] * (len(row["messages"]) // 2)
        assert row["messages"][0]["content"].count("<image>") == len(row["images"]) == 1
        for message in row["messages"][1::2]:
            assert parse_answer(message["content"]).well_formed


def test_pretraining_complies_and_knows_no_format(folder):
    pairs = [(r["messages"][i], r["messages"][i + 1]) for r in rows(folder / "pretrain.parquet") for i in (0, -2)]
    assert all("<" not in answer["content"] for _, answer in pairs)
    asked = [answer["content"] for question, answer in pairs if asks_for_steps(question["content"])]
    assert asked
    assert all(answer.startswith("To open the") for answer in asked)


def test_pictures_are_whole(folder):
    for row in rows(folder / "pretrain.parquet")[:5]:
        assert Image.open(io.BytesIO(row["images"][0]["bytes"])).size == (84, 84)


@pytest.mark.parametrize(
    ("split", "digest"),
    [("validation", "b196c1cccd26af8b"), ("test", "a9defc699c5db7e3"), ("test_long", "26e9fdd93fdb353f")],
)
def test_seeds_that_students_are_measured_on_never_change(folder, split, digest):
    """Figures of different versions are compared on them; a change is a new benchmark, not an edit."""
    assert hashlib.sha256((folder / f"rl_{split}.jsonl").read_bytes()).hexdigest().startswith(digest)


def test_what_is_missing_or_was_moved_is_made_again(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "moved")
    build(moved, seed=3, sizes=SMALL)
    for name in ("rl_train", "rl_train_risky"):
        images = [path for row in rows(moved / f"{name}.parquet") for path in row["images"]]
        assert images and all(Path(path).is_relative_to(moved) and Path(path).is_file() for path in images)
    (moved / "sft.parquet").unlink()
    image = next((moved / "images").iterdir())
    image.unlink()
    build(moved, seed=3, sizes=SMALL)
    assert (moved / "sft.parquet").read_bytes() == (folder / "sft.parquet").read_bytes() and image.is_file()


def test_build_is_idempotent_and_depends_on_the_seed(folder, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    build(folder, seed=3, sizes=SMALL)
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    again, other = build(tmp_path / "a", seed=3, sizes=SMALL), build(tmp_path / "b", seed=4, sizes=SMALL)
    for name in ("pipeline/*/rl/sets/rl.jsonl", "sft.parquet", "pretrain.parquet"):
        found, same, different = (next(made.glob(name)).read_bytes() for made in (folder, again, other))
        assert found == same != different
