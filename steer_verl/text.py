"""Text that nobody vouches for: dataset rows, tutor questions and student answers, made safe to put into a prompt.

A chat template joins roles with special tokens (``<|im_end|>``), and verl's dataset splits a message at ``<image>`` and
``<video>`` (utils/dataset/rl_dataset.py). Text that merely *spells* one of them would forge a role or a picture. It is
kept readable: a zero-width space after the first character stops the tokenizer from seeing the token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from steer_verl.types import IMAGE_MARK, UserTurn

BREAK = "\u200b"
"""What is put inside a spelled special token: a zero-width space."""

REPLACEMENT = "\ufffd"
"""Stands for a lone surrogate, which UTF-8 cannot carry, and for a special token of one character."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_NEWLINES = re.compile(r"\r\n?|[\u2028\u2029]")

# Role and media marks of the chat templates in use, whatever tokenizer is loaded. ASCII and full-width bars (DeepSeek).
_MARKS = (
    r"<[|\uff5c]",
    r"</?(?:s|bos|eos|pad|unk|image|video|audio|start_of_turn|end_of_turn|start_of_image|tool_call|tool_response|think)>",
    r"<</?SYS>>",
    r"\[/?INST\]",
    r"\[IMG(?:_BREAK|_END)?\]",
)


def neutralize(text: str, special_tokens: Iterable[str] = ()) -> str:
    """``text`` in which no special token, role mark or media mark is spelled any more; ordinary text is unchanged.

    Control characters other than tab and newline are dropped, line ends become ``\\n``, lone surrogates U+FFFD.
    Idempotent.

    Args:
        text: anything.
        special_tokens: further tokens to break, usually a tokenizer's ``all_special_tokens`` and its added tokens.
    """
    text = _NEWLINES.sub("\n", text)
    text = _SURROGATE.sub(REPLACEMENT, _CONTROL.sub("", text))  # first: dropping a character may complete a token
    starts, singles = _patterns(tuple(sorted(set(special_tokens))))
    if singles is not None:
        text = singles.sub(REPLACEMENT, text)
    return starts.sub(rf"\g<0>{BREAK}", text)


def neutralize_turn(turn: UserTurn, special_tokens: Iterable[str] = ()) -> UserTurn:
    """``turn`` with its words neutralised and its own picture marks, which are counted against its pictures, kept."""
    tokens = tuple(special_tokens)
    parts = [neutralize(part, tokens) for part in turn.text.split(IMAGE_MARK)]
    return turn.model_copy(update={"text": IMAGE_MARK.join(parts)})


@lru_cache(maxsize=16)
def _patterns(tokens: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
    """Patterns: the first character of every spelled mark, overlapping ones included, and the one-character tokens."""
    marks = [*_MARKS, *(re.escape(token) for token in tokens if len(token) > 1)]
    singles = [re.escape(token) for token in tokens if len(token) == 1 and token != REPLACEMENT]
    starts = re.compile(rf"(?=(?:{'|'.join(marks)})).", re.DOTALL)
    return starts, re.compile("|".join(singles)) if singles else None
