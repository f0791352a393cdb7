"""The ablations' page from marks on disk: what it concludes, and that it concludes no more than the intervals allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.ablation_page import PARTS, change, mean, page, plot, read, students, verdict
from steer_verl.demo.ablations import FULL, STUDENTS, Ablations, finished
from tests.eval.evaluations import evaluation


@pytest.fixture
def run(tmp_path: Path) -> Ablations:
    """Three seeds in which TCSR helps, feedback dynamics helps in two of three, and single turns are all the same."""
    run = Ablations(tmp_path, (0, 1, 2))
    lost = {
        FULL: (0.1, 0.1, 0.2),
        "plain_mean": (0.4, 0.4, 0.5),
        "static": (0.5, 0.1, 0.3),
        "single_turn": (0.1, 0.1, 0.2),
    }
    for seed in run.seeds:
        for student in STUDENTS:
            evaluation(run.played(seed, student), lost.get(student, (0.9, 0.9, 0.9))[seed], seed)
    return run


def test_the_verdict_is_the_intervals(run: Ablations) -> None:
    marks = read(run, run.seeds)
    said = {student: verdict(change("safety", marks, student)) for student in PARTS}
    assert said["plain_mean"] == said["no_bootstrap"] == "helps"
    assert said["static"] == said["single_turn"] == "no evidence"
    assert change("safety", marks, "static").pooled.high < 0, "true of these students, but not of each seed"
    assert verdict(change("safety", marks, FULL, against="plain_mean")) == "hurts"
    found = change("safety", marks, "plain_mean")
    assert found.each == pytest.approx((-2.7, -2.7, -2.7), abs=0.3) and found.over.high < 0


def test_a_single_seed_is_spoken_of_by_its_dialogues(run: Ablations) -> None:
    found = change("safety", read(run, (0,)), "plain_mean")
    assert found.shown == found.pooled and verdict(found) == "helps"
    assert "| full | -" not in students(read(run, (0,)), ("safety",))


def test_the_page_says_what_was_found_and_stands_beside_the_papers(run: Ablations, tmp_path: Path) -> None:
    marks = read(run, run.seeds)
    text = page(run, marks, run.seeds)
    assert "Training seeds: 0, 1, 2" in text and "## What it means" in text and "| Bootstrapping |" in text
    assert all(f"**{part}.**" in text for part in PARTS.values())
    beside = next(line for line in text.splitlines() if line.startswith("| TCSR") and "-4.49" in line)
    assert "-4.36" in beside and "same" in beside
    assert "under the adaptive attack, by" in text and "## Static questions" not in text
    plot(marks, run.seeds, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_static_questions_are_shown_for_the_seeds_that_were_asked_them(run: Ablations) -> None:
    for seed in (0, 2):
        for student in STUDENTS:
            evaluation(run.played(seed, student, "static"), 0.1, seed)
    assert finished(run, "static") == (0, 2)
    text = page(run, read(run, run.seeds), run.seeds)
    assert "under static questions, by" in text and "without the attack; seeds 0, 2." in text


def test_an_interval_over_seeds_stays_on_its_scale(run: Ablations) -> None:
    marks = read(run, run.seeds)
    assert mean("unbroken", marks[FULL]).high <= 100 and mean("safety", marks["base"]).low >= 1
