"""Tokenizer, processor, model and student: built offline, exact vocabulary, the same tokens turn by turn as at once."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from steer_verl.errors import ConfigError
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


@pytest.mark.parametrize(("size", "millions"), [("1m", 1.1), ("2m", 2.1), ("5m", 4.9)])
def test_a_student_has_the_size_of_its_name(student, size, millions):
    made = model.make_model(student.processor.tokenizer, size)
    assert sum(p.numel() for p in made.parameters()) == pytest.approx(millions * 1e6, rel=0.05)
    text = made.config.text_config
    assert text.hidden_size == 32 * text.num_attention_heads == 64 * text.num_key_value_heads, "heads of 32"


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
    inputs = student._collated([student._row(talk) for talk in conversations])
    pad = student.processor.tokenizer.convert_tokens_to_ids(model.IMAGE_PAD)
    assert [(row == pad).sum().item() for row in inputs["input_ids"]] == [9] * len(conversations)


def test_same_seed_same_weights(folder, tmp_path):
    again, other = model.build(tmp_path / "a", seed=1), model.build(tmp_path / "b", seed=2)
    weights = [(path / "model.safetensors").read_bytes() for path in (folder, again, other)]
    assert weights[0] == weights[1] != weights[2]


def test_another_model_in_the_folder_is_never_taken_for_this_one(folder):
    weights = folder / "model.safetensors"
    written = weights.stat().st_mtime_ns
    model.build(folder, seed=1)
    for other in ({"seed": 2}, {"seed": 1, "size": "1m"}, {"seed": 1, "family": "qwen3_vl"}):
        with pytest.raises(ConfigError, match="holds another model"):
            model.build(folder, **other)
    assert weights.stat().st_mtime_ns == written


def test_batched_answers_equal_single_ones(student, conversations):
    assert student.answer(conversations) == [student.answer([talk])[0] for talk in conversations]


def test_scores_are_the_same_bit_for_bit_in_any_company(folder, conversations):
    """Words may hide a difference that another word would show: here nothing may differ."""
    import torch

    student, seen = MiniStudent.load(folder, max_tokens=3), {}

    def recorded(places):
        def look(ids, scores):
            for place, row in zip(places, scores, strict=False):
                seen.setdefault(place, []).append(row.clone())
            return scores

        return [look]

    def scores(talks):
        seen.clear()
        student.generate(talks, [str(n) for n in range(len(talks))])
        return torch.stack(seen["0"])

    student._sampler = recorded
    question = {"role": "user", "content": "Why? " * 30}
    long = [[*talk, {"role": "assistant", "content": "So."}, question] for talk in conversations]
    for first, others in ((conversations[0], conversations), (long[0], long), (long[1], [*conversations, *long])):
        alone = scores([first])
        assert len(alone) > 1
        for company in (others[2:], others[2:3], others * 3):
            assert torch.equal(scores([first, *company]), alone)


def test_sampling_depends_on_seed_and_place_alone(folder, conversations):
    def answers(seed, order=range(6), name="place"):
        student = MiniStudent.load(folder, temperature=1.0, top_p=0.9, max_tokens=6, seed=seed)
        given = student.answer([conversations[n] for n in order], [f"{name} {n}" for n in order])
        return dict(zip(order, given, strict=True))

    first = answers(1)
    assert answers(1, [3, 0, 5, 1, 4, 2]) == first, "in any order"
    assert answers(1, [2]) == {2: first[2]}, "and in any company"
    assert first != answers(2) and first != answers(1, name="elsewhere")


def test_sampling_follows_the_models_probabilities(folder, conversations):
    import torch

    student = MiniStudent.load(folder, temperature=0.5, top_p=0.6, max_tokens=1)
    scores = torch.linspace(0, 3, 8)
    drawn = torch.zeros(8)
    (temperature, narrow, noise) = student._sampler([str(n) for n in range(4000)])
    for row in noise(None, narrow(None, temperature(None, scores.repeat(4000, 1)))):
        drawn[row.argmax()] += 1
    expected = (scores / 0.5).softmax(0)
    kept = expected.sort(descending=True).values.cumsum(0) - expected.sort(descending=True).values < 0.6
    expected[expected < expected.sort(descending=True).values[kept].min()] = 0
    assert torch.allclose(drawn / 4000, expected / expected.sum(), atol=0.03)


def test_vision_placeholders_are_never_sampled(folder, conversations):
    import torch

    sampler, seen = MiniStudent.load(folder, temperature=1.0, max_tokens=12), []
    tokenizer = sampler.processor.tokenizer
    with torch.no_grad():  # a head that wants nothing but placeholders
        for token in tokenizer.convert_tokens_to_ids(list(BANNED)):
            sampler.model.lm_head.weight[token] *= 1000
    read = sampler._read
    sampler._read = lambda row: seen.extend(row) or read(row)
    sampler.answer(conversations)
    assert seen and not set(seen) & set(tokenizer.convert_tokens_to_ids(list(BANNED)))


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
