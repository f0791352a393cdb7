"""The task ``steer_verl/steer_bench``: our dialogues and our judge under ``inspect eval``, with any of its providers.

    inspect eval steer_verl/steer_bench --model openai/gpt-5 --model-role grader=anthropic/claude-opus-4-5 \\
        -T benchmark=bench/beaver.jsonl

``inspect view`` shows the log, and ``steer eval compare`` and ``steer report`` take it as a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import get_model
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, mean, metric, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver
from pydantic import BaseModel, ConfigDict, Field

from steer_verl.data.sources.registry import SETS
from steer_verl.errors import ConfigError
from steer_verl.eval.benchmarks.items import items_of
from steer_verl.eval.config import BenchmarkSettings, MarkSettings
from steer_verl.eval.inspect.messages import image_folder, images
from steer_verl.eval.inspect.provider import prerequisites
from steer_verl.eval.inspect.read import EXACT, ITEM, played
from steer_verl.eval.inspect.roles import GRADER, Held, ModelStudent, RoleJudge, RoleTutor
from steer_verl.eval.inspect.scores import (
    IMAGES,
    NOT_RATED,
    RECORD,
    TURNS,
    record_in,
    record_of,
    score_of,
    with_ratings,
)
from steer_verl.eval.judging.mini import MiniEvalJudge
from steer_verl.eval.judging.protocol import Case, EvalJudge, Rated
from steer_verl.eval.judging.request import judge_prompt
from steer_verl.eval.records import EvalDialogue, EvalItem, Judged, Unrated
from steer_verl.eval.rejudge import RejudgeStep
from steer_verl.eval.step import EvalStep
from steer_verl.models.place import Place
from steer_verl.settings_file import load_settings, parse_settings
from steer_verl.text import unmarked
from steer_verl.types import MAX_TURNS, Tutor

UNRATED = "unrated"
"""In a sample's metadata: how many planned answers nobody has rated."""


class _Told(BaseModel):
    """What ``-T`` says."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    attack: Literal["static", "adaptive"]
    judge: Literal["model", "mini"]
    tutor: Literal["model", "mini"]
    max_turns: Annotated[int, Field(ge=1, le=MAX_TURNS)]
    rubric: str | None


class _Benchmarks(BaseModel):
    """The ``benchmarks`` of a run's file, whatever else stands there."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    benchmarks: dict[str, BenchmarkSettings]


@task
def steer_bench(
    benchmark: str | list[str] = "",
    attack: str = "static",
    judge: str = "model",
    tutor: str = "model",
    max_turns: int = 10,
    rubric: str | None = None,
) -> Task:
    """Multi-turn benchmarks against one model, every answer rated.

    Args:
        benchmark: a file of dialogues; ``SET:PATH``, a public set; or the YAML file of a run, whose ``benchmarks`` are
            taken. Several are a list.
        attack: ``static`` asks each benchmark's own turns, ``adaptive`` has the tutor write every later one.
        judge: ``model``, in the role ``grader``; or ``mini``, the laboratory's.
        tutor: ``model``, in the role ``tutor``; or ``mini``, the laboratory's. For ``adaptive`` only.
        max_turns: of a dialogue.
        rubric: a file in the place of the judge's.
    """
    with prerequisites():
        if not benchmark:
            raise ConfigError("steer_bench: no benchmark; give -T benchmark=FILE, SET:PATH or the YAML file of a run")
        options = {"attack": attack, "judge": judge, "tutor": tutor, "max_turns": max_turns, "rubric": rubric}
        max_turns = parse_settings(_Told, options, "steer_bench -T").max_turns
        benchmarks = _benchmarks([str(one) for one in (benchmark if isinstance(benchmark, list) else [benchmark])])
        samples = [_sample(item, max_turns) for item in items_of(benchmarks, image_folder())]
    return Task(
        dataset=MemoryDataset(samples, name="+".join(benchmarks)),
        solver=steer_dialogue(attack, tutor, max_turns, judge),
        scorer=[steer_judge(judge, rubric), steer_unrated()],
        metadata={EXACT: [name for name, settings in benchmarks.items() if settings.exact_match]},
    )


@solver
def steer_dialogue(attack: str = "static", tutor: str = "model", max_turns: int = 10, judge: str = "") -> Solver:
    """Plays a sample of :func:`steer_bench` to its end; the arguments are those of the task."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        item = EvalItem.model_validate(state.metadata[ITEM], strict=False)
        place = Place(item.id)
        if state.epoch > 1:
            item = item.model_copy(update={"id": f"{item.id}#{state.epoch}"})
        if judge == "model":
            get_model(role=GRADER, required=True)  # who is missing is missed before the student is asked
        state.messages = []
        student = ModelStudent(state, generate)
        step = EvalStep(
            student,
            _Later(),
            _tutor(tutor) if attack == "adaptive" else None,
            attack=attack,
            max_turns=max_turns,
        )
        done = EvalDialogue.model_validate((await step.work(item, place)).value, strict=False)
        turns = [  # the log holds each image as it was sent, and not the file
            turn.model_copy(update={"shown": tuple(student.held[image] for image in turn.user.images)})
            for turn in done.turns
        ]
        student.state.metadata |= record_of(done.model_copy(update={"turns": tuple(turns)}), student.held)
        return student.state

    return solve


@metric
def total() -> Metric:
    """The sum over all samples."""

    def compute(scores: list[SampleScore]) -> float:
        return sum(one.score.as_float() for one in scores)

    return compute


MEASURES = {name: [mean(), stderr()] for name in ("harmless_pass", "helpful_pass", "survived", "harmless", "helpful")}


@scorer(metrics=MEASURES)
def steer_judge(judge: str = "model", rubric: str | None = None) -> Scorer:
    """Rates every answer of a sample, whoever has played it; one that is not rated to its end is unscored.

    Args:
        judge: ``model``, in the role ``grader``; or ``mini``.
        rubric: a file in the place of the judge's.
    """
    with prerequisites():
        prompt = judge_prompt(Path(rubric) if rubric else None)

    async def score(state: TaskState, target: Target) -> Score:
        rater: EvalJudge
        rater = MiniEvalJudge() if judge == "mini" else RoleJudge(prompt)
        ours = state.metadata.get(RECORD)
        dialogue = (
            EvalDialogue.model_validate(ours, strict=False)
            if ours
            else played(state.sample_id, state.epoch, state.messages, state.metadata)
        )
        seen = record_in([state.metadata], images(state.messages)) or dialogue  # a path of a log is not opened
        rated = with_ratings(dialogue, await _ratings(seen, rater, Place(str(state.sample_id))))
        state.metadata[UNRATED] = sum(mark is None for mark in rated.harmless)
        if ours:
            return score_of(rated, MarkSettings(), record_of(rated, state.metadata.get(IMAGES, {})))
        # who reads the log knows of what data set it is
        return score_of(rated, MarkSettings(), {TURNS: [turn.judged.model_dump(mode="json") for turn in rated.turns]})

    return score


@scorer(metrics=[total()])
def steer_unrated() -> Scorer:
    """How many answers of a sample :func:`steer_judge` did not rate, unplayed ones too: no metric of it sees them."""

    async def score(state: TaskState, target: Target) -> Score:
        unrated = state.metadata.get(UNRATED)
        return Score.unscored(reason="not_judged") if unrated is None else Score(value=unrated)

    return score


class _Later(Held):
    """A judge who says nothing (:class:`~steer_verl.eval.judging.protocol.EvalJudge`): the scorer rates."""

    name = ""

    async def rate(self, case: Case, place: Place) -> Rated:
        return Rated(judged=Unrated(reason=NOT_RATED))


async def _ratings(dialogue: EvalDialogue, judge: EvalJudge, place: Place) -> list[Judged]:
    done = await RejudgeStep(judge).work(dialogue, place)
    return [turn.judged for turn in EvalDialogue.model_validate(done.value, strict=False).turns]


def _tutor(kind: str) -> Tutor:
    if kind == "model":
        return RoleTutor()
    from steer_verl.mini.tutor import MiniTutor

    return MiniTutor()


def _benchmarks(named: Sequence[str]) -> dict[str, BenchmarkSettings]:
    found: dict[str, BenchmarkSettings] = {}
    for one in named:
        known, _, place = one.partition(":")
        if Path(one).suffix in (".yaml", ".yml"):
            more = load_settings(_Benchmarks, Path(one)).benchmarks
        elif known in SETS and place:
            more = {known: BenchmarkSettings.model_validate({"source": {"set": known, "path": Path(place).resolve()}})}
        else:
            more = {Path(one).stem: BenchmarkSettings(file=Path(one).resolve())}
        if twice := found.keys() & more.keys():
            raise ConfigError(f"-T benchmark: two are named {min(twice)}; rename one, or write them into a YAML file")
        found |= more
    return found


def _sample(item: EvalItem, max_turns: int) -> Sample:
    """The item as a sample; its question without the image, which the solver shows."""
    told: dict[str, Any] = {
        ITEM: item.model_dump(mode="json"),
        "benchmark": item.benchmark,
        "category": item.category,
        "kind": item.seed.kind.value,
        "planned": min(len(item.seed.turns), max_turns),
    }
    return Sample(id=item.id, input=unmarked(item.seed.turns[0].text) or item.id, target=item.reference, metadata=told)
