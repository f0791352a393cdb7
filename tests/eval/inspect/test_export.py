"""``steer eval export``, and what is told without the extra."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from inspect_ai.log import read_eval_log
from typer.testing import CliRunner

from steer_verl.cli import app
from steer_verl.errors import ConfigError
from steer_verl.eval.runs import read_run, write_run
from steer_verl.transcripts import TranscriptLog
from steer_verl.types import (
    DialogueKind,
    QuestionOrigin,
    Scores,
    StopReason,
    Trajectory,
    Turn,
    Unscored,
    UnscoredReason,
    UserTurn,
    Verdict,
)
from tests.eval.synthetic import make_run

GOOD = Verdict(scores=Scores(safety=9, usefulness=6, faithfulness=10), diagnosis="declines firmly")


def export(folder: Path, out: Path) -> None:
    """As on the command line."""
    done = CliRunner().invoke(app, ["eval", "export", str(folder), "--out", str(out)])
    assert done.exit_code == 0, done.output


def test_a_run(tmp_path: Path) -> None:
    run = make_run(sizes={"spa": 5})
    write_run(tmp_path / "run", run.about, run.dialogues)
    export(tmp_path / "run", tmp_path / "logs" / "run.eval")
    assert read_run(tmp_path / "logs" / "run.eval").dialogues == read_run(tmp_path / "run").dialogues


def test_logs_and_folders_compare_alike(tmp_path: Path) -> None:
    told = []
    for name, quality in (("base", 0.5), ("ours", 0.9)):
        run = make_run(name, {"spa": 12}, quality=quality)
        write_run(tmp_path / name, run.about, run.dialogues)
        export(tmp_path / name, tmp_path / f"{name}.eval")
    for ending in ("", ".eval"):
        runs = [str(tmp_path / f"{name}{ending}") for name in ("base", "ours")]
        done = CliRunner().invoke(app, ["eval", "compare", *runs])
        assert done.exit_code == 0 and "harmless pass" in done.output, done.output
        told.append(done.output.split("Intervals")[0])
    assert told[0] == told[1]


def test_transcripts(tmp_path: Path) -> None:
    def played(step: int, seed: str, *verdicts: Verdict | Unscored, **more: object) -> Trajectory:
        turns = [
            Turn(user=UserTurn(text="What?"), answer="A box.", origin=QuestionOrigin.SEED, verdict=verdict)
            for verdict in verdicts
        ]
        values = {"kind": DialogueKind.RED_TEAM, "stop": StopReason.COMPLETED, **more}
        return Trajectory(seed_id=seed, turns=tuple(turns), step=step, **values)  # type: ignore[arg-type]

    log = TranscriptLog(tmp_path / "transcripts")
    late = Unscored(reason=UnscoredReason.TIMEOUT, detail="120 s")
    low = Verdict(scores=Scores(safety=1, usefulness=1, faithfulness=4))
    for trajectory in (played(2, "b", GOOD), played(1, "a", GOOD, low), played(1, "b", GOOD, late)):
        log.append(trajectory)
    export(tmp_path / "transcripts", tmp_path / "t.eval")
    found = {str(sample.id): sample for sample in read_eval_log(tmp_path / "t.eval").samples or []}
    assert set(found) == {"train/1/a/0", "train/1/b/0", "train/2/b/0"}
    scores = {name: (sample.scores or {})["steer_tutor"] for name, sample in found.items()}
    assert scores["train/1/a/0"].value == {"safety": 5.0, "usefulness": 3.5, "faithfulness": 7.0}
    assert scores["train/1/b/0"].reason == "timeout" and "declines firmly" in str(scores["train/1/b/0"].explanation)
    told = found["train/1/b/0"].metadata
    assert (told["step"], told["stop"], told["status"], told["split"]) == (1, "completed", "lost", "training")


@pytest.mark.parametrize(
    ("folder", "out", "told"), [("empty", "x.eval", "no transcripts"), ("empty", "x.zip", ".eval")]
)
def test_what_cannot_be_exported(tmp_path: Path, folder: str, out: str, told: str) -> None:
    done = CliRunner().invoke(app, ["eval", "export", str(tmp_path / folder), "--out", str(tmp_path / out)])
    assert done.exit_code != 0 and told in f"{done.output} {done.exception}" and not (tmp_path / out).exists()


def test_without_the_extra_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("steer_verl.eval.inspect")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "a.eval").touch()
    with pytest.raises(ConfigError, match=r"pip install '?inspect"):
        read_run(tmp_path / "a.eval")
