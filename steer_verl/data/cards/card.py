"""What a set's card will say: figures and a sample, taken as its dialogues pass. Memory does not grow with them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Generic, TypeVar

from steer_verl.answer import parse_answer
from steer_verl.data.drawn import drawn
from steer_verl.data.licences import non_commercial
from steer_verl.data.seed import Made
from steer_verl.data.stages.facts import Facts
from steer_verl.rubric import AXES
from steer_verl.types import Turn, Verdict

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

KEPT = 14
"""Dialogues of the set that the page shows, shared out among the kinds."""
LEFT_OUT = 6
"""... and those left out, shared out among stages and reasons."""
MAX_NAMES = 5000
"""Different names that a count by name holds; those of a set are its own, and could be as many as its rows."""
MAX_NAME_CHARS = 120
"""A longer name is cut there."""
FURTHER = "(further names)"


@dataclass(frozen=True)
class Shown:
    """A dialogue of the sample."""

    made: Made
    stage: str = ""
    """Where it was left out; empty where its step has no stages."""
    reason: str = ""
    """Why; empty: it is in the set."""
    detail: str = ""


class Sampler(Generic[T]):
    """Keeps ``count`` items, spread evenly over groups: of each group those that a hash of their ids puts first.

    The same items give the same sample, in whatever order they come, and a new one changes little.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._groups: defaultdict[str, list[tuple[float, str, T]]] = defaultdict(list)

    def offer(self, group: str, id: str, item: T) -> None:
        """Show one item to the sampler."""
        entries = self._groups[group]
        entries.append((drawn("sample", id), id, item))
        entries.sort(key=itemgetter(0, 1))
        del entries[self.count :]

    def drawn(self) -> list[T]:
        """The sample, group after group in the order of their names; a small group leaves its place to the others."""
        placed = [
            (place, group, item) for group, entries in self._groups.items() for place, (*_, item) in enumerate(entries)
        ]
        chosen = sorted(placed, key=itemgetter(0, 1))[: self.count]
        return [item for *_, item in sorted(chosen, key=itemgetter(1, 0))]


@dataclass
class Card:
    """One set's. Counts are of dialogues, unless a name says otherwise."""

    dialogues: int = 0
    origins: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (source, licence)."""
    names: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """What is counted -> by name; see :meth:`add`."""
    lengths: Counter[int] = field(default_factory=Counter)
    """By number of user turns."""
    images: int = 0
    answers: int = 0
    """None in a set of seeds."""
    well_formed: int = 0
    """Answers in the student's format."""
    unscored: int = 0
    """Answers without a verdict: they have no number."""
    scores: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """Axis -> turns by score, 1..10."""
    lowest: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """Axis -> dialogues whose turns were all scored, by the lowest."""
    kept: Sampler[Shown] = field(default_factory=lambda: Sampler(KEPT), compare=False)
    left_out: Sampler[Shown] = field(default_factory=lambda: Sampler(LEFT_OUT), compare=False)

    @property
    def kinds(self) -> Counter[str]:
        """Dialogues by kind."""
        return self.names["kind"]

    @property
    def licenses(self) -> Counter[str]:
        """Dialogues by licence."""
        found: Counter[str] = Counter()
        for (_, license), count in self.origins.items():
            found[license] += count
        return found

    def add(self, made: Made) -> None:
        """Count a dialogue of the set, and perhaps show it."""
        seed, facts, kind = made.seed, Facts.of(made.seed.facts), made.seed.kind.value
        self.kept.offer(kind, seed.id, Shown(made))
        self.dialogues += 1
        self.lengths[len(made.asked)] += 1
        self.images += sum(len(turn.images) for turn in made.asked)
        self._add_origin(seed.source, seed.license)
        self._add_name("kind", kind)
        self._add_name("category", facts.category or "-")
        self._add_name("strategy of the red team", facts.strategy)
        self._add_name("change of the image, on purpose", facts.perturbation.kind if facts.perturbation else "")
        self._add_turns(made.trajectory.turns if made.trajectory else ())

    def leave_out(self, shown: Shown) -> None:
        """Hear of a dialogue that a stage has left out."""
        self.left_out.offer(f"{shown.stage}: {shown.reason}", shown.made.seed.id, shown)

    def _add_origin(self, source: str, license: str) -> None:
        closed = " (non-commercial)" if non_commercial(license) else ""  # what follows from it is never cut off
        name = license if len(license) <= MAX_NAME_CHARS else _name(license) + closed
        _count(self.origins, (_name(source), name), (FURTHER, FURTHER + closed))

    def _add_turns(self, turns: tuple[Turn, ...]) -> None:
        scores = [turn.verdict.scores for turn in turns if isinstance(turn.verdict, Verdict)]
        self.answers += len(turns)
        self.unscored += len(turns) - len(scores)
        self.well_formed += sum(parse_answer(turn.answer).well_formed for turn in turns)
        for turn in turns:
            self._add_name("origin of a user turn", turn.origin.value)
        for axis in AXES if scores else ():
            levels = [getattr(score, axis) for score in scores]
            self.scores[axis].update(levels)
            self.lowest[axis].update([min(levels)] if len(levels) == len(turns) else [])

    def _add_name(self, what: str, name: str) -> None:
        if name:
            _count(self.names[what], _name(name), FURTHER)


def mean(counts: Counter[int]) -> float | None:
    """Mean of the counted numbers; ``None`` without any."""
    return sum(value * count for value, count in counts.items()) / counts.total() if counts else None


def _name(text: str) -> str:
    return text if len(text) <= MAX_NAME_CHARS else f"{text[:MAX_NAME_CHARS]} ..."


def _count(counts: Counter[K], name: K, further: K) -> None:
    """Count a name; one beyond the first ``MAX_NAMES`` goes to ``further``."""
    counts[name if name in counts or len(counts) < MAX_NAMES else further] += 1
