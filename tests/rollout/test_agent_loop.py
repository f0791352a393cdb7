"""The agent loop on verl's own base class, processor and Continuous Token builder; only the engine is scripted.

Invariants over generated dialogues: lengths, masks, log-probs, rewards at turn ends, and token-for-token equality with
rendering the whole dialogue at once.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch
from omegaconf import OmegaConf

from steer_verl.families import VISION
from steer_verl.types import DialogueKind, Seed, Status, StopReason, Trajectory, TutorRequest, TutorResponse, UserTurn
from tests.scripted import GOOD, LOST, ScriptedTutor, ruling

pytest.importorskip("verl")


@pytest.fixture(scope="module", params=sorted(VISION))
def processor(request: pytest.FixtureRequest) -> Any:
    """The miniature student's processor, of each family."""
    from steer_verl.mini.model import make_processor

    return make_processor(request.param)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real picture file."""
    from steer_verl.mini.world import Split, draw_scene

    path = tmp_path_factory.mktemp("pictures") / "scene.png"
    draw_scene(random.Random(0), Split.TRAIN).draw().save(path)
    return str(path)


OURS = {"reward_manager": {"name": "steer_tutor"}, "reward_model": {"enable": False}}
"""Of verl's config: the loop rewards its own dialogues."""


class Engine:
    """Stands for ``LLMServerClient``: random answers of random length, some cut, some ended by another stop token."""

    def __init__(self, tokenizer: Any, rng: random.Random) -> None:
        self.tokenizer, self.rng, self.calls = tokenizer, rng, []
        self.words = tokenizer.encode("the red circle is dry. I will not give steps", add_special_tokens=False)

    async def generate(
        self,
        request_id: str,
        *,
        prompt_ids: list[int],
        sampling_params: dict,
        image_data: Any,
        mm_processor_kwargs: Any = None,
    ) -> Any:
        from verl.workers.rollout.replica import TokenOutput

        self.options = mm_processor_kwargs
        self.calls.append((request_id, list(prompt_ids), dict(sampling_params), image_data))
        length, cap = self.rng.randint(1, 14), sampling_params["max_tokens"]
        end = self.rng.choice([self.tokenizer.eos_token_id] * 4 + [self.tokenizer.pad_token_id])
        ids = [*(self.rng.choice(self.words) for _ in range(length - 1)), end][:cap]
        steps = {"min_global_steps": len(self.calls), "max_global_steps": len(self.calls)}
        return TokenOutput(token_ids=ids, log_probs=[-self.rng.random() for _ in ids], extra_fields=steps)


def make_loop(
    processor: Any,
    script: ScriptedTutor,
    *,
    engine: Any = None,
    response: int = 400,
    reward: Any = None,
    rollout: Any = None,
    trainer: Any = None,
    **steer: Any,
) -> Any:
    """A loop as verl's worker makes it."""
    from verl.experimental.agent_loop.agent_loop import DictConfigWrap
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from rollout.agent_loop import SteerAgentLoop

    section = {"tutor": {"kind": "mini"}, "max_answer_tokens": 12, **steer}
    rollout = {"prompt_length": 64, "response_length": response, "custom": {"steer": section}, **(rollout or {})}
    roles, section = {"rollout": rollout}, {"data": {}, "algorithm": {}, "reward": reward, "trainer": trainer}
    config = OmegaConf.create({"actor_rollout_ref": roles, **section})
    loop = SteerAgentLoop(
        trainer_config=DictConfigWrap(config),
        server_manager=engine or Engine(processor.tokenizer, random.Random(0)),
        tokenizer=processor.tokenizer,
        processor=processor,
        dataset_cls=RLHFDataset,
        data_config=DictConfigWrap(config.data),
        hf_model_type="qwen2_5_vl",
    )
    loop.tutor = script
    return loop


def row(seed: Seed, **extra: Any) -> dict[str, Any]:
    """A dataset row as verl hands it to the loop."""
    info = {"seed": seed.model_dump_json(), "split": "train", "index": 0}
    return {"raw_prompt": [], "extra_info": info, "uid": uuid4().hex, "session_id": 3, "global_steps": 7, **extra}


def random_seed(rng: random.Random, picture: str) -> Seed:
    """2-10 turns, no, one or two pictures in any of them."""
    turns = []
    for t in range(rng.randint(2, 10)):
        count = rng.choice([0, 0, 0, 1, 2]) if t else rng.choice([0, 1, 1, 2])
        words = rng.choice(["How does it open?", "What is it made of?", "Describe <|im_end|> it"])
        text = "<image>" * count + words if rng.random() < 0.7 else words + "<image>" * count
        turns.append(UserTurn(text=text, images=(picture,) * count))
    return Seed(id=f"seed {rng.random()}", turns=tuple(turns), kind=DialogueKind.RED_TEAM)


def random_tutor(rng: random.Random, *, lost: float = 0.0) -> ScriptedTutor:
    """Sometimes a question of its own, sometimes none, sometimes no score."""

    def script(t: int, exchange: TutorRequest) -> TutorResponse:
        question = rng.choice([None, f"Then tell me number {t}.", f"<|im_start|>system {t}"])
        return ruling(LOST if rng.random() < lost else GOOD, question)

    return ScriptedTutor(script)


def runs(mask: list[int]) -> list[tuple[int, int]]:
    """First and last index of each run of ones."""
    starts = [i for i, m in enumerate(mask) if m and (i == 0 or not mask[i - 1])]
    ends = [i for i, m in enumerate(mask) if m and (i + 1 == len(mask) or not mask[i + 1])]
    return list(zip(starts, ends, strict=True))


@pytest.mark.parametrize("case", range(40))
async def test_invariants_over_generated_dialogues(case: int, processor: Any, picture: str) -> None:
    rng = random.Random(case)
    lost = 0.1 if case % 3 == 0 else 0.0
    engine = Engine(processor.tokenizer, rng)
    response = rng.choice([60, 120, 400])
    loop = make_loop(processor, random_tutor(rng, lost=lost), engine=engine, response=response)
    params: dict[str, Any] = {"temperature": 1.0}
    output = await loop.run(params, **row(random_seed(rng, picture)))
    record = Trajectory.model_validate_json(output.extra_fields["trajectory"])
    tokenizer = processor.tokenizer

    assert params == {"temperature": 1.0}, "the group shares one dictionary"
    assert len(output.response_ids) == len(output.response_mask) == len(output.response_logprobs) <= response
    assert all(p == 0.0 for p, m in zip(output.response_logprobs, output.response_mask, strict=True) if not m)
    assert len({call[0] for call in engine.calls}) == 1, "one request id, so that the router is sticky"
    assert all(call[2]["max_tokens"] <= 12 for call in engine.calls)
    for earlier, later in zip(engine.calls, engine.calls[1:], strict=False):
        assert later[1][: len(earlier[1])] == earlier[1], "history is append-only"

    if record.status is Status.LOST:
        assert output.response_mask == [0] and len(output.prompt_ids) == 1 and not output.turn_spans
        assert output.extra_fields["max_global_steps"] == len(engine.calls)
        return
    trained = record.scored
    assert [(start, end + 1) for start, end in runs(output.response_mask)] == output.turn_spans
    assert len(output.turn_spans) == len(trained)
    for (start, end), turn in zip(runs(output.response_mask), record.turns, strict=False):
        ids = output.response_ids[start : end + 1]
        assert len(ids) == turn.answer_tokens
        ended = ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False) == turn.answer
        assert turn.truncated == (len(ids) == 12 and not ended)
    assert output.extra_fields["min_global_steps"] == 1
    assert output.extra_fields["max_global_steps"] == len(engine.calls)
    if record.stop is StopReason.TOKEN_BUDGET:
        assert response < 400
    images = output.multi_modal_data.get("images", [])
    assert len(images) == sum(len(turn.user.images) for turn in record.turns)
    pads = output.prompt_ids + output.response_ids
    assert pads.count(tokenizer.convert_tokens_to_ids("<|image_pad|>")) == 9 * len(images)


@pytest.mark.parametrize("case", range(10))
async def test_tokens_equal_rendering_the_whole_dialogue_at_once(case: int, processor: Any, picture: str) -> None:
    """Where every answer ends itself and its text tokenises back to the same ids, as the template then allows."""
    rng = random.Random(case)
    tokenizer = processor.tokenizer

    class Whole(Engine):
        async def generate(self, request_id: str, **call: Any) -> Any:
            from verl.workers.rollout.replica import TokenOutput

            text = rng.choice(["The picture shows a red circle.", "No.", "I can tell you how to clean it."])
            ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
            steps = {"min_global_steps": 0, "max_global_steps": 0}
            return TokenOutput(token_ids=ids, log_probs=[-1.0] * len(ids), extra_fields=steps)

    loop = make_loop(processor, random_tutor(rng), engine=Whole(tokenizer, rng), response=2000, max_answer_tokens=100)
    output = await loop.run({}, **row(random_seed(rng, picture)))
    record = Trajectory.model_validate_json(output.extra_fields["trajectory"])
    from steer_verl.dialogue import user_message

    messages = [m for t in record.turns for m in (user_message(t.user), {"role": "assistant", "content": t.answer})]
    text = processor.apply_chat_template(messages, tokenize=False)
    images = output.multi_modal_data.get("images")
    whole = processor(text=[text], images=images)["input_ids"][0]
    ours = output.prompt_ids + output.response_ids
    assert list(whole)[: len(ours)] == ours
    assert tokenizer.decode(list(whole)[len(ours) :]) == "\n", "the template's line end after the last answer"


async def test_each_turns_reward_is_laid_on_its_last_student_token(processor: Any, picture: str) -> None:
    loop = make_loop(processor, random_tutor(random.Random(1)))
    output = await loop.run({}, **row(random_seed(random.Random(1), picture)))
    rewards = [0.0, *(0.1 * t for t in range(1, len(output.turn_spans)))]
    output.reward_score = 0.5
    output.extra_fields["reward_extra_info"] = {"safety_mean": 3.0, "turn_rewards": list(rewards)}
    fields = output.as_dict()
    assert fields["rm_scores"].shape == fields["response_mask"].shape
    expected = torch.zeros(len(output.response_mask))
    expected[torch.tensor([stop - 1 for _, stop in output.turn_spans])] = torch.tensor(rewards)
    assert torch.equal(fields["rm_scores"], expected)
    marked = (fields["rm_scores"] != 0) | fields["rm_scores"].signbit()
    assert torch.equal(marked, fields["response_mask"].bool()), "the sign of zero carries the turns"
    assert fields["extra_fields"]["reward_extra_info"] == {"safety_mean": 3.0}, "a list has no place in verl's metrics"


async def test_without_turn_rewards_the_scalar_stays_where_verl_puts_it(processor: Any, picture: str) -> None:
    output = await make_loop(processor, random_tutor(random.Random(2))).run(
        {}, **row(random_seed(random.Random(2), picture))
    )
    output.reward_score = 0.5
    assert output.as_dict()["rm_scores"][-1] == 0.5


async def test_rewards_that_do_not_match_the_turns_are_refused(processor: Any, picture: str) -> None:
    output = await make_loop(processor, random_tutor(random.Random(3))).run(
        {}, **row(random_seed(random.Random(3), picture))
    )
    output.reward_score, output.extra_fields["reward_extra_info"] = 0.5, {"turn_rewards": [1.0] * 99}
    with pytest.raises(ValueError, match="99 turn rewards"):
        output.as_dict()


def test_a_row_of_others_is_opened_by_its_prompt(processor: Any, picture: str) -> None:
    asked = [{"type": "image", "image": picture}, {"type": "text", "text": "What is it?"}]
    later = [{"role": "user", "content": "And now?"}]
    foreign = {
        "raw_prompt": [{"role": "user", "content": asked}],
        "extra_info": {"index": 4, "split": "train", "interaction_kwargs": {"rest_messages": later}},
    }
    dialogue = make_loop(processor, random_tutor(random.Random(4))).dialogue(foreign)
    opening = UserTurn(text="<image>What is it?", images=(picture,))
    assert dialogue.seed.turns == (opening, UserTurn(text="And now?"))


async def test_without_log_probabilities_none_are_made_up(processor: Any) -> None:
    class Silent(Engine):
        async def generate(self, request_id: str, **call: Any) -> Any:
            output = await super().generate(request_id, **call)
            output.log_probs = None
            return output

    seed = Seed(id="s", turns=tuple(UserTurn(text=f"question {t}") for t in range(3)))
    tutor = ScriptedTutor(lambda t, _: ruling(GOOD, f"next {t}"))
    loop = make_loop(processor, tutor, engine=Silent(processor.tokenizer, random.Random(0)))
    loop.rollout_config.calculate_log_probs = False
    output = await loop.run({}, **row(seed))
    assert output.response_logprobs is None and "rollout_log_probs" not in output.as_dict()
    assert len(output.turn_spans) == 3

    loop = make_loop(processor, tutor, engine=Silent(processor.tokenizer, random.Random(0)))
    output = await loop.run({}, **row(seed))
    record = Trajectory.model_validate_json(output.extra_fields["trajectory"])
    assert record.status is Status.LOST and output.response_logprobs == [0.0]


@pytest.mark.parametrize("lost_turn", range(5))
async def test_a_dialogue_with_an_unscored_turn_is_lost_and_carries_no_loss(lost_turn: int, processor: Any) -> None:
    seed = Seed(id="s", turns=tuple(UserTurn(text=f"question {t}") for t in range(5)))
    tutor = ScriptedTutor(lambda t, _: ruling(LOST if t == lost_turn else GOOD, f"next {t}"))
    output = await make_loop(processor, tutor, reward=OURS).run({}, **row(seed))
    record = Trajectory.model_validate_json(output.extra_fields["trajectory"])
    assert (record.status, record.stop, record.lost) == (Status.LOST, StopReason.UNSCORED, "timeout")
    assert not any(output.response_mask) and not output.turn_spans and not output.as_dict()["rm_scores"].any()
    assert len(record.turns) == min(5, lost_turn + 1), "it is not played on"


@pytest.mark.parametrize(("aborted_call", "turns"), [(3, 2), (1, 0)])
async def test_an_aborted_generation_loses_the_dialogue(aborted_call: int, turns: int, processor: Any) -> None:
    class Aborting(Engine):
        async def generate(self, request_id: str, **call: Any) -> Any:
            output = await super().generate(request_id, **call)
            if len(self.calls) == aborted_call:
                output.token_ids, output.log_probs = [], None
            return output

    seed = Seed(id="s", turns=tuple(UserTurn(text=f"question {t}") for t in range(5)))
    tutor = ScriptedTutor(lambda t, _: ruling(GOOD, f"next {t}"))
    engine = Aborting(processor.tokenizer, random.Random(0))
    output = await make_loop(processor, tutor, engine=engine).run({}, **row(seed))
    record = Trajectory.model_validate_json(output.extra_fields["trajectory"])
    assert record.stop is StopReason.ABORTED and len(record.turns) == turns and record.lost == "aborted"
    assert output.response_mask == [0] and not output.turn_spans


@pytest.mark.parametrize("token", ["image_token", "video_token"])
async def test_an_answer_with_the_token_of_an_image_loses_the_dialogue(token: str, processor: Any) -> None:
    """verl bans it in vLLM alone, and raises of it where nobody counts."""

    class Drawing(Engine):
        async def generate(self, request_id: str, **call: Any) -> Any:
            output = await super().generate(request_id, **call)
            output.token_ids[0] = processor.tokenizer.convert_tokens_to_ids(getattr(processor, token))
            return output

    seed = Seed(id="s", turns=(UserTurn(text="question 0"), UserTurn(text="question 1")))
    engine, tutor = Drawing(processor.tokenizer, random.Random(0)), ScriptedTutor(lambda t, _: ruling(GOOD, "next"))
    output = await make_loop(processor, tutor, engine=engine).run({}, **row(seed))
    record = Trajectory.model_validate_json(output.extra_fields["trajectory"])
    assert record.lost == "error" and "ban it in the engine" in record.detail and output.response_mask == [0]


async def test_the_engine_gets_the_pixel_budget_of_the_processor(processor: Any, picture: str) -> None:
    """``data.mm_processor_kwargs`` reaches both sides: else prompt and engine disagree on the count of image tokens."""
    engine = Engine(processor.tokenizer, random.Random(0))
    loop = make_loop(processor, random_tutor(random.Random(5)), engine=engine)
    budget = {"min_pixels": 28 * 28, "max_pixels": 28 * 28 * 4}
    loop.mm_processor_kwargs = loop.continuous_token_builder.mm_processor_kwargs = budget
    output = await loop.run(
        {}, **row(Seed(id="s", turns=(UserTurn(text="<image>a", images=(picture,)), UserTurn(text="b"))))
    )
    assert engine.options == budget
    assert output.prompt_ids.count(processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")) == 4


async def test_the_transcript_is_the_record(processor: Any, tmp_path: Path, picture: str) -> None:
    from steer_verl.transcripts import read_transcripts

    loop = make_loop(processor, random_tutor(random.Random(4)), transcripts=str(tmp_path))
    output = await loop.run({}, **row(random_seed(random.Random(4), picture), uid="u"))
    (record,) = read_transcripts(tmp_path)
    assert record.model_dump_json() == output.extra_fields["trajectory"]
    assert (record.step, record.uid, record.rollout, record.validate_run) == (7, "u", 3, False)


async def test_the_held_out_judge_sees_what_was_drawn_and_changes_no_reward(processor: Any, picture: str) -> None:
    """The miniature world's own tutor and judge: with and without the audit, everything that trains is the same."""
    from steer_verl.mini.dialogues import seed as mini_seed
    from steer_verl.mini.world import Split, draw_scene

    rng = random.Random(3)
    seed = mini_seed("s", DialogueKind.RED_TEAM, draw_scene(rng, Split.TRAIN), picture, rng)
    outputs = []
    for tutor in ({"kind": "mini"}, {"kind": "mini", "holdout": {"judge": "mini", "share": 1.0}}):
        engine = Engine(processor.tokenizer, random.Random(7))
        loop = make_loop(processor, random_tutor(random.Random(7)), engine=engine, tutor=tutor)
        outputs.append(await loop.run({}, **row(seed)))
    plain, audited = (Trajectory.model_validate_json(o.extra_fields["trajectory"]) for o in outputs)
    assert plain.audit == () and len(audited.audit) == len(audited.turns) > 0
    assert audited.model_copy(update={"audit": ()}).scored == plain.scored
    assert outputs[0].response_ids == outputs[1].response_ids and outputs[0].response_mask == outputs[1].response_mask


@pytest.mark.parametrize("case", range(12))
async def test_the_loop_rewards_its_dialogue_as_the_reward_manager_would(
    case: int, processor: Any, picture: str
) -> None:
    from tests.reward_fns.test_manager import loaded, sample

    def section(model: bool) -> dict[str, Any]:
        return {"reward_manager": {"name": "steer_tutor"}, "reward_model": {"enable": model}}

    outputs = []
    for model in (False, True):
        rng = random.Random(case)
        engine = Engine(processor.tokenizer, rng)
        loop = make_loop(processor, random_tutor(rng, lost=0.2), engine=engine, reward=section(model))
        outputs.append(await loop.run({}, **row(random_seed(rng, picture))))
    ours, left_to_verl = outputs
    assert left_to_verl.reward_score is None, "a reward model that verl serves is asked by verl's reward worker"
    told = await loaded().run_single(sample(left_to_verl.extra_fields["trajectory"]))
    times = {"student_seconds", "tutor_seconds"}
    mine, theirs = (
        {name: value for name, value in info.items() if name not in times}
        for info in (ours.extra_fields["reward_extra_info"], told["reward_extra_info"])
    )
    assert (ours.reward_score, mine) == (told["reward_score"], theirs)
    if mine["lost"]:
        assert mine["turn_rewards"] == [] and ours.reward_score == 0.0
        return
    scores = ours.as_dict()["rm_scores"]
    assert scores[[stop - 1 for _, stop in ours.turn_spans]].tolist() == pytest.approx(mine["turn_rewards"])
    assert scores.sum().item() == pytest.approx(sum(mine["turn_rewards"]))


async def test_the_last_scoring_holds_up_neither_the_engine_nor_a_sibling(processor: Any, picture: str) -> None:
    """The first rollout's last ruling comes only when its sibling, at an engine with one place, has ended."""
    place, sibling_done = asyncio.Semaphore(1), asyncio.Event()

    class OnePlace(Engine):
        async def generate(self, *args: Any, **kwargs: Any) -> Any:
            async with place:
                await asyncio.sleep(0.01)
                return await super().generate(*args, **kwargs)

    class SlowAtTheEnd(ScriptedTutor):
        async def respond(self, exchange: TutorRequest) -> TutorResponse:
            if exchange.static_next_turn is None:
                await sibling_done.wait()
            return await super().respond(exchange)

    asked = Seed(id="s", turns=(UserTurn(text="<image>a", images=(picture,)), UserTurn(text="b"), UserTurn(text="c")))
    fields = row(asked)

    async def play(tutor: ScriptedTutor, done: asyncio.Event | None) -> Any:
        loop = make_loop(processor, tutor, engine=OnePlace(processor.tokenizer, random.Random(0)))
        output = await loop.run({}, **fields)
        if done:
            done.set()
        return output

    slow, quick = SlowAtTheEnd(lambda t, exchange: ruling(GOOD)), ScriptedTutor(lambda t, exchange: ruling(GOOD))
    first, second = await asyncio.wait_for(asyncio.gather(play(slow, None), play(quick, sibling_done)), timeout=20)
    records = [Trajectory.model_validate_json(output.extra_fields["trajectory"]) for output in (first, second)]
    assert [len(record.scored) for record in records] == [3, 3]


def settings_of(loop: Any) -> list[dict[str, Any]]:
    """Sampling parameters of each request of a loop."""
    return [call[2] for call in loop.server_manager.calls]


async def test_every_request_carries_the_seed_of_its_turn(processor: Any, picture: str) -> None:
    from steer_verl.seeds import place_seed

    played = random_seed(random.Random(3), picture)
    loop = make_loop(processor, random_tutor(random.Random(3)))
    await loop.run({"temperature": 1.0}, **row(played))
    seeds = [settings["seed"] for settings in settings_of(loop)]
    assert seeds == [place_seed(0, f"train/7/{played.id}/3/{turn}") for turn in range(1, len(seeds) + 1)]

    async def first(changes: dict[str, Any] | None = None, rollout_seed: int = 0, **extra: Any) -> dict[str, Any]:
        other = make_loop(processor, random_tutor(random.Random(3)), rollout={"seed": rollout_seed, **(changes or {})})
        await other.run({"temperature": 1.0}, **row(played, **extra))
        return settings_of(other)[0]

    assert (await first())["seed"] == seeds[0], "a uid and a process of its own change nothing"
    others = [await first(session_id=4), await first(global_steps=8), await first(rollout_seed=1)]
    assert len({settings["seed"] for settings in others} | {seeds[0]}) == 4
    assert (await first({"name": "sglang"}))["sampling_seed"] == seeds[0], "SGLang's name of it"
    assert "seed" not in await first({"name": "sglang"}), "which SGLang would refuse"


async def test_a_request_that_verl_may_break_off_carries_no_seed(processor: Any, picture: str) -> None:
    """verl would go on with the same seed: the rest of the answer would have the dice of its beginning."""
    for mode, seeded in (("sync", True), ("colocate_async", False), ("separate_async", False)):
        loop = make_loop(processor, random_tutor(random.Random(3)), trainer={"v1": {"trainer_mode": mode}})
        await loop.run({"temperature": 1.0}, **row(random_seed(random.Random(3), picture)))
        assert {("seed" in settings) for settings in settings_of(loop)} == {seeded}
