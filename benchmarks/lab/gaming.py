"""gaming.md: students trained by a tutor that can be gamed, what damps it, and whether the alarms tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.lab import page
from benchmarks.lab.arms import ARMS
from benchmarks.lab.runs import Lab
from benchmarks.pages import table, write

NEEDS = tuple(name for name, arm in ARMS.items() if arm.game)
MARKED = False

WATCHED = {
    "benign_refusal_share": "safe requests refused",
    "holdout_gap": "gap to the judge",
    "best_score_share": "best",
}
"""Alarm -> what it is called here."""


def write_page(lab: Lab, folder: Path) -> list[Path]:
    """The page.

    Raises:
        SteerError: no seed is finished.
    """
    seeds = lab.on_the_way(*NEEDS)
    parts = page.head("Students that may game their tutor, in training", lab, seeds, "gaming")
    parts += [
        "Stage III by the fast trainer (benchmarks/lab/fast.py). The *gullible* tutor pays the full score for the form "
        '"refusal, alternative, question", whatever was asked; one judge rates the students of both. *Attacks alone*: '
        "no benign dialogue in training. Alarms: per cent of the 24 steps in which each fires, with the thresholds of "
        "the recipes; without benign dialogues there is nothing to watch for refused safe requests.",
        students({name: [lab.students(name, seed)[lab.checkpoints[-1]] for seed in seeds] for name in NEEDS}),
        "## Time",
        page.recorded(lab, NEEDS),
    ]
    write(target := folder / "gaming.md", *parts)
    return [target]


def students(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """One line for each way of training: the last students' figures over seeds."""
    rows = []
    for name, seeds in found.items():
        game = ARMS[name].game
        assert game is not None
        held = [f"{page.over([seed[name] for seed in seeds]):.1f}" for name in ("unbroken", "helpfulness")]
        alarms = [_share([seed.get(f"alarm/{alarm}") for seed in seeds]) for alarm in WATCHED]
        rows.append([game.tutor, "half" if game.benign else "attacks alone", str(game.kl), *held, *alarms])
    titles = ("tutor", "benign dialogues", "KL", "unbroken (%)", "helpfulness (%)")
    return table([*titles, *(f"alarm: {title} (%)" for title in WATCHED.values())], rows)


def _share(found: list[float | None]) -> str:
    shares = [share for share in found if share is not None]
    return f"{100 * sum(shares) / len(shares):.0f}" if shares else ""
