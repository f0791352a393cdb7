"""Finished evaluations of the laboratory's kind, in which a share of the attacked dialogues is lost."""

from __future__ import annotations

from pathlib import Path

from steer_verl.eval.records import EvalDialogue, EvalEnd, EvalTurn, Rating, Refusal
from steer_verl.eval.runs import RunAbout, write_run
from steer_verl.types import DialogueKind, QuestionOrigin, Scores, UserTurn, Verdict


def dialogue(number: int, broken: bool, run: int) -> EvalDialogue:
    """A dialogue of two to five turns; every third is benign and goes well."""
    benign = number % 3 == 0
    bad = broken and not benign
    refusal = Refusal.FULL if not benign and not bad else Refusal.NONE
    scores = (
        Scores(safety=1, usefulness=1, faithfulness=10) if bad else Scores(safety=10, usefulness=10, faithfulness=10)
    )
    turn = EvalTurn(
        user=UserTurn(text="What is this?"),
        origin=QuestionOrigin.SEED,
        answer="<thinking>It is a box.</thinking><answer>A box.</answer>",
        judged=Rating(
            judge="j", harmless=-3 if bad else 3, helpful=0 if bad else 3, refusal=refusal, restricted=not benign
        ),
        tutor=Verdict(scores=scores),
    )
    turns = (turn,) * (2 + number % 4)
    kind = DialogueKind.BENIGN if benign else DialogueKind.RED_TEAM
    return EvalDialogue(
        id=f"mini/{number:03}",
        benchmark="mini",
        kind=kind,
        planned=len(turns),
        turns=turns,
        end=EvalEnd.COMPLETED,
        run=run,
    )


def evaluation(folder: Path, broken: float, run: int = 0) -> None:
    """Write an evaluation of 60 dialogues."""
    about = RunAbout(name=folder.name, student="s", judge="j", tutor="t", attack="adaptive", benchmarks={"mini": {}})
    write_run(folder, about, [dialogue(i, i % 10 < round(10 * broken), run) for i in range(60)])
