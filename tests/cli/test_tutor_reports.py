"""What ``steer tutor calibrate`` writes, with matplotlib and without."""

from __future__ import annotations

import json
import random
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from steer_verl.cli.tutor_reports import write_calibration
from tests.tutor.test_calibrate import IDENTITY, compared, data_of, scored


def test_everything_is_stored_and_drawn(tmp_path: Path) -> None:
    rng = random.Random(1)
    humans = [rng.randint(1, 10) for _ in range(40)]
    calibration = compared(data_of([(float(h),) for h in humans]), [scored(max(1, h - 1)) for h in humans])
    written = write_calibration(calibration, tmp_path / "deep")
    assert [path.name for path in written] == ["calibration.json", "calibration.md", "reliability.png"]
    assert written[2].read_bytes().startswith(b"\x89PNG")
    page = written[1].read_text()
    assert IDENTITY.key in page and "(reliability.png)" in page and calibration.date in page
    assert json.loads(written[0].read_text())["tutor"]["key"] == IDENTITY.key


@pytest.mark.parametrize("name", ["$5_vs_$9", "$\\nothing$", "a very long name " * 12])
def test_a_plot_is_drawn_whatever_the_data_are_called(name: str, tmp_path: Path) -> None:
    data = replace(data_of([(1.0,), (9.0,)]), name=name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(write_calibration(compared(data, [scored(1), scored(9)]), tmp_path)) == 3


def test_without_matplotlib_there_is_no_plot_and_an_older_one_goes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "steer_verl.plots", None)
    (tmp_path / "reliability.png").write_bytes(b"older")
    written = write_calibration(compared(data_of([(1.0,), (9.0,)]), [scored(10), scored(10)]), tmp_path)
    assert [path.name for path in written] == ["calibration.json", "calibration.md"]
    assert not (tmp_path / "reliability.png").exists() and "pip install 'matplotlib" in caplog.text
    page = written[1].read_text()
    assert "reliability" not in page and "| Spearman's rank correlation | undefined |" in page
