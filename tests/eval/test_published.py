"""The paper's figures: spot values, and averages that are the means of their cells but for known oddities."""

from __future__ import annotations

import pytest

from steer_verl.eval import published
from steer_verl.eval.published import MODELS, tables

ODD = {
    ("3B without TCSR", 0): 50.69,
    ("3B without TCSR", 1): 65.31,
    ("3B without feedback dynamics", 0): 50.09,
    ("3B without feedback dynamics", 1): 63.56,
    ("3B without bootstrapping (RL from base)", 1): 42.24,
}
"""Ablations whose published average is not the mean of their cells -> that mean."""


def test_averages_are_the_means_of_their_cells() -> None:
    for table in (tables().single_turn, tables().multi_turn, tables().ablations):
        for name, cells in table.rows.items():
            assert len(cells) == len(table.benchmarks) + 1 == 6
            for column in range(2):
                mean = sum(cell[column] for cell in cells[:5]) / 5
                known = ODD.get((name, column), cells[5][column])
                assert mean == pytest.approx(known, abs=0.0051), (name, column)
                assert (name, column) not in ODD or abs(mean - cells[5][column]) > 0.1


def test_the_whole_tables_are_there() -> None:
    single, multi = tables().single_turn, tables().multi_turn
    assert list(single.rows) == list(multi.rows) and len(single.rows) == 18 and len(tables().ablations.rows) == 8
    assert set(MODELS) < set(multi.rows)
    assert single.cells("vlguard")["7B SaFeR-VLM"] == (79.88, 77.88)
    assert single.cells("spa_vl")["7B TIS"] == single.cells("spa_vl")["7B SFT"] == (85.66, 78.30)
    assert multi.cells("vls")["3B TIS"] == (24.48, 31.34)
    assert tables().ablations.cells("dys")["3B multi-turn SFT+GRPO (table 9)"] == (49.22, 55.27)
    assert multi.cells("dys")["3B full"] == (49.40, 55.40)
    assert sum(tables().sizes.values()) == 3227 and tables().sizes["spa"] == 265


def test_names_are_those_of_our_recipes() -> None:
    """Those of the recipes are held against these (tests/eval/benchmarks/test_recipes.py)."""
    assert tables().multi_turn.benchmarks == tuple(tables().sizes) == tuple(tables().survival)


def test_what_stands_beside_ours() -> None:
    assert published.passes(["spa"], "helpful_pass", single=False)["7B full"] == 70.93
    assert published.passes(["vlsbench"], "harmless_pass", single=True)["3B base"] == 55.22
    assert tuple(published.passes(["spa"], "harmless_pass", single=False)) == MODELS
    for benchmark, measure, single in (
        ("spa", "harmless", False),
        ("other", "harmless_pass", False),
        ("spa", "harmless_pass", True),
    ):
        assert published.passes([benchmark], measure, single=single) == {}
    five = list(tables().single_turn.benchmarks)
    assert published.passes(five, "harmless_pass", single=True)["7B full"] == 87.89
    assert published.passes(five[:4], "harmless_pass", single=True) == {}
    assert published.passes(five, "harmless_pass", single=False) == {}


def test_survival_never_rises_and_is_level_from_turn_eight() -> None:
    assert published.survival("dys")["7B full"] == {1: 88, 3: 77, 5: 70, 8: 59}
    assert published.survival("vls")["3B base"][8] == 0 and published.survival("other") == {}
    for curves in tables().survival.values():
        assert list(curves) == ["3B base", "3B full", "7B base", "7B full"]
        for curve in curves.values():
            assert list(curve) == [1, 3, 5, 8] and sorted(curve.values(), reverse=True) == list(curve.values())
