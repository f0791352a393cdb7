"""``card.html``: a set's figures, what it may be used for, and sampled dialogues."""

from __future__ import annotations

from pathlib import Path

from steer_verl.data.cards.about import SUMMARIES, TITLES, use_and_limits
from steer_verl.data.cards.card import Card
from steer_verl.data.cards.dialogue import dialogue
from steer_verl.data.cards.figures import Account, figures, overview, work
from steer_verl.data.cards.markup import Html, tag
from steer_verl.data.cards.page import bullets, page, table_html, tiles
from steer_verl.data.licences import consequence, use_of_set
from steer_verl.data.seed import SetName


def card_page(side: SetName, card: Card, account: Account, images: Path) -> str:
    """The whole file; ``account`` in the order of work, ``images`` the folder that image paths lie below."""
    use = tag("p", tag("strong", "Licence. "), consequence(card.licenses), class_=f"use {use_of_set(card.licenses)}")
    tables = {**figures(card), **work(account)}
    sections = {
        "In short": [tiles(overview(card))],
        **{heading: [table_html(table) for table in found] for heading, found in tables.items()},
        "Use and limits": [bullets(heading, said) for heading, said in use_and_limits(side, card).items()],
        "Sampled dialogues": _sampled(card, images),
    }
    return page(TITLES[side], [tag("p", SUMMARIES[side], class_="lead"), use], sections)


def _sampled(card: Card, images: Path) -> list[Html]:
    kept, left_out = card.kept.drawn(), card.left_out.drawn()
    said = f"{len(kept)} dialogues of the set, drawn by a stable hash of their ids and spread over its kinds"
    said += f", and {len(left_out)} that were left out, spread over the reasons." if left_out else "."
    shown = [dialogue(each, number, images) for number, each in enumerate([*kept, *left_out], start=1)]
    return [tag("p", said, " What may be harmful is folded away.", class_="quiet"), *shown] if shown else []
