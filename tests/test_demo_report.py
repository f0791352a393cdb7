"""The table and the plot from evaluations on disk, and what the stages are made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from steer_verl import plots
from steer_verl.demo.report import cell, write_report
from steer_verl.demo.stages import STUDENTS, Plan, stages
from steer_verl.eval.differences import Difference
from tests.eval.evaluations import evaluation

PANELS = plots.sheet


def test_the_report_states_what_grpo_added(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, broken in zip(STUDENTS, (1.0, 0.3, 0.0), strict=True):
        evaluation(tmp_path / "eval" / name, broken)
    plan = Plan(tmp_path)
    report = write_report(plan, stages(plan))
    assert report["gain"]["safety"]["low"] > 0 and report["gain"]["unbroken"]["value"] == pytest.approx(30)
    assert report["gain"]["helpfulness"]["value"] == 0
    assert json.loads((tmp_path / "report.json").read_text()) == report
    table = (tmp_path / "report.md").read_text()
    assert "| unbroken to the end (%) | 0.0 [0.0 to 8.8] | 70.0 [" in table and "| 100.0 [91.2 to 100.0] |" in table
    assert (tmp_path / "survival.png").read_bytes().startswith(b"\x89PNG")
    assert "<!doctype html>" in (tmp_path / "report.html").read_text()[:50].lower()
    shown = capsys.readouterr().out
    assert "safety under attack" in shown and "+30.0 [" in shown


def test_what_is_undefined_is_a_dash() -> None:
    undefined = Difference(value=None, low=None, high=None, pairs=0, left_out=0, p=None)
    assert cell(undefined, 1) == cell(None, 1) == "-"
    known = undefined.model_copy(update={"value": 1.25, "low": -0.5, "high": 3.0})
    assert cell(known, 1, signed=True) == "+1.2 [-0.5 to +3.0]"


def test_every_curve_of_a_plot_is_drawn_and_named_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(plots, "sheet", lambda *args: drawn.append(made := PANELS(*args)) or made)
    for count, last in ((7, 1.0), (7, 0.5), (30, 0.0), (1, 1.0)):
        held = plots.Curve(*[[1.0, last]] * 3)
        plots.survival_plot({f"{n} $x$ \\y": held for n in range(count)}, tmp_path / "s.png", "T")
        _, (axes,) = drawn.pop()
        heights = sorted(text.xy[1] for text in axes.texts)
        assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) > min(count, 20)
        assert len(heights) == count and heights[-1] <= 1 and np.diff(heights, prepend=-1).min() > 0.03
        assert axes.texts[0].get_text() == f"0 \\$x\\$ \\y  {100 * last:.0f} %"


def test_stages_follow_each_other_and_train_by_verl_itself(tmp_path: Path) -> None:
    todo = {stage.name: stage for stage in stages(Plan(tmp_path, seed=5))}
    assert list(todo) == ["data", "model", "pretrain", "sft", "grpo", "eval-base", "eval-sft", "eval-grpo"]
    seen: set[str] = set()
    for stage in todo.values():
        assert set(stage.after) <= seen and stage.folder.is_relative_to(tmp_path)
        assert all(source.exists() for source in stage.sources), stage.name
        seen.add(stage.name)
    assert "verl.trainer.main_ppo" in todo["grpo"].argv and "verl.trainer.sft_trainer" in todo["sft"].argv
    assert todo["sft"].steps > 2 and todo["grpo"].steps > 2


def test_quick_is_the_same_pipeline_with_two_steps(tmp_path: Path) -> None:
    real, quick = stages(Plan(tmp_path)), stages(Plan(tmp_path, quick=True))
    assert [s.name for s in real] == [s.name for s in quick]
    assert {s.steps for s in quick} == {0, 2}
