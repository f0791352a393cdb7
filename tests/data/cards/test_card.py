"""The two files of a card, written from rows, a manifest's counts and outcomes."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steer_verl.data.cards.account import read_account, total_usage
from steer_verl.data.cards.card import write_card
from steer_verl.data.cards.entry import Entry, entry_of
from steer_verl.data.cards.settings import CardSettings
from steer_verl.data.stage2.splits import SetName
from steer_verl.errors import DataError
from steer_verl.types import Usage
from steer_verl.work.manifest import StepAccount
from steer_verl.work.step import Kept, Outcome
from tests.data.cards.reading import Page, check
from tests.data.cards.samples import account, many, pictures, refused, seed


def entries(count: int) -> Iterator[Entry]:
    return (entry_of(trajectory, made) for made, trajectory in many(count))


def left_out(count: int = 12) -> list[tuple[str, Outcome]]:
    rng = random.Random(9)
    reasons = ("below_tau_safe", "below_tau_help", "malformed")
    return [("bootstrap", refused(seed(f"r-{n}", rng), rng, reasons[n % 3])) for n in range(count)]


def written(out: Path, rows: Any, **options: Any) -> tuple[str, str]:
    path = write_card(out, "STEER-SFT", rows, account(), pictures(out / "pictures"), name=SetName.SFT, **options)
    assert path == out / "card.html"
    return path.read_text(), (out / "card.md").read_text()


def test_the_page_shows_counts_samples_and_what_was_left_out(tmp_path: Path) -> None:
    text, markdown = written(tmp_path, entries(60), rejected=left_out(), prompts={"answer": "1f2e"})
    found = check(text)
    shown = [given["class"] for given in found.all("article")]
    assert (shown.count("dialogue"), shown.count("dialogue rejected")) == (14, 6)
    for name in ("benign", "obfuscated", "red team", "below_tau_safe", "below_tau_help", "malformed", "repeated_turn"):
        assert name in found.text
    for said in ("expert-model", "1f2e", "Non-commercial use only", "420"):
        assert said in found.text and said in markdown.replace("\\", "")
    assert len(text) < 600_000


def test_the_same_rows_in_any_order_give_the_same_card(tmp_path: Path) -> None:
    rows = list(entries(50))
    other = random.Random(1).sample(rows, len(rows))
    first = written(tmp_path / "a", rows, rejected=left_out())
    second = written(tmp_path / "b", other, rejected=list(reversed(left_out())))
    samples = [text[0].partition("Sampled dialogues</h2>")[2] for text in (first, second)]
    assert samples[0] == samples[1] and len(samples[0]) > 10_000


def test_kept_outcomes_are_not_shown_as_rejected(tmp_path: Path) -> None:
    outcomes = [("expand", Outcome(id="k", done=Kept(value={})))]
    assert "dialogue rejected" not in written(tmp_path, entries(3), rejected=outcomes)[0]


def test_a_set_of_seeds_and_an_empty_one(tmp_path: Path) -> None:
    seeds = [made for made, _ in many(20)]
    write_card(tmp_path / "rl", "STEER-RL", seeds, {}, pictures(tmp_path), name=SetName.RL)
    found = check((tmp_path / "rl" / "card.html").read_text())
    assert "How it came about" not in found.text and "Scores" not in found.text and "Supervised" in found.text
    write_card(tmp_path / "no", "Nothing", [], {}, tmp_path, name=SetName.BENCH)
    assert "The set is empty." in check((tmp_path / "no" / "card.html").read_text()).text


def test_no_dialogue_is_shown_when_none_is_asked_for(tmp_path: Path) -> None:
    text, _ = written(tmp_path, entries(9), rejected=left_out(), settings=CardSettings(kept=0, rejected=0))
    assert not Page(text).all("article")


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        written(tmp_path / str(count), entries(count))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(20)  # imports and caches
    small, large = peak(60), peak(480)
    assert large < small + 300_000


def test_a_manifests_own_records_do_as_well() -> None:
    usage = Usage(requests=5, prompt_tokens=70, cost=0.5)
    step = StepAccount(
        step="expand",
        entered=4,
        kept=2,
        rejected={"refusal": 1},
        undone=1,
        complete=False,
        usage=usage,
        seconds=1.5,
        agents={"generator": "m"},
        fingerprint={},
    )
    (found,) = read_account({"expand": step}).values()
    assert (found.given, found.kept, found.refused, found.undone) == (4, 2, 1, 1)
    assert (found.usage, found.agents) == (usage, {"generator": "m"})
    assert read_account({"expand": step.model_dump(mode="json", by_alias=True)})["expand"] == found


def test_an_account_of_another_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"account of step 'expand': in: .*; give in, kept"):
        read_account({"expand": {"kept": 3}})
    with pytest.raises(DataError, match="account of step 'expand'"):
        read_account({"expand": 3})
    steps = read_account(account())
    assert (steps["bootstrap"].refused, total_usage(steps).requests) == (8, 420)
    assert all(step.given == step.kept + step.refused + step.undone for step in steps.values())
