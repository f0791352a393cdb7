"""Every way in which a tutor fails x where in a dialogue x how many of the group x how often, by the real rollout.

One cell is a group of :data:`MEMBERS` dialogues of :data:`TURNS` turns: verl's agent loop base class, processor and
token builder, our loop, environment, tutor, reward manager's arithmetic and estimator, and a real HTTP server that
fails on purpose. Only the engine is scripted: member m always says the same at turn t, and the server's verdict depends
on (m, t) alone, so that a fault is the only thing that tells a run from the fault-free one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steer_verl.config import RewardConfig, TutorConfig
from steer_verl.models.log import Attempt, read_log
from steer_verl.rewards import trajectory_rewards
from steer_verl.tcsr import compute_tcsr_advantage
from steer_verl.tutor.client import OpenAITutor
from steer_verl.types import Seed, Trajectory, UserTurn
from tests.models.fault_server import (
    FaultServer,
    Request,
    Step,
    dropped,
    filtered,
    flood,
    good,
    refuses,
    says,
    slow,
    status,
)
from tests.rollout.test_agent_loop import make_loop, row
from tests.tutor.conftest import config_for, instant

MEMBERS, TURNS, MIN_SCORED = 4, 4, 2
RETRIES, REASKS = 2, 1
SILENCE = 1.0
"""Seconds after which an attempt is given up, in the cells where the server is silent."""
COLOURS = ("red", "blue", "green", "yellow")
"""The word by which the server knows a member."""

FAULTS: dict[str, Step] = {
    "connect": dropped(),
    "timeout": slow(60.0),
    "http_429": status(429, retry_after=0),
    "http_5xx": status(503),
    "http_4xx": status(418),
    "content_filter": filtered(),
    "tutor_refusal": refuses(),
    "length": flood(),
    "bad_json": says("Safety: ten out of ten.", kind="bad_json"),
    "schema": good({"safety": 10, "usefulness": 10}),
    "out_of_range": good((11, 10, 10)),
}
UNUSABLE = {"attack_missing": "  ", "attack_refused": "I'm sorry, but I can't help with that."}
"""Questions beside a good verdict."""
RETRIED = {"connect", "timeout", "http_429", "http_5xx"}
REASKED = {"length", "bad_json", "schema", "out_of_range"}
PLACES = {"first": 0, "middle": 2, "last": TURNS - 1}


@dataclass(frozen=True)
class Cell:
    """One fault, somewhere."""

    reason: str
    where: str
    whole_group: bool
    for_ever: bool

    @property
    def targets(self) -> tuple[int, ...]:
        """Members that it hits."""
        return tuple(range(MEMBERS)) if self.whole_group else (1,)

    @property
    def turn(self) -> int:
        """From 0."""
        return PLACES[self.where]

    @property
    def passes(self) -> bool:
        """Whether the score is there in the end."""
        return self.reason in UNUSABLE or (not self.for_ever and self.reason in RETRIED | REASKED)


def cells() -> Iterator[Cell]:
    """The matrix."""
    for parts in itertools.product([*FAULTS, *UNUSABLE], PLACES, (False, True), (False, True)):
        yield Cell(*parts)


@dataclass
class Outcome:
    """What a group came to."""

    trajectories: list[Trajectory]
    masks: list[list[int]]
    rewards: list[list[float]]
    """Of each member, by scored turn; none for an invalid one."""
    advantages: list[list[float]]
    """Of each member, at its scored turns' ends."""
    injected: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    log: list[Attempt] = field(default_factory=list)
    seconds: float = 0.0


class Engine:
    """Member ``session`` says the same words at the same turn, whatever it was asked."""

    def __init__(self, tokenizer: Any, session: int) -> None:
        self.tokenizer, self.session = tokenizer, session
        self.turn = 0

    async def generate(self, request_id: str, **call: Any) -> Any:
        from verl.workers.rollout.replica import TokenOutput

        words = "the " * self.turn + f"{COLOURS[self.session]} circle is dry."
        self.turn += 1
        ids = [*self.tokenizer.encode(words, add_special_tokens=False), self.tokenizer.eos_token_id]
        return TokenOutput(
            token_ids=ids, log_probs=[-1.0] * len(ids), extra_fields={"min_global_steps": 0, "max_global_steps": 0}
        )


def verdict(member: int, turn: int) -> tuple[int, int, int]:
    """What the server thinks of an answer: different for members and turns."""
    return ((10, 10, 10), (8, 8, 9), (6, 8, 7), (4, 1, 8), (1, 1, 10))[(2 * member + turn) % 5]


def place_of(request: Request) -> tuple[int, int]:
    """(member, turn from 0) of a request, by what it says."""
    turn = max(int(number) for number in re.findall(r"answer (\d+)>>", request.text)) - 1
    member = next(m for m, colour in enumerate(COLOURS) if f"{colour} circle" in request.text)
    return member, turn


async def play(cell: Cell | None, processor: Any, folder: Path) -> Outcome:
    """A group with a fault, or without."""
    hits: Counter[tuple[int, int]] = Counter()

    def choose(request: Request) -> Step:
        member, turn = place_of(request)
        question = f"And what else about part {member} {turn}?"
        step = good(verdict(member, turn), new_question=question)
        if cell is None or member not in cell.targets or turn != cell.turn:
            return step
        hits[member, turn] += 1
        if hits[member, turn] > 1 and not cell.for_ever:
            return step
        unusable = good(verdict(member, turn), new_question=UNUSABLE.get(cell.reason, ""))
        return Step("injected", FAULTS.get(cell.reason, unusable).act)

    silent = cell is not None and cell.reason == "timeout"
    async with FaultServer(choose=choose) as server:
        config = config_for(
            server,
            read_timeout=SILENCE if silent else None,
            max_retries=RETRIES,
            reasks=REASKS,
            breaker={"failures": 100},
        )
        tutor = OpenAITutor(TutorConfig(endpoint=config, log=str(folder)))
        instant(tutor)
        start = time.perf_counter()
        try:
            outputs = await asyncio.gather(*(_member(tutor, processor, m) for m in range(MEMBERS)))
        finally:
            await tutor.close()
        seconds = time.perf_counter() - start
    outcome = _rewarded(outputs)
    outcome.injected, outcome.requests, outcome.seconds = server.injected, server.requests, seconds
    outcome.log = list(read_log(folder))
    return outcome


async def _member(tutor: OpenAITutor, processor: Any, session: int) -> Any:
    loop = make_loop(processor, tutor, engine=Engine(processor.tokenizer, session), max_answer_tokens=24)  # type: ignore[arg-type]
    seed = Seed(id="s", turns=tuple(UserTurn(text=f"plain question {t}") for t in range(TURNS)))
    return await loop.run({}, **row(seed, session_id=session))


def _rewarded(outputs: list[Any]) -> Outcome:
    """Rewards on turn ends, as the reward manager and the agent loop lay them, and the group's advantages."""
    trajectories = [Trajectory.model_validate_json(output.extra_fields["trajectory"]) for output in outputs]
    rewards = []
    for output, trajectory in zip(outputs, trajectories, strict=True):
        valid = trajectory.valid
        rewards.append(trajectory_rewards(trajectory, RewardConfig()) if valid else [])
        output.reward_score, output.extra_fields["reward_extra_info"] = 0.0, {"turn_rewards": rewards[-1]}
    return advantages(
        trajectories, [o.as_dict() for o in outputs], [[stop - 1 for _, stop in o.turn_spans] for o in outputs], rewards
    )


def advantages(
    trajectories: list[Trajectory], fields: list[dict[str, Any]], ends: list[list[int]], rewards: list[list[float]]
) -> Outcome:
    """The estimator on a padded group."""
    width = max(len(f["response_mask"]) for f in fields)
    mask, scores = torch.zeros(len(fields), width), torch.zeros(len(fields), width)
    for line, f in enumerate(fields):
        mask[line, : len(f["response_mask"])] = f["response_mask"].float()
        scores[line, : len(f["rm_scores"])] = f["rm_scores"]
    found, _ = compute_tcsr_advantage(scores, mask, np.array(["u"] * len(fields)), None)
    return Outcome(
        trajectories=trajectories,
        masks=[f["response_mask"].tolist() for f in fields],
        rewards=rewards,
        advantages=[found[line, torch.tensor(at, dtype=torch.long)].tolist() for line, at in enumerate(ends)],
    )


def expected(cell: Cell, clean: Outcome) -> list[list[float]]:
    """Advantages by a twin: the fault-free rewards, cut where the fault ended a dialogue, less the invalid members."""
    rewards = [list(member) for member in clean.rewards]
    for member in () if cell.passes else cell.targets:
        scored = rewards[member][: cell.turn]
        rewards[member] = scored if len(scored) >= MIN_SCORED else []
    width = max((len(member) for member in rewards), default=0) or 1
    mask, scores = torch.zeros(MEMBERS, 2 * width), torch.zeros(MEMBERS, 2 * width)
    for line, member in enumerate(rewards):
        at = torch.arange(len(member)) * 2  # turns of one token, with one of the user's between them
        mask[line, at], scores[line, at] = 1.0, torch.tensor(member)
    found, _ = compute_tcsr_advantage(scores, mask, np.array(["u"] * MEMBERS), None)
    return [found[line, torch.arange(len(member)) * 2].tolist() for line, member in enumerate(rewards)]


def faults_of(cell: Cell, clean: Outcome, outcome: Outcome) -> list[str]:
    """What is wrong with a group's outcome, in words; nothing when it is as it must be."""
    wrong: list[str] = []

    def must(truth: bool, what: str) -> None:
        if not truth:
            wrong.append(what)

    for member, (trajectory, before) in enumerate(zip(outcome.trajectories, clean.trajectories, strict=True)):
        if member not in cell.targets or cell.passes:
            must([t.verdict for t in trajectory.turns] == [t.verdict for t in before.turns], f"{member}: scores")
            must(outcome.rewards[member] == clean.rewards[member], f"{member}: rewards")
            continue
        last = trajectory.turns[-1].verdict
        must(len(trajectory.turns) == cell.turn + 1 and trajectory.stop.value == "unscored", f"{member}: goes on")
        must(getattr(last, "reason", None) == cell.reason, f"{member}: {last}")
        must([t.verdict for t in trajectory.turns[:-1]] == [t.verdict for t in before.turns[: cell.turn]], "history")
        if cell.turn < MIN_SCORED:
            must(not any(outcome.masks[member]) and not outcome.rewards[member], f"{member}: invalid, but has a mask")
    if cell.reason in UNUSABLE and cell.where != "last":
        for member in cell.targets:
            asked = outcome.trajectories[member].turns[cell.turn + 1]
            must(asked.origin.value == "fallback" and getattr(asked.fallback, "value", "") == cell.reason, "fallback")
    for ours, theirs in zip(outcome.advantages, expected(cell, clean), strict=True):
        must(len(ours) == len(theirs) and np.allclose(ours, theirs, atol=1e-5), f"advantages {ours} {theirs}")
    _count(cell, outcome, must)
    return wrong


def _count(cell: Cell, outcome: Outcome, must: Any) -> None:
    attempts = outcome.log
    turns = sum(len(trajectory.turns) for trajectory in outcome.trajectories)
    asked = {attempt.turn_key for attempt in attempts}
    must(len(asked) == turns, f"{len(asked)} turns in the log, {turns} played")
    must(len(attempts) == outcome.requests, f"{len(attempts)} attempts in the log, {outcome.requests} at the server")
    used = sum(turn.usage.requests for trajectory in outcome.trajectories for turn in trajectory.turns)
    must(used == outcome.requests, f"usage counts {used} requests, the server {outcome.requests}")
    each = Counter(line.turn_key for line in attempts)
    most = 1 + RETRIES if cell.reason in RETRIED else 1 + REASKS
    must(max(each.values()) <= most, f"{max(each.values())} attempts for one turn")
    hit = outcome.injected["injected"]
    if not cell.for_ever:
        must(hit == len(cell.targets), f"{hit} faults injected")
    else:
        per = 1 + (RETRIES if cell.reason in RETRIED else REASKS if cell.reason in REASKED else 0)
        must(hit == per * len(cell.targets), f"{hit} faults injected, {per} x {len(cell.targets)} foreseen")
    told = Counter(line.outcome if isinstance(line.outcome, str) else line.outcome.value for line in attempts)
    if cell.reason in RETRIED | {"http_4xx"}:
        must(told[cell.reason] == hit, f"the log tells of {told}, {hit} were injected")


def as_row(cell: Cell, outcome: Outcome) -> dict[str, Any]:
    """For a table."""
    return {**json.loads(json.dumps(cell.__dict__)), "requests": outcome.requests, "seconds": outcome.seconds}
