"""A card for each set of a build."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from steer_verl.data.cards.card import write_card
from steer_verl.data.cards.entry import Entry, entry_of
from steer_verl.data.pipeline.config import BuildConfig
from steer_verl.data.pipeline.stages import BOOTSTRAP, DIALOGUES, HISTORY
from steer_verl.data.stage2.assemble import SetReport
from steer_verl.data.stage2.bootstrap import Bootstrapped
from steer_verl.data.stage2.splits import SetName
from steer_verl.data.work.manifest import Manifest
from steer_verl.data.work.outcomes import read_kept, read_outcomes
from steer_verl.data.work.step import Outcome, Rejected
from steer_verl.types import Seed

WAYS = {
    SetName.SFT: ("seeds", DIALOGUES, BOOTSTRAP),
    SetName.RL: ("seeds", DIALOGUES, HISTORY),
    SetName.BENCH: ("seeds", DIALOGUES),
}
"""The steps that a set's rows have come through."""


def write_cards(config: BuildConfig, manifest: Manifest, reports: dict[SetName, SetReport]) -> list[Path]:
    """Write ``out/cards/<set>/card.md`` and ``card.html`` for every set that has a row."""
    steps = {step.step: step.model_dump(by_alias=True) for step in manifest.steps}
    written = []
    for name, report in reports.items():
        if not report.kept:
            continue
        assembled = {"in": report.offered, "kept": report.kept, "rejected": report.left_out}
        written.append(
            write_card(
                config.out / "cards" / name.value,
                f"STEER-{name.value.upper() if name is not SetName.BENCH else 'Bench'}",
                _entries(config, name),
                {**{step: steps[step] for step in WAYS[name]}, "assembly": assembled},
                config.pictures,
                name=name.value,
                rejected=_rejected(config, name),
                files={"train" if name is not SetName.BENCH else "test": f"../../sets/{name.value}.jsonl"},
                prompts=_prompts(config),
            )
        )
    return written


def _entries(config: BuildConfig, name: SetName) -> Iterator[Entry | Seed]:
    """The rows of a set, as the steps have kept them."""
    ids = _ids(config.out / "sets" / f"{name.value}.jsonl")
    if name is SetName.SFT:
        rows = read_kept(config.step(BOOTSTRAP), Bootstrapped)
        yield from (entry_of(row.trajectory, row.seed) for row in rows if row.seed.id in ids)
        return
    step = HISTORY if name is SetName.RL else DIALOGUES
    yield from (seed for seed in read_kept(config.step(step), Seed) if seed.id in ids)


def _ids(file: Path) -> frozenset[str]:
    with file.open(encoding="utf-8") as lines:
        return frozenset(_id(json.loads(line)) for line in lines)


def _id(row: dict[str, Any]) -> str:
    return str(row.get("id") or row.get("question_id") or row["metadata"]["question_id"])


def _rejected(config: BuildConfig, name: SetName) -> Iterable[tuple[str, Outcome]]:
    for step in WAYS[name]:
        for outcome in read_outcomes(config.step(step)):
            if isinstance(outcome.done, Rejected):
                yield step, outcome


def _prompts(config: BuildConfig) -> dict[str, str]:
    if config.agents.kind == "mini":
        return {}
    from steer_verl.data.stage1.endpoints import prompt_hashes
    from steer_verl.data.stage2.endpoints import prompt_hashes as stage2_hashes

    return {**prompt_hashes(), **stage2_hashes(config.agents.guidelines)}
