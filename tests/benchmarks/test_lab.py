"""The laboratory of many seeds: what is trained, from what, and what the pages conclude from evaluations on disk."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.lab import __main__, ablations, arms, gaming, mini, page, runs, sizes, worlds
from benchmarks.lab.arms import ARMS, REACHABLE, RISKY, Cell
from benchmarks.lab.runs import Lab, stages
from steer_verl.demo.stages import RECIPE, Plan
from steer_verl.demo.stages import stages as demo_stages
from steer_verl.errors import SteerError
from steer_verl.eval.config import EvalConfig
from steer_verl.eval.runs import read_run, write_run
from steer_verl.preflight.compose import compose
from steer_verl.records import write_whole
from steer_verl.settings_file import load_settings
from tests.eval.evaluations import evaluation

LOST = {
    "base": (1.0, 1.0, 1.0),
    "sft": (0.6, 0.6, 0.6),
    "grpo": (0.1, 0.1, 0.0),
    arms.PLAIN: (0.4, 0.4, 0.5),
    "static": (0.5, 0.1, 0.0),
    "single_turn": (0.1, 0.1, 0.0),
}
"""Share of attacked dialogues that the students of three seeds lose: TCSR helps, feedback dynamics in one seed."""

MARKED = tuple(dict.fromkeys((*mini.NEEDS, *ablations.NEEDS)))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Three seeds, all evaluated."""
    lab = Lab(tmp_path / "lab", (0, 1, 2), ablations.NEEDS)
    for name in lab.arms:
        for seed in lab.seeds:
            lost = LOST.get(name, (0.9, 0.9, 0.9))[seed]
            evaluation(lab.played(name, seed), lost, seed)
            if ARMS[name].stage == "grpo":
                lab.measured(name, seed).parent.mkdir()
                found = {step: {"unbroken": 100 - 100 * lost} for step in lab.checkpoints}
                lab.measured(name, seed).write_text(json.dumps(found))
            evaluation(lab.played(name, seed, attack="static"), 0.0, seed)
    return lab


def test_stages_go_seed_by_seed_from_one_base(tmp_path: Path) -> None:
    lab = Lab(tmp_path, (3, 7), tuple(ARMS), marked=MARKED)
    todo = stages(lab)
    names = [stage.name for stage in todo]
    assert len(set(names)) == len(names) and names[:3] == ["base/data", "base/model", "base/pretrain"]
    seen: set[str] = set()
    for stage in todo:
        assert set(stage.after) <= seen, stage.name
        assert all(source.exists() for source in stage.sources), stage.name
        assert stage.folder.is_relative_to(tmp_path)
        seen.add(stage.name)
    of_seeds = [name.split("/")[0] for name in names if name.startswith("seed-")]
    assert of_seeds == sorted(of_seeds), "a seed is finished before the next begins"
    by_name = {stage.name: stage for stage in todo}
    assert by_name["seed-7/static"].after == ("seed-7/data", "seed-7/sft")
    assert by_name["seed-7/no_bootstrap"].after == ("seed-7/data", "base/pretrain")
    assert by_name["seed-7/sft-1m"].after == ("seed-7/data", "base/pretrain-1m")
    assert by_name["seed-7/single_turn"].after == ("seed-7/data_single_turn", "seed-7/sft_single_turn")
    evaluations = {"seed-3/eval-grpo", "seed-3/eval-grpo-checkpoints", "seed-3/eval-grpo-static", "base/eval-base"}
    assert evaluations <= set(names)
    swept = by_name["seed-7/eval-fast-risky_offers-0.1-steer-0.3-checkpoints"]
    assert swept.after == ("seed-7/data", "seed-7/sft", "base/data")


def test_an_arm_brings_those_that_it_begins_at(tmp_path: Path) -> None:
    names = {stage.name for stage in stages(Lab(tmp_path, (0,), ("single_turn",)))}
    assert {"seed-0/single_turn", "seed-0/sft_single_turn", "base/pretrain"} <= names
    assert not names & {"seed-0/grpo", "seed-0/sft", "base/pretrain-1m"}


@pytest.mark.parametrize("name", [name for name in ARMS if ARMS[name].stage == "grpo"])
def test_verl_is_told_what_an_arm_is(tmp_path: Path, name: str) -> None:
    lab = Lab(tmp_path / "ü, [x]", (5,), (name,))
    stage = runs.train(lab, name, 5)
    words = list(stage.argv[stage.argv.index("--config-name") + 2 :])
    config = compose(RECIPE, "grpo", [word for word in words if not word.startswith("hydra.")])
    student = runs.student(lab, ARMS[name].begins, 5)[1]
    assert lab.out / config.actor_rollout_ref.model.path == student
    assert config.trainer.default_local_dir == str(stage.folder / "checkpoints")
    assert config.trainer.total_training_steps == stage.steps == 24 and config.trainer.save_freq == 4
    assert stage.keep == (4, 8, 16) and config.trainer.max_actor_ckpt_to_keep >= 6


def test_an_arm_of_another_world_draws_and_plays_other_files(tmp_path: Path) -> None:
    lab = Lab(tmp_path, (0,), ("risky_paper", "grpo"), marked=("grpo",))
    todo = {stage.name: stage for stage in stages(lab)}
    paper, grpo = " ".join(todo["seed-0/risky_paper"].argv), " ".join(todo["seed-0/grpo"].argv)
    assert "rl_train_risky.parquet" in paper and "world=risky_offers" in paper and "ablation=paper" in paper
    assert "rl_train.parquet" in grpo and "world=" not in grpo
    assert ARMS["risky_paper"].test == "rl_test_risky.jsonl" and ARMS["grpo"].test == "rl_test_long.jsonl"
    played = todo["seed-0/eval-grpo"]
    assert any(word == f'benchmarks.mini.file="{tmp_path}/base/data/rl_test_long.jsonl"' for word in played.argv)
    assert any(word == f'student.path="{tmp_path}/seed-0/grpo/hf"' for word in played.argv)
    assert "seed-0/eval-risky_paper" not in todo and "seed-0/eval-risky_paper-checkpoints" in todo


def test_every_prediction_has_its_runs_and_every_run_its_plain_mean() -> None:
    cells = set(arms.CELLS.values())
    assert len(cells) == len(arms.CELLS) and {cell.mean for cell in cells} <= cells
    assert {Cell("fast", *setting) for setting in worlds.PREDICTED} <= cells
    by_verl = {(cell.world, cell.arm) for cell in cells if cell.via == "verl"}
    assert by_verl == {(world, arm) for world in (REACHABLE, RISKY) for arm in (arms.PLAIN, *arms.SHAPED)}
    assert {cell.leak for cell in cells if cell.world == RISKY and cell.via == "fast"} == set(arms.LEAKS)
    assert all(ARMS[name].test == "rl_test_risky.jsonl" for name, cell in arms.CELLS.items() if cell.world == RISKY)


def test_every_evaluation_is_one_that_steer_eval_takes(tmp_path: Path) -> None:
    lab = Lab(tmp_path, (1,), tuple(ARMS), marked=MARKED)
    every = (*stages(lab), *demo_stages(Plan(tmp_path / "demo")))
    found = [stage for stage in every if "eval" in stage.name and "checkpoints" not in stage.name]
    for stage in found:
        file, *overrides = stage.argv[stage.argv.index("run") + 1 :]
        config = load_settings(EvalConfig, Path(file), overrides)
        attack = "static" if stage.name.replace("eval-", "").endswith("-static") else "adaptive"
        assert (config.attack, config.out, config.tutor is None) == (attack, stage.folder, attack == "static")
        assert "seed" not in str(config.student.name), "compare and report pool the seeds of a student by its name"
    assert len(found) > len(MARKED)


def test_a_change_of_the_evaluation_trains_nothing_again(tmp_path: Path) -> None:
    package = RECIPE.parents[1] / "steer_verl"
    measuring = [package / part for part in ("eval", "report", "statistics", "mini/student.py")]
    assert all(path.exists() for path in measuring)
    for stage in stages(Lab(tmp_path, (0,), tuple(ARMS), marked=MARKED)):
        if "eval" not in stage.name:
            found = [path for path in stage.sources if any(path.is_relative_to(part) for part in measuring)]
            assert not found, stage.name


def test_a_seed_is_finished_when_all_that_a_page_reads_is_there(lab: Lab) -> None:
    assert lab.finished(ablations.NEEDS) == lab.finished(mini.STUDENTS, "static") == (0, 1, 2)
    lab.measured("grpo", 1).unlink()
    assert lab.finished(ablations.NEEDS) == (0, 2) and lab.finished(("sft",)) == (0, 1, 2)


def test_what_is_on_record_is_not_trained_again(tmp_path: Path) -> None:
    arms, record = ("plain_mean", "risky_paper", "fast-reachable-0.0-paper-0.3"), tmp_path / "students.jsonl"
    lab = Lab(tmp_path / "here", (0, 1), arms, record=record)
    every = {stage.name for stage in stages(lab)}
    found = {24: {"unbroken": 71.5, "helpfulness": 99.0}}
    for seed in lab.seeds:
        write_whole(lab.plan(seed).out / "sft" / "hf" / "model.safetensors", f"weights {seed}")
    for name, seed in (("plain_mean", 0), ("risky_paper", 0), ("fast-reachable-0.0-paper-0.3", 0), ("risky_paper", 1)):
        write_whole(lab.measured(name, seed), json.dumps(found))
    write_whole(lab.out / "stages" / "seed-1" / "risky_paper.json", json.dumps({"done": "x", "seconds": 300.0}))
    runs.keep(lab)
    kept = record.read_text()
    kept_seeds = [json.loads(line)["seed"] for line in kept.splitlines()]
    assert kept_seeds == [0, 0, 0, 1], "seed by seed, so that lines are added rather than moved"

    elsewhere = Lab(tmp_path / "elsewhere", (0, 1), arms, record=record)
    assert elsewhere.students("risky_paper", 1) == found and elsewhere.on_the_way("risky_paper") == (0, 1)
    assert elsewhere.on_the_way("plain_mean") == (0,) and elsewhere.recorded["risky_paper", 1][0].seconds == 300.0
    begun = {(entry.seed, entry.origin) for entries in elsewhere.recorded.values() for entry in entries}
    assert len(begun) == len({origin for _, origin in begun}) == 2
    left = {stage.name for stage in stages(elsewhere)}
    assert left < every and not any(name.startswith("seed-0") or "risky_paper" in name for name in left)
    assert {"base/pretrain", "seed-1/data", "seed-1/sft", "seed-1/plain_mean"} <= left
    runs.keep(elsewhere)
    assert record.read_text() == kept, "nothing was measured here"

    again = Lab(tmp_path / "elsewhere", (0,), arms, marked=("plain_mean",), record=record)
    assert {"seed-0/plain_mean", "seed-0/eval-plain_mean"} <= {stage.name for stage in stages(again)}
    assert not stages(Lab(tmp_path / "elsewhere", (0,), arms, record=record))


def test_a_student_measured_again_takes_the_place_of_the_one_on_record(tmp_path: Path) -> None:
    lab = Lab(tmp_path, (0,), ("paper",), record=tmp_path / "students.jsonl")
    for weights, unbroken in (("one processor's", 50.0), ("one processor's", 60.0), ("another's", 70.0)):
        write_whole(lab.plan(0).out / "sft" / "hf" / "model.safetensors", weights)
        write_whole(lab.measured("paper", 0), json.dumps({4: {"unbroken": unbroken}}))
        runs.keep(Lab(tmp_path, (0,), ("paper",), record=lab.record))
    kept = [json.loads(line)["students"]["4"]["unbroken"] for line in lab.record.read_text().splitlines()]
    assert kept == [60.0, 70.0], "from another student it is another one"


def test_what_others_recorded_in_the_meantime_is_kept(tmp_path: Path) -> None:
    one, other = (Lab(tmp_path, (seed,), ("paper",), record=tmp_path / "students.jsonl") for seed in (0, 1))
    assert not one.recorded, "read before its hours of training"
    for lab in (other, one):
        write_whole(lab.plan(lab.seeds[0]).out / "sft" / "hf" / "model.safetensors", "weights")
        write_whole(lab.measured("paper", lab.seeds[0]), json.dumps({4: {"unbroken": 50.0}}))
        runs.keep(lab)
    assert [json.loads(line)["seed"] for line in one.record.read_text().splitlines()] == [0, 1]


def test_the_page_knows_what_was_measured_just_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(tmp_path / "lab", (0,), ())
    write_whole(lab.plan(0).out / "sft" / "hf" / "model.safetensors", "weights")
    found = {step: {"unbroken": 90.0, "helpfulness": 99.0, "reward": 0.9} for step in arms.CHECKPOINTS}
    write_whole(lab.measured("plain_mean", 0), json.dumps(found))
    monkeypatch.setattr(__main__, "RECORD", tmp_path / "students.jsonl")
    monkeypatch.setattr(__main__, "HERE", tmp_path)
    words = ["lab", "--page", "--pages", "worlds", "--seeds", "0", "0", "--out", str(lab.out)]
    monkeypatch.setattr("sys.argv", words)
    __main__.main()
    text = (tmp_path / "tcsr_worlds.md").read_text()
    assert "| verl | 1 |" in text and "| verl | 0% | plain_mean | 0.0 | 1 | 90.0" in text


def test_what_is_on_record_are_arms_of_today_that_began_where_what_they_are_compared_with_did() -> None:
    lab, begun = Lab(Path(), (), (), record=runs.RECORD), defaultdict[str, set[tuple[int, str]]](set)
    for entry in itertools.chain(*lab.recorded.values()):
        before = arms.BEFORE if ARMS[entry.arm].size else ()
        assert tuple(entry.students) == (*before, *arms.CHECKPOINTS) and entry.seconds > 0
        assert all(0 <= found["unbroken"] <= 100 for found in entry.students.values())
        assert (entry.seed, entry.origin) not in begun[entry.arm]
        begun[entry.arm].add((entry.seed, entry.origin))
    means = {arms.CELLS[name]: students for name, students in begun.items() if name in arms.CELLS}
    for cell, students in means.items():
        seeds = {seed for seed, _ in means[cell.mean]}  # mini.md has more of the recipe's own
        compared = {begun for begun in students if begun[0] in seeds}
        assert len(compared) >= 8 and compared <= means[cell.mean], f"{cell}: measure its plain mean too"


def test_a_page_without_a_finished_seed_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab = Lab(tmp_path, (0,), mini.NEEDS)
    with pytest.raises(SteerError, match="no seed is finished"):
        mini.write_page(lab, tmp_path)
    __main__.write({"mini": mini}, lab, tmp_path)
    assert "mini: not written" in capsys.readouterr().out


def test_a_parts_verdict_is_the_intervals_over_seeds(lab: Lab) -> None:
    found = ablations.read(lab, lab.seeds)
    said = {arm: ablations.verdict(found.change("checkpoints", arm)) for arm in ablations.PARTS}
    assert said[arms.PLAIN] == said["no_bootstrap"] == "helps"
    assert said["static"] == said["single_turn"] == "no evidence"
    assert ablations.each(found, "unbroken", arms.PLAIN) == pytest.approx([-30, -30, -50], abs=3)
    assert found.change("unbroken", arms.PLAIN).high < 0
    assert found.change("checkpoints", arms.PLAIN).value == pytest.approx(found.change("unbroken", arms.PLAIN).value)


def test_what_a_seed_does_not_know_is_no_point_of_the_plot(lab: Lab) -> None:
    folder = lab.played(arms.PLAIN, 1)
    run = read_run(folder)
    write_run(folder, run.about, [one for one in run.dialogues if one.attacked])
    each = ablations.each(ablations.read(lab, lab.seeds), "helpfulness", arms.PLAIN)
    assert all(map(math.isnan, each)), "no benign dialogue was rated in every seed: nobody helped with 0 %"


def test_the_hours_on_a_page_are_those_of_its_arms(tmp_path: Path) -> None:
    lab = Lab(tmp_path, (0,), ("grpo", "fast-reachable-0.0-steer-0.3"))
    for stage in stages(replace(lab, marked=mini.NEEDS)):
        write_whole(lab.out / "stages" / f"{stage.name}.json", json.dumps({"seconds": 60.0}))
    assert "| evaluation | 7 | 1:00 | 7:00 |" in page.hours(lab, mini.NEEDS), "three students twice, and checkpoints"


def test_the_ablations_page_says_what_was_found(lab: Lab, tmp_path: Path) -> None:
    target, *plots = ablations.write_page(lab, tmp_path)
    text = target.read_text()
    assert (
        "Training seeds: 0, 1, 2" in text and "| Bootstrapping |" in text and "under static questions, in the" in text
    )
    assert next(line for line in text.splitlines() if line.startswith("| TCSR") and "-4.49" in line)
    assert all(plot.read_bytes().startswith(b"\x89PNG") and plot.name in text for plot in plots)


def test_the_mini_page_states_each_demand_and_whether_it_is_met(lab: Lab, tmp_path: Path) -> None:
    found = mini.read(lab, lab.seeds)
    decision, drop, learns, gain = mini.demands(found)
    assert decision.met and drop.met and gain.met
    assert learns.met and learns.figure == "3 of 3"
    assert found.steps[2] == pytest.approx([100.0] * 4)
    target, *plots = mini.write_page(lab, tmp_path)
    text = target.read_text()
    assert "| 2 | " in text and "## Size" not in text and text.count("| yes |") == 4
    assert all(plot.read_bytes().startswith(b"\x89PNG") and plot.name in text for plot in plots)


def test_the_gaming_page_says_how_often_each_alarm_fired(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab", (0, 1), gaming.NEEDS)
    for name in gaming.NEEDS:
        for seed in lab.seeds:
            alarms = {"alarm/holdout_gap": 0.25 * seed}
            alarms |= {"alarm/benign_refusal_share": 0.5} if ARMS[name].game.benign else {}
            figures = {"unbroken": 100.0, "helpfulness": 40.0 + 20 * seed, **alarms}
            write_whole(lab.measured(name, seed), json.dumps({24: figures}))
    (target,) = gaming.write_page(lab, tmp_path)
    half, none = (
        next(line for line in target.read_text().splitlines() if line.startswith(f"| gullible | {share} | 0.1 "))
        for share in ("half", "attacks alone")
    )
    assert half.endswith("| 50 | 12 |  |") and none.endswith("|  | 12 |  |") and "| 50.0 " in half


def test_the_sizes_page_tells_what_each_stage_adds(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab", (0, 1, 2, 3), sizes.NEEDS)
    for gain, name in enumerate(sizes.NEEDS):
        for seed in lab.seeds:
            values = {-1: 0.0, 0: 30.0 + seed} | {step: 60.0 + 10 * gain + seed for step in lab.checkpoints}
            found = {step: {"unbroken": value, "helpfulness": 90.0, "reward": 0.5} for step, value in values.items()}
            write_whole(lab.measured(name, seed), json.dumps(found))
    target, plot = sizes.write_page(lab, tmp_path)
    lines = target.read_text().splitlines()
    assert plot.name in target.read_text() and plot.stat().st_size > 10_000
    for gain, size in enumerate(("1m", "2m", "5m")):
        assert any(line.startswith(f"| {size} | SFT | 31.5 (") for line in lines)
        assert any(line.startswith(f"| {size} | Stage III | +{30 + 10 * gain}.0 (") for line in lines)


def test_a_seed_that_does_not_learn_breaks_the_demand(lab: Lab) -> None:
    evaluation(lab.played("grpo", 1), 0.4, 1)
    learns = mini.demands(mini.read(lab, lab.seeds))[2]
    assert learns.figure == "2 of 3" and not learns.met
