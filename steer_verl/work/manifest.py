"""What went in and came out of every step, counted from the outcomes themselves, so that it always adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, ValidationError

from steer_verl.errors import DataError
from steer_verl.types import Record, Usage
from steer_verl.work.outcomes import read_shard, shard_folders
from steer_verl.work.plan import read_plan, write_whole
from steer_verl.work.step import Kept
from steer_verl.work.store import Store


class StepAccount(Record):
    """One step's part of the manifest."""

    step: str
    entered: int = Field(validation_alias=AliasChoices("in", "entered"), serialization_alias="in")
    """Items that were read from the source."""
    kept: int
    rejected: dict[str, int]
    """By reason."""
    undone: int
    """Items that have not ended; the same command goes on with them."""
    complete: bool
    """The source was read to its end, and nothing is undone."""
    usage: Usage
    """Of all calls, those for undone items included."""
    seconds: float
    """That the items were at work, each for itself: those at work at the same time add up."""
    agents: dict[str, str] = Field(default_factory=dict)
    """Who took part: role -> name."""
    fingerprint: dict[str, Any]
    earlier: list[dict[str, Any]] = Field(default_factory=list)
    """Fingerprints of rows that were made before a change was accepted."""


class Manifest(Record):
    """Of a whole build."""

    steps: list[StepAccount]


def account(folder: Path, agents: Mapping[str, str] | None = None) -> StepAccount:
    """Count a step's folder; no run may be at work in it.

    Args:
        folder: of the step.
        agents: role -> name.

    Raises:
        DataError: there is no step in it, or a file cannot be read.
        ConfigError: a run is at work in it.
    """
    plan = read_plan(folder)
    if plan is None:
        raise DataError(f"{folder}: no step was begun here; check the path")
    kept, rejected, usage, seconds = 0, Counter[str](), Usage(), 0.0
    entered, undone, read = 0, 0, 0
    for shard in shard_folders(folder):
        with Store(shard) as store:
            met, left, whole = store.counts()
            usage += store.open_usage()
        entered, undone, read = entered + met, undone + left, read + whole
        for outcome in read_shard(shard):
            usage, seconds = usage + outcome.usage, seconds + outcome.seconds
            if isinstance(outcome.done, Kept):
                kept += 1
            else:
                rejected[outcome.done.reason] += 1
    found = StepAccount(
        step=plan.step,
        entered=entered,
        kept=kept,
        rejected=dict(sorted(rejected.items())),
        undone=undone,
        complete=read == plan.shards and undone == 0,
        usage=usage,
        seconds=round(seconds, 3),
        agents=dict(agents or {}),
        fingerprint=plan.fingerprint,
        earlier=plan.earlier,
    )
    check([found])
    return found


def check(steps: Iterable[StepAccount]) -> None:
    """Whether every step's counts add up.

    Raises:
        DataError: they do not; it names the step.
    """
    for one in steps:
        out = one.kept + sum(one.rejected.values()) + one.undone
        if one.entered != out:
            what = (
                f"{one.entered} in, but {one.kept} kept + {sum(one.rejected.values())} rejected + {one.undone} undone"
            )
            raise DataError(f"step {one.step!r}: {what} = {out}; its folder was changed by hand: make it anew")


def write_manifest(path: Path, steps: Iterable[StepAccount]) -> Manifest:
    """Check the counts and write them; the file is never seen half-written.

    Raises:
        DataError: the counts of a step do not add up.
    """
    manifest = Manifest(steps=list(steps))
    check(manifest.steps)
    write_whole(path, manifest.model_dump_json(indent=1, by_alias=True) + "\n")
    return manifest


def read_manifest(path: Path) -> Manifest:
    """Read a manifest and check its counts.

    Raises:
        DataError: it cannot be read, or the counts of a step do not add up.
    """
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path}: {where}: {first['msg']}; let the step write it anew") from None
    check(manifest.steps)
    return manifest
