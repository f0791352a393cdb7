"""From kept dialogues and seeds to the three sets: disjoint, in the wanted mixture, every row accounted for.

The benchmark is filled first, then RL, then SFT. What shares its source seed with a set filled earlier, or is nearly
the same as something in it, stays out of the later one: training never sees the test. The same input gives the same
sets, in whatever order it comes.
"""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TypeAlias, TypeVar

from steer_verl.data.licences import non_commercial
from steer_verl.data.likeness import Like, Told
from steer_verl.data.parquet import atomic
from steer_verl.data.rows import plain_words
from steer_verl.data.stage2.bootstrap import Bootstrapped
from steer_verl.data.stage2.pile import Offered, Pile
from steer_verl.data.stage2.settings import SetSettings
from steer_verl.data.stage2.splits import SetName
from steer_verl.data.stage2.writers import Pictures, write_bench, write_rl, write_sft
from steer_verl.errors import DataError
from steer_verl.images import load_image
from steer_verl.types import DialogueKind, Record, Seed, UserTurn


class SetReason(str, Enum):
    """Why a row is in no set."""

    DUPLICATE_ID = "duplicate_id"
    """Its id is in the set already."""
    SAME_SEED = "same_seed"
    """A set filled earlier has a dialogue of the same source seed."""
    NEAR_DUPLICATE = "near_duplicate"
    """A set filled earlier has nearly the same dialogue about the same picture."""
    BAD_PICTURE = "bad_picture"
    """A picture is gone or broken."""
    NOT_IN_FORM = "not_in_form"
    """A bench row holds one picture, in the first turn."""
    BENIGN_SHARE = "benign_share"
    """The RL set has as many benign seeds as its share allows."""
    OVER_TARGET = "over_target"
    """The set is full."""


class SetReport(Record):
    """One set: what was offered, what is in it, and why the rest is not. ``offered == kept + sum(left_out)``."""

    offered: int
    kept: int
    left_out: dict[str, int]
    kinds: dict[str, int]
    sources: dict[str, int]
    licenses: dict[str, int]
    non_commercial: bool
    """A row comes from a source that forbids commercial use, and so must the set."""
    files: tuple[str, ...]


R = TypeVar("R", bound=Record)
Counts: TypeAlias = "dict[str, Counter[str]]"


@dataclass
class _Room:
    """How many rows a set still takes. Benign ones come last where they have a share of their own."""

    target: float
    benign_share: float | None = None
    reserved: int = 0
    """Rows of the target that are for benign ones."""
    kept: Counter[bool] = field(default_factory=Counter)

    def refuses(self, benign: bool) -> SetReason | None:
        total = self.kept.total()
        if self.benign_share is not None and benign and self.kept[True] + 1 > self.benign_share * (total + 1) + 1e-9:
            return SetReason.BENIGN_SHARE
        ceiling = self.target if benign else self.target - self.reserved
        return SetReason.OVER_TARGET if total >= ceiling else None


def assemble(
    out: Path,
    *,
    sft: Iterable[Bootstrapped],
    rl: Iterable[Seed],
    bench: Iterable[Seed],
    pictures: Path,
    index: Callable[[], Like],
    settings: SetSettings | None = None,
    system_prompt: str | None = None,
) -> dict[SetName, SetReport]:
    """Write the sets, ``sets.json`` with their reports and ``left_out.jsonl`` with a reason for every other row.

    Args:
        out: folder of the sets; files of an earlier build are replaced.
        sft: Stage II's kept dialogues.
        rl: seeds that :class:`~steer_verl.data.stage2.history.HistoryStep` kept.
        bench: Stage I's seeds of the benchmark's side.
        pictures: folder that the paths in seeds begin at.
        index: makes a new, empty memory for near-duplicates (:func:`~steer_verl.data.likeness.indexes_in`).
        settings: targets and mixture.
        system_prompt: before every dialogue of the training sets.

    Raises:
        DataError: nothing was offered at all.
    """
    settings = settings or SetSettings()
    out.mkdir(parents=True, exist_ok=True)
    heap = out / ".assemble.sqlite"
    heap.unlink(missing_ok=True)
    pile = Pile(heap)
    try:
        pile.offer(_offered_dialogues(sft))
        pile.offer(_offered_seeds(SetName.RL, rl))
        pile.offer(_offered_seeds(SetName.BENCH, bench))
        gate = _Gate(pile, pictures, index)
        counts = {name: gate.fill(name, _room(pile, name, settings)) for name in SetName}
        if not any(pile.fates(name) for name in SetName):
            raise DataError(f"{out}: nothing to assemble; Stage II and the seeds of Stage I hold no kept row")
        files = _written(pile, Pictures(pictures, out), system_prompt)
        reports = {name: _report(pile.fates(name), counts[name], files[name]) for name in SetName}
        _write_account(out, pile, reports)
    finally:
        pile.close()
        heap.unlink(missing_ok=True)
    return reports


class _Gate:
    """Decides, set by set, what may enter."""

    def __init__(self, pile: Pile, pictures: Path, index: Callable[[], Like]) -> None:
        self.pile, self.pictures = pile, pictures
        self.indexes = {name: index() for name in SetName}
        self.filled: list[SetName] = []
        self.picture_fault = functools.lru_cache(maxsize=4096)(functools.partial(_picture_fault, pictures))

    def fill(self, name: SetName, room: _Room) -> Counts:
        """Decide on every row offered to a set; what the kept ones are, counted."""
        counts: Counts = {key: Counter() for key in ("kinds", "sources", "licenses")}
        order = list(SetName)
        awaited = any(self.pile.offers(later) for later in order[order.index(name) + 1 :])
        before = ""
        for row in self.pile.rows(name, last_kind=DialogueKind.BENIGN.value if name is SetName.RL else ""):
            seed, turns = _read(row)
            told = told_of(seed, turns, self.pictures)
            benign = seed.kind is DialogueKind.BENIGN
            reason, detail = self._fault(row, told, seed, repeated=row.id == before)
            refusal = None if reason else room.refuses(benign)
            before = row.id
            if reason or refusal:
                self.pile.decide(row, (reason or refusal or SetReason.OVER_TARGET).value, detail)
                continue
            self.pile.decide(row)
            if awaited:
                self.indexes[name].add(told)
            room.kept[benign] += 1
            for key, value in zip(counts, (seed.kind.value, seed.source, seed.license), strict=True):
                counts[key][value] += 1
        if room.kept:
            self.filled.append(name)
        return counts

    def _fault(self, row: Offered, told: Told, seed: Seed, *, repeated: bool) -> tuple[SetReason | None, str]:
        """What keeps a row out of its set, whatever room there is."""
        if repeated:
            return SetReason.DUPLICATE_ID, row.id
        if other := self.pile.other_set(row):
            return SetReason.SAME_SEED, f"{row.source_seed} is in {other}"
        images, opening = _images(seed.turns), seed.turns[0].images
        if row.name is SetName.BENCH and (len(images) > 1 or images != opening):
            return SetReason.NOT_IN_FORM, f"{len(images)} pictures, {len(opening)} in turn 1"
        if fault := next(filter(None, map(self.picture_fault, images)), ""):
            return SetReason.BAD_PICTURE, fault
        for other_name in self.filled:
            if like := self.indexes[other_name].first_like(told):
                return SetReason.NEAR_DUPLICATE, f"{like} of {other_name.value}"
        return None, ""


def told_of(seed: Seed, turns: Sequence[UserTurn], pictures: Path) -> Told:
    """What a dialogue is compared by: its user turns as played, and its pictures."""
    return Told(
        id=seed.id,
        turns=len(turns),
        text=plain_words(turn.text for turn in turns),
        images=tuple(str(pictures / name) for name in _images(turns)),
    )


def source_seed(seed: Seed) -> str:
    """What all dialogues of one source seed share."""
    return f"{seed.source}:{seed.source_id}" if seed.source_id else seed.id


def _offered_seeds(name: SetName, seeds: Iterable[Seed]) -> Iterator[Offered]:
    for seed in seeds:
        yield Offered(name, seed.id, seed.kind.value, source_seed(seed), seed.model_dump_json())


def _offered_dialogues(rows: Iterable[Bootstrapped]) -> Iterator[Offered]:
    for row in rows:
        seed = row.seed
        yield Offered(SetName.SFT, seed.id, seed.kind.value, source_seed(seed), row.model_dump_json())


def _read(row: Offered) -> tuple[Seed, tuple[UserTurn, ...]]:
    """The seed of a row, and the user turns as they were or will be played."""
    if row.name is not SetName.SFT:
        seed = Seed.model_validate_json(row.value)
        return seed, seed.turns
    played = Bootstrapped.model_validate_json(row.value)
    return played.seed, tuple(turn.user for turn in played.trajectory.turns)


def _images(turns: Iterable[UserTurn]) -> tuple[str, ...]:
    return tuple(name for turn in turns for name in turn.images)


def _room(pile: Pile, name: SetName, settings: SetSettings) -> _Room:
    target = getattr(settings, name.value) or math.inf
    if name is not SetName.RL:
        return _Room(target)
    offered, share = pile.offered(name, DialogueKind.BENIGN.value), settings.rl_benign_share
    reserved = 0 if target == math.inf else min(offered, math.floor(share * target))
    return _Room(target, share, reserved)


def _picture_fault(root: Path, name: str) -> str:
    try:
        load_image(name, root=root)
    except DataError as error:
        return str(error)
    return ""


def _written(pile: Pile, pictures: Pictures, system_prompt: str | None) -> dict[SetName, tuple[str, ...]]:
    """Write every set that has a row; an empty one leaves no file of an earlier build behind."""

    def rows(name: SetName, kind: type[R]) -> Callable[[], Iterator[R]]:
        return lambda: (kind.model_validate_json(row.value) for row in pile.kept(name))

    writers: dict[SetName, Callable[[], list[Path]]] = {
        SetName.BENCH: lambda: write_bench(rows(SetName.BENCH, Seed), pictures),
        SetName.RL: lambda: write_rl(rows(SetName.RL, Seed), pictures, system_prompt),
        SetName.SFT: lambda: write_sft(rows(SetName.SFT, Bootstrapped), pictures, system_prompt),
    }
    files: dict[SetName, tuple[str, ...]] = {}
    for name, write in writers.items():
        files[name] = tuple(path.name for path in write()) if pile.fates(name).get("") else ()
        for old in pictures.out.glob(f"{name.value}.*"):
            if old.name not in files[name]:
                old.unlink()
    return files


def _report(fates: dict[str, int], counts: Counts, files: tuple[str, ...]) -> SetReport:
    plain = {key: dict(sorted(counter.items())) for key, counter in counts.items()}
    return SetReport(
        offered=sum(fates.values()),
        kept=fates.get("", 0),
        left_out={reason: count for reason, count in fates.items() if reason},
        non_commercial=any(map(non_commercial, plain["licenses"])),
        files=files,
        **plain,
    )


def _write_account(out: Path, pile: Pile, reports: Mapping[SetName, SetReport]) -> None:
    with atomic(out / "left_out.jsonl") as stream:
        for name, row_id, reason, detail in pile.left_out():
            row = {"set": name, "id": row_id, "reason": reason, "detail": detail}
            stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
    with atomic(out / "sets.json") as stream:
        told = {name.value: report.model_dump(mode="json") for name, report in reports.items()}
        stream.write((json.dumps(told, indent=2) + "\n").encode())
