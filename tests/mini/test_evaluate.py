"""Evaluation with scripted students: the perfect one, the naive one, and one that only breaks under adaptive attack."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rollout.transcripts import read_transcripts
from steer_verl.errors import ConfigError, DataError
from steer_verl.mini import dialogues
from steer_verl.mini.answers import expert_answer, naive_answer
from steer_verl.mini.evaluate import evaluate, evaluate_folder, held_out, load_marks, play
from steer_verl.mini.tutor import MiniTutor
from steer_verl.mini.world import Scene, Split
from steer_verl.types import QuestionOrigin, Seed, StopReason, Trajectory

RNG = random.Random(1)


def seeds(count: int = 40) -> list[Seed]:
    rng = random.Random(0)
    return [
        dialogues.seed(f"test-{i:03}", kind, scene, f"{i}.png", rng)
        for i, (kind, scene) in enumerate(dialogues.scenes_and_kinds(count, Split.TEST, rng))
    ]


class Scripted:
    """Looks up the scene by its picture's name and answers by a rule; notes how large its batches were."""

    def __init__(self, played: Sequence[Seed], rule: Any) -> None:
        self.scenes = {seed.turns[0].images[0]: Scene.of(seed.facts) for seed in played}
        self.rule, self.batches = rule, list[int]()

    def answer(self, batch: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
        self.batches.append(len(batch))
        return [self._one(messages) for messages in batch]

    def _one(self, messages: Sequence[Mapping[str, Any]]) -> str:
        image = next(block["image"] for block in messages[0]["content"] if block["type"] == "image")
        last = messages[-1]["content"]
        question = last if isinstance(last, str) else last[-1]["text"]
        answer: str = self.rule(self.scenes[image], question, len(messages) // 2)
        return answer


def expert(scene: Scene, question: str, turn: int) -> str:
    return expert_answer(scene, question, RNG)


def naive(scene: Scene, question: str, turn: int) -> str:
    return naive_answer(scene, question)


def value(summary: dict[str, Any], name: str) -> float:
    number: float = summary["measures"][name]["value"]
    return number


@pytest.mark.parametrize("attack", ["adaptive", "static"])
def test_the_expert_is_perfect(attack: str, tmp_path: Path) -> None:
    played = seeds()
    summary = evaluate(Scripted(played, expert), MiniTutor(), played, tmp_path, attack=attack)
    assert value(summary, "safety") == 10 and value(summary, "survival") == value(summary, "unbroken") == 100
    assert value(summary, "helpfulness") == value(summary, "decision") == value(summary, "well_formed") == 100
    assert value(summary, "over_refusal") == value(summary, "unscored") == 0


def test_the_naive_student_breaks_and_has_no_format(tmp_path: Path) -> None:
    played = seeds()
    summary = evaluate(Scripted(played, naive), MiniTutor(), played, tmp_path)
    assert value(summary, "safety") < 6 and value(summary, "survival") < 20 and value(summary, "well_formed") == 0
    assert value(summary, "helpfulness") == 100


def test_lock_step_plays_every_seed_to_its_own_end(tmp_path: Path) -> None:
    played = seeds()
    student = Scripted(played, expert)
    evaluate(student, MiniTutor(), played, tmp_path)
    lengths = [len(seed.turns) for seed in played]
    assert student.batches == [sum(n >= turn for n in lengths) for turn in range(1, max(lengths) + 1)]
    records = {t.seed_id: t for t in read_transcripts(tmp_path / "transcripts")}
    assert [len(records[seed.id].turns) for seed in played] == lengths
    assert all(t.stop is StopReason.COMPLETED for t in records.values())
    assert any(turn.origin is QuestionOrigin.TUTOR for t in records.values() for turn in t.turns)


async def test_static_asks_the_seeds_own_questions() -> None:
    played = seeds(10)
    for trajectory, seed in zip(
        await play(Scripted(played, expert), MiniTutor(), played, attack="static"), played, strict=True
    ):
        assert [turn.user for turn in trajectory.turns] == list(seed.turns)


def test_files_are_read_back(tmp_path: Path) -> None:
    played = seeds(12)
    summary = evaluate(Scripted(played, expert), MiniTutor(), played, tmp_path, run=3)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    marks = load_marks(tmp_path)
    assert [m.seed_id for m in marks] == [seed.id for seed in played] and {m.run for m in marks} == {3}
    assert {m.run for m in load_marks(tmp_path, run=8)} == {8}
    (tmp_path / "marks.jsonl").write_text("{}")
    with pytest.raises(DataError, match="evaluate again"):
        load_marks(tmp_path)


def test_bad_settings_are_said_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="adaptive or static"):
        evaluate_folder(tmp_path, tmp_path / "seeds", tmp_path, attack="wild")
    with pytest.raises(ConfigError, match="no Hugging Face model"):
        evaluate_folder(tmp_path, tmp_path / "seeds", tmp_path)


def test_too_few_held_out_seeds(tmp_path: Path) -> None:
    from steer_verl.mini.data import Sizes, build

    build(tmp_path, sizes=Sizes(pretrain=1, sft=1, rl_train=1, rl_validation=1, rl_test=3))
    assert len(held_out(tmp_path / "rl_test.jsonl", 3)) == 3
    with pytest.raises(DataError, match="3 seeds, but 4"):
        held_out(tmp_path / "rl_test.jsonl", 4)


def test_marks_follow_the_record(tmp_path: Path) -> None:
    """The same record marked twice is the same, and survives JSON."""
    played = seeds(6)
    evaluate(Scripted(played, naive), MiniTutor(), played, tmp_path)
    from steer_verl.mini.evaluate import mark

    lines = (tmp_path / "transcripts" / "eval.jsonl").read_text().splitlines()
    assert [mark(Trajectory.model_validate_json(line)) for line in lines] == load_marks(tmp_path)
