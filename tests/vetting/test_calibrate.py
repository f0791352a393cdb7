"""Calibration: planted agreement is found, unscored answers are no number, and nothing is judged twice."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from steer_verl.config import EndpointConfig, JudgeConfig, PanelConfig, TutorConfig
from steer_verl.errors import DataError
from steer_verl.tutor.identity import Identity, identity_of, prompt_version
from steer_verl.types import (
    NoAttack,
    NoAttackReason,
    Scores,
    TurnVerdict,
    TutorRequest,
    TutorResponse,
    Unscored,
    UnscoredReason,
    Usage,
    Verdict,
)
from steer_verl.vetting import calibrate
from steer_verl.vetting.judging import Judgements, exchange_key, judge_all
from steer_verl.vetting.labelled import Labelled, LabelledSet, Scale
from tests.tutor.dialogues import simple

IDENTITY = Identity(tutor="scripted", models=(), prompt=prompt_version())
LOST = Unscored(reason=UnscoredReason.TIMEOUT)


def scored(safety: int) -> Verdict:
    return Verdict(scores=Scores(safety=safety, usefulness=5, faithfulness=5))


def data_of(humans: list[tuple[float | None, ...]]) -> LabelledSet:
    rows = tuple(Labelled(f"question {n}", f"answer {n}", human) for n, human in enumerate(humans))
    return LabelledSet("drawn", Scale.SAFETY, tuple(f"human_safety_{r}" for r in range(len(humans[0]))), rows)


class Scripted:
    """A tutor whose verdict is a function of the answer; it counts what it was asked, and how much at once."""

    name = "scripted"

    def __init__(self, judge: Callable[[TutorRequest], TurnVerdict]) -> None:
        self.judge, self.asked = judge, list[TutorRequest]()
        self.in_flight = self.peak = self.checks = 0

    async def respond(self, exchange: TutorRequest) -> TutorResponse:
        self.asked.append(exchange)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        none = NoAttack(reason=NoAttackReason.LAST_TURN)
        return TutorResponse(verdict=self.judge(exchange), attack=none, seconds=0.5, usage=Usage(requests=1, cost=0.25))

    async def check(self) -> None:
        self.checks += 1

    async def close(self) -> None:
        """Nothing to release."""


def compared(data: LabelledSet, judgements: list[TurnVerdict], **settings: int) -> calibrate.Calibration:
    found = {row.key: verdict for row, verdict in zip(data.rows, judgements, strict=True)}
    return calibrate.compare(data, found, IDENTITY, **settings)


def test_a_tutor_that_agrees_and_one_that_does_not() -> None:
    rng = random.Random(0)
    humans = [rng.randint(1, 10) for _ in range(120)]
    data = data_of([(float(h),) for h in humans])
    same = compared(data, [scored(h) for h in humans]).figures
    assert same["mae"].value == 0 and same["spearman"].value == pytest.approx(1) and same["alpha"].value == 1
    assert same["sensitivity"].value == same["specificity"].value == 1 and "alpha_humans" not in same

    other = compared(data, [scored(11 - h) for h in humans]).figures
    assert other["spearman"].value == pytest.approx(-1) and other["alpha"].high < 0
    assert other["sensitivity"].value == 0

    every = [(human, tutor) for human in range(1, 11) for tutor in range(1, 11)]
    deaf = compared(data_of([(float(h),) for h, _ in every]), [scored(t) for _, t in every]).figures
    assert deaf["spearman"].low < 0 < deaf["spearman"].high and deaf["spearman"].value == pytest.approx(0)
    assert deaf["alpha"].low < 0 < deaf["alpha"].high


def test_a_constant_tutor_has_no_correlation_and_that_is_null_in_json() -> None:
    calibration = compared(data_of([(1.0,), (5.0,), (10.0,)]), [scored(10)] * 3)
    stored = json.loads(json.dumps(calibration.as_dict(), allow_nan=False))
    assert stored["figures"]["spearman"] == {"value": None, "low": None, "high": None}
    assert stored["figures"]["sensitivity"]["value"] == 0 and stored["figures"]["specificity"]["value"] == 1
    assert stored["figures"]["bias"]["value"] == pytest.approx(14 / 3)


def test_an_unscored_answer_enters_no_figure() -> None:
    data = data_of([(1.0,), (10.0,), (10.0,), (3.0,)])
    judgements: list[TurnVerdict] = [scored(1), scored(10), LOST, scored(3)]
    calibration = compared(data, judgements)
    assert calibration.figures["mae"].value == 0 and calibration.unscored == {"timeout": 1}
    stored = calibration.as_dict()
    assert (stored["n"], stored["scored"]) == (4, 3)
    assert sum(stored["detection"].values()) == 3 and sum(level["n"] for level in stored["levels"]) == 3


def test_nothing_scored_is_an_error_with_the_reasons() -> None:
    with pytest.raises(DataError, match=r"none of 2 answers was scored \(2 timeout\)"):
        compared(data_of([(1.0,), (2.0,)]), [LOST, LOST])


def test_several_people_are_averaged_and_compared_among_themselves() -> None:
    data = data_of([(1.0, 3.0, None), (10.0, 8.0, 9.0), (6.0, 6.0, 6.0)])
    calibration = compared(data, [scored(2), scored(9), scored(6)])
    assert calibration.human_N.tolist() == [2, 9, 6] and calibration.figures["mae"].value == 0
    assert 0.8 < calibration.figures["alpha_humans"].value < 1


def test_the_threshold_decides_what_a_breach_is() -> None:
    data, judgements = data_of([(3.0,), (5.0,), (9.0,)]), [scored(6), scored(5), scored(9)]
    assert vars(compared(data, judgements).known) == {"caught": 0, "missed": 1, "cleared": 2, "blamed": 0}
    assert vars(compared(data, judgements, threshold=6).known) == {"caught": 2, "missed": 0, "cleared": 1, "blamed": 0}


def test_everything_is_stored_and_drawn(tmp_path: Path) -> None:
    rng = random.Random(1)
    humans = [rng.randint(1, 10) for _ in range(40)]
    calibration = compared(data_of([(float(h),) for h in humans]), [scored(max(1, h - 1)) for h in humans])
    written = calibrate.write(calibration, tmp_path / "deep")
    assert [path.name for path in written] == ["calibration.json", "calibration.md", "reliability.png"]
    assert written[2].read_bytes().startswith(b"\x89PNG")
    report = written[1].read_text()
    assert IDENTITY.key in report and "reliability.png" in report and calibration.date in report
    assert json.loads(written[0].read_text())["tutor"]["key"] == IDENTITY.key


async def test_kept_verdicts_are_not_asked_for_again_and_lost_ones_are(tmp_path: Path) -> None:
    rows = {row.key: row.exchange() for row in data_of([(1.0,)] * 9).rows}
    failing = {"answer 3", "answer 5"}
    first = Scripted(lambda e: LOST if e.answer in failing else scored(7))
    found = await judge_all(first, rows, Judgements(tmp_path, "a"), at_once=4)
    assert len(first.asked) == 9 and first.peak == 4 and first.checks == 1
    assert sum(isinstance(verdict, Unscored) for verdict in found.values()) == 2

    seen: list[TurnVerdict] = []
    second, store = Scripted(lambda e: scored(2)), Judgements(tmp_path, "a")
    again = await judge_all(second, rows, store, 4, seen.append)
    assert {e.answer for e in second.asked} == failing and len(seen) == 9
    assert sorted(v.scores.safety for v in again.values() if isinstance(v, Verdict)) == [2, 2, *[7] * 7]
    assert store.usage(rows) == Usage(requests=9, cost=2.25)

    third = Scripted(lambda e: scored(1))
    await judge_all(third, rows, Judgements(tmp_path, "a"), 4)
    assert third.asked == [] and third.checks == 0
    await judge_all(third, rows, Judgements(tmp_path, "another tutor"), 4)
    assert len(third.asked) == 9


async def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    rows = {row.key: row.exchange() for row in data_of([(1.0,)] * 9).rows}
    tutor = Scripted(lambda e: scored(7))

    def stop(verdict: TurnVerdict) -> None:
        if len(tutor.asked) == 5:
            running.cancel()

    running = asyncio.ensure_future(judge_all(tutor, rows, Judgements(tmp_path, "a"), 1, stop))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(tutor.asked) in (5, 6)
    (tmp_path / "killed.jsonl").write_bytes(b'{"tutor":"a","key":"torn')
    assert len(Judgements(tmp_path, "a").kept) == 5
    assert await judge_all(tutor, rows, Judgements(tmp_path, "a"), 1) and len(Judgements(tmp_path, "a").kept) == 9


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"tutor": "a"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl:1: not a kept verdict"):
        Judgements(tmp_path, "a")


def test_the_key_of_an_exchange_follows_what_is_judged() -> None:
    one = simple("a cup")
    assert exchange_key(one) == exchange_key(one.model_copy(update={"place": "elsewhere", "hint": None}))
    others = [simple("a cap"), simple("a cup", last=True), one.model_copy(update={"user": one.seed.turns[1]})]
    assert len({exchange_key(e) for e in [one, *others]}) == 4
    later = simple("a cup", last=True)
    rescored = later.model_copy(update={"turns": (later.turns[0].model_copy(update={"verdict": LOST}),)})
    assert exchange_key(later) == exchange_key(rescored)


def test_the_identity_follows_all_that_a_score_depends_on(tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.md"
    rubric.write_text("Judge.")
    endpoint = EndpointConfig(base_url="http://a/v1", model="m")
    panel = PanelConfig(judges=(JudgeConfig(endpoint=endpoint, format="qwen3guard"),))

    def key(rubric: str | None = None, panel: PanelConfig | None = None, **settings: object) -> str:
        config = TutorConfig(endpoint=endpoint.model_copy(update=settings), rubric=rubric, panel=panel)
        return identity_of(config, "tutor").key

    assert key() == key(base_url="http://b/v1") == key(timeout=3.0) == key(max_concurrency=1)
    different = [key(model="n"), key(temperature=1.0), key(images=False), key(str(rubric)), key(panel=panel)]
    assert len({key(), *different}) == 6


def test_the_prompt_version_is_stable_within_a_process_and_short() -> None:
    assert prompt_version() == prompt_version.__wrapped__() and len(prompt_version()) == 8


def test_figures_are_the_same_at_every_run() -> None:
    rng = np.random.default_rng(2)
    humans = rng.integers(1, 11, 60)
    data, judgements = data_of([(float(h),) for h in humans]), [scored(int(h)) for h in rng.permutation(humans)]
    once = compared(data, judgements).figures
    assert once == compared(data, judgements).figures
    assert once["mae"] != compared(data, judgements, seed=1).figures["mae"]
