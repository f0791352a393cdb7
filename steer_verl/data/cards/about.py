"""What the sets are made for, and what they cannot do: the sentences of a card that no count gives."""

from __future__ import annotations

from collections.abc import Sequence

from steer_verl.data.cards.card import Card
from steer_verl.data.seed import SetName

TITLES = {SetName.SFT: "STEER-SFT", SetName.RL: "STEER-RL", SetName.BENCH: "STEER-Bench"}

SUMMARIES = {
    SetName.SFT: "Multi-turn dialogues about images with answers in the student's format (<thinking> then <answer>), "
    "for the first, supervised stage of training.",
    SetName.RL: "The user's side of multi-turn dialogues about images. The opening turn is asked as it stands; every "
    "later one is a hint to the tutor that plays the user, and is asked itself where the tutor has no usable question.",
    SetName.BENCH: "Fixed multi-turn dialogues about images, the user's side only; the model under test answers every "
    "turn and its own answers stay in the history.",
}

_INTENDED = {
    SetName.SFT: "Supervised fine-tuning of a vision-language assistant before reinforcement learning: loss on the "
    "assistant's turns only.",
    SetName.RL: "Reinforcement learning with a tutor in the loop: the student answers live, the tutor scores and goes "
    "on.",
    SetName.BENCH: "Measuring safety and helpfulness turn by turn, with a judge that had no part in training.",
}

_MISUSE = (
    "Making a model comply with unsafe requests, or training an attacker for use outside of safety work.",
    "A claim of safety in general: what a model gains here, it gains on such dialogues.",
)
_NOT_INTENDED = {
    SetName.SFT: _MISUSE,
    SetName.RL: (*_MISUSE, "Supervised training: there are no answers in it."),
    SetName.BENCH: (*_MISUSE, "Training of any kind: a model that has seen it cannot be measured with it."),
}

_LIMITS = (
    "The texts are written by models or rules from single-turn questions; real users write otherwise.",
    "Kinds, categories and reasons are the pipeline's and the sources' own words, not people's labels.",
    "The sets are kept disjoint by source seed, by image and by near-duplicate; a likeness that the measure does not "
    "see remains possible.",
)
_SCORED = (
    "Scores are the evaluator's verdict under a rubric, not ground truth. Dialogues were kept by these very scores: "
    "they say how strict the filter was, not how good the answers are."
)
_RISKY = (
    "Part of the user turns lead towards harm on purpose. Show them to those only who need to see them, and read the "
    "sources' terms before rows are published."
)


def use_and_limits(side: SetName, card: Card) -> dict[str, Sequence[str]]:
    """Heading -> sentences: what the set is for, what not, and what a reader should not believe of it."""
    limits = [*_LIMITS, *([_SCORED] if card.answers else []), *([_RISKY] if set(card.kinds) - {"benign"} else [])]
    return {"Intended use": [_INTENDED[side]], "Not intended": _NOT_INTENDED[side], "Limits": limits}
