"""Every command that writes: a place that cannot be written to, and a full disk, are one line and no traceback."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from steer_verl.cli import main
from steer_verl.errors import SteerError, disk_error
from steer_verl.records import copy_folder
from tests.eval.evaluations import evaluation

NOBODY = "{base_url: 'http://127.0.0.1:9/v1', model: m}"
STUDENT, JUDGE = f"student.endpoint={NOBODY}", f"judge.endpoint={NOBODY}"
SERVER = ["--base-url", "http://127.0.0.1:9/v1", "--model", "m"]
COMMANDS = {
    "compare": ["eval", "compare", "{run}", "--out", "{out}"],
    "eval run": ["eval", "run", "out={out}", STUDENT, JUDGE, "benchmarks.b.file={rows}"],
    "eval rejudge": ["eval", "rejudge", "{run}", JUDGE, "--out", "{out}"],
    "eval calibrate": ["eval", "calibrate", "{labelled}", JUDGE, "--out", "{out}"],
    "report": ["report", "{run}", "--out", "{out}/page.html"],
    "convert": ["data", "convert", "{rows}", "{out}/rows.parquet"],
    "build": ["data", "build", "{build}", "out={out}", "--until", "seeds"],
    "tutor calibrate": ["tutor", "calibrate", "{labelled}", *SERVER, "--out", "{out}"],
    "mini data": ["mini", "data", "--out", "{out}", "--quick"],
    "mini model": ["mini", "model", "--out", "{out}"],
    "demo": ["demo", "--out", "{out}", "--quick"],
    "recipes copy": ["recipes", "copy", "mini", "{out}"],
    "tutor check": ["tutor", "check", *SERVER, "--json", "{out}/found.json"],
    "data check": ["data", "check", "{plain}", "--report", "{out}/bad.jsonl"],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    evaluation(folder / "run", 0.3)
    (folder / "rows.jsonl").write_text(json.dumps({"id": "a", "turns": [{"text": "What is it?"}]}) + "\n")
    (folder / "labelled.csv").write_text("question,answer,human_safety\nWhat is it?,A box.,10\n")
    (folder / "plain.jsonl").write_text(json.dumps({"question": "What is it?", "license": "MIT"}) + "\n")
    source = f"{{set: plain, path: {folder / 'plain.jsonl'}}}"
    (folder / "build.yaml").write_text(f"out: x\nagents: {{endpoint: {NOBODY}}}\nsources: [{source}]\n")
    names = ("run", "rows.jsonl", "labelled.csv", "build.yaml", "plain.jsonl")
    return {Path(name).stem: folder / name for name in names}


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["below a file", "not ours", "full"])
def test_one_line(
    command: str, place: str, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = {"below a file": tmp_path / "file" / "out", "not ours": Path("/sys/steer"), "full": tmp_path / "out"}[place]
    words = [word.format(out=out, **files) if word not in (STUDENT, JUDGE) else word for word in COMMANDS[command]]
    with pytest.raises(SystemExit) as ended:
        if place == "full":
            with full_disk():
                main(words)
        else:
            main(words)
    said = capsys.readouterr().err
    assert ended.value.code == 1 and "Traceback" not in said
    assert re.search(r"(?m)^(steer: )?/\S+: (cannot be (read or )?written|disk I/O error)", said), "the file is named"
    assert not list(tmp_path.rglob("*.tmp")) and not (tmp_path / "out/found.json").exists(), "nothing half-written"


def test_a_folder_is_copied_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name in ("a/b/c.txt", "a/__pycache__/d.pyc", "e.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    with full_disk(), pytest.raises(SteerError, match=rf"^{tmp_path}/copy: cannot be written .*; make room"):
        copy_folder(folder, tmp_path / "copy")
    assert os.listdir(tmp_path) == ["folder"]
    copy_folder(folder, tmp_path / "copy")
    found = {path.relative_to(tmp_path / "copy") for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert found == {Path("a/b/c.txt"), Path("e.txt")}


def test_the_hint_fits_the_fault() -> None:
    def told(number: int) -> str:
        return str(disk_error(OSError(number, os.strerror(number), "a\x1bb")))

    assert told(errno.ENOSPC).startswith("a\ufffdb: cannot be read or written (No space left on device); make room")
    assert "you may write to" in told(errno.EROFS) and "part of this path is a file" in told(errno.ENOTDIR)
    assert str(disk_error(OSError("odd"), "x", "written")) == "x: cannot be written (odd); check the path"
