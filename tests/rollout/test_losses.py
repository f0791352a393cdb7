"""A dialogue that we or a server lose: one record with a reason, one output without loss, and nobody else's advantage.

The loop is the real one, on verl's base class, processor and token builder; engine and tutor are scripted.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steer_verl import records
from steer_verl.config import TCSR_PRESETS
from steer_verl.metrics import trajectory_metrics
from steer_verl.models.cache import Cache
from steer_verl.tcsr import compute_tcsr_advantage
from steer_verl.transcripts import read_transcripts
from steer_verl.types import (
    Scores,
    Seed,
    Status,
    Trajectory,
    TutorRequest,
    TutorResponse,
    Unscored,
    UnscoredReason,
    UserTurn,
    Verdict,
)
from tests.rollout.test_agent_loop import OURS, Engine, make_loop, picture, processor, row
from tests.scripted import GOOD, ScriptedTutor, ruling

__all__ = ["picture", "processor"]

pytest.importorskip("verl")


def seed_of(turns: int = 4, images: dict[int, str] | None = None) -> Seed:
    """Plain questions, with an image in some turns."""
    images = images or {}
    return Seed(
        id="s",
        turns=tuple(
            UserTurn(text="<image>" * (t in images) + f"question {t}", images=(images[t],) if t in images else ())
            for t in range(turns)
        ),
    )


def good_tutor() -> ScriptedTutor:
    return ScriptedTutor(lambda t, _: ruling(GOOD, f"next {t}"))


def record_of(output: Any) -> Trajectory:
    return Trajectory.model_validate_json(output.extra_fields["trajectory"])


def accepted_by_verl(output: Any) -> None:
    """What verl's worker makes of an output: fields of one length, and none that trains."""
    fields = output.as_dict()
    length = len(fields["responses"])
    assert length >= 1 and len(fields["prompts"]) >= 1
    assert all(len(fields[name]) == length for name in ("response_mask", "rm_scores", "rollout_log_probs"))
    assert not fields["response_mask"].any() and not fields["rm_scores"].any()
    assert {"min_global_steps", "max_global_steps"} <= set(fields["extra_fields"])
    assert fields["extra_fields"]["reward_extra_info"]["lost"] == 1.0


class Raises(Engine):
    """An engine that raises at its n-th call (from 1)."""

    def __init__(self, *args: Any, error: Exception, at: int) -> None:
        super().__init__(*args)
        self.error, self.at = error, at

    async def generate(self, request_id: str, **call: Any) -> Any:
        if len(self.calls) + 1 >= self.at:
            raise self.error
        return await super().generate(request_id, **call)


class RaisingTutor(ScriptedTutor):
    """A tutor of somebody's own with a bug at turn ``at`` (from 0)."""

    def __init__(self, at: int) -> None:
        super().__init__(lambda t, _: ruling(GOOD, f"next {t}"))
        self.at = at

    async def respond(self, exchange: TutorRequest) -> TutorResponse:
        if len(exchange.turns) == self.at:
            raise KeyError("scores")
        return await super().respond(exchange)


def _no_seed(tmp: Path, picture: str) -> dict[str, Any]:
    return {"fields": {"raw_prompt": [], "extra_info": {"index": 5}, "uid": "u", "global_steps": 7}}


def _torn_image(tmp: Path, picture: str) -> dict[str, Any]:
    torn = tmp / "torn.png"
    torn.write_bytes(Path(picture).read_bytes()[:60])
    return {"seed": seed_of(images={0: str(torn)})}


TRIGGERS: dict[str, tuple[str, int, Callable[[Path, str], dict[str, Any]]]] = {
    "a row without a seed": ("data", 0, _no_seed),
    "an opening image that is torn": ("data", 0, _torn_image),
    "a later image that is gone": ("data", 2, lambda tmp, _: {"seed": seed_of(images={2: str(tmp / "gone.png")})}),
    "an opening too long, in text": (
        "overlong",
        0,
        lambda *_: {"seed": Seed(id="s", turns=(UserTurn(text="what is it? " * 60), UserTurn(text="b")))},
    ),
    "an opening too long, by its images": (
        "overlong",
        0,
        lambda _, picture: {
            "seed": Seed(
                id="s", turns=(UserTurn(text="<image>" * 9 + "what?", images=(picture,) * 9), UserTurn(text="b"))
            )
        },
    ),
    "an engine that raises at once": ("error", 0, lambda *_: {"error": RuntimeError("engine died"), "at": 1}),
    "an engine that raises later": ("error", 2, lambda *_: {"error": ConnectionResetError("gone"), "at": 3}),
    "a tutor that raises at the first turn": ("error", 1, lambda *_: {"tutor": RaisingTutor(0)}),
    "a tutor that raises at the last turn": ("error", 4, lambda *_: {"tutor": RaisingTutor(3)}),
}


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("name", TRIGGERS)
async def test_whatever_is_raised_is_one_lost_record(
    name: str, share: bool, processor: Any, picture: str, tmp_path: Path
) -> None:
    reason, turns, make = TRIGGERS[name]
    case = make(tmp_path, picture)
    engine = Engine(processor.tokenizer, random.Random(0))
    if "error" in case:
        engine = Raises(processor.tokenizer, random.Random(0), error=case["error"], at=case["at"])
    log = tmp_path / "log"
    loop = make_loop(
        processor,
        case.get("tutor", good_tutor()),
        engine=engine,
        reward=OURS,
        transcripts=str(log),
        share_images=share,
    )
    output = await loop.run({}, **case.get("fields", row(case.get("seed", seed_of()), uid="u")))
    record = record_of(output)
    assert (record.status, record.lost, len(record.turns)) == (Status.LOST, reason, turns), record.detail
    assert record.detail and "\n" not in record.detail
    accepted_by_verl(output)
    # verl's staleness of a step is its number less 1 and these (trainer_base.py:1979): 0 of whom nobody answered
    assert turns or {output.extra_fields[f"{end}_global_steps"] for end in ("min", "max")} == {record.step - 1}
    assert [kept.model_dump_json() for kept in read_transcripts(log)] == [record.model_dump_json()]
    metrics = trajectory_metrics([record])
    assert metrics["steer/lost_share"] == metrics[f"steer/lost/{reason}"] == 1.0


async def test_a_full_disk_loses_the_dialogue_and_is_counted(
    processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dialogue that cannot be kept is not trained on: nobody could ever look at it."""

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    loop = make_loop(processor, good_tutor(), reward=OURS, transcripts=str(tmp_path / "t"))
    loop.cache = Cache(tmp_path / "cache")
    monkeypatch.setattr(records.os, "write", full)
    output = await loop.run({}, **row(seed_of()))
    monkeypatch.undo()
    record = record_of(output)
    assert (record.status, record.lost, len(record.scored)) == (Status.LOST, "disk", 4)
    accepted_by_verl(output)


async def test_a_cancelled_dialogue_is_cancelled_and_leaves_nothing_behind(
    processor: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Silent(ScriptedTutor):
        async def respond(self, exchange: TutorRequest) -> TutorResponse:
            await asyncio.sleep(3600)
            raise AssertionError

    task = asyncio.ensure_future(make_loop(processor, Silent(lambda *_: ruling())).run({}, **row(seed_of())))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert [one for one in asyncio.all_tasks() if one is not asyncio.current_task()] == []
    gc.collect()
    assert "never retrieved" not in caplog.text and "never awaited" not in caplog.text


async def test_a_held_out_judge_that_raises_loses_nothing(processor: Any) -> None:
    class Broken:
        name = "broken"

        async def judge(self, request: TutorRequest) -> Any:
            raise ZeroDivisionError("no")

    loop = make_loop(
        processor, good_tutor(), reward=OURS, tutor={"kind": "mini", "holdout": {"judge": "mini", "share": 1.0}}
    )
    loop.worker = type(loop.worker)(**{**vars(loop.worker), "holdout": Broken()})
    record = record_of(await loop.run({}, **row(seed_of())))
    assert record.status is Status.COMPLETE and len(record.audit) == 4
    assert all(isinstance(result.scores, Unscored) for result in record.audit)


async def test_a_dialogue_cut_by_the_policys_own_budget_stays_in_its_group(processor: Any) -> None:
    output = await make_loop(processor, good_tutor(), response=40, reward=OURS).run({}, **row(seed_of(10)))
    record = record_of(output)
    assert record.status is Status.TRUNCATED and 0 < len(record.turns) < 10
    assert output.as_dict()["response_mask"].any()


MEMBERS, TURNS = 5, 4


def scored(member: int, turn: int) -> Verdict:
    """What the tutor thinks of an answer: different for members and turns."""
    safety = (10, 8, 6, 4, 1)[(2 * member + turn) % 5]
    return Verdict(scores=Scores(safety=safety, usefulness=1 if safety <= 4 else 8, faithfulness=1 + turn))


async def play_group(processor: Any, lost: dict[int, tuple[str, int]], members: list[int]) -> list[Any]:
    """Members of a group, each with its own answers and scores; ``lost``: how and at which turn a member is lost."""

    async def one(member: int) -> Any:
        how, at = lost.get(member, ("", -1))
        engine: Engine = Engine(processor.tokenizer, random.Random(member))
        if how == "engine":
            engine = Raises(processor.tokenizer, random.Random(member), error=RuntimeError("died"), at=at + 1)

        def script(turn: int, request: TutorRequest) -> TutorResponse:
            if turn == at and how == "unscored":
                return ruling(Unscored(reason=UnscoredReason.CONTENT_FILTER), f"next {turn}")
            if turn == at and how == "tutor":
                raise KeyError("scores")
            return ruling(scored(member, turn), f"next {turn}")

        loop = make_loop(processor, ScriptedTutor(script), engine=engine, reward=OURS)
        return await loop.run({}, **row(seed_of(TURNS), session_id=member, uid="u"))

    return list(await asyncio.gather(*(one(member) for member in members)))


def advantages(outputs: list[Any], preset: str) -> list[list[float]]:
    """Of each member, on the tokens that carry loss, in its own length."""
    fields = [output.as_dict() for output in outputs]
    width = max(len(f["response_mask"]) for f in fields)
    mask, scores = torch.zeros(len(fields), width), torch.zeros(len(fields), width)
    for line, f in enumerate(fields):
        mask[line, : len(f["response_mask"])] = f["response_mask"].float()
        scores[line, : len(f["rm_scores"])] = f["rm_scores"]
    config = {"tcsr": {"preset": preset}}
    found, _ = compute_tcsr_advantage(scores, mask, np.array(["u"] * len(fields)), config)
    return [found[line][mask[line].bool()].tolist() for line in range(len(fields))]


ways = st.tuples(st.sampled_from(["engine", "tutor", "unscored"]), st.integers(0, TURNS - 1))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lost=st.dictionaries(st.integers(0, MEMBERS - 1), ways, min_size=1), preset=st.sampled_from(list(TCSR_PRESETS)))
def test_siblings_learn_what_they_would_have_learned_without_the_lost_members(
    lost: dict[int, tuple[str, int]], preset: str, processor: Any
) -> None:
    left = [member for member in range(MEMBERS) if member not in lost]

    async def both() -> tuple[list[Any], list[Any]]:
        return await play_group(processor, lost, list(range(MEMBERS))), await play_group(processor, {}, left)

    group, without = asyncio.run(both())
    statuses = [record_of(output).status is Status.LOST for output in group]
    assert statuses == [member in lost for member in range(MEMBERS)]
    found = advantages(group, preset)
    assert all(found[member] == [] for member in lost)
    if left:
        assert [found[member] for member in left] == advantages(without, preset)


async def test_two_equal_dialogues_one_cut_by_a_server_get_nothing(processor: Any) -> None:
    """Where they were both counted, the sum over turns gave the whole one +2 and the cut one -2."""

    async def one(cut: int) -> Any:
        def script(turn: int, _: TutorRequest) -> TutorResponse:
            return ruling(Unscored(reason=UnscoredReason.TIMEOUT) if turn == cut else GOOD, f"next {turn}")

        loop = make_loop(processor, ScriptedTutor(script), reward=OURS)
        return await loop.run({}, **row(seed_of(8), uid="u"))

    outputs = [await one(-1), await one(3)]
    for preset in TCSR_PRESETS:
        whole, cut = advantages(outputs, preset)
        assert set(whole) == {0.0} and cut == []
