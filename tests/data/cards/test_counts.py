"""The figures of a card, against counting by hand over generated dialogues."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from steer_verl.answer import parse_answer
from steer_verl.data.cards import card as cards
from steer_verl.data.cards.card import FURTHER, mean
from steer_verl.data.cards.figures import figures, overview
from steer_verl.data.licences import use_of_set
from steer_verl.data.seed import Made
from steer_verl.rubric import AXES
from steer_verl.types import Turn
from tests.data.cards.samples import card_of, many, played, seed, seeds, verdict


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
    card = card_of(rows)
    turns, made = [turn for row in rows for turn in turns_of(row)], [row.seed for row in rows]
    assert card.dialogues == 60
    assert dict(card.lengths) == counted(len(turns_of(row)) for row in rows)
    assert dict(card.kinds) == counted(s.kind.value for s in made)
    assert dict(card.origins) == counted((s.source, s.license) for s in made)
    assert dict(card.licenses) == counted(s.license for s in made)
    names = {
        "kind": counted(s.kind.value for s in made),
        "category": counted(s.facts["category"] or "-" for s in made),
        "strategy of the red team": counted(s.facts["strategy"] for s in made if "strategy" in s.facts),
        "change of the image, on purpose": counted(
            s.facts["perturbation"]["kind"] for s in made if "perturbation" in s.facts
        ),
        "origin of a user turn": counted(turn.origin.value for turn in turns),
    }
    assert card.names == names
    assert card.images == sum(len(turn.images) for s in made for turn in s.turns)
    assert card.answers == len(turns)
    assert card.well_formed == sum(parse_answer(turn.answer).well_formed for turn in turns)


@pytest.mark.parametrize("run", range(5))
def test_scores_equal_a_count_by_hand(run: int) -> None:
    dialogues = [row.trajectory for row in many(60, run, unscored=0.2) if row.trajectory]
    card = card_of(many(60, run, unscored=0.2))
    assert card.unscored == sum(len(t.turns) - len(t.scored) for t in dialogues) > 0
    complete = [t for t in dialogues if len(t.scored) == len(t.turns)]
    assert 0 < len(complete) < len(dialogues)
    for axis in AXES:
        rows = [[getattr(v.scores, axis) for v in t.scored] for t in complete]
        assert dict(card.scores[axis]) == counted(getattr(v.scores, axis) for t in dialogues for v in t.scored)
        assert dict(card.lowest[axis]) == counted(map(min, rows))


def test_an_unscored_turn_is_no_number() -> None:
    """A dialogue with one has no lowest turn: it would be that of its other turns."""
    rng = random.Random(0)
    whole = played(seed("a", rng), rng)
    assert whole.trajectory
    *others, last = whole.trajectory.turns
    last = last.model_copy(update={"verdict": verdict(rng, unscored=1.0)})
    told = whole.trajectory.model_copy(update={"turns": (*others, last)})
    torn = whole.model_copy(update={"trajectory": told})
    before, after = (card_of([row]) for row in (whole, torn))
    assert (before.lowest["safety"].total(), after.lowest["safety"].total()) == (1, 0)
    assert after.scores["safety"].total() == before.scores["safety"].total() - 1


def test_a_set_without_any_verdict_has_no_scores() -> None:
    card = card_of(many(5, unscored=1.0))
    assert dict(overview(card).rows)["unscored turns"] == card.answers > 0
    assert "Scores" not in figures(card)


def test_a_set_of_seeds_has_no_answers_and_no_scores() -> None:
    card = card_of(seeds(20))
    assert card.dialogues == 20 and sum(card.lengths.elements()) > 40
    assert not card.answers and "origin of a user turn" not in card.names and not card.unscored
    assert not card.scores and not card.lowest


def test_nothing_at_all() -> None:
    card = card_of([])
    assert (card.dialogues, mean(card.lengths)) == (0, None)


def test_the_mean_is_that_of_the_list() -> None:
    numbers = [random.Random(1).randrange(50) for _ in range(40)]
    assert mean(Counter(numbers)) == pytest.approx(sum(numbers) / len(numbers))


def test_names_without_end_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "MAX_NAMES", 3)
    rows = [_row(n, {"facts": {"category": f"c{n % 7}"}}) for n in range(70)]
    assert card_of(rows).names["category"] == Counter({"c0": 10, "c1": 10, "c2": 10, FURTHER: 40})
    (long,) = card_of([_row(1, {"facts": {"category": "x" * 10_000}})]).names["category"]
    assert len(long) < 200


def test_a_non_commercial_licence_is_never_lost_among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither beyond the names that are counted apart, nor behind the end of a name that is cut."""
    monkeypatch.setattr(cards, "MAX_NAMES", 3)
    rows = [_row(n, {"license": "MIT", "source": f"s{n}"}) for n in range(9)]
    for license in ("CC-BY-NC-4.0", "x" * 500 + " non-commercial"):
        card = card_of([*rows, _row(9, {"license": license})])
        assert use_of_set(card.licenses) == "non-commercial"
    assert use_of_set(card_of(rows[:3]).licenses) == "commercial"


def _row(number: int, changes: dict[str, Any]) -> Made:
    row = seeds(1)[0]
    return row.model_copy(update={"seed": row.seed.model_copy(update={"id": str(number), **changes})})


def test_the_order_of_rows_means_nothing() -> None:
    rows = list(many(40))
    first, second = (card_of(random.Random(n).sample(rows, len(rows))) for n in (1, 2))
    assert first == second
