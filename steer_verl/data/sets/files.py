"""The files of a set, written row by row as its dialogues come; each appears whole or not at all.

::

    sft.parquet   messages, images [{bytes}]: verl's utils/dataset/multiturn_sft_dataset.py; and where a row comes from
    sft.jsonl     the same dialogues for people: paths in place of bytes; scores, origins, facts
    rl.jsonl      steer_verl/data/rows/schema.py          rl.parquet   steer_verl/data/rows/verl.py
    bench.jsonl   the user's side, played as it stands: steer_verl/data/rows/played.py
    images/       every image of the three, so that the folder can go anywhere

Paths in JSONL are relative to the folder; those in rl.parquet are absolute, because verl opens them from anywhere.
"""

from __future__ import annotations

import functools
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from steer_verl.data.rows.parquet import write_parquet
from steer_verl.data.rows.schema import rl_row
from steer_verl.data.seed import Made, SetName
from steer_verl.data.sets.gate import Gate
from steer_verl.data.stages.facts import Facts
from steer_verl.images import image_bytes, resolve_image
from steer_verl.records import atomic
from steer_verl.text import neutralize, neutralize_turn, unmarked
from steer_verl.types import Seed, Trajectory, Verdict

IMAGES = "images"
"""Folder of the sets' images, beside their files."""

SFT_BATCH = 64
"""Rows of a row group of sft.parquet: with their images, so that few are in memory at once."""

Row = dict[str, Any]


class SetFiles:
    """The folder of the sets. The gate remembers which images lie in it; the system prompt stands before every
    dialogue of the training sets, an evaluation has its own."""

    def __init__(self, out: Path, images: Path, gate: Gate, system_prompt: str | None = None) -> None:
        self.out, self._images, self._gate, self._system_prompt = out, images, gate, system_prompt

    def write(self, side: SetName, rows: Iterator[Made]) -> tuple[str, ...]:
        """Write a set; an empty one leaves no file of an earlier build behind. Returns the files' names.

        Raises:
            DataError: an image is gone.
        """
        names: tuple[str, ...] = ()
        if first := next(rows, None):
            lines, table = self.out / f"{side.value}.jsonl", self.out / f"{side.value}.parquet"
            names = (lines.name,) if side is SetName.BENCH else (lines.name, table.name)
            with atomic(lines) as text:
                self._write_table(table, side, self._written(text, chain([first], rows)))
        for old in {f"{side.value}.jsonl", f"{side.value}.parquet"} - {*names}:
            (self.out / old).unlink(missing_ok=True)
        return names

    def tidy(self) -> None:
        """Take away the images of earlier builds that no set shows any more."""
        folder = self.out / IMAGES
        for path in folder.rglob("*"):
            if path.is_file() and not self._gate.holders("file", path.relative_to(folder).as_posix()):
                path.unlink()

    def _written(self, text: IO[bytes], rows: Iterator[Made]) -> Iterator[tuple[Seed, Row]]:
        """Each dialogue as it is published, and its row, once the row's line is written."""
        for made in rows:
            turns = tuple(map(neutralize_turn, made.asked))
            seed = made.seed.model_copy(update={"turns": turns})
            seed = _with_paths(seed, functools.partial(self._placed, made.side))
            row = sft_row(seed, made.trajectory, self._system_prompt) if made.trajectory else _ROWS[made.side](seed)
            text.write(line(row))
            yield seed, row

    def _write_table(self, path: Path, side: SetName, written: Iterator[tuple[Seed, Row]]) -> None:
        """The parquet file of a set that has one, as its lines are written."""
        if side is SetName.SFT:
            write_sft(path, (row for _, row in written))
        elif side is SetName.RL:
            here = self.out.resolve()
            seeds = (_with_paths(seed, lambda name: f"{here}/{name}") for seed, _ in written)
            write_parquet(seeds, path, system_prompt=self._system_prompt)
        else:
            deque(written, maxlen=0)

    def _placed(self, side: SetName, name: str) -> str:
        """The path of an image in the sets' folder, where it lies from now on: linked, or else copied."""
        target = self.out / IMAGES / name
        if not target.exists():
            source = resolve_image(name, root=self._images)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:  # another disk, or one without links
                with atomic(target) as stream:
                    stream.write(image_bytes(source))
        self._gate.hold(side, "file", name)
        return f"{IMAGES}/{name}"


def write_sft(path: Path, rows: Iterator[Row]) -> None:
    """``sft.parquet`` of rows of ``sft.jsonl`` beside it: verl reads the first two columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    messages = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
    origin = dict.fromkeys(("id", "kind", "source", "source_id", "license"), pa.string())
    schema = pa.schema({"messages": messages, "images": pa.list_(pa.struct({"bytes": pa.binary()})), **origin})
    shown = (
        {**row, "images": [{"bytes": (path.parent / name).read_bytes()} for name in row["images"]]} for row in rows
    )
    with atomic(path) as stream, pq.ParquetWriter(stream, schema) as writer:
        while batch := list(islice(shown, SFT_BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema))


def sft_row(seed: Seed, played: Trajectory, system_prompt: str | None = None) -> Row:
    """A played dialogue as a row of sft.jsonl, its user turns those of ``seed``."""
    messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
    for user, turn in zip(seed.turns, played.turns, strict=True):
        messages.append({"role": "user", "content": user.text})
        messages.append({"role": "assistant", "content": neutralize(turn.answer)})
    verdicts = [turn.verdict if isinstance(turn.verdict, Verdict) else None for turn in played.turns]
    return {
        "id": seed.id,
        **_origin(seed),
        "messages": messages,
        "images": [name for turn in seed.turns for name in turn.images],
        "scores": [verdict and verdict.scores.model_dump() for verdict in verdicts],
        "origins": [turn.origin.value for turn in played.turns],
        "diagnoses": [verdict.diagnosis if verdict else "" for verdict in verdicts],
        "facts": dict(seed.facts),
    }


def bench_row(seed: Seed) -> Row:
    """A dialogue as a row of a benchmark; :class:`~steer_verl.data.rows.played.BenchRow` reads it."""
    facts = Facts.of(seed.facts)
    row: Row = {
        "question_id": seed.id,
        "image": next(iter(seed.turns[0].images), None),
        "messages_fixed": [{"role": "user", "content": unmarked(turn.text)} for turn in seed.turns],
        "category": facts.category or seed.kind.value,
    }
    if seed.facts.get("source_category"):
        row["source_category"] = str(seed.facts["source_category"])
    if len(facts.risk_curve) == len(seed.turns):
        row["risk_trajectory"] = list(facts.risk_curve)
    return {**row, **_origin(seed)}


_ROWS: dict[SetName, Callable[[Seed], Row]] = {SetName.RL: rl_row, SetName.BENCH: bench_row}


def line(row: Row) -> bytes:
    """A row of a JSONL file."""
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _origin(seed: Seed) -> dict[str, str]:
    return {"kind": seed.kind.value, "source": seed.source, "source_id": seed.source_id, "license": seed.license}


def _with_paths(seed: Seed, path: Callable[[str], str]) -> Seed:
    turns = tuple(turn.model_copy(update={"images": tuple(map(path, turn.images))}) for turn in seed.turns)
    return seed.model_copy(update={"turns": turns})
