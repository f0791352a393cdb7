"""The table and the plot from evaluations on disk, and what the stages are made of."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from steer_verl.demo.report import cell, write_report
from steer_verl.demo.stages import CODE, STUDENTS, Plan, stages
from tests.eval.evaluations import evaluation


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


def test_the_benchmark_states_each_demand_and_whether_it_is_met(tmp_path: Path) -> None:
    mini = benchmark()
    plans = [Plan(tmp_path / f"seed-{seed}", seed) for seed in (0, 1)]
    for plan in plans:
        for name, broken in (("base", 1.0), ("sft", 0.4), ("grpo", 0.1), ("sft-static", 0.0)):
            evaluation(plan.out / "eval" / name, broken, plan.seed)
    marks = mini.collect(plans)
    assert marks["grpo"].runs == (0, 1) and len(marks["grpo"].key_N) == 120
    *shown, cost = mini.demands(marks, [0, 1])
    assert all(demand.met for demand in shown)
    assert not cost.met and cost.figure.startswith("+0.0 ["), (
        "twenty benign dialogues do not show 2 points in a hundred"
    )
    text = mini.report(marks, [0, 1], [{"data": 61.0, "eval-sft-static": 9.0}] * 2, "the command")
    assert "| data | 1:01 | 1:01 |" in text and "in all | 1:01 | 1:01 |" in text and "the command" in text
    mini.write_plot(marks, tmp_path / "mini.png")
    assert (tmp_path / "mini.png").exists()


def test_a_gain_in_one_seed_only_does_not_meet_the_demand(tmp_path: Path) -> None:
    mini = benchmark()
    plans = [Plan(tmp_path / f"seed-{seed}", seed) for seed in (0, 1)]
    for plan, grpo in zip(plans, (0.0, 0.5), strict=True):
        for name, broken in (("base", 1.0), ("sft", 0.5), ("grpo", grpo), ("sft-static", 0.5)):
            evaluation(plan.out / "eval" / name, broken, plan.seed)
    demands = {d.what: d.met for d in mini.demands(mini.collect(plans), [0, 1])}
    assert [met for what, met in demands.items() if "above SFT" in what] == [False] * 3
    assert [met for what, met in demands.items() if "decisions" in what] == [False]


def benchmark() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("benchmarks_mini", CODE / "benchmarks" / "mini.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_undefined_is_a_dash() -> None:
    assert cell({"value": None, "low": None, "high": None}, 1) == "-"
    assert cell({"value": 1.25, "low": -0.5, "high": 3.0}, 1, signed=True) == "+1.2 [-0.5 to +3.0]"


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
