"""What stands above the dialogues: heading -> its parts, from the figures of steer_verl/eval and from training logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steer_verl.data.cards.markup import Html, tag
from steer_verl.eval.compare import Comparison, compare
from steer_verl.eval.compare.words import sentences
from steer_verl.eval.runs import EvalRun
from steer_verl.eval.summary import summarize
from steer_verl.report.account import about_section, account_section, refusal_section
from steer_verl.report.curves import training_section
from steer_verl.report.dots import dots
from steer_verl.report.heat import heat_section, strategy_section
from steer_verl.report.measures import measures_section
from steer_verl.report.survival import survival_section
from steer_verl.report.training import Training

MOST_SAID = 3
"""Sentences that leave room for the plot on the first screen; more of them follow it."""


def sections(runs: Sequence[EvalRun], shown: Sequence[EvalRun], logs: Sequence[Training]) -> dict[str, list[Html]]:
    """The page's sections in their order, the browser of dialogues aside; without runs only the training's.

    Args:
        runs: as they were read.
        shown: the same, as :func:`~steer_verl.report.write.labelled` has them.
        logs: of trainings.
    """
    training = {"Training": training_section(logs)}
    if not runs:
        return training
    comparison, summaries = compare(runs), [summarize(run) for run in shown]
    places = [id(run) for run in runs]
    colours = {model.name: places.index(id(model.runs[0])) for model in comparison.models}
    return {
        "Results": first_screen(comparison, colours),
        "Survival": survival_section(summaries),
        "Measures": measures_section(comparison),
        "Marks by turn": heat_section(summaries),
        "Strategies": strategy_section(summaries),
        "Over-refusal": refusal_section(summaries),
        **training,
        "Account": account_section(summaries),
        "The runs": about_section(summaries),
    }


def first_screen(comparison: Comparison, colours: Mapping[str, int]) -> list[Html]:
    """Who is safer, by how much, and at what price: in words and as a plot; folded, what to bear in mind.

    Args:
        comparison: of all runs.
        colours: model, in their order -> number of its colour all over the page.
    """
    said = [tag("li", tag("strong", head, dir="auto"), rest) for head, rest in sentences(comparison)]
    notes = tag("ul", *(tag("li", note, dir="auto") for note in comparison.notes), class_="prose quiet")
    folded = tag("details", tag("summary", "How this was computed, and what to bear in mind"), notes)
    shown = [tag("ul", *said, class_="verdicts"), dots(comparison.primary, colours)]
    return [*(shown if len(said) <= MOST_SAID else reversed(shown)), folded]
