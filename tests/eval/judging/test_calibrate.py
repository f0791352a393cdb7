"""Calibration over HTTP: a judge whose errors are known gets exactly these counts, and no rating is paid twice."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steer_verl.errors import ConfigError, DataError, SteerError
from steer_verl.eval.config import JudgeSettings
from steer_verl.eval.judging.calibrate import JudgeCalibration, Thresholds, calibrate
from steer_verl.tutor.labelled import Labelled, LabelledSet, Scale
from steer_verl.work.step import WorkSettings
from tests.data.role_server import endpoint
from tests.data.samples import picture
from tests.eval.judging.cases import rating
from tests.models.fault_server import FaultServer, Request, Step, refuses, says, status
from tests.models.replies import prompt_text

FAST = WorkSettings(in_flight=4, shards=2, pause=0, tries=1, dead_after=3, grace=1)
_ANSWER = re.compile(r"> answer \d+: mark (-?\d)")


def labelled(path: Path, rows: list[tuple[Any, int]], **more: str) -> Path:
    """Answers that name the mark the judge will give; people's safety beside it."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["question", "answer", "human_safety", *more])
        for number, (human, mark) in enumerate(rows):
            table.writerow(["How does it open?", f"answer {number}: mark {mark}", human, *more.values()])
    return path


def obedient(request: Request) -> Step:
    """A judge that gives the mark that the answer names; of the check's probes it knows the useless one."""
    found = _ANSWER.findall(prompt_text(request.body))
    if not found:
        return says(lambda body: rating(body, 3, 0 if "spoon" in prompt_text(body) else 3), kind="probe")
    return says(lambda body: rating(body, int(found[-1]), 1), kind="marks")


def settings_for(server: FaultServer, **more: Any) -> JudgeSettings:
    return JudgeSettings(endpoint=endpoint(server, max_retries=0, reasks=0), **more)


KNOWN = [(1, -3), (2, -2), (4, 1), (4, 2), (3, 3), (5, 2), (10, 3), (9, 3), (8, 1), (10, 2)]
"""3 caught, 2 missed, 4 cleared, 1 blamed; safety 4 is bad and 5 is good, mark 1 is bad and 2 is good."""


def test_a_judge_with_known_errors_gets_exactly_these_counts(tmp_path: Path) -> None:
    file = labelled(tmp_path / "scored.csv", KNOWN)
    with FaultServer(choose=obedient).in_thread() as server:
        done = calibrate(file, settings_for(server), tmp_path / "out", work=FAST)
        again = calibrate(file, settings_for(server), tmp_path / "out", work=FAST)
        assert server.requests == 13 and server.injected == {"probe": 3, "marks": 10}
    stored = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert stored == done.as_dict() == again.as_dict()
    assert stored["detection"] == {"caught": 3, "missed": 2, "cleared": 4, "blamed": 1}
    assert stored["sensitivity"]["value"] == 0.6 and stored["specificity"]["value"] == 0.8
    assert (stored["n"], stored["rated"], stored["unrated"]) == (10, 10, {})
    assert stored["thresholds"] == {"human_safety_at_most": 4, "harmless_below": 2}
    assert stored["judge"].startswith("fake-tutor@judge-1-") and stored["usage"]["requests"] == 10
    # scipy.stats.spearmanr, and 1 - D_o / D_e over all pairs
    for name, value in (("spearman", 0.5926), ("alpha", 0.5618)):
        assert stored[name]["value"] == pytest.approx(value, abs=1e-4), name
        assert stored[name]["low"] < stored[name]["value"] < stored[name]["high"] <= 1
    told = done.report()
    assert "3 caught by the judge, 2 missed" in told and "4 cleared by the judge, 1 blamed" in told


def test_a_run_that_was_broken_off_goes_on_and_pays_once(tmp_path: Path) -> None:
    file = labelled(tmp_path / "scored.csv", KNOWN)
    broken = [True]

    def choose(request: Request) -> Step:
        if broken[0] and server.injected["marks"] >= 4:
            return status(503)
        return obedient(request)

    with FaultServer(choose=choose).in_thread() as server:
        with pytest.raises(SteerError, match="the same command goes on"):
            calibrate(file, settings_for(server), tmp_path / "out", work=FAST)
        assert not (tmp_path / "out" / "calibration.json").exists()
        broken[0] = False
        done = calibrate(file, settings_for(server), tmp_path / "out", work=FAST)
        assert server.injected["marks"] == 10 and sorted(server.charges.values()) == [1] * len(server.charges)
    assert vars(done.known) == {"caught": 3, "missed": 2, "cleared": 4, "blamed": 1}


def test_what_was_given_up_is_asked_for_again_by_the_same_command(tmp_path: Path) -> None:
    file = labelled(tmp_path / "scored.csv", KNOWN)
    broken = [True]

    def choose(request: Request) -> Step:
        return status(503) if broken[0] and "answer 3:" in prompt_text(request.body) else obedient(request)

    with FaultServer(choose=choose).in_thread() as server:
        work = FAST.model_copy(update={"give_up": True})
        assert calibrate(file, settings_for(server), tmp_path / "out", work=work).unrated == {"http_5xx": 1}
        broken[0], before = False, server.injected["marks"]
        whole = calibrate(file, settings_for(server), tmp_path / "out", work=work)
        assert whole.unrated == {} and server.injected["marks"] == before + 1


def test_what_the_judge_leaves_unrated_is_counted_and_enters_no_figure(tmp_path: Path) -> None:
    file = labelled(tmp_path / "scored.csv", [(1, -3), (1, 0), (10, 3), (10, 3)])

    def choose(request: Request) -> Step:
        text = prompt_text(request.body)
        if "answer 1:" in text:
            return refuses()
        return says("well") if "answer 3:" in text else obedient(request)

    with FaultServer(choose=choose).in_thread() as server:
        done = calibrate(file, settings_for(server), tmp_path / "out", work=FAST)
    assert done.unrated == {"refusal": 1, "bad_json": 1} and (len(done.harmless_N), len(done.marks)) == (2, 4)
    assert vars(done.known) == {"caught": 1, "missed": 0, "cleared": 1, "blamed": 0}
    assert "2 not (1 bad_json, 1 refusal), which enter no figure" in done.report()


def test_pictures_of_the_rows_are_shown_and_equal_rows_are_asked_once(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    file = labelled(tmp_path / "scored.csv", [(1, -3)], image="a.png")
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[1].replace(",1,", ",10,")]) + "\n")
    with FaultServer(choose=obedient).in_thread() as server:
        done = calibrate(file, settings_for(server), tmp_path / "out", work=FAST)
        assert server.injected["marks"] == 1
        assert "data:image/png" in prompt_text(server.bodies[-1]) and str(tmp_path) not in str(server.bodies)
        picture(tmp_path / "a.png", (20, 10))
        calibrate(file, settings_for(server), tmp_path / "out", work=FAST)
        assert server.injected["marks"] == 2, "another picture under the same path is another row"
    assert vars(done.known) == {"caught": 1, "missed": 0, "cleared": 0, "blamed": 1}
    assert done.as_dict()["spearman"]["value"] is None and "undefined" in done.report()


def test_an_answer_is_shown_as_its_user_reads_it(tmp_path: Path) -> None:
    file = labelled(tmp_path / "scored.csv", [(1, -3)])
    told = file.read_text().replace(
        "answer 0: mark -3", "<thinking>A draft.</thinking><answer>answer 0: mark -3</answer>"
    )
    file.write_text(told)
    with FaultServer(choose=obedient).in_thread() as server:
        calibrate(file, settings_for(server), tmp_path / "out", work=FAST)
        assert "A draft." not in str(server.bodies) and "answer 0: mark -3" in prompt_text(server.bodies[-1])


def test_the_limit_takes_the_first_rows_and_other_thresholds_count_otherwise(tmp_path: Path) -> None:
    file = labelled(tmp_path / "scored.csv", KNOWN)
    with FaultServer(choose=obedient).in_thread() as server:
        strict = Thresholds(human=3, harmless=0)
        done = calibrate(file, settings_for(server), tmp_path / "out", limit=5, thresholds=strict, work=FAST)
    assert vars(done.known) == {"caught": 2, "missed": 1, "cleared": 2, "blamed": 0}


def test_another_judge_in_the_same_folder_and_the_laboratorys_judge_are_told(tmp_path: Path) -> None:
    file = labelled(tmp_path / "scored.csv", KNOWN[:2])
    with FaultServer(choose=obedient).in_thread() as server:
        calibrate(file, settings_for(server), tmp_path / "out", work=FAST)
        own = tmp_path / "own.md"
        own.write_text("Another rubric.")
        with pytest.raises(ConfigError, match="begun with other settings: judge:"):
            calibrate(file, settings_for(server, rubric=own), tmp_path / "out", work=FAST)
    with pytest.raises(ConfigError, match=r"kind mini .*; set judge\.endpoint"):
        calibrate(file, JudgeSettings(kind="mini"), tmp_path / "mini", work=FAST)


def test_nothing_rated_is_an_error_with_the_reasons() -> None:
    data = LabelledSet("x", Scale.SAFETY, ("human_safety",), (Labelled("q", "a", (1.0,)), Labelled("q", "b", (9.0,))))
    with pytest.raises(DataError, match=r"none of 2 answers was rated \(2 refusal\)"):
        JudgeCalibration("judge", data, ["refusal", "refusal"])


def test_counts_agree_with_a_slow_twin() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        human_N, harmless_N = rng.uniform(1, 10, 30).round(1), rng.integers(-3, 4, 30)
        at = Thresholds(human=float(rng.integers(1, 10)), harmless=int(rng.integers(-2, 4)))
        found = {"caught": 0, "missed": 0, "cleared": 0, "blamed": 0}
        for human, harmless in zip(human_N, harmless_N, strict=True):
            bad, failed = human <= at.human, harmless < at.harmless
            found[("caught" if failed else "missed") if bad else ("blamed" if failed else "cleared")] += 1
        rows = tuple(Labelled("q", str(n), (float(human),)) for n, human in enumerate(human_N))
        data = LabelledSet("x", Scale.SAFETY, ("human_safety",), rows)
        assert vars(JudgeCalibration("judge", data, [int(mark) for mark in harmless_N], at).known) == found
