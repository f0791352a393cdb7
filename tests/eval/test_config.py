"""Settings of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steer_verl.errors import ConfigError
from steer_verl.eval.config import EvalConfig
from steer_verl.eval.students.checkpoint import find_checkpoint


def test_home_stands_in_every_path_and_a_user_that_is_not_there_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    def config(home: str) -> EvalConfig:
        fields: dict[str, Any] = {
            "out": f"{home}/out",
            "student": {"kind": "mini", "path": f"{home}/student", "system_prompt": f"{home}/system.txt"},
            "judge": {"kind": "mini", "rubric": None, "calibration": f"{home}/calibration.json"},
            "benchmarks": {"mine": {"file": f"{home}/mine.jsonl", "images": f"{home}/images"}},
        }
        return EvalConfig.model_validate(fields, strict=False)

    found = config("~")
    paths = [found.out, found.student.path, found.student.system_prompt, found.judge.calibration]
    paths += [found.benchmarks["mine"].file, found.benchmarks["mine"].images]
    assert [Path(str(path)).is_relative_to(tmp_path) for path in paths] == [True] * 6
    assert config("~nobody-of-this-name").student.path == Path("~nobody-of-this-name/student")
    with pytest.raises(ConfigError, match="nobody-of-this-name"):
        find_checkpoint(Path("~nobody-of-this-name/student"))
