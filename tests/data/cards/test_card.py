"""The cards of a build, as assembly writes them."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path
from typing import Any

from steer_verl.data.cards import card as cards
from steer_verl.data.cards.card import Card, Shown
from steer_verl.data.cards.card_page import card_page
from steer_verl.data.seed import Made, SetName
from steer_verl.data.sets.settings import SetSettings
from steer_verl.work.step import Outcome, Rejected, value_of
from tests.data.cards.reading import Page, check
from tests.data.cards.samples import account, images, many, played, seed, seeds
from tests.data.sets.samples import put_together
from tests.data.sets.samples import seed as plain_seed


def rejected(count: int = 12) -> list[Made]:
    rng = random.Random(9)
    return [played(seed(f"r-{n}", rng), rng) for n in range(count)]


def written(folder: Path, rows: Any, left_out: Any = (), side: SetName = SetName.SFT, steps: Any = None) -> str:
    card = Card()
    for made in rows:
        card.add(made)
    reasons = ("unsafe", "unhelpful", "malformed")
    for made in left_out:
        card.leave_out(Shown(made, "bootstrap", reasons[int(made.seed.id[2:]) % 3]))
    return card_page(side, card, account() if steps is None else steps, images(folder))


def test_the_page_shows_counts_samples_and_what_was_left_out(tmp_path: Path) -> None:
    text = written(tmp_path, many(60), rejected())
    found = check(text)
    shown = [given["class"] for given in found.all("article")]
    assert (shown.count("dialogue"), shown.count("dialogue rejected")) == (14, 6)
    for name in ("benign", "obfuscated", "red team", "unsafe", "unhelpful", "malformed", "near_duplicate"):
        assert name in found.text
    for said in ("expert-model", "1f2e", "Non-commercial use only", "420"):
        assert said in found.text
    assert len(text) < 600_000


def test_the_same_rows_in_any_order_give_the_same_sample(tmp_path: Path) -> None:
    rows = list(many(50))
    other = random.Random(1).sample(rows, len(rows))
    first, second = written(tmp_path, rows, rejected()), written(tmp_path, other, reversed(rejected()))
    samples = [text.partition("Sampled dialogues</h2>")[2] for text in (first, second)]
    assert samples[0] == samples[1] and len(samples[0]) > 10_000


def test_a_set_of_seeds_and_an_empty_one(tmp_path: Path) -> None:
    found = check(written(tmp_path, seeds(20), side=SetName.RL, steps={}))
    assert "How it came about" not in found.text and "Scores" not in found.text and "Supervised" in found.text
    assert "The set is empty." in check(written(tmp_path, [], side=SetName.BENCH, steps={})).text


def test_no_dialogue_is_shown_when_none_is_asked_for(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(cards, "KEPT", 0)
    monkeypatch.setattr(cards, "LEFT_OUT", 0)
    assert not Page(written(tmp_path, many(9), rejected())).all("article")


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        written(tmp_path, many(count))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(20)  # imports and caches
    small, large = peak(60), peak(480)
    assert large < small + 300_000


def test_a_builds_cards_tell_of_rejected_and_left_out_dialogues_of_their_side(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rng = random.Random(4)
    broken = played(seed("r", rng, turns=plain_seed("x").turns), rng)
    done = Rejected(stage="bootstrap", reason="unsafe", detail="turn 2: safety 4", value=value_of(broken))
    early = [Rejected(stage="probe", reason="refused", value=value) for value in (None, {"tried": 3})]
    others = [Outcome(id=f"o{n}", done=each) for n, each in enumerate([done, *early])]
    rows = {side: [plain_seed(f"s:{side}{n}/red_team") for n in range(3)] for side in ("sft", "rl")}
    rows["sft"] += rows["rl"]
    put_together(tmp_path / "images", **rows, others=others, account=account(), settings=SetSettings(rl=2))
    sft, rl = (check((tmp_path / "out" / "cards" / side / "card.html").read_text()) for side in ("sft", "rl"))
    assert "left out in bootstrap: unsafe" in sft.text and "turn 2: safety 4" in sft.text
    assert "left out in sets: same_seed" in sft.text and "left out in bootstrap" not in rl.text
    assert "over_target" in rl.text and "over_target" not in sft.text
    readme = (tmp_path / "out" / "sets" / "README.md").read_text().replace("\\", "")
    assert "| rl set | over_target | 1 |" in readme and "| rl set | 3 | 2 | 1 | 0 |" in readme
    assert not (tmp_path / "out" / "cards" / "bench").exists()
