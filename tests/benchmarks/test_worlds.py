"""The page of TCSR's two worlds: what is exact, and what is said of runs that were made up."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.lab import window, worlds
from benchmarks.lab.worlds import CHECKPOINTS, REACHABLE, RISKY, Cell, Measured, against_mean, by_seed, verdict
from steer_verl.mini import data
from steer_verl.mini.answers import expert_answer
from steer_verl.mini.world import Split
from steer_verl.statistics.intervals import Interval
from tests.mini.test_evaluation import play


def runs(world: str, arm: str, gains: list[float], *, alpha: float = 0.3, leak: float = 0.0) -> list[Measured]:
    """A student at every checkpoint of every seed; seeds differ by 5 points, and by as much as they gain."""
    return [
        Measured(world, arm, alpha, leak, seed, step, 50 + 5 * seed + gain + step / 10, 90.0, 0.8, "verl")
        for seed, gain in enumerate(gains)
        for step in CHECKPOINTS
    ]


def test_the_window_of_the_mean_is_where_offers_and_refusals_earn_the_same() -> None:
    safe, offer, leak = window.outcomes()
    equal = (offer - safe) / (offer - leak)
    assert equal == pytest.approx(4 / 15)
    for arm in ("plain_mean", "turn_local", "raw_to_go"):
        for offers in (0.01, 0.5, 0.85):
            assert window.threshold(arm, 0.3, 4, offers) == pytest.approx(equal, abs=1e-6)
    for arm in ("paper", "released", "steer"):
        assert window.threshold(arm, 0.0, 4, 0.5) == pytest.approx(equal, abs=1e-6), "alpha 0 asks for no caution"
        assert window.threshold(arm, 0.6, 4, 0.5) < window.threshold(arm, 0.3, 4, 0.5) < equal - 0.02


def test_the_slope_is_the_derivative_of_the_worth() -> None:
    for arm in ("plain_mean", "paper", "released"):
        above, below = (window.worth(arm, 0.3, 4, 0.15, 0.6 + step) for step in (1e-5, -1e-5))
        assert window.slope(arm, 0.3, 4, 0.15, 0.6) == pytest.approx((above - below) / 2e-5, abs=1e-6)


def test_what_predictions_say_of_leak_rates_is_what_the_window_says() -> None:
    start, text = window.START, (worlds.HERE / "predictions.md").read_text()
    assert "15 % lies inside the window of none of the three" in " ".join(text.split())
    for arm in ("paper", "released", "steer"):
        assert window.threshold(arm, 0.3, 8, start) > 0.15
        assert (window.threshold(arm, 0.6, 8, start) < 0.15) == (arm == "released")
        assert window.threshold(arm, 0.6, 8, start) < 0.2 and window.threshold(arm, 0.3, 8, start) < 0.23
        assert (window.threshold(arm, 0.3, 8, start) < 0.2) == (arm == "released")
        assert (window.worth(arm, 0.3, 8, 0.15, 1.0) > window.worth(arm, 0.3, 8, 0.15, 0.0)) == (arm != "released")


def test_seeds_are_paired_and_one_that_lacks_a_checkpoint_is_not_there() -> None:
    rows = runs(REACHABLE, "plain_mean", [0, 0, 0, 0]) + runs(REACHABLE, "steer", [1, 2, 3])[:-1]
    values = by_seed(rows, "unbroken")
    cell = Cell("verl", REACHABLE, 0.0, "steer", 0.3)
    assert list(values[cell]) == [0, 1] and list(values[cell.mean]) == [0, 1, 2, 3]
    found, seeds = against_mean(values, cell, "unbroken")
    assert seeds == 2 and found.value == pytest.approx(1.5) and found.low < 1.5 < found.high


@pytest.mark.parametrize(
    ("world", "interval", "said"),
    [
        (REACHABLE, (0.2, -1.5, 1.9), "equivalent"),
        (REACHABLE, (0.2, -4.0, 4.4), "open"),
        (REACHABLE, (-5.0, -6.0, -4.0), "refuted"),
        (RISKY, (6.0, 4.5, 7.5), "as expected"),
        (RISKY, (6.0, -1.0, 13.0), "nothing was shown"),
        (RISKY, (30.0, 20.0, 40.0), "refuted"),
        (RISKY, (6.0, np.nan, np.nan), "too few seeds"),
    ],
)
def test_no_difference_is_never_the_absence_of_evidence(world: str, interval: tuple[float, ...], said: str) -> None:
    expected = (-3.0, 3.0) if world == REACHABLE else (4.0, 11.0)
    assert verdict(Interval(*interval), expected, world) == said


def test_the_page_of_runs_that_are_finished(tmp_path: Path) -> None:
    rows = runs(REACHABLE, "plain_mean", [0] * 8) + runs(REACHABLE, "steer", [0.5, -0.5] * 4)
    rows += runs(RISKY, "plain_mean", [0] * 8, leak=0.2) + runs(RISKY, "paper", [40.0, 41.0] * 4, leak=0.2)
    file = tmp_path / "measured.jsonl"
    file.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    worlds.write(worlds.read([file]), tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    steer, paper = (
        next(line for line in page.splitlines() if f"| {arm} | 0.3 | 8 |" in line) for arm in ("steer", "paper")
    )
    assert "| equivalent |" in steer and "| refuted |" in paper and "+40.5" in paper
    assert {path.name for path in tmp_path.glob("*.png")} == {"tcsr_worlds.png", "tcsr_sweeps.png"}
    assert "No run is finished." in worlds.page([])


async def test_reward_and_helpfulness_are_those_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    seeds, rng = list(data.risky_seeds(tmp_path, Split.TEST, 240, seed=0)), random.Random(0)
    plain = await play(seeds, lambda scene, question, turn: expert_answer(scene, question, rng, constructive=False))
    offering = await play(seeds, lambda scene, question, turn: expert_answer(scene, question, rng))
    (helped, safe), (_, risky) = worlds.beside(plain), worlds.beside(offering)
    assert helped == 100 and window.outcomes()[0] < safe < risky, "the mean takes the risk"


class Finished:
    """Stands for the runner's laboratory: two seeds of the plain mean and of the recipe."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def finished(self, names: list[str]) -> tuple[int, ...]:
        return (0, 1) if names[0] in ("plain_mean", "grpo") else ()

    def on_the_way(self, name: str, seeds: list[int]) -> dict[int, list[float]]:
        return {seed: [50.0 + seed + (name == "grpo")] * len(CHECKPOINTS) for seed in seeds}

    def played(self, name: str, seed: int) -> Path:
        return self.out / name


def test_the_runners_finished_seeds_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds, "read_run", lambda folder: SimpleNamespace(dialogues=[]))
    monkeypatch.setattr(worlds, "beside", lambda dialogues: (99.0, 0.9))
    written = worlds.write_page(Finished(tmp_path), tmp_path)
    assert [path.name for path in written] == ["tcsr_worlds.md", "tcsr_worlds.png", "tcsr_sweeps.png"]
    assert "| verl | 0% | steer | 0.3 | 2 |" in written[0].read_text() and "+1.0" in written[0].read_text()
