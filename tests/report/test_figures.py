"""The tables and curves say what the comparison and the summaries say, no more and no less."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steer_verl.data.cards.markup import joined
from steer_verl.eval.compare import Comparison, compare
from steer_verl.eval.runs import EvalRun, read_run, write_run
from steer_verl.eval.shape import Summary
from steer_verl.eval.summary import summarize
from steer_verl.report.account import account_section, refusal_section
from steer_verl.report.heat import heat_section, strategy_section
from steer_verl.report.measures import measures_section, measures_table
from steer_verl.report.survival import survival_section
from steer_verl.report.write import labelled
from tests.data.cards.reading import Page
from tests.report import samples


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[EvalRun]:
    """Two runs of static questions."""
    folder = tmp_path_factory.mktemp("figures")
    found = []
    for name, skill in (("base", 0.4), ("ours", 0.95)):
        read = read_run(samples.run(folder / name, name, 60, skill=skill, turns=3, words=4))
        found.append(write_run(folder / name, read.about.model_copy(update={"attack": "static"}), read.dialogues))
    return found


@pytest.fixture(scope="module")
def comparison(runs: list[EvalRun]) -> Comparison:
    """Of the two."""
    return compare(runs)


@pytest.fixture(scope="module")
def summaries(runs: list[EvalRun]) -> list[Summary]:
    """Of each."""
    return [summarize(run) for run in runs]


def places(comparison: Comparison) -> list[str]:
    """All places of its rows."""
    return list(dict.fromkeys(row.place for row in comparison.rows))


def test_every_figure_of_the_comparison_is_on_the_page(comparison: Comparison) -> None:
    page = Page(joined(measures_section(comparison)))
    text = page.text + " ".join(page.folded)
    for row in comparison.rows:
        if row.measure not in ("harmless_pass", "failed_turns", "safety_min"):
            continue
        for estimate in row.values.values():
            assert estimate.number(row.about.decimals) in text and f"n {estimate.n}" in text
        for gap in row.differences.values():
            assert f"Δ {gap.value:+.{row.about.decimals}f} [" in text
            assert gap.p is None or f"{gap.p:.3f}" in text or (gap.p < 0.001 and "< 0.001" in text)


def test_published_figures_stand_beside_static_questions_alone(comparison: Comparison, runs: list[EvalRun]) -> None:
    assert "69.03" in "".join(Page(joined(measures_section(comparison))).folded)
    assert "paper, 3B full" in measures_table("t", ["harmless_pass"], places(comparison), comparison)
    adaptive = [EvalRun(run.folder, run.about.model_copy(update={"attack": "adaptive"}), run.dialogues) for run in runs]
    page = Page(joined(measures_section(compare(adaptive))))
    assert "69.03" not in "".join([*page.texts, *page.folded])


def test_a_clear_difference_is_bold_and_an_average_comes_first(comparison: Comparison) -> None:
    table = Page(measures_table("t", ["harmless_pass"], places(comparison), comparison))
    assert any(found.get("class") == "clear" for found in table.all("small"))
    shown = Page(joined(measures_section(comparison)))
    assert "mean of dialogues" in shown.text and "paper, 3B full" in shown.text
    assert any(text == "beaver" for text in shown.folded), "benchmarks one by one are folded"


def test_measures_that_do_not_occur_have_no_table(comparison: Comparison) -> None:
    assert measures_table("t", ["no_such_measure"], places(comparison), comparison) == ""


def test_the_papers_curves_stand_beside_whole_dialogues_alone(runs: list[EvalRun]) -> None:
    def drawn(*odd: str) -> bool:
        summaries = []
        for run in runs:
            dialogues = tuple(d.model_copy(update={"oddities": odd}) for d in run.dialogues)
            summaries.append(summarize(EvalRun(run.folder, run.about, dialogues)))
        return "read off its figure" in "".join(map(str, survival_section(summaries)))

    assert drawn() and not drawn("shortened")


def test_curves_read_as_the_summary_says(summaries: list[Summary]) -> None:
    page = Page(joined(survival_section(summaries)))
    sliders = [found for found in page.all("div") if found.get("role") == "slider"]
    assert len(sliders) == 6, "all dialogues and five attacked benchmarks"
    curve = summaries[0].all.survival
    assert curve is not None
    said = f"base: S {curve.survival[2]:.2f} ({curve.low[2]:.2f} to {curve.high[2]:.2f})"
    assert said in (sliders[0]["data-points"] or "")
    assert f"{curve.at_risk[2]} at risk" in (sliders[0]["data-points"] or "")


def test_runs_of_other_benchmarks_have_no_curve_in_common(summaries: list[Summary]) -> None:
    one, other = summaries
    fewer = other.model_copy(update={"benchmarks": {name: other.benchmarks[name] for name in ("beaver", "dys")}})
    page = Page(joined(survival_section([one, fewer])))
    titles = [given["aria-label"] for given in page.all("div") if given.get("role") == "slider"]
    assert len(titles) == 5 and not any((title or "").startswith("all dialogues") for title in titles)


def test_a_curve_ends_where_nobody_is_at_risk(summaries: list[Summary]) -> None:
    known = summaries[0].all.survival
    assert known is not None
    start, end = [1.0] * (known.horizon + 1), known.at_risk[0]
    unrated = known.model_copy(update={"survival": start, "at_risk": [end, *[0] * known.horizon]})
    failed = unrated.model_copy(update={"survival": [1.0, *[0.0] * known.horizon]})
    for curve, turns in ((unrated, [0]), (failed, range(known.reach + 1)), (known, range(known.reach + 1))):
        subset = summaries[1].all.model_copy(update={"survival": curve})
        shown = summaries[1].model_copy(update={"all": subset, "benchmarks": {"a": subset}})
        (plot,) = (s for s in Page(joined(survival_section([shown]))).all("div") if s.get("role") == "slider")
        assert [at for at, (_, said) in enumerate(json.loads(plot["data-points"] or "")) if "ours: S" in said] == [
            *turns
        ]


def test_heat_maps_count_every_planned_turn(summaries: list[Summary]) -> None:
    page = Page(joined(heat_section(summaries)))
    assert len(page.all("table")) == 2 * 7, "two runs: all dialogues, and each of six benchmarks"
    row = summaries[0].all.heat.harmless[0]
    assert sum(row) == 60 and all(str(count) in page.text for count in row)


def test_attack_success_by_strategy_and_turn(summaries: list[Summary]) -> None:
    text = Page(joined(strategy_section(summaries))).text
    strategy = summaries[0].all.strategies["deepen"]
    rated, failed = strategy.by_turn[1]
    assert f"{failed}/{rated}" in text and f"{strategy.success.value:.1f}" in text


def test_everything_missing_is_counted(summaries: list[Summary]) -> None:
    text = Page(joined([*account_section(summaries), *refusal_section(summaries)])).text
    for summary in summaries:
        for counts in (summary.all.unrated, summary.all.ends, summary.all.oddities):
            for name, count in counts.items():
                assert name.replace("_", " ") in text and str(count) in text


def test_names_that_occur_twice_are_told_apart(runs: list[EvalRun], tmp_path: Path) -> None:
    again = EvalRun(tmp_path, runs[0].about, runs[0].dialogues)
    names = [run.name for run in labelled([*runs, again])]
    assert names == [f"base ({runs[0].folder})", "ours", f"base ({tmp_path})"]
