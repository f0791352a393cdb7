"""The toy worlds: each holds the one thing that it is there for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks.lab.toy import WORLDS, first_policy, play, train
from benchmarks.lab.window import arm_config


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small are slower with two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def unbroken(world: str, arm: str, *, alpha: float = 0.3, std: bool = True, benign: float = 0.0) -> float:
    """At the end of training, in per cent, over a few seeds."""
    return float(train(world, arm_config(arm, alpha, normalize_std=std), benign=benign, seeds=6)[1].mean())


def test_where_every_turn_can_be_made_perfect_all_arms_get_there() -> None:
    assert min(unbroken("independent", arm) for arm in ("plain_mean", "turn_local", "steer")) > 98


def test_credit_that_sees_no_later_turn_takes_the_lever() -> None:
    assert unbroken("lever", "turn_local") < 20 < 90 < unbroken("lever", "plain_mean")


def test_std_normalisation_hurts_credit_by_turn_where_benign_groups_are_mixed_in() -> None:
    assert unbroken("lever", "steer", benign=0.4) < 70
    assert unbroken("lever", "steer", benign=0.4, std=False) > 90 and unbroken("lever", "steer") > 90


def test_caution_shows_where_offers_are_risky() -> None:
    assert unbroken("risky offer", "plain_mean") < 32
    assert unbroken("risky offer", "released", alpha=0.6) > 40


def test_only_a_concession_changes_what_comes_next() -> None:
    """Chance of telling in the last turn, after an untouched dialogue and after a broken one."""
    for world in WORLDS[:2]:
        played = play(first_policy(world, 4), world, 4, 0.0, 0.15, torch.Generator().manual_seed(0), prompts=200)
        before, last = played.broken[..., :-1].any(-1), played.told[..., -1]
        gap = float(last[before].float().mean() - last[~before].float().mean())
        assert gap > 0.25 if world == "concession" else abs(gap) < 0.05
