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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from os.path import commonprefix

from benchmarks import pages
from steer_verl.answer import parse_answer
from steer_verl.data.student_format import STUDENT_FORMAT
from steer_verl.eval.judging.protocol import Case
from steer_verl.eval.judging.request import judge_prompt, request_values
from steer_verl.models.forms import Said
from steer_verl.models.prompt_file import CLOSING
from steer_verl.tutor.prompt import ImagePart, PromptBuilder, Rubric, Task
from steer_verl.types import IMAGE_MARK, QuestionOrigin, Scores, Seed, Turn, TutorRequest, UserTurn, Verdict

DIALOGUES = 1000
TRAINING, BENCH = (8.33, 5), (8.55, 1)
"""Mean turns of a dialogue, and dialogues of one seed."""
QUESTION_WORDS, ANSWER_WORDS = 40, 150
"""Of the answer, both blocks of the student's form together."""
SEEN, PICTURE_TOKENS = "\ufffc", 256
"""What stands for a picture in a flat prompt; its tokens are Qwen3-VL's of 512 x 512 pixels."""
MESSAGE_TOKENS = 5
"""What a chat template puts around a message: its role and its two marks."""
VERDICT = Verdict(scores=Scores(safety=8, usefulness=8, faithfulness=9))

PROSE = """\
The picture shows a kitchen in the morning with a wooden table near the window, a blue cup of coffee, two plates with
bread and fruit, and a newspaper that somebody has left open; the light comes from the left, the chairs are empty, and
behind them stands a shelf with jars, books and a small radio. If you would like to know more about any of these things,
for example how the coffee was made or what the jars may contain, please tell me which of them interests you most, and I
will describe it as precisely as what can be seen allows."""


@dataclass(frozen=True)
class Asked:
    """One request: its whole prompt, how much of it the server holds already, and the reply."""

    prompt: str
    known: str
    reply: str
    messages: int = 2


Play = Callable[[int, int], Iterator[Asked]]
"""(turns, rollout) -> the requests of one dialogue in order."""
Count = Callable[[str], int]


def words(number: int, start: int) -> str:
    """So many words of English prose, different for each start."""
    prose = PROSE.split()
    return " ".join(prose[(start * 17 + i) % len(prose)] for i in range(number))


def exchanges(turns: int, rollout: int) -> Iterator[tuple[int, UserTurn, str]]:
    """(turn from 0, question, answer in the student's form) of a dialogue with one picture in its first turn."""
    for turn in range(turns):
        text, half = words(QUESTION_WORDS, 7 * turn), ANSWER_WORDS // 2
        user = UserTurn(text=text) if turn else UserTurn(text=IMAGE_MARK + text, images=("picture.png",))
        thought, said = words(half, 3 * turn + rollout), words(ANSWER_WORDS - half, 5 * turn + rollout + 1)
        yield turn, user, f"<thinking>{thought}</thinking><answer>{said}</answer>"


def tutor(turns: int, rollout: int, *, rubric_last: bool = False) -> Iterator[Asked]:
    """The tutor's requests: verdict and next question in one, the last turn's verdict alone.

    Our prompts have the rubric before the history. ``rubric_last``: the same words in the paper's order, in which a
    cache holds the history alone.
    """
    builder = PromptBuilder(Rubric.load(), image=lambda path: "data:", secret=b"the same for every dialogue of a run")
    seed = Seed(id="seed", turns=tuple(user for _, user, _ in exchanges(turns, rollout)))
    closed = list[Turn]()
    for turn, user, said in exchanges(turns, rollout):
        hint = seed.turns[turn + 1] if turn + 1 < turns else None
        shown = TutorRequest(
            seed=seed,
            turns=tuple(closed),
            user=user,
            answer=said,
            static_next_turn=hint,
            turn_key=f"train/1/seed/{rollout}/{turn + 1}",
        )
        prompt = builder.build(shown, Task.BOTH if hint else Task.SCORE)
        history = "".join(SEEN if isinstance(item, ImagePart) else item for item in prompt.history)
        asked = {"attack_strategy": "bait_and_switch", "new_question": words(QUESTION_WORDS, 11 * turn + 4)}
        ruled = {"diagnosis": words(20, turn), "scores": {"id": "0123456789ab", **VERDICT.scores.model_dump()}}
        reply = json.dumps({"id": "0123456789ab", **(asked if hint else {}), **ruled}, separators=(",", ":"))
        if rubric_last:
            yield Asked(history + prompt.system + prompt.request, "", reply)
        else:
            yield Asked(prompt.system + history + prompt.request, prompt.system, reply)
        closed.append(Turn(user=user, origin=QuestionOrigin.SEED, answer=said, verdict=VERDICT))


def judge(turns: int, rollout: int) -> Iterator[Asked]:
    """The evaluation's judge: each answer as its user reads it, after all that led to it."""
    prompt, dialogue = judge_prompt(), tuple[Said, ...]()
    for turn, user, said in exchanges(turns, rollout):
        question = Said(role="user", text=user.text.replace(IMAGE_MARK, ""))
        dialogue = (*dialogue, question, Said(role="assistant", text=parse_answer(said).answer))
        text = prompt.render(request_values(Case(said=dialogue)))
        reply = {"id": "0123456789abcdef", "harmless": 3, "helpful": 2, "refusal": "none", "why": words(25, turn)}
        whole = f"{prompt.instructions}{SEEN}{text}\n\n{CLOSING} 0123456789abcdef."
        yield Asked(whole, prompt.instructions, json.dumps(reply))


def student(turns: int, rollout: int) -> Iterator[Asked]:
    """The student's turns, with the built-in system prompt; its engine holds what it wrote itself."""
    told = STUDENT_FORMAT
    for turn, user, said in exchanges(turns, rollout):
        known, told = told, told + user.text.replace(IMAGE_MARK, SEEN)
        yield Asked(told, known, said, messages=2 * turn + 2)
        told += said


def usage(play: Play, turns: float, rollouts: int, tokens: Count) -> list[int]:
    """Requests, and tokens of prompts, cached prompts and replies, of :data:`DIALOGUES` dialogues of a mean length:
    between those of the two whole lengths around it."""

    def group(whole: int) -> list[int]:
        """Of the rollouts of one seed, one after another."""
        rows, opening = list[tuple[int, int, int, int]](), ""
        for rollout in range(rollouts):
            before = opening
            for one in play(whole, rollout):
                known = max(one.known, commonprefix((one.prompt, before)), key=len)  # noqa: RUF071 - by letters
                rows.append((1, length(one, tokens), tokens(known), tokens(one.reply)))
                opening, before = opening or one.prompt, one.prompt
        return [sum(column) for column in zip(*rows, strict=True)]

    low, high = group(math.floor(turns)), group(math.ceil(turns))
    mixed = ((1 - turns % 1) * less + turns % 1 * more for less, more in zip(low, high, strict=True))
    return [round(DIALOGUES / rollouts * figure) for figure in mixed]


def length(asked: Asked, tokens: Count) -> int:
    """Tokens of a request's prompt."""
    return tokens(asked.prompt) + MESSAGE_TOKENS * asked.messages


def counter() -> tuple[str, Count]:
    """The best tokenizer that is here: what it is called, and how many tokens a text has with its pictures."""
    try:
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer

        tekken = Tekkenizer.from_file(str(resources.files("mistral_common") / "data" / "tekken_240911.json"))
    except (ImportError, OSError):
        name, count = "four characters a token", lambda text: round(len(text) / 4)
    else:
        name, count = "Tekken", lambda text: len(tekken.encode(text, False, False))
    return name, cache(lambda text: count(text) + PICTURE_TOKENS * text.count(SEEN))


def main(argv: Sequence[str] | None = None) -> None:
    """Print the estimate."""
    parser = argparse.ArgumentParser(description="Tokens and cost of 1,000 dialogues: an estimate.")
    parser.add_argument("--prompt-price", type=float, default=0.0, help="of a million tokens, in any currency")
    parser.add_argument("--cached-price", type=float, help="of a million cached ones [that of the prompt]")
    parser.add_argument("--completion-price", type=float, default=0.0)
    prices = parser.parse_args(argv)
    cached_price = prices.prompt_price if prices.cached_price is None else prices.cached_price
    name, tokens = counter()
    roles: dict[str, tuple[Play, tuple[float, int]]] = {
        "tutor, training": (tutor, TRAINING),
        "the same, rubric after the history (paper)": (partial(tutor, rubric_last=True), TRAINING),
        "student, training": (student, TRAINING),
        "tutor, adaptive evaluation": (tutor, BENCH),
        "student, evaluation": (student, BENCH),
        "judge, evaluation": (judge, BENCH),
    }
    rows = []
    for role, (play, size) in roles.items():
        requests, *used = usage(play, *size, tokens)
        prompt, cached, reply = (figure / 1e6 for figure in used)
        cost = (prompt - cached) * prices.prompt_price + cached * cached_price + reply * prices.completion_price
        rows.append([role, f"{requests:,}", *(f"{n:.2f} M" for n in (prompt, cached, reply)), f"{cost:.2f}"])
    head = ["role", "requests", "prompt", "of it cached", "completion", "cost"]
    print(f"1,000 dialogues, tokens by {name}:\n\n{pages.table(head, rows)}\n")
    for role, play in (("tutor", tutor), ("student", student)):
        first, *_, last = play(math.ceil(TRAINING[0]), 0)
        longest, shared = length(last, tokens), tokens(first.known)
        print(f"- {role}: the last prompt of a dialogue has {longest:,} tokens, the first {shared:,} the same in all")


if __name__ == "__main__":
    main()
