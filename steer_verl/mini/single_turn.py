"""The laboratory's single-turn sets, for the ablation of dialogues: every source question by itself.

::

    out/sft.parquet         question and answer, Stage II       out/sft/images/
    out/rl_train.parquet    one-turn seeds, Stage III           out/rl/images/

The seeds are those that the pipeline makes its dialogues of (steer_verl/mini/sources.py), first to last, and more of
them where dialogues hold more answers; the answers are the blue expert's. No question follows, so that nothing is
asked under pressure, and no user reacts to an answer: that is what single-turn data lacks.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from steer_verl.data.rows.parquet import write_parquet
from steer_verl.data.seed import SourceSeed
from steer_verl.mini.answers import expert_answer
from steer_verl.mini.data import conversation, write_conversations
from steer_verl.mini.rules import MiniSettings
from steer_verl.mini.sources import IMAGES, LICENSE, SOURCE, mini_sources
from steer_verl.mini.world import Scene
from steer_verl.types import IMAGE_MARK, DialogueKind, Seed, UserTurn


@dataclass(frozen=True)
class Sizes:
    """Rows of each file: the answers that 130 steps of 16 dialogues show, and as many seeds as there are dialogues."""

    sft: int = 8320
    rl: int = 2000


def build(out: Path, *, seed: int = 0, sizes: Sizes | None = None) -> None:
    """Write both sets below ``out``."""
    sizes = sizes or Sizes()
    out.mkdir(parents=True, exist_ok=True)
    rng, plain_refusals = random.Random(f"{seed}:single turn"), MiniSettings().plain_refusals
    rows = (_row(source, rng, plain_refusals) for source in mini_sources(out / "sft", sizes.sft, seed, name="sft"))
    write_conversations(out / "sft.parquet", rows)
    write_parquet(rl_seeds(out / "rl", sizes.rl, seed), out / "rl_train.parquet")


def rl_seeds(out: Path, count: int, seed: int) -> Iterator[Seed]:
    """One-turn seeds, their images below ``out``. A question that is a risk by itself is an attack."""
    images = (out / IMAGES).resolve()
    for source in mini_sources(out, count, seed, name="rl"):
        yield Seed(
            id=source.id,
            turns=(UserTurn(text=IMAGE_MARK + source.question, images=(str(images / str(source.image)),)),),
            kind=DialogueKind.RED_TEAM if source.unsafe else DialogueKind.BENIGN,
            source=SOURCE,
            source_id=source.source_id,
            license=LICENSE,
            facts=source.facts,
        )


def _row(source: SourceSeed, rng: random.Random, plain_refusals: float) -> dict[str, object]:
    scene = Scene.of(source.facts)
    answer = expert_answer(scene, source.question, rng, constructive=rng.random() >= plain_refusals)
    return conversation(scene, [source.question], [answer])


def main() -> None:
    """``python -m steer_verl.mini.single_turn --out FOLDER [--seed N] [--quick]``."""
    parser = argparse.ArgumentParser(description="Write the laboratory's single-turn sets.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a small set: shows that the machinery works")
    args = parser.parse_args()
    build(args.out, seed=args.seed, sizes=Sizes(sft=192, rl=40) if args.quick else None)


if __name__ == "__main__":
    main()
