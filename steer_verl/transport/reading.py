"""What a reply holds: whether it was cut, filtered or declined, its text without drafts, its signed JSON objects.

A request names a secret id that the reply's JSON must carry in its field ``id``. Whoever wrote the text that a model
was shown cannot know it, so that an object which the model merely quotes is none of its own. All work is bounded.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_REPLY_CHARS = 50_000
"""Only the end of a longer reply is read: a bound on the work that one reply can cause."""
MAX_MISSES = 300
"""Places that look like an object and are none; past that many only signed ones are looked for, and past twice as many
none. Bounds the same work, and lets no one crowd out the reply's own object with braces that the model quotes."""

_CUT = frozenset({"length", "max_tokens", "model_length"})
_FILTERED = frozenset({"content_filter", "safety", "recitation", "blocklist", "prohibited_content"})

_REFUSAL = re.compile(
    r"\b(?:i|we)(?:['\u2019]m| am| are)?\s+"
    r"(?:can(?:no|['\u2019])?t|can not|won['\u2019]?t|will not|unable to|not able to)\s+"
    r"(?:help|assist|support|provide|create|write|generate|comply|continue|engage|participate|produce|judge|do that)"
    r"|\b(?:sorry|apologi[sz]e)\b[^.?!]{0,40}\b(?:can(?:no|['\u2019])?t|can not|won['\u2019]?t|unable)\b"
    r"|\bas an ai\b[^.?!]{0,40}\bi(?:['\u2019]m| am| can(?:no|['\u2019])?t| must| have to| do(?:n['\u2019]t| not))\b"
    r"|(?:\u62b1\u6b49|\u5bf9\u4e0d\u8d77).{0,8}(?:\u65e0\u6cd5|\u4e0d\u80fd)",
    re.IGNORECASE,
)
# Drafts of a reasoning model: DeepSeek, Qwen, Seed, Magistral, Kimi; a template may have sent the opening itself.
_DRAFT = re.compile(r"\s*(?:<(?:think|thinking|reasoning|seed:think)>|\[THINK\]|\u25c1think\u25b7)")
_DRAFT_END = r"(?:</(?:think|thinking|reasoning|seed:think)>|\[/THINK\]|\u25c1/think\u25b7)"
_LAST_DRAFT_END = re.compile(rf".*^[ \t]*{_DRAFT_END}", re.DOTALL | re.MULTILINE)
_FIRST_DRAFT_END = re.compile(rf".*?{_DRAFT_END}", re.DOTALL)
_OBJECT_START = re.compile(r"\{(?=\s*[\"}])")
_REPEATED_KEY = object()


def was_cut(finish_reason: str) -> bool:
    """Whether the reply ended at the token limit."""
    return finish_reason.lower() in _CUT


def was_filtered(finish_reason: str) -> bool:
    """Whether the server's content filter ended the reply."""
    return finish_reason.lower() in _FILTERED


def is_refusal(text: str) -> bool:
    """Whether a text starts as a refusal (a heuristic on its first 300 characters)."""
    return _REFUSAL.search(text[:300]) is not None


def spoken(text: str) -> str:
    """The reply without a reasoning model's drafts; an end of drafts after which nothing was said is a stray one."""
    drafting = _DRAFT.match(text)
    end = _LAST_DRAFT_END.match(text) or (_FIRST_DRAFT_END.match(text) if drafting else None)
    if drafting:
        return text[end.end() :] if end else ""
    return text[end.end() :] if end and text[end.end() :].strip() else text


def json_objects(text: str, nonce: str) -> list[Any]:
    """The top-level JSON objects of a text in order; one with a repeated key is kept as a mere token, to be refused."""
    text = spoken(text[-MAX_REPLY_CHARS:])
    signed_start = re.compile(rf'\{{(?=\s*"id"\s*:\s*"{re.escape(nonce)}")')
    decoder = json.JSONDecoder(object_pairs_hook=_unique)
    found: list[Any] = []
    misses = 0
    opening = _OBJECT_START.search(text)
    while opening and misses < 2 * MAX_MISSES:
        try:
            value, end = decoder.raw_decode(text, opening.start())
            found.append(value)
        except (ValueError, RecursionError):  # no JSON here, or nested beyond reason
            end = opening.start() + 1
            misses += 1
        opening = (_OBJECT_START if misses < MAX_MISSES else signed_start).search(text, end)
    return found


def signed(objects: list[Any], nonce: str) -> list[dict[str, Any]]:
    """Those of the objects that carry the request's secret id."""
    return [found for found in objects if isinstance(found, dict) and found.get("id") == nonce]


def _unique(pairs: list[tuple[str, Any]]) -> Any:
    keys = [key for key, _ in pairs]
    return dict(pairs) if len(set(keys)) == len(keys) else _REPEATED_KEY
