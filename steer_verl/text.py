"""Text that nobody vouches for: dataset rows, tutor questions and student answers, made safe to put into a prompt.

A chat template joins roles with special tokens (``<|im_end|>``), and verl's dataset splits a message at ``<image>`` and
``<video>`` (utils/dataset/rl_dataset.py). Text that merely *spells* one of them would forge a role or an image. It is
kept readable: a zero-width space after the first character stops the tokenizer from seeing the token.

Four views: :func:`neutralize` for whatever enters a prompt, :func:`visible` for words that a tutor must read as a
person would, :func:`folded` for comparing, and :func:`one_line` for a terminal. All take linear time on any text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any, Literal

from steer_verl.types import ANSWER_TAGS, IMAGE_MARK, UserTurn

BREAK = "\u200b"
"""What is put inside a spelled special token: a zero-width space."""

QUOTE = "> "
"""Begins every line of others' words in a prompt: a line without it is ours."""

REPLACEMENT = "\ufffd"
"""Stands for a lone surrogate, which UTF-8 cannot carry, and for a special token of one character."""

MAX_LINE = 300
"""Characters of :func:`one_line`."""

WORK = 8
"""How many times its limit :func:`one_line` reads at most: escapes and hidden characters take room and show nothing."""

MAX_MARKS = 30
"""Combining marks in a row that are kept: the bound of Unicode's Stream-Safe Text Format (UAX 15)."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_NEWLINES = re.compile(r"\r\n?|[\u2028\u2029]")
# Colours and cursor moves (CSI), window titles and the clipboard (OSC): whole, where they end; a stray start loses its
# control character alone, so that no words are lost with it.
_ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c\x9d]*(?:\x07|\x1b\\|\x9c)")


def _either(words: str) -> str:
    """Alternatives as they stand and in capitals."""
    return f"{words}|{words.upper()}"


# Role and media marks of the chat templates in use, whatever tokenizer is loaded: the names of single tokens, and the
# families that whole vocabularies are made of. Read from the templates and tokenizers in transformers and vLLM.
_EDGES = "start|begin|end|bos|eos|sep|pad"
_MEDIA = r"(?:im|img|image|video|audio|vision|speech|sound)"
_FAMILIES = (
    rf"(?i:(?:start|begin|beginning|end)_?of_?\w+|\w+_(?:{_EDGES})|(?:start|begin|end)_\w*(?:call|response|turn)s?"
    rf"|{_MEDIA}_\w*(?:{_EDGES}|patch|col|row|newline|token|placeholder|context|atom|id|thumbnail|\d)"
    r"|fim_\w+|(?:\w+_)?(?:tool|function)_(?:calls?|responses?|results?|outputs?)"
    r"|row_\d+_col_\d+|(?:loc|seg|mask|tile|patch|patch_index|image|video|frame)[_:]?\d+|(?:seed|minimax|mm|racm3):\w+"
    r"|(?:[bes]o[a-z]|pad|unk|cls|sep|mask)_token|_\w+|0x[0-9A-F]{2})"
)
_NUMBERED = r"(?i:\w{0,16}(?:special|reserved|unused|extra|added|dummy|control|ctrl|sentinel)[\w:]{0,24}\d)"
_NAMES = "|".join(
    (
        _either("s|pad|unk|cls|sep|mask|sys|role|user|assistant|system|human|bot|developer|observation|tool|think"),
        _either("image|video|audio|sound|img|imgpad|slice|ref|box|quad|grounding"),
        "[bes]o[a-z]|[BES]O[A-Z]",  # begin or end of a thing: <bos>, <eot>, <sop>
        "Image|Img|ImageHere|global-img|fake_token_around_image|arg_key|arg_value|repo_name",
        _FAMILIES,
        _NUMBERED,
    )
)
_WORDS = (
    r"INST|SYS|SYSTEM|SYSTEM_PROMPT|USER|ASSISTANT|HUMAN|BOT|ROLE|TOOL|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS"
    r"|TOOL_CONTENT|MODEL_SETTINGS|ARGS|CALL_ID|THINK|PREFIX|MIDDLE|SUFFIX|IMG\d*|IMG_\w+|AUDIO|BEGIN_AUDIO|VIDEO"
    r"|TRANSCRIBE|BOS|EOS|SOS|EOT|EOM|EOD|PAD|UNK|CLS|SEP|[gsd]?MASK|(?:start|end)_header_id|multimodal"
)
_MARKS = {
    # <|...|>, DeepSeek's and Hunyuan's full-width bars too; Gemma 4's <turn|>; Llama 2's <<SYS>>
    "<": rf"\||\w{{1,32}}\|>|</?SYS>>|(?=/?[\w:-]{{1,48}}/?>)/?(?:{_NAMES})/?>",
    "[": rf"\|[A-Za-z][\w ]{{1,30}}\|\]|/?(?:{_WORDS}|{_NUMBERED})\]|e~\[",  # EXAONE's [|user|], Mistral, BERT, MiniMax
    "]": r"~!?b[\[\]]",
    "|": r"(?:ENDOFTEXT|SPEAKER|NEWLINE)\|",  # Fuyu
    ">": r">(?:TITLE|ABSTRACT|INTRODUCTION|SUMMARY|COMMENT|ANSWER|QUESTION|DOMAIN|PREFIX|SUFFIX|MIDDLE)<<",  # Falcon
    "\u25c1": r"/?think\u25b7",  # Kimi-VL
}
"""First character -> what makes a mark of it. No pattern may hold or cross :data:`BREAK`."""

# Gemma's vocabulary has these among its tokens; they forge no role.
_HTML = re.compile(
    "</?(?:table|caption|thead|tbody|tfoot|tr|th|td|h[1-6]|blockquote|ul|ol|li|dl|dt|dd|b|i|u|p|a|br|hr|em|strong|sub"
    "|sup|code|pre|div|span)>"
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
_SKIPPED = re.compile(rf"[{_SHAPELESS}{_JOINERS}]")


def neutralize(text: str, special_tokens: Iterable[str] = ()) -> str:
    """``text`` in which no special token, role mark or media mark is spelled any more; ordinary text is unchanged.

    Marks are looked for as a tokenizer might see them: in NFKC form, so that full-width and mathematical letters count
    as what they stand for, and without characters that show nothing. Control characters other than tab and newline are
    dropped, line ends become ``\\n``, lone surrogates U+FFFD. Idempotent.

    Args:
        text: anything.
        special_tokens: further tokens to break, usually :func:`special_tokens_of` the tokenizer.
    """
    return _neutral(text, *_patterns(tuple(special_tokens)))


def neutralize_turn(turn: UserTurn, special_tokens: Iterable[str] = ()) -> UserTurn:
    """``turn`` with its words neutralised and its own image marks, which are counted against its images, kept."""
    patterns = _patterns(tuple(special_tokens))
    parts = [_neutral(part, *patterns) for part in turn.text.split(IMAGE_MARK)]
    return turn.model_copy(update={"text": IMAGE_MARK.join(parts)})


def special_tokens_of(tokenizer: Any) -> tuple[str, ...]:
    """Spellings that a Hugging Face tokenizer reads as a control token, sorted: what :func:`neutralize` is to break.

    Its special tokens, and of its added vocabulary what stands between brackets or bars (Qwen's ``<tool_call>`` is no
    special token). Left out: blanks, added words, HTML tags, and the student's own four tags.
    """
    special = {str(token) for token in getattr(tokenizer, "all_special_tokens", ())}
    added = tokenizer.get_added_vocab() if hasattr(tokenizer, "get_added_vocab") else ()
    tokens = special | {token for token in added if _is_bracketed(token) and not _HTML.fullmatch(token)}
    return tuple(sorted(token for token in tokens - set(ANSWER_TAGS) if token.strip()))


def visible(text: str) -> str:
    """``text`` without characters that show nothing: zero-width and bidirectional controls, tags, fillers. Idempotent.

    They hide words from a reader or from a model, and can carry a message that only a model sees. Letters, accents,
    emoji and the joiners of the scripts that need them stay.
    """
    return _HIDDEN.sub("", text)


def one_line(text: str, limit: int = MAX_LINE) -> str:
    """Text of others made fit for a terminal, a log or a one-line error.

    One line, without control characters, terminal escapes, and bidirectional or zero-width characters; lone surrogates
    become U+FFFD. More than ``limit`` characters are cut, and the last one is then an ellipsis. Idempotent.
    """
    head = text[: WORK * limit]
    line = _CONTROL.sub("", _NEWLINES.sub("\n", _ESCAPES.sub("", head)))
    line = " ".join(visible(_SURROGATE.sub(REPLACEMENT, line)).split())
    return line if head == text and len(line) <= limit else line[: limit - 1] + "\u2026"


def quote(text: str) -> str:
    """``text`` with :data:`QUOTE` before each of its lines, without a line end."""
    return QUOTE + text.replace("\n", f"\n{QUOTE}")


def folded(text: str, *, signs: bool = False) -> str:
    """The bare words of a text, for comparing: no image marks, case, width, punctuation, emoji or hidden characters.

    Empty for a text that says nothing in words. ``signs``: with those before numbers, for 3 + 4 and 3 - 4 are two
    questions.
    """
    text = normalized("NFKC", visible(text.replace(IMAGE_MARK, " "))).casefold()
    return " ".join(re.findall(r"[^\W_]+|[-\u2212+*/=<>^\u00d7\u00f7](?=\s*\d)" if signs else r"[^\W_]+", text))


def normalized(form: Literal["NFC", "NFKC"], text: str) -> str:
    """``text`` in a Unicode normal form; of a run of combining marks the first :data:`MAX_MARKS` stay. Idempotent.

    ``unicodedata`` sorts the marks on one letter by insertion: 100,000 of them in a row take seconds.
    """
    if text.isascii():
        return text
    marks = _mark_runs()
    return marks.sub(r"\1", unicodedata.normalize(form, marks.sub(r"\1", text)))


def unmarked(text: str) -> str:
    """A user turn's text without its image marks, line ends and all."""
    return text.replace(IMAGE_MARK, "").strip()


def _neutral(text: str, starts: re.Pattern[str], tokens: re.Pattern[str] | None) -> str:
    """:func:`neutralize` with its patterns."""
    text = _NEWLINES.sub("\n", text)
    text = _SURROGATE.sub(REPLACEMENT, _CONTROL.sub("", text))  # first: dropping a character may complete a token
    if tokens is not None:  # no break fits into one character: a token of one, or "(a)" in U+249C
        whole = {ord(char): REPLACEMENT for char in set(text) if tokens.search(_seen(char))}
        text = text.translate(whole)
    seen, places = _view(text)
    cuts = [0]
    for mark in starts.finditer(seen):
        after = mark.end()
        while places[after] == places[after - 1]:  # the rest of one character's expansion
            after += 1
        if places[after] != cuts[-1]:
            cuts.append(places[after])
    return BREAK.join(text[begin:end] for begin, end in pairwise([*cuts, len(text)])) if text else ""


def _view(text: str) -> tuple[str, Sequence[int]]:
    """What a tokenizer might see of a text, and of each character seen the place in ``text`` that it comes from."""
    if text.isascii():
        return text, range(len(text))
    pieces = [_seen(char) for char in text]
    return "".join(pieces), [place for place, piece in enumerate(pieces) for _ in piece]


@lru_cache(maxsize=8192)
def _seen(char: str) -> str:
    """A character as NFKC has it, nothing for what shows nothing; our own break stays and goes on breaking."""
    if char == BREAK:
        return char
    return "" if _SKIPPED.match(char) else unicodedata.normalize("NFKC", char)


@lru_cache(maxsize=16)
def _patterns(special_tokens: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
    """For the view of a text: the first character of every mark, overlapping ones included, and the tokens alone.

    The tokens make a tree, so that thousands of them cost no more than the longest.
    """
    tree: dict[str, Any] = {}
    for token in special_tokens:
        node = tree
        for char in "" if BREAK in token else _view(token)[0]:
            node = node.setdefault(char, {})
        node[""] = {}
    tree.pop("", None)
    rests = dict(_MARKS)
    for first, node in tree.items():
        if "" not in node:  # else a token of one character, which is replaced
            rests[first] = "|".join(filter(None, (rests.get(first), _branches(node))))
    starts = re.compile("|".join(f"{re.escape(first)}(?={rest})" for first, rest in rests.items()))
    return starts, re.compile(_branches(tree)) if tree else None


def _branches(node: dict[str, Any]) -> str:
    """A pattern of the shortest tokens of a tree: breaking one breaks every longer token that begins with it."""
    if "" in node:
        return ""
    return f"(?:{'|'.join(re.escape(char) + _branches(child) for char, child in node.items())})"


@cache
def _mark_runs() -> re.Pattern[str]:
    """A run of combining marks and of what decomposes into them; its first :data:`MAX_MARKS` are group 1."""
    marks = [char for char in map(chr, range(0x300, 0x1F000)) if _begins_with_mark(char)]
    low, high = ("".join(char for char in marks if (char > "\uffff") == is_high) for is_high in (False, True))
    # the two kinds apart: in one set, the high ones would be looked through for every letter of other scripts
    mark = f"(?:[{low}]|(?=[\U00010000-\U0010ffff])[{high}])"
    return re.compile(f"({mark}{{1,{MAX_MARKS}}}){mark}*")


def _begins_with_mark(char: str) -> bool:
    return unicodedata.combining(unicodedata.normalize("NFKD", char)[0]) != 0


def _is_bracketed(token: str) -> bool:
    """Whether a token begins and ends with a sign and holds a word: ``<tool_call>``, ``[INST]``, but not ``the``."""
    words = re.search(r"[^\W_]", token)
    return bool(words) and not (token[0].isalnum() or token[-1].isalnum() or token[0].isspace() or token[-1].isspace())


def clock_text(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
