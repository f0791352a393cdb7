"""What a card reads out of records and out of what steps rejected."""

from __future__ import annotations

import random
from typing import Any

import pytest

from steer_verl.data.cards.entry import Entry, entry_of, rejected_entry
from steer_verl.data.sources.seed import SourceSeed
from steer_verl.data.stage2.bootstrap import BootstrapStep
from steer_verl.models.failure import AgentFailed
from steer_verl.types import DialogueKind, Unscored, UnscoredReason, UserTurn
from steer_verl.work.step import Kept, Outcome, Rejected, value_of
from tests.data.cards.samples import played, refused, seed
from tests.data.desks import MemoryDesk
from tests.data.stage2.scripted import Agents, verdict
from tests.data.stage2.scripted import seed as dialogue_seed


def outcome(value: dict[str, Any] | None) -> Outcome:
    return Outcome(id="x", done=Rejected(reason="refused", detail="why", value=value))


def test_a_seed_and_what_was_played_of_it() -> None:
    rng = random.Random(2)
    made = seed("a", rng, facts={"category": "tools", "known": "seed"})
    told = played(made, rng).model_copy(update={"facts": {"known": "played"}})
    of_seed, of_played, bare = entry_of(made), entry_of(told, made), entry_of(told)
    assert (of_seed.asked, of_seed.turns, of_seed.category) == (made.turns, (), "tools")
    assert (of_played.id, of_played.license, of_played.source_id) == ("a", made.license, "a")
    assert of_played.turns == told.turns and of_played.asked == tuple(t.user for t in told.turns)
    assert of_played.facts == {"category": "tools", "known": "played"}
    assert (bare.license, bare.category) == ("", "") and entry_of(bare) is bare


def test_pictures_are_counted_over_all_turns() -> None:
    turns = (UserTurn(text="<image><image>a", images=("a", "b")), UserTurn(text="<image>b", images=("c",)))
    assert Entry("x", asked=turns).pictures == 3


def test_a_rejected_dialogue_keeps_its_turns() -> None:
    rng = random.Random(4)
    made = seed("r", rng)
    found = rejected_entry("bootstrap", refused(made, rng, "below_tau_safe"))
    assert (found.step, found.reason, found.id, found.license) == ("bootstrap", "below_tau_safe", "r", made.license)
    assert found.asked == made.turns and len(found.turns) == len(made.turns)


def test_a_dialogue_that_was_broken_off_keeps_its_last_words() -> None:
    rng = random.Random(4)
    made = seed("r", rng)
    value = {"seed": value_of(made), "trajectory": value_of(played(made, rng).model_copy(update={"turns": ()}))}
    found = rejected_entry("bootstrap", outcome({**value, "unfinished": [{"role": "user", "text": "?", "images": []}]}))
    assert (found.turns, found.unfinished[0].text, found.kind) == ((), "?", made.kind)


def test_a_rejected_seed_single_question_or_wrapped_one() -> None:
    made = seed("s", random.Random(5))
    single = SourceSeed(
        id="q",
        question="What is <image>this?",
        image="a.png",
        category="tools",
        source="own",
        source_id="1",
        license="MIT",
    )
    assert rejected_entry("check", outcome(value_of(made))).asked == made.turns
    found = rejected_entry("expand", outcome(value_of(single)))
    assert (found.asked[0].images, found.category, found.license, found.kind) == (("a.png",), "tools", "MIT", None)
    assert rejected_entry("red_team", outcome({"seed": value_of(single), "tried": [1]})).asked == found.asked


@pytest.mark.parametrize(
    "value", [None, {}, {"seed": 3}, {"trajectory": {"turns": "no"}}, {"tried": ["teacher"]}, {"turns": []}]
)
def test_a_value_of_no_known_form_is_kept_as_facts(value: dict[str, Any] | None) -> None:
    found = rejected_entry("expand", outcome(value))
    assert (found.id, found.asked, found.detail) == ("x", (), "why") and found.facts == (value or {})


def test_a_kept_outcome_is_not_rejected() -> None:
    with pytest.raises(ValueError, match="x: kept"):
        rejected_entry("expand", Outcome(id="x", done=Kept(value={})))


def test_the_kind_survives_the_file() -> None:
    rng = random.Random(6)
    made = seed("k", rng, kind=DialogueKind.OBFUSCATED)
    assert rejected_entry("b", refused(made, rng, "r")).kind is DialogueKind.OBFUSCATED


@pytest.mark.parametrize(
    ("agents", "reason", "turns", "unfinished"),
    [
        (Agents(judge=lambda turn: verdict(2 if turn == 1 else 10, 10)), "unsafe", 2, 0),
        (Agents(answers=lambda turn, attempt: "no tags"), "malformed", 0, 2),
        (Agents(judge=lambda turn: Unscored(reason=UnscoredReason.TIMEOUT)), "unscored", 1, 0),
        (Agents(answers=lambda turn, attempt: AgentFailed("content_filter")), "content_filter", 0, 1),
    ],
)
async def test_what_stage_two_rejects_is_read_with_all_that_was_said(
    agents: Agents, reason: str, turns: int, unfinished: int
) -> None:
    item = dialogue_seed()
    done = await BootstrapStep(agents, agents, agents).work(item, MemoryDesk(f"bootstrap/{item.id}"))
    found = rejected_entry("bootstrap", Outcome(id=item.id, done=done))
    assert (found.reason, len(found.turns), len(found.unfinished)) == (reason, turns, unfinished)
    assert (found.id, found.license, found.kind) == (item.id, item.license, item.kind)
