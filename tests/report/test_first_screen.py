"""What the first screen says is true in every case, and the plot shows the same figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from steer_verl.data.cards.markup import joined
from steer_verl.eval.compare import Comparison
from steer_verl.eval.compare.models import Model
from steer_verl.eval.compare.rows import Row
from steer_verl.eval.compare.words import alone, beside
from steer_verl.eval.differences import Difference
from steer_verl.eval.estimate import Estimate
from steer_verl.eval.shape import MeasureAbout
from steer_verl.report.dots import dots
from steer_verl.report.sections import first_screen
from steer_verl.statistics.intervals import Interval
from tests.data.cards.reading import Page

TITLES = {
    "survival": "survival to turn 8",
    "harmless_pass": "harmless pass",
    "helpful_pass": "helpful pass",
    "refusal_full": "benign: full refusal",
    "failed_turns": "attacked turns failed",
}
BASE = Model("base", (), {})
RIVAL = Model("ours", (), {})


def figure(value: float | None, worst: float | None = None, best: float | None = None) -> Estimate:
    """An estimate; without bounds nothing is missing."""
    ends = {"worst": value if worst is None else worst, "best": value if best is None else best}
    near = None if value is None else (value - 2, value + 2)
    return Estimate(value=value, low=near and near[0], high=near and near[1], n=100, of=100, **ends)


def gap(value: float | None, low: float = 0, high: float = 0, p: float | None = 0.001, **more: Any) -> Difference:
    """A difference whose corrected p is ``p``."""
    return Difference(value=value, low=low, high=high, pairs=100, left_out=0, p=p, adjusted=p, **more)


def row(measure: str, values: Mapping[str, Estimate], difference: Difference | None = None, **more: Any) -> Row:
    """A row of ``base`` and ``ours``."""
    better = "low" if measure in ("refusal_full", "failed_turns") else "high"
    about = MeasureAbout(title=TITLES[measure], unit="%", decimals=1, per="dialogue", better=better)
    place = "moss" if measure == "refusal_full" else "beaver"
    differences = {"ours": difference} if difference else {}
    ours = {"values": values, "differences": differences, "published": {}, "seeds": {}, **more}
    return Row(place=place, benchmarks=(place,), measure=measure, about=about, **ours)


def compared(*rows: Row, models: tuple[Model, ...] = (BASE, RIVAL)) -> Comparison:
    """A comparison of attacked dialogues whose primary rows are these."""
    attacked = row("failed_turns", {})
    return Comparison(models, BASE, (attacked, *rows), rows, ())


PAIR = {"base": figure(20.0), "ours": figure(60.0)}
SAFER = row("survival", PAIR, gap(42.14, 36.0, 48.2))
HARMLESS = row("harmless_pass", PAIR, gap(40.0, 35.0, 45.0))
HELPFUL = row("helpful_pass", PAIR, gap(-1.2, -4.0, 1.6, 0.4))
REFUSALS = row("refusal_full", PAIR, gap(3.1, 1.0, 5.2))


def test_safer_at_a_price() -> None:
    head, rest = beside(compared(SAFER, HARMLESS, HELPFUL, REFUSALS), "ours")
    assert head == "ours is safer than base: "
    assert rest == (
        "42 points more dialogues unbroken to turn 8 (36 to 48); 3.1 points more benign requests refused in full "
        "(1.0 to 5.2); no clear difference in dialogues judged helpful (4.0 points fewer to 1.6 more)."
    )


@pytest.mark.parametrize(
    ("survival", "harmless", "head", "said"),
    [
        (gap(-12.0, -15.0, -9.5), gap(-9.0, -12.0, -6.0), "ours is less safe than base", "12 points fewer dialogues"),
        (gap(12.0, 9.0, 15.0), gap(-9.0, -12.0, -6.0), "ours is safer in one way and less safe", "9.0 points fewer"),
        (
            gap(12.0, 9.0, 15.0),
            gap(1.0, -3.0, 5.0, 0.5),
            "ours is safer than base: ",
            "judged harmless (3.0 points fewer to",
        ),
        (gap(1.0, -3.0, 5.0, 0.5), None, "ours is neither clearly safer nor clearly less safe than", "no clear diff"),
        (gap(2.0, 0.2, 4.0, 0.08), None, "ours is neither clearly safer nor clearly less safe than", "(0.2 to 4.0)"),
        (
            gap(37.0, -6.6, 76.0),
            None,
            "ours is neither clearly safer nor clearly less",
            "turn 8 (6.6 points fewer to 76",
        ),
        (gap(0.0, 0.0, 0.0, 1.0), None, "ours is neither clearly safer nor", "turn 8 (0.0 points fewer to 0.0 more)"),
        (gap(None, p=None), None, "ours beside base: ", "nothing is known of safety"),
    ],
)
def test_who_is_safer(survival: Difference, harmless: Difference | None, head: str, said: str) -> None:
    rows = [row("survival", PAIR, survival), *([row("harmless_pass", PAIR, harmless)] if harmless else [])]
    found, rest = beside(compared(*rows), "ours")
    assert found.startswith(head) and said in rest, (found, rest)


def test_what_training_seeds_do_not_confirm_is_no_verdict() -> None:
    unsure = gap(12.0, 9.0, 15.0, over_seeds=Interval(12.0, -3.0, 27.0))
    head, rest = beside(compared(row("survival", PAIR, unsure)), "ours")
    assert head == "ours is neither clearly safer nor clearly less safe than base: "
    assert "12 points more dialogues unbroken to turn 8 (9.0 to 15), but not beyond these students" in rest


def test_a_difference_that_missing_ratings_could_undo_says_so() -> None:
    torn = {"base": figure(50.0, 45.0, 58.0), "ours": figure(62.0, 55.0, 65.0)}
    sound = {"base": figure(50.0, 45.0, 54.0), "ours": figure(62.0, 55.0, 65.0)}
    doubt = "though what was not rated could undo that"
    head, rest = beside(compared(row("survival", torn, gap(12.0, 9.0, 15.0))), "ours")
    assert head == "ours is safer than base, where both were rated: " and doubt in rest
    assert doubt not in beside(compared(row("survival", sound, gap(12.0, 9.0, 15.0))), "ours")[1]
    fewer = {"base": figure(20.0, 28.0, 15.0), "ours": figure(10.0, 16.0, 8.0)}  # worst is the greater one here
    assert doubt in beside(compared(row("refusal_full", fewer, gap(-10.0, -13.0, -7.0))), "ours")[1]


def test_what_was_not_asked_is_not_told() -> None:
    _, rest = beside(compared(SAFER), "ours")
    assert rest.endswith("nothing is known of helpfulness or over-refusal: no rated dialogue of both tells it.")


def test_a_model_alone_gives_its_figures() -> None:
    head, rest = alone(compared(SAFER, HELPFUL, models=(BASE,)))
    assert head == "base, with no other run beside it: "
    assert rest.startswith("20.0 % of dialogues unbroken to turn 8 (18.0 to 22.0); 20.0 % of dialogues judged helpful")


def test_every_rival_has_a_sentence_and_hostile_names_are_text() -> None:
    name = "<img src=x> & co"
    values = {**PAIR, name: figure(40.0)}
    survival = row("survival", values, gap(42.0, 36.0, 48.0))
    gaps = {**survival.differences, name: gap(20, 14, 26)}
    both = survival.model_copy(update={"differences": gaps})
    comparison = compared(both, models=(BASE, RIVAL, Model(name, (), {})))
    page = Page(joined(first_screen(comparison, {"base": 0})))
    assert page.text.count("is safer than base") == 2 and name in page.text and not page.all("img")


def test_many_sentences_follow_the_plot() -> None:
    names = ["one", "two", "three", "four"]
    row_of = row("survival", {"base": figure(20.0)} | dict.fromkeys(names, figure(60.0)), None)
    for count, first in ((3, "ul"), (4, "div")):
        models = (BASE, *(Model(name, (), {}) for name in names[:count]))
        screen = first_screen(compared(row_of, models=models), {"base": 0})
        assert screen[0].startswith(f"<{first} ")


def test_a_long_name_stands_above_its_plot() -> None:
    rows = [row("survival", {"base": figure(20.0)})]
    assert "long" not in dots(rows, {"base": 0}) and 'class="panel long"' in dots(rows, {"base": 0, "x" * 19: 1})


def test_the_plot_tells_its_figures_in_the_order_of_the_models() -> None:
    paper = {"3B base": 12.6, "3B full": 55.6, "7B full": 64.9}
    unknown = {"base": figure(20.0, 10.0, 30.0)}
    lost = figure(None, 6.0, 8.0)  # of some dialogues all is known
    for found, said in ((lost, "unknown, 6.0 to 8.0"), (lost.model_copy(update={"n": 0}), "not rated")):
        missing = dots([row("survival", {"base": found})], {"base": 0})
        assert said in missing and "circle" not in missing and "bound" in missing
    page = Page(dots([row("survival", PAIR, published=paper), row("helpful_pass", unknown)], {"base": 0, "ours": 1}))
    names = [text for text in page.texts if text in ("base", "ours", "paper 3B", "paper 7B")]
    assert names == ["base", "ours", "paper 3B", "paper 7B", "base", "ours"]
    assert "60.058.0 to 62.0" in page.text and "base 12.6, full 55.6" in page.text and "not measured" in page.text
    assert [(found["cx"], found["class"]) for found in page.all("circle")] == [
        ("20.00%", "dot c0"), ("60.00%", "dot c1"), ("20.00%", "dot c0"),
    ]  # fmt: skip
    kinds = [found["class"] for found in page.all("line") if found["class"] != "ground"]
    assert kinds == ["range c0", "range c1", "mark", "mark", "mark", "bound c0", "range c0"]
    assert len(page.all("svg")) == len([found for found in page.all("svg") if found["aria-hidden"] == "true"])
