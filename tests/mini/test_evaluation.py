"""The laboratory under evaluation, by students of rules: the perfect one and the naive one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import pytest

from steer_verl.config import REWARD_PRESETS, RewardConfig
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.figures import figures_of
from steer_verl.eval.judging.mini import MiniEvalJudge
from steer_verl.eval.marks import DialogueMarks, marks_of_run
from steer_verl.eval.records import EvalDialogue, EvalItem
from steer_verl.eval.step import EvalStep
from steer_verl.eval.students.protocol import Messages, Reply
from steer_verl.mini import dialogues
from steer_verl.mini.answers import expert_answer, naive_answer
from steer_verl.mini.tutor import MiniTutor
from steer_verl.mini.world import Scene, Split
from steer_verl.models.place import Place
from steer_verl.rewards import turn_reward
from steer_verl.types import DialogueKind, QuestionOrigin, Seed, Verdict
from steer_verl.work.step import Kept

RNG = random.Random(1)


def seeds(count: int = 40) -> list[Seed]:
    rng = random.Random(0)
    return [
        dialogues.seed(f"test-{i:03}", kind, scene, f"{i}.png", rng)
        for i, (kind, scene) in enumerate(dialogues.scenes_and_kinds(count, Split.TEST, rng))
    ]


Rule = Callable[[Scene, str, int], str]


class ByRule:
    """A student that looks up the scene by its picture's name and answers by a rule."""

    name = "by rule"

    def __init__(self, played: Sequence[Seed], rule: Rule) -> None:
        self.scenes = {seed.turns[0].images[0]: Scene.of(seed.facts) for seed in played}
        self.rule = rule

    async def check(self) -> None:
        """Always there."""

    async def close(self) -> None:
        """Nothing is held."""

    async def answer(self, messages: Messages, place: Place) -> Reply:
        image = next(block["image"] for block in messages[0]["content"] if block["type"] == "image")
        last = messages[-1]["content"]
        question = last if isinstance(last, str) else last[-1]["text"]
        return Reply(text=self.rule(self.scenes[image], question, len(messages) // 2))


def expert(scene: Scene, question: str, turn: int) -> str:
    return expert_answer(scene, question, RNG)


def naive(scene: Scene, question: str, turn: int) -> str:
    return naive_answer(scene, question)


async def play(played: Sequence[Seed], rule: Rule, attack: str = "adaptive") -> list[EvalDialogue]:
    step = EvalStep(ByRule(played, rule), MiniEvalJudge(), MiniTutor(), attack=attack)
    items = [EvalItem(id=f"mini/{seed.id}", benchmark="mini", seed=seed) for seed in played]
    found = await asyncio.gather(*(step.work(item, Place(f"evaluate/{item.id}")) for item in items))
    assert all(isinstance(done, Kept) for done in found)
    return [EvalDialogue.model_validate(done.value, strict=False) for done in found]


def value(name: str, marks: Sequence[DialogueMarks]) -> float:
    found = figures_of(marks, MarkSettings()).estimates()[name].value
    assert found is not None
    return found


def mean_reward(found: Sequence[EvalDialogue]) -> float:
    """Of the attacked dialogues' turns, as the recipe pays them."""
    reward = RewardConfig(**REWARD_PRESETS["steer"])
    attacked = [one for one in found if one.kind is not DialogueKind.BENIGN]
    rewards = [
        turn_reward(turn.tutor, turn.answer, reward)
        for one in attacked
        for turn in one.turns
        if isinstance(turn.tutor, Verdict)
    ]
    return sum(rewards) / len(rewards)


@pytest.mark.parametrize("attack", ["adaptive", "static"])
async def test_the_expert_is_perfect(attack: str) -> None:
    marks = marks_of_run(await play(seeds(), expert, attack))
    assert value("safety", marks) == 10
    assert {value(name, marks) for name in ("survival", "unbroken", "helpfulness", "decision", "well_formed")} == {100}
    assert value("over_refusal", marks) == value("unrated", marks) == 0


async def test_the_naive_student_breaks_and_has_no_format() -> None:
    marks = marks_of_run(await play(seeds(), naive))
    assert value("safety", marks) < 6 and value("survival", marks) < 20 and value("well_formed", marks) == 0
    assert value("helpfulness", marks) == 100


async def test_every_seed_is_played_to_its_own_end_by_the_tutors_questions() -> None:
    played = seeds()
    found = await play(played, expert)
    assert [len(dialogue.turns) for dialogue in found] == [len(seed.turns) for seed in played]
    assert all(dialogue.whole for dialogue in found)
    written = [turn for dialogue in found for turn in dialogue.turns if turn.origin is QuestionOrigin.TUTOR]
    assert written and all(turn.strategy and turn.static for turn in written)


async def test_static_asks_the_seeds_own_questions() -> None:
    played = seeds(10)
    for dialogue, seed in zip(await play(played, expert, "static"), played, strict=True):
        assert [turn.user for turn in dialogue.turns] == list(seed.turns)
