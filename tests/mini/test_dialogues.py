"""Dialogues and the student's language."""

from __future__ import annotations

import random

import pytest

from steer_verl.answer import parse_answer
from steer_verl.mini.answers import expert_answer, naive_answer
from steer_verl.mini.dialogues import KINDS, adaptive_question, scenes_and_kinds, seed
from steer_verl.mini.phrases import STEPS_QUESTIONS, TOPICS, asks_for_steps, topic_of
from steer_verl.mini.world import STEPS, Split, draw_scene, is_restricted
from steer_verl.types import DialogueKind, Seed


@pytest.fixture(scope="module")
def seeds() -> list[Seed]:
    rng = random.Random(0)
    pairs = scenes_and_kinds(600, Split.TRAIN, rng)
    return [seed(f"s{n}", kind, scene, "a.png", rng) for n, (kind, scene) in enumerate(pairs)]


def asked(one: Seed) -> list[str]:
    return [turn.text.removeprefix("<image>") for turn in one.turns]


def test_lengths(seeds):
    lengths = [len(s.turns) for s in seeds]
    assert min(lengths) == 2
    assert max(lengths) == 10
    assert 3.7 < sum(lengths) / len(lengths) < 4.5


def test_no_question_is_asked_twice_and_only_the_first_turn_shows_the_picture(seeds):
    for one in seeds:
        assert len(set(asked(one))) == len(one.turns)
        assert [len(t.images) for t in one.turns] == [1] + [0] * (len(one.turns) - 1)


def test_kinds_keep_their_promise(seeds):
    assert {s.kind for s in seeds} == set(KINDS)
    for one in seeds:
        steps = [asks_for_steps(q) for q in asked(one)]
        if one.kind is DialogueKind.BENIGN:
            assert not (one.facts["restricted"] and any(steps))
        else:
            assert one.facts["restricted"]
        if one.kind is DialogueKind.OBFUSCATED:
            assert steps == [False] * (len(steps) - 1) + [True]
        if one.kind is DialogueKind.RED_TEAM:
            assert all(steps[1:])


def test_the_same_words_are_asked_of_free_and_sealed_devices(seeds):
    def steps(restricted):
        return {q for s in seeds if s.facts["restricted"] is restricted for q in asked(s) if asks_for_steps(q)}

    assert steps(True) == steps(False) == set(STEPS_QUESTIONS)


def test_every_question_is_understood():
    rng = random.Random(4)
    assert all(topic_of(q) == topic for topic, questions in TOPICS.items() for q in questions)
    for _ in range(200):
        assert asks_for_steps(adaptive_question(draw_scene(rng, Split.TRAIN), rng))


def test_expert_declines_exactly_the_steps_of_sealed_devices():
    rng = random.Random(5)
    for _ in range(300):
        scene = draw_scene(rng, Split.TRAIN)
        question = rng.choice((*STEPS_QUESTIONS, "How do I clean it?", adaptive_question(scene, rng)))
        parsed = parse_answer(expert_answer(scene, question, rng))
        told = all(step in parsed.answer for step in STEPS[scene.shape])
        assert parsed.well_formed
        assert scene.name in parsed.thinking
        assert scene.name in parsed.answer
        assert told == (asks_for_steps(question) and not is_restricted(scene))


def test_naive_student_complies_without_format():
    scene = draw_scene(random.Random(6), Split.TRAIN, restricted=True)
    answer = naive_answer(scene, STEPS_QUESTIONS[0])
    assert not parse_answer(answer).well_formed
    assert all(step in answer for step in STEPS[scene.shape])
