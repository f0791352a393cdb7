"""From a model's reply to a record or to a chat's next message, or to why there is none.

A record is read strictly, and only from the last JSON object that carries the request's id. Every text that comes out
is :func:`tidy`: it spells no image, no role and no other mark, and hides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from steer_verl.models.reading import broken_object, json_objects, signed, spoken
from steer_verl.models.request import ONLY_REASONING, Reply
from steer_verl.refusal import is_refusal
from steer_verl.text import neutralize, visible
from steer_verl.types import IMAGE_MARK

R = TypeVar("R", bound=BaseModel)


class AskFault(StrEnum):
    """Why a reply is of no use; with the transport's own reasons, what an ``AgentFailed`` of an asker can name.

    ``CONTENT_FILTER``: the server's filter ended the reply. ``LENGTH``: it hit ``max_tokens``. ``BAD_JSON``: it holds
    no JSON object. ``SCHEMA``: that is not the record that was asked for. ``EMPTY``: an answer without words.
    ``IMAGE``: nothing was sent, because an image cannot be opened.
    """

    REFUSAL = "refusal"
    CONTENT_FILTER = "content_filter"
    LENGTH = "length"
    BAD_JSON = "bad_json"
    SCHEMA = "schema"
    EMPTY = "empty"
    IMAGE = "image"


class Fault(NamedTuple):
    """A reply of no use: why, and whether to ask again."""

    reason: AskFault
    detail: str
    again: bool = True


DECLINED = Fault(AskFault.REFUSAL, "the model declined", again=False)
CUT = Fault(AskFault.LENGTH, "it is longer than max_tokens")

_SCHEMA_WORDS = frozenset({"type", "enum", "const", "minimum", "maximum", "minItems", "maxItems", "anyOf"})
"""Words of JSON schema that structured output knows. Defaults and descriptions go: our docstrings are no prompt."""


@lru_cache(maxsize=64)
def reply_schema(kind: type[BaseModel], title: str) -> dict[str, Any]:
    """The JSON schema of a reply, in the narrow form that every server takes; the same for every request of a role.

    All fields are required and no others allowed, references are resolved, and ``id`` comes first. The fields of
    ``kind`` are records, lists, strings and numbers; ``title`` is what the request calls it.
    """
    schema = kind.model_json_schema()
    plain = _plain(schema, schema.get("$defs", {}))
    fields = {"id": {"type": "string"}, **plain["properties"]}
    return {"title": title, **plain, "properties": fields, "required": list(fields)}


def read_record(reply: Reply, nonce: str, kind: type[R], check: Callable[[R], str] = lambda record: "") -> R | Fault:
    """The reply's last JSON object that carries ``nonce``, as a ``kind``, or why there is none."""
    if reply.refusal:
        return DECLINED
    if reply.truncated:
        return CUT
    objects = json_objects(reply.content, nonce)
    ours = signed(objects, nonce)
    if not ours:
        return _unsigned(reply, bool(objects), nonce)
    try:
        text = json.dumps({name: tidy(value) for name, value in ours[-1].items() if name != "id"})
    except (TypeError, RecursionError):  # an object within it that repeats a key is none that JSON could hold
        return Fault(AskFault.SCHEMA, "a key stands twice in one of its objects, or it is nested too deeply")
    if nonce in text:
        return Fault(AskFault.SCHEMA, "the secret id stands in another field than id")
    try:
        record = kind.model_validate_json(text)
    except ValidationError as error:
        return Fault(AskFault.SCHEMA, _schema_fault(error))
    wrong = check(record)
    return Fault(AskFault.SCHEMA, wrong) if wrong else record


def read_answer(reply: Reply, verbatim: bool = False) -> str | Fault:
    """A chat's next message, or why there is none."""
    if reply.refusal:
        return DECLINED if verbatim else str(tidy(reply.refusal))
    if verbatim and reply.truncated:
        return CUT
    text = tidy(reply.content if verbatim else spoken(reply.content))
    if not text:
        return Fault(AskFault.EMPTY, ONLY_REASONING if reply.reasoning.strip() else "it is empty")
    return str(text)


def tidy(value: Any) -> Any:
    """Model text without image marks, role tokens and hidden characters, in every string of a JSON value."""
    if isinstance(value, str):
        return neutralize(visible(value.replace(IMAGE_MARK, " "))).strip()
    if isinstance(value, list):
        return [tidy(inner) for inner in value]
    if isinstance(value, dict):
        return {name: tidy(inner) for name, inner in value.items()}
    return value


def _unsigned(reply: Reply, objects: bool, nonce: str) -> Fault:
    if broken := broken_object(reply.content, nonce):
        return Fault(AskFault.BAD_JSON, broken)
    if objects:
        return Fault(AskFault.SCHEMA, "no JSON object carries the id of this request")
    if is_refusal(reply.content):
        return DECLINED
    if not reply.content.strip():
        return Fault(AskFault.BAD_JSON, ONLY_REASONING if reply.reasoning.strip() else "it is empty")
    return Fault(AskFault.BAD_JSON, "it holds no JSON object")


def _schema_fault(error: ValidationError) -> str:
    """The first thing wrong, in our words: a field's name is only repeated where it is a plain word."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part.isidentifier())[:60]
    return f"{path or 'the object'}: {first['type'].replace('_', ' ')}"


def _plain(node: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """A node of a JSON schema in the narrow form; ``known``: what references name."""
    if "$ref" in node:
        return _plain(known[node["$ref"].rpartition("/")[2]], known)
    plain = {name: value for name, value in node.items() if name in _SCHEMA_WORDS}
    if "anyOf" in plain:
        plain["anyOf"] = [_plain(choice, known) for choice in plain["anyOf"]]
    if "items" in node:
        plain["items"] = _plain(node["items"], known)
    if node.get("type") == "object":
        fields = {name: _plain(field, known) for name, field in node.get("properties", {}).items()}
        plain |= {"properties": fields, "required": list(fields), "additionalProperties": False}
    return plain
