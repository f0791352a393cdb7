"""The figures of a card, against counting by hand over generated dialogues."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from steer_verl.answer import parse_answer
from steer_verl.data.cards import statistics
from steer_verl.data.cards.entry import Entry, entry_of
from steer_verl.data.cards.statistics import AXES, FURTHER, by_doubling, mean, quantile, statistics_of
from steer_verl.types import IMAGE_MARK
from tests.data.cards.samples import many, played, seed, verdict


def counted(items: Any) -> dict[Any, int]:
    """Counting with a plain dictionary."""
    found: dict[Any, int] = {}
    for item in items:
        found[item] = found.get(item, 0) + 1
    return found


@pytest.mark.parametrize("run", range(5))
def test_every_count_equals_a_count_by_hand(run: int) -> None:
    pairs = list(many(60, run))
    stats = statistics_of(entry_of(t, s) for s, t in pairs)
    turns = [turn for _, t in pairs for turn in t.turns]
    assert stats.dialogues == 60
    assert dict(stats.lengths) == counted(len(t.turns) for _, t in pairs)
    assert dict(stats.kinds) == counted(s.kind.value for s, _ in pairs)
    assert dict(stats.sources) == counted((s.source, s.license) for s, _ in pairs)
    assert dict(stats.licenses) == counted(s.license for s, _ in pairs)
    assert dict(stats.categories) == counted(s.facts["category"] for s, _ in pairs)
    assert dict(stats.strategies) == counted(s.facts["strategy"] for s, _ in pairs if "strategy" in s.facts)
    assert dict(stats.perturbed) == counted(
        s.facts["perturbation"]["kind"] for s, _ in pairs if "perturbation" in s.facts
    )
    assert dict(stats.pictures) == counted(sum(len(u.images) for u in s.turns) for s, _ in pairs)
    assert dict(stats.origins) == counted(turn.origin.value for turn in turns)
    assert dict(stats.asked_chars) == counted(len(turn.user.text.replace(IMAGE_MARK, "")) for turn in turns)
    assert dict(stats.answer_chars) == counted(len(turn.answer) for turn in turns)
    assert stats.well_formed == sum(parse_answer(turn.answer).well_formed for turn in turns)
    assert (stats.user_turns, stats.answers) == (len(turns), len(turns))


@pytest.mark.parametrize("run", range(5))
def test_scores_equal_a_count_by_hand(run: int) -> None:
    dialogues = [t for _, t in many(60, run, unscored=0.2)]
    stats = statistics_of(map(entry_of, dialogues))
    assert sum(stats.unscored.values()) == sum(len(t.turns) - len(t.scored) for t in dialogues) > 0
    complete = [t for t in dialogues if len(t.scored) == len(t.turns)]
    assert 0 < len(complete) < len(dialogues)
    for axis in AXES:
        figures = stats.axes[axis]
        rows = [[getattr(v.scores, axis) for v in t.scored] for t in complete]
        assert dict(figures.turns) == counted(getattr(v.scores, axis) for t in dialogues for v in t.scored)
        assert dict(figures.lowest) == counted(map(min, rows))
        assert dict(figures.means) == counted(int(sum(row) / len(row) + 0.5) for row in rows)
        assert figures.mean_of_means == pytest.approx(sum(sum(row) / len(row) for row in rows) / len(rows))


def test_an_unscored_turn_is_no_number() -> None:
    """A dialogue with one has no lowest turn and no mean: they would be those of its other turns."""
    rng = random.Random(0)
    whole = played(seed("a", rng), rng)
    last = verdict(rng, unscored=1.0)
    torn = whole.model_copy(update={"turns": (*whole.turns[:-1], whole.turns[-1].model_copy(update={"verdict": last}))})
    before, after = (statistics_of([entry_of(t)]).axes["safety"] for t in (whole, torn))
    assert (before.dialogues, after.dialogues) == (1, 0)
    assert after.mean_of_means is None and sum(after.turns.values()) == sum(before.turns.values()) - 1


def test_a_set_of_seeds_has_no_answers_and_no_scores() -> None:
    rng = random.Random(3)
    stats = statistics_of(entry_of(seed(f"s{n}", rng)) for n in range(20))
    assert stats.dialogues == 20 and stats.user_turns > 40
    assert stats.answers == 0 and not stats.origins and not stats.unscored
    assert all(not figures.turns and figures.mean_of_means is None for figures in stats.axes.values())


def test_nothing_at_all() -> None:
    stats = statistics_of([])
    assert (stats.dialogues, stats.user_turns, mean(stats.lengths), quantile(stats.lengths, 0.5)) == (0, 0, None, None)
    assert by_doubling(stats.asked_chars) == {}


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


@pytest.mark.parametrize("run", range(20))
def test_bins_that_double_hold_every_length_once(run: int) -> None:
    rng = random.Random(run)
    numbers = [int(2 ** rng.uniform(0, 14)) - 1 for _ in range(rng.randint(1, 60))]
    bins = by_doubling(Counter(numbers))
    assert sum(bins.values()) == len(numbers)
    for (low, high), count in bins.items():
        assert count == sum(low <= n < high for n in numbers)
    edges = list(bins)
    assert all(left[1] == right[0] for left, right in pairwise(edges))
    assert bins[edges[0]] and bins[edges[-1]]


def test_names_without_end_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MAX_NAMES", 3)
    entries = [Entry(str(n), facts={"category": f"c{n % 7}"}) for n in range(70)]
    stats = statistics_of(entries)
    assert stats.categories == Counter({"c0": 10, "c1": 10, "c2": 10, FURTHER: 40})
    (long,) = statistics_of([Entry("1", facts={"category": "x" * 10_000})]).categories
    assert len(long) < 200


def test_the_order_of_rows_means_nothing() -> None:
    rows = [entry_of(t, s) for s, t in many(40)]
    first, second = (statistics_of(random.Random(n).sample(rows, len(rows))) for n in (1, 2))
    assert first.axes["safety"].mean_sum == pytest.approx(second.axes["safety"].mean_sum)
    assert (first.lengths, first.sources, first.axes["safety"].lowest) == (
        second.lengths,
        second.sources,
        second.axes["safety"].lowest,
    )
