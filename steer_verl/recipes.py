"""The recipes as they were installed: listed, copied into a folder of one's own, or launched where they lie.

A recipe is a folder of yaml and run scripts. ``python -m steer_verl.recipes`` stands for the interpreter of a run
script in a dry run: checks run as ever, and where the training would begin its composed configuration is printed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path

from steer_verl.errors import ConfigError
from steer_verl.processes.child import ENDINGS
from steer_verl.records import copy_folder

PACKAGE = Path(__file__).resolve().parent
README = "README.md"
FAILED = "STEER_DRY_RUN_FAILED"
"""Environment variable: the file that says that a check of a dry run has failed."""
CHECK, TRAINERS = "steer_verl.preflight", ("verl.trainer.main_ppo", "verl.trainer.sft_trainer")


@dataclass(frozen=True)
class Recipe:
    """A folder of recipes/."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's."""
        return self.folder.name

    @property
    def title(self) -> str:
        """The first line of its README."""
        return (self.folder / README).read_text(encoding="utf-8").splitlines()[0].lstrip("# ")

    @property
    def scripts(self) -> list[str]:
        """Its run scripts."""
        return sorted(path.name for path in self.folder.glob("run*.sh"))

    def script(self, name: str | None) -> Path:
        """A run script: ``grpo`` or ``run_grpo.sh``; unless named the only one, or that of GRPO.

        Raises:
            ConfigError: it has none of that name.
        """
        wanted = [name, f"{name}.sh", f"run_{name}.sh"] if name else ["run.sh", "run_grpo.sh"]
        for one in wanted:
            if one in self.scripts:
                return self.folder / str(one)
        called = f" {name}" if name else ""
        has = f"it has {', '.join(self.scripts)}" if self.scripts else f"{self.folder / README} says how it is used"
        raise ConfigError(f"recipe {self.name}: no run script{called}; {has}")


def root() -> Path:
    """Where they lie: in the installed package, or beside it in a clone."""
    installed = PACKAGE / "_recipes"
    return installed if installed.is_dir() else PACKAGE.parent / "recipes"


def recipes() -> list[Recipe]:
    """All of them, by name."""
    return [Recipe(path.parent) for path in sorted(root().glob(f"*/{README}"))]


def find(name: str) -> Recipe:
    """One of them.

    Raises:
        ConfigError: there is none of that name.
    """
    found = {recipe.name: recipe for recipe in recipes()}
    if name not in found:
        raise ConfigError(f"no recipe {name}; there are {', '.join(found)}")
    return found[name]


def copy(name: str, to: Path) -> Path:
    """Copy a recipe; its scripts run from wherever they lie.

    Raises:
        ConfigError: there is no such recipe, or ``to`` is there already.
        SteerError: the disk is full, or cannot be written.
    """
    if to.exists() or to.is_symlink():
        raise ConfigError(f"{to}: is there already; name a folder that is not")
    copy_folder(find(name).folder, to)
    return to


def launch(name: str, overrides: Sequence[str], *, script: str | None = None, dry_run: bool = False) -> int:
    """Run a recipe's script with overrides appended; its exit status, in a dry run 1 where a check has failed.

    Args:
        name: a recipe, or the folder of a copy.
        overrides: verl's, in Hydra's syntax.
        script: see :meth:`Recipe.script`.
        dry_run: check, and print the composed configuration in place of training.

    Raises:
        ConfigError: there is no such recipe or script.
    """
    recipe = Recipe(Path(name)) if (Path(name) / README).is_file() else find(name)
    command = ["bash", str(recipe.script(script)), *overrides]
    env = {"PYTHON": sys.executable, **os.environ}
    if not dry_run:
        return foreground(command, env)
    with tempfile.TemporaryDirectory(prefix="steer-dry-run-") as folder:
        stand_in, failed = Path(folder) / "python", Path(folder) / "failed"
        stand_in.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {__name__} "$@"\n')
        stand_in.chmod(0o700)
        env |= {"PYTHON": str(stand_in), FAILED: str(failed)}
        return foreground(command, env) or int(failed.exists())


def foreground(command: Sequence[str], env: Mapping[str, str]) -> int:
    """Run a script to its end, whatever signal comes: it is handed on to the script, which takes away what it started.

    What is ignored stays so, for the script too: ``nohup`` holds.

    Returns:
        The script's exit status; 128 + n where a signal n ended it.
    """
    started, early = list[subprocess.Popen[bytes]](), list[int]()

    def hand_on(number: int, _: object) -> None:
        if started:
            started[0].send_signal(number)
        else:
            early.append(number)

    heard = [number for number in ENDINGS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, hand_on) for number in heard}
    try:
        with subprocess.Popen(command, env=env) as script:
            started.append(script)
            for number in early:
                script.send_signal(number)
            status = script.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def stand_in(argv: Sequence[str]) -> int:
    """What a script's interpreter is asked for, if it is a question or a check; all else is shown alone."""
    modules = [word for before, word in pairwise(argv) if before == "-m"]
    trainer = next((module for module in modules if module in TRAINERS), None)
    failed = Path(os.environ[FAILED])
    if trainer:
        try:
            _show(argv[argv.index(trainer) + 1 :])
        except ConfigError as error:
            if not failed.exists():  # else the check has told it
                print(f"error: {error}", file=sys.stderr)
            return 1
        return 0
    if modules and CHECK not in modules:
        print(f"would run: {shlex.join(['python', *argv])}")
        return 0
    status = subprocess.run([sys.executable, *argv]).returncode
    if CHECK in modules and status:
        failed.touch()  # the configuration is shown all the same
        return 0
    return status


def _show(argv: Sequence[str]) -> None:
    """Print the configuration that a trainer would have, with the environment's variables by their names."""
    from omegaconf import OmegaConf

    from steer_verl.preflight.compose import compose

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)  # Hydra's options, in its spellings
    parser.add_argument("--config-path", "-cp")
    parser.add_argument("--config-name", "-cn")
    options, rest = parser.parse_known_args(argv)
    if options.config_path is None or options.config_name is None:
        raise ConfigError("the run script names no --config-path and --config-name; give both, as the recipe has it")
    overrides = [word for word in rest if not word.startswith("-")]
    print(OmegaConf.to_yaml(compose(options.config_path, options.config_name, overrides)), end="")


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGPIPE):  # Ctrl-C, and the end of a pager, are its end without a traceback
        signal.signal(number, signal.SIG_DFL)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path that is no text, or not this locale's
    sys.exit(stand_in(sys.argv[1:]))
