"""The files of a set, written row by row; each appears whole or not at all.

::

    sft.parquet   messages, images [{bytes}]: verl's utils/dataset/multiturn_sft_dataset.py; and where a row comes from
    sft.jsonl     the same dialogues for people and their cards: paths in place of bytes; scores, origins, facts
    rl.jsonl      steer_verl/data/rows.py          rl.parquet   steer_verl/data/parquet.py
    bench.jsonl   METHOD's bench row: the user's side, played as it stands
    pictures/     every picture of the three, so that the folder can go anywhere

Paths in JSONL are relative to the folder; those in rl.parquet are absolute, because verl opens them from anywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_verl.data.parquet import atomic, write_parquet
from steer_verl.data.rows import rl_row
from steer_verl.data.stage2.bootstrap import Bootstrapped
from steer_verl.images import resolve_image
from steer_verl.text import neutralize, neutralize_turn, unmarked
from steer_verl.types import Seed, Turn, UserTurn, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

PICTURES = "pictures"
"""Folder of a set's pictures, beside its files."""

SFT_BATCH = 64
"""Rows of a row group of sft.parquet: with their pictures, so that few are in memory at once."""


class Pictures:
    """The pictures of a build, and the set's own folder of them.

    Args:
        root: where ``Seed`` paths begin.
        out: folder of the set's files.
    """

    def __init__(self, root: Path, out: Path) -> None:
        self.root, self.out = root, out

    def bytes(self, name: str) -> bytes:
        """The file as it lies there.

        Raises:
            DataError: it is gone, or lies outside the root.
        """
        return resolve_image(name, root=self.root).read_bytes()

    def publish(self, turn: UserTurn, *, absolute: bool = False) -> UserTurn:
        """The turn with paths into the set's folder, where its pictures lie from now on: linked, or else copied."""
        return turn.model_copy(update={"images": tuple(self._place(name, absolute) for name in turn.images)})

    def _place(self, name: str, absolute: bool) -> str:
        target = self.out / PICTURES / name
        if not target.exists():
            source = resolve_image(name, root=self.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:  # another disk, or one without links
                with atomic(target) as stream:
                    stream.write(source.read_bytes())
        return str(target.resolve()) if absolute else f"{PICTURES}/{name}"


def write_sft(rows: Callable[[], Iterable[Bootstrapped]], pictures: Pictures, system_prompt: str | None) -> list[Path]:
    """``sft.parquet`` and ``sft.jsonl``; ``system_prompt`` goes before every dialogue, as at Stage III."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table, lines, schema = pictures.out / "sft.parquet", pictures.out / "sft.jsonl", sft_schema()
    batch: list[dict[str, Any]] = []
    with atomic(table) as stream, atomic(lines) as text, pq.ParquetWriter(stream, schema) as writer:
        for row in rows():
            batch.append(sft_row(row, pictures, system_prompt))
            text.write(_line(sft_line(row, pictures, system_prompt)))
            if len(batch) == SFT_BATCH:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch.clear()
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, schema))
    return [table, lines]


def write_rl(rows: Callable[[], Iterable[Seed]], pictures: Pictures, system_prompt: str | None) -> list[Path]:
    """``rl.jsonl`` and ``rl.parquet``."""
    lines, table = pictures.out / "rl.jsonl", pictures.out / "rl.parquet"
    with atomic(lines) as text:
        for seed in rows():
            text.write(_line(rl_row(_published(seed, pictures))))
    seeds = (_published(seed, pictures, absolute=True) for seed in rows())
    write_parquet(seeds, table, system_prompt=system_prompt)
    return [lines, table]


def write_bench(rows: Callable[[], Iterable[Seed]], pictures: Pictures) -> list[Path]:
    """``bench.jsonl``; an evaluation has its own system prompt."""
    lines = pictures.out / "bench.jsonl"
    with atomic(lines) as text:
        for seed in rows():
            text.write(_line(bench_row(_published(seed, pictures))))
    return [lines]


def sft_schema() -> pa.Schema:
    """Columns of sft.parquet: verl reads the first two."""
    import pyarrow as pa

    messages = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
    origin = dict.fromkeys(("id", "kind", "source", "source_id", "license"), pa.string())
    return pa.schema({"messages": messages, "images": pa.list_(pa.struct({"bytes": pa.binary()})), **origin})


def sft_row(row: Bootstrapped, pictures: Pictures, system_prompt: str | None = None) -> dict[str, Any]:
    """One row of sft.parquet.

    Raises:
        DataError: a picture is gone.
    """
    names = [name for turn in row.trajectory.turns for name in turn.user.images]
    images = [{"bytes": pictures.bytes(name)} for name in names]
    return {"messages": sft_messages(row.trajectory.turns, system_prompt), "images": images, **_origin(row.seed)}


def sft_line(row: Bootstrapped, pictures: Pictures, system_prompt: str | None = None) -> dict[str, Any]:
    """One row of sft.jsonl."""
    turns = row.trajectory.turns
    return {
        **_origin(row.seed),
        "messages": sft_messages(turns, system_prompt),
        "images": [path for turn in turns for path in pictures.publish(turn.user).images],
        "scores": [t.verdict.scores.model_dump() if isinstance(t.verdict, Verdict) else None for t in turns],
        "origins": [turn.origin.value for turn in turns],
        "diagnoses": [t.verdict.diagnosis if isinstance(t.verdict, Verdict) else "" for t in turns],
        "facts": dict(row.seed.facts),
    }


def sft_messages(turns: Iterable[Turn], system_prompt: str | None = None) -> list[dict[str, str]]:
    """A dialogue as chat messages. Nothing in a turn spells a role or a picture that is not there."""
    messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
    for turn in turns:
        messages.append({"role": "user", "content": neutralize_turn(turn.user).text})
        messages.append({"role": "assistant", "content": neutralize(turn.answer)})
    return messages


def bench_row(seed: Seed) -> dict[str, Any]:
    """METHOD's bench row; see :mod:`steer_verl.data.bench_rows` for its reading."""
    optional = {name: seed.facts[name] for name in ("source_category",) if seed.facts.get(name)}
    if seed.facts.get("risk_curve"):
        optional["risk_trajectory"] = list(seed.facts["risk_curve"])
    texts = [unmarked(turn.text) for turn in seed.turns]
    return {
        "question_id": seed.id,
        "image": next(iter(seed.turns[0].images), None),
        "messages_fixed": [{"role": "user", "content": text} for text in texts],
        "category": str(seed.facts.get("category") or seed.kind.value),
        **optional,
        **{name: value for name, value in _origin(seed).items() if name != "id"},
    }


def _published(seed: Seed, pictures: Pictures, *, absolute: bool = False) -> Seed:
    turns = tuple(pictures.publish(neutralize_turn(turn), absolute=absolute) for turn in seed.turns)
    return seed.model_copy(update={"turns": turns})


def _origin(seed: Seed) -> dict[str, str]:
    return {
        "id": seed.id,
        "kind": seed.kind.value,
        "source": seed.source,
        "source_id": seed.source_id,
        "license": seed.license,
    }


def _line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace")
