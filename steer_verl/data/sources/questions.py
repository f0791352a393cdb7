"""The text of a question that somebody else wrote: trimmed, one Unicode form, no marks, or :class:`Refused`.

A mark is where verl's dataset would put an image, a video or a sound; sets write ``<image>`` before the question.
"""

from __future__ import annotations

import re

from steer_verl.data.sources.sets import Refused
from steer_verl.text import folded, normalized
from steer_verl.types import MARKS

_HEAD = re.compile(rf"\A(?:\s|{'|'.join(map(re.escape, MARKS))})+")
_TAIL = re.compile(rf"\A(?:\s|{'|'.join(re.escape(mark[::-1]) for mark in MARKS)})+")
"""For the text read backwards: a pattern that ends in ``\\Z`` takes quadratic time over a long run of spaces."""
_LINE_ENDS = re.compile(r"\r\n?|[\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def plain_text(text: str) -> str:
    """``text`` in Unicode's NFC form, without control characters but tabs and newlines, and without marks at its ends.

    Idempotent. Refused: a lone surrogate, which UTF-8 cannot carry.
    """
    if _SURROGATE.search(text):
        raise Refused("text", "a lone surrogate", "write the character itself, in UTF-8")
    text = normalized("NFC", _CONTROL.sub("", _LINE_ENDS.sub("\n", text)))
    return _TAIL.sub("", _HEAD.sub("", text)[::-1])[::-1]


def clean_question(text: str, max_chars: int) -> str:
    """A question as a seed holds it. Refused: no words, too long, or a mark in the middle."""
    text = plain_text(text)
    if inside := [mark for mark in MARKS if mark in text]:
        raise Refused("text", f"the question holds {inside[0]} between its words", "reword it; a seed has one image")
    if len(text) > max_chars:
        raise Refused("text", f"the question has {len(text)} characters, more than {max_chars}", "shorten it")
    if not folded(text):
        raise Refused("text", "the question has no words", "write what the user says")
    return text


def clean_answer(text: str) -> str:
    """The source's own answer as a seed holds it; empty when it holds a mark, which would ask for an image."""
    text = plain_text(text)
    return "" if any(mark in text for mark in MARKS) else text
