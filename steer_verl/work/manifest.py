"""By what a step's folder was begun, and what went in and came out of it, so that it always adds up.

Files that cannot be read, and counts that do not add up, are a ``DataError`` with how to fix it.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AliasChoices, Field, ValidationError, model_validator

from steer_verl.errors import ConfigError, DataError
from steer_verl.records import write_whole
from steer_verl.types import Record, Usage
from steer_verl.work.shards import Shards
from steer_verl.work.step import WorkSettings

R = TypeVar("R", bound=Record)

PLAN = "plan.json"


class Plan(Record):
    """By what one step's folder was begun. All of its outcomes were made by this."""

    step: str
    shards: int
    fingerprint: dict[str, Any]
    """What decides the step's results: models, prompts' hashes, settings."""
    earlier: list[dict[str, Any]] = Field(default_factory=list)
    """Fingerprints of outcomes that were set aside."""


class StepAccount(Record):
    """One step's part of the manifest."""

    step: str
    entered: int = Field(validation_alias=AliasChoices("in", "entered"), serialization_alias="in")
    """Items of the source, as it was last read."""
    kept: int
    rejected: dict[str, int]
    """By reason."""
    stages: dict[str, dict[str, int]] = Field(default_factory=dict)
    """The same by stage, then by reason, where a step has stages."""
    given_up: int = 0
    """Rejected because an agent failed for the moment in every try; ``retry`` works them again."""
    undone: int
    """Items that have not ended; the same command goes on with them."""
    complete: bool
    """The source was read to its end, and nothing is undone."""
    source: str = ""
    """Digest of the items that were read."""
    usage: Usage = Usage()
    """Of all calls for these items, in all runs."""
    seconds: float = 0.0
    """That the items were at work, each for itself: those at work at the same time add up."""
    agents: dict[str, str] = Field(default_factory=dict)
    """Who took part: role -> name."""
    fingerprint: dict[str, Any]
    earlier: list[dict[str, Any]] = Field(default_factory=list)
    """See :class:`Plan`."""


class Manifest(Record):
    """Of a whole build."""

    steps: list[StepAccount]

    @model_validator(mode="after")
    def _adds_up(self) -> Manifest:
        for one in self.steps:
            rejected = sum(one.rejected.values())
            out = one.kept + rejected + one.undone
            if one.entered != out:
                what = f"{one.entered} in, but {one.kept} kept + {rejected} rejected + {one.undone} undone"
                raise DataError(
                    f"step {one.step!r}: {what} = {out}; the file was changed by hand: have it written anew"
                )
        return self


# ----- plans


def agreed(folder: Path, plan: Plan, *, accept_changes: bool = False) -> Plan:
    """The plan by which the folder is to go on; it is not yet written.

    With ``accept_changes``, the fingerprint may be another one: the folder's own is then the last of the earlier ones.

    Raises:
        ConfigError: the folder was begun by another plan; it names what differs.
    """
    found = read_plan(folder) or plan
    for name in ("step", "shards"):
        was, now = getattr(found, name), getattr(plan, name)
        if was != now:
            raise ConfigError(f"{folder}: begun with {name} {was!r}, not {now!r}; set it back, or use a new folder")
    changed = list(differences(found.fingerprint, plan.fingerprint))
    if changed and not accept_changes:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        hint = "set it back, use a new folder, or have all items worked anew by --accept-changes"
        raise ConfigError(f"{folder}: begun with other settings: {'; '.join(changed[:5])}{more}; {hint}")
    earlier = [*found.earlier, found.fingerprint] if changed else found.earlier
    return plan.model_copy(update={"earlier": earlier})


def read_plan(folder: Path) -> Plan | None:
    """The plan by which a folder was begun; ``None`` for a new one."""
    path = folder / PLAN
    return _read(path, Plan, "put it back as it was, or use a new folder") if path.exists() else None


def differences(was: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """``path: old -> new`` for every leaf that differs."""
    for name in sorted(was.keys() | now.keys()):
        old, new = was.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{where}{name}.")
        elif old != new or (name in was) != (name in now):
            shown = [json.dumps(one[name])[:60] if name in one else "(none)" for one in (was, now)]
            yield f"{where}{name}: {' -> '.join(shown)}"


# ----- accounts


def account(folder: Path, agents: Mapping[str, str] | None = None) -> StepAccount:
    """Count a step's folder. ``agents``: role -> name. A run that is at work in it is a ``ConfigError``."""
    plan = read_plan(folder)
    if plan is None:
        raise DataError(f"{folder}: no step was begun here; check the path")
    with Shards(folder, plan.step, WorkSettings(shards=plan.shards)) as shards:
        return counted(plan, shards, agents)


def counted(plan: Plan, shards: Shards, agents: Mapping[str, str] | None = None) -> StepAccount:
    """The account of a step whose shards are all open."""
    found = [store.counts() for store in shards.stores.values()]
    kept, given_up, seconds = 0, 0, 0.0
    rejected, stages = Counter[str](), defaultdict[str, Counter[str]](Counter)
    for stage, reason, last, items, spent in (row for counts in found for row in counts.ended):
        seconds += spent
        given_up += items * last
        if reason is None:
            kept += items
        else:
            rejected[reason] += items
            stages[stage][reason] += items
    undone = sum(counts.undone for counts in found)
    sources = {counts.whole for counts in found}
    source = sources.pop() if len(sources) == 1 else None
    return StepAccount(
        step=plan.step,
        entered=kept + rejected.total() + undone,
        kept=kept,
        rejected=dict(sorted(rejected.items())),
        stages={stage: dict(sorted(reasons.items())) for stage, reasons in sorted(stages.items()) if stage},
        given_up=given_up,
        undone=undone,
        complete=source is not None and undone == 0,
        source=source or "",
        usage=sum((counts.usage for counts in found), Usage()),
        seconds=round(seconds, 3),
        agents=dict(agents or {}),
        fingerprint=plan.fingerprint,
        earlier=plan.earlier,
    )


def write_manifest(path: Path, steps: Iterable[StepAccount]) -> Manifest:
    """Check the counts and write them whole."""
    manifest = Manifest(steps=list(steps))
    write_whole(path, manifest.model_dump_json(indent=1, by_alias=True) + "\n")
    return manifest


def read_manifest(path: Path) -> Manifest:
    """Read a manifest and check its counts."""
    return _read(path, Manifest, "let the step write it anew")


def _read(path: Path, kind: type[R], hint: str) -> R:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path}: not a {kind.__name__.lower()} ({where}: {first['msg']}); {hint}") from None
