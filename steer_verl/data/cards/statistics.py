"""The figures of a set, counted as its dialogues pass. Memory does not grow with their number."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from steer_verl.answer import parse_answer
from steer_verl.data.licences import non_commercial
from steer_verl.data.seed import Made
from steer_verl.data.stages.facts import Facts
from steer_verl.rubric import AXES
from steer_verl.text import unmarked
from steer_verl.types import Turn, Verdict

K = TypeVar("K", bound=Hashable)

MAX_NAMES = 5000
"""Different names that a count by name holds; those of a set are its own, and could be as many as its rows."""

MAX_NAME_CHARS = 120
"""A longer name is cut there."""

FURTHER = "(further names)"


@dataclass
class AxisFigures:
    """Scores of one axis, 1..10."""

    turns: Counter[int] = field(default_factory=Counter)
    lowest: Counter[int] = field(default_factory=Counter)
    """The lowest turn of every dialogue whose turns were all scored."""


@dataclass
class Statistics:
    """Counts over dialogues, unless a name says otherwise."""

    dialogues: int = 0
    sources: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (source, licence)."""
    kinds: Counter[str] = field(default_factory=Counter)
    names: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """What is counted -> by name; see :meth:`add`."""
    lengths: Counter[int] = field(default_factory=Counter)
    """By number of user turns."""
    images: Counter[int] = field(default_factory=Counter)
    """By images in a dialogue."""
    asked_chars: Counter[int] = field(default_factory=Counter)
    """User turns by length in characters, image marks left out."""
    answer_chars: Counter[int] = field(default_factory=Counter)
    """Answers by length in characters, tags included; none in a set of seeds."""
    well_formed: int = 0
    """Answers in the student's format."""
    unscored: Counter[str] = field(default_factory=Counter)
    """Unscored turns by reason: they have no number."""
    axes: dict[str, AxisFigures] = field(default_factory=lambda: {axis: AxisFigures() for axis in AXES})

    @property
    def licenses(self) -> Counter[str]:
        """Dialogues by licence."""
        return summed((license, count) for (_, license), count in self.sources.items())

    def add(self, made: Made) -> None:
        """Count one dialogue."""
        seed, asked = made.seed, made.asked
        self.dialogues += 1
        self.kinds[seed.kind.value] += 1
        self.lengths[len(asked)] += 1
        self.images[sum(len(turn.images) for turn in asked)] += 1
        closed = " (non-commercial)" if non_commercial(seed.license) else ""  # what follows from it is never cut off
        license = _name(seed.license) if len(seed.license) <= MAX_NAME_CHARS else _name(seed.license) + closed
        _count(self.sources, (_name(seed.source), license), (FURTHER, FURTHER + closed))
        facts = Facts.of(seed.facts)
        self._add_name("category", facts.category or "-")
        self._add_name("strategy of the red team", facts.strategy)
        self._add_name("change of the image, on purpose", facts.perturbation.kind if facts.perturbation else "")
        self.asked_chars.update(len(unmarked(turn.text)) for turn in asked)
        self._add_turns(made.trajectory.turns if made.trajectory else ())

    def _add_turns(self, turns: tuple[Turn, ...]) -> None:
        verdicts = [turn.verdict for turn in turns if isinstance(turn.verdict, Verdict)]
        for axis, figures in self.axes.items() if verdicts else ():
            scores = [getattr(verdict.scores, axis) for verdict in verdicts]
            figures.turns.update(scores)
            figures.lowest.update([min(scores)] if len(scores) == len(turns) else [])
        for turn in turns:
            self._add_name("origin of a user turn", turn.origin.value)
            self.answer_chars[len(turn.answer)] += 1
            self.well_formed += parse_answer(turn.answer).well_formed
            if not isinstance(turn.verdict, Verdict):
                self.unscored[turn.verdict.reason.value] += 1

    def _add_name(self, what: str, name: str) -> None:
        if name:
            _count(self.names[what], _name(name), FURTHER)


def summed(counts: Iterable[tuple[str, int]]) -> Counter[str]:
    """Counts of the same name together."""
    found: Counter[str] = Counter()
    for name, count in counts:
        found[name] += count
    return found


def mean(counts: Counter[int]) -> float | None:
    """Mean of the counted numbers; ``None`` without any."""
    total = sum(counts.values())
    return sum(value * count for value, count in counts.items()) / total if total else None


def quantile(counts: Counter[int], share: float) -> int | None:
    """The smallest counted number that at least ``share`` (0..1) of them do not exceed; ``None`` without any."""
    total, passed = sum(counts.values()), 0
    for value in sorted(counts):
        passed += counts[value]
        if passed >= share * total:
            return value
    return None


def _name(text: str) -> str:
    return text if len(text) <= MAX_NAME_CHARS else f"{text[:MAX_NAME_CHARS]} ..."


def _count(counts: Counter[K], name: K, further: K) -> None:
    """Count a name; one beyond the first ``MAX_NAMES`` goes to ``further``."""
    counts[name if name in counts or len(counts) < MAX_NAMES else further] += 1
