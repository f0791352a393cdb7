"""From the dialogues that a build has kept to the three sets and their cards, in one pass over each set's dialogues.

The benchmark is filled first, then RL, then SFT. What shares source seed or image with a set filled earlier, or is
nearly the same as something in one, stays out of the later one: training never sees the test. The same outcomes give
the same sets, in whatever order they come.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError
from pydantic_core import to_json

from steer_verl.data.cards.card import Card, card_page
from steer_verl.data.cards.dialogue import Shown
from steer_verl.data.cards.readme import check_hub, readme
from steer_verl.data.cards.statistics import summed
from steer_verl.data.duplicates import DuplicateIndex
from steer_verl.data.licences import non_commercial
from steer_verl.data.rows.parquet import atomic
from steer_verl.data.seed import Made, SetName
from steer_verl.data.sets.files import SetFiles
from steer_verl.data.sets.gate import Gate, Room, SetReason
from steer_verl.data.sets.ledger import Ledger, Offer
from steer_verl.data.sets.settings import SetSettings
from steer_verl.data.sources.settings import DuplicateSettings
from steer_verl.errors import DataError
from steer_verl.text import one_line
from steer_verl.types import DialogueKind, Record
from steer_verl.work.outcomes import Pointer
from steer_verl.work.step import Kept, Outcome


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


def assemble(
    out: Path,
    outcomes: Iterable[tuple[Outcome, Pointer]],
    read: Callable[[Pointer], Outcome],
    images: Path,
    *,
    settings: SetSettings,
    duplicates: DuplicateSettings,
    system_prompt: str | None = None,
    account: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[SetName, SetReport]:
    """Write ``out/sets`` and ``out/cards``; files of an earlier build are replaced.

    Beside the sets lie ``README.md`` (a card as the Hugging Face hub reads it), ``sets.json`` with the reports, and
    ``left_out.jsonl`` with a reason for every kept dialogue that is in no set.

    Args:
        out: the build's folder.
        outcomes: of all seeds, and where each lies; their values are :class:`~steer_verl.data.seed.Made`.
        read: an outcome again, by its place.
        images: folder that the dialogues' image paths lie below.
        settings: targets and mixture.
        duplicates: when two dialogues are nearly the same.
        system_prompt: before every dialogue of the training sets.
        account: step -> its counts, in the order of work, for the cards (:func:`~steer_verl.data.cards.figures.work`).

    Raises:
        ConfigError: a package is missing.
        DataError: no dialogue was kept at all, or an outcome is of another version.
    """
    check_hub()
    cards = {side: Card() for side in SetName}
    with closing(Ledger()) as ledger, closing(DuplicateIndex(duplicates)) as like:
        _offer(outcomes, ledger, cards)
        gate, files = Gate(ledger, images, like), SetFiles(out / "sets", images, ledger, system_prompt)
        with atomic(out / "sets" / "left_out.jsonl") as left_out:
            reports = {}
            for side in SetName:
                filling = _Filling(side, Room.of(side, settings, ledger), ledger, gate, read, cards[side], left_out)
                reports[side] = filling.report(files.write(side, filling.rows()))
        files.tidy()
    _write_accounts(out, cards, reports, account or {}, images)
    return reports


@dataclass
class _Filling:
    """One set as it is filled."""

    side: SetName
    room: Room
    ledger: Ledger
    gate: Gate
    read: Callable[[Pointer], Outcome]
    card: Card
    stream: IO[bytes]
    """Of ``left_out.jsonl``."""
    left_out: Counter[str] = field(default_factory=Counter)

    def rows(self) -> Iterator[Made]:
        """The dialogues of the set; every other one is left out for a reason."""
        for offer in self._offers():
            made = made_of(self.read(offer.pointer))
            if fault := self.gate.fault(made):
                self._leave_out(offer, *fault)
                self.card.leave_out(Shown(made, "sets", fault[0].value, fault[1]))
                continue
            self.room.kept[offer.benign] += 1
            self.card.add(made)
            yield made

    def _offers(self) -> Iterator[Offer]:
        """Whatever finds room: in RL a benign one as soon as its share admits one more, so that they are spread."""
        kinds = (True, False) if self.side is SetName.RL else (None,)
        waiting = {kind: self.ledger.offers(self.side, kind) for kind in kinds}
        heads = {kind: next(offers, None) for kind, offers in waiting.items()}
        while offer := next((o for o in heads.values() if o and not self.room.refuses(o.benign)), None):
            yield offer
            kind = offer.benign if offer.benign in waiting else None
            heads[kind] = next(waiting[kind], None)
        for kind, offers in waiting.items():
            for offer in chain(filter(None, [heads[kind]]), offers):
                self._leave_out(offer, self.room.refuses(offer.benign) or SetReason.OVER_TARGET)

    def _leave_out(self, offer: Offer, reason: SetReason, detail: str = "") -> None:
        self.left_out[reason.value] += 1
        row = {"set": self.side.value, "id": offer.id, "reason": reason.value, "detail": detail}
        self.stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace"))

    def report(self, files: tuple[str, ...]) -> SetReport:
        """What became of everything that was offered."""
        stats = self.card.stats
        sources = summed((source, count) for (source, _), count in stats.sources.items())
        return SetReport(
            offered=self.ledger.count(self.side),
            kept=stats.dialogues,
            left_out=dict(sorted(self.left_out.items())),
            kinds=dict(sorted(stats.kinds.items())),
            sources=dict(sorted(sources.items())),
            licenses=dict(sorted(stats.licenses.items())),
            non_commercial=any(map(non_commercial, stats.licenses)),
            files=files,
        )


def made_of(outcome: Outcome) -> Made:
    """What an outcome has kept, or was made of an item that it has rejected.

    Raises:
        DataError: it is of another version.
    """
    try:
        return Made.model_validate_json(to_json(outcome.done.value))
    except ValidationError as error:
        what = one_line(f"item {outcome.id}: no dialogue ({error.errors()[0]['msg']})")
        raise DataError(f"{what}; it was made by another version: build in a new folder") from None


def _offer(outcomes: Iterable[tuple[Outcome, Pointer]], ledger: Ledger, cards: Mapping[SetName, Card]) -> None:
    """Note where every kept dialogue lies, and draw some of the rejected ones for the cards."""
    for outcome, pointer in outcomes:
        done = outcome.done
        if isinstance(done, Kept):
            made = made_of(outcome)
            ledger.offer(made.side, Offer(made.seed.id, made.seed.kind is DialogueKind.BENIGN, pointer))
        elif done.value is not None:
            with suppress(DataError):  # it ended before there was a dialogue to show
                made = made_of(outcome)
                cards[made.side].leave_out(Shown(made, done.stage, done.reason, done.detail))
    if not any(map(ledger.count, SetName)):
        raise DataError("nothing to assemble: no dialogue was kept; the manifest says why the seeds were rejected")


def _write_accounts(
    out: Path,
    cards: Mapping[SetName, Card],
    reports: Mapping[SetName, SetReport],
    account: Mapping[str, Mapping[str, Any]],
    images: Path,
) -> None:
    """``sets.json`` and the cards; that of an empty set goes."""
    told = {side.value: report.model_dump(mode="json") for side, report in reports.items()}
    _write(out / "sets" / "sets.json", json.dumps(told, indent=2) + "\n")
    filled = {side: report for side, report in reports.items() if report.kept}
    own = {
        side: {f"{side.value} set": {"in": report.offered, "kept": report.kept, "rejected": report.left_out}}
        for side, report in filled.items()
    }
    for side in SetName:
        path = out / "cards" / side.value / "card.html"
        path.unlink(missing_ok=True)
        if side in filled:
            _write(path, card_page(side, cards[side], {**account, **own[side]}, images))
    stats, steps = (
        {side: cards[side].stats for side in filled},
        {k: v for step in own.values() for k, v in step.items()},
    )
    _write(out / "sets" / "README.md", readme(stats, {**account, **steps}))


def _write(path: Path, text: str) -> None:
    with atomic(path) as stream:
        stream.write(text.encode("utf-8", "replace"))
