"""The commands that the pages show are run, as they stand, in a folder that has the files they name.

Those that ask a model, train, or start Ray have tests of their own against real servers; :data:`ELSEWHERE` says where.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image
from typer.testing import CliRunner

from steer_verl.cli import app
from steer_verl.mini import model as mini_model
from steer_verl.preflight.compose import compose
from steer_verl.transcripts import TranscriptLog
from steer_verl.types import DialogueKind, QuestionOrigin, Scores, StopReason, Trajectory, Turn, UserTurn, Verdict
from tests.docs.pages import PAGES, ROOT, command_lines, rows, words
from tests.eval.evaluations import evaluation

ELSEWHERE = {
    "data build": "tests/data/test_build.py",
    "data check out/steer": "tests/data/test_build.py",
    "data convert recipes/own_data": "tests/data/test_own_data.py",
    "doctor": "tests/test_doctor.py",
    "eval calibrate": "tests/eval/judging",
    "eval rejudge": "tests/eval/test_rejudge.py",
    "eval retry": "tests/eval/test_retry.py",
    "eval run": "tests/eval",
    "preflight": "tests/test_preflight.py",
    "recipes run": "tests/recipes/test_launch.py",
    "tutor calibrate": "tests/cli",
    "tutor check": "tests/cli",
    "tutor log": "tests/cli",
    "tutor replay": "tests/cli",
}
"""First words of a command -> who runs it."""
PLACEHOLDER = re.compile(r"^[A-Z_]+$|<\w+>")


def shown() -> Iterator[tuple[str, str]]:
    """(page, command line) of every whole command that is not run elsewhere, each once, in the order of the pages."""
    seen = set()
    for page in PAGES:
        for line in command_lines(page):
            found = words(line.split(" #")[0])
            if not found or found[0].split("/")[-1] != "steer" or len(found) < 3:
                continue
            command = " ".join(found[1:])
            if command in seen or any(PLACEHOLDER.search(word) for word in found) or command.startswith((*ELSEWHERE,)):
                continue
            if not re.search(r"(^| )[\w$./*{},-]*[./][\w$./*{},-]*", command) and "recipes" not in command:
                continue  # a command's name in a sentence
            seen.add(command)
            yield str(page.relative_to(ROOT)), command


def trajectory(number: int) -> Trajectory:
    """A dialogue of one good turn."""
    good = Verdict(scores=Scores(safety=9, usefulness=6, faithfulness=10))
    asked = UserTurn(text="What is in the cup?")
    turn = Turn(user=asked, origin=QuestionOrigin.SEED, answer="<answer>Tea.</answer>", verdict=good)
    return Trajectory(
        seed_id=f"s{number}", kind=DialogueKind.BENIGN, turns=(turn,), stop=StopReason.COMPLETED, step=number
    )


def steer(*args: str) -> Any:
    """As on the command line."""
    return CliRunner().invoke(app, args)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, students, evaluations, trainings and logs under the names that the pages give them."""
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "recipes").mkdir()
    for recipe in (ROOT / "recipes").glob("*/README.md"):
        (folder / "recipes" / recipe.parent.name).symlink_to(recipe.parent)
    Image.new("RGB", (84, 84), (200, 90, 40)).save(folder / "cup.png")
    for name in ("dialogues", "seeds", "heldout", "rl"):
        (folder / f"{name}.jsonl").write_text(rows(name, 3))
    for run, broken in {"eval/base": 0.6, "eval/ours": 0.1, "demo/eval/sft": 0.5, "demo/eval/grpo": 0.0}.items():
        evaluation(folder / "out" / run, broken)
    for run in ("eval/multi_turn/base", "eval/multi_turn/ours"):
        evaluation(folder / "out" / run, 0.1)
    for log in ("logs/theirs", "out/inspect/sft/one", "out/inspect/grpo/one"):
        assert steer("eval", "export", f"{folder}/out/eval/base", "--out", f"{folder}/{log}.eval").exit_code == 0
    for run in ("demo/grpo", "grpo"):
        log = TranscriptLog(folder / "out" / run / "transcripts")
        for number in range(4):
            log.append(trajectory(number))
    (folder / "out" / "grpo.log").write_text("".join(f"step:{n} - critic/score/mean:{n / 10}\n" for n in (1, 2, 3)))
    mini_model.build(folder / "out" / "grpo" / "hf")
    training = folder / "checkpoints" / "steer" / "run" / ".hydra"
    training.mkdir(parents=True)
    OmegaConf.save(compose(ROOT / "recipes" / "qwen2_5_vl_3b", "grpo", []), training / "config.yaml")
    return folder


def test_what_the_pages_show_runs(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the pages: a later command reads what an earlier one wrote."""
    monkeypatch.chdir(workshop)
    monkeypatch.setenv("HOME", str(workshop))
    ran = []
    for page, command in shown():
        expanded = subprocess.run(
            ["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, text=True, check=True, env=os.environ
        )
        done = steer(*expanded.stdout.split("\0")[:-1])
        assert done.exit_code == 0, f"{page}: steer {command}: {done.output} {done.exception}"
        ran.append(command)
    assert len(ran) >= 20


def test_who_runs_the_others_is_there() -> None:
    assert all((ROOT / place).exists() for place in ELSEWHERE.values())
