"""Training logs as verl writes them: its console through Ray, its file logger, and what is no log at all."""

from __future__ import annotations

import time
from pathlib import Path

import orjson
import pytest

from steer_verl.errors import DataError
from steer_verl.report.training import parse_record, parse_step, read_training

RAY = "\x1b[36m(TaskRunnerV1 pid=4723)\x1b[0m "


def test_a_console_line_becomes_numbers() -> None:
    step = parse_step(f"{RAY}step:2 - actor/kl_loss:1e-05 - num_turns/mean:np.float64(16.0) - note:none\x1b[0m")
    assert step == {"step": 2, "actor/kl_loss": 1e-5, "num_turns/mean": 16.0}


def test_a_long_hostile_line_takes_no_time() -> None:
    begun = time.monotonic()
    assert parse_step(f"step:1 - a:2 - {'np.a(' * 100_000}") == {"step": 1, "a": 2}
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("line", ["global_step:3 - x:1", "step: - x:1", "", "Training Progress:  50%"])
def test_another_line_is_none(line: str) -> None:
    assert parse_step(line) is None and parse_record(line) is None


def test_a_line_of_the_file_logger() -> None:
    line = orjson.dumps({"step": 4, "data": {"critic/score/mean": 0.5, "actor/x": float("nan"), "word": "none"}})
    assert parse_record(line.decode()) == {"step": 4, "critic/score/mean": 0.5}  # orjson writes NaN as null


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "{}",
        '{"step": 1}',
        '{"step": null, "data": {}}',
        '{"step": 1, "data": []}',
        '{"step": 1, "data": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}",
        '{"step": 1, "data": {"a": 1' + 400 * "0" + "}}",
        '{"step": 1' + 400 * "0" + ', "data": {}}',
    ],
)
def test_a_torn_or_odd_line_of_the_file_logger_is_none(line: str) -> None:
    assert parse_record(line) is None


def test_what_cannot_be_drawn_is_no_point(tmp_path: Path) -> None:
    log = tmp_path / "run.jsonl"
    steps = ['{"step": NaN, "data": {}}', '{"step": 1e300, "data": {}}', "step:" + 400 * "9" + " - a:1"]
    log.write_text(
        "\n".join([*steps, '{"step": 1, "data": {"a": 1e308, "b": 2}}', '{"step": 2, "data": {"a": -1e308}}'])
    )
    training = read_training(log)
    assert training.curve("a") == [] and training.curve("b") == [(1, 2)] and len(training.steps) == 2


def test_a_step_counts_as_it_was_logged_last(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text(
        f"noise\n{RAY}step:1 - a:1\n{RAY}step:2 - a:2\nrestarted\n{RAY}step:2 - a:3 - b:nan\nstep:10 - a:4\n"
    )
    training = read_training(log)
    assert training.name == "run" and training.curve("a") == [(1, 1), (2, 3), (10, 4)]
    assert training.curve("b") == [] == training.curve("never logged")


def test_what_a_killed_training_logged_after_its_checkpoint_is_dropped(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    killed = "".join(f"step:{n} - a:{n}\n" for n in range(1, 6))
    log.write_text(f"{killed}step:3 - val-core/x/reward/mean@1:0.5\nstep:4 - a:40\n")
    training = read_training(log)
    assert training.curve("a") == [(1, 1), (2, 2), (3, 3), (4, 40)], "5 is of weights that are no more"
    assert training.curve("val-core/x/reward/mean@1") == [(3, 0.5)]
    log.write_text(f"{killed}step:0 - val-core/x/reward/mean@1:0.5\nstep:2 - a:20\n")
    assert read_training(log).curve("a") == [(2, 20)], "begun anew"


def test_a_lost_dialogue_has_no_reward_and_no_length(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    figures = "critic/score/mean:{} - response_length/mean:{} - steer/lost_share:{}"
    of_all = [(2.0, 100, 0.0), (1.5, 75.25, 0.25), (0.0, 1, 1.0)]  # verl's means count it as 0 and as one token
    log.write_text("".join(f"step:{n} - {figures.format(*values)}\n" for n, values in enumerate(of_all)))
    training = read_training(log)
    assert training.curve("critic/score/mean") == [(0, 2.0), (1, 2.0)], "nobody is left of the last step"
    assert training.curve("response_length/mean") == [(0, 100), (1, 100)]


def test_a_folder_has_a_name_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo" / "logs").mkdir(parents=True)
    (tmp_path / "demo" / "logs" / "grpo.log").write_text("step:1 - a:1\n")
    monkeypatch.chdir(tmp_path / "demo")
    assert read_training(Path()).name == "demo"


def test_a_folder_of_the_demo(tmp_path: Path) -> None:
    (tmp_path / "demo" / "logs").mkdir(parents=True)
    (tmp_path / "demo" / "logs" / "grpo.log").write_text("step:1 - a:1\n")
    training = read_training(tmp_path / "demo")
    assert training.name == "demo" and training.curve("a") == [(1, 1)]


def test_what_cannot_be_read_is_told_with_how_to_fix_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file; give verl's console log"):
        read_training(tmp_path / "gone.log")
    (tmp_path / "empty.log").write_text("nothing here\n")
    with pytest.raises(DataError, match=r"empty\.log: no line tells of a step"):
        read_training(tmp_path / "empty.log")
