"""Reward functions named by path, called as verl's naive manager calls them; the tutor is a real HTTP server."""

from __future__ import annotations

import inspect
import json
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reward_fns.compute_score import format_score, repetition_score, tutor_score
from steer_verl.errors import ConfigError, DataError, UnscoredError
from steer_verl.types import Seed, UserTurn
from tests.models.fault_server import MODEL, FaultServer, good, prompt_text, status
from tests.test_rewards import BAD_FORM, GOOD_FORM

ROW = {"index": 7, "question": "What is on the desk?", "num_turns": 2, "rollout_reward_scores": {}}


def call(function: Any, answer: str, extra_info: Any = None, **kwargs: Any) -> Any:
    """verl's calling convention (experimental/reward_loop/reward_manager/naive.py:76, trainer/ppo/reward.py:30)."""
    return function(data_source="mini", solution_str=answer, ground_truth="", extra_info=extra_info or ROW, **kwargs)


def test_format_and_repetition() -> None:
    assert call(format_score, GOOD_FORM) == {"score": 1.0}
    assert call(format_score, BAD_FORM) == {"score": 0.0}
    assert call(repetition_score, "a b c a b c") == {"score": 0.75}
    assert call(repetition_score, "", reward_router_address="127.0.0.1:1", reward_model_tokenizer=None) == {
        "score": 1.0
    }


def test_verl_can_tell_which_one_to_await() -> None:
    assert inspect.iscoroutinefunction(tutor_score)
    assert not inspect.iscoroutinefunction(format_score)


async def test_the_verdict_becomes_the_reward() -> None:
    async with FaultServer(good((10, 10, 1))) as server:
        result = await call(tutor_score, GOOD_FORM, base_url=server.base_url, model=MODEL)
        assert result["score"] == pytest.approx(0.8) and result["format_ok"] == 1
        assert (result["safety"], result["usefulness"], result["faithfulness"]) == (10, 10, 1)
        gated = await call(tutor_score, BAD_FORM, base_url=server.base_url, model=MODEL)
        assert gated["score"] == 0 and tuple(gated) == tuple(result)
        tenth = {"preset": "paper", "normalization": "tenth"}
        lenient = await call(tutor_score, BAD_FORM, base_url=server.base_url, model=MODEL, reward=tenth)
        assert lenient["score"] == pytest.approx(0.82)
    sent = prompt_text(server.bodies[0])
    assert "What is on the desk?" in sent and "a red cube" in sent


async def test_a_seed_in_the_row_says_what_was_asked() -> None:
    seed = Seed(id="s", turns=(UserTurn(text="First question?"), UserTurn(text="Second question?")))
    async with FaultServer() as server:
        address = server.base_url.removeprefix("http://").removesuffix("/v1")
        row, router = {"seed": seed.model_dump_json()}, {"model": MODEL, "reward_router_address": address}
        named = await call(tutor_score, GOOD_FORM, row, base_url="verl://reward_model", **router)
        assert named["score"] == (await call(tutor_score, GOOD_FORM, row, **router))["score"]
    sent = prompt_text(server.bodies[0])
    assert "First question?" in sent and "Second question?" not in sent


async def test_no_verdict_is_an_error_and_never_a_number() -> None:
    async with FaultServer(status(400)) as server:
        with pytest.raises(UnscoredError, match=r"row 7 \(http_4xx"):
            await call(tutor_score, GOOD_FORM, base_url=server.base_url, model=MODEL, max_retries=0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"base_url": None}, "reward_kwargs.base_url"),
        ({"timeot": 3}, "reward_kwargs.timeot: unknown key"),
        ({"timeout": -3}, "reward_kwargs.timeout"),
        ({"reward": {"format": "strict"}}, "reward_kwargs.reward.format"),
    ],
)
async def test_settings_that_cannot_work_name_the_key_as_it_was_written(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        await call(tutor_score, GOOD_FORM, **{"base_url": "http://127.0.0.1:1/v1", "model": MODEL, **kwargs})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"api_key": "Key123"}, "reward_kwargs.api_key: unknown key; .*set api_key_env"),
        ({"headers": {"x-api-key": "Key123"}}, "reward_kwargs.headers: unknown key"),
        ({"base_url": "http://u:Key123@host/v1"}, "reward_kwargs.base_url: holds a user or a password"),
        ({"base_url": "http://host/v1?key=Key123"}, r"reward_kwargs.base_url: holds a query .*\(http://host\)"),
        ({"api_key_env": "sk-Key123"}, "reward_kwargs.api_key_env: is no name"),
        ({"mirrors": [{"base_url": "http:u:Key123@host"}]}, r"reward_kwargs.mirrors.0.base_url: holds a user"),
        ({"timeout": "sk-Key123"}, "reward_kwargs.timeout"),
        ({"reward": {"format": {"api_key": "Key123"}}}, "reward_kwargs.reward.format"),
        ({"reward": "Key123"}, "reward_kwargs.reward: a mapping"),
    ],
)
async def test_a_key_in_a_wrong_place_is_refused_and_not_repeated(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        await call(tutor_score, GOOD_FORM, **{"base_url": "http://127.0.0.1:1/v1", "model": MODEL, **kwargs})
    assert "Key123" not in "".join(traceback.format_exception(error.value))


async def test_a_kind_that_is_none_names_the_row_and_the_three() -> None:
    with pytest.raises(DataError, match="row 7: kind 'harmful'; give one of benign, obfuscated, red_team"):
        await call(tutor_score, GOOD_FORM, {**ROW, "kind": "harmful"}, base_url="http://127.0.0.1:1/v1", model=MODEL)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"question": [{"role": "user", "content": "What is it?"}]}, "row 7: `question` is a list; give the text"),
        ({"question": np.array([{"role": "user"}, {"role": "user"}])}, "row 7: `question` is of type ndarray"),
        ({"question": " "}, "row 7: `question` is ' '"),
        ({"images": "/a.png"}, "row 7: `images` is '/a.png'; give a list of paths"),
        ({"images": [{"bytes": b"sk-Key123"}]}, "row 7: `images` is a list; give a list of paths"),
        ({"images": float("nan")}, "row 7: `images` is nan"),
    ],
)
async def test_a_column_of_another_type_is_refused_and_not_judged_as_text(
    columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        await call(tutor_score, GOOD_FORM, {**ROW, **columns}, base_url="http://127.0.0.1:1/v1", model=MODEL)


async def test_images_of_a_row_may_be_an_array(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path in paths:
        Image.new("RGB", (30, 30)).save(path)
    row = {**ROW, "images": np.array([str(path) for path in paths])}
    async with FaultServer(good()) as server:
        await call(tutor_score, GOOD_FORM, row, base_url=server.base_url, model=MODEL)
        (request,) = server.bodies
    assert json.dumps(request).count("data:image/png") == 2


async def test_a_row_that_does_not_say_what_was_asked() -> None:
    with pytest.raises(DataError, match="question"):
        await call(tutor_score, GOOD_FORM, {"index": 1}, base_url="http://127.0.0.1:1/v1", model=MODEL)
