"""The ``steer`` command: quick to start, and errors are one line."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from steer_verl import cli
from steer_verl.console import stdout
from steer_verl.errors import ConfigError

COMMANDS = ("doctor", "data", "mini", "preflight", "demo", "transcripts")


def steer(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "steer_verl.cli", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "NO_COLOR": "1"})


def test_help_lists_every_command() -> None:
    said = CliRunner().invoke(cli.app, ["--help"])
    assert said.exit_code == 0 and all(command in said.output for command in COMMANDS)


def test_start_loads_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "verl", "openai", "matplotlib", "numpy", "ray", "pandas", "inspect_ai"]
    code = "import sys, steer_verl.cli as c; from typer.main import get_command; get_command(c.app); "
    code += f"print([name for name in {heavy} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert said.stdout.strip() == "[]", said.stderr


def test_help_is_quick() -> None:
    """Under half a second, measured against what this busy machine takes to start Python at all."""

    def seconds(*argv: str) -> float:
        best = 99.0
        for _ in range(3):
            began = time.perf_counter()
            subprocess.run([sys.executable, *argv], capture_output=True, check=True, timeout=60)
            best = min(best, time.perf_counter() - began)
        return best

    bare = seconds("-c", "pass")
    assert seconds("-m", "steer_verl.cli", "--help") < 0.5 + 10 * bare


def test_an_error_a_user_can_act_on_is_one_line(tmp_path: Path) -> None:
    said = steer("transcripts", str(tmp_path))
    assert said.returncode == 1 and said.stdout == ""
    assert said.stderr.startswith("steer: ") and len(said.stderr.strip().splitlines()) == 1
    assert "Traceback" not in said.stderr


def test_the_line_is_red_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, object]] = []

    def fail(*, args: object) -> None:
        raise ConfigError("alpha: 2 is too much; choose 0..1")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(cli.typer, "secho", lambda text, fg, err: shown.append((text, fg)))
    with pytest.raises(SystemExit) as status:
        cli.main([])
    assert status.value.code == 1 and shown == [("steer: alpha: 2 is too much; choose 0..1", "red")]


def test_what_cannot_be_imported_is_one_line_that_names_the_doctor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As transformers says it where torchvision does not load."""

    def build(*args: object, **settings: object) -> None:
        raise ModuleNotFoundError("Could not import module 'Qwen2_5_VLProcessor'.")

    monkeypatch.setattr("steer_verl.mini.model.build", build)
    with pytest.raises(SystemExit) as status:
        cli.main(["mini", "model", "--out", str(tmp_path)])
    said = capsys.readouterr().err
    assert status.value.code == 1 and said.startswith("steer: Could not import") and "`steer doctor` says" in said


@pytest.mark.parametrize("command", ["data", "eval", "tutor", "report"])
def test_a_group_of_commands_has_no_options_of_typers_own(command: str) -> None:
    assert "completion" not in steer(command, "--help").stdout


def test_recipes_says_that_it_lists_them() -> None:
    assert "List the recipes" in steer("recipes", "--help").stdout


def test_a_result_is_printed_whatever_the_terminal_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """A locale without UTF-8; a file's name that is no text."""
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, "ascii", "strict"))
    monkeypatch.setattr(cli, "app", lambda args: stdout().print("élan \udcff"))
    cli.main([])
    sys.stdout.flush()
    assert shown.getvalue() == b"?lan ?\n"


def test_a_log_begins_with_words(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    assert steer("data", "check", str(tmp_path / "rows.jsonl")).stderr.startswith(str(tmp_path))


def test_data_hands_its_arguments_on() -> None:
    said = steer("data", "--help")
    assert said.returncode == 0 and "convert" in said.stdout and "check" in said.stdout
    assert steer("data", "convert", "--help").returncode == 0
    assert steer("data", "nonsense").returncode == 2


def test_preflight_finds_modules_where_a_training_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert CliRunner().invoke(cli.app, ["preflight", "--config-path", ".", "--config-name", "none"]).exit_code == 1
    assert str(tmp_path) in sys.path


def test_unknown_options_are_refused() -> None:
    assert steer("mini", "eval", "--nonsense").returncode == 2
    assert steer("demo", "--sed", "3").returncode == 2


def test_an_interrupted_demo_says_that_it_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*args: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("steer_verl.demo.report.run_demo", interrupted)
    said = CliRunner().invoke(cli.app, ["demo", "--out", str(tmp_path)])
    assert said.exit_code == 130 and "goes on" in said.output


def test_mini_data_and_model_write_what_the_recipe_reads(tmp_path: Path) -> None:
    said = steer("mini", "data", "--out", str(tmp_path / "data"), "--quick", "--seed", "3")
    assert said.returncode == 0, said.stderr
    names = {path.name for path in (tmp_path / "data").iterdir()}
    assert {"rl_train.parquet", "rl_val.parquet", "rl_test.jsonl", "pretrain.parquet", "sft.parquet"} <= names
