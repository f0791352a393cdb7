"""Probe and expand: a question is rewritten both ways, and one rewrite becomes 2..10 user turns.

A share of the benign seeds becomes questions with their answers. The number of turns and that share are drawn by a hash
of the seed's id, so that a run started again asks for the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from steer_verl.data.drawn import drawn
from steer_verl.data.seed import SourceSeed
from steer_verl.data.stages.agents import Agents, Probe
from steer_verl.data.stages.facts import Facts
from steer_verl.data.stages.left import Left, Reason, stage
from steer_verl.data.stages.settings import ExpandSettings
from steer_verl.data.stages.stage1.checks import dialogue_seed, fault_of, well_formed
from steer_verl.models.place import Place
from steer_verl.text import folded
from steer_verl.types import MAX_TURNS, MIN_TURNS, DialogueKind, Seed


def draw_turns(seed_id: str, weights: Sequence[float]) -> int:
    """Number of turns of a seed's dialogue, by the weights of 2, 3, ... 10; the same whenever it is asked."""
    point = drawn("turns", seed_id) * sum(weights)
    return next((MIN_TURNS + index for index, bound in enumerate(accumulate(weights)) if point < bound), MAX_TURNS)


async def probed(agents: Agents, seed: SourceSeed, place: Place) -> Probe:
    """Both rewrites of the question. Raises ``Left``: the one that the seed's kind needs says nothing."""
    with stage("probe"):
        rewrites = await agents.probe(seed, place.part("probe"))
        if not folded(rewrites.of(seed.kind)):
            raise Left(Reason.EMPTY_REWRITE, value={"rewrites": rewrites.model_dump()})
    return rewrites


async def expanded(
    agents: Agents, seed: SourceSeed, rewrites: Probe, settings: ExpandSettings, place: Place
) -> tuple[Seed, tuple[str, ...]]:
    """The dialogue that leads to the rewrite of the seed's kind, and its answers where the generator wrote both.

    Raises ``Left``: they cannot be used.
    """
    turns, rewritten = draw_turns(seed.id, settings.turn_weights), rewrites.of(seed.kind)
    texts: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    with stage("expand", lambda: {"rewrites": rewrites.model_dump(), "turns": list(texts)}):
        if seed.kind is DialogueKind.BENIGN and drawn("pairs", seed.id) < settings.pairs:
            pairs = await agents.pairs(seed, rewritten, turns, place.part("pairs"))
            texts, answers = tuple(pair.question for pair in pairs), tuple(pair.whole_answer for pair in pairs)
        else:
            texts = await agents.expand(seed, rewritten, turns, place.part("expand"))
        if fault := fault_of(texts, turns):
            raise Left(*fault)
        if not all(map(well_formed, answers)):
            raise Left(Reason.MALFORMED, "an answer of the pairs")
    return dialogue_seed(seed, texts, Facts(rewrites=rewrites, pairs=bool(answers))), answers
