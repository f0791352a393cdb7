"""The JSON objects in a reply's text, without drafts; an object is a reply's own only if it is signed.

A request names a secret id that the reply's JSON must carry in its field ``id``. Whoever wrote the text that a model
was shown cannot know it, so that an object which the model merely quotes is none of its own. All work is bounded.

Models write JSON with small faults that leave its meaning plain: a raw line end in a string, ``\\(`` or ``\\'``, a
comma before a bracket. Those are mended (:func:`mended`); nothing is guessed that could move the end of a string.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_REPLY_CHARS = 50_000
"""Only the end of a longer reply, behind its drafts, is read: a bound on the work that one reply can cause."""
MAX_MISSES = 300
"""Places that look like an object and are none; past that many only signed ones are looked for, and past twice as many
none. Bounds the same work, and lets no one crowd out the reply's own object with braces that the model quotes."""

# Drafts of a reasoning model: DeepSeek, Qwen, Seed, Magistral, Kimi; a template may have sent the opening itself.
_DRAFT = re.compile(r"\s*(?:<(?:think|thinking|reasoning|seed:think)>|\[THINK\]|\u25c1think\u25b7)")
_DRAFT_END = r"(?:</(?:think|thinking|reasoning|seed:think)>|\[/THINK\]|\u25c1/think\u25b7)"
_LAST_DRAFT_END = re.compile(rf".*^[ \t]*{_DRAFT_END}", re.DOTALL | re.MULTILINE)
_FIRST_DRAFT_END = re.compile(rf".*?{_DRAFT_END}", re.DOTALL)
_OBJECT_START = re.compile(r"\{(?=\s*[\"}])")
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|\\(.?)', re.DOTALL)
_COMMA = r",(?=\s*[}\]])"
_STRING_OR_COMMA = re.compile(rf'"(?:[^"\\]|\\.)*(?:"|(\\?\Z))|{_COMMA}', re.DOTALL)
"""A string that is not closed is one match, to the end: looking for its end from each of its quotes takes too long."""
_REPEATED_KEY = object()


def spoken(text: str) -> str:
    """The reply without a reasoning model's drafts; an end of drafts after which nothing was said is a stray one."""
    drafting = _DRAFT.match(text)
    end = _LAST_DRAFT_END.match(text) or (_FIRST_DRAFT_END.match(text) if drafting else None)
    if drafting:
        return text[end.end() :] if end else ""
    return text[end.end() :] if end and text[end.end() :].strip() else text


def json_objects(text: str, nonce: str) -> list[Any]:
    """The top-level JSON objects of a text in order; one with a repeated key is kept as a mere token, to be refused."""
    text = spoken(text)[-MAX_REPLY_CHARS:]
    found, broken = _scan(text, nonce)
    if signed(found, nonce) and not broken:  # what is signed within a broken object is no reply by itself
        return found
    again = mended(text)
    if again == text:
        return found
    better, _ = _scan(again, nonce)
    return better if signed(better, nonce) else found


def signed(objects: list[Any], nonce: str) -> list[dict[str, Any]]:
    """Those of the objects that carry the request's secret id."""
    return [found for found in objects if isinstance(found, dict) and found.get("id") == nonce]


def broken_object(text: str, nonce: str) -> str:
    """What is wrong with the JSON of a reply that carries the id and cannot be read; empty when there is none such."""
    text = mended(spoken(text)[-MAX_REPLY_CHARS:])
    for start in _signed_start(nonce).finditer(text):
        try:
            json.JSONDecoder(strict=False).raw_decode(text, start.start())
        except json.JSONDecodeError as error:
            at = error.pos - start.start()
            return f"its JSON object breaks off at character {at}: {error.msg.lower()}"
        except (ValueError, RecursionError):
            return "its JSON object is nested too deeply"
    return ""


def mended(text: str) -> str:
    """JSON text with stray backslashes doubled, ``\\'`` unescaped, and commas before a closing bracket dropped."""

    def escape(found: re.Match[str]) -> str:
        stray = found[1]
        return found[0] if stray is None else "'" if stray == "'" else "\\\\" + stray

    def comma(found: re.Match[str]) -> str:
        if found[0] == ",":
            return ""
        return found[0] if found[1] is None else re.sub(_COMMA, "", found[0])

    return _STRING_OR_COMMA.sub(comma, _ESCAPE.sub(escape, text))


def _scan(text: str, nonce: str) -> tuple[list[Any], bool]:
    """The objects, and whether one that carries the id could not be read."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique, strict=False)  # strict would refuse a raw line end
    found: list[Any] = []
    misses, broken = 0, False
    opening = _OBJECT_START.search(text)
    while opening and misses < 2 * MAX_MISSES:
        try:
            value, end = decoder.raw_decode(text, opening.start())
            found.append(value)
        except (ValueError, RecursionError):  # no JSON here, or nested beyond reason
            end = opening.start() + 1
            misses += 1
            broken = broken or bool(_signed_start(nonce).match(text, opening.start()))
        opening = (_OBJECT_START if misses < MAX_MISSES else _signed_start(nonce)).search(text, end)
    return found, broken


def _signed_start(nonce: str) -> re.Pattern[str]:
    return re.compile(rf'\{{(?=\s*"id"\s*:\s*"{re.escape(nonce)}")')


def _unique(pairs: list[tuple[str, Any]]) -> Any:
    keys = [key for key, _ in pairs]
    return dict(pairs) if len(set(keys)) == len(keys) else _REPEATED_KEY
