"""The laboratory's SFT and RL sets, made by the pipeline that makes anyone's (steer_verl/data/build.py).

::

    out/sft.parquet        Stage II                out/pipeline/<digest>/sft/   the build of each: records, sets,
    out/rl_train.parquet   Stage III               out/pipeline/<digest>/rl/    card and manifest

Nobody asks an endpoint: the agents are the laboratory's rules. They are two builds, because each set has a mixture of
its own; no scene is in both.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

from steer_verl.data.build import build
from steer_verl.data.config import AgentSettings, BuildConfig
from steer_verl.data.rows.parquet import load_seeds, write_parquet
from steer_verl.data.sets.settings import SetSettings
from steer_verl.data.sources.settings import SplitSettings
from steer_verl.data.stages.settings import BootstrapSettings, ExpandSettings, PerturbSettings
from steer_verl.mini.agents import MiniAgents
from steer_verl.mini.dialogues import LENGTHS, mixed
from steer_verl.mini.sources import RL_SET, mini_sources, shares
from steer_verl.mini.world import stable_hash
from steer_verl.records import atomic
from steer_verl.types import DialogueKind
from steer_verl.work.step import WorkSettings

BENIGN = RL_SET[DialogueKind.BENIGN] / sum(RL_SET.values())
"""Share of the RL set."""


def make_sets(out: Path, *, sft: int, rl: int, seed: int = 0) -> dict[str, Path]:
    """Write both sets below ``out``; a call that was interrupted goes on.

    Args:
        out: folder.
        sft: rows of the SFT set.
        rl: rows of the RL set. More seeds are drawn, for dialogues whose risk lies not in their history stay out.
        seed: of everything that is drawn.

    Returns:
        Set -> the folder of its build.
    """
    made_with = {"sft": sft, "rl": rl, "seed": seed, "agents": MiniAgents().names()}
    work = out / "pipeline" / f"{stable_hash(json.dumps(made_with)):016x}"
    for name, rows, drawn in (("sft", sft, sft + sft // 25 + 5), ("rl", rl, rl + rl // 5 + 20)):
        folder = work / name
        sources = functools.partial(mini_sources, folder, drawn, seed, name=name)
        build(set_config(folder, name, rows, seed), rows=sources)
    builds = {name: work / name for name in ("sft", "rl")}
    with atomic(out / "sft.parquet") as stream:
        stream.write((builds["sft"] / "sets" / "sft.parquet").read_bytes())
    write_parquet(mixed(load_seeds(builds["rl"] / "sets" / "rl.jsonl")), out / "rl_train.parquet")
    return builds


def set_config(out: Path, name: str, rows: int, seed: int) -> BuildConfig:
    """The laboratory's settings of one set's build."""
    return BuildConfig(
        out=out,
        agents=AgentSettings(kind="mini", seed=seed),
        kinds=shares(name),
        perturb=PerturbSettings(share=0.0),
        expand=ExpandSettings(turn_weights=tuple(map(float, LENGTHS.values())), pairs=0.0),
        bootstrap=BootstrapSettings(tau_safe=8, tau_help=8),  # a plain refusal (safety 8) may be taught
        splits=SplitSettings(sft=float(name == "sft"), rl=float(name == "rl"), bench=0.0),
        sets=SetSettings(sft=rows, rl=rows, rl_benign_share=BENIGN),
        student_format=False,  # learnt by SFT
        work=WorkSettings(in_flight=4, shards=1),  # rules never wait
    )
