"""The JSON schema of a reply: a record's, with the request's id first, in the narrow form that every server takes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydantic import BaseModel

_KEPT = frozenset({"type", "enum", "const", "minimum", "maximum", "minItems", "maxItems", "anyOf"})
"""Words of JSON schema that structured output knows. Defaults and descriptions go: our docstrings are no prompt."""


@lru_cache(maxsize=64)
def reply_schema(kind: type[BaseModel], title: str) -> dict[str, Any]:
    """All fields required and no others, references resolved, ``id`` first; the same for every request of a role.

    Args:
        kind: a record whose fields are records, lists, strings and numbers.
        title: what the request calls it.
    """
    schema = kind.model_json_schema()
    plain = _plain(schema, schema.get("$defs", {}))
    fields = {"id": {"type": "string"}, **plain["properties"]}
    return {"title": title, **plain, "properties": fields, "required": list(fields)}


def _plain(node: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        return _plain(known[node["$ref"].rpartition("/")[2]], known)
    plain = {name: value for name, value in node.items() if name in _KEPT}
    if "anyOf" in plain:
        plain["anyOf"] = [_plain(choice, known) for choice in plain["anyOf"]]
    if "items" in node:
        plain["items"] = _plain(node["items"], known)
    if node.get("type") == "object":
        fields = {name: _plain(field, known) for name, field in node.get("properties", {}).items()}
        plain |= {"properties": fields, "required": list(fields), "additionalProperties": False}
    return plain
