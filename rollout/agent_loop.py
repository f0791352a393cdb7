"""verl's agent loop for a dialogue against the tutor: registered as ``steer_dialogue``.

An adapter: the game is in :mod:`steer_verl.dialogue`, the tokens in :mod:`rollout.context`; here they meet verl's
engine (``LLMServerClient.generate``) and verl's output record.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar
from uuid import uuid4

from pydantic import Field, PrivateAttr
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput
from verl.workers.rollout.replica import TokenOutput

from rollout.context import OverlongError, TokenContext
from rollout.images import ImageStore, SharedImages
from rollout.processors import layout_of
from rollout.resume import VERSIONS, KeptAnswer, answer_digest
from rollout.worker import worker_of
from steer_verl.data.rows.verl import seed_from_row
from steer_verl.dialogue import Dialogue, user_message
from steer_verl.errors import DataError
from steer_verl.rewards import TURN_REWARDS, dialogue_reward
from steer_verl.tcsr import lay_out_rewards
from steer_verl.text import one_line, special_tokens_of
from steer_verl.tutor.holdout import draws
from steer_verl.types import (
    DialogueKind,
    Spent,
    Status,
    StopReason,
    Trajectory,
    UserTurn,
    dialogue_key,
)

T = TypeVar("T")

logger = logging.getLogger(__name__)


class DialogueOutput(AgentLoopOutput):
    """verl's output record whose reward is dense: each turn's reward on that turn's last student token.

    Beside the scalar come ``turn_rewards`` (steer_verl/rewards.py); :meth:`as_dict`, which the V1 trainer calls
    (trainer/ppo/v1/agent_loop_tq.py:194), lays them out, and the turn spans with them (steer_verl/tcsr.py). Another
    reward's scalar stays where verl puts it.
    """

    turn_spans: list[tuple[int, int]] = Field(default_factory=list)
    _store: ImageStore | None = PrivateAttr(default=None)
    """Held until verl has made the final tensors, which need the images' features once more."""

    def as_dict(self) -> dict[str, Any]:
        """verl's dictionary with ``rm_scores`` (T,) filled turn by turn.

        Raises:
            ValueError: rewards and turns differ in number, or two turns have no token between them.
        """
        output = super().as_dict()
        spans = output.pop("turn_spans", [])
        rewards = output["extra_fields"].get("reward_extra_info", {}).pop(TURN_REWARDS, None)
        if rewards is not None:
            output["rm_scores"] = lay_out_rewards(rewards, spans, len(output["response_mask"]))
        return output


class TurnClock:
    """Where a turn's time goes: to the student's engine, and to us before and after it until the tutor is asked."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.engine = self.asked_at = 0.0

    async def student(self, answer: Awaitable[T]) -> T:
        """The answer, timed."""
        asked, self.asked_at = time.perf_counter(), time.time()
        output = await answer
        self.engine = time.perf_counter() - asked
        return output

    def spent(self, output: TokenOutput, prompt_tokens: int) -> Spent:
        """So far. An answer out of the cache, or of an engine that does not tell, counts no prompt."""
        cached = output.extra_fields.get("num_cached_tokens")
        return Spent(
            student_seconds=self.engine,
            own_seconds=time.perf_counter() - self.began - self.engine,
            asked_at=self.asked_at,
            prompt_tokens=0 if cached is None else prompt_tokens,
            cached_tokens=cached or 0,
        )


class SteerAgentLoop(AgentLoopBase):
    """Plays one dialogue per call of :meth:`run`; verl makes one instance per trajectory."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker = worker_of(self.config)
        self.steer, self.cache, self.tutor = self.worker.steer, self.worker.cache, self.worker.tutor
        if self.steer.share_images and self.processor is not None:
            options = self._get_mm_processor_kwargs()
            self.continuous_token_builder.processor = layout_of(self.processor, options)
        self.versions: dict[str, int] = {}
        # One id per trajectory, so that verl's router sends every turn to the server that holds its prefix.
        self.request_id = uuid4().hex

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput:
        """Play the row's seed to its end. Never raises: a dialogue that cannot be played is a lost member of its group.

        Args:
            sampling_params: verl's, shared by the group: copied before use.
            row: Dataset fields, ``extra_info`` with the seed among them, and ``uid``, ``session_id``, ``global_steps``.
        """
        dialogue: Dialogue | None = None
        try:
            dialogue = self.dialogue(row)
            context = await self.play(dialogue, sampling_params, row)
            await dialogue.settled()
            await context.store.encoded(context.images)
            trajectory = dialogue.trajectory(**place(row))
            if self.worker.transcripts:
                self.worker.transcripts.append(trajectory)
            return self.output(context, trajectory)
        except Exception as error:  # verl would drop the whole group, and nobody would count it
            return self.lost(error, dialogue, row)
        finally:
            if dialogue is not None:
                dialogue.abandon()

    async def play(self, dialogue: Dialogue, sampling_params: dict[str, Any], row: Mapping[str, Any]) -> TokenContext:
        """Ask and answer until the dialogue is over; its verdicts may still be under way."""
        question: UserTurn | None = dialogue.open()
        system = [message for message in row["raw_prompt"] if message["role"] == "system"]
        clock = TurnClock()
        context = await TokenContext.start(
            self, self.image_store(row), [*system, *dialogue.messages], self.worker.response_length
        )
        while question is not None:
            context.expect(dialogue.static_next_turn.images if dialogue.static_next_turn else ())
            cap = min(self.steer.max_answer_tokens, context.room - 1)  # 1: the end token of a cut answer
            settings = {**sampling_params, "max_tokens": cap, **self.worker.dice.params(dialogue.turn_key)}
            output = await clock.student(self.answer(dialogue.turn_key, context, settings))
            if not output.token_ids:
                dialogue.end(StopReason.ABORTED)
                break
            prompt_tokens = len(context.ids)
            text, ended = self.decode(output.token_ids)
            context.add_answer(output, text)
            question = await dialogue.respond(
                text,
                answer_tokens=len(output.token_ids),
                truncated=len(output.token_ids) == cap and not ended,
                spent=clock.spent(output, prompt_tokens),
            )
            clock = TurnClock()
            reserve = self.steer.max_answer_tokens + 1  # a full-length answer and, should it be cut, its end token
            if question and not await context.add_question(user_message(question), reserve):
                dialogue.end(StopReason.TOKEN_BUDGET)
                question = None
        return context

    def dialogue(self, row: Mapping[str, Any]) -> Dialogue:
        """The dialogue of a dataset row.

        Raises:
            DataError: the row carries no seed.
        """
        seed = seed_from_row(row["extra_info"], row["raw_prompt"])
        here, holdout = place(row), self.steer.tutor.holdout
        drawn = holdout is not None and draws(holdout.share, here["step"], seed.id, here["rollout"])
        return Dialogue(
            seed,
            self.tutor,
            attack=self.steer.attack,
            max_turns=self.steer.max_turns,
            max_question_chars=self.steer.max_question_chars,
            key=dialogue_key(here["validate_run"], here["step"], seed.id, here["rollout"]),
            special_tokens=special_tokens_of(self.tokenizer),
            holdout=self.worker.holdout if drawn else None,
        )

    def image_store(self, row: Mapping[str, Any]) -> ImageStore:
        """The group's, or this rollout's own."""
        return SharedImages.of(str(row["uid"])) if self.steer.share_images and "uid" in row else ImageStore()

    async def answer(self, turn_key: str, context: TokenContext, sampling_params: dict[str, Any]) -> TokenOutput:
        """One answer: the kept one, if this run was killed after it had been given, else the engine's."""
        images = await context.store.digests(context.images) if self.cache else []
        digest = answer_digest(context.ids, images, sampling_params)
        kept = self.cache.get(turn_key, digest, KeptAnswer)
        if kept is not None:
            output = kept.output()
        else:
            output = await self.server_manager.generate(
                request_id=self.request_id,
                prompt_ids=context.ids,
                sampling_params=sampling_params,
                image_data=context.handed_images,
                # The engine must cut images into as many tokens as the processor did: data.mm_processor_kwargs.
                mm_processor_kwargs=self._get_mm_processor_kwargs() or None,
            )
            if output.token_ids:  # before the tutor is asked about it
                self.cache.put(turn_key, digest, KeptAnswer.of(output))
        # The trainer's staleness metrics need a trajectory's first and last weight version (trainer_base.py:1897).
        self.versions.setdefault("min_global_steps", output.extra_fields["min_global_steps"])
        self.versions["max_global_steps"] = output.extra_fields["max_global_steps"]
        return output

    def decode(self, token_ids: list[int]) -> tuple[str, bool]:
        """The text of an answer without its end token, and whether it had one.

        Other special tokens stay visible: what the student wrote is what the tutor judges.
        """
        ended = token_ids[-1] == self.tokenizer.eos_token_id
        return str(self.tokenizer.decode(token_ids[: -1 if ended else None], skip_special_tokens=False)), ended

    def lost(self, error: Exception, dialogue: Dialogue | None, row: Mapping[str, Any]) -> DialogueOutput:
        """The record of a dialogue that raised, in the transcripts if they can be written, and verl's output for it."""
        reason, detail = stop_of(error), one_line(f"{type(error).__name__}: {error}")
        if dialogue is None:
            index = (row.get("extra_info") or {}).get("index", "")
            trajectory = Trajectory(
                seed_id=f"row {index}",
                kind=DialogueKind.RED_TEAM,
                turns=(),
                stop=reason,
                detail=detail,
                **place(row),
            )
        else:
            dialogue.end(reason, detail)
            trajectory = dialogue.trajectory(**place(row))
        logger.error("dialogue %s is lost (%s): %s", trajectory.key, reason.value, detail, exc_info=error)
        if self.worker.transcripts and reason is not StopReason.DISK:
            with contextlib.suppress(OSError):
                self.worker.transcripts.append(trajectory)
        return self.output(TokenContext.empty(self), trajectory)

    def output(self, context: TokenContext, trajectory: Trajectory) -> DialogueOutput:
        """verl's record. A lost dialogue is one end token without loss: it costs the trainer nothing."""
        if trajectory.status is Status.LOST:
            context = TokenContext.empty(self)
        # Where nobody answered, the weights that a step begins with: verl would count later ones as staleness below 0.
        steps = dict.fromkeys(VERSIONS, trajectory.step - 1)
        output = DialogueOutput(
            prompt_ids=context.ids[: context.prompt_length],
            response_ids=context.ids[context.prompt_length :],
            response_mask=context.mask,
            response_logprobs=context.log_probs,
            multi_modal_data={"images": context.images} if context.images else {},
            num_turns=2 * len(trajectory.turns),
            metrics=AgentLoopMetrics(
                generate_sequences=sum(turn.student_seconds for turn in trajectory.turns),
                tool_calls=sum(turn.tutor_seconds for turn in trajectory.turns),
            ),
            extra_fields={**steps, **self.versions, "trajectory": trajectory.model_dump_json()},
            turn_spans=context.turn_spans,
        )
        output._store = context.store
        if self.worker.tcsr is not None:
            reward = dialogue_reward(trajectory, self.steer.reward, self.worker.tcsr)
            output.reward_score = reward["reward_score"]
            output.extra_fields["reward_extra_info"] = reward["reward_extra_info"]
        return output


def stop_of(error: Exception) -> StopReason:
    """What was raised, as the reason why a dialogue is lost."""
    if isinstance(error, OverlongError):
        return StopReason.OVERLONG
    if isinstance(error, DataError):
        return StopReason.DATA
    if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
        return StopReason.DISK
    return StopReason.ERROR


def place(row: Mapping[str, Any]) -> dict[str, Any]:
    """Which dialogue of the run a row's is; verl does not tell a loop that it validates, so the row's split does."""
    return {
        "step": int(row.get("global_steps", -1)),
        "uid": str(row.get("uid", "")),
        "rollout": int(row.get("session_id", 0)),
        "validate_run": ((row.get("extra_info") or {}).get("split") or "train") != "train",
    }
