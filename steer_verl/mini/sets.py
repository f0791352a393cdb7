"""The laboratory's SFT and RL sets, made by the pipeline that makes anyone's: Stages I and II, the choice for RL, sets.

::

    out/pipeline/<build>/<set>/sources.jsonl    single-turn seeds (steer_verl/mini/sources.py)
    out/pipeline/<build>/<set>/<step>/          the engine's: what became of every seed in every step
    out/pipeline/<build>/<set>/manifest.json    and how many
    out/sft.parquet  sft.jsonl               Stage II
    out/rl_train.parquet  rl_train.jsonl     Stage III
    out/pictures/  sets.json  left_out.jsonl

Nobody asks an endpoint: the agents are the laboratory's rules.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from steer_verl.data.sources.assign import assign
from steer_verl.data.sources.seed import SourceSeed
from steer_verl.data.stage1.expand import ExpandStep
from steer_verl.data.stage1.red_team import RedTeamStep
from steer_verl.data.stage1.settings import ExpandSettings
from steer_verl.data.stage2.assemble import SetReport, assemble
from steer_verl.data.stage2.bootstrap import Bootstrapped, BootstrapStep
from steer_verl.data.stage2.history import HistoryStep
from steer_verl.data.stage2.settings import BootstrapSettings, SetSettings
from steer_verl.data.stage2.splits import SetName
from steer_verl.data.validate import Told
from steer_verl.data.work.manifest import StepAccount, write_manifest
from steer_verl.data.work.outcomes import read_kept
from steer_verl.data.work.plan import write_whole
from steer_verl.data.work.run import Job, run
from steer_verl.data.work.settings import WorkSettings
from steer_verl.data.work.step import Step
from steer_verl.mini.agents import Agents, mini_agents
from steer_verl.mini.dialogues import KINDS, LENGTHS
from steer_verl.mini.rules import MiniSettings
from steer_verl.mini.sources import PICTURES, mini_sources, shares
from steer_verl.mini.world import stable_hash
from steer_verl.types import DialogueKind, Seed

SOURCES, MANIFEST = "sources.jsonl", "manifest.json"
EXPAND = ExpandSettings(turn_weights=tuple(map(float, LENGTHS.values())))
BOOTSTRAP = BootstrapSettings(tau_safe=8, tau_help=8, static_share=0)
"""A plain refusal (safety 8) may be taught; and the red user itself decides which turns stay as they are."""
WORK = WorkSettings(in_flight=4, shards=1, lines_per_file=100_000)
"""Rules never wait: little would be gained by doing much at a time."""
BENIGN = KINDS[DialogueKind.BENIGN] / sum(KINDS.values())
"""Share of the RL set."""


class SamePicture:
    """Takes every two dialogues about the same picture for alike (:class:`steer_verl.data.likeness.Like`).

    Nearly the same words are no sign here, where a few dozen sentences make up every dialogue; pictures are told apart
    by their names, which are digests of their pixels.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[str, ...], str] = {}

    def first_like(self, row: Told) -> str | None:
        """See :class:`~steer_verl.data.likeness.Like`."""
        return self._first.get(self._names(row))

    def add(self, row: Told) -> None:
        """See :class:`~steer_verl.data.likeness.Like`."""
        self._first.setdefault(self._names(row), row.id)

    def _names(self, row: Told) -> tuple[str, ...]:
        return tuple(Path(str(image)).name for image in row.images)


def make_sets(out: Path, *, sft: int, rl: int, seed: int = 0) -> dict[SetName, SetReport]:
    """Write both sets below ``out``; a call that was interrupted goes on.

    Args:
        out: folder.
        sft: rows of the SFT set.
        rl: rows of the RL set. More seeds are drawn, for dialogues whose risk lies not in their history stay out.
        seed: of everything that is drawn.
    """
    agents = mini_agents(MiniSettings(seed=seed))
    made_with = {"sft": sft, "rl": rl, "seed": seed, "agents": agents.names()}
    work = out / "pipeline" / f"{stable_hash(json.dumps(made_with)):016x}"
    bootstrap = BootstrapStep(agents.red_user, agents.blue_expert, agents.evaluator, BOOTSTRAP)
    history = HistoryStep(agents.risk_judge)
    last: Step[Seed]
    for name, count, last in (("sft", sft, bootstrap), ("rl", rl + rl // 5 + 20, history)):
        lines = (source.model_dump_json() + "\n" for source in mini_sources(out, count, seed, name=name))
        write_whole(work / name / SOURCES, "".join(lines))
        first = [
            _work(step, work / name, functools.partial(_dealt, work / name, step.name), made_with)
            for step in _first_steps(agents)
        ]
        account = _work(last, work / name, functools.partial(_scripts, work / name), made_with)
        write_manifest(work / name / MANIFEST, [*first, account])
    reports = assemble(
        out,
        sft=read_kept(work / "sft" / BootstrapStep.name, Bootstrapped),
        rl=read_kept(work / "rl" / HistoryStep.name, Seed),
        bench=(),
        pictures=out / PICTURES,
        index=SamePicture,
        settings=SetSettings(sft=sft, rl=rl, rl_benign_share=BENIGN),
    )
    for suffix in ("jsonl", "parquet"):
        (out / f"rl.{suffix}").replace(out / f"rl_train.{suffix}")
    return reports


def _first_steps(agents: Agents) -> list[Step[SourceSeed]]:
    """Stage I, a step for each kind and of its name."""
    return [
        ExpandStep(agents.generator, DialogueKind.BENIGN, EXPAND),
        ExpandStep(agents.generator, DialogueKind.OBFUSCATED, EXPAND),
        RedTeamStep(agents.red_team, agents.target, agents.breach_judge),
    ]


def _work(step: Step[Any], folder: Path, items: Callable[[], Iterable[Any]], made_with: dict[str, Any]) -> StepAccount:
    """Work a step in a folder of its name."""
    return run(Job(step.name, folder / step.name, lambda processes: step, items, WORK), made_with)


def _dealt(folder: Path, kind: str) -> Iterator[SourceSeed]:
    """The seeds of a set that become dialogues of one kind."""
    with (folder / SOURCES).open() as lines:
        for line in lines:
            source = SourceSeed.model_validate_json(line)
            dealt = assign(source, shares(folder.name))
            if dealt is not None and dealt.value == kind:
                yield source


def _scripts(folder: Path) -> Iterator[Seed]:
    """What Stage I has made for a set."""
    for kind in DialogueKind:
        yield from read_kept(folder / kind.value, Seed)
