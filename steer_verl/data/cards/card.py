"""Writes a set's card: ``card.md`` and ``card.html``, from one pass over its dialogues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from steer_verl.data.cards import page, tables
from steer_verl.data.cards.about import ABOUT
from steer_verl.data.cards.account import StepCounts, read_account
from steer_verl.data.cards.dialogue import dialogue
from steer_verl.data.cards.entry import Entry, entry_of, rejected_entry
from steer_verl.data.cards.markdown import card_markdown
from steer_verl.data.cards.markup import Html, tag
from steer_verl.data.cards.sample import Sampler
from steer_verl.data.cards.settings import CardSettings
from steer_verl.data.cards.statistics import Statistics, statistics_of
from steer_verl.data.stage2.splits import SetName
from steer_verl.types import Seed, Trajectory
from steer_verl.work.plan import write_whole
from steer_verl.work.step import Outcome, Rejected

NO_SETTINGS = CardSettings()


def write_card(
    out: Path,
    title: str,
    rows: Iterable[Entry | Seed | Trajectory],
    account: Mapping[str, Any],
    pictures: Path,
    *,
    name: SetName,
    rejected: Iterable[tuple[str, Outcome]] = (),
    files: Mapping[str, str] | None = None,
    prompts: Mapping[str, str] | None = None,
    settings: CardSettings = NO_SETTINGS,
) -> Path:
    """Write ``out/card.md`` and ``out/card.html``. Memory does not grow with the number of rows.

    Args:
        out: folder of the card; it is made.
        title: the set's name, such as ``STEER-SFT``.
        rows: the set, read once. A played dialogue's licence comes with
            :func:`~steer_verl.data.cards.entry.entry_of` (trajectory, seed).
        account: step -> its counts, in the order of work (see :mod:`~steer_verl.data.cards.account`).
        pictures: folder that picture paths lie below.
        name: which of the three sets it is; its intended use follows from that.
        rejected: (step, outcome) of items left out, read once; only the sampled ones are looked into.
        files: split -> data file relative to ``out``, for the front matter.
        prompts: prompt -> digest.
        settings: sizes of the sample and what is folded.

    Returns:
        The path of the page.

    Raises:
        DataError: the account has not the manifest's form.
    """
    steps = read_account(account)
    sample: Sampler[Entry] = Sampler(settings.kept)
    stats = statistics_of(_shown_to(sample, rows))
    left_out = _sample_rejected(rejected, settings.rejected)
    sections = _tables(stats, steps, prompts or {})
    write_whole(out / "card.md", card_markdown(title, ABOUT[name], stats, sections, files or {}))
    parts = _page_sections(name, stats, steps, prompts or {})
    shown = [dialogue(entry, n, pictures, settings) for n, entry in enumerate([*sample.drawn(), *left_out], start=1)]
    parts["Sampled dialogues"] = _introduced(shown, len(left_out))
    target = out / "card.html"
    write_whole(target, f"<!doctype html>\n{page.page(title, ABOUT[name], stats, parts)}\n")
    return target


def _shown_to(sample: Sampler[Entry], rows: Iterable[Entry | Seed | Trajectory]) -> Iterator[Entry]:
    for row in rows:
        entry = entry_of(row)
        sample.offer(entry.kind.value if entry.kind else "", entry.id, entry)
        yield entry


def _sample_rejected(rejected: Iterable[tuple[str, Outcome]], count: int) -> list[Entry]:
    """Spread over steps and reasons, in the order of their names."""
    sample: Sampler[tuple[str, Outcome]] = Sampler(count)
    for step, outcome in rejected:
        if isinstance(outcome.done, Rejected):
            sample.offer((step, outcome.done.reason), outcome.id, (step, outcome))
    return [rejected_entry(step, outcome) for step, outcome in sample.drawn()]


def _tables(
    stats: Statistics, steps: Mapping[str, StepCounts], prompts: Mapping[str, str]
) -> dict[str, list[tables.Table]]:
    """Heading -> tables of the Markdown card."""
    unscored = tables.by_name("Unscored turns", "reason", stats.unscored)
    return {
        "In short": [tables.overview(stats, steps)],
        "Composition": tables.composition(stats),
        "Sources and licences": [tables.origins(stats)],
        "Scores": [tables.scores(stats), unscored],
        "Texts": [tables.lengths_of_text(stats)],
        "How it came about": [
            tables.steps_table(steps),
            tables.reasons(steps),
            tables.agents(steps),
            tables.usage(steps),
            tables.prompts_table(prompts),
        ],
    }


def _page_sections(
    name: SetName, stats: Statistics, steps: Mapping[str, StepCounts], prompts: Mapping[str, str]
) -> dict[str, list[Html]]:
    """Heading -> contents of the page, the sampled dialogues aside."""
    return {
        "In short": [page.tiles(tables.overview(stats, steps))],
        "Composition": page.composition(stats) if stats.dialogues else [],
        "Sources and licences": [page.table_html(tables.origins(stats))] if stats.dialogues else [],
        "Scores": page.scores(stats),
        "Texts": page.texts(stats),
        "How it came about": page.work(steps, prompts),
        "Use and limits": page.about_html(ABOUT[name], stats),
    }


def _introduced(shown: list[Html], left_out: int) -> list[Html]:
    if not shown:
        return []
    kept = len(shown) - left_out
    said = f"{kept} dialogues of the set, drawn by a stable hash of their ids and spread over its kinds"
    said += f", and {left_out} items that were left out, spread over the reasons." if left_out else "."
    return [tag("p", said, " What may be harmful is folded away.", class_="quiet"), *shown]
