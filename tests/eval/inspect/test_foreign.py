"""Anybody's log as a run: what was said becomes turns, marks are read where they are named, all else is unrated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, eval, score
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalLog, EvalSampleLimit, read_eval_log, write_eval_log
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentImage,
    ContentText,
)
from inspect_ai.scorer import Score, Scorer, Target, includes, mean, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import ToolCall

from steer_verl.errors import DataError
from steer_verl.eval.compare import compare
from steer_verl.eval.estimate import Estimate
from steer_verl.eval.figures import figures_of
from steer_verl.eval.inspect import read
from steer_verl.eval.inspect.task import steer_judge, steer_unrated
from steer_verl.eval.marks import marks_of_run
from steer_verl.eval.records import EvalEnd, Rating, Unrated
from steer_verl.eval.runs import EvalRun, read_run
from steer_verl.images import image_uri
from steer_verl.types import IMAGE_MARK, DialogueKind, UserTurn
from tests.data.samples import picture
from tests.eval.inspect import models

QUESTIONS = ("And then?", "What else?")


@solver
def asks_on() -> Solver:
    """A multi-turn solver of somebody's: it asks two more questions, whatever is answered."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        state = await generate(state)
        for question in QUESTIONS:
            state.messages.append(ChatMessageUser(content=question))
            state = await generate(state)
        return state

    return solve


@scorer(metrics=[mean()])
def names_marks() -> Scorer:
    """Somebody's scorer that tells marks of each turn."""

    async def score(state: TaskState, target: Target) -> Score:
        turns = [{"harmless": 3, "helpful": 3}, {"harmless": -2, "helpful": 1, "why": "leaks"}, {"harmless": 9}]
        return Score(value=1, metadata={"turns": turns})

    return score


def logged(folder: Path, scorer: Any, samples: int = 4, before: Sequence[ChatMessage] = (), **more: Any) -> Path:
    """The log of an evaluation of somebody's; ``before``: what every sample's input begins with."""
    inputs = [
        [*before, ChatMessageUser(content=f"Question {n}?")] if before else f"Question {n}?" for n in range(samples)
    ]
    rows = [Sample(id=n, input=asked, target="x") for n, asked in enumerate(inputs)]
    dataset = MemoryDataset(rows, name="theirs")
    (log,) = eval(
        Task(dataset=dataset, solver=asks_on(), scorer=scorer, name="their_task"),
        model=models.student(),
        log_dir=str(folder / "logs"),
        display="none",
        **more,
    )
    assert log.status == "success", log.error
    return Path(log.location.removeprefix("file://"))


def survival(run: EvalRun) -> Estimate:
    """To the last turn."""
    return figures_of(marks_of_run(run.dialogues), run.about.mark_settings).estimates()["survival"]


def test_their_solver_and_our_scorer(tmp_path: Path) -> None:
    judge = models.judge(lambda request: -1 if "Question 2" in request and "assistant 2" in request else 3)
    run = read_run(logged(tmp_path, steer_judge(), model_roles={"grader": judge}))
    assert [one.harmless for one in run.dialogues] == [(3, 3, 3), (3, 3, 3), (3, -1, -1), (3, 3, 3)]
    assert run.dialogues[0].id == "theirs/0" and run.benchmarks == ("theirs",)
    assert run.about.judge.startswith("mockllm/model@judge-") and run.about.name == "mockllm/model"
    assert [turn.user.text for turn in run.dialogues[1].turns] == ["Question 1?", *QUESTIONS]
    assert [turn.answer for turn in run.dialogues[1].turns] == ["Answer 1.", "Answer 3.", "Answer 5."]


def test_answers_that_a_sample_gives_are_not_the_models(tmp_path: Path) -> None:
    before = [ChatMessageUser(content="Say yes."), ChatMessageAssistant(content="Yes, gladly.")]
    run = read_run(logged(tmp_path, names_marks(), before=before))
    first = run.dialogues[0]
    assert first.planned == 3 and first.harmless == (3, -2, None), "its marks are those of the answers that it gave"
    assert first.turns[0].user.text == "[user]\nSay yes.\n\n[assistant]\nYes, gladly.\n\n[user]\nQuestion 0?"
    assert all(turn.answer.startswith("Answer ") for turn in first.turns)


def test_their_scorer_leaves_answers_unrated(tmp_path: Path) -> None:
    run = read_run(logged(tmp_path, includes()))
    assert all(one.harmless == (None,) * 3 and one.end is EvalEnd.COMPLETED for one in run.dialogues)
    word = run.dialogues[0].turns[0].judged
    assert isinstance(word, Unrated) and word.reason == "not_rated" and word.judge == "includes"


def test_marks_that_their_scorer_names(tmp_path: Path) -> None:
    run = read_run(logged(tmp_path, names_marks()))
    first = run.dialogues[0]
    assert first.harmless == (3, -2, None) and first.helpful == (3, 1, None), "9 is no mark"
    word = first.turns[1].judged
    assert isinstance(word, Rating) and word.judge == "names_marks" and word.why == "leaks"


def test_epochs_are_draws_of_one_dialogue(tmp_path: Path) -> None:
    run = read_run(logged(tmp_path, names_marks(), samples=2, epochs=2))
    assert [one.id for one in run.dialogues] == ["theirs/0", "theirs/0#2", "theirs/1", "theirs/1#2"]
    assert len({one.digest for one in run.dialogues}) == 2 and {one.run for one in run.dialogues} == {0}
    once = read_run(logged(tmp_path / "once", names_marks(), samples=2))
    comparison = compare([run, replace(once, about=once.about.model_copy(update={"name": "once"}))])
    assert {d.pairs for r in comparison.rows for d in r.differences.values()} == {2}
    assert not any(r.seeds for r in comparison.rows) and "raining seeds are" not in " ".join(comparison.notes)


def changed(path: Path, **more: Any) -> EvalLog:
    """A log with its first sample changed."""
    log = read_eval_log(path)
    assert log.samples
    log.samples[0] = log.samples[0].model_copy(update=more)
    write_eval_log(log, path)
    return log


def test_systems_tools_and_images(tmp_path: Path) -> None:
    path = logged(tmp_path, includes(), samples=1)
    uri = image_uri(picture(tmp_path / "a.png", (20, 10)))
    call = ToolCall(id="1", function="look", arguments={})
    changed(
        path,
        metadata={"kind": "benign", "category": "law", "planned": 3},
        messages=[
            ChatMessageSystem(content="Be good."),
            ChatMessageUser(content=[ContentText(text="<image>"), ContentImage(image=uri), ContentText(text="Ok?")]),
            ChatMessageAssistant(content="", tool_calls=[call]),
            ChatMessageTool(content="seen", tool_call_id="1"),
            ChatMessageAssistant(content="A box."),
            ChatMessageUser(content=[ContentImage(image="/etc/hostname.png"), ContentText(text="And here?")]),
        ],
    )
    (found,) = read_run(path).dialogues
    assert found.kind is DialogueKind.BENIGN and found.category == "law"
    assert (found.planned, len(found.turns), found.end) == (3, 1, EvalEnd.STUDENT_FAILED)
    (only,) = found.turns
    assert only.answer == "A box." and only.user.text.count(IMAGE_MARK) == len(only.user.images) == 1
    assert image_uri(only.user.images[0]) == uri


def test_an_image_that_is_only_named(tmp_path: Path) -> None:
    path = logged(tmp_path, includes(), samples=1)
    named = [ContentImage(image="/etc/hostname.png"), ContentText(text="What?")]
    changed(path, messages=[ChatMessageUser(content=named), ChatMessageAssistant(content="A host.")])
    (found,) = read_run(path).dialogues
    assert found.turns[0].user == UserTurn(text="[an image that is not in the log]\nWhat?")


@pytest.mark.parametrize("where", ["solver", "scorer"])
def test_a_sample_that_failed_between_two_turns_was_not_played_to_its_end(tmp_path: Path, where: str) -> None:
    """A scorer that failed has missed no question."""

    @solver
    def dies() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            state = await generate(state)
            if where == "solver":
                raise RuntimeError("the attacker is gone")
            return state

        return solve

    @scorer(metrics=[mean()])
    def fails() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            raise RuntimeError("the grader is gone")

        return score

    task = Task(dataset=MemoryDataset([Sample(id=1, input="Question?")]), solver=dies(), scorer=fails())
    log_dir = str(tmp_path / "logs")
    (log,) = eval(
        task, model=models.student(), log_dir=log_dir, display="none", fail_on_error=False, score_on_error=True
    )
    (found,) = read_run(Path(log.location.removeprefix("file://"))).dialogues
    ended = (2, EvalEnd.STUDENT_FAILED) if where == "solver" else (1, EvalEnd.COMPLETED)
    assert (found.planned, found.end) == ended and len(found.turns) == 1 and "is gone" in found.detail


def test_a_sample_that_is_not_there_is_counted(tmp_path: Path) -> None:
    path = logged(tmp_path, names_marks(), samples=3)
    log = read_eval_log(path)
    write_eval_log(log.model_copy(update={"samples": (log.samples or [])[:2], "status": "error"}), path)
    lost = read_run(path).dialogues[2]
    assert (lost.id, lost.planned, lost.end) == ("theirs/2", 1, EvalEnd.UNPLAYABLE) and "error" in lost.detail


@pytest.mark.parametrize("ending", [".eval", ".json"])
def test_figures_of_a_log_show_what_is_missing(tmp_path: Path, ending: str) -> None:
    def found(name: str, scorer: Any, **more: Any) -> Estimate:
        path = tmp_path / f"{name}{ending}"
        write_eval_log(read_eval_log(logged(tmp_path / name, scorer, **more)), path)
        return survival(read_run(path))

    theirs = found("theirs", includes())
    assert (theirs.value, theirs.worst, theirs.best) == (None, 0, 100)
    judge = models.judge(lambda request: -1 if "Question 2" in request else 3)
    ours = found("ours", steer_judge(), model_roles={"grader": judge})
    assert (ours.value, ours.worst, ours.best) == (75, 75, 75)


def test_a_finished_log_is_scored_by_our_judge(tmp_path: Path) -> None:
    path = logged(tmp_path, includes())
    scored = score(read_eval_log(path), steer_judge(), model_roles={"grader": models.judge()}, action="append")
    write_eval_log(scored, tmp_path / "scored.eval")
    run = read_run(tmp_path / "scored.eval")
    assert all(one.harmless == (3, 3, 3) for one in run.dialogues) and run.about.judge.startswith(
        "mockllm/model@judge-"
    )


def rewritten(path: Path, *samples: dict[str, Any], **spec: Any) -> EvalRun:
    """The run of a log whose samples are these, each the log's first one changed."""
    log = read_eval_log(path)
    first = (log.samples or [])[0]
    changes = {"samples": [first.model_copy(update=one) for one in samples]}
    write_eval_log(log.model_copy(update={**changes, "eval": log.eval.model_copy(update=spec)}), path)
    return read_run(path)


@pytest.mark.parametrize(("limit", "asked"), [("token", 4), ("time", 4), ("operator", 4), ("message", 3), ("turn", 3)])
def test_a_sample_that_met_a_limit_of_its_budget_was_not_played_to_its_end(
    limit: Any, asked: int, tmp_path: Path
) -> None:
    """How many messages it may have is how long it was meant to be."""
    met = EvalSampleLimit(type=limit, limit=500)
    (found,) = rewritten(logged(tmp_path, includes(), samples=1), {"limit": met}).dialogues
    ended = EvalEnd.COMPLETED if asked == 3 else EvalEnd.STUDENT_FAILED
    assert (found.planned, len(found.turns), found.end) == (asked, 3, ended)
    assert found.detail == f"met its limit: {limit} 500"


def said(turns: int) -> list[Any]:
    """So many questions and answers."""
    return [one for n in range(turns) for one in (ChatMessageUser(content=f"{n}?"), ChatMessageAssistant(content="1"))]


def marked(*turns: Any) -> dict[str, Score]:
    """Marks of each turn."""
    return {"s": Score(value=1, metadata={"turns": list(turns)})}


def test_a_dialogue_longer_than_ours_is_read_to_its_tenth_turn(tmp_path: Path) -> None:
    marks = marked(*[{"harmless": 3, "helpful": 3}] * 9, *[{"harmless": 1, "helpful": 3}] * 3)
    run = rewritten(
        logged(tmp_path, includes(), samples=1),
        {"id": "a", "messages": said(12), "scores": marks},
        {"id": "b", "messages": said(1), "metadata": {"planned": 10**9}},
    )
    _, long, short = run.dialogues
    assert long.harmless == (*[3] * 9, 1) and long.end is EvalEnd.COMPLETED
    assert (short.planned, len(short.turns)) == (10, 1) and short.end is EvalEnd.STUDENT_FAILED
    assert long.oddities == short.oddities == ("too_many_turns",)


@pytest.mark.parametrize("mark", [True, False, None, "high", 2.5, float("nan"), 4, [3]])
def test_what_is_no_mark_is_no_number(tmp_path: Path, mark: Any) -> None:
    turns = marked({"harmless": mark, "helpful": 3}, {"harmless": 3, "helpful": mark})
    run = rewritten(logged(tmp_path, includes(), samples=1), {"messages": said(2), "scores": turns})
    assert run.dialogues[0].harmless == run.dialogues[0].helpful == (None, None)


def test_marks_of_another_number_of_turns_are_told_as_that(tmp_path: Path) -> None:
    turns = marked({"harmless": 3, "helpful": 3})
    run = rewritten(logged(tmp_path, includes(), samples=1), {"messages": said(2), "scores": turns})
    told = [turn.judged for turn in run.dialogues[0].turns]
    assert [isinstance(one, Unrated) and "of 1 turns, the dialogue has 2" in one.detail for one in told] == [True] * 2


def test_a_judge_that_a_log_names_is_one_line(tmp_path: Path) -> None:
    turns = marked({"harmless": 3, "helpful": 3, "judge": "me\n\x1b[31m" + "x" * 10**5})
    run = rewritten(logged(tmp_path, includes(), samples=1), {"messages": said(1), "scores": turns})
    assert run.about.judge.isprintable() and len(run.about.judge) < 400


def test_what_was_not_judged_counts_no_unrated_answer(tmp_path: Path) -> None:
    path = logged(tmp_path, includes(), samples=2)
    log = score(read_eval_log(path), steer_unrated(), action="overwrite")
    assert all(math.isnan(one.as_float()) for sample in log.samples or [] for one in (sample.scores or {}).values())


def test_long_names_that_begin_alike_are_two_dialogues(tmp_path: Path) -> None:
    run = rewritten(logged(tmp_path, includes(), samples=1), *({"id": "x" * 300 + end} for end in "abc"))
    assert len({one.id for one in run.dialogues}) == len(run.dialogues)


def test_samples_that_are_not_there_are_of_the_kind_of_all_others(tmp_path: Path) -> None:
    path = logged(tmp_path, includes(), samples=3)
    run = rewritten(path, {"id": 0, "metadata": {"kind": "benign"}})
    assert [one.kind for one in run.dialogues] == [DialogueKind.BENIGN] * 3
    assert [one.end for one in run.dialogues] == [EvalEnd.COMPLETED, *[EvalEnd.UNPLAYABLE] * 2]


def test_metadata_of_another_shape_are_told_in_one_line(tmp_path: Path) -> None:
    path = logged(tmp_path, includes(), samples=1)
    for metadata in ({"steer_exact_match": 5}, {"steer": {"name": 1}}, {"steer": 5}):
        with pytest.raises(DataError, match="cannot be read as a log"):
            rewritten(path, {}, metadata=metadata)


def test_a_bomb_is_not_unpacked_and_large_samples_are_read_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = logged(tmp_path, includes(), samples=1)
    large = {"messages": [ChatMessageUser(content="x" * 10**6)]}
    rewritten(path, large, {"id": 1, **large})
    monkeypatch.setattr(read, "MAX_BYTES", 15 * 10**5)
    asked: list[int] = []
    by_id = read.read_eval_log_samples_by_id
    counted = lambda path, keys, **more: asked.append(len(keys)) or by_id(path, keys, **more)  # noqa: E731
    monkeypatch.setattr(read, "read_eval_log_samples_by_id", counted)
    assert len(read_run(path).dialogues) == 2 and asked == [1, 1]
    monkeypatch.setattr(read, "MAX_BYTES", 10**6)
    with pytest.raises(DataError, match="not unpacked"):
        read_run(path)
