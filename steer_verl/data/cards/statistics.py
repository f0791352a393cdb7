"""The figures of a set, from one pass over its dialogues. Memory does not grow with their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from steer_verl.answer import parse_answer
from steer_verl.data.cards.entry import Entry
from steer_verl.data.stage1.perturb import FACT
from steer_verl.rubric import AXES
from steer_verl.types import IMAGE_MARK, Turn, Verdict

K = TypeVar("K", bound=Hashable)


MAX_NAMES = 5000
"""Different names that a count by name holds; those of a set are its own, and could be as many as its rows."""

MAX_NAME_CHARS = 120
"""A longer name is cut there."""

FURTHER = "(further names)"


@dataclass
class AxisFigures:
    """Scores of one axis, 1..10. The counts by dialogue are of dialogues in which every turn was scored."""

    turns: Counter[int] = field(default_factory=Counter)
    lowest: Counter[int] = field(default_factory=Counter)
    """Of a dialogue's turns."""
    means: Counter[int] = field(default_factory=Counter)
    """Of a dialogue's turns, rounded to the nearest level (a half goes up)."""
    mean_sum: float = 0.0
    """Of the dialogues' means, unrounded."""

    @property
    def dialogues(self) -> int:
        """Dialogues counted."""
        return sum(self.lowest.values())

    @property
    def mean_of_means(self) -> float | None:
        """Mean over dialogues of their mean score; ``None`` without any."""
        return self.mean_sum / self.dialogues if self.dialogues else None

    def add(self, scores: list[int], complete: bool) -> None:
        """Count one dialogue's scores; ``complete``: no turn went unscored."""
        self.turns.update(scores)
        if complete and scores:
            mean = sum(scores) / len(scores)
            self.lowest[min(scores)] += 1
            self.means[int(mean + 0.5)] += 1
            self.mean_sum += mean


@dataclass
class Statistics:
    """Counts over dialogues, unless a name says otherwise."""

    dialogues: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    """By number of user turns."""
    kinds: Counter[str] = field(default_factory=Counter)
    sources: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (source, licence)."""
    categories: Counter[str] = field(default_factory=Counter)
    strategies: Counter[str] = field(default_factory=Counter)
    """Of the red team, by the seed's ``strategy``."""
    perturbed: Counter[str] = field(default_factory=Counter)
    """Of those whose picture was changed on purpose, by how."""
    pictures: Counter[int] = field(default_factory=Counter)
    """By pictures in a dialogue."""
    asked_chars: Counter[int] = field(default_factory=Counter)
    """User turns by length in characters, picture marks left out."""
    answer_chars: Counter[int] = field(default_factory=Counter)
    """Answers by length in characters, tags included."""
    origins: Counter[str] = field(default_factory=Counter)
    """Played user turns by where their text came from."""
    well_formed: int = 0
    """Answers in the student's format."""
    unscored: Counter[str] = field(default_factory=Counter)
    """Unscored turns by reason: they have no number."""
    axes: dict[str, AxisFigures] = field(default_factory=lambda: {axis: AxisFigures() for axis in AXES})

    @property
    def user_turns(self) -> int:
        """All of them."""
        return sum(length * count for length, count in self.lengths.items())

    @property
    def answers(self) -> int:
        """All of them; 0 for a set of seeds."""
        return sum(self.answer_chars.values())

    @property
    def licenses(self) -> Counter[str]:
        """Dialogues by licence."""
        counts: Counter[str] = Counter()
        for (_, license), count in self.sources.items():
            counts[license] += count
        return counts

    def add(self, entry: Entry) -> None:
        """Count one dialogue."""
        self.dialogues += 1
        self.lengths[len(entry.asked)] += 1
        self.kinds[entry.kind.value if entry.kind else ""] += 1
        self.pictures[entry.pictures] += 1
        _count(self.sources, (_name(entry.source), _name(entry.license)), (FURTHER, FURTHER))
        _count(self.categories, _name(entry.category), FURTHER)
        if strategy := entry.facts.get("strategy"):
            _count(self.strategies, _name(str(strategy)), FURTHER)
        if isinstance(change := entry.facts.get(FACT), Mapping):
            _count(self.perturbed, _name(str(change.get("kind"))), FURTHER)
        self.asked_chars.update(len(turn.text.replace(IMAGE_MARK, "")) for turn in entry.asked)
        self._add_turns(entry.turns)

    def _add_turns(self, turns: tuple[Turn, ...]) -> None:
        verdicts = [turn.verdict for turn in turns if isinstance(turn.verdict, Verdict)]
        for axis, figures in self.axes.items():
            figures.add([getattr(verdict.scores, axis) for verdict in verdicts], len(verdicts) == len(turns))
        for turn in turns:
            self.origins[turn.origin.value] += 1
            self.answer_chars[len(turn.answer)] += 1
            self.well_formed += parse_answer(turn.answer).well_formed
            if not isinstance(turn.verdict, Verdict):
                self.unscored[turn.verdict.reason.value] += 1


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


def by_doubling(counts: Counter[int]) -> dict[tuple[int, int], int]:
    """Counts of lengths in bins ``[low, high)`` that double from 32 on, from the first that holds one to the last."""
    if not counts:
        return {}
    edges = [0, 32]
    while edges[-1] <= max(counts):
        edges.append(edges[-1] * 2)
    bins = dict.fromkeys(pairwise(edges), 0)
    for value, count in counts.items():
        bins[_bin(value)] += count
    used = [number for number, count in enumerate(bins.values()) if count]
    return dict(list(bins.items())[used[0] : used[-1] + 1])


def statistics_of(entries: Iterable[Entry]) -> Statistics:
    """Of all the entries."""
    found = Statistics()
    for entry in entries:
        found.add(entry)
    return found


def _bin(value: int) -> tuple[int, int]:
    if value < 32:
        return (0, 32)
    low = 1 << (value.bit_length() - 1)
    return (low, 2 * low)


def _name(text: str) -> str:
    return text if len(text) <= MAX_NAME_CHARS else f"{text[:MAX_NAME_CHARS]} ..."


def _count(counts: Counter[K], name: K, further: K) -> None:
    """Count a name; one beyond the first ``MAX_NAMES`` goes to ``further``."""
    counts[name if name in counts or len(counts) < MAX_NAMES else further] += 1
