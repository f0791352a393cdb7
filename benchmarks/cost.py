"""What 1,000 dialogues take in tokens, and cost at your prices: ``python -m benchmarks.cost --prompt-price 0.4 ...``.

An estimate from real prompts, not a measurement: the tutor's, the judge's and the student's prompts are built by the
code that builds them in a run, around dialogues of a stated size, and counted by a tokenizer that lies in a package
(Tekken, 131,072 tokens, of ``mistral_common``, which vLLM brings). Without it four characters count as a token.

What a server's prefix cache holds is taken to be: the system message always; a dialogue's earlier turns; and what the
rollouts of one seed have in common, from the second on. A server that forgets or is restarted pays the full prompt.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from os.path import commonprefix
from typing import Any

from benchmarks import pages
from steer_verl.answer import parse_answer
from steer_verl.data.student_format import STUDENT_FORMAT
from steer_verl.eval.judging.protocol import Case
from steer_verl.eval.judging.request import judge_prompt, request_values
from steer_verl.models.forms import Said
from steer_verl.models.prompt_file import CLOSING
from steer_verl.tutor.prompt import ImagePart, PromptBuilder, Rubric, Task
from steer_verl.types import IMAGE_MARK, QuestionOrigin, Scores, Seed, Turn, TutorRequest, Usage, UserTurn, Verdict

Count = Callable[[str], int]

DIALOGUES = 1000
SEEN = "\ufffc"
"""Stands for a picture in a flat prompt."""

MESSAGE_TOKENS = 5
"""What a chat template puts around a message: its role and its two marks."""

PROSE = """\
The picture shows a kitchen in the morning with a wooden table near the window, a blue cup of coffee, two plates with
bread and fruit, and a newspaper that somebody has left open; the light comes from the left, the chairs are empty, and
behind them stands a shelf with jars, books and a small radio. If you would like to know more about any of these things,
for example how the coffee was made or what the jars may contain, please tell me which of them interests you most, and I
will describe it as precisely as what can be seen allows."""


@dataclass(frozen=True)
class Size:
    """What a dialogue is taken to be."""

    turns: float
    question_words: int
    answer_words: int
    """Both blocks of the student's form together."""
    rollouts: int
    """Dialogues of one seed; 1 in an evaluation."""


@dataclass(frozen=True)
class Asked:
    """One request: its whole prompt, how much of it the server holds already, and the reply."""

    prompt: str
    known: str
    reply: str
    messages: int = 2


Play = Callable[[int, Size, int], list[Asked]]
"""(turns, size, rollout) -> the requests of one dialogue in order."""


def words(number: int, start: int) -> str:
    """So many words of English prose, different for each start."""
    prose = PROSE.split()
    return " ".join(prose[(start * 17 + i) % len(prose)] for i in range(number))


def answer(size: Size, turn: int, rollout: int) -> str:
    """One answer in the student's form."""
    half = size.answer_words // 2
    thought, said = words(half, 3 * turn + rollout), words(size.answer_words - half, 5 * turn + rollout + 1)
    return f"<thinking>{thought}</thinking><answer>{said}</answer>"


def seed_of(turns: int, size: Size) -> Seed:
    """The user's side, one picture in the first turn."""
    texts = [words(size.question_words, 7 * turn) for turn in range(turns)]
    first = UserTurn(text=IMAGE_MARK + texts[0], images=("picture.png",))
    return Seed(id="seed", turns=(first, *(UserTurn(text=text) for text in texts[1:])))


def tutor(turns: int, size: Size, rollout: int, *, rubric_last: bool = False) -> list[Asked]:
    """The tutor's requests: verdict and next question in one, the last turn's verdict alone.

    Our prompts have the rubric before the history. ``rubric_last``: the same words in the paper's order, in which a
    cache holds the history alone.
    """
    builder = PromptBuilder(Rubric.load(), image=lambda path: "data:", secret=b"the same for every dialogue of a run")
    seed, closed, asked = seed_of(turns, size), list[Turn](), list[Asked]()
    for number, user in enumerate(seed.turns):
        hint = seed.turns[number + 1] if number + 1 < turns else None
        said = answer(size, number, rollout)
        place = f"train/1/seed/{rollout}/{number + 1}"
        exchange = TutorRequest(
            seed=seed, turns=tuple(closed), user=user, answer=said, static_next_turn=hint, turn_key=place
        )
        prompt = builder.build(exchange, Task.BOTH if hint else Task.SCORE)
        history = "".join(SEEN if isinstance(item, ImagePart) else item for item in prompt.history)
        first = (history, prompt.system) if rubric_last else (prompt.system, history)
        known = "" if rubric_last else prompt.system
        asked.append(Asked("".join((*first, prompt.request)), known, _ruling(size, number, hint)))
        closed.append(Turn(user=user, origin=QuestionOrigin.SEED, answer=said, verdict=_verdict()))
    return asked


def judge(turns: int, size: Size, rollout: int) -> list[Asked]:
    """The evaluation's judge: each answer as its user reads it, after all that led to it."""
    prompt, said, asked = judge_prompt(), tuple[Said, ...](), list[Asked]()
    system = prompt.instructions
    for number, user in enumerate(seed_of(turns, size).turns):
        read = parse_answer(answer(size, number, rollout)).answer
        question = Said(role="user", text=user.text.replace(IMAGE_MARK, ""))
        said = (*said, question, Said(role="assistant", text=read))
        text = prompt.render(request_values(Case(said=said)))
        reply = {"id": "0123456789abcdef", "harmless": 3, "helpful": 2, "refusal": "none", "why": words(25, number)}
        asked.append(Asked(f"{system}{SEEN}{text}\n\n{CLOSING} 0123456789abcdef.", system, json.dumps(reply)))
    return asked


def student(turns: int, size: Size, rollout: int) -> list[Asked]:
    """The student's turns, with the built-in system prompt; its engine holds what it wrote itself."""
    told, asked = STUDENT_FORMAT, list[Asked]()
    for number, user in enumerate(seed_of(turns, size).turns):
        known, told = told, told + user.text.replace(IMAGE_MARK, SEEN)
        said = answer(size, number, rollout)
        asked.append(Asked(told, known, said, messages=2 * number + 2))
        told += said
    return asked


def _verdict() -> Verdict:
    return Verdict(scores=Scores(safety=8, usefulness=8, faithfulness=9))


def _ruling(size: Size, number: int, hint: UserTurn | None) -> str:
    """A reply in the form that the tutor is asked for."""
    ruling: dict[str, Any] = {"id": "0123456789ab"}
    if hint is not None:
        ruling |= {"attack_strategy": "bait_and_switch", "new_question": words(size.question_words, 11 * number + 4)}
    scores = {"id": "0123456789ab", **_verdict().scores.model_dump()}
    return json.dumps({**ruling, "diagnosis": words(20, number), "scores": scores}, separators=(",", ":"))


def usage(play: Play, size: Size, count: Count, picture_tokens: int) -> Usage:
    """Tokens of :data:`DIALOGUES` dialogues of a mean length: between those of the two whole lengths around it."""
    low, high = (_group(play, f(size.turns), size, count, picture_tokens) for f in (math.floor, math.ceil))
    share, groups = size.turns % 1, DIALOGUES / size.rollouts
    names = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens")
    mixed = {name: (1 - share) * getattr(low, name) + share * getattr(high, name) for name in names}
    return Usage(**{name: round(groups * tokens) for name, tokens in mixed.items()})


def _group(play: Play, turns: int, size: Size, count: Count, picture_tokens: int) -> Usage:
    """The rollouts of one seed, one after another."""

    def tokens(text: str) -> int:
        return count(text) + picture_tokens * text.count(SEEN)

    total, opening = Usage(), ""
    for rollout in range(size.rollouts):
        before = opening
        for request in play(turns, size, rollout):
            known = max(request.known, commonprefix((request.prompt, before)), key=len)  # noqa: RUF071 - by letters
            total += Usage(
                requests=1,
                prompt_tokens=tokens(request.prompt) + MESSAGE_TOKENS * request.messages,
                cached_tokens=tokens(known),
                completion_tokens=tokens(request.reply),
            )
            opening, before = opening or request.prompt, request.prompt
    return total


def counter() -> tuple[str, Count]:
    """The best tokenizer that is here, and what it is called."""
    try:
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer

        file = resources.files("mistral_common") / "data" / "tekken_240911.json"
        tekken = Tekkenizer.from_file(str(file))
    except (ImportError, OSError):
        return "four characters a token", lambda text: round(len(text) / 4)
    return "Tekken", cache(lambda text: len(tekken.encode(text, False, False)))


def longest(play: Play, size: Size, count: Count, picture_tokens: int) -> tuple[int, int]:
    """Tokens of a dialogue's last prompt, and of its beginning that is the same in every dialogue."""
    first, *_, last = play(math.ceil(size.turns), size, 0)
    return count(last.prompt) + picture_tokens * last.prompt.count(SEEN) + MESSAGE_TOKENS * last.messages, count(
        first.known
    )


def cells(used: Usage, prices: tuple[float, float, float] | None) -> list[str]:
    """Of the table: requests, millions of tokens, and what they cost where prices (of a million) are given."""
    millions = (n / 1e6 for n in (used.prompt_tokens, used.cached_tokens, used.completion_tokens))
    prompt, cached, completion = millions
    found = [f"{used.requests:,}", *(f"{n:.2f} M" for n in (prompt, cached, completion))]
    if prices is not None:
        spent = (prompt - cached) * prices[0] + cached * prices[1] + completion * prices[2]
        found.append(f"{spent:.2f}")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Print the estimate."""
    parser = argparse.ArgumentParser(description="Tokens and cost of 1,000 dialogues: an estimate.")
    parser.add_argument("--rl-turns", type=float, default=8.33, help="mean turns of a training dialogue")
    parser.add_argument("--bench-turns", type=float, default=8.55, help="mean turns of a benchmark's dialogue")
    parser.add_argument("--question-words", type=int, default=40)
    parser.add_argument("--answer-words", type=int, default=150, help="thinking and answer together")
    parser.add_argument("--rollouts", type=int, default=5, help="dialogues of one training seed")
    parser.add_argument("--picture-tokens", type=int, default=256, help="of a 512 x 512 picture: Qwen3-VL 256")
    parser.add_argument("--prompt-price", type=float, help="of a million tokens, in any currency")
    parser.add_argument("--cached-price", type=float, help="of a million cached ones [that of the prompt]")
    parser.add_argument("--completion-price", type=float, default=0.0)
    args = parser.parse_args(argv)
    training = Size(args.rl_turns, args.question_words, args.answer_words, args.rollouts)
    bench = Size(args.bench_turns, args.question_words, args.answer_words, 1)
    name, count = counter()
    cached = args.prompt_price if args.cached_price is None else args.cached_price
    prices = None if args.prompt_price is None else (args.prompt_price, cached, args.completion_price)
    roles: dict[str, tuple[Play, Size]] = {
        "tutor, training": (tutor, training),
        "the same, rubric after the history (paper)": (partial(tutor, rubric_last=True), training),
        "student, training": (student, training),
        "tutor, adaptive evaluation": (tutor, bench),
        "student, evaluation": (student, bench),
        "judge, evaluation": (judge, bench),
    }
    head = ["role", "requests", "prompt", "of it cached", "completion", *(["cost"] if prices else [])]
    rows = [
        [title, *cells(usage(play, size, count, args.picture_tokens), prices)] for title, (play, size) in roles.items()
    ]
    print(f"1,000 dialogues, tokens by {name}:\n\n{pages.table(head, rows)}\n")
    for title, play in (("tutor", tutor), ("student", student)):
        tokens, shared = longest(play, training, count, args.picture_tokens)
        print(f"- {title}: the last prompt of a dialogue has {tokens:,} tokens, the first {shared:,} the same in all")


if __name__ == "__main__":
    main()
