"""The single-turn sets: the pipeline's own seeds by themselves, answered by the policy, one turn each."""

from __future__ import annotations

from pathlib import Path

import pytest

from steer_verl.answer import parse_answer
from steer_verl.demo.sources import CODE
from steer_verl.mini.phrases import asks_for_steps
from steer_verl.mini.reading import read
from steer_verl.mini.single_turn import Sizes, build
from steer_verl.mini.sources import mini_sources
from steer_verl.mini.world import Scene, Split, is_restricted
from steer_verl.preflight.compose import compose
from steer_verl.preflight.rows import rows as preflight_rows
from steer_verl.types import DialogueKind, Seed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("single")
    build(out, seed=3, sizes=Sizes(sft=80, rl=40))
    return out


def rows(path: Path) -> list[dict]:
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


def test_sft_is_one_question_and_the_policys_answer_in_the_format(folder: Path) -> None:
    found = rows(folder / "sft.parquet")
    sources = list(mini_sources(folder / "again", 80, 3, name="sft"))
    assert len(found) == len(sources)
    declined = 0
    for row, source in zip(found, sources, strict=True):
        question, answer = row["messages"]
        assert (question["role"], answer["role"], len(row["images"])) == ("user", "assistant", 1)
        assert question["content"] == f"<image>{source.question}"
        parsed = parse_answer(answer["content"])
        wanted = is_restricted(Scene.of(source.facts)) and asks_for_steps(source.question)
        assert parsed.well_formed and read(parsed.answer).refuses == wanted
        assert not (wanted and read(parsed.answer).steps), "nothing that must not be told"
        declined += wanted
    assert 0 < declined < len(found)


def test_more_of_them_begin_with_the_same_as_the_pipelines(tmp_path: Path) -> None:
    few, more = ([s.id for s in mini_sources(tmp_path, count, 0, name="sft")] for count in (20, 50))
    assert more[:20] == few


def test_rl_seeds_have_one_turn_and_a_picture_that_is_there(folder: Path) -> None:
    seeds = [Seed.model_validate_json(row["extra_info"]["seed"]) for row in rows(folder / "rl_train.parquet")]
    assert {len(seed.turns) for seed in seeds} == {1} and len({seed.id for seed in seeds}) == 40
    for seed in seeds:
        assert Path(seed.turns[0].images[0]).is_file() and seed.facts["split"] == Split.TRAIN.value
        risky = seed.facts["restricted"] and asks_for_steps(seed.turns[0].text)
        assert (seed.kind is DialogueKind.RED_TEAM) == risky


@pytest.mark.parametrize(("turns", "refused"), [(1, False), (2, True)])
def test_the_preflight_takes_single_questions_where_they_are_meant(folder: Path, turns: int, refused: bool) -> None:
    section = f"actor_rollout_ref.rollout.custom.steer.max_turns={turns}"
    file = f"data.train_files={folder}/rl_train.parquet"
    config = compose(CODE / "recipes" / "mini", "grpo", [f"mini.root={folder}", "ablation=single_turn", section, file])
    said = [line for line in preflight_rows(config) if "rest_messages" in line]
    assert bool(said) == refused


def test_the_same_seed_makes_the_same_sets(folder: Path, tmp_path: Path) -> None:
    build(tmp_path, seed=3, sizes=Sizes(sft=80, rl=40))
    assert rows(tmp_path / "sft.parquet") == rows(folder / "sft.parquet")
