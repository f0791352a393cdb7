"""Finished evaluations that nobody played: symbolic words, marks by a seeded die, images of coloured noise."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from steer_verl.eval.records import EvalDialogue, EvalEnd, EvalTurn, Judged, Rating, Refusal, Unrated
from steer_verl.eval.runs import RunAbout, write_run
from steer_verl.types import (
    IMAGE_MARK,
    AttackStrategy,
    DialogueKind,
    NoAttackReason,
    QuestionOrigin,
    Scores,
    UserTurn,
    Verdict,
)

WORDS = (
    "the",
    "lamp",
    "beside",
    "a",
    "green",
    "door",
    "shows",
    "seven",
    "round",
    "signs",
    "and",
    "two",
    "are",
    "hidden",
)
BENCHMARKS = ("beaver", "dys", "mmsafe", "mossbench", "spa", "vls")
STRATEGIES = (AttackStrategy.PERSISTENCE, AttackStrategy.BAIT_AND_SWITCH, AttackStrategy.DEEPEN)


def sentence(rng: random.Random, length: int) -> str:
    """Words without a meaning."""
    return " ".join(rng.choices(WORDS, k=length)).capitalize() + "."


def images(folder: Path, count: int, rng: random.Random, sides: tuple[int, int] = (64, 96)) -> list[str]:
    """JPEG files; as hard to encode as a photo, because smooth fields carry a little noise."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        size = (rng.randint(*sides), rng.randint(*sides))
        small = Image.frombytes("RGB", (12, 12), rng.randbytes(432)).resize(size, Image.Resampling.BICUBIC)
        noise = Image.effect_noise(size, 24).convert("RGB")
        path = folder / f"{number:05d}.jpg"
        Image.blend(small, noise, 0.2).save(path, quality=88)
        paths.append(str(path))
    return paths


def turn(
    rng: random.Random,
    number: int,
    judged: Judged,
    *,
    own: str = "What does it show?",
    image: str = "",
    attacked: bool = True,
    words: int = 40,
) -> EvalTurn:
    """One exchange; from the second on it is the tutor's, beside ``own``, the benchmark's question."""
    asked = sentence(rng, words // 2) if number > 1 else own
    user = UserTurn(text=IMAGE_MARK + asked, images=(image,)) if image else UserTurn(text=asked)
    later = number > 1
    score = rng.randint(1, 10)
    return EvalTurn(
        user=user,
        origin=QuestionOrigin.TUTOR if later else QuestionOrigin.SEED,
        strategy=(rng.choice(STRATEGIES) if attacked else AttackStrategy.FOLLOW_UP) if later else None,
        fallback=NoAttackReason.ATTACK_REFUSED if later and rng.random() < 0.05 else None,
        static=own if later else "",
        answer=f"<thinking>{sentence(rng, words)}</thinking><answer>{sentence(rng, words)}</answer>",
        answer_tokens=2 * words,
        judged=judged,
        opinions=(judged, judged) if rng.random() < 0.3 else (),
        tutor=Verdict(
            scores=Scores(safety=score, usefulness=score, faithfulness=10), diagnosis=sentence(rng, words // 3)
        ),
    )


def judged(rng: random.Random, skill: float) -> Judged:
    """A rating that is the better the greater ``skill`` is, or now and then none."""
    if rng.random() < 0.02:
        return Unrated(judge="judge", reason=rng.choice(("timeout", "bad_json")), detail="no reply")
    mark = 3 if rng.random() < skill else rng.randint(-3, 2)
    refusal = rng.choices(tuple(Refusal), (80, 12, 8))[0] if mark > 0 else Refusal.NONE
    helpful = rng.choices((3, 2, 1, 0), (75, 15, 7, 3))[0]
    return Rating(judge="judge", harmless=mark, helpful=helpful, refusal=refusal, why=sentence(rng, len(WORDS) // 2))


def dialogue(
    rng: random.Random,
    id: str,
    skill: float,
    *,
    turns: int = 10,
    image: str = "",
    kind: DialogueKind | None = None,
    words: int = 40,
) -> EvalDialogue:
    """One dialogue; now and then it ends early or is odd."""
    benchmark = id.partition("/")[0]
    kind = kind or (DialogueKind.BENIGN if benchmark == "mossbench" else DialogueKind.RED_TEAM)
    attacked = kind is not DialogueKind.BENIGN
    stopped = rng.random() < 0.01
    asks = random.Random(id)  # the benchmark's questions are the same for every student
    own = [sentence(asks, words // 2) for _ in range(turns)]
    played = rng.randint(0, turns - 1) if stopped else turns
    return EvalDialogue(
        id=id,
        benchmark=benchmark,
        kind=kind,
        source=rng.choice(("alpha", "beta")),
        source_id=id.rpartition("/")[2],
        license="CC-BY-4.0",
        category=rng.choice(("signs", "lamps", "doors")),
        planned=turns,
        turns=tuple(
            turn(
                rng,
                t,
                judged(rng, skill),
                own=own[t - 1],
                image=image if t == 1 else "",
                attacked=attacked,
                words=words,
            )
            for t in range(1, played + 1)
        ),
        end=EvalEnd.STUDENT_FAILED if stopped else EvalEnd.COMPLETED,
        detail="no answer in 600 s" if stopped else "",
        oddities=("no_image",) if rng.random() < 0.01 else (),
    )


def about(name: str, benchmarks: Sequence[str] = BENCHMARKS) -> RunAbout:
    """Who was evaluated, by whom."""
    return RunAbout(
        name=name,
        student=f"{name}, greedy",
        judge="symbolic judge",
        tutor="symbolic tutor",
        attack="adaptive",
        benchmarks={benchmark: {} for benchmark in benchmarks},
        marks={"fail_below": 2},
        date="2026-11-25",
    )


def run(
    folder: Path,
    name: str,
    count: int = 60,
    *,
    skill: float = 0.8,
    turns: int = 10,
    paths: Sequence[str] = (),
    more: Sequence[EvalDialogue] = (),
    words: int = 40,
) -> Path:
    """A finished run of ``count`` dialogues and ``more``; two runs of one size hold the same ids."""
    rng = random.Random(name)
    made = [
        dialogue(
            rng,
            f"{BENCHMARKS[n % len(BENCHMARKS)]}/{n:04d}",
            skill,
            turns=turns,
            image=paths[n % len(paths)] if paths else "",
            words=words,
        )
        for n in range(count)
    ]
    named = {benchmark: {"images": str(Path(paths[0]).parent)} if paths else {} for benchmark in BENCHMARKS}
    write_run(folder, about(name).model_copy(update={"benchmarks": named}), [*made, *more])
    return folder
