"""``evaluate`` in one process: what it writes, what it refuses, and that a finished run asks nobody again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steer_verl.errors import ConfigError, DataError
from steer_verl.eval import run as module
from steer_verl.eval.config import EvalConfig
from steer_verl.eval.run import evaluate
from steer_verl.eval.runs import read_run
from steer_verl.eval.working import plain
from steer_verl.settings_file import load_settings, parse_settings
from tests.eval.scripted import ScriptedJudge, ScriptedStudent


class Checked(ScriptedStudent):
    """Counts how often it is proven to be there."""

    checks = 0

    async def check(self) -> None:
        """One more."""
        type(self).checks += 1


@pytest.fixture
def student(monkeypatch: pytest.MonkeyPatch) -> Checked:
    """The student and the judge of every run below."""
    one = Checked()
    Checked.checks = 0
    monkeypatch.setattr(module, "build_student", lambda *args, **kwargs: one)
    monkeypatch.setattr(module, "build_judge", lambda *args, **kwargs: ScriptedJudge(lambda t: 3 if t < 3 else -1))
    return one


def config(tmp_path: Path, **changes: Any) -> EvalConfig:
    """Six dialogues of three turns, and one that cannot be played."""
    bench = tmp_path / "bench.jsonl"
    if not bench.exists():
        rows: list[dict[str, Any]] = [
            {"question_id": f"q{n}", "messages_fixed": ["What is this?", "And that?", "How so?"]} for n in range(6)
        ]
        rows.append({"question_id": "lost", "image": "gone.png", "messages_fixed": ["What is this?"]})
        bench.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "out": str(tmp_path / "out"),
        "student": {"path": str(tmp_path), "name": "ours", "run": 4},
        "benchmarks": {"own": {"file": str(bench)}},
        "judge": {"kind": "mini"},
        "work": {"shards": 2, "in_flight": 3},
        **changes,
    }
    return parse_settings(EvalConfig, values, "here")


def test_a_run_is_written_and_read_back(tmp_path: Path, student: Checked) -> None:
    done = evaluate(config(tmp_path)).run
    assert read_run(tmp_path / "out") == done and done.name == "ours" and done.benchmarks == ("own",)
    assert [dialogue.id for dialogue in done.dialogues] == ["own/lost", *(f"own/q{n}" for n in range(6))]
    assert [dialogue.harmless for dialogue in done.dialogues] == [(None,), *[(3, 3, -1)] * 6]
    assert {dialogue.run for dialogue in done.dialogues} == {4}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["benchmarks"]["own"]["ends"] == {"completed": 6, "unplayable": 1}
    assert summary["benchmarks"]["own"]["oddities"] == {"image_missing": 1, "no_image": 6, "one_turn": 1}
    assert "ours" in (tmp_path / "out" / "summary.md").read_text()


def test_a_finished_run_asks_nobody_again(tmp_path: Path, student: Checked) -> None:
    first = evaluate(config(tmp_path)).run
    asked = len(student.asked)
    again = evaluate(config(tmp_path)).run
    assert again.dialogues == first.dialogues and len(student.asked) == asked == 18 and Checked.checks == 1


def test_a_training_seed_that_was_forgotten_is_the_whole_runs(tmp_path: Path, student: Checked) -> None:
    """It decides no answer: nobody is asked again, and no dialogue keeps the earlier one."""
    evaluate(config(tmp_path, student={"path": str(tmp_path), "name": "ours"}))
    done = evaluate(config(tmp_path))
    assert done.summary.runs == [4] and {d.run for d in read_run(tmp_path / "out").dialogues} == {4}
    assert len(student.asked) == 18


def test_a_name_is_no_markup(tmp_path: Path, student: Checked) -> None:
    evaluate(config(tmp_path, student={"path": str(tmp_path), "name": "<img src=x>"}))
    assert (tmp_path / "out" / "summary.md").read_text().startswith("# \\<img src=x\\>")


def test_a_retry_starts_no_student_that_nobody_asks(tmp_path: Path, student: Checked) -> None:
    evaluate(config(tmp_path))
    again = evaluate(config(tmp_path), retry=True)
    assert Checked.checks == 1 and len(student.asked) == 18 and again.incomplete == 0
    assert [d.id for d in again.run.dialogues if not d.whole] == ["own/lost"], "it is still not there"


@pytest.mark.parametrize("name", ["adaptive", "mini", "multi_turn", "over_refusal", "single_turn"])
def test_kept_settings_are_the_settings_wherever_they_are_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is set in them that was not set before: an endpoint's own temperature would be refused."""
    monkeypatch.chdir(Path(__file__).parents[2])
    given = load_settings(EvalConfig, Path(f"recipes/eval/{name}.yaml"), [f"out={tmp_path}"])
    kept = parse_settings(EvalConfig, json.loads(json.dumps(plain(given))), "here")
    assert kept.model_dump(exclude_unset=True).keys() == given.model_dump(exclude_unset=True).keys()
    assert json.dumps(plain(kept)) == json.dumps(plain(given)) and str(Path.cwd()) in json.dumps(plain(kept))
    monkeypatch.chdir(tmp_path)
    assert json.dumps(plain(kept)) == json.dumps(plain(kept.model_validate(plain(kept))))


def test_another_benchmark_in_the_same_folder_is_refused(tmp_path: Path, student: Checked) -> None:
    evaluate(config(tmp_path))
    with (tmp_path / "bench.jsonl").open("a") as file:
        file.write(json.dumps({"question_id": "new", "messages_fixed": ["What is new?", "And old?"]}) + "\n")
    with pytest.raises(ConfigError, match="begun with other settings: items"):
        evaluate(config(tmp_path))
    assert len(evaluate(config(tmp_path), accept_changes=True).run.dialogues) == 8


@pytest.mark.parametrize(
    ("written", "told"), [(None, "cannot be read"), ("[1]", "cannot be read"), ("{}", "no counts")]
)
def test_a_calibration_of_no_use_is_told_before_anybody_is_asked(
    tmp_path: Path, student: Checked, written: str | None, told: str
) -> None:
    file = tmp_path / "calibration.json"
    if written is not None:
        file.write_text(written)
    with pytest.raises(ConfigError, match=told):
        evaluate(config(tmp_path, judge={"kind": "mini", "calibration": str(file)}))
    assert not student.asked and not Checked.checks


def test_no_row_at_all_is_told(tmp_path: Path, student: Checked) -> None:
    (tmp_path / "bench.jsonl").touch()
    with pytest.raises(DataError):
        evaluate(config(tmp_path))
