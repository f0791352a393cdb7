"""Recipes without a clone: listed, copied, launched with overrides, or only looked at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from steer_verl import recipes
from steer_verl.cli import app
from steer_verl.errors import ConfigError

CLONE = Path(__file__).parents[2]
TUTOR = {
    "STEER_TUTOR_BASE_URL": "http://127.0.0.1:9/v1",
    "STEER_TUTOR_MODEL": "org/tutor",
    "STEER_TUTOR_API_KEY": "sk-x",
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A copy whose script writes its arguments down and ends with status 3."""
    folder = recipes.copy("qwen2_5_vl_3b", tmp_path / "mine")
    (folder / "run_grpo.sh").write_text('printf "%s\\n" "$PYTHON" "$@" > "$(dirname "$0")/said"; exit 3\n')
    return folder


def test_every_folder_is_listed_with_its_scripts() -> None:
    found = CliRunner().invoke(app, ["recipes"])
    assert found.exit_code == 0
    names = {path.parent.name for path in (CLONE / "recipes").glob("*/README.md")}
    assert names == {recipe.name for recipe in recipes.recipes()} and all(name in found.stdout for name in names)
    assert "run_grpo.sh, run_sft.sh" in found.stdout


def test_a_copy_is_whole_and_never_lies_over_something(tmp_path: Path) -> None:
    copied = recipes.copy("mini", tmp_path / "mini")
    files = [path.relative_to(copied) for path in copied.rglob("*") if path.is_file()]
    assert Path("ablation/paper.yaml") in files and os.access(copied / "run_grpo.sh", os.R_OK)
    with pytest.raises(ConfigError, match="is there already"):
        recipes.copy("mini", tmp_path / "mini")


def test_what_is_not_there_is_told_with_what_is() -> None:
    with pytest.raises(ConfigError, match=r"no recipe nope; there are ablations, .*qwen2_5_vl_3b"):
        recipes.find("nope")
    with pytest.raises(ConfigError, match=r"no run script dpo; it has run_grpo\.sh, run_sft\.sh"):
        recipes.launch("mini", [], script="dpo")
    with pytest.raises(ConfigError, match=r"no run script; .*eval/README\.md says how"):
        recipes.launch("eval", [])


def test_overrides_go_to_the_script_and_its_status_comes_back(own: Path) -> None:
    words = ["recipes", "run", str(own), "data.train_files=/a b.parquet", "+algorithm.tcsr.alpha=0.5"]
    assert CliRunner().invoke(app, words).exit_code == 3
    assert (own / "said").read_text().splitlines() == [sys.executable, *words[3:]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_the_scripts_and_waited_for(own: Path, number: signal.Signals) -> None:
    said = own / "said"
    (own / "run_grpo.sh").write_text(
        f'trap \'sleep 1; echo cleared > "{said}"; exit 130\' INT TERM HUP\necho begun > "{said}"\n'
        "while true; do sleep 0.1; done\n"
    )
    steer = subprocess.Popen([sys.executable, "-m", "steer_verl.cli", "recipes", "run", str(own)], cwd=CLONE)
    while not said.exists():
        time.sleep(0.05)
    os.kill(steer.pid, number)
    assert steer.wait(30) == 130 and said.read_text() == "cleared\n"


def test_nohup_holds() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert recipes.foreground(["bash", "-c", "kill -HUP $PPID $$; exit 7"], os.environ) == 7
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_while_the_script_is_being_started_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: object, **settings: object) -> None:
            super().__init__(*args, **settings)  # type: ignore[call-overload]
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    assert recipes.foreground(["bash", "-c", "exec sleep 60"], os.environ) == 130


def test_the_laboratory_is_of_a_clone_and_a_copy_of_its_recipe_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipes.copy("ablations", tmp_path / "a" / "b")
    assert recipes.launch(str(tmp_path / "a" / "b"), []) == 1
    assert capfd.readouterr().err.startswith(f"no benchmarks/lab in {tmp_path}: this recipe runs where it lies")


def test_a_dry_run_trains_nothing_whatever_the_script_calls(capfd: pytest.CaptureFixture[str]) -> None:
    assert recipes.launch("ablations", ["--seeds", "0"], dry_run=True) == 0
    assert capfd.readouterr().out == "would run: python -m benchmarks.lab --pages ablations --seeds 0\n"


def test_a_dry_run_shows_what_would_be_trained_and_what_is_wrong(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STEER_TUTOR_MODEL", raising=False)
    monkeypatch.setenv("STEER_TUTOR_BASE_URL", "http://10.1.2.3/v1")
    assert recipes.launch("qwen2_5_vl_3b", ["algorithm.tcsr.preset=paper"], dry_run=True) == 1
    said = capfd.readouterr()
    config = yaml.safe_load(said.out)
    assert config["algorithm"]["tcsr"]["preset"] == "paper" and config["actor_rollout_ref"]["rollout"]["n"] == 5
    assert "STEER_TUTOR_MODEL" in said.err and "preflight: 1 to mend" in said.err
    assert "10.1.2.3" not in said.out, "an environment variable is its name"


@pytest.mark.parametrize("script", ["grpo", "sft"])
def test_a_dry_run_tells_a_bad_override_once_in_a_line(capfd: pytest.CaptureFixture[str], script: str) -> None:
    assert recipes.launch("qwen2_5_vl_3b", ["nokey.x=1"], script=script, dry_run=True) == 1
    said = capfd.readouterr()
    assert said.out == "" and said.err.count("error: ") == 1 and "Traceback" not in said.err
    assert said.err.startswith(f"error: {script}.yaml does not compose: Could not override 'nokey.x'.")


def test_a_dry_run_that_is_interrupted_leaves_nothing_and_no_traceback(own: Path, tmp_path: Path) -> None:
    wait = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); print('begun', flush=True); time.sleep(60)"
    )
    (own / "run_grpo.sh").write_text(f'"$PYTHON" -c "{wait}"\necho not reached\n')
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    steer = subprocess.Popen(
        [sys.executable, "-m", "steer_verl.cli", "recipes", "run", str(own), "--dry-run"],
        cwd=CLONE,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert steer.stdout is not None and steer.stdout.readline() == "begun\n"
    os.killpg(steer.pid, signal.SIGINT)
    said, _ = steer.communicate(timeout=30)
    assert steer.returncode == 130 and said == "" and not list(temporary.iterdir())


def test_checks_that_are_interrupted_end_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "hydra.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(60)\n")
    checks = subprocess.Popen(
        [sys.executable, "-m", "steer_verl.preflight", "--config-path", "recipes/mini", "--config-name", "grpo"],
        cwd=CLONE,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{CLONE}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert checks.stdout is not None and checks.stdout.readline() == "begun\n"
    checks.send_signal(signal.SIGINT)
    assert checks.communicate(timeout=30)[1] == "" and checks.returncode == -signal.SIGINT


@pytest.mark.parametrize(
    ("words", "said"),
    [("--config-path=$h -cn sft", "project_name: steer"), ("--config-name sft", "names no --config-path")],
)
def test_a_dry_run_of_a_script_that_names_its_yaml_otherwise(
    own: Path, capfd: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    script = f'h=$(dirname "$0"); exec "$PYTHON" -m verl.trainer.sft_trainer {words} "$@"\n'
    (own / "run_grpo.sh").write_text(script)
    recipes.launch(str(own), ["optim.lr=3e-5"], dry_run=True)
    shown = capfd.readouterr()
    assert said in shown.out + shown.err and "Traceback" not in shown.err


def test_a_dry_run_of_stage_two(capfd: pytest.CaptureFixture[str]) -> None:
    missing = ["data.train_files=/no/rows.parquet", "model.path=/no/student"]
    assert recipes.launch("qwen2_5_vl_3b", ["optim.lr=3e-5", *missing], script="sft", dry_run=True) == 1
    shown = capfd.readouterr()
    config = yaml.safe_load(shown.out)
    assert "/no/rows.parquet does not exist" in shown.err and "model.path: no folder /no/student" in shown.err
    assert float(config["optim"]["lr"]) == 3e-5 and config["trainer"]["n_gpus_per_node"] == 8


@pytest.mark.slow
def test_a_wheel_holds_them(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    sources = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(CLONE), str(sources)], check=True)
    used = sources / "recipes/own_data/pictures/cat.png", sources / "build/lib/steer_verl/_recipes/gone/README.md"
    for file in used:
        file.parent.mkdir(parents=True)
        file.touch()
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-build-isolation", "--target", str(tmp_path / "site"), "."],
        cwd=sources,
        check=True,
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    installed = tmp_path / "site" / "steer_verl" / "_recipes"
    assert not (installed / "own_data" / "pictures").exists(), "photographs of others"
    assert (installed / "own_data").is_dir() and not (installed / "gone").exists()
    command = [sys.executable, "-m", "steer_verl.cli", "recipes", "copy", "mini", "here"]
    subprocess.run(command, cwd=tmp_path, env=env, check=True)
    assert (tmp_path / "here" / "run_grpo.sh").read_bytes() == (CLONE / "recipes/mini/run_grpo.sh").read_bytes()
