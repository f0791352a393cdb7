"""The sample of a card: stable, spread over the groups, and small."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from steer_verl.data.cards.card import Sampler

Items = list[tuple[str, str]]


def drawn(items: Items, count: int = 8) -> list[tuple[str, str]]:
    sampler: Sampler[tuple[str, str]] = Sampler(count)
    for item in items:
        sampler.offer(*item, item)
    return sampler.drawn()


def items(count: int, groups: str = "abc") -> Items:
    rng = random.Random(count)
    return [(rng.choice(groups), f"id-{n}") for n in range(count)]


def test_the_order_of_the_rows_means_nothing() -> None:
    rows = items(200)
    for run in range(5):
        assert drawn(random.Random(run).sample(rows, len(rows))) == drawn(rows)


def test_every_group_has_its_part() -> None:
    rows = [("many", f"m{n}") for n in range(500)] + [("few", "f0"), ("few", "f1"), ("some", "s0")]
    assert Counter(group for group, _ in drawn(rows)) == {"many": 5, "few": 2, "some": 1}


def test_one_more_row_changes_one_place_at_most() -> None:
    rows = items(100)
    before = set(drawn(rows))
    for n in range(50):
        after = set(drawn([*rows, ("a", f"new-{n}")]))
        assert len(after - before) <= 1


@pytest.mark.parametrize(("count", "rows", "found"), [(0, 10, 0), (8, 0, 0), (8, 3, 3), (2, 50, 2), (8, 8, 8)])
def test_never_more_than_asked_for_and_never_less_than_there_is(count: int, rows: int, found: int) -> None:
    assert len(drawn(items(rows), count)) == found


def test_no_row_is_drawn_twice_and_a_doubled_id_is_no_failure() -> None:
    rows = items(100)
    assert len(set(drawn(rows))) == len(drawn(rows))
    assert len(drawn([("a", "same")] * 20)) == 8


def test_it_holds_no_more_than_its_sample_of_each_group() -> None:
    sampler: Sampler[int] = Sampler(4)
    for n in range(1000):
        sampler.offer(str(n % 3), str(n), n)
    assert sum(map(len, sampler._groups.values())) == 12
