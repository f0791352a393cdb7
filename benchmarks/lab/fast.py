"""Stage III of the laboratory without verl, vLLM and Ray, for many short trainings: a few minutes each on one core.

The dialogue, the tutor, the rewards and TCSR are the project's own, the student is transformers', and the settings are
those of recipes/mini. What stands here is what verl and vLLM do between them: answers by the token, and steps of AdamW
on the clipped policy gradient with a KL penalty. tests/e2e/test_grpo.py plays steps of verl's again, answer by
answer, and compares the weights that come of them. An answer's random numbers are of its place, so that the arms of a
seed meet the same dice.

Shapes: B dialogues, Q tokens that are read at once, K tokens of a dialogue so far, T of all, H hidden.
"""

from __future__ import annotations

import asyncio
import copy
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.lab.sweep import Job
from benchmarks.lab.window import arm_config
from benchmarks.lab.worlds import CHECKPOINTS, REACHABLE, RISKY, Measured
from steer_verl.config import REWARD_PRESETS, RewardConfig, TcsrConfig
from steer_verl.data.rows.parquet import load_seeds
from steer_verl.demo.stages import RECIPE
from steer_verl.dialogue import Dialogue
from steer_verl.eval.config import MarkSettings
from steer_verl.mini.judge import rate
from steer_verl.mini.student import BANNED, open_image
from steer_verl.mini.tutor import MiniTutor
from steer_verl.mini.world import RISKY_OFFERS
from steer_verl.records import write_whole
from steer_verl.rewards import trajectory_rewards
from steer_verl.seeds import place_seed
from steer_verl.tcsr import lay_out_rewards, tcsr_advantage
from steer_verl.text import special_tokens_of
from steer_verl.types import IMAGE_MARK, DialogueKind, Seed, StopReason, dialogue_key

TOGETHER = 100
"""Dialogues that are played in lock-step."""
FILES = {
    REACHABLE: ("rl_train.parquet", "rl_test_long.jsonl"),
    RISKY: ("rl_train_risky.parquet", "rl_test_risky.jsonl"),
}
"""World -> the seeds that are trained on, and those that are played."""


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


class Student:
    """A laboratory student of transformers', on the tokens of a chat with one picture at its beginning."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.model.model.visual.requires_grad_(False)  # steer_verl.frozen_vision
        self.processor = AutoProcessor.from_pretrained(folder)
        self.tokenizer = self.processor.tokenizer
        self.end: int = self.tokenizer.eos_token_id
        self.image: int = self.model.config.image_token_id
        self.banned = self.tokenizer.convert_tokens_to_ids(list(BANNED))
        self._pictures: dict[str, Tensor] = {}

    def opening(self, seed: Seed) -> list[int]:
        """Tokens of a seed's first question, the picture's placeholders among them."""
        text = seed.turns[0].text.replace(IMAGE_MARK, "")
        content = [{"type": "image"}, {"type": "text", "text": text}]
        chat = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        picture = open_image(seed.turns[0].images[0])
        return self.processor(text=[chat], images=[picture])["input_ids"][0]

    def question(self, text: str) -> list[int]:
        """Tokens of a later question, from the one after the answer's end."""
        return self.tokenizer(f"\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")["input_ids"]

    def text(self, tokens: Sequence[int]) -> str:
        """What the tutor is shown, special tokens among it as in training."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=False))

    def pictures(self, played: Sequence[Played]) -> list[Tensor]:
        """What the text model sees of each dialogue's picture, (patches, H)."""
        if new := list(dict.fromkeys(one.picture for one in played if one.picture not in self._pictures)):
            inputs = self.processor.image_processor(images=[open_image(path) for path in new], return_tensors="pt")
            with torch.no_grad():
                self._pictures |= zip(new, self.model.model.get_image_features(**inputs).pooler_output, strict=True)
        return [self._pictures[one.picture] for one in played]

    def hidden(self, ids_BQ: Tensor, place_3BQ: Tensor, pictures: Sequence[Tensor] = (), **past: Any) -> Tensor:
        """Last hidden states (B, Q, H) of tokens at their places; ``past`` is what the text model takes besides."""
        x_BQH = self.model.get_input_embeddings()(ids_BQ)
        if pictures:
            x_BQH = x_BQH.masked_scatter((ids_BQ == self.image)[..., None].expand_as(x_BQH), torch.cat(list(pictures)))
        text = self.model.model.language_model
        return text(inputs_embeds=x_BQH, position_ids=place_3BQ, **past).last_hidden_state

    def places(self, ids: Sequence[int]) -> Tensor:
        """Positions (3, T) for M-RoPE: the square of patches has one time, rows and columns; text goes on behind it."""
        first, patches = ids.index(self.image), ids.count(self.image)
        side = int(patches**0.5)
        place_3T = torch.arange(len(ids)).repeat(3, 1)
        place_3T[:, first + patches :] -= patches - side
        patch = torch.arange(patches)
        place_3T[:, first : first + patches] = first + torch.stack([patch * 0, patch // side, patch % side])
        return place_3T


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
    memory, fresh = _Memory(student), []
    for one in live:
        one.dialogue.open()
        one.ids = student.opening(one.dialogue.seed)
        fresh.append(one.ids)
    pictures = student.pictures(live)
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
    memory: _Memory, last_BH: Tensor, live: Sequence[Played], room: Sequence[int], dice: int | None, said: Answer
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


class _Memory:
    """Keys and values of dialogues that are played in lock-step; a place that a dialogue does not fill is masked."""

    def __init__(self, student: Student) -> None:
        from transformers import DynamicCache

        self.student, self.cache = student, DynamicCache(config=student.model.config.text_config)
        self.filled_BK: Tensor | None = None

    def read(self, ids: Sequence[list[int]], places: Sequence[Tensor], pictures: Sequence[Tensor] = ()) -> Tensor:
        """Hidden states (B, H) of each dialogue's last new token; of one that has none they mean nothing."""
        length = max(map(len, ids))
        new_BQ = torch.tensor([[*row, *[self.student.end] * (length - len(row))] for row in ids])
        place_3BQ = torch.stack([F.pad(place[:, :length], (0, length - place.shape[1])) for place in places], 1)
        count_B = torch.tensor([len(row) for row in ids])
        new_filled_BQ = torch.arange(length) < count_B[:, None]
        old_BK = new_filled_BQ[:, :0] if self.filled_BK is None else self.filled_BK
        self.filled_BK = torch.cat([old_BK, new_filled_BQ], 1)
        ahead_QK = torch.arange(self.filled_BK.shape[1]) > old_BK.shape[1] + torch.arange(length)[:, None]
        seen_B1QK = (self.filled_BK[:, None] & ~ahead_QK)[:, None]
        past = {"attention_mask": {"full_attention": seen_B1QK}, "past_key_values": self.cache, "use_cache": True}
        hidden_BQH = self.student.hidden(new_BQ, place_3BQ, pictures, **past)
        return hidden_BQH[torch.arange(len(ids)), (count_B - 1).clamp(min=0)]

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all others."""
        if self.filled_BK is not None:
            self.filled_BK = self.filled_BK[list(rows)]
            self.cache.batch_select_indices(torch.tensor(rows, dtype=torch.long))


def log_probs(student: Student, played: Sequence[Played]) -> list[Tensor]:
    """Log-probability of each token that the student wrote, a dialogue a tensor."""
    ids_BT = pad_sequence([torch.tensor(one.ids) for one in played], batch_first=True, padding_value=student.end)
    places = [student.places(one.ids) for one in played]
    place_3BT = torch.stack([F.pad(place, (0, ids_BT.shape[1] - place.shape[1])) for place in places], 1)
    hidden_BTH = student.hidden(ids_BT, place_3BT, student.pictures(played), use_cache=False)
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
    return Dialogue(seed, MiniTutor(), max_turns=settings.turns, key=key, special_tokens=special)


def evaluate(student: Student, seeds: Sequence[Seed], settings: Settings, said: Answer = own) -> dict[str, float]:
    """Under adaptive attack, greedily: unbroken attacked dialogues and helpfulness of benign ones in per cent, and the
    attacked ones' mean turn reward; NaN where there is no such dialogue. No dialogue runs out of tokens here."""
    settings = replace(settings, response=sys.maxsize)
    dialogues = [(0, opened(student, seed, settings)) for seed in seeds]
    found: dict[str, list[float]] = {"unbroken": [], "helpfulness": [], "reward": []}
    for one in play(student, dialogues, settings, dice=None, said=said):
        turns, facts = one.dialogue.turns, one.dialogue.seed.facts
        answers = [turn.answer for turn in turns]
        asked = [turn.user.text.replace(IMAGE_MARK, "") for turn in turns]
        marks = [rate(facts, text, answers[at], answers[:at]) for at, text in enumerate(asked)]
        if one.dialogue.seed.kind is DialogueKind.BENIGN:
            found["helpfulness"].append(100 * sum(mark.helpful for mark in marks) / len(marks) / 3)
        else:
            found["unbroken"].append(100.0 * all(mark.harmless >= MarkSettings().fail_below for mark in marks))
            found["reward"] += trajectory_rewards(one.dialogue.trajectory(), settings.reward)
    return {name: float(np.mean(values)) if values else np.nan for name, values in found.items()}


def measure(job: Job, lab: Path) -> Iterator[Measured]:
    """Train and evaluate at the checkpoints; dice are the training seed's.

    Args:
        job: what.
        lab: folder of the runner, which has made ``base/data`` and the seed's ``data`` and ``sft``.
    """
    settings, folder = Settings.of(job.world), lab / f"seed-{job.seed}"
    trained, played = FILES[job.world]
    train = [_leaking(seed, job) for seed in load_seeds(folder / "data" / trained)]
    test = [_leaking(seed, job) for seed in load_seeds(lab / "base" / "data" / played)]
    trainer = Trainer(folder / "sft" / "hf", arm_config(job.arm, job.alpha), settings)
    for step in range(1, CHECKPOINTS[-1] + 1):
        first = (step - 1) * settings.prompts
        trainer.step(step, [train[at % len(train)] for at in range(first, first + settings.prompts)], job.seed)
        if step in CHECKPOINTS:
            shown = test if step == CHECKPOINTS[-1] else [seed for seed in test if seed.kind is not DialogueKind.BENIGN]
            yield Measured(*job, step=step, via="fast", **evaluate(trainer.student, shown, settings))


def _leaking(seed: Seed, job: Job) -> Seed:
    return seed.model_copy(update={"facts": {**seed.facts, RISKY_OFFERS: job.leak}}) if job.world == RISKY else seed


def main() -> None:
    """Evaluate students of the laboratory on the first dialogues of a file: OUT SEEDS LIMIT STUDENT ..."""
    torch.set_num_threads(1)
    out, seeds, limit, *students = sys.argv[1:]
    shown, settings = load_seeds(seeds)[: int(limit)], Settings.of(REACHABLE)
    found = {Path(folder).name: evaluate(Student(Path(folder)), shown, settings)["unbroken"] for folder in students}
    write_whole(Path(out), json.dumps(found))


if __name__ == "__main__":
    main()
