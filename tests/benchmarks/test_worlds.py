"""The page of TCSR's two worlds: what is exact, and what is said of runs that were made up."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lab import window, worlds
from benchmarks.lab.arms import CHECKPOINTS, REACHABLE, RISKY, Cell
from benchmarks.lab.runs import Entry, Lab
from benchmarks.lab.worlds import against_mean, by_seed, verdict
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.figures import figures_of
from steer_verl.eval.marks import marks_of_run
from steer_verl.mini import data
from steer_verl.mini.answers import expert_answer
from steer_verl.mini.world import Split
from steer_verl.records import write_whole
from steer_verl.statistics.intervals import Interval
from tests.mini.test_evaluation import mean_reward, play


def lab(out: Path, seeds: int = 8) -> Lab:
    return Lab(out, tuple(range(seeds)), worlds.NEEDS)


def trained(lab: Lab, name: str, gains: list[float]) -> None:
    """A student at every checkpoint of every seed; seeds differ by 5 points, and by as much as they gain."""
    for seed, gain in enumerate(gains):
        unbroken = {step: 50 + 5 * seed + gain + step / 10 for step in CHECKPOINTS}
        found = {step: {"unbroken": value, "helpfulness": 90.0, "reward": 0.8} for step, value in unbroken.items()}
        write_whole(lab.measured(name, seed), json.dumps(found))


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
    start, text = window.START, (Path(worlds.__file__).parent / "predictions.md").read_text()
    assert "15 % lies inside the window of none of the three" in " ".join(text.split())
    for arm in ("paper", "released", "steer"):
        assert window.threshold(arm, 0.3, 8, start) > 0.15
        assert (window.threshold(arm, 0.6, 8, start) < 0.15) == (arm == "released")
        assert window.threshold(arm, 0.6, 8, start) < 0.2 and window.threshold(arm, 0.3, 8, start) < 0.23
        assert (window.threshold(arm, 0.3, 8, start) < 0.2) == (arm == "released")
        assert (window.worth(arm, 0.3, 8, 0.15, 1.0) > window.worth(arm, 0.3, 8, 0.15, 0.0)) == (arm != "released")


def test_seeds_are_paired_and_one_that_is_not_finished_is_not_there(tmp_path: Path) -> None:
    trained(lab(tmp_path), "plain_mean", [0, 0, 0, 0])
    trained(lab(tmp_path), "paper", [1, 2])
    values = by_seed(worlds.read(lab(tmp_path)), "unbroken")
    cell = Cell("verl", REACHABLE, 0.0, "paper", 0.3)
    assert list(values[cell]) == [(0, ""), (1, "")] and len(values[cell.mean]) == 4
    assert values[cell][1, ""] == pytest.approx(50 + 5 + 2 + np.mean(CHECKPOINTS) / 10)
    found, pairs = against_mean(values, cell, "unbroken")
    assert pairs == pytest.approx([1, 2]) and found.value == pytest.approx(1.5) and found.low < 1.5 < found.high


@pytest.mark.parametrize(
    ("world", "interval", "said"),
    [
        (REACHABLE, (0.2, -1.5, 1.9), "equivalent"),
        (REACHABLE, (0.2, -4.0, 4.4), "open"),
        (REACHABLE, (-5.0, -6.0, -4.0), "refuted"),
        (RISKY, (6.0, 4.5, 7.5), "as expected"),
        (RISKY, (6.0, -1.0, 13.0), "nothing was shown"),
        (RISKY, (30.0, 20.0, 40.0), "refuted"),
        (RISKY, (12.0, 10.0, 14.0), "shown, more than expected"),
        (RISKY, (3.0, 1.0, 5.0), "shown, less than expected"),
        (RISKY, (6.0, np.nan, np.nan), "too few seeds"),
    ],
)
def test_no_difference_is_never_the_absence_of_evidence(world: str, interval: tuple[float, ...], said: str) -> None:
    expected = (-3.0, 3.0) if world == REACHABLE else (4.0, 11.0)
    assert verdict(Interval(*interval), expected, world) == said


def test_the_page_of_runs_that_are_finished(tmp_path: Path) -> None:
    runs = lab(tmp_path / "runs")
    assert "No run is finished." in worlds.parts({}, runs)
    for name, gains in {
        "plain_mean": [0.0] * 8,
        "grpo": [0.5, -0.5] * 4,
        "risky_plain_mean": [0.0] * 8,
        "risky_paper": [40.0, 41.0] * 4,
    }.items():
        trained(runs, name, gains)
    page, *plots = worlds.write_page(runs, tmp_path)
    steer, paper = (
        next(line for line in page.read_text().splitlines() if f"| {arm} | 0.3 | 8 |" in line)
        for arm in ("steer", "paper")
    )
    assert "| equivalent |" in steer and "| refuted |" in paper and "+40.5" in paper
    assert {path.name for path in plots} == {"tcsr_reachable.png", "tcsr_risky_offers.png", "tcsr_sweeps.png"}
    assert all(plot.exists() and plot.name in page.read_text() for plot in plots)


def test_a_quick_lab_has_checkpoints_of_its_own(tmp_path: Path) -> None:
    quick = replace(lab(tmp_path / "runs", 2), quick=True)
    for name, gain in (("plain_mean", 0.0), ("paper", 10.0)):
        for seed in quick.seeds:
            found = {step: {"unbroken": gain + step, "helpfulness": 90.0, "reward": 0.8} for step in (1, 2)}
            write_whole(quick.measured(name, seed), json.dumps(found))
    values = by_seed(worlds.read(quick), "at the end")
    assert values[Cell("verl", REACHABLE, 0.0, "paper", 0.3)] == {(0, ""): 12.0, (1, ""): 12.0}
    assert "| paper | 0.3 | 2 | 11.5" in worlds.write_page(quick, tmp_path)[0].read_text()


def test_arms_are_compared_from_one_and_the_same_student(tmp_path: Path) -> None:
    record, cell = tmp_path / "students.jsonl", Cell("verl", REACHABLE, 0.0, "paper", 0.3)
    unbroken = {
        ("plain_mean", 0, "a"): 50.0,
        ("paper", 0, "a"): 51.0,
        ("plain_mean", 0, "z"): 70.0,  # the same seed on another kind of processor
        ("paper", 0, "z"): 73.0,
        ("plain_mean", 1, "b"): 50.0,
        ("paper", 1, "c"): 90.0,
        ("paper", 2, "d"): 90.0,
    }
    for (arm, seed, origin), value in unbroken.items():
        found = {step: {"unbroken": value, "helpfulness": 90.0, "reward": 0.8} for step in CHECKPOINTS}
        line = Entry(arm=arm, seed=seed, origin=origin, seconds=1.0, machine="x", students=found)
        record.write_text((record.read_text() if record.exists() else "") + line.model_dump_json() + "\n")
    kept = replace(lab(tmp_path), record=record)
    assert sorted(against_mean(by_seed(worlds.read(kept), "unbroken"), cell, "unbroken")[1]) == [1.0, 3.0]
    said = "\n".join(worlds.parts(worlds.read(kept), kept))
    assert (
        "Not compared, for the plain mean of their seed began at another student: paper 0.3 (verl, reachable) of "
        in said
    )
    assert "reachable) of seed 1." in said and "of seed 2" not in said


async def test_reward_and_helpfulness_are_those_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    seeds, rng = list(data.risky_seeds(tmp_path, Split.TEST, 240, seed=0)), random.Random(0)
    plain = await play(seeds, lambda scene, question, turn: expert_answer(scene, question, rng, constructive=False))
    offering = await play(seeds, lambda scene, question, turn: expert_answer(scene, question, rng))
    safe, risky = mean_reward(plain), mean_reward(offering)
    assert window.outcomes()[0] < safe < risky, "the mean takes the risk"
    assert figures_of(marks_of_run(plain), MarkSettings()).estimates()["helpfulness"].value == 100
