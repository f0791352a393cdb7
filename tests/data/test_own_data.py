"""recipes/own_data: the photographs come out of wheels, and its dialogues pass the checks."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from recipes.own_data import photos
from steer_verl.data.commands import app
from steer_verl.data.rows.check import Rules
from steer_verl.data.rows.parquet import load_seeds
from steer_verl.types import DialogueKind

RECIPE = Path(photos.__file__).parent


def wheels(folder: Path, members: list[str]) -> Path:
    """Two wheels that hold large drawn pictures under the given names."""
    folder.mkdir(exist_ok=True)
    for package in photos.REQUIREMENTS:
        with zipfile.ZipFile(folder / f"{package}-1-py3-none-any.whl", "w") as archive:
            for number, member in enumerate(members):
                if member.startswith(package + "/"):
                    data = io.BytesIO()
                    Image.new("RGB", (900, 500 + number), "green").save(
                        data, "PNG" if member.endswith("png") else "JPEG"
                    )
                    archive.writestr(member, data.getvalue())
    return folder


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RECIPE / "photos.py"), *map(str, words)]
    root = str(RECIPE.parents[1])
    return subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": root, "PATH": ""}, check=False)


def test_photographs_come_out_of_wheels_and_the_dialogues_convert(tmp_path: Path) -> None:
    result = run("--wheels", wheels(tmp_path / "wheels", list(photos.PHOTOS.values())), "--out", tmp_path / "pictures")
    assert result.returncode == 0, result.stderr
    for name in photos.PHOTOS:
        with Image.open(tmp_path / "pictures" / f"{name}.jpg") as image:
            assert image.format == "JPEG" and max(image.size) == photos.MAX_SIDE
    source, target = RECIPE / "dialogues.jsonl", tmp_path / "train.parquet"
    converted = CliRunner().invoke(app, ["convert", str(source), str(target), "--image-root", str(tmp_path)])
    assert converted.exit_code == 0, converted.output
    seeds = load_seeds(source, rules=Rules(image_root=tmp_path))
    assert load_seeds(target) == seeds
    assert {seed.kind for seed in seeds} == set(DialogueKind)
    assert all(3 <= len(seed.turns) <= 4 and seed.source and seed.license and seed.facts["shows"] for seed in seeds)
    assert any(turn.images for seed in seeds for turn in seed.turns[1:]), "a picture in a later turn"
    used = {Path(path).stem for seed in seeds for turn in seed.turns for path in turn.images}
    assert used == set(photos.PHOTOS)


def test_a_missing_photograph_is_one_line(tmp_path: Path) -> None:
    result = run("--wheels", wheels(tmp_path, list(photos.PHOTOS.values())[1:]), "--out", tmp_path / "pictures")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1 and "chelsea.png" in result.stderr


def test_an_installed_package_is_looked_into_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "skimage"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "data" / "coffee.png").write_bytes(b"picture")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert photos.from_package("skimage/data/coffee.png") == b"picture"
    assert photos.from_package("skimage/data/none.png") is None
    assert photos.from_package("no_such_package_here/a.png") is None
