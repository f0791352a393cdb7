"""TCSR in plain Python, one member and one turn at a time, and the generated batches that it is compared on."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from steer_verl.config import TcsrConfig
from steer_verl.tcsr import tcsr_advantage


@dataclass
class Batch:
    """A batch and the turn rewards that it was laid out from; ``rewards[b]`` is empty for an invalid member."""

    uids: list[str]
    rewards: list[list[float]]
    spans: list[list[tuple[int, int]]]
    tokens: int = 64

    def tensors(
        self, dtype: torch.dtype = torch.float64, noise: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        """Rewards, mask and uids as verl hands them over; ``noise`` puts NaN wherever no reward stands."""
        mask = torch.zeros(len(self.uids), self.tokens, dtype=torch.int64)
        rewards = torch.full(mask.shape, math.nan if noise else 0.0, dtype=dtype)
        for row, (values, spans) in enumerate(zip(self.rewards, self.spans, strict=True)):
            for value, (start, stop) in zip(values, spans, strict=True):
                mask[row, start:stop] = 1
                rewards[row, stop - 1] = value
        return rewards, mask, np.array(self.uids, dtype=object)


def lay_out(uids: list[str], rewards: list[list[float]], rng: random.Random | None = None, tokens: int = 64) -> Batch:
    """Turns of random length, one token at least, as there is between them; the last may end at the very edge."""
    rng = rng or random.Random(0)
    spans = []
    for values in rewards:
        cuts = sorted(rng.sample(range(tokens + 1), 2 * len(values)))
        spans.append(list(zip(cuts[0::2], cuts[1::2], strict=True)))
    return Batch(uids, rewards, spans, tokens)


def random_batch(rng: random.Random, groups: int = 12) -> Batch:
    """Interleaved groups of 1-6 members of 0-9 turns; a third of the members on a grid, so that ties are common."""
    members: list[tuple[str, list[float]]] = []
    for group in range(groups):
        tied = rng.random() < 0.15
        for _ in range(rng.randint(1, 6)):
            turns = 0 if rng.random() < 0.15 else rng.randint(1, 9)
            coarse = rng.random() < 0.33
            draws = [rng.choice((0.0, 0.5, 1.0)) if coarse else rng.random() for _ in range(turns)]
            members.append((f"uid{group}", [0.7] * turns if tied else draws))
    rng.shuffle(members)
    return lay_out([uid for uid, _ in members], [rewards for _, rewards in members], rng)


# The twin: one member and one turn at a time, straight from the definition.


def fmean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def variance(values: Sequence[float]) -> float:
    centre = fmean(values)
    return math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1)


def twin_to_go(rewards: list[float], config: TcsrConfig) -> list[float]:
    shaped = [
        config.alpha * min(rewards[: t + 1]) + (1 - config.alpha) * fmean(rewards[: t + 1]) for t in range(len(rewards))
    ]
    shaped = {"prefix": shaped, "trajectory": shaped[-1:] * len(shaped), "none": rewards}[config.shaping]
    aggregate = {"sum": math.fsum, "mean": fmean, "last": lambda v: v[-1], "own": lambda v: v[0]}[config.aggregation]
    to_go = [aggregate(shaped[t:]) for t in range(len(shaped))]
    return to_go[:1] * len(to_go) if config.credit == "trajectory" else to_go


def twin_advantages(batch: Batch, config: TcsrConfig) -> list[list[float]]:
    """Per member and turn."""
    to_go = [twin_to_go(rewards, config) for rewards in batch.rewards]
    advantages: list[list[float]] = [[0.0] * len(g) for g in to_go]
    for uid in set(batch.uids):
        group = [b for b, other in enumerate(batch.uids) if other == uid and to_go[b]]
        if len(group) < 2:
            continue
        depth = 1 if config.credit == "trajectory" else max(len(to_go[b]) for b in group)
        columns = [[to_go[b][min(t, len(to_go[b]) - 1)] for b in group] for t in range(depth)]
        scale = math.sqrt(fmean([variance(column) for column in columns]))
        for b in group:
            for t, value in enumerate(to_go[b]):
                centred = value - fmean(columns[min(t, depth - 1)])
                if scale > 1e-8:
                    advantages[b][t] = centred / (scale + 1e-6) if config.normalize_std else centred
    return advantages


def on_tokens(batch: Batch, values: list[list[float]]) -> torch.Tensor:
    tokens = torch.zeros(len(batch.uids), batch.tokens, dtype=torch.float64)
    for row, (spans, own) in enumerate(zip(batch.spans, values, strict=True)):
        for (start, stop), value in zip(spans, own, strict=True):
            tokens[row, start:stop] = value
    return tokens


def advantages_of(config: TcsrConfig, *rewards: list[float]) -> torch.Tensor:
    """Advantages (B, N) of one group of dialogues of one token a turn, padded with 0."""
    longest = max(map(len, rewards))
    mask = torch.zeros(len(rewards), 2 * longest)
    tokens = torch.zeros(len(rewards), 2 * longest, dtype=torch.float64)
    for row, values in enumerate(rewards):
        mask[row, : 2 * len(values) : 2] = 1
        tokens[row, : 2 * len(values) : 2] = torch.tensor(values, dtype=torch.float64)
    return tcsr_advantage(tokens, mask, ["u"] * len(rewards), config)[0][:, ::2]
