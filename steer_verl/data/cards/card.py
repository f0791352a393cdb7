"""The cards of a build: a page for every set, and one README for all of them, from figures counted as rows pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from steer_verl.data.cards.about import ABOUT, limits
from steer_verl.data.cards.dialogue import Shown, dialogue
from steer_verl.data.cards.figures import Account, figures, overview, work
from steer_verl.data.cards.markup import Html, tag
from steer_verl.data.cards.page import bullets, page, table_html, tiles
from steer_verl.data.cards.sample import Sampler
from steer_verl.data.cards.statistics import Statistics
from steer_verl.data.licences import consequence, use_of_set
from steer_verl.data.seed import Made, SetName

KEPT = 14
"""Dialogues of the set that the page shows, shared out among the kinds."""
LEFT_OUT = 6
"""... and those left out, shared out among stages and reasons."""


@dataclass
class Card:
    """What one set's card will say. Memory does not grow with the number of dialogues."""

    stats: Statistics = field(default_factory=Statistics)
    kept: Sampler[Shown] = field(default_factory=lambda: Sampler(KEPT))
    left_out: Sampler[Shown] = field(default_factory=lambda: Sampler(LEFT_OUT))

    def add(self, made: Made) -> None:
        """Count a dialogue of the set."""
        self.stats.add(made)
        self.kept.offer(made.seed.kind.value, made.seed.id, Shown(made))

    def leave_out(self, shown: Shown) -> None:
        """Hear of a dialogue that a stage has left out."""
        self.left_out.offer((shown.stage, shown.reason), shown.made.seed.id, shown)


def card_page(side: SetName, card: Card, account: Account, images: Path) -> str:
    """``card.html`` of a set.

    Args:
        side: the set.
        card: what was counted.
        account: step -> its counts, in the order of work.
        images: folder that the dialogues' image paths lie below.
    """
    about, stats = ABOUT[side], card.stats
    use = tag("p", tag("strong", "Licence. "), consequence(stats.licenses), class_=f"use {use_of_set(stats.licenses)}")
    tables = {**figures(stats), **work(account)}
    sections: Mapping[str, list[Html]] = {
        "In short": [tiles(overview(stats))],
        **{heading: [table_html(table) for table in found] for heading, found in tables.items()},
        "Use and limits": [
            bullets("Intended", about.intended),
            bullets("Not intended", about.not_intended),
            bullets("Limits", limits(stats)),
        ],
        "Sampled dialogues": _sampled(card, images),
    }
    return page(about.title, [tag("p", about.summary, class_="lead"), use], sections)


def _sampled(card: Card, images: Path) -> list[Html]:
    kept, left_out = card.kept.drawn(), card.left_out.drawn()
    said = f"{len(kept)} dialogues of the set, drawn by a stable hash of their ids and spread over its kinds"
    said += f", and {len(left_out)} that were left out, spread over the reasons." if left_out else "."
    shown = [dialogue(each, number, images) for number, each in enumerate([*kept, *left_out], start=1)]
    return [tag("p", said, " What may be harmful is folded away.", class_="quiet"), *shown] if shown else []
