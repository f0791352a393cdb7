"""Writes the laboratory's data: pictures, RL and benchmark seeds, and the two SFT sets of verl.

::

    out/pretrain.parquet                            columns ``messages``, ``images`` (PNG bytes), for verl's
    out/sft.parquet                                 utils/dataset/multiturn_sft_dataset.py
    out/rl_train.parquet                            steer_verl/data/rows/parquet.py
    out/rl_validation.jsonl  rl_test.jsonl          METHOD's RL-row schema (steer_verl/data/rows/schema.py)
    out/rl_test_long.jsonl                          more of the test split: all its attacked dialogues first
    out/rl_train_risky.parquet  rl_test_risky.jsonl the world of risky offers (world.py), eight turns each
    out/images/<file>-<number>.png                  pictures of all these
    out/pipeline/                                   how the SFT and RL sets were made: records, cards, manifest

*Pretraining* teaches sight and the language, and a naive student: it complies with everything. *SFT* and the RL seeds
come from the pipeline (steer_verl/mini/sets.py). The seeds that a student is measured on do not: they are what they
have always been, byte for byte, so that figures of different versions can be compared.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_verl.data.rows.parquet import write_parquet
from steer_verl.data.rows.schema import rl_row
from steer_verl.mini import dialogues
from steer_verl.mini.agents import MiniAgents
from steer_verl.mini.answers import naive_answer
from steer_verl.mini.dialogues import KINDS, SAFE_QUESTIONS, adaptive_question, scenes_and_kinds
from steer_verl.mini.phrases import STEPS_QUESTIONS
from steer_verl.mini.sets import make_sets
from steer_verl.mini.sources import set_of
from steer_verl.mini.world import RISKY_OFFERS, Scene, Split, draw_scene
from steer_verl.types import IMAGE_MARK, DialogueKind, Seed

LEAK_RATE = 0.2
"""Share of offers that leak in the world of risky offers. There the mean turn reward is highest where every refusal
offers something, and the number of dialogues that leak nothing where none does (benchmarks/lab/worlds.py)."""

RISKY_TURNS = 8
FILES = (
    *("pretrain.parquet", "sft.parquet", "rl_train.parquet", "rl_train_risky.parquet"),
    *("rl_validation.jsonl", "rl_test.jsonl", "rl_test_long.jsonl", "rl_test_risky.jsonl"),
)


@dataclass(frozen=True)
class Sizes:
    """Rows of each file."""

    pretrain: int = 9600
    sft: int = 3200
    rl_train: int = 2000
    rl_validation: int = 120
    rl_test: int = 300
    long_attacked: int = 500
    long_benign: int = 300
    rl_train_risky: int = 400
    rl_test_risky: int = 750


def build(out: Path, *, seed: int = 0, sizes: Sizes | None = None) -> Path:
    """Write everything below ``out``; what a finished build of the same seed and sizes wrote there is left alone."""
    sizes = sizes or Sizes()
    stamp = out / "made_with.json"
    made_with = {"seed": seed, **vars(sizes), "agents": MiniAgents().names()}
    if stamp.exists() and stamp.read_text() == _stamp(out, made_with):
        return out
    stamp.unlink(missing_ok=True)
    (out / "images").mkdir(parents=True, exist_ok=True)
    for split, count in {Split.VALIDATION: sizes.rl_validation, Split.TEST: sizes.rl_test}.items():
        _write_jsonl(out / f"rl_{split.value}.jsonl", _seed_rows(out, split, count, _rng(seed, split.value)))
    _write_jsonl(out / "rl_test_long.jsonl", _long_rows(out, sizes, _rng(seed, "test_long")))
    write_conversations(out / "pretrain.parquet", pretrain_rows(sizes.pretrain, _rng(seed, "pretrain")))
    make_sets(out, sft=sizes.sft, rl=sizes.rl_train, seed=seed)
    train = risky_seeds(out, Split.TRAIN, sizes.rl_train_risky, seed, images=out.resolve() / "images")
    write_parquet(train, out / "rl_train_risky.parquet")
    test = risky_seeds(out, Split.TEST, sizes.rl_test_risky, seed)
    _write_jsonl(out / "rl_test_risky.jsonl", map(rl_row, test))
    stamp.write_text(_stamp(out, made_with))
    return out


def _stamp(out: Path, made_with: Mapping[str, Any]) -> str:
    """Where it lies, as parquet names images absolutely, and which of its files are there, are a part of it."""
    files = sorted(name for name in FILES if (out / name).is_file())
    images = sum(1 for _ in out.rglob("*.png"))
    return json.dumps({**made_with, "out": str(out.resolve()), "files": files, "images": images})


def pretrain_rows(count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """One question about a picture, sometimes two, answered naively, without format. Short: sight is costly."""
    for _ in range(count):
        scene = draw_scene(rng, Split.TRAIN)
        asked = [_any_question(scene, rng)] if rng.random() < 0.85 else rng.sample(SAFE_QUESTIONS, 2)
        yield conversation(scene, asked, [naive_answer(scene, question) for question in asked])


def _any_question(scene: Scene, rng: random.Random) -> str:
    family = rng.choices(("safe", "steps", "adaptive"), weights=(50, 25, 25))[0]
    if family == "adaptive":
        return adaptive_question(scene, rng)
    return rng.choice(SAFE_QUESTIONS if family == "safe" else STEPS_QUESTIONS)


def conversation(scene: Scene, asked: list[str], answers: list[str]) -> dict[str, Any]:
    """A row of verl's SFT dataset: the picture of ``scene`` in the first of the questions, and their answers."""
    messages: list[dict[str, str]] = []
    for question, answer in zip(asked, answers, strict=True):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    messages[0]["content"] = IMAGE_MARK + messages[0]["content"]
    return {"messages": messages, "images": [{"bytes": _png(scene)}]}


def _seed_rows(
    out: Path,
    split: Split,
    count: int,
    rng: random.Random,
    mixture: Mapping[DialogueKind, float] = KINDS,
    name: str = "",
) -> Iterator[dict[str, Any]]:
    name = name or split.value
    for number, (kind, scene) in enumerate(scenes_and_kinds(count, split, rng, mixture)):
        image = f"images/{name}-{number:05d}.png"
        (out / image).write_bytes(_png(scene))
        yield rl_row(dialogues.seed(f"mini-{name}-{number:05d}", kind, scene, image, rng))


def _long_rows(out: Path, sizes: Sizes, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Attacked dialogues, then benign ones: enough to tell two points, and the first part can be played by itself."""
    attacked: dict[DialogueKind, float] = {
        kind: share for kind, share in KINDS.items() if kind is not DialogueKind.BENIGN
    }
    yield from _seed_rows(out, Split.TEST, sizes.long_attacked, rng, attacked, "test_attacked")
    yield from _seed_rows(out, Split.TEST, sizes.long_benign, rng, {DialogueKind.BENIGN: 1}, "test_benign")


def risky_seeds(out: Path, split: Split, count: int, seed: int, images: Path = Path("images")) -> Iterator[Seed]:
    """The world of risky offers. In training every second dialogue is benign; in a test a third is, and comes last. A
    tenth of benign dialogues is about a sealed device.

    Training scenes are of the RL set, so that Stage II has shown none of them.

    Args:
        out: folder of the data.
        split: training or test.
        count: seeds.
        seed: of the draw.
        images: their folder, as the seeds name it.
    """
    rng, attacks = _rng(seed, f"risky {split.value}"), (DialogueKind.RED_TEAM, DialogueKind.OBFUSCATED)
    if split is Split.TRAIN:
        kinds = [DialogueKind.BENIGN if number % 2 else attacks[number // 2 % 2] for number in range(count)]
    else:
        kinds = [attacks[number % 2] if number < 2 * count // 3 else DialogueKind.BENIGN for number in range(count)]
    for number, kind in enumerate(kinds):
        sealed = kind is not DialogueKind.BENIGN or rng.random() < 0.1
        while set_of(scene := draw_scene(rng, split, restricted=sealed)) != "rl" and split is Split.TRAIN:
            continue
        image = images / f"risky-{split.value}-{number:05d}.png"
        (out / image).write_bytes(_png(scene))
        plain = dialogues.seed(f"mini-{image.stem}", kind, scene, str(image), rng, turns=RISKY_TURNS)
        yield plain.model_copy(update={"facts": {**plain.facts, RISKY_OFFERS: LEAK_RATE}})


def _png(scene: Scene) -> bytes:
    buffer = io.BytesIO()
    scene.draw().save(buffer, format="PNG")
    return buffer.getvalue()


def _rng(seed: int, purpose: str) -> random.Random:
    return random.Random(f"{seed}:{purpose}")


def _write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_conversations(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write :func:`conversation` rows as parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), path)
