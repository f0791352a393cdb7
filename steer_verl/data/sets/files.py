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

import json
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_verl.data.rows.parquet import atomic, write_parquet
from steer_verl.data.rows.schema import rl_row
from steer_verl.data.seed import Made, SetName
from steer_verl.data.sets.ledger import Ledger
from steer_verl.data.stages.facts import Facts
from steer_verl.images import resolve_image
from steer_verl.text import neutralize, neutralize_turn, unmarked
from steer_verl.types import Seed, UserTurn, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

IMAGES = "images"
"""Folder of the sets' images, beside their files."""

SFT_BATCH = 64
"""Rows of a row group of sft.parquet: with their images, so that few are in memory at once."""


class SetFiles:
    """The folder of the sets.

    Args:
        out: the folder.
        images: folder that the dialogues' image paths lie below.
        ledger: remembers which images lie in the folder.
        system_prompt: before every dialogue of the training sets; an evaluation has its own.
    """

    def __init__(self, out: Path, images: Path, ledger: Ledger, system_prompt: str | None = None) -> None:
        self.out, self._images, self._ledger, self._system_prompt = out, images, ledger, system_prompt

    def write(self, side: SetName, rows: Iterator[Made]) -> tuple[str, ...]:
        """Write a set; an empty one leaves no file of an earlier build behind. Returns the files' names.

        Raises:
            DataError: an image is gone.
        """
        write = {SetName.SFT: self._write_sft, SetName.RL: self._write_rl, SetName.BENCH: self._write_bench}[side]
        names = () if (first := next(rows, None)) is None else write(chain([first], rows))
        for old in self.out.glob(f"{side.value}.*"):
            if old.name not in names:
                old.unlink()
        return names

    def tidy(self) -> None:
        """Take away the images of earlier builds that no set shows any more."""
        folder = self.out / IMAGES
        for path in folder.rglob("*"):
            if path.is_file() and not self._ledger.holders("file", path.relative_to(folder).as_posix()):
                path.unlink()

    def _write_sft(self, rows: Iterable[Made]) -> tuple[str, ...]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table, lines, schema = self.out / "sft.parquet", self.out / "sft.jsonl", sft_schema()
        with atomic(table) as stream, atomic(lines) as text, pq.ParquetWriter(stream, schema) as writer:
            batch: list[dict[str, Any]] = []
            for made in rows:
                row = sft_row(made, self._system_prompt)
                text.write(_line({**row, "images": [self._placed(made.side, name) for name in row["images"]]}))
                batch.append({**row, "images": [{"bytes": self._file(name).read_bytes()} for name in row["images"]]})
                if len(batch) == SFT_BATCH:
                    writer.write_table(pa.Table.from_pylist(batch, schema))
                    batch.clear()
            if batch:
                writer.write_table(pa.Table.from_pylist(batch, schema))
        return table.name, lines.name

    def _write_rl(self, rows: Iterable[Made]) -> tuple[str, ...]:
        lines, table = self.out / "rl.jsonl", self.out / "rl.parquet"
        with atomic(lines) as text:

            def seeds() -> Iterator[Seed]:
                for made in rows:
                    text.write(_line(rl_row(self._published(made))))
                    yield self._published(made, absolute=True)

            write_parquet(seeds(), table, system_prompt=self._system_prompt)
        return lines.name, table.name

    def _write_bench(self, rows: Iterable[Made]) -> tuple[str, ...]:
        lines = self.out / "bench.jsonl"
        with atomic(lines) as text:
            for made in rows:
                text.write(_line(bench_row(self._published(made))))
        return (lines.name,)

    def _published(self, made: Made, *, absolute: bool = False) -> Seed:
        """The seed with its images in the sets' own folder."""
        seed, folder = made.seed, f"{self.out.resolve()}/" if absolute else ""

        def turn(user: UserTurn) -> UserTurn:
            paths = tuple(folder + self._placed(made.side, name) for name in user.images)
            return neutralize_turn(user).model_copy(update={"images": paths})

        return seed.model_copy(update={"turns": tuple(map(turn, seed.turns))})

    def _file(self, name: str) -> Path:
        return resolve_image(name, root=self._images)

    def _placed(self, side: SetName, name: str) -> str:
        """The path of an image in the sets' folder, where it lies from now on: linked, or else copied."""
        target = self.out / IMAGES / name
        if not target.exists():
            source = self._file(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:  # another disk, or one without links
                with atomic(target) as stream:
                    stream.write(source.read_bytes())
        self._ledger.hold(side, "file", name)
        return f"{IMAGES}/{name}"


def sft_schema() -> pa.Schema:
    """Columns of sft.parquet: verl reads the first two."""
    import pyarrow as pa

    messages = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
    origin = dict.fromkeys(("id", "kind", "source", "source_id", "license"), pa.string())
    return pa.schema({"messages": messages, "images": pa.list_(pa.struct({"bytes": pa.binary()})), **origin})


def sft_row(made: Made, system_prompt: str | None = None) -> dict[str, Any]:
    """A played dialogue as a row of sft.jsonl, its images as the build names them.

    Nothing in a turn spells a role, or an image that is not there.
    """
    turns = made.trajectory.turns if made.trajectory else ()
    messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
    for turn in turns:
        messages.append({"role": "user", "content": neutralize_turn(turn.user).text})
        messages.append({"role": "assistant", "content": neutralize(turn.answer)})
    verdicts = [turn.verdict if isinstance(turn.verdict, Verdict) else None for turn in turns]
    return {
        "id": made.seed.id,
        **_origin(made.seed),
        "messages": messages,
        "images": [name for turn in turns for name in turn.user.images],
        "scores": [verdict and verdict.scores.model_dump() for verdict in verdicts],
        "origins": [turn.origin.value for turn in turns],
        "diagnoses": [verdict.diagnosis if verdict else "" for verdict in verdicts],
        "facts": dict(made.seed.facts),
    }


def bench_row(seed: Seed) -> dict[str, Any]:
    """A dialogue as a row of a benchmark; :class:`~steer_verl.data.rows.played.BenchRow` reads it."""
    facts = Facts.of(seed.facts)
    row: dict[str, Any] = {
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


def _origin(seed: Seed) -> dict[str, str]:
    return {"kind": seed.kind.value, "source": seed.source, "source_id": seed.source_id, "license": seed.license}


def _line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace")
