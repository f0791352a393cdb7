"""The task: our dialogues with models of Inspect in every role, and scores that say what was not rated."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import eval, score
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.log import EvalLog, read_eval_log, write_eval_log
from inspect_ai.model import ChatMessage, ModelOutput
from PIL import Image

from steer_verl.eval.inspect.read import read_log
from steer_verl.eval.inspect.task import steer_bench, steer_judge
from steer_verl.eval.inspect.write import write_log
from steer_verl.eval.records import EvalEnd, Unrated
from steer_verl.eval.runs import EvalRun
from steer_verl.eval.summary import summarize
from steer_verl.images import image_uri
from steer_verl.types import AttackStrategy, QuestionOrigin, Verdict
from tests.data.samples import picture
from tests.eval.inspect import models
from tests.eval.inspect.rows import ASKED, bench


@pytest.fixture(name="bench")
def two_and_a_lost_one(tmp_path: Path) -> Path:
    """Two dialogues of three turns, and one that cannot be played."""
    return bench(tmp_path, 2, lost=True)


def evaluated(bench: Path, roles: dict[str, Any], student: Any = None, **task: Any) -> tuple[EvalLog, EvalRun]:
    """The log of the task, and the run that we read from it."""
    (log,) = eval(
        steer_bench(benchmark=str(bench), **task),
        model=student or models.student(),
        model_roles=roles,
        log_dir=str(bench.parent / "logs"),
        display="none",
    )
    assert log.status == "success", log.error
    return log, read_log(Path(log.location.removeprefix("file://")))


def means(log: EvalLog) -> dict[str, float]:
    """The figures on a log's front page."""
    assert log.results is not None
    return {score.name: next(iter(score.metrics.values())).value for score in log.results.scores}


def test_static_questions(bench: Path) -> None:
    shown: list[list[ChatMessage]] = []

    def answer(said: list[ChatMessage]) -> str:
        shown.append(said)
        return "<thinking>A draft.</thinking><answer>A box.</answer>"

    requests: list[str] = []
    judge = models.judge(lambda request: requests.append(request) or 1 if "assistant 2, and no" in request else 3)
    log, run = evaluated(bench, {"grader": judge, "tutor": models.tutor()}, models.student(answer))
    assert (run.about.attack, run.about.tutor) == ("static", ""), "the tutor had nothing to do"
    lost, *played = run.dialogues
    assert lost.end is EvalEnd.UNPLAYABLE and [one.id for one in run.dialogues] == [
        "bench/lost",
        "bench/q0",
        "bench/q1",
    ]
    assert all(one.harmless == (3, 1, 3) and one.digest and one.sampling is None for one in played)
    assert [turn.user.text for turn in played[0].turns] == ["Question 0?", *ASKED[1:]]
    assert [turn.origin for turn in played[0].turns] == [QuestionOrigin.SEED, *[QuestionOrigin.STATIC] * 2]
    assert played[0].turns[1].user.images == (str(bench.parent / "a.png"),)
    last = max(shown, key=len)
    assert [message.role for message in last] == ["user", "assistant"] * 2 + ["user"]
    assert [part.type for part in last[2].content if not isinstance(part, str)] == ["image", "text"]
    assert requests and all("A box." in request and "A draft." not in request for request in requests)
    found = means(log)
    assert found["survived"] == 0 and found["harmless"] == pytest.approx(7 / 3) and found["steer_unrated"] == 2
    score = next(one for one in log.results.scores if one.name == "survived") if log.results else None
    assert score is not None and (score.scored_samples, score.unscored_samples) == (2, 1)


def test_a_photo_that_is_sent_without_its_metadata_is_the_one_that_was_shown(bench: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "what a camera writes"
    picture(bench.parent / "photo.jpg", (40, 40), exif=exif).rename(bench.parent / "a.png")
    log, run = evaluated(bench, {"grader": models.judge()})
    again = score(log, steer_judge(), model_roles={"grader": models.judge(lambda _: 1)}, action="append")
    for mark, found in ((3, run), (1, read_log_of(again, bench.parent / "again.eval"))):
        assert [one.harmless for one in found.dialogues if one.turns] == [(mark,) * 3] * 2


def test_a_tutor_writes_the_later_questions(bench: Path) -> None:
    _, run = evaluated(bench, {"grader": models.judge(), "tutor": models.tutor()}, attack="adaptive", max_turns=2)
    first, second = run.dialogues[1].turns
    assert first.origin is QuestionOrigin.SEED and second.origin is QuestionOrigin.TUTOR
    assert second.user.text.startswith("<image>And part ") and second.static == "And this?"
    assert second.strategy is AttackStrategy.DEEPEN and isinstance(first.tutor, Verdict)
    assert run.about.attack == "adaptive" and run.about.tutor.startswith("mockllm/model@rubric-")
    assert run.dialogues[1].planned == 2


@pytest.mark.parametrize(
    ("reply", "reason", "asked"), [("I must decline to rate that.", "refusal", 1), ("No object.", "bad_json", 2)]
)
def test_what_the_judge_does_not_rate_is_no_number(bench: Path, reply: str, reason: str, asked: int) -> None:
    requests: list[str] = []
    judge = models.judge(reply=lambda request: requests.append(request) or reply)
    log, run = evaluated(bench, {"grader": judge})
    words = [turn.judged for one in run.dialogues for turn in one.turns]
    assert len(words) == 6 and {word.reason for word in words if isinstance(word, Unrated)} == {reason}
    assert len(requests) == 6 * asked and means(log)["steer_unrated"] == 6 + 2
    assert all(
        math.isnan(one.as_float()) for s in log.samples or [] for n, one in (s.scores or {}).items() if "judge" in n
    )
    assert math.isnan(means(log)["survived"])


def test_what_a_filter_stops_is_no_answer(bench: Path) -> None:
    def answer(said: list[ChatMessage]) -> ModelOutput:
        return ModelOutput.from_content(
            "m", "A box." if len(said) < 3 else "", "stop" if len(said) < 3 else "content_filter"
        )

    _, run = evaluated(bench, {"grader": models.judge()}, models.student(answer))
    one = run.dialogues[1]
    assert (one.end, len(one.turns), one.harmless) == (EvalEnd.STUDENT_FAILED, 1, (3, None, None))


def test_epochs_are_draws(bench: Path) -> None:
    (log,) = eval(
        steer_bench(benchmark=str(bench)),
        model=models.student(),
        model_roles={"grader": models.judge()},
        log_dir=str(bench.parent / "logs"),
        display="none",
        epochs=2,
        limit=1,
    )
    run = read_log(Path(log.location.removeprefix("file://")))
    assert [(one.id, one.run) for one in run.dialogues] == [("bench/q0", 0), ("bench/q0#2", 0)]
    assert len({one.digest for one in run.dialogues}) == 1


def test_without_a_grader_no_student_is_asked(bench: Path) -> None:
    asked: list[str] = []
    (log,) = eval(
        steer_bench(benchmark=str(bench)),
        model=models.student(lambda said: asked.append("x") or "A box."),
        log_dir=str(bench.parent / "logs"),
        display="none",
    )
    assert log.status == "error" and log.error is not None and "grader" in log.error.message and not asked


def test_benchmarks_by_file_set_and_settings(bench: Path, tmp_path: Path) -> None:
    settings = tmp_path / "run.yaml"
    settings.write_text(f"out: x\nbenchmarks:\n  mine: {{file: {bench}, kind: benign}}\n")
    task = steer_bench(benchmark=[str(bench), str(settings)], judge="mini")
    ids = [str(sample.id) for sample in task.dataset]
    assert ids == [f"{name}/{row}" for name in ("bench", "mine") for row in ("q0", "q1", "lost")]
    assert [sample.metadata["kind"] for sample in task.dataset if sample.metadata][3] == "benign"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"attack": "adaptiv"}, "attack"),
        ({"judge": "models"}, "judge"),
        ({"max_turns": 0}, "max_turns"),
        ({"max_turns": "abc"}, "max_turns"),
        ({"rubric": "none.md"}, "none.md"),
        ({"rubric": 5}, "rubric"),
        ({"benchmark": ["a/mine.jsonl", "b/mine.jsonl"]}, "two are named mine"),
        ({"benchmark": ""}, "-T benchmark=FILE"),
        ({"benchmark": []}, "-T benchmark=FILE"),
        ({"benchmark": 5}, "5: cannot be read"),
    ],
)
def test_options_that_cannot_work_are_one_line(bench: Path, wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(PrerequisiteError) as fault:
        steer_bench(**{"benchmark": str(bench), **wrong})
    assert told in str(fault.value.message) and "\n" not in str(fault.value.message)


def test_another_judge_scores_a_finished_log(bench: Path) -> None:
    log, run = evaluated(bench, {"grader": models.judge()})
    other = {"grader": models.judge(lambda request: 1)}
    judged = [turn.answer for one in run.dialogues for turn in one.turns]
    for action in ("append", "overwrite"):
        again = score(read_eval_log(log.location), steer_judge(), model_roles=other, action=action)
        write_eval_log(again, bench.parent / "again.eval")
        newest = read_log(bench.parent / "again.eval").dialogues
        assert [one.harmless for one in newest] == [(None, None), (1, 1, 1), (1, 1, 1)], "the last score counts"
        assert [turn.answer for one in newest for turn in one.turns] == judged


@pytest.mark.parametrize("action", ["append", "overwrite"])
def test_another_judge_scores_a_run_of_ours(bench: Path, action: Any) -> None:
    path = bench.parent / "ours.eval"
    run = evaluated(bench, {"grader": models.judge()})[1]
    about = run.about.model_copy(update={"calibration": {"of": "the first judge"}})
    write_log(EvalRun(path, about, run.dialogues), path)
    again = score(read_eval_log(path), steer_judge(), model_roles={"grader": models.judge(lambda _: -2)}, action=action)
    write_eval_log(again, path)
    newest = read_log(path)
    assert [one.harmless for one in newest.dialogues] == [(None, None), (-2,) * 3, (-2,) * 3]
    without = {"turns": ()}
    same = [one.model_copy(update=without) for one in newest.dialogues]
    assert same == [one.model_copy(update=without) for one in run.dialogues], "all else is as it was"
    assert newest.about.judge.startswith("mockllm/model@judge-") and newest.about.calibration is None


def test_a_file_that_a_log_names_is_not_shown_to_a_judge(bench: Path) -> None:
    log, _ = evaluated(bench, {"grader": models.judge()})
    secret = picture(bench.parent / "secret.png", (30, 30))
    for sample in log.samples or []:
        for one in (sample.metadata, *[one.metadata or {} for one in (sample.scores or {}).values()]):
            for turn in one.get("steer", {}).get("turns", ()):
                turn["user"]["images"] = [str(secret) for _ in turn["user"]["images"]]
    shown: list[ChatMessage] = []
    strict = models.student(lambda said: shown.extend(said) or "none")
    again = read_log_of(score(log, steer_judge(), model_roles={"grader": strict}), bench.parent / "again.eval")
    uris = {
        part.image for one in shown if not isinstance(one.content, str) for part in one.content if part.type == "image"
    }
    assert image_uri(secret) not in uris and all(one.harmless[1:] != (3, 3) for one in again.dialogues)


def read_log_of(log: EvalLog, path: Path) -> EvalRun:
    """As it is read once written."""
    write_eval_log(log, path)
    return read_log(path)


def test_an_error_leaves_the_digest(bench: Path) -> None:
    def fails(said: list[ChatMessage]) -> str:
        if "Question 0?" in said[0].text:
            raise RuntimeError("down")
        return "A box."

    (log,) = eval(
        steer_bench(benchmark=str(bench)),
        model=models.student(fails),
        model_roles={"grader": models.judge()},
        log_dir=str(bench.parent / "logs"),
        display="none",
        fail_on_error=False,
    )
    _, failed, whole = read_log(Path(log.location.removeprefix("file://"))).dialogues
    assert failed.harmless == (None,) * 3 and "down" in failed.detail and whole.harmless == (3, 3, 3)
    assert len(failed.digest) == 64 and failed.digest != whole.digest
    assert means(log)["harmless"] == 3, "who failed is no number"


def test_exact_match_is_measured_on_the_log(tmp_path: Path) -> None:
    row = {
        "question": "What is 3/4 of 12?",
        "answer": "9",
        "unsafe": False,
        "source": "m",
        "source_id": "1",
        "license": "x",
    }
    (tmp_path / "plain.jsonl").write_text(json.dumps(row) + "\n")
    settings = {"source": {"set": "plain", "path": str(tmp_path / "plain.jsonl")}, "exact_match": True}
    (tmp_path / "run.yaml").write_text(json.dumps({"benchmarks": {"sums": settings}}))
    judge = {"grader": models.judge()}
    _, run = evaluated(tmp_path / "run.yaml", judge, models.student(lambda said: "9"))
    assert run.dialogues[0].turns[0].correct is True and run.dialogues[0].reference == "9"
    assert summarize(run).benchmarks["sums"].measures["correct"].value == 100
