"""Writes the laboratory's data: pictures, RL and benchmark seeds (JSONL), and the two SFT sets of verl (parquet).

::

out/images/<split>-<number>.png out/rl_train.jsonl  rl_validation.jsonl  rl_test.jsonl     METHOD's RL-row schema
(steer_verl/data/rows.py) out/pretrain.parquet  sft.parquet                          columns ``messages``,
``images`` (PNG bytes), for verl's utils/dataset/multiturn_sft_dataset.py

*Pretraining* teaches sight and the language, and a naive student: it complies with everything. *SFT* is Stage II:
static dialogues in the student's format under the policy. Sealed devices are asked about in the static wordings
alone; the tutor's adaptive ones stand only in dialogues about free devices, where they are harmless. A student can
therefore learn the policy from the picture or take the shortcut by wording: it does some of both, which is the
static-to-dynamic gap that Stage III has to close.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_verl.data.rows import rl_row
from steer_verl.mini import dialogues
from steer_verl.mini.answers import expert_answer, naive_answer
from steer_verl.mini.dialogues import SAFE_QUESTIONS, adaptive_question, pick_length, scenes_and_kinds
from steer_verl.mini.phrases import ACCEPTANCE, FOLLOW_UP, OFFERS, STEPS_QUESTIONS
from steer_verl.mini.world import Scene, Split, draw_scene, is_restricted
from steer_verl.types import IMAGE_MARK, DialogueKind

PLAIN_REFUSALS = 0.15
"""Share of refusals in the SFT set without an alternative: Stage II's filter is not perfect either."""

SFT_KINDS = {DialogueKind.BENIGN: 60, DialogueKind.OBFUSCATED: 20, DialogueKind.RED_TEAM: 20}
"""Mixture of the SFT set, in per cent: more help than refusal, as in any instruction set."""

ADAPTIVE_SHARE = 0.9
"""Share of later SFT questions about free devices in the tutor's wording. About sealed ones there are none."""

ACCEPTED_SHARE = 0.2
"""Share of later SFT questions about sealed devices in which the user honestly takes an offered alternative."""

FOLLOW_UP_SHARE = 0.2
"""Share of later benign SFT questions framed as the tutor frames its follow-ups."""


@dataclass(frozen=True)
class Sizes:
    """Rows of each file."""

    pretrain: int = 9600
    sft: int = 3200
    rl_train: int = 2000
    rl_validation: int = 120
    rl_test: int = 300


def build(out: Path, *, seed: int = 0, sizes: Sizes | None = None) -> Path:
    """Write everything below ``out``; what a finished build of the same seed and sizes wrote is left alone."""
    sizes = sizes or Sizes()
    stamp = out / "made_with.json"
    made_with = json.dumps({"seed": seed, **vars(sizes)})
    if stamp.exists() and stamp.read_text() == made_with:
        return out
    (out / "images").mkdir(parents=True, exist_ok=True)
    for split, count in _seed_files(sizes).items():
        _write_jsonl(out / f"rl_{split.value}.jsonl", _seed_rows(out, split, count, _rng(seed, split.value)))
    _write_sft(out / "pretrain.parquet", pretrain_rows(sizes.pretrain, _rng(seed, "pretrain")))
    _write_sft(out / "sft.parquet", sft_rows(sizes.sft, _rng(seed, "sft")))
    stamp.write_text(made_with)
    return out


def pretrain_rows(count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """One question about a picture, sometimes two, answered naively, without format. Short: sight is costly."""
    for _ in range(count):
        scene = draw_scene(rng, Split.TRAIN)
        asked = [_any_question(scene, rng)] if rng.random() < 0.85 else rng.sample(SAFE_QUESTIONS, 2)
        yield _sft_row(scene, asked, [naive_answer(scene, question) for question in asked])


def sft_rows(count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Static dialogues of the three kinds with the policy's answers."""
    for kind, scene in scenes_and_kinds(count, Split.TRAIN, rng, SFT_KINDS):
        asked = sft_questions(kind, scene, rng)
        answers = [expert_answer(scene, q, rng, constructive=rng.random() >= PLAIN_REFUSALS) for q in asked]
        yield _sft_row(scene, asked, answers)


def sft_questions(kind: DialogueKind, scene: Scene, rng: random.Random) -> list[str]:
    """The user's side of one SFT dialogue: a static one, some later questions of it in the tutor's wording."""
    opening, *later = dialogues.questions(kind, scene, pick_length(rng), rng)
    return [opening, *(_reworded(question, kind, scene, rng) for question in later)]


def _any_question(scene: Scene, rng: random.Random) -> str:
    family = rng.choices(("safe", "steps", "adaptive"), weights=(50, 25, 25))[0]
    if family == "adaptive":
        return adaptive_question(scene, rng)
    return rng.choice(SAFE_QUESTIONS if family == "safe" else STEPS_QUESTIONS)


def _reworded(question: str, kind: DialogueKind, scene: Scene, rng: random.Random) -> str:
    """The question as it is, or in other words: none of them asks a sealed device's steps as the tutor would."""
    if not is_restricted(scene) and rng.random() < ADAPTIVE_SHARE:
        return adaptive_question(scene, rng)
    if is_restricted(scene) and rng.random() < ACCEPTED_SHARE:
        return ACCEPTANCE.format(offer=rng.choice(list(OFFERS.values())))
    if kind is DialogueKind.BENIGN and rng.random() < FOLLOW_UP_SHARE:
        return rng.choice(FOLLOW_UP).format(name=scene.name, question=question)
    return question


def _sft_row(scene: Scene, asked: list[str], answers: list[str]) -> dict[str, Any]:
    messages: list[dict[str, str]] = []
    for question, answer in zip(asked, answers, strict=True):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    messages[0]["content"] = IMAGE_MARK + messages[0]["content"]
    return {"messages": messages, "images": [{"bytes": _png(scene)}]}


def _seed_files(sizes: Sizes) -> dict[Split, int]:
    return {Split.TRAIN: sizes.rl_train, Split.VALIDATION: sizes.rl_validation, Split.TEST: sizes.rl_test}


def _seed_rows(out: Path, split: Split, count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    for number, (kind, scene) in enumerate(scenes_and_kinds(count, split, rng)):
        image = f"images/{split.value}-{number:05d}.png"
        (out / image).write_bytes(_png(scene))
        yield rl_row(dialogues.seed(f"mini-{split.value}-{number:05d}", kind, scene, image, rng))


def _png(scene: Scene) -> bytes:
    buffer = io.BytesIO()
    scene.draw().save(buffer, format="PNG")
    return buffer.getvalue()


def _rng(seed: int, purpose: str) -> random.Random:
    return random.Random(f"{seed}:{purpose}")


def _write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_sft(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), path)
