"""What stands above the dialogues: heading -> its parts, from the figures of steer_verl/eval and from training logs."""

from __future__ import annotations

from collections.abc import Sequence

from steer_verl.data.cards.markup import Html
from steer_verl.eval.compare import compare
from steer_verl.eval.runs import EvalRun
from steer_verl.eval.summary import summarize_run
from steer_verl.report.account import about_section, account_section, refusal_section
from steer_verl.report.curves import training_section
from steer_verl.report.headline import headline_section
from steer_verl.report.heat import heat_section, strategy_section
from steer_verl.report.labels import labelled
from steer_verl.report.survival import survival_section
from steer_verl.report.training import Training


def sections(runs: Sequence[EvalRun], trainings: Sequence[Training]) -> dict[str, list[Html]]:
    """The page's sections in their order, the browser of dialogues aside; without runs only the training's."""
    found = {"Training": training_section(trainings)}
    if not runs:
        return found
    comparison = compare(runs)
    summaries = [summarize_run(run) for run in labelled(runs)]
    return {
        "Results": headline_section(comparison),
        "Survival": survival_section(summaries, comparison),
        "Marks by turn": heat_section(summaries),
        "Strategies": strategy_section(summaries),
        "Over-refusal": refusal_section(summaries),
        **found,
        "Account": account_section(summaries),
        "The runs": about_section(summaries),
    }
