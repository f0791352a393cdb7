"""Text that nobody vouches for: dataset rows, tutor questions and student answers, made safe to put into a prompt.

A chat template joins roles with special tokens (``<|im_end|>``), and verl's dataset splits a message at ``<image>`` and
``<video>`` (utils/dataset/rl_dataset.py). Text that merely *spells* one of them would forge a role or a picture. It is
kept readable: a zero-width space after the first character stops the tokenizer from seeing the token.

Three views: :func:`neutralize` for whatever enters a prompt, :func:`visible` for words that a tutor must read as a
person would, and :func:`folded` for comparing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from steer_verl.types import IMAGE_MARK, UserTurn

BREAK = "\u200b"
"""What is put inside a spelled special token: a zero-width space."""

QUOTE = "> "
"""Begins every line of others' words in a prompt: a line without it is ours."""

REPLACEMENT = "\ufffd"
"""Stands for a lone surrogate, which UTF-8 cannot carry, and for a special token of one character."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_NEWLINES = re.compile(r"\r\n?|[\u2028\u2029]")

# Role and media marks of the chat templates in use, whatever tokenizer is loaded. The brackets in their full-width and
# small forms too, because some tokenizers fold those (NFKC) before they look for their tokens.
_NAMES = (
    # Llama 2, Gemma, GLM, Mistral's sentence marks
    r"s|bos|eos|pad|unk|sop|eop|start_of_turn|end_of_turn|BOS_TOKEN|EOS_TOKEN|unused\d+|reserved_\d+|seed:\w+"
    # pictures and sound: verl, LLaVA, Gemma, InternVL, MiniCPM-V, Idefics
    r"|image|video|audio|img|IMG_CONTEXT|start_of_image|end_of_image|begin_of_image|image_soft_token|image_placeholder"
    r"|image_id|slice|fake_token_around_image|global-img|end_of_utterance|ref|box|quad"
    # tools and reasoning
    r"|tool_call|tool_response|arg_key|arg_value|think"
)
_WORDS = (
    r"/?INST|/?SYSTEM_PROMPT|/?AVAILABLE_TOOLS|TOOL_CALLS|/?TOOL_RESULTS|TOOL_CONTENT|/?THINK|PREFIX|MIDDLE|SUFFIX"
    r"|IMG|IMG_BREAK|IMG_END|BOS|EOS|EOT|PAD|UNK|g?s?MASK"
)
_MARKS = (
    r"[<\uff1c\ufe64][|\uff5c]",  # <|...|>: ChatML, Llama 3 and 4, Phi, GLM, Kimi, InternVL; DeepSeek's full-width bars
    r"[<\uff1c\ufe64]\w{1,32}[|\uff5c][>\uff1e\ufe65]",  # <turn|>: Gemma 4
    rf"[<\uff1c\ufe64]/?(?:{_NAMES})[>\uff1e\ufe65]",
    r"<</?SYS>>",
    rf"[\[\uff3b](?:{_WORDS})[\]\uff3d]",
    r"\u25c1/?think\u25b7",  # Kimi-VL
    r"\]~!?b[\[\]]|\[e~\[",  # MiniMax
)

# What has no shape of its own: Unicode's Default_Ignorable_Code_Point less the joiners and the two variation selectors
# that scripts and emoji are written with, and the interlinear marks.
_SHAPELESS = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"
# Joiners are dropped where nothing is written with them: after Latin, Greek and Cyrillic, after a line's end, and after
# what is dropped.
_UNJOINED = "\x00-\u058f\u2028\u2029"
_HIDDEN = re.compile(rf"[{_SHAPELESS}][{_SHAPELESS}{_JOINERS}]*|(?<=[{_UNJOINED}])[{_SHAPELESS}{_JOINERS}]+")


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


def visible(text: str) -> str:
    """``text`` without characters that show nothing: zero-width and bidirectional controls, tags, fillers. Idempotent.

    They hide words from a reader or from a model, and can carry a message that only a model sees. Letters, accents,
    emoji and the joiners of the scripts that need them stay.
    """
    return _HIDDEN.sub("", text)


def quote(text: str) -> str:
    """``text`` with :data:`QUOTE` before each of its lines, without a line end."""
    return QUOTE + text.replace("\n", f"\n{QUOTE}")


def folded(text: str) -> str:
    """The bare words of a text, for comparing: no picture marks, case, width, punctuation, emoji or hidden characters.

    Empty for a text that says nothing in words.
    """
    text = unicodedata.normalize("NFKC", visible(text.replace(IMAGE_MARK, " "))).casefold()
    return " ".join(re.findall(r"[^\W_]+", text))


def unmarked(text: str) -> str:
    """A user turn's text without its picture marks, line ends and all."""
    return text.replace(IMAGE_MARK, "").strip()


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
