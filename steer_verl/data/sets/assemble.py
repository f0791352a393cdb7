"""From the dialogues that a build has kept to the three sets and their cards, in one pass over each set's dialogues.

The benchmark is filled first, then RL, then SFT. What shares source seed or image with a set filled earlier, or is
nearly the same as something in one, stays out of the later one: training never sees the test. The same outcomes give
the same sets, in whatever order they come.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError
from pydantic_core import to_json

from steer_verl.data.cards.card import Card, Shown
from steer_verl.data.cards.card_page import card_page
from steer_verl.data.cards.figures import Account
from steer_verl.data.cards.readme import check_hub, readme
from steer_verl.data.licences import non_commercial
from steer_verl.data.seed import Made, SetName
from steer_verl.data.sets.files import SetFiles, line
from steer_verl.data.sets.gate import Gate, Offer, SetReason
from steer_verl.data.sets.settings import SetSettings
from steer_verl.data.sources.settings import DuplicateSettings
from steer_verl.data.student_format import STUDENT_FORMAT
from steer_verl.errors import DataError
from steer_verl.records import atomic, write_whole
from steer_verl.text import one_line
from steer_verl.types import DialogueKind, Record, Seed
from steer_verl.work.outcomes import Pointer
from steer_verl.work.step import Kept, Outcome


class SetReport(Record):
    """One set: what was offered, what is in it, and why the rest is not. ``offered == kept + sum(left_out)``."""

    offered: int
    kept: int
    left_out: dict[str, int]
    kinds: dict[str, int]
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
    account: Account | None = None,
    restore: Callable[[Seed], None] = lambda seed: None,
) -> dict[SetName, SetReport]:
    """Write ``out/sets`` and ``out/cards``; files of an earlier build are replaced.

    Beside the sets lie ``README.md`` (a card as the Hugging Face hub reads it), ``sets.json`` with the reports, and
    ``left_out.jsonl`` with a reason for every kept dialogue that is in no set.

    Args:
        outcomes: of all seeds, and where each lies, so that ``read`` finds it again.
        images: folder that the dialogues' image paths lie below.
        settings: targets and mixture.
        duplicates: when two dialogues are nearly the same.
        system_prompt: before every dialogue of the training sets.
        account: of the steps before this one, in the order of work, for the cards.
        restore: makes an image of a kept dialogue again that is gone.

    Raises:
        ConfigError: a package is missing.
        DataError: no dialogue was kept at all, or an outcome is of another version.
    """
    check_hub()
    cards, reports = {side: Card() for side in SetName}, {}
    with closing(Gate(images, duplicates)) as gate:
        offered = _offer(outcomes, gate, cards, restore)
        files = SetFiles(out / "sets", images, gate, system_prompt)
        with atomic(out / "sets" / "left_out.jsonl") as left_out:
            for side in SetName:
                filling = _Filling(side, settings, gate, read, cards[side], left_out)
                names = files.write(side, filling.rows())
                reports[side] = filling.report(offered[side], names)
        files.tidy()
    _write_accounts(out, cards, reports, account or {}, images, student_format=system_prompt == STUDENT_FORMAT)
    return reports


@dataclass
class _Filling:
    """One set as it is filled; ``stream`` is that of ``left_out.jsonl``."""

    side: SetName
    settings: SetSettings
    gate: Gate
    read: Callable[[Pointer], Outcome]
    card: Card
    stream: IO[bytes]
    left_out: Counter[str] = field(default_factory=Counter)

    def rows(self) -> Iterator[Made]:
        """The dialogues of the set; every other one is left out for a reason."""
        for offer in self._offers():
            made = made_of(self.read(offer.pointer))
            if fault := self.gate.fault(made):
                self._leave_out(offer, *fault)
                self.card.leave_out(Shown(made, "sets", fault[0].value, fault[1]))
            else:
                self.card.add(made)
                yield made

    def _offers(self) -> Iterator[Offer]:
        """Whatever finds room, a benign one as soon as its share admits one more, so that they are spread."""
        benign, others = (self.gate.offers(self.side, benign=which) for which in (True, False))
        target = getattr(self.settings, self.side.value) or math.inf
        while self.card.dialogues < target:
            offer = (next(benign, None) if self._admits_benign() else None) or next(others, None)
            if offer is None:
                break
            yield offer
        for offer in benign:
            self._leave_out(offer, SetReason.OVER_TARGET if self._admits_benign() else SetReason.BENIGN_SHARE)
        for offer in others:
            self._leave_out(offer, SetReason.OVER_TARGET)

    def _admits_benign(self) -> bool:
        benign = self.card.kinds[DialogueKind.BENIGN.value]
        return benign + 1 <= self.settings.rl_benign_share * (self.card.dialogues + 1) + 1e-9

    def _leave_out(self, offer: Offer, reason: SetReason, detail: str = "") -> None:
        self.left_out[reason.value] += 1
        self.stream.write(line({"set": self.side.value, "id": offer.id, "reason": reason.value, "detail": detail}))

    def report(self, offered: int, files: tuple[str, ...]) -> SetReport:
        """What became of everything that was offered."""
        card = self.card
        return SetReport(
            offered=offered,
            kept=card.dialogues,
            left_out=dict(sorted(self.left_out.items())),
            kinds=dict(sorted(card.kinds.items())),
            licenses=dict(sorted(card.licenses.items())),
            non_commercial=any(map(non_commercial, card.licenses)),
            files=files,
        )


def made_of(outcome: Outcome) -> Made:
    """What an outcome has kept, or what was made of an item that it has rejected."""
    try:
        return Made.model_validate_json(to_json(outcome.done.value))
    except ValidationError as error:
        what = one_line(f"item {outcome.id}: no dialogue ({error.errors()[0]['msg']})")
        raise DataError(f"{what}; it was made by another version: build in a new folder") from None


def _offer(
    outcomes: Iterable[tuple[Outcome, Pointer]],
    gate: Gate,
    cards: Mapping[SetName, Card],
    restore: Callable[[Seed], None],
) -> Counter[SetName]:
    """Tell the gate where every kept dialogue lies, and the cards of the others. Returns the kept ones' count."""
    offered: Counter[SetName] = Counter()
    for outcome, pointer in outcomes:
        done = outcome.done
        if isinstance(done, Kept):
            made = made_of(outcome)
            restore(made.seed)
            gate.offer(made, pointer)
            offered[made.side] += 1
        elif done.value is not None:
            with suppress(DataError):  # it ended before there was a dialogue to show
                made = made_of(outcome)
                cards[made.side].leave_out(Shown(made, done.stage, done.reason, done.detail))
    if not offered:
        raise DataError("nothing to assemble: no dialogue was kept; the manifest says why the seeds were rejected")
    return offered


def _write_accounts(
    out: Path,
    cards: Mapping[SetName, Card],
    reports: Mapping[SetName, SetReport],
    account: Account,
    images: Path,
    *,
    student_format: bool,
) -> None:
    """``sets.json`` and the cards; that of an empty set goes."""
    told = {side.value: report.model_dump(mode="json") for side, report in reports.items()}
    write_whole(out / "sets" / "sets.json", json.dumps(told, indent=2) + "\n")
    steps: dict[str, Mapping[str, Any]] = {**account}
    for side, report in reports.items():
        own = {f"{side.value} set": {"in": report.offered, "kept": report.kept, "rejected": report.left_out}}
        path = out / "cards" / side.value / "card.html"
        if report.kept:
            write_whole(path, card_page(side, cards[side], {**account, **own}, images))
            steps |= own
        else:
            path.unlink(missing_ok=True)
    filled = {side: card for side, card in cards.items() if card.dialogues}
    write_whole(out / "sets" / "README.md", readme(filled, steps, student_format=student_format))
