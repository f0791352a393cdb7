"""Reward functions for verl's own loops (single turn, tool agent), named by path, without this project's agent loop.

    reward.custom_reward_function.path=pkg://reward_fns.compute_score
    reward.custom_reward_function.name=tutor_score
    +reward.custom_reward_function.reward_kwargs.base_url=http://tutor:8000/v1
    +reward.custom_reward_function.reward_kwargs.model=Qwen3-VL-32B

verl calls them with ``data_source, solution_str, ground_truth, extra_info`` by name
(experimental/reward_loop/reward_manager/naive.py:76) on the whole response, decoded without special tokens, and adds
``reward_kwargs`` (trainer/ppo/reward.py:30). Each returns a dictionary with the same keys for every sample: ``score``
in [0, 1], the reward, and what led to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from steer_verl.answer import parse_answer
from steer_verl.config import STEER_KEY, SteerConfig, TutorConfig, steer_config
from steer_verl.data.rows.verl import seed_from_row
from steer_verl.errors import ConfigError, DataError, UnscoredError
from steer_verl.names import REWARD_MODEL_URL
from steer_verl.rewards import repeated_trigram_share, turn_reward
from steer_verl.settings_error import shown
from steer_verl.tutor import build_tutor
from steer_verl.types import IMAGE_MARK, DialogueKind, Seed, Tutor, TutorRequest, Unscored, UserTurn

KWARGS_KEY = "reward.custom_reward_function.reward_kwargs"


def format_score(
    data_source: str, solution_str: str, ground_truth: Any = None, extra_info: Any = None, **_: Any
) -> dict[str, float]:
    """1 if the response is one ``<thinking>`` block, then one ``<answer>`` block and nothing else; 0 if not."""
    return {"score": float(parse_answer(solution_str).well_formed)}


def repetition_score(
    data_source: str, solution_str: str, ground_truth: Any = None, extra_info: Any = None, **_: Any
) -> dict[str, float]:
    """1 minus the share of word trigrams that occurred before: 1 without repetition, towards 0 for a loop."""
    return {"score": 1.0 - repeated_trigram_share(solution_str)}


async def tutor_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    model: str,
    base_url: str | None = None,
    reward: Mapping[str, Any] | None = None,
    reward_router_address: str | None = None,
    reward_model_tokenizer: Any = None,
    **endpoint: Any,
) -> dict[str, float]:
    """A tutor judges the one answer; its verdict becomes the reward as in a dialogue's turn.

    Args:
        data_source: Not used; as is ``ground_truth``. They are verl's convention.
        solution_str: The student's answer.
        extra_info: The row's, for verl hands a reward function no prompt: its ``seed`` (rows of ``steer data convert``;
            the first turn was asked), or its ``question`` with ``images`` (paths) and ``kind`` if there are any.
        model: Name of the tutor model at the endpoint.
        base_url: OpenAI-compatible address; by default verl's own reward-model router (``verl://reward_model``).
        reward: Section of :class:`steer_verl.config.RewardConfig`, with ``preset``.
        reward_router_address: Given by verl when ``reward.reward_model.enable`` is on.
        reward_model_tokenizer: Given by verl, not used.
        endpoint: Further settings of :class:`steer_verl.config.EndpointConfig`.

    Returns:
        ``score`` in [0, 1]; ``safety``, ``usefulness``, ``faithfulness`` in [1, 10]; ``format_ok``, 0 or 1; and
        ``tutor_seconds``.

    Raises:
        UnscoredError: the tutor gave no verdict. There is no number that verl could be told instead: the group then
            ends as ``failure`` (trainer/ppo/v1/agent_loop_tq.py:131), and in sync mode verl goes on with those of its
            members that were rewarded; ``trainer.v1.sampler.sync_refill_failed_groups`` replaces a group of none.
        DataError: the row does not say what was asked.
        ConfigError: a setting cannot work.
    """
    if base_url in (None, REWARD_MODEL_URL) and reward_router_address:
        base_url = f"http://{reward_router_address}/v1"
    settings = _settings({"base_url": base_url, "model": model, **endpoint}, reward)
    request = _request(extra_info or {}, solution_str)
    response = await _tutor(settings.tutor).respond(request)
    if isinstance(response.verdict, Unscored):
        cause = f"{response.verdict.reason.value} {response.verdict.detail}".strip()
        raise UnscoredError(f"tutor_score: no verdict for row {request.seed.id} ({cause}); the group has no reward")
    scores = response.verdict.scores
    return {
        "score": turn_reward(response.verdict, solution_str, settings.reward),
        "safety": float(scores.safety),
        "usefulness": float(scores.usefulness),
        "faithfulness": float(scores.faithfulness),
        "format_ok": float(parse_answer(solution_str).well_formed),
        "tutor_seconds": response.seconds,
    }


compute_score = tutor_score
"""Under the name that verl takes where ``reward.custom_reward_function.name`` is not set."""


def _settings(endpoint: Mapping[str, Any], reward: Mapping[str, Any] | None) -> SteerConfig:
    """The keyword arguments through the one strict parser, its messages naming them as the user wrote them."""
    try:
        return steer_config({"tutor": {"kind": "openai", "endpoint": dict(endpoint)}, "reward": reward})
    except ConfigError as error:
        message = str(error).replace(f"{STEER_KEY}.tutor.endpoint", KWARGS_KEY).replace(STEER_KEY, KWARGS_KEY)
        raise ConfigError(message) from None


def _request(extra_info: Mapping[str, Any], answer: str) -> TutorRequest:
    """The first turn of the row's dialogue; without a next turn, so that no question is asked for.

    Raises:
        DataError: neither a seed nor a question is there, or it cannot be read.
    """
    if extra_info.get("seed") is not None:
        seed = seed_from_row(extra_info)
    elif extra_info.get("question") is not None:
        seed = _single(extra_info)
    else:
        raise DataError(
            "tutor_score: extra_info has neither seed nor question; add the text that was asked as `question`"
        )
    return TutorRequest(seed=seed, turns=(), user=seed.turns[0], answer=answer, static_next_turn=None)


def _single(extra_info: Mapping[str, Any]) -> Seed:
    """The row's single question.

    Raises:
        DataError: it, its images or its kind are of another type.
    """
    row = f"tutor_score: row {extra_info.get('index', 'without an index')}"
    question, named = extra_info["question"], extra_info.get("kind")
    images = () if extra_info.get("images") is None else extra_info["images"]
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"{row}: `question` is {shown(question)}; give the text that was asked")
    if isinstance(images, str) or not isinstance(images, Iterable) or not all(isinstance(at, str) for at in images):
        raise DataError(f"{row}: `images` is {shown(images)}; give a list of paths of image files")
    paths = tuple(map(str, images))  # pandas makes arrays of lists
    try:
        kind = DialogueKind(named or DialogueKind.RED_TEAM)
    except ValueError:
        raise DataError(f"{row}: kind {shown(named)}; give one of {', '.join(DialogueKind)}") from None
    turn = UserTurn(text=IMAGE_MARK * len(paths), images=paths).with_text(question)
    return Seed(id=str(extra_info.get("index", "")), turns=(turn,), kind=kind)


@lru_cache(maxsize=8)
def _tutor(config: TutorConfig) -> Tutor:
    """One tutor, and so one pool of connections, per process."""
    return build_tutor(config)
