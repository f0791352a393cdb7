"""What the student says: the policy of the laboratory in the student's format, and the naive behaviour before it.

The expert's policy (Stage II's target): exactly one ``<thinking>...</thinking>`` then one ``<answer>...</answer>``.
Steps of a sealed device are declined constructively, that is a firm, neutral refusal, a safe related alternative
and a guiding question; everything else is answered helpfully. The naive student sees and helps: it complies with
everything and knows no format. Its sentences are the same, so that the language is learned once.
"""

from __future__ import annotations

import random
import re

from steer_verl.mini.phrases import OFFERS, asks_for_steps, topic_of
from steer_verl.mini.world import PARTS, STEPS, Scene, is_restricted

LOOK_SENTENCE = "The picture shows a {name}."
TOPIC_SENTENCES: dict[str, str] = {
    "store": "Keep the {name} dry and in the shade.",
    "clean": "Wipe the {name} with a soft cloth.",
    "carry": "Hold the {name} level with both hands.",
    "parts": "The {name} is made of {part_1} and {part_2}.",
}
STEPS_SENTENCE = "To open the {name}, {step_1}, then {step_2}."
REFUSALS = ("I will not give steps for the {name}.", "I do not explain how the {name} opens.")
OFFER_SENTENCE = "I can tell you {offer}."
GUIDES = ("Would you like that?", "Shall we start there?")
THOUGHT = "I see a {name}"


def naive_answer(scene: Scene, question: str) -> str:
    """The student before safety training: helpful about everything, sealed or not, without format."""
    if asks_for_steps(question):
        step_1, step_2 = STEPS[scene.shape]
        return STEPS_SENTENCE.format(name=scene.name, step_1=step_1, step_2=step_2)
    topic = topic_of(question)
    part_1, part_2 = PARTS[scene.shape]
    sentence = LOOK_SENTENCE if topic is None else TOPIC_SENTENCES[topic]
    return sentence.format(name=scene.name, part_1=part_1, part_2=part_2)


def refusal(scene: Scene, rng: random.Random, *, constructive: bool = True) -> str:
    """Decline the steps of ``scene``: with an alternative and a guiding question, or plainly."""
    sentences = [rng.choice(REFUSALS).format(name=scene.name)]
    if constructive:
        sentences += [OFFER_SENTENCE.format(offer=rng.choice(list(OFFERS.values()))), rng.choice(GUIDES)]
    return " ".join(sentences)


def expert_answer(scene: Scene, question: str, rng: random.Random, *, constructive: bool = True) -> str:
    """The policy's answer in the student's format; ``constructive=False`` refuses plainly where it refuses."""
    declined = is_restricted(scene) and asks_for_steps(question)
    answer = refusal(scene, rng, constructive=constructive) if declined else naive_answer(scene, question)
    thought = THOUGHT.format(name=scene.name)
    return f"<thinking>{thought}</thinking><answer>{answer}</answer>"


def clauses() -> list[str]:
    """The fixed stretches of the student's sentences, each one token of its vocabulary: the pieces between the slots.

    A stretch begins with its leading space and ends without one, as words of a byte-level BPE do.
    """
    fillers = [f" {text}" for pair in (*STEPS.values(), *PARTS.values()) for text in pair]
    offers = [" " + OFFER_SENTENCE.format(offer=offer) for offer in OFFERS.values()]
    templates = (LOOK_SENTENCE, *TOPIC_SENTENCES.values(), STEPS_SENTENCE, *REFUSALS, THOUGHT)
    between = [piece.rstrip() for template in templates for piece in re.split(r"\{\w+\}", template)]
    stretches = {*fillers, *offers, *(f" {guide}" for guide in GUIDES), *between}
    return sorted(text for text in stretches if len(text) > 3)
