"""A card for each set of a build."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from steer_verl.data.cards.card import write_card
from steer_verl.data.cards.published import set_account, set_entries, set_left_out
from steer_verl.data.pipeline.config import BuildConfig
from steer_verl.data.pipeline.stages import BOOTSTRAP, DIALOGUES, HISTORY
from steer_verl.data.stage2.assemble import SetReport
from steer_verl.data.stage2.splits import SetName
from steer_verl.work.manifest import Manifest
from steer_verl.work.outcomes import read_outcomes
from steer_verl.work.step import Outcome

TITLES = {SetName.SFT: "STEER-SFT", SetName.RL: "STEER-RL", SetName.BENCH: "STEER-Bench"}
WAYS = {
    SetName.SFT: ("seeds", DIALOGUES, BOOTSTRAP),
    SetName.RL: ("seeds", DIALOGUES, HISTORY),
    SetName.BENCH: ("seeds", DIALOGUES),
}
"""The steps that a set's rows have come through."""


def write_cards(config: BuildConfig, manifest: Manifest, reports: dict[SetName, SetReport]) -> list[Path]:
    """Write ``out/cards/<set>/card.md`` and ``card.html`` for every set that has a row."""
    sets, steps = config.out / "sets", {step.step: step for step in manifest.steps}
    return [
        write_card(
            config.out / "cards" / name.value,
            TITLES[name],
            set_entries(sets, name),
            {**{step: steps[step] for step in WAYS[name]}, **set_account(sets, name)},
            config.pictures,
            name=name,
            rejected=chain(_outcomes(config, name), set_left_out(sets, name)),
            files={"test" if name is SetName.BENCH else "train": f"../../sets/{name.value}.jsonl"},
            prompts=_prompts(config),
        )
        for name, report in reports.items()
        if report.kept
    ]


def _outcomes(config: BuildConfig, name: SetName) -> Iterator[tuple[str, Outcome]]:
    for step in WAYS[name]:
        yield from ((step, outcome) for outcome in read_outcomes(config.step(step)))


def _prompts(config: BuildConfig) -> dict[str, str]:
    """Name -> version of every prompt; the laboratory's rules have none."""
    if config.agents.kind == "mini":
        return {}
    from steer_verl.data.stage1.endpoints import prompt_hashes as stage1
    from steer_verl.data.stage2.endpoints import prompt_hashes as stage2

    return {**stage1(), **stage2(config.agents.guidelines)}
