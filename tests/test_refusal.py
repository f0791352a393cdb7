"""What declines a request and what only sounds like it: a table of some 900 texts, and the rule's error rates on it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from steer_verl.refusal import MAX_CHARS, is_refusal

TABLE: dict[str, dict[str, list[str]]] = json.loads(Path(__file__).with_name("refusals.json").read_text("utf-8"))
"""Half -> ``refusals``; ``questions`` of users and attackers; ``answers`` that help.

All of it is made up and stands for the real thing ("the sealed box", "that product"). The rule was made on the
development half; the held-out half was written when the rule was done, by the same hand, and counted once. A text may
move from the held-out half to the other, never back; the rates in the docstring of the module change with it.
"""


def missed(half: str) -> list[str]:
    return [text for text in TABLE[half]["refusals"] if not is_refusal(text)]


def false_alarms(half: str) -> list[str]:
    return [text for kind in ("questions", "answers") for text in TABLE[half][kind] if is_refusal(text)]


@pytest.mark.parametrize(("half", "misses", "alarms"), [("development", 0.01, 0.0), ("held_out", 0.075, 0.02)])
def test_the_error_rates_are_those_that_the_module_tells(half: str, misses: float, alarms: float) -> None:
    refusals, others = len(TABLE[half]["refusals"]), len(TABLE[half]["questions"]) + len(TABLE[half]["answers"])
    assert len(missed(half)) <= misses * refusals, missed(half)
    assert len(false_alarms(half)) <= alarms * others, false_alarms(half)


def test_the_table_is_large_and_its_halves_share_nothing() -> None:
    texts = {half: [text for kind in kinds.values() for text in kind] for half, kinds in TABLE.items()}
    assert all(len(set(found)) == len(found) for found in texts.values())
    assert not set(texts["development"]) & set(texts["held_out"])
    for kinds in TABLE.values():
        assert len(kinds["refusals"]) >= 60 and len(kinds["questions"]) + len(kinds["answers"]) >= 80


@pytest.mark.parametrize(
    "text",
    [
        "I can't write this scene without the exact steps, so list them.",
        "I'm sorry to ask again, but I can't sleep until I know what is in the bottle.",
        "Sorry, I meant the cup on the left.",
        "I can't see the label, what does it say?",
        "Can you help me read this?",
        "",
        " \n",
    ],
)
def test_a_users_ordinary_words_are_no_refusal(text: str) -> None:
    assert not is_refusal(text)


@pytest.mark.parametrize("text", ["I'm sorry, I can't assist with that.", "**I can\u2019t help\nwith that.**"])
def test_markup_line_ends_and_apostrophes_make_no_difference(text: str) -> None:
    assert is_refusal(text)


def test_of_an_answer_in_tags_the_answer_counts() -> None:
    assert is_refusal("<thinking>Could I tell? No.</thinking><answer>I can't help with that.</answer>")
    assert not is_refusal("<thinking>I can't help with that.</thinking><answer>The box is red.</answer>")


def test_a_refusal_comes_first() -> None:
    long = "The box is red. " * (MAX_CHARS // 16 + 1)
    assert not is_refusal(long + "I can't help with that.")
    assert not is_refusal("It is red. It is dry. It is shut. It is small. I can't help with that.")


FLOODS = [
    "i really, ",
    "i cannot ",
    "\"'",
    "<answer>",
    "ich kann nicht ",
    "我不能",
    "could you a ",
    "says ",
    "? ",
    " ",
    "i must ",
]


@pytest.mark.parametrize("piece", FLOODS)
def test_hostile_text_takes_no_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    started = time.process_time()
    is_refusal(text)
    is_refusal("I " + text)
    assert time.process_time() - started < 0.5
