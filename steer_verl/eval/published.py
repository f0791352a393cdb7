"""The paper's published figures (METHOD, Published results), in percent. They have no intervals.

Its benchmark files and its judge's words are not public: a set of the same name is not the same dialogues.
"""

from __future__ import annotations

from collections.abc import Collection

from steer_verl.eval.benchmarks import paper

MULTI_TURN = tuple(benchmark.name for benchmark in paper.MULTI_TURN)
"""The five multi-turn sets, in the paper's order."""

AVERAGE = "average"

_TABLE = {
    "3B base": "21.79/42.88 4.92/15.91 11.76/34.12 14.89/23.28 9.40/19.44 12.55/27.13",
    "3B SFT": "39.43/64.27 50.43/72.90 34.33/53.73 48.68/58.11 35.17/38.84 41.61/57.57",
    "3B full": "50.27/71.20 69.03/85.98 54.43/72.48 54.76/66.27 49.40/55.40 55.58/70.27",
    "7B base": "36.06/65.54 11.42/30.42 24.56/51.18 29.01/46.56 22.27/38.70 24.66/46.48",
    "7B SFT": "50.00/75.45 57.83/80.51 41.96/61.01 51.32/65.66 50.46/51.68 50.31/66.86",
    "7B full": "53.44/75.57 77.04/86.87 65.96/72.95 66.67/70.93 61.36/55.42 64.89/72.35",
}
"""Safety/helpfulness of each of :data:`MULTI_TURN`, then of their unweighted mean."""

MODELS = tuple(_TABLE)

PASSES: dict[str, dict[str, tuple[float, float]]] = {
    model: {
        name: (float(safety), float(helpful))
        for name, (safety, helpful) in zip(
            (*MULTI_TURN, AVERAGE), (pair.split("/") for pair in row.split()), strict=True
        )
    }
    for model, row in _TABLE.items()
}
"""Model -> benchmark, or :data:`AVERAGE` -> harmless pass and helpful pass."""

SURVIVAL: dict[str, dict[str, dict[int, float]]] = {
    "mmsafe": {
        "3B base": {1: 87.0, 3: 67.0, 5: 29.0, 8: 2.0},
        "3B full": {1: 97.0, 3: 89.0, 5: 80.0, 8: 75.0},
    },
    "dys": {
        "3B base": {1: 74.0, 3: 41.0, 5: 18.0, 8: 7.0},
        "3B full": {1: 90.0, 3: 71.0, 5: 64.0, 8: 57.0},
    },
}
"""Benchmark -> model -> turn -> S in percent, read off a figure; from turn 8 on the curves are level."""

SINGLE_TURN_AVERAGE = {
    "3B base": (48.30, 45.86),
    "3B SFT": (79.85, 66.46),
    "3B full": (81.84, 70.77),
    "7B base": (56.21, 60.32),
    "7B SFT": (83.64, 72.83),
    "7B full": (87.89, 77.40),
}
"""Model -> harmless pass and helpful pass, the mean of five single-turn sets. Which five we do not know, so it stands
beside no average of ours."""

PASS_COLUMN = {"harmless_pass": 0, "helpful_pass": 1}
"""Measure -> its place in a published pair."""


def published(benchmark: str, measure: str) -> dict[str, float]:
    """Model -> published figure of a multi-turn benchmark; ``measure`` is a pass, or ``survival:<turn>``."""
    name, _, turn = measure.partition(":")
    if name == "survival" and turn:
        curves = SURVIVAL.get(benchmark, {})
        return {model: curve[int(turn)] for model, curve in curves.items() if int(turn) in curve}
    if measure in PASS_COLUMN:
        return {model: row[benchmark][PASS_COLUMN[measure]] for model, row in PASSES.items() if benchmark in row}
    return {}


def published_average(benchmarks: Collection[str], measure: str) -> dict[str, float]:
    """Model -> published mean over the five multi-turn sets; none unless ``benchmarks`` are exactly those."""
    return published(AVERAGE, measure) if set(benchmarks) == set(MULTI_TURN) else {}
