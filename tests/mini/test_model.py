"""Tokenizer, processor, model and student: built offline, exact vocabulary, the same tokens turn by turn as at once."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from steer_verl.mini import model
from steer_verl.mini.answers import expert_answer
from steer_verl.mini.data import risky_seeds
from steer_verl.mini.sources import SFT_KINDS
from steer_verl.mini.student import BANNED, MiniStudent
from steer_verl.mini.world import Split, draw_scene
from tests.mini.test_evaluation import play
from tests.mini.twin import direct

pytestmark = pytest.mark.usefixtures("seeing")


@pytest.fixture(scope="module")
def seeing():
    """torchvision must be importable: the processors of transformers want it."""
    pytest.importorskip("torchvision")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return model.build(tmp_path_factory.mktemp("student"), seed=1)


@pytest.fixture(scope="module")
def student(folder):
    return MiniStudent.load(folder, temperature=0, max_tokens=6, batch_size=4)


@pytest.fixture(scope="module")
def conversations(tmp_path_factory):
    root, rng, found = tmp_path_factory.mktemp("pictures"), random.Random(0), []
    for number in range(6):
        scene = draw_scene(rng, Split.TEST)
        path = root / f"{number}.png"
        scene.draw().save(path)
        talk = [
            {
                "role": "user",
                "content": [{"type": "image", "image": str(path)}, {"type": "text", "text": "What is it?"}],
            }
        ]
        for _ in range(number % 3):
            talk += [{"role": "assistant", "content": "A thing."}, {"role": "user", "content": "Look again, please."}]
        found.append(talk)
    return found


def test_vocabulary_is_exactly_the_tokenizer(student):
    tokenizer = student.processor.tokenizer
    assert student.model.config.text_config.vocab_size == len(tokenizer) == student.model.lm_head.out_features
    assert max(tokenizer.get_vocab().values()) == len(tokenizer) - 1


def test_about_two_million_parameters(student):
    assert 1.5e6 < sum(p.numel() for p in student.model.parameters()) < 3e6


def test_everything_said_here_round_trips_in_few_tokens(student):
    tokenizer, rng = student.processor.tokenizer, random.Random(0)
    for text in model.corpus(60):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    for _ in range(60):
        scene = draw_scene(rng, Split.TRAIN)
        assert len(tokenizer.encode(expert_answer(scene, "How do I open it?", rng))) <= 18


def test_any_other_text_falls_back_to_bytes(student):
    tokenizer = student.processor.tokenizer
    text = "Ünïcödé, 雪 and \U0001f9ea; tabs\tand\nlines"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_are_single_and_a_newline_too(student):
    tokenizer = student.processor.tokenizer
    for text in (*model.SPECIAL_TOKENS, "\n", "user", "assistant", "<thinking>", "</answer>"):
        assert len(tokenizer.encode(text)) == 1


def test_a_dialogue_is_the_same_tokens_turn_by_turn_as_at_once(student):
    tokenizer = student.processor.tokenizer
    for talk in direct(20, SFT_KINDS, random.Random(0)):
        pairs = zip(talk.asked, talk.answers, strict=True)
        messages = [
            {"role": role, "content": text}
            for question, answer in pairs
            for role, text in (("user", question), ("assistant", answer))
        ]
        whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        parts = [tokenizer.apply_chat_template([m], tokenize=True, return_dict=False) for m in messages]
        assert whole == [token for part in parts for token in part]


def test_a_picture_is_nine_tokens(student, conversations):
    inputs = student._inputs(conversations)
    pad = student.processor.tokenizer.convert_tokens_to_ids(model.IMAGE_PAD)
    assert [(row == pad).sum().item() for row in inputs["input_ids"]] == [9] * len(conversations)


def test_same_seed_same_weights(folder, tmp_path):
    again, other = model.build(tmp_path / "a", seed=1), model.build(tmp_path / "b", seed=2)
    weights = [(path / "model.safetensors").read_bytes() for path in (folder, again, other)]
    assert weights[0] == weights[1] != weights[2]


def test_batched_answers_equal_single_ones(student, conversations):
    assert student.answer(conversations) == [student.answer([talk])[0] for talk in conversations]


def test_sampling_depends_on_the_seed_alone(folder, conversations):
    def answers(seed):
        return MiniStudent.load(folder, temperature=1.0, top_p=0.9, max_tokens=6, seed=seed).answer(conversations)

    assert answers(1) == answers(1) != answers(2)


def test_vision_placeholders_are_never_sampled(folder, conversations):
    import torch

    sampler = MiniStudent.load(folder, temperature=1.0, max_tokens=12)
    tokenizer = sampler.processor.tokenizer
    with torch.no_grad():  # a head that wants nothing but placeholders
        for token in tokenizer.convert_tokens_to_ids(list(BANNED)):
            sampler.model.lm_head.weight[token] *= 1000
    inputs = sampler._inputs(conversations)
    tokens = sampler.model.generate(**inputs, **sampler._sampling)[:, inputs["input_ids"].shape[1] :]
    assert not set(tokens.flatten().tolist()) & set(tokenizer.convert_tokens_to_ids(list(BANNED)))


async def test_eight_turns_of_risky_offers_fit_however_long_the_answers(student, tmp_path):
    """The chat template adds five tokens a message at most; the picture is in the prompt."""
    folder = Path(__file__).parents[2] / "recipes" / "mini"
    recipe, world = (yaml.safe_load((folder / name).read_text()) for name in ("grpo.yaml", "world/risky_offers.yaml"))
    cap = recipe["actor_rollout_ref"]["rollout"]["custom"]["steer"]["max_answer_tokens"]
    room, whole = world["data"]["max_response_length"], world["actor_rollout_ref"]["rollout"]["max_model_len"]
    (tmp_path / "images").mkdir()
    seeds, rng = list(risky_seeds(tmp_path, Split.TEST, 60, seed=0)), random.Random(0)
    for dialogue in await play(seeds, lambda scene, question, turn: expert_answer(scene, question, rng)):
        asked = [len(student.processor.tokenizer(turn.user.text)["input_ids"]) + 5 for turn in dialogue.turns[1:]]
        assert len(asked) == 7 and sum(asked) + 8 * (cap + 5) <= room
    assert room + recipe["data"]["max_prompt_length"] <= whole
