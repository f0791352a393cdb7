"""What the sets are made for, and what they cannot do: the sentences of a card that no count gives."""

from __future__ import annotations

from dataclasses import dataclass

from steer_verl.data.cards.statistics import Statistics
from steer_verl.data.seed import SetName


@dataclass(frozen=True)
class About:
    """A set in words."""

    title: str
    summary: str
    intended: tuple[str, ...]
    not_intended: tuple[str, ...]


_MISUSE = (
    "Making a model comply with unsafe requests, or training an attacker for use outside of safety work.",
    "A claim of safety in general: what a model gains here, it gains on such dialogues.",
)

ABOUT: dict[SetName, About] = {
    SetName.SFT: About(
        "STEER-SFT",
        "Multi-turn dialogues about images with answers in the student's format "
        "(<thinking> then <answer>), for the first, supervised stage of training.",
        (
            "Supervised fine-tuning of a vision-language assistant before reinforcement learning: loss on the "
            "assistant's turns only.",
            "Studying how an answer that refuses, offers a safe alternative and asks back keeps a dialogue useful.",
        ),
        _MISUSE,
    ),
    SetName.RL: About(
        "STEER-RL",
        "The user's side of multi-turn dialogues about images. The opening turn is asked as it stands; every later "
        "one is a hint to the tutor that plays the user, and is asked itself where the tutor has no usable question.",
        ("Reinforcement learning with a tutor in the loop: the student answers live, the tutor scores and goes on.",),
        (*_MISUSE, "Supervised training: there are no answers in it."),
    ),
    SetName.BENCH: About(
        "STEER-Bench",
        "Fixed multi-turn dialogues about images, the user's side only; the model under test answers every turn "
        "and its own answers stay in the history.",
        ("Measuring safety and helpfulness turn by turn, with a judge that had no part in training.",),
        (*_MISUSE, "Training of any kind: a model that has seen it cannot be measured with it."),
    ),
}


def limits(stats: Statistics) -> tuple[str, ...]:
    """What a reader should not believe of the set."""
    found = [
        "The texts are written by models or rules from single-turn questions; real users write otherwise.",
        "Kinds, categories and reasons are the pipeline's and the sources' own words, not people's labels.",
        "The sets are kept disjoint by source seed, by image and by near-duplicate; a likeness that the measure does "
        "not see remains possible.",
    ]
    if stats.answer_chars:
        found.append(
            "Scores are the evaluator's verdict under a rubric, not ground truth. Dialogues were kept by these very "
            "scores: they say how strict the filter was, not how good the answers are."
        )
    if stats.unscored:
        found.append("Unscored turns have no number and are in no average.")
    if any(kind != "benign" for kind in stats.kinds):
        found.append(
            "Part of the user turns lead towards harm on purpose. Show them to those only who need to see them, and "
            "read the sources' terms before rows are published."
        )
    return tuple(found)
