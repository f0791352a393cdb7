"""The script that says whether a recipe is fit for verl's collection, on ours and on spoilt copies."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"


def offer(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RECIPES / "offer.py"), str(folder), "--owner", "@someone"]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("name", sorted(path.parent.name for path in RECIPES.glob("*/grpo.yaml")))
def test_ours_are(name: str) -> None:
    found = offer(RECIPES / name)
    assert found.returncode == 0, found.stderr
    assert f"/{name} @someone" in found.stdout and f"{name}/REQUIRED_VERL.txt" in found.stdout


SPOILT = {
    "no pin": ("REQUIRED_VERL.txt", "", None, "REQUIRED_VERL.txt: is not there"),
    "no release": ("REQUIRED_VERL.txt", "verl==0.9.1", "verl", "PIP_INSTALL is `pip install verl==RELEASE`"),
    "another recipe's pin": (
        "REQUIRED_VERL.txt",
        "RECIPE_FOLDER=mini",
        "RECIPE_FOLDER=x",
        "RECIPE_FOLDER is x, not mini",
    ),
    "README without the pin": ("README.md", "(REQUIRED_VERL.txt)", "", "README.md: a line"),
    "a link to nothing": ("README.md", "## Run", "[x](gone.md)", "README.md: gone.md is not in the folder"),
    "a script that leads out": ("run_grpo.sh", "exec", "cd ../..; exec", "run_grpo.sh: ../..; leads out"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_to_mend_is_told(tmp_path: Path, what: str) -> None:
    file, old, new, said = SPOILT[what]
    folder = Path(shutil.copytree(RECIPES / "mini", tmp_path / "mini"))
    if new is None:
        (folder / file).unlink()
    else:
        assert old in (folder / file).read_text()
        (folder / file).write_text((folder / file).read_text().replace(old, new))
    found = offer(folder)
    assert found.returncode == 1 and said in found.stderr and not found.stdout
