"""The figures of a card, against counting by hand over generated dialogues."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from steer_verl.answer import parse_answer
from steer_verl.data.cards import statistics
from steer_verl.data.cards.statistics import FURTHER, mean, quantile
from steer_verl.data.licences import use_of_set
from steer_verl.data.seed import Made
from steer_verl.rubric import AXES
from steer_verl.text import unmarked
from steer_verl.types import Turn
from tests.data.cards.samples import many, played, seed, seeds, statistics_of, verdict


def counted(items: Any) -> dict[Any, int]:
    """Counting with a plain dictionary."""
    found: dict[Any, int] = {}
    for item in items:
        found[item] = found.get(item, 0) + 1
    return found


def turns_of(made: Made) -> tuple[Turn, ...]:
    assert made.trajectory
    return made.trajectory.turns


@pytest.mark.parametrize("run", range(5))
def test_every_count_equals_a_count_by_hand(run: int) -> None:
    rows = list(many(60, run))
    stats = statistics_of(rows)
    turns, made = [turn for row in rows for turn in turns_of(row)], [row.seed for row in rows]
    assert stats.dialogues == 60
    assert dict(stats.lengths) == counted(len(turns_of(row)) for row in rows)
    assert dict(stats.kinds) == counted(s.kind.value for s in made)
    assert dict(stats.sources) == counted((s.source, s.license) for s in made)
    assert dict(stats.licenses) == counted(s.license for s in made)
    names = {
        "category": counted(s.facts["category"] or "-" for s in made),
        "strategy of the red team": counted(s.facts["strategy"] for s in made if "strategy" in s.facts),
        "change of the image, on purpose": counted(
            s.facts["perturbation"]["kind"] for s in made if "perturbation" in s.facts
        ),
        "origin of a user turn": counted(turn.origin.value for turn in turns),
    }
    assert stats.names == names
    assert dict(stats.images) == counted(sum(len(u.images) for u in s.turns) for s in made)
    assert dict(stats.asked_chars) == counted(len(unmarked(turn.user.text)) for turn in turns)
    assert dict(stats.answer_chars) == counted(len(turn.answer) for turn in turns)
    assert stats.well_formed == sum(parse_answer(turn.answer).well_formed for turn in turns)


@pytest.mark.parametrize("run", range(5))
def test_scores_equal_a_count_by_hand(run: int) -> None:
    dialogues = [row.trajectory for row in many(60, run, unscored=0.2) if row.trajectory]
    stats = statistics_of(many(60, run, unscored=0.2))
    assert sum(stats.unscored.values()) == sum(len(t.turns) - len(t.scored) for t in dialogues) > 0
    complete = [t for t in dialogues if len(t.scored) == len(t.turns)]
    assert 0 < len(complete) < len(dialogues)
    for axis in AXES:
        figures = stats.axes[axis]
        rows = [[getattr(v.scores, axis) for v in t.scored] for t in complete]
        assert dict(figures.turns) == counted(getattr(v.scores, axis) for t in dialogues for v in t.scored)
        assert dict(figures.lowest) == counted(map(min, rows))


def test_an_unscored_turn_is_no_number() -> None:
    """A dialogue with one has no lowest turn: it would be that of its other turns."""
    rng = random.Random(0)
    whole = played(seed("a", rng), rng)
    assert whole.trajectory
    *others, last = whole.trajectory.turns
    last = last.model_copy(update={"verdict": verdict(rng, unscored=1.0)})
    told = whole.trajectory.model_copy(update={"turns": (*others, last)})
    torn = whole.model_copy(update={"trajectory": told})
    before, after = (statistics_of([row]).axes["safety"] for row in (whole, torn))
    assert (before.lowest.total(), after.lowest.total()) == (1, 0)
    assert after.turns.total() == before.turns.total() - 1


def test_a_set_of_seeds_has_no_answers_and_no_scores() -> None:
    stats = statistics_of(seeds(20))
    assert stats.dialogues == 20 and stats.asked_chars.total() > 40
    assert not stats.answer_chars and "origin of a user turn" not in stats.names and not stats.unscored
    assert all(not figures.turns and not figures.lowest for figures in stats.axes.values())


def test_nothing_at_all() -> None:
    stats = statistics_of([])
    assert (stats.dialogues, mean(stats.lengths), quantile(stats.lengths, 0.5)) == (0, None, None)


@pytest.mark.parametrize("run", range(20))
def test_mean_and_quantile_are_those_of_the_list(run: int) -> None:
    rng = random.Random(run)
    numbers = sorted(rng.randrange(50) for _ in range(rng.randint(1, 40)))
    counts = Counter(numbers)
    assert mean(counts) == pytest.approx(sum(numbers) / len(numbers))
    for share in (0.05, 0.5, 0.95, 1.0):
        value = quantile(counts, share)
        assert value in numbers
        assert sum(n <= value for n in numbers) >= share * len(numbers) - 1e-9  # enough do not exceed it
        assert sum(n < value for n in numbers) < share * len(numbers)  # and no smaller one would do


def test_names_without_end_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MAX_NAMES", 3)
    rows = [_row(n, {"facts": {"category": f"c{n % 7}"}}) for n in range(70)]
    assert statistics_of(rows).names["category"] == Counter({"c0": 10, "c1": 10, "c2": 10, FURTHER: 40})
    (long,) = statistics_of([_row(1, {"facts": {"category": "x" * 10_000}})]).names["category"]
    assert len(long) < 200


def test_a_non_commercial_licence_is_never_lost_among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither beyond the names that are counted apart, nor behind the end of a name that is cut."""
    monkeypatch.setattr(statistics, "MAX_NAMES", 3)
    rows = [_row(n, {"license": "MIT", "source": f"s{n}"}) for n in range(9)]
    for license in ("CC-BY-NC-4.0", "x" * 500 + " non-commercial"):
        stats = statistics_of([*rows, _row(9, {"license": license})])
        assert use_of_set(stats.licenses) == "non-commercial"
    assert use_of_set(statistics_of(rows[:3]).licenses) == "commercial"


def _row(number: int, changes: dict[str, Any]) -> Made:
    row = seeds(1)[0]
    return row.model_copy(update={"seed": row.seed.model_copy(update={"id": str(number), **changes})})


def test_the_order_of_rows_means_nothing() -> None:
    rows = list(many(40))
    first, second = (statistics_of(random.Random(n).sample(rows, len(rows))) for n in (1, 2))
    assert first == second
