"""The fast trainer: its student is transformers', its evaluation that of ``steer eval run``.

That its steps are verl's is told beside verl's own (tests/e2e/test_grpo.py).
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.lab import fast
from benchmarks.lab.arms import ARMS, CELLS, REACHABLE, RISKY
from benchmarks.lab.fast import Played, Settings, Trainer, evaluate, log_probs, play
from benchmarks.lab.runs import Lab
from benchmarks.lab.student import Student
from benchmarks.lab.window import arm_config
from steer_verl.data.rows.parquet import load_seeds
from steer_verl.demo.data import build_data
from steer_verl.dialogue import Dialogue, user_message
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.figures import figures_of
from steer_verl.eval.marks import marks_of_run
from steer_verl.mini.answers import expert_answer, naive_answer
from steer_verl.mini.model import build
from steer_verl.mini.student import MiniStudent, open_image
from steer_verl.mini.tutor import MiniTutor
from steer_verl.mini.world import RISKY_OFFERS, Scene
from steer_verl.types import IMAGE_MARK, Seed, StopReason
from tests.mini.test_evaluation import mean_reward
from tests.mini.test_evaluation import play as rule_play
from tests.tutor.gamers import GullibleTutor

SHORT = Settings(answer=10)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the runner makes, small: data and an untrained student."""
    root = tmp_path_factory.mktemp("lab")
    build_data(root / "base" / "data", quick=True)
    (root / "seed-0").mkdir()
    (root / "seed-0" / "data").symlink_to(root / "base" / "data")
    build(root / "seed-0" / "sft" / "hf")
    return root


@pytest.fixture(scope="module")
def student(lab: Path) -> Student:
    return Student(lab / "seed-0" / "sft" / "hf")


@pytest.fixture(scope="module")
def seeds(lab: Path) -> list[Seed]:
    return load_seeds(lab / "base" / "data" / "rl_test_long.jsonl")


opened_ = fast.opened


def opened(student: Student, seeds: list[Seed], settings: Settings) -> list[tuple[int, Dialogue]]:
    return [(0, fast.opened(student, seed, settings, f"val/0/{seed.id}/0")) for seed in seeds]


def test_log_probabilities_are_those_of_transformers_own_forward(student: Student, seeds: list[Seed]) -> None:
    played = play(student, opened(student, seeds[:6], SHORT), SHORT, dice=3)
    for one, found in zip(played, log_probs(student, played), strict=True):
        picture = open_image(one.picture)
        inputs = student.processor(text=["<|image_pad|>"], images=[picture], return_tensors="pt")
        inputs["input_ids"] = torch.tensor([one.ids])
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == student.image).int()
        with torch.no_grad():
            words = student.model(**inputs).logits.log_softmax(-1)[0]
        at = torch.tensor(one.written)
        torch.testing.assert_close(found, words[at - 1, inputs["input_ids"][0, at]], atol=2e-5, rtol=0)


def test_lock_step_changes_no_answer(student: Student, seeds: list[Seed], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever plays beside a dialogue, and however long their answers are."""
    together = play(student, opened(student, seeds[:5], SHORT), SHORT, dice=1)
    monkeypatch.setattr(fast, "TOGETHER", 2)
    apart = play(student, opened(student, seeds[:5], SHORT), SHORT, dice=1)
    assert [one.ids for one in apart] == [one.ids for one in together]
    assert len({len(one.spans) for one in together}) > 1, "dialogues end at different turns"


def test_a_dialogue_whose_tokens_run_out_ends_as_in_training(student: Student, seeds: list[Seed]) -> None:
    settings = Settings(answer=24, response=100)
    played = play(student, opened(student, seeds[:9], settings), settings, dice=1)
    assert {one.dialogue.stop for one in played} >= {StopReason.TOKEN_BUDGET}
    assert all(len(one.mask) <= settings.response and one.spans[-1][1] <= len(one.mask) for one in played)


def test_it_answers_as_the_student_of_an_evaluation(lab: Path, student: Student, seeds: list[Seed]) -> None:
    """The first question alone: what an untrained student says is other tokens when it is read back as text."""
    other = MiniStudent.load(lab / "seed-0" / "sft" / "hf", temperature=0, max_tokens=SHORT.answer)
    shown = opened(student, seeds[:8], SHORT)
    asked = [[user_message(dialogue.seed.turns[0])] for _, dialogue in shown]
    for one, text in zip(play(student, shown, SHORT, dice=None), other.answer(asked), strict=True):
        start, stop = one.spans[0]
        first = one.ids[len(one.ids) - len(one.mask) :][start:stop]
        assert student.tokenizer.decode(first, skip_special_tokens=True).strip() == text


@pytest.mark.parametrize("naive", [0.0, 0.1, 1.0])
async def test_its_figures_are_those_of_an_evaluation(student: Student, seeds: list[Seed], naive: float) -> None:
    def rule(scene: Scene, question: str, turn: int) -> str:
        rng = random.Random(f"{scene} {question} {turn}")
        tells = rng.random() < naive
        return naive_answer(scene, question) if tells else expert_answer(scene, question, rng)

    def said(one: Played, room: int) -> list[int]:
        question = one.dialogue.question
        assert question is not None
        text = rule(Scene.of(one.dialogue.seed.facts), question.text.replace(IMAGE_MARK, ""), len(one.spans))
        return [*student.tokenizer(text)["input_ids"], student.end]

    found = await asyncio.to_thread(evaluate, student, seeds, Settings.of(REACHABLE), said)
    dialogues = await rule_play(seeds, rule)
    figures = figures_of(marks_of_run(dialogues), MarkSettings()).estimates()
    assert found["unbroken"] == pytest.approx(figures["unbroken"].value)
    assert found["helpfulness"] == pytest.approx(figures["helpfulness"].value)
    assert found["reward"] == pytest.approx(mean_reward(dialogues))
    assert (found["unbroken"] == 100) == (naive == 0)


def test_an_update_moves_the_text_and_never_the_sight(lab: Path, seeds: list[Seed]) -> None:
    trainer = Trainer(lab / "seed-0" / "sft" / "hf", arm_config("steer"), replace(Settings(answer=12), lr=1e-2))
    before = {name: weight.clone() for name, weight in trainer.student.model.state_dict().items()}
    played = trainer.step(1, seeds[:2], 0)
    moved = {name for name, weight in trainer.student.model.state_dict().items() if not weight.equal(before[name])}
    assert moved and not [name for name in moved if "visual" in name]
    assert len(played) == 10 and {one.group for one in played} == {0, 1}


def test_an_arm_trains_and_measures_every_checkpoint(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast.Settings, "of", classmethod(lambda cls, world: cls(prompts=2, rollouts=2, answer=8)))
    for name in ("fast-reachable-0.0-steer-0.3", "fast-risky_offers-0.3-plain_mean-0.0"):
        runs = Lab(lab, (0,), (name,), quick=True)
        found = fast.measure(runs, name, 0)
        assert list(found) == [1, 2] and found[2].keys() - found[1].keys() == {"helpfulness"}
        assert found[2]["alarm/benign_refusal_share"] in (0, 0.5, 1)
        assert all(0 <= one["unbroken"] <= 100 and 0 <= one["reward"] <= 1 for one in found.values())


def test_an_arm_of_the_sizes_measures_what_came_before_too(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast.Settings, "of", classmethod(lambda cls, world: cls(prompts=2, rollouts=2, answer=8)))
    build(lab / "base" / "pretrain" / "hf", seed=1)
    found = fast.measure(Lab(lab, (0,), ("size-2m",), quick=True), "size-2m", 0)
    assert list(found) == [-1, 0, 1, 2] and "helpfulness" not in found[1]
    assert all("helpfulness" in found[step] for step in (-1, 0, 2)) and found[-1] != found[0]


def test_a_gamed_tutor_is_met_in_training_alone(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    game = ARMS["game-gullible-0.0-0.1"]
    settings = Settings.of_arm(game)
    assert (settings.tutor, settings.kl) == (GullibleTutor, 0.1) and Settings.of_arm(ARMS["grpo"]).kl == 0.02
    met: list[type] = []
    monkeypatch.setattr(fast.Settings, "of", classmethod(lambda cls, world: cls(prompts=2, rollouts=2, answer=8)))
    monkeypatch.setattr(fast, "opened", lambda *args: met.append(args[2].tutor) or opened_(*args))
    (_, student, alarms), _ = fast.train(Lab(lab, (0,), (), quick=True), "game-gullible-0.0-0.1", 0)
    assert set(met) == {GullibleTutor} and "alarm/benign_refusal_share" not in alarms
    monkeypatch.setattr(fast, "train", lambda *_: [(1, student, {}), (2, student, {})])
    met.clear()
    fast.measure(Lab(lab, (0,), (), quick=True), "game-gullible-0.0-0.1", 0)
    assert set(met) == {MiniTutor}


def test_a_job_of_the_risky_world_has_its_own_share_of_leaks(lab: Path, seeds: list[Seed]) -> None:
    for cell in (None, *CELLS.values()):
        shares = {seed.facts.get(RISKY_OFFERS) for seed in fast._leaking(seeds[:5], cell)}
        assert shares == {cell.leak if cell and cell.world == RISKY else None}
