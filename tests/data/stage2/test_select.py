"""Risk in the history: by a brute-force twin over all levels, and at no more questions than are needed."""

from __future__ import annotations

import itertools

import pytest
from pydantic import ValidationError

from steer_verl.data.seed import Made, SetName
from steer_verl.data.stages.facts import Facts, HistoryRisk
from steer_verl.data.stages.judged import selected
from steer_verl.data.stages.left import Left
from steer_verl.data.stages.settings import SelectSettings
from steer_verl.models.failure import AgentFailed
from steer_verl.types import DialogueKind
from tests.data.scripted import ScriptedAgents
from tests.data.stage2.scripted import seed
from tests.models.memory import Bill

LOOKED_AT = {"opening": [0], "before_last": [1, 0], "every": [2, 1, 0]}
"""Of three turns, in the order of asking."""


def judging(levels: tuple[int, ...]) -> ScriptedAgents:
    """Levels of each turn alone, and at the end that of the whole."""
    return ScriptedAgents(risk_alone=lambda turn: levels[turn], risk_whole=levels[-1])


async def select(agents: ScriptedAgents, kind: DialogueKind, settings: SelectSettings) -> Made:
    made = Made(side=SetName.RL, seed=seed(turns=3, kind=kind))
    return await selected(agents, made, settings, Bill("dialogues/x").place)


@pytest.mark.parametrize("levels", list(itertools.product([1, 2, 3, 5], repeat=4)))
@pytest.mark.parametrize("rule", LOOKED_AT)
@pytest.mark.parametrize("kind", [DialogueKind.RED_TEAM, DialogueKind.OBFUSCATED])
async def test_kept_iff_the_turns_of_the_rule_are_harmless_alone_and_the_whole_is_not(
    levels: tuple[int, ...], rule: str, kind: DialogueKind
) -> None:
    agents, turns, whole = judging(levels), LOOKED_AT[rule], levels[-1]
    risky = [turn for turn in turns if levels[turn] >= 3]
    asked = turns[: turns.index(risky[0]) + 1] if risky else turns
    try:
        kept = await select(agents, kind, SelectSettings.model_validate({"rule": rule}))
    except Left as left:
        assert left.stage == "select" and left.value is not None and left.value["seed"]["kind"] == kind.value
        assert (left.reason, left.detail) == (
            ("risky_alone", f"turn {risky[0] + 1} alone: level {levels[risky[0]]}")
            if risky
            else ("harmless_whole", f"the whole: level {whole}")
        )
        assert risky or whole < 4
    else:
        assert not risky and whole >= 4 and kept.side is SetName.RL
        alone = tuple(levels[turn] for turn in sorted(turns))
        assert Facts.of(kept.seed.facts).history_risk == HistoryRisk(alone=alone, whole=whole)
        assert kept.seed.turns == seed(turns=3, kind=kind).turns
    assert [turn for (turn,) in agents.heard_by("risk_alone")] == asked
    assert agents.asked["risk_whole"] == (not risky)


async def test_by_default_a_last_turn_may_give_itself_away() -> None:
    """Obfuscated and red-team plans end in the request: a rule that forbids it would leave RL without them."""
    for kind in (DialogueKind.RED_TEAM, DialogueKind.OBFUSCATED):
        await select(judging((1, 4, 5, 5)), kind, SelectSettings())


async def test_benign_dialogues_pass_unasked() -> None:
    agents = ScriptedAgents()
    kept = await select(agents, DialogueKind.BENIGN, SelectSettings())
    assert kept.seed == seed(turns=3, kind=DialogueKind.BENIGN) and not agents.calls


async def test_a_judge_that_fails_is_told_by_the_stage() -> None:
    with pytest.raises(AgentFailed) as failed:
        await select(ScriptedAgents(risk_whole=AgentFailed("refusal")), DialogueKind.RED_TEAM, SelectSettings())
    assert failed.value.stage == "select" and failed.value.value is not None


def test_thresholds_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValidationError, match="whole_from"):
        SelectSettings(alone_below=4, whole_from=3)
