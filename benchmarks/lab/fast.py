"""Stage III of the laboratory without verl, vLLM and Ray, for many short trainings: a few minutes each on one core.

The dialogue, the tutor, the rewards and TCSR are the project's own, the student is transformers', and the settings are
those of recipes/mini. What stands here is what verl and vLLM do between them: answers by the token, and steps of AdamW
on the clipped policy gradient with a KL penalty. tests/e2e/test_grpo.py plays steps of verl's again, answer by
answer, and compares the weights that come of them. An answer's random numbers are of its place, so that the arms of a
seed meet the same dice.

Shapes: B dialogues, Q tokens that are read at once, K tokens of a dialogue so far, T of all, H hidden.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import itertools
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.lab.arms import ARMS, ATTACKED, BEFORE, BENIGN, REACHABLE, RISKY, Arm, Cell
from benchmarks.lab.runs import Lab, student
from benchmarks.lab.student import Memory, Student
from benchmarks.lab.window import arm_config
from steer_verl.alarms import Alarms
from steer_verl.config import REWARD_PRESETS, AlarmConfig, RewardConfig, TcsrConfig
from steer_verl.data.rows.parquet import load_seeds
from steer_verl.demo.stages import RECIPE
from steer_verl.dialogue import Dialogue
from steer_verl.eval.config import MarkSettings
from steer_verl.metrics import trajectory_metrics
from steer_verl.mini.judge import MiniJudge, rate
from steer_verl.mini.tutor import MiniTutor
from steer_verl.mini.world import RISKY_OFFERS
from steer_verl.records import write_whole
from steer_verl.rewards import trajectory_rewards
from steer_verl.seeds import place_seed
from steer_verl.tcsr import lay_out_rewards, tcsr_advantage
from steer_verl.text import special_tokens_of
from steer_verl.types import IMAGE_MARK, DialogueKind, Seed, StopReason, dialogue_key
from tests.tutor.gamers import GullibleTutor

TOGETHER = 100
"""Dialogues that are played in lock-step."""
ALARMS = AlarmConfig(repeated_answer_share=None)
"""As in recipes/mini: in a world of twelve devices right answers coincide."""


@dataclass(frozen=True)
class Settings:
    """What recipes/mini says of Stage III."""

    prompts: int = 8
    rollouts: int = 5
    turns: int = 10
    answer: int = 40
    """Tokens of one."""
    response: int = 448
    """Tokens of a dialogue after its opening."""
    steps: int = 24
    lr: float = 1e-4
    """Of the first step; it falls as a cosine, to 0 behind the last."""
    weight_decay: float = 0.01
    kl: float = 0.02
    micro: int = 10
    reward: RewardConfig = field(default_factory=RewardConfig)
    tutor: type[MiniTutor] = MiniTutor

    @classmethod
    def of_arm(cls, arm: Arm) -> Settings:
        """What the arm changes, too."""
        settings = cls.of(arm.cell.world if arm.cell else REACHABLE)
        if not arm.game:
            return settings
        return replace(settings, kl=arm.game.kl, tutor=GullibleTutor if arm.game.tutor == "gullible" else MiniTutor)

    @classmethod
    def of(cls, world: str) -> Settings:
        """The recipe's, in one of the worlds."""
        recipe = yaml.safe_load((RECIPE / "grpo.yaml").read_text())
        student, steer = recipe["actor_rollout_ref"], recipe["actor_rollout_ref"]["rollout"]["custom"]["steer"]
        data, actor = dict(recipe["data"]), student["actor"]
        if world == RISKY:
            data |= yaml.safe_load((RECIPE / "world" / "risky_offers.yaml").read_text())["data"]
        return cls(
            prompts=data["train_batch_size"],
            rollouts=student["rollout"]["n"],
            turns=steer["max_turns"],
            answer=steer["max_answer_tokens"],
            response=data["max_response_length"],
            steps=recipe["trainer"]["total_training_steps"],
            lr=float(actor["optim"]["lr"]),
            weight_decay=actor["optim"]["weight_decay"],
            kl=actor["kl_loss_coef"],
            micro=actor["ppo_micro_batch_size_per_gpu"],
            reward=RewardConfig(**REWARD_PRESETS[steer["reward"]["preset"]]),
        )


@dataclass
class Played:
    """A dialogue and its tokens."""

    dialogue: Dialogue
    group: int
    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    """Of the tokens after the opening: 1 where the student wrote."""
    spans: list[tuple[int, int]] = field(default_factory=list)
    """Of each answer, in the mask."""

    @property
    def picture(self) -> str:
        """The path."""
        return self.dialogue.seed.turns[0].images[0]

    @property
    def written(self) -> list[int]:
        """Places of the student's tokens in ``ids``."""
        start = len(self.ids) - len(self.mask)
        return [start + at for at, own in enumerate(self.mask) if own]


Answer = Callable[[Played, int], "list[int] | None"]
"""The tokens that a dialogue's next answer has to be, of at most so many; ``None``: the student's own."""


def own(_: Played, __: int) -> None:
    """The student answers for itself."""


def play(
    student: Student,
    dialogues: Sequence[tuple[int, Dialogue]],
    settings: Settings,
    dice: int | None,
    said: Answer = own,
) -> list[Played]:
    """Play dialogues to their ends, :data:`TOGETHER` at a time.

    Args:
        student: who answers.
        dialogues: each with its group.
        settings: lengths.
        dice: seed of the sampling; ``None``: greedily.
        said: answers that are given beforehand.
    """
    all_ = [Played(dialogue, group) for group, dialogue in dialogues]
    for start in range(0, len(all_), TOGETHER):
        asyncio.run(_play(student, all_[start : start + TOGETHER], settings, dice, said))
    return all_


@torch.no_grad()
async def _play(student: Student, live: list[Played], settings: Settings, dice: int | None, said: Answer) -> None:
    memory, fresh = Memory(student), []
    for one in live:
        one.dialogue.open()
        one.ids = student.opening(one.dialogue.seed)
        fresh.append(one.ids)
    pictures = student.pictures([one.picture for one in live])
    everyone = live
    while live:
        last_BH = memory.read(
            fresh, [student.places(one.ids)[:, -len(new) :] for one, new in zip(live, fresh, strict=True)], pictures
        )
        pictures = []
        room = [min(settings.answer, settings.response - len(one.mask) - 1) for one in live]
        answers = _answers(memory, last_BH, live, room, dice, said)
        told = await asyncio.gather(*(_respond(student, *each) for each in zip(live, answers, room, strict=True)))
        kept, fresh = [], []
        for at, (one, answer, question) in enumerate(zip(live, answers, told, strict=True)):
            one.spans.append((len(one.mask), len(one.mask) + len(answer)))
            cut = [] if answer[-1] == student.end else [student.end]
            one.ids, one.mask = [*one.ids, *answer, *cut], [*one.mask, *[1] * len(answer), *[0] * len(cut)]
            if question is None:
                continue
            asked = student.question(question)
            if len(one.mask) + len(asked) + settings.answer + 1 > settings.response:
                one.dialogue.end(StopReason.TOKEN_BUDGET)
                continue
            one.ids, one.mask = [*one.ids, *asked], [*one.mask, *[0] * len(asked)]
            kept.append(at)
            fresh.append([answer[-1], *cut, *asked])  # the memory lacks the token that was drawn last
        live = [live[at] for at in kept]
        memory.keep(kept)
    await asyncio.gather(*(one.dialogue.settled() for one in everyone))


async def _respond(student: Student, one: Played, answer: list[int], room: int) -> str | None:
    ended = answer[-1] == student.end
    text, cut = student.text(answer[: -1 if ended else None]), len(answer) == room and not ended
    question = await one.dialogue.respond(text, answer_tokens=len(answer), truncated=cut)
    return question.text if question else None


def _answers(
    memory: Memory, last_BH: Tensor, live: Sequence[Played], room: Sequence[int], dice: int | None, said: Answer
) -> list[list[int]]:
    student = memory.student
    answers: list[list[int]] = [[] for _ in live]
    given = [said(one, cap) for one, cap in zip(live, room, strict=True)]
    keys = [one.dialogue.turn_key for one in live]
    generators = [] if dice is None else [torch.Generator().manual_seed(place_seed(dice, key)) for key in keys]
    places = [student.places(one.ids)[:, -1:] for one in live]
    writing = [True] * len(live)
    while True:
        score_BV = student.model.lm_head(last_BH)
        score_BV[:, student.banned] = -torch.inf
        for row, generator in enumerate(generators):
            if writing[row]:
                score_BV[row] -= torch.empty_like(score_BV[row]).exponential_(generator=generator).log()
        for row, token in enumerate(score_BV.argmax(-1).tolist()):
            if writing[row]:
                words = given[row]
                answers[row].append(token if words is None else words[len(answers[row])])
                over = len(answers[row]) == (room[row] if words is None else len(words))
                writing[row] = not over and answers[row][-1] != student.end
        if not any(writing):
            return answers
        new = [answer[-1:] if goes_on else [] for answer, goes_on in zip(answers, writing, strict=True)]
        last_BH = memory.read(new, [place + len(answer) for place, answer in zip(places, answers, strict=True)])


def log_probs(student: Student, played: Sequence[Played]) -> list[Tensor]:
    """Log-probability of each token that the student wrote, a dialogue a tensor."""
    ids_BT = pad_sequence([torch.tensor(one.ids) for one in played], batch_first=True, padding_value=student.end)
    places = [student.places(one.ids) for one in played]
    place_3BT = torch.stack([F.pad(place, (0, ids_BT.shape[1] - place.shape[1])) for place in places], 1)
    hidden_BTH = student.hidden(ids_BT, place_3BT, student.pictures([one.picture for one in played]), use_cache=False)
    found = []
    for row, one in enumerate(played):
        at = torch.tensor(one.written)
        words = student.model.lm_head(hidden_BTH[row, at - 1]).log_softmax(-1)
        found.append(words.gather(1, ids_BT[row, at, None])[:, 0])
    return found


def advantages(played: Sequence[Played], tcsr: TcsrConfig, reward: RewardConfig) -> list[Tensor]:
    """TCSR's advantage of each token that the student wrote, a dialogue a tensor."""
    length = max(len(one.mask) for one in played) + 1
    laid = [lay_out_rewards(trajectory_rewards(one.dialogue.trajectory(), reward), one.spans, length) for one in played]
    mask_BT = torch.stack([F.pad(torch.tensor(one.mask), (0, length - len(one.mask))) for one in played])
    found_BT, _ = tcsr_advantage(torch.stack(laid), mask_BT, [one.group for one in played], tcsr)
    return [row[mask == 1] for row, mask in zip(found_BT, mask_BT, strict=True)]


class Trainer:
    """A student under training, with the one that it began as for the KL penalty."""

    def __init__(self, folder: Path, tcsr: TcsrConfig, settings: Settings) -> None:
        self.student, self.tcsr, self.settings = Student(folder), tcsr, settings
        self.first = copy.copy(self.student)
        self.first.model = copy.deepcopy(self.student.model)
        weights = [weight for weight in self.student.model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(weights, lr=settings.lr, weight_decay=settings.weight_decay)
        self.schedule = LambdaLR(self.optimizer, lambda done: (1 + math.cos(math.pi * done / settings.steps)) / 2)

    def update(self, played: Sequence[Played]) -> None:
        """One step: the mean over all tokens of -A + KL (verl's ``low_var_kl``), gradients clipped at norm 1.

        There is one update a batch, so that verl's ratio of probabilities is 1 and its clipping idle.
        """
        advantage = advantages(played, self.tcsr, self.settings.reward)
        tokens = sum(map(len, advantage))
        self.optimizer.zero_grad()
        order = sorted(range(len(played)), key=lambda row: len(played[row].ids))  # alike in length: little padding
        for start in range(0, len(order), self.settings.micro):
            rows = order[start : start + self.settings.micro]
            some = [played[row] for row in rows]
            with torch.no_grad():
                before = torch.cat(log_probs(self.first, some))
            now = torch.cat(log_probs(self.student, some))
            gain = (now - now.detach()).exp() * torch.cat([advantage[row] for row in rows])
            ahead = (before - now).clamp(-20, 20)
            penalty = (ahead.exp() - ahead - 1).clamp(-10, 10)
            ((self.settings.kl * penalty - gain).sum() / tokens).backward()
        torch.nn.utils.clip_grad_norm_([w for g in self.optimizer.param_groups for w in g["params"]], 1.0)
        self.optimizer.step()
        self.schedule.step()

    def step(self, number: int, seeds: Sequence[Seed], dice: int, said: Answer = own) -> list[Played]:
        """Play the step's seeds and learn from them."""
        dialogues = [
            (group, opened(self.student, seed, self.settings, dialogue_key(False, number, seed.id, rollout)))
            for group, seed in enumerate(seeds)
            for rollout in range(self.settings.rollouts)
        ]
        played = play(self.student, dialogues, self.settings, dice, said)
        self.update(played)
        return played


def opened(student: Student, seed: Seed, settings: Settings, key: str = "") -> Dialogue:
    """A dialogue against the laboratory's tutor, adaptively attacked."""
    special = special_tokens_of(student.tokenizer)
    tutor, judge = settings.tutor(), MiniJudge()
    return Dialogue(seed, tutor, max_turns=settings.turns, key=key, special_tokens=special, holdout=judge)


def evaluate(student: Student, seeds: Sequence[Seed], settings: Settings, said: Answer = own) -> dict[str, float]:
    """Under adaptive attack, greedily: unbroken attacked dialogues and helpfulness of benign ones in per cent, and the
    attacked ones' mean turn reward, of what there is. No dialogue runs out of tokens here."""
    settings = replace(settings, response=sys.maxsize)
    dialogues = [(0, opened(student, seed, settings)) for seed in seeds]
    found: dict[str, list[float]] = {}
    for one in play(student, dialogues, settings, dice=None, said=said):
        turns, facts = one.dialogue.turns, one.dialogue.seed.facts
        answers = [turn.answer for turn in turns]
        asked = [turn.user.text.replace(IMAGE_MARK, "") for turn in turns]
        marks = [rate(facts, text, answers[at], answers[:at]) for at, text in enumerate(asked)]
        if one.dialogue.seed.kind is DialogueKind.BENIGN:
            helped = 100 * sum(mark.helpful for mark in marks) / len(marks) / 3
            found.setdefault("helpfulness", []).append(helped)
        else:
            holds = all(mark.harmless >= MarkSettings().fail_below for mark in marks)
            found.setdefault("unbroken", []).append(100.0 * holds)
            found.setdefault("reward", []).extend(trajectory_rewards(one.dialogue.trajectory(), settings.reward))
    return {name: float(np.mean(values)) for name, values in found.items()}


def train(lab: Lab, name: str, seed: int) -> Iterator[tuple[int, Student, dict[str, float]]]:
    """The students of an arm at the checkpoints, dice being the training seed's, and the share of steps in which each
    alarm fired."""
    arm, folder, settings = ARMS[name], lab.plan(seed).out, Settings.of_arm(ARMS[name])
    seeds = _leaking(load_seeds(folder / "data" / arm.train), arm.cell)
    if arm.game and not arm.game.benign:
        seeds = [one for one in seeds if one.kind is not DialogueKind.BENIGN]
    tcsr = arm_config(arm.cell.arm, arm.cell.alpha) if arm.cell else arm_config("steer")
    trainer, alarms = Trainer(folder / arm.begins / "hf", tcsr, settings), Alarms(ALARMS, tell=lambda _: None)
    fired: Counter[str] = Counter()
    for step in range(1, lab.checkpoints[-1] + 1):
        first = (step - 1) * settings.prompts
        played = trainer.step(step, [seeds[at % len(seeds)] for at in range(first, first + settings.prompts)], seed)
        trajectories = [one.dialogue.trajectory(step=step) for one in played]
        fired.update({key: int(on) for key, on in alarms.check(trajectories, trajectory_metrics(trajectories)).items()})
        if step in lab.checkpoints:
            shares = {key.removeprefix("steer/"): fired[key] / step for key in fired if "/alarm/" in key}
            yield step, trainer.student, shares


def before(lab: Lab, name: str, seed: int) -> Iterator[tuple[int, Student, dict[str, float]]]:
    """The pretrained student and Stage II's, as ``train`` has those of Stage III."""
    sft = ARMS[name].begins
    for step, arm in zip(BEFORE, (ARMS[sft].begins, sft), strict=True):
        yield step, Student(student(lab, arm, seed)[1]), {}


def measure(lab: Lab, name: str, seed: int) -> dict[int, dict[str, float]]:
    """Checkpoint -> figures of an arm's student, whoever has trained it; of benign dialogues at the last one alone, and
    before Stage III."""
    arm = ARMS[name]
    students = (
        train(lab, name, seed)
        if arm.stage == "fast"
        else ((step, Student(folder), {}) for step, folder in lab.models(name, seed).items())
    )
    test = _leaking(load_seeds(lab.plan(None).out / "data" / arm.test), arm.cell)
    attacked = [one for one in test if one.kind is not DialogueKind.BENIGN][: lab.count(ATTACKED)]
    benign = [one for one in test if one.kind is DialogueKind.BENIGN][: lab.count(BENIGN)]
    settings, whole = replace(Settings.of_arm(arm), tutor=MiniTutor), (*BEFORE, lab.checkpoints[-1])
    return {
        step: {**evaluate(one, attacked + benign * (step in whole), settings), **alarms}
        for step, one, alarms in itertools.chain(before(lab, name, seed) if arm.size else (), students)
    }


def _leaking(seeds: Iterable[Seed], cell: Cell | None) -> list[Seed]:
    if cell is None or cell.world != RISKY:
        return list(seeds)
    return [seed.model_copy(update={"facts": {**seed.facts, RISKY_OFFERS: cell.leak}}) for seed in seeds]


def main() -> None:
    """Measure the students of one arm and seed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", type=Path, help="the laboratory's folder, which holds what the arm begins at")
    parser.add_argument("seed", type=int)
    parser.add_argument("arm", choices=ARMS)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lab = Lab(args.out, (args.seed,), (args.arm,), args.quick)
    write_whole(lab.measured(args.arm, args.seed), json.dumps(measure(lab, args.arm, args.seed)))


if __name__ == "__main__":
    main()
