"""``steer eval`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from steer_verl.cli import main
from steer_verl.errors import ConfigError
from steer_verl.eval.commands import _split, app
from steer_verl.eval.judging.calibrate import Thresholds
from tests.eval.evaluations import evaluation

RUNNER = CliRunner()


def test_the_first_word_may_be_a_file_and_the_rest_sets_keys(tmp_path: Path) -> None:
    file = tmp_path / "a=b.yaml"
    file.touch()
    assert _split([str(file), "out=x"]) == (file, ["out=x"])
    assert _split(["out=x", "attack=static"]) == (None, ["out=x", "attack=static"])
    assert _split(["run.yaml"]) == (Path("run.yaml"), [])
    with pytest.raises(ConfigError, match=r"'other\.yaml': not of the form key=value"):
        _split(["run.yaml", "other.yaml"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["out=x", "judge.kind=mini"], "student: Field required"),
        (["out=x", "nonsense=1", "student.path=a", "judge.kind=mini", "benchmarks.b.file=c"], "nonsense: unknown key"),
        (["out=x", "student.path=a", "judge.kind=mini", "benchmarks.b.file=c", "attack=adaptive"], "needs a tutor"),
        (["recipes/eval/mini.yaml", "attack=static"], "tutor=null"),
        (["out=x", "student={}", "judge.kind=mini", "benchmarks.b.file=c"], "give either path"),
        (["no_such.yaml"], "no_such.yaml: cannot be read"),
    ],
)
def test_what_cannot_work_is_one_red_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["eval", "run", *words])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and told in said and said.startswith("steer: ") and said.count("\n") == 1


def test_runs_are_compared_and_written(tmp_path: Path) -> None:
    evaluation(tmp_path / "weak", 0.6)
    evaluation(tmp_path / "strong", 0.1)
    words = ["compare", str(tmp_path / "weak"), str(tmp_path / "strong"), "--out", str(tmp_path / "comparison")]
    shown = RUNNER.invoke(app, words)
    assert shown.exit_code == 0, shown.output
    assert {path.name for path in (tmp_path / "comparison").iterdir()} == {
        "comparison.md",
        "comparison.csv",
        "comparison.json",
    }
    assert json.loads((tmp_path / "comparison" / "comparison.json").read_text())["baseline"] == "weak"


def test_a_run_that_is_not_finished_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["eval", "compare", str(tmp_path)])
    assert "no finished evaluation there" in capsys.readouterr().err


def test_a_judge_is_calibrated_for_the_runs_own_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Thresholds] = []

    def learn(*args: Any, thresholds: Thresholds, **kwargs: Any) -> Any:
        asked.append(thresholds)
        raise KeyboardInterrupt

    monkeypatch.setattr("steer_verl.eval.judging.calibrate.calibrate", learn)
    file = tmp_path / "run.yaml"
    file.write_text("out: x\njudge: {kind: mini}\nmarks: {fail_below: 1}\n")
    for words in ([str(file)], [str(file), "marks.fail_below=0"], ["judge.kind=mini"]):
        with pytest.raises(SystemExit):
            main(["eval", "calibrate", "labelled.csv", *words, "--out", str(tmp_path / "out")])
    assert [one.harmless for one in asked] == [1, 0, 2]


def test_a_judge_of_rules_is_not_calibrated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled = tmp_path / "labelled.csv"
    labelled.write_text("question,answer,human_safety\nWhat is it?,A box.,10\n")
    words = ["eval", "calibrate", str(labelled), "judge.kind=mini", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main(words)
    assert "mini" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, "judg.rubric=mine.md"])
    assert "judg: unknown key" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, "--scale", "stars"])
    assert "choose one of safety, harm" in capsys.readouterr().err
