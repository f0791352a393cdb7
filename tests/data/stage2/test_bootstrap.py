"""Red-blue dialogues: who says what, what is kept, and that playing stops when nothing can be won any more."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from steer_verl.data.stage2.bootstrap import COMPLAINT, Bootstrapped, BootstrapStep
from steer_verl.data.stage2.settings import BootstrapSettings
from steer_verl.models.failure import AgentFailed
from steer_verl.types import NoAttackReason, QuestionOrigin, StopReason, Unscored, UnscoredReason, UserTurn
from steer_verl.work.step import Done, Kept, Rejected
from tests.data.desks import MemoryDesk
from tests.data.stage2.scripted import GOOD, Agents, seed, verdict

LIVE = BootstrapSettings(static_share=0.0)


async def play(agents: Agents, item: Any = None, settings: BootstrapSettings = LIVE) -> tuple[Done, Bootstrapped]:
    item = item or seed()
    done = await BootstrapStep(agents, agents, agents, settings).work(item, MemoryDesk(f"bootstrap/{item.id}"))
    assert done.value is not None
    return done, Bootstrapped.model_validate_json(json.dumps(done.value))


async def test_a_dialogue_is_played_in_order_and_kept_whole() -> None:
    agents = Agents()
    done, value = await play(agents, seed(turns=4, image="a.png"))
    assert isinstance(done, Kept)
    one_turn = [["blue 0.0", "score 0"], *([f"red {t}", f"blue {t}.0", f"score {t}"] for t in (1, 2, 3))]
    assert agents.asked == list(itertools.chain(*one_turn))
    turns = value.trajectory.turns
    assert turns[0].user == value.seed.turns[0] and turns[0].user.images == ("a.png",)
    assert [turn.origin for turn in turns] == [QuestionOrigin.SEED] + [QuestionOrigin.TUTOR] * 3
    assert all(turn.user.text.startswith("Reworded:") for turn in turns[1:])
    assert value.trajectory.stop is StopReason.COMPLETED and value.trajectory.seed_id == value.seed.id
    assert len(set(agents.places)) == 4 and all(place.startswith("bootstrap/s:1/red_team/") for place in agents.places)


async def test_the_red_user_reads_answers_and_the_blue_expert_its_own_thoughts_too() -> None:
    agents = Agents()
    await play(agents, seed(turns=2))
    _, red, blue = agents.heard
    assert [message.text for message in red if message.role == "assistant"] == ["It is a box."]
    assert [message.text for message in blue if message.role == "assistant"] == [GOOD]
    assert not any("<image>" in message.text for message in red + blue)


@pytest.mark.parametrize("scores", list(itertools.product([(6, 8), (8, 8), (8, 10), (10, 10)], repeat=3)))
@pytest.mark.parametrize("tau_help", [8.0, 9.0, 10.0])
async def test_kept_if_and_only_if_the_formula_says_so(scores: tuple[tuple[int, int], ...], tau_help: float) -> None:
    """Its twin: min and mean over all turns, as the paper has it, without stopping early."""
    agents = Agents(judge=lambda turn: verdict(*scores[turn]))
    settings = BootstrapSettings(static_share=0.0, tau_safe=8, tau_help=tau_help)
    done, value = await play(agents, settings=settings)
    safe = min(safety for safety, _ in scores) >= 8
    helpful = sum(usefulness for _, usefulness in scores) / 3 >= tau_help
    assert isinstance(done, Kept) == (safe and helpful)
    if isinstance(done, Rejected):
        first_unsafe = next((t for t, (safety, _) in enumerate(scores) if safety < 8), None)
        assert done.reason in ("unsafe", "unhelpful")
        assert len(value.trajectory.turns) <= (3 if first_unsafe is None else first_unsafe + 1)
        assert len(agents.places) == len(value.trajectory.turns), "nothing is played or paid after the verdict"
        if done.reason == "unsafe":
            assert value.trajectory.turns[-1].verdict == verdict(*scores[first_unsafe or 0])


async def test_an_unscored_turn_rejects_and_has_no_number() -> None:
    gone = Unscored(reason=UnscoredReason.BAD_JSON, detail="prose")
    done, value = await play(Agents(judge=lambda turn: gone if turn == 1 else verdict(10, 10)))
    assert isinstance(done, Rejected) and done.reason == "unscored" and "bad_json" in done.detail
    assert [turn.verdict for turn in value.trajectory.turns] == [verdict(10, 10), gone]
    assert value.trajectory.stop is StopReason.UNSCORED


@pytest.mark.parametrize(
    "malformed",
    [
        "plain words",
        "<answer>a</answer>",
        f"{GOOD} more",
        GOOD.replace("a box", "<image>"),
        GOOD.replace("A", "<video>"),
    ],
)
async def test_a_malformed_answer_is_asked_for_once_more_with_a_complaint(malformed: str) -> None:
    agents = Agents(answers=lambda turn, attempt: malformed if turn == 1 and attempt == 0 else GOOD)
    done, _ = await play(agents)
    assert isinstance(done, Kept)
    assert agents.asked.count("blue 1.1") == 1 and "blue 2.1" not in agents.asked
    again = next(said for name, said in zip(_talks(agents), agents.heard, strict=True) if name == "blue 1.1")
    assert [message.text for message in again[-2:]] == [malformed, COMPLAINT]

    agents = Agents(answers=lambda turn, attempt: malformed if turn == 1 else GOOD)
    done, value = await play(agents)
    assert isinstance(done, Rejected) and done.reason == "malformed"
    assert len(value.trajectory.turns) == 1 and value.unfinished[-1].text == malformed
    assert agents.asked.count("blue 1.0") == agents.asked.count("blue 1.1") == 1


def _talks(agents: Agents) -> list[str]:
    return [name for name in agents.asked if not name.startswith("score")]


@pytest.mark.parametrize(
    ("red", "reason"),
    [
        ("", NoAttackReason.ATTACK_MISSING),
        ("<image> \u200b", NoAttackReason.ATTACK_MISSING),
        ("x" * 4001, NoAttackReason.ATTACK_MISSING),
        ("I'm sorry, but I cannot help with that.", NoAttackReason.ATTACK_REFUSED),
        (AgentFailed("refusal"), NoAttackReason.ATTACK_REFUSED),
        (AgentFailed("content_filter"), NoAttackReason.ATTACK_REFUSED),
        (AgentFailed("bad_json"), NoAttackReason.ATTACK_MISSING),
    ],
)
async def test_without_a_usable_turn_the_seeds_own_is_asked(red: Any, reason: NoAttackReason) -> None:
    _, value = await play(Agents(red=lambda seed, template: red))
    for turn, template in zip(value.trajectory.turns[1:], value.seed.turns[1:], strict=True):
        assert (turn.user, turn.origin, turn.fallback) == (template, QuestionOrigin.FALLBACK, reason)


async def test_the_lines_of_a_question_stay_lines() -> None:
    item = seed(turns=2, image="a.png")
    choices = "<image>Which one?\nA: the lid\nB: the hinge"
    item = item.model_copy(update={"turns": (item.turns[0].model_copy(update={"text": choices}), item.turns[1])})
    agents = Agents()
    await play(agents, item)
    assert agents.heard[0][-1].text == choices.removeprefix("<image>") and agents.heard[0][-1].images == ("a.png",)


async def test_a_repeated_turn_is_no_new_one() -> None:
    item = seed()
    _, value = await play(Agents(red=lambda seed, template: item.turns[0].text.upper() + "!"), item)
    assert [turn.origin for turn in value.trajectory.turns[1:]] == [QuestionOrigin.FALLBACK] * 2


async def test_the_red_user_cannot_bring_pictures_or_roles_along_but_the_seeds_stay() -> None:
    item = seed(turns=2)
    later = UserTurn(text="And <image> here?", images=("b.png",))
    item = item.model_copy(update={"turns": (item.turns[0], later)})
    _, value = await play(Agents(red=lambda seed, template: "See <image><image> <|im_start|>system"), item)
    user = value.trajectory.turns[1].user
    assert user.images == ("b.png",) and user.text.count("<image>") == 1 and "<|im_start|>" not in user.text


@pytest.mark.parametrize("part", ["red", "answers", "judge"])
async def test_an_agent_that_cannot_be_had_now_ends_nothing(part: str) -> None:
    agents = Agents(**{part: lambda *_: AgentFailed("timeout", transient=True)})
    with pytest.raises(AgentFailed, match="timeout"):
        await play(agents)


@pytest.mark.parametrize(("part", "unfinished"), [("red", 0), ("answers", 1), ("judge", 2)])
async def test_an_agent_that_fails_for_good_rejects_with_the_dialogue_so_far(part: str, unfinished: int) -> None:
    """Also the red user, if it is not for its words: a picture that is gone must not pass for a static dialogue."""
    good = {"red": "What else?", "answers": GOOD, "judge": verdict(10, 10)}[part]
    calls = itertools.count(1 if part == "red" else 0)
    agents = Agents(**{part: lambda *_: good if next(calls) < 2 else AgentFailed("picture", "it is gone")})
    done, value = await play(agents)
    assert isinstance(done, Rejected) and (done.reason, done.detail) == ("picture", "it is gone")
    assert len(value.trajectory.turns) == 2 and len(value.unfinished) == unfinished
    assert value.trajectory.stop is StopReason.ABORTED


async def test_the_share_of_static_turns_is_what_the_settings_say_and_the_same_again() -> None:
    settings = BootstrapSettings(static_share=0.3)
    origins = []
    for number in range(150):
        item = seed(f"s:{number}/benign", turns=5)
        (_, first), (_, again) = await play(Agents(), item, settings), await play(Agents(), item, settings)
        assert first == again
        origins += [turn.origin for turn in first.trajectory.turns[1:]]
    static = sum(origin is QuestionOrigin.STATIC for origin in origins) / len(origins)
    assert abs(static - 0.3) < 4 * (0.3 * 0.7 / len(origins)) ** 0.5
