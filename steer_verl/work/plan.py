"""What a step's folder was begun with: a run with other settings does not silently go on in it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from steer_verl.errors import ConfigError, DataError
from steer_verl.types import Record

PLAN = "plan.json"
_NOTHING = object()


class Plan(Record):
    """Of one step's folder."""

    step: str
    shards: int
    fingerprint: dict[str, Any]
    """What decides the step's results: models, prompts' hashes, settings."""
    earlier: list[dict[str, Any]] = Field(default_factory=list)
    """Fingerprints under which a part of the outcomes was made before the last change was accepted."""


def settle(folder: Path, plan: Plan, *, accept_changes: bool = False) -> Plan:
    """Begin a folder by this plan, or go on in one that was begun by the same.

    Args:
        folder: of the step.
        plan: of this run.
        accept_changes: go on although the fingerprint is another; both are remembered.

    Raises:
        ConfigError: the folder was begun by another plan; it names what differs.
        DataError: the folder's plan cannot be read.
    """
    plan = plan.model_copy(update={"fingerprint": json.loads(json.dumps(plan.fingerprint))})
    found = read_plan(folder)
    if found is None:
        return _write(folder, plan)
    for name in ("step", "shards"):
        was, now = getattr(found, name), getattr(plan, name)
        if was != now:
            raise ConfigError(f"{folder}: begun with {name} {was!r}, not {now!r}; set it back, or use a new folder")
    changed = list(differences(found.fingerprint, plan.fingerprint))
    if not changed:
        return found
    if not accept_changes:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        cure = "use a new folder, set it back, or go on with both kinds of rows by accept_changes=true"
        raise ConfigError(f"{folder}: begun with other settings: {'; '.join(changed[:5])}{more}; {cure}")
    return _write(folder, plan.model_copy(update={"earlier": [*found.earlier, found.fingerprint]}))


def read_plan(folder: Path) -> Plan | None:
    """The plan by which a folder was begun; ``None`` for a new one.

    Raises:
        DataError: it cannot be read.
    """
    path = folder / PLAN
    try:
        return Plan.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        what = error.errors()[0]["msg"]
        raise DataError(f"{path}: not a plan ({what}); put it back as it was, or use a new folder") from None


def differences(was: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """``path: old -> new`` for every leaf that differs."""
    for name in sorted(was.keys() | now.keys()):
        old, new = was.get(name, _NOTHING), now.get(name, _NOTHING)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{where}{name}.")
        elif old != new:
            yield f"{where}{name}: {_shown(old)} -> {_shown(new)}"


def shard_of(item: str, shards: int) -> int:
    """The shard of an item, the same in every process and run."""
    return int.from_bytes(hashlib.blake2b(item.encode(), digest_size=8).digest(), "big") % shards


def shard_folder(folder: Path, shard: int) -> Path:
    """Where a step's shard lies."""
    return folder / f"shard-{shard:03d}"


def write_whole(path: Path, text: str) -> None:
    """Write a file that is never seen half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def _write(folder: Path, plan: Plan) -> Plan:
    write_whole(folder / PLAN, plan.model_dump_json(indent=1) + "\n")
    return plan


def _shown(value: Any) -> str:
    return "(none)" if value is _NOTHING else json.dumps(value)[:60]
