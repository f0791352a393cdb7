"""Every way in which a tutor fails x where in a dialogue x how many of the group x how often, by the real rollout.

One cell is a group of :data:`MEMBERS` dialogues of :data:`TURNS` turns: verl's agent loop base class, processor and
token builder, our loop, environment, tutor, reward manager's arithmetic and estimator, and a real HTTP server that
fails on purpose. Only the engine is scripted: member m always says the same at turn t, and the server's verdict depends
on (m, t) alone, so that a fault is the only thing that tells a run from the fault-free one.

A member that is lost is out of its group: the others' advantages are those of the fault-free group without it, bit for
bit. The server does not stream, so that a question is there when its reply is; a verdict that fails beside a good
question is asked for again alone, and the dialogue goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import Counter, defaultdict
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

MEMBERS, TURNS = 4, 4
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
GOES_ON = {"schema", "out_of_range"}
"""The reply is of no use as a verdict, and brings a question."""
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

    @property
    def lost(self) -> tuple[int, ...]:
        """Members that are out of their group in the end."""
        return () if self.passes else self.targets

    @property
    def asked(self) -> list[str]:
        """The tasks of the requests for the turn that is hit, one after the other."""
        times = 1 + (RETRIES if self.reason in RETRIED else REASKS if self.reason in REASKED else 0)
        if not self.for_ever:
            times = min(times, 2)
        if self.where == "last":
            return ["score"] * times
        return ["both"] + ["score" if self.reason in GOES_ON else "both"] * (times - 1)


def cells() -> Iterator[Cell]:
    """The matrix."""
    for parts in itertools.product([*FAULTS, *UNUSABLE], PLACES, (False, True), (False, True)):
        yield Cell(*parts)


@dataclass
class Outcome:
    """What a group came to."""

    trajectories: list[Trajectory]
    fields: list[dict[str, Any]]
    """Of each member, what verl makes of its output."""
    ends: list[list[int]]
    """Of each member, where its turns end."""
    rewards: list[list[float]]
    """Of each member, by turn; none for a lost one."""
    advantages: list[list[float]]
    """Of each member, at its turns' ends."""
    asked: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    """Of each member and turn, the tasks that the server was asked for."""
    injected: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    log: list[Attempt] = field(default_factory=list)


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
    asked: dict[tuple[int, int], list[str]] = defaultdict(list)

    def choose(request: Request) -> Step:
        member, turn = place_of(request)
        asked[member, turn] += re.findall(r"JSON object for (\w+)\.", request.text)
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
        try:
            outputs = await asyncio.gather(*(_member(tutor, processor, m) for m in range(MEMBERS)))
        finally:
            await tutor.close()
    outcome = _rewarded(outputs)
    outcome.injected, outcome.requests = server.injected, server.requests
    outcome.log, outcome.asked = list(read_log(folder)), asked
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
        rewards.append(trajectory_rewards(trajectory, RewardConfig()))
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
        fields=fields,
        ends=ends,
        rewards=rewards,
        advantages=[found[line, torch.tensor(at, dtype=torch.long)].tolist() for line, at in enumerate(ends)],
    )


def expected(cell: Cell, clean: Outcome) -> list[list[float]]:
    """Advantages of the fault-free group less the members that the fault loses, who have none."""
    stay = [member for member in range(MEMBERS) if member not in cell.lost]
    if not stay:
        return [[] for _ in range(MEMBERS)]
    fewer = advantages(
        [clean.trajectories[m] for m in stay],
        [clean.fields[m] for m in stay],
        [clean.ends[m] for m in stay],
        [clean.rewards[m] for m in stay],
    )
    found = dict(zip(stay, fewer.advantages, strict=True))
    return [found.get(member, []) for member in range(MEMBERS)]


def faults_of(cell: Cell, clean: Outcome, outcome: Outcome) -> list[str]:
    """What is wrong with a group's outcome, in words; nothing when it is as it must be."""
    wrong: list[str] = []

    def must(truth: bool, what: str) -> None:
        if not truth:
            wrong.append(what)

    for member, (trajectory, before) in enumerate(zip(outcome.trajectories, clean.trajectories, strict=True)):
        said, known = ([t.verdict for t in played.turns] for played in (trajectory, before))
        if member not in cell.lost:
            must(said == known, f"{member}: scores")
            must(outcome.rewards[member] == clean.rewards[member], f"{member}: rewards")
            must((trajectory.stop, trajectory.lost) == (before.stop, ""), f"{member}: {trajectory.stop}")
            continue
        most = TURNS if cell.reason in GOES_ON else cell.turn + 1
        must(cell.turn < len(said) <= most, f"{member}: {len(said)} turns, at most {most} foreseen")
        must((trajectory.stop.value, trajectory.lost) == ("unscored", cell.reason), f"{member}: {trajectory.lost}")
        must(getattr(said[cell.turn], "reason", None) == cell.reason, f"{member}: {said[cell.turn]}")
        others = [n for n in range(len(said)) if n != cell.turn]
        must([said[n] for n in others] == [known[n] for n in others], f"{member}: the other turns' scores")
        fields = outcome.fields[member]
        must(fields["response_mask"].tolist() == [0] and fields["rm_scores"].tolist() == [0], f"{member}: has a loss")
        must(not outcome.rewards[member], f"{member}: lost, but rewarded")
    if cell.reason in UNUSABLE and cell.where != "last":
        for member in cell.targets:
            asked = outcome.trajectories[member].turns[cell.turn + 1]
            must(asked.origin.value == "fallback" and getattr(asked.fallback, "value", "") == cell.reason, "fallback")
    for ours, theirs in zip(outcome.advantages, expected(cell, clean), strict=True):
        must(ours == theirs, f"advantages {ours} {theirs}")  # bit for bit
    _count(cell, outcome, must)
    return wrong


def _count(cell: Cell, outcome: Outcome, must: Any) -> None:
    attempts = outcome.log
    for member, trajectory in enumerate(outcome.trajectories):
        for number in range(len(trajectory.turns)):
            hit = member in cell.targets and number == cell.turn
            foreseen = cell.asked if hit else ["score" if number == TURNS - 1 else "both"]
            asked = outcome.asked[member, number]
            must(asked == foreseen, f"{member}: turn {number} is asked for as {asked}, {foreseen} foreseen")
    turns = sum(len(trajectory.turns) for trajectory in outcome.trajectories)
    must(len(outcome.asked) == turns == len({attempt.turn_key for attempt in attempts}), "turns that nobody played")
    must(len(attempts) == outcome.requests, f"{len(attempts)} attempts in the log, {outcome.requests} at the server")
    used = sum(turn.usage.requests for trajectory in outcome.trajectories for turn in trajectory.turns)
    must(used == outcome.requests, f"usage counts {used} requests, the server {outcome.requests}")
    hit = outcome.injected["injected"]
    foreseen = (len(cell.asked) if cell.for_ever else 1) * len(cell.targets)
    must(hit == foreseen, f"{hit} faults injected, {foreseen} foreseen")
    told = Counter(line.outcome if isinstance(line.outcome, str) else line.outcome.value for line in attempts)
    if cell.reason in RETRIED | {"http_4xx"}:
        must(told[cell.reason] == hit, f"the log tells of {told}, {hit} were injected")
