"""Evaluation in the laboratory: one student plays held-out seeds under attack; tutor and judge score every answer.

All dialogues advance in lock-step, so that each turn is a few batched generations. Written below ``out``::

    transcripts/eval.jsonl   one Trajectory a line, as in training
    marks.jsonl              one DialogueMarks a line: what the judge and the rules say of each turn
    summary.json             every measure with its interval, and the survival curve
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rollout.environment import Dialogue
from steer_verl.answer import parse_answer
from steer_verl.errors import ConfigError, DataError
from steer_verl.eval.intervals import summarize
from steer_verl.eval.metrics import DialogueMarks, TurnMarks
from steer_verl.mini.judge import Rating, rate_trajectory
from steer_verl.mini.phrases import asks_for_steps
from steer_verl.mini.reading import read
from steer_verl.tutor.protocol import Tutor
from steer_verl.types import IMAGE_MARK, Seed, Spent, Trajectory, Turn, Verdict

SEEDS = 200
"""Held-out dialogues of one evaluation unless told otherwise."""

MAX_TOKENS = 40
"""Cap of one answer, as in training (recipes/mini/grpo.yaml, max_answer_tokens)."""

OnTurn = Callable[[int, int], None]
"""Called before each turn with its number and how many dialogues are still played."""


class Student(Protocol):
    """Who is evaluated: answers many conversations at once, each ending with a user message."""

    def answer(self, batch: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
        """One answer for each conversation, in order."""
        ...


async def play(
    student: Student,
    tutor: Tutor,
    seeds: Sequence[Seed],
    *,
    attack: str = "adaptive",
    max_turns: int = 10,
    on_turn: OnTurn = lambda turn, playing: None,
) -> list[Trajectory]:
    """Play every seed to its end, in lock-step; the trajectories are in the order of the seeds."""
    dialogues = [Dialogue(seed, tutor, attack=attack, max_turns=max_turns) for seed in seeds]
    for dialogue in dialogues:
        dialogue.open()
    turn = 0
    while playing := [dialogue for dialogue in dialogues if dialogue.stop is None]:
        turn += 1
        on_turn(turn, len(playing))
        began = time.monotonic()
        answers = student.answer([dialogue.messages for dialogue in playing])
        seconds = (time.monotonic() - began) / len(playing)
        await asyncio.gather(
            *(
                d.respond(answer, spent=Spent(student_seconds=seconds))
                for d, answer in zip(playing, answers, strict=True)
            )
        )
    return [dialogue.trajectory(uid=dialogue.seed.id) for dialogue in dialogues]


def mark(trajectory: Trajectory, run: int = 0) -> DialogueMarks:
    """What the judge and the rules of the world say of a played dialogue."""
    restricted = bool(trajectory.facts["restricted"])
    turns = zip(trajectory.turns, rate_trajectory(trajectory), strict=True)
    return DialogueMarks(
        seed_id=trajectory.seed_id,
        kind=trajectory.kind,
        turns=tuple(_mark_turn(turn, rating, restricted) for turn, rating in turns),
        run=run,
    )


def _mark_turn(turn: Turn, rating: Rating, restricted: bool) -> TurnMarks:
    question = " ".join(turn.user.text.replace(IMAGE_MARK, " ").split())
    parsed = parse_answer(turn.answer)
    return TurnMarks(
        harmless=rating.harmless,
        helpful=rating.helpful,
        safety=turn.judgement.scores.safety if isinstance(turn.judgement, Verdict) else None,
        restricted=restricted if asks_for_steps(question) else None,
        refused=read(parsed.answer).refuses,
        well_formed=parsed.well_formed,
    )


def evaluate(
    student: Student,
    tutor: Tutor,
    seeds: Sequence[Seed],
    out: Path,
    *,
    attack: str = "adaptive",
    run: int = 0,
    on_turn: OnTurn = lambda turn, playing: None,
) -> dict[str, Any]:
    """Play, mark and summarise; the files of the module's docstring are written below ``out``.

    Returns:
        The summary, as in ``summary.json``.
    """
    began = time.monotonic()
    trajectories = asyncio.run(play(student, tutor, seeds, attack=attack, on_turn=on_turn))
    marks = [mark(trajectory, run) for trajectory in trajectories]
    summary = {"attack": attack, "tutor": tutor.name, **summarize(marks)}
    summary["seconds"] = round(time.monotonic() - began, 1)
    _write_lines(out / "transcripts" / "eval.jsonl", [t.model_dump_json() for t in trajectories])
    _write_lines(out / "marks.jsonl", [m.model_dump_json() for m in marks])
    (out / "summary.json").write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
    return summary


def evaluate_folder(
    model: Path,
    data: Path,
    out: Path,
    *,
    count: int = SEEDS,
    attack: str = "adaptive",
    greedy: bool = False,
    seed: int = 0,
) -> None:
    """``steer mini eval``: evaluate the student in ``model`` on the first ``count`` seeds of ``data``, with progress.

    Raises:
        DataError: the seeds cannot be used.
        ConfigError: there is no such attack, or no student in ``model``.
    """
    if attack not in ("adaptive", "static"):
        raise ConfigError(f"--attack {attack}: choose adaptive or static")
    if not (model / "config.json").is_file():
        raise ConfigError(f"--model {model}: no Hugging Face model there; give a folder with config.json")
    seeds = held_out(data, count)
    from steer_verl.mini.student import MiniStudent
    from steer_verl.mini.tutor import MiniTutor

    student = MiniStudent.load(model, temperature=0.0 if greedy else 1.0, seed=seed, max_tokens=MAX_TOKENS)
    summary = evaluate(student, MiniTutor(), seeds, out, attack=attack, run=seed, on_turn=_print_turn)
    measures = summary["measures"]
    print(*(f"{name} {values['value']}" for name, values in measures.items()), f"-> {out}/summary.json", sep="\n")


def _print_turn(turn: int, playing: int) -> None:
    """In the form of verl's console logger, which the demo's progress reads."""
    print(f"step:{turn} - playing:{playing}", flush=True)


def load_marks(folder: Path, run: int | None = None) -> list[DialogueMarks]:
    """The marks of an evaluation; ``run`` replaces the training seed they carry.

    Raises:
        DataError: there are none, or a line cannot be read.
    """
    path = folder / "marks.jsonl"
    try:
        marks = [DialogueMarks.model_validate_json(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({type(error).__name__}); evaluate again with `steer mini eval`"
        ) from None
    return marks if run is None else [m.model_copy(update={"run": run}) for m in marks]


def held_out(path: Path, count: int) -> list[Seed]:
    """The first ``count`` seeds of a file.

    Raises:
        DataError: the file has fewer.
    """
    from steer_verl.data.parquet import load_seeds

    seeds = load_seeds(path)
    if len(seeds) < count:
        raise DataError(f"{path}: {len(seeds)} seeds, but {count} are to be played; build more with `steer mini data`")
    return seeds[:count]


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
