"""A run killed anywhere and started again: what the cache holds is not paid for twice, and nothing else counts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image

from steer_verl.records import _process_name
from steer_verl.types import Seed, TutorResponse, UserTurn
from tests.scripted import GOOD, LOST, ScriptedTutor, ruling, seed

pytest.importorskip("verl")

from rollout.resume import prune, run_identity
from steer_verl.models.cache import Cache
from steer_verl.tutor.cached import CachedTutor
from tests.rollout.test_agent_loop import Engine, make_loop, processor, row  # noqa: F401 - a fixture


def loop_on(folder: Path, processor: Any, tutor: ScriptedTutor, engine_seed: int) -> Any:  # noqa: F811
    """A loop of a new process: a cache that has read nothing, and an engine that says other things."""
    _process_name.cache_clear()  # a process of another name
    loop = make_loop(processor, tutor, engine=Engine(processor.tokenizer, random.Random(engine_seed)))
    loop.cache = Cache(folder / "run")
    loop.tutor = CachedTutor(tutor, loop.cache)
    return loop


def asks(rng: random.Random) -> ScriptedTutor:
    """A tutor whose questions differ from one process to the next."""
    return ScriptedTutor(lambda t, exchange: ruling(GOOD, f"question {t} {rng.random()}"))


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("kept", range(9))
async def test_whatever_was_written_before_the_kill_is_played_again(
    tmp_path: Path,
    processor: Any,  # noqa: F811
    kept: int,
    torn: bool,
) -> None:
    first = asks(random.Random(1))
    before = await loop_on(tmp_path, processor, first, 1).run({}, **row(seed(4)))
    (file,) = tmp_path.rglob("*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) == 8  # an answer and a ruling for each of 4 turns
    file.write_bytes(b"".join(lines[:kept]) + (lines[kept][:40] if torn and kept < 8 else b""))

    second = asks(random.Random(2))
    loop = loop_on(tmp_path, processor, second, 2)
    after = await loop.run({}, **row(seed(4)))

    answers, rulings = (kept + 1) // 2, kept // 2
    assert len(second.seen) == 4 - rulings
    assert len(loop.server_manager.calls) == 4 - answers
    same = before.turn_spans[answers - 1][1] if answers else 0
    assert after.response_ids[:same] == before.response_ids[:same]
    assert after.response_mask[:same] == before.response_mask[:same]
    assert after.response_logprobs[:same] == pytest.approx(before.response_logprobs[:same], abs=1e-6)
    if kept == 8:
        assert after.extra_fields["min_global_steps"] == before.extra_fields["min_global_steps"]
        assert after.extra_fields["max_global_steps"] == before.extra_fields["max_global_steps"]


async def test_another_step_rollout_or_run_finds_nothing(tmp_path: Path, processor: Any) -> None:  # noqa: F811
    await loop_on(tmp_path, processor, asks(random.Random(1)), 1).run({}, **row(seed(4)))
    for other in ({"global_steps": 8}, {"session_id": 4}):
        tutor = asks(random.Random(2))
        await loop_on(tmp_path, processor, tutor, 2).run({}, **row(seed(4), **other))
        assert len(tutor.seen) == 4
    tutor = asks(random.Random(2))
    loop = loop_on(tmp_path, processor, tutor, 2)
    loop.cache = Cache(tmp_path / "other settings")
    loop.tutor = CachedTutor(tutor, loop.cache)
    await loop.run({}, **row(seed(4)))
    assert len(tutor.seen) == 4


@pytest.mark.parametrize("shared", [True, False])
async def test_an_answer_to_another_picture_of_the_same_path_and_size_is_none(
    tmp_path: Path,
    processor: Any,  # noqa: F811
    shared: bool,
) -> None:
    path = tmp_path / "picture.png"
    asked = Seed(id="s", turns=(UserTurn(text="<image>a", images=(str(path),)), UserTurn(text="b")))

    async def calls(colour: str) -> int:
        Image.new("RGB", (84, 84), colour).save(path)
        loop = loop_on(tmp_path, processor, ScriptedTutor(lambda t, exchange: ruling(GOOD, "b")), 1)
        loop.steer = loop.steer.model_copy(update={"share_images": shared})
        await loop.run({}, **row(asked))
        return len(loop.server_manager.calls)

    assert [await calls(colour) for colour in ("red", "red", "blue", "red")] == [2, 0, 2, 0]


async def test_an_unscored_turn_is_asked_for_again(tmp_path: Path, processor: Any) -> None:  # noqa: F811
    def lost_at_two(t: int, exchange: Any) -> TutorResponse:
        return ruling(LOST if t == 1 else GOOD, f"question {t}")

    first = await loop_on(tmp_path, processor, ScriptedTutor(lost_at_two), 1).run({}, **row(seed(4)))
    assert '"stop":"unscored"' in first.extra_fields["trajectory"]
    again = ScriptedTutor(lambda t, exchange: ruling(GOOD, f"question {t}"))
    second = await loop_on(tmp_path, processor, again, 2).run({}, **row(seed(4)))
    assert '"stop":"completed"' in second.extra_fields["trajectory"]
    assert [len(exchange.turns) for exchange in again.seen] == [1, 2, 3]


def test_steps_in_a_checkpoint_are_deleted(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for step in ("train/3", "train/4", "val/4", "train/5", "train/bucket-05"):
        (cache / "run" / step).mkdir(parents=True)
    prune(cache)
    assert len(list(cache.glob("*/*/*"))) == 5  # no checkpoint yet: everything may be needed
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("4")
    prune(cache)
    assert sorted(path.name for path in cache.glob("*/*/*")) == ["5", "bucket-05"]


def test_identity_is_of_what_decides_the_answers() -> None:
    def config(**changes: Any) -> Any:
        steer = {"attack": "adaptive", "tutor": {"endpoint": {"timeout": 5}}}
        base = OmegaConf.create(
            {
                "data": {"seed": 0},
                "algorithm": {"adv_estimator": "tcsr"},
                "actor_rollout_ref": {
                    "model": {"path": "m"},
                    "actor": {"optim": {"lr": 1.0}},
                    "rollout": {"temperature": 1.0, "custom": {"steer": steer}},
                },
            }
        )
        for key, value in changes.items():
            OmegaConf.update(base, key.replace("__", "."), value)
        return run_identity(base)

    steer = "actor_rollout_ref__rollout__custom__steer__"
    assert config() == config(**{f"{steer}tutor__endpoint__timeout": 50, f"{steer}transcripts": "elsewhere"})
    changed = {
        config(actor_rollout_ref__actor__optim__lr=2.0),
        config(actor_rollout_ref__model__path="n"),
        config(actor_rollout_ref__rollout__temperature=0.5),
        config(data__seed=1),
        config(**{f"{steer}attack": "static"}),
    }
    assert len(changed | {config()}) == 6


def test_identity_is_of_the_actor_the_reward_and_the_students_own_files(tmp_path: Path) -> None:
    steer = {"reward": {"preset": "steer"}}
    config = OmegaConf.create(
        {
            "data": {},
            "algorithm": {},
            "actor_rollout_ref": {
                "model": {"path": str(tmp_path)},
                "actor": {"kl_loss_coef": 0.02},
                "rollout": {"custom": {"steer": steer}},
            },
        }
    )
    seen = [run_identity(config)]
    config.actor_rollout_ref.actor.kl_loss_coef = 0.04
    seen.append(run_identity(config))
    config.actor_rollout_ref.rollout.custom.steer.reward.preset = "paper"
    seen.append(run_identity(config))
    (tmp_path / "model.safetensors").write_bytes(b"another student at the same path")
    seen.append(run_identity(config))
    assert len(set(seen)) == 4 and run_identity(config) == seen[-1]
