"""The laboratory's SFT and RL sets: made by the pipeline that makes everybody's, with the laboratory's agents.

They are two builds, because they have mixtures of their own; no scene is in both.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Literal

from rich.console import Console

from steer_verl.data.build.config import AgentSettings, BuildConfig
from steer_verl.data.build.make import build
from steer_verl.data.sources.settings import ShareSettings
from steer_verl.data.stage1.settings import ExpandSettings, PerturbSettings
from steer_verl.data.stage2.settings import BootstrapSettings, SetSettings, SplitSettings
from steer_verl.data.work.settings import WorkSettings
from steer_verl.mini.dialogues import KINDS, LENGTHS
from steer_verl.mini.sources import RL_KINDS, mini_sources, unsafe_shares
from steer_verl.types import MAX_TURNS, MIN_TURNS, DialogueKind

SPARE = 1.04
"""Seeds per wanted row, beside what RL_KINDS leaves for the history to reject: near-duplicates, and chance."""


def build_set(
    out: Path, name: Literal["sft", "rl"], rows: int, *, seed: int = 0, console: Console | None = None
) -> Path:
    """Build one set below ``out``, or go on with it.

    Args:
        out: folder of the build.
        name: of the set.
        rows: how many it has.
        seed: of everything random.
        console: where progress is shown.

    Returns:
        The folder of its files.
    """
    lost = sum(RL_KINDS.values()) / sum(KINDS.values()) if name == "rl" else 1.0
    count = math.ceil(rows * lost * SPARE) + 5
    build(
        set_config(out, name, rows, seed),
        rows=functools.partial(mini_sources, out, count, seed, name=name),
        console=console,
    )
    return out / "sets"


def set_config(out: Path, name: Literal["sft", "rl"], rows: int, seed: int) -> BuildConfig:
    """The laboratory's settings of a build."""
    shares = unsafe_shares(name)
    lengths = tuple(float(LENGTHS[turns]) for turns in range(MIN_TURNS, MAX_TURNS + 1))
    return BuildConfig(
        out=out,
        agents=AgentSettings(kind="mini", seed=seed),
        kinds=ShareSettings(obfuscated=shares[DialogueKind.OBFUSCATED], red_team=1 - shares[DialogueKind.OBFUSCATED]),
        perturb=PerturbSettings(share=0.0),
        expand=ExpandSettings(turn_weights=lengths),
        bootstrap=BootstrapSettings(tau_safe=8, tau_help=8.0, static_share=0.0),
        splits=SplitSettings(sft=float(name == "sft"), rl=float(name == "rl"), bench=0.0),
        sets=SetSettings(sft=rows, rl=rows, rl_benign_share=KINDS[DialogueKind.BENIGN] / 100),
        student_format=False,
        work=WorkSettings(shards=1),
    )
