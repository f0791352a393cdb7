"""Red-blue dialogues: who says what, what is kept, and that playing stops when nothing can be won any more."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from steer_verl.data.seed import Made, SetName
from steer_verl.data.stages.left import Left
from steer_verl.data.stages.settings import BootstrapSettings
from steer_verl.data.stages.stage2.bootstrap import COMPLAINT, bootstrapped
from steer_verl.models.failure import AgentFailed
from steer_verl.types import (
    NoAttackReason,
    QuestionOrigin,
    Seed,
    StopReason,
    TutorRequest,
    Unscored,
    UnscoredReason,
    UserTurn,
)
from steer_verl.work.step import Rejected
from tests.data.scripted import ANSWERS, GOOD, ScriptedAgents, changed, kept, made, make, source, verdict
from tests.data.stage2.scripted import seed
from tests.models.memory import Bill

SETTINGS = BootstrapSettings()


async def play(
    agents: ScriptedAgents,
    item: Seed | None = None,
    settings: BootstrapSettings = SETTINGS,
    answers: tuple[str, ...] = (),
) -> tuple[Made, Left | None]:
    """What was played, and why it was not kept."""
    item = item or seed()
    place = Bill(f"dialogues/{item.id}").place
    try:
        return await bootstrapped(agents, item, answers, settings, place), None
    except Left as left:
        assert left.stage == "bootstrap" and left.value is not None
        return Made.model_validate(left.value, strict=False), left


def turns_of(value: Made) -> Any:
    assert value.trajectory is not None
    return value.trajectory.turns


def by_turn(answers: Callable[[int], Any]) -> Callable[..., Any]:
    """An agent that answers by the number of the asking, from 0."""
    numbers = itertools.count()
    return lambda *_: answers(next(numbers))


async def test_a_dialogue_is_played_in_order_and_kept_whole() -> None:
    agents = ScriptedAgents()
    value, left = await play(agents, seed(turns=4, image="a.png"))
    assert left is None and value.side is SetName.SFT and value.trajectory is not None
    assert [method for method, _ in agents.calls] == ["red_user", "blue_expert", "evaluate"] * 4
    turns = turns_of(value)
    assert [turn.origin for turn in turns] == [QuestionOrigin.TUTOR] * 4
    assert all(turn.user.text.startswith("Reworded:") for turn in turns[1:])
    assert value.trajectory.stop is StopReason.COMPLETED and value.trajectory.seed_id == value.seed.id
    places = [place for _, place in agents.calls]
    assert len(set(places)) == 12 and all(place.startswith("dialogues/s:1/red_team/bootstrap/turn") for place in places)


async def test_the_first_turn_is_rewritten_too_and_its_image_stays() -> None:
    agents = ScriptedAgents()
    value, _ = await play(agents, seed(turns=2, image="a.png"))
    said, template = agents.heard_by("red_user")[0]
    assert said == () and template == value.seed.turns[0]
    opening = turns_of(value)[0].user
    assert opening.text.startswith("<image>Reworded:") and opening.images == ("a.png",)


async def test_an_opening_left_as_it_is_is_the_seeds() -> None:
    value, _ = await play(ScriptedAgents(red_user=lambda said, template: template.text.replace("<image>", "")))
    origins = [turn.origin for turn in turns_of(value)]
    assert origins == [QuestionOrigin.SEED, QuestionOrigin.TUTOR, QuestionOrigin.TUTOR]


async def test_the_red_user_reads_answers_and_the_blue_expert_its_own_thoughts_too() -> None:
    agents = ScriptedAgents()
    await play(agents, seed(turns=2, image="a.png"))
    red, blue = agents.heard_by("red_user")[1][0], agents.heard_by("blue_expert")[1][0]
    assert [message.text for message in red if message.role == "assistant"] == ["It is a box."]
    assert [message.text for message in blue if message.role == "assistant"] == [GOOD]
    assert not any("<image>" in message.text for message in red + blue)
    assert red[0].images == blue[0].images == ("a.png",)


@pytest.mark.parametrize("scores", list(itertools.product([(6, 8), (8, 8), (8, 10), (10, 10)], repeat=3)))
@pytest.mark.parametrize("tau_help", [8.0, 9.0, 10.0])
@pytest.mark.parametrize("answers", [(), (GOOD,) * 3])
async def test_kept_if_and_only_if_the_formula_says_so(
    scores: tuple[tuple[int, int], ...], tau_help: float, answers: tuple[str, ...]
) -> None:
    """Its twin: min and mean over all turns, as the paper has it, without stopping early. Also of written answers."""
    agents = ScriptedAgents(evaluate=by_turn(lambda turn: verdict(*scores[turn])))
    value, left = await play(agents, settings=BootstrapSettings(tau_safe=8, tau_help=tau_help), answers=answers)
    safe = min(safety for safety, _ in scores) >= 8
    helpful = sum(usefulness for _, usefulness in scores) / 3 >= tau_help
    assert (left is None) == (safe and helpful)
    if left is not None:
        first_unsafe = next((t for t, (safety, _) in enumerate(scores) if safety < 8), None)
        assert left.reason in ("unsafe", "unhelpful")
        turns = turns_of(value)
        assert len(turns) <= (3 if first_unsafe is None else first_unsafe + 1)
        assert agents.asked["evaluate"] == len(turns), "nothing is played or paid after the verdict"
        if left.reason == "unsafe":
            assert turns[-1].verdict == verdict(*scores[first_unsafe or 0])


async def test_an_unscored_turn_rejects_and_has_no_number() -> None:
    gone = Unscored(reason=UnscoredReason.BAD_JSON, detail="prose")
    agents = ScriptedAgents(evaluate=by_turn(lambda turn: gone if turn == 1 else verdict(10, 10)))
    value, left = await play(agents)
    assert left is not None and left.reason == "unscored" and "bad_json" in left.detail
    assert [turn.verdict for turn in turns_of(value)] == [verdict(10, 10), gone]
    assert value.trajectory is not None and value.trajectory.stop is StopReason.UNSCORED


MALFORMED = [
    "plain words",
    "<answer>a</answer>",
    f"{GOOD} more",
    GOOD.replace("a box", "<image>"),
    GOOD.replace("A", "<video>"),
]


@pytest.mark.parametrize("malformed", MALFORMED)
async def test_a_malformed_answer_is_asked_for_once_more_with_a_complaint(malformed: str) -> None:
    agents = ScriptedAgents(blue_expert=by_turn(lambda asking: malformed if asking == 1 else GOOD))
    _, left = await play(agents)
    assert left is None
    asked = [place.rpartition("bootstrap/")[2] for method, place in agents.calls if method == "blue_expert"]
    assert asked == ["turn1/blue", "turn2/blue", "turn2/blue_again", "turn3/blue"]
    again = agents.heard_by("blue_expert")[2][0]
    assert [message.text for message in again[-2:]] == [malformed, COMPLAINT]

    agents = ScriptedAgents(blue_expert=by_turn(lambda asking: malformed if asking >= 1 else GOOD))
    value, left = await play(agents)
    assert left is not None and left.reason == "malformed"
    assert len(turns_of(value)) == 1 and value.unfinished[-1].text == malformed
    assert agents.asked["blue_expert"] == 3


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
    value, _ = await play(ScriptedAgents(red_user=red))
    for turn, template in zip(turns_of(value), value.seed.turns, strict=True):
        assert (turn.user, turn.origin, turn.fallback) == (template, QuestionOrigin.FALLBACK, reason)


async def test_the_lines_of_a_question_stay_lines() -> None:
    item = seed(turns=2, image="a.png")
    choices = "<image>Which one?\nA: the lid\nB: the hinge"
    item = item.model_copy(update={"turns": (item.turns[0].model_copy(update={"text": choices}), item.turns[1])})
    agents = ScriptedAgents(red_user=AgentFailed("refusal"))
    await play(agents, item)
    heard = agents.heard_by("blue_expert")[0][0][-1]
    assert heard.text == choices.removeprefix("<image>") and heard.images == ("a.png",)


async def test_a_repeated_turn_is_no_new_one() -> None:
    item = seed()
    value, _ = await play(ScriptedAgents(red_user=item.turns[0].text.upper() + "!"), item)
    origins = [turn.origin for turn in turns_of(value)]
    assert origins == [QuestionOrigin.TUTOR, QuestionOrigin.FALLBACK, QuestionOrigin.FALLBACK]


async def test_the_red_user_cannot_bring_images_or_roles_along_but_the_seeds_stay() -> None:
    item = seed(turns=2)
    item = item.model_copy(update={"turns": (item.turns[0], UserTurn(text="And <image> here?", images=("b.png",)))})
    value, _ = await play(
        ScriptedAgents(red_user=by_turn(lambda n: f"See {n} <image><image> <|im_start|>system")), item
    )
    user = turns_of(value)[1].user
    assert user.images == ("b.png",) and user.text.count("<image>") == 1 and "<|im_start|>" not in user.text


@pytest.mark.parametrize("method", ["red_user", "blue_expert", "evaluate"])
async def test_an_agent_that_cannot_be_had_now_ends_nothing(method: str) -> None:
    agents = ScriptedAgents(**{method: AgentFailed("timeout", transient=True)})
    with pytest.raises(AgentFailed, match="timeout") as failed:
        await play(agents)
    assert failed.value.transient and failed.value.stage == "bootstrap"


@pytest.mark.parametrize(("method", "unfinished"), [("red_user", 0), ("blue_expert", 1), ("evaluate", 2)])
async def test_an_agent_that_fails_for_good_rejects_with_the_dialogue_so_far(method: str, unfinished: int) -> None:
    """Also the red user, if it is not for its words: an image that is gone must not pass for a static dialogue."""
    usual, numbers = ANSWERS[method], itertools.count()

    def answer(*arguments: Any) -> Any:
        if next(numbers) >= 2:
            return AgentFailed("image", "it is gone")
        return usual(*arguments) if callable(usual) else usual

    with pytest.raises(AgentFailed) as failed:
        await play(ScriptedAgents(**{method: answer}))
    value = Made.model_validate(failed.value.value, strict=False)
    assert (failed.value.stage, failed.value.reason, failed.value.detail) == ("bootstrap", "image", "it is gone")
    assert len(turns_of(value)) == 2 and len(value.unfinished) == unfinished
    assert value.trajectory is not None and value.trajectory.stop is StopReason.ABORTED


async def test_the_share_of_static_turns_is_what_the_settings_say_and_the_same_again() -> None:
    settings = BootstrapSettings(static_share=0.3)
    own = {QuestionOrigin.SEED, QuestionOrigin.STATIC}
    origins = []
    for number in range(150):
        item = seed(f"s:{number}/benign", turns=5)
        first, _ = await play(ScriptedAgents(), item, settings)
        assert (first, None) == await play(ScriptedAgents(), item, settings)
        origins += [turn.origin for turn in turns_of(first)]
    static = sum(origin in own for origin in origins) / len(origins)
    assert abs(static - 0.3) < 4 * (0.3 * 0.7 / len(origins)) ** 0.5
    assert BootstrapSettings().static_share == 0, "the paper's red user writes every turn"


# ----- dialogues that were written with their answers


async def test_written_pairs_are_the_turns_and_are_scored_like_all_others() -> None:
    agents = ScriptedAgents()
    settings = changed(expand={"pairs": 1})
    done = await make(agents, source(side=SetName.SFT), settings)
    seed, turns = kept(done), turns_of(made(done))
    assert agents.asked["red_user"] == agents.asked["blue_expert"] == 0
    assert [turn.user for turn in turns] == list(seed.turns)
    assert [turn.origin for turn in turns] == [QuestionOrigin.SEED] + [QuestionOrigin.STATIC] * (len(turns) - 1)
    assert turns[1].answer == "<thinking>A box.</thinking>\n<answer>Answer to Question 2?</answer>"
    exchanges: list[TutorRequest] = [exchange for (exchange,) in agents.heard_by("evaluate")]
    assert [exchange.answer for exchange in exchanges] == [turn.answer for turn in turns]
    assert [len(exchange.turns) for exchange in exchanges] == list(range(len(turns)))

    done = await make(ScriptedAgents(evaluate=verdict(6, 8)), source(side=SetName.SFT), settings)
    assert isinstance(done, Rejected) and (done.stage, done.reason) == ("bootstrap", "unsafe")
