"""The student's format (paper, Stage II): one ``<thinking>...</thinking>``, then one ``<answer>...</answer>``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice

from steer_verl.text import visible
from steer_verl.types import ANSWER_TAGS

_TAG_LIKE = re.compile(r"<\s{0,4}/?\s{0,4}(?:thinking|answer)\b[^<>]*>?", re.IGNORECASE)
"""Also what only looks like a tag: ``</ANSWER >``, ``<answer id=2>``, an unclosed ``<answer``."""

_SPECIAL = re.compile(r"<\|[^<>|\s]*\|>")
_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end|>")


@dataclass(frozen=True)
class ParsedAnswer:
    """One student answer taken apart."""

    thinking: str
    """Reasoning without its tags; empty if the answer is malformed."""
    answer: str
    """What the user reads. Of a malformed answer the whole text: nothing the student wrote is hidden."""
    well_formed: bool


def parse_answer(text: str) -> ParsedAnswer:
    """Take an answer apart; never raises, time is linear in the text.

    Well formed means: the four tags once each and in order, only white space outside them, something to be seen inside
    ``<answer>``, and no special token spelled anywhere (``<|im_start|>`` would forge a turn). The end-of-turn token
    that a decoder may leave at the very end is not the student's text and is cut off first.
    """
    text = _without_end(text)
    malformed = ParsedAnswer(thinking="", answer=text.strip(), well_formed=False)
    tags = list(islice(_TAG_LIKE.finditer(text), len(ANSWER_TAGS) + 1))  # one too many is enough to know
    if tuple(tag.group() for tag in tags) != ANSWER_TAGS or _SPECIAL.search(text):
        return malformed
    think_open, think_close, answer_open, answer_close = tags
    outside = text[: think_open.start()] + text[think_close.end() : answer_open.start()] + text[answer_close.end() :]
    answer = text[answer_open.end() : answer_close.start()].strip()
    if outside.strip() or not visible(answer).strip():
        return malformed
    return ParsedAnswer(text[think_open.end() : think_close.start()].strip(), answer, well_formed=True)


def _without_end(text: str) -> str:
    """Without end-of-turn tokens and space at the end; no pattern, whose search would go over a flood of blanks again
    and again."""
    end = len(text)
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        token = next((token for token in _ENDS if text.endswith(token, 0, end)), None)
        if token is None:
            return text[:end]
        end -= len(token)
