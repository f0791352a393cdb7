"""Training rows of a fixed size: dialogues of eight turns over one picture of 512 x 512, played by the rule tutor."""

from __future__ import annotations

import random
from pathlib import Path

from steer_verl.data.rows.parquet import write_parquet
from steer_verl.mini.dialogues import scenes_and_kinds, seed
from steer_verl.mini.world import Split

TURNS = 8
SIDE = 512
"""Pixels: 18 x 18 image tokens, for the processor rounds to multiples of 28."""


def build(folder: Path, rows: int, *, side: int = SIDE, turns: int = TURNS, random_seed: int = 0) -> Path:
    """Write ``rows`` dialogues to ``folder/train.parquet``, their pictures beside it; returns the parquet's path.

    The laboratory's scenes are 84 pixels wide and are enlarged: the vision tower's work depends on the size alone.
    """
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    rng, seeds = random.Random(random_seed), []
    for number, (kind, scene) in enumerate(scenes_and_kinds(rows, Split.TRAIN, rng)):
        path = (pictures / f"{number:04d}.png").resolve()
        scene.draw().resize((side, side)).save(path)
        seeds.append(seed(f"gpu-{number:04d}", kind, scene, str(path), rng, turns=turns))
    write_parquet(seeds, folder / "train.parquet")
    return folder / "train.parquet"
