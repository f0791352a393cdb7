"""What ours adds to verl's sampling: figures, alarms, the stop before an update, and a cache that does not grow."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verl")

from transfer_queue import KVBatchMeta

import rollout.sampler as sampler
from steer_verl.errors import ConfigError, TutorError
from steer_verl.types import UserTurn
from tests.scripted import GOOD, LOST
from tests.test_transcripts import record

STEER = {"tutor": {"kind": "mini"}, "max_lost_share": 0.5}


class Buffer:
    """Stands for verl's ReplayBuffer: knows ``poll_interval`` and no key of ours."""

    def __init__(self, *, poll_interval: float = 2.0, sampler_kwargs: Any = None) -> None:
        self.poll_interval = poll_interval

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        return KVBatchMeta(keys=["uid_0_0"], tags=[{}], partition_id=partition_id), {"verl": 1}


class Ours(sampler.TrajectoryMetrics, Buffer):
    """As SteerReplayBuffer is made."""


def ours(monkeypatch: pytest.MonkeyPatch, played: list[Any], **steer: Any) -> Ours:
    monkeypatch.setattr(sampler, "_records", lambda batch: played)
    return Ours(sampler_kwargs={"steer": {**STEER, **steer}, "poll_interval": 0.1})


async def test_figures_and_alarms_join_verls_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    buffer = ours(monkeypatch, [await record([GOOD, GOOD]), await record([GOOD, GOOD, LOST])])
    batch, metrics = buffer.sample(1, "train", 2)
    assert batch.keys == ["uid_0_0"] and metrics["verl"] == 1 and buffer.poll_interval == 0.1
    assert metrics["steer/total_dialogues"] == 2 and metrics["steer/stop/unscored"] == 0.5
    assert metrics["steer/alarm/lost_share"] == 1.0
    assert "alarm lost_share: dialogues are lost" in capsys.readouterr().out


async def test_a_step_that_nobody_could_score_never_reaches_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    played = [await record([GOOD, LOST]), await record([LOST, GOOD]), await record([GOOD, GOOD])]
    with pytest.raises(TutorError, match=r"2 of 3 dialogues of this step are lost \(timeout 2\)"):
        ours(monkeypatch, played).sample(1, "train", 3)
    ours(monkeypatch, played).sample(1, "val", 3)  # nothing is learned from a validation
    ours(monkeypatch, played, max_lost_share=0.7).sample(1, "train", 3)


async def test_what_a_checkpoint_holds_leaves_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for step in (1, 2):
        (tmp_path / "cache" / "run" / "train" / str(step)).mkdir(parents=True)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("1")
    ours(monkeypatch, [await record([GOOD, GOOD])], cache=str(tmp_path / "cache")).sample(2, "train", 1)
    assert [path.name for path in (tmp_path / "cache" / "run" / "train").iterdir()] == ["2"]


def test_without_its_section_it_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match=r"sampler_kwargs\.steer is missing.*custom\.steer"):
        Ours(sampler_kwargs={})


async def test_a_batch_has_the_same_order_however_it_arrived() -> None:
    one = await record([GOOD])
    places = itertools.product(("benign", "red"), range(8), range(5))
    played = [one.model_copy(update={"seed_id": f"{kind}-{n}", "rollout": k}) for kind, n, k in places]
    seen = []
    for run in range(3):
        arrived = random.Random(run).sample(played, len(played))
        keys = [f"{run}-{at}" for at in range(len(arrived))]  # verl's ids are new in every run
        tags = [{"of": (record.seed_id, record.rollout)} for record in arrived]
        batch = KVBatchMeta(keys=keys, tags=tags, partition_id="train")
        ordered = sampler.in_order(batch, arrived)
        seen.append([tag["of"] for tag in batch.tags])
        assert [(record.seed_id, record.rollout) for record in ordered] == seen[-1]
        assert dict(zip(batch.keys, batch.tags, strict=True)) == dict(zip(keys, tags, strict=True))
    assert seen[0] == seen[1] == seen[2]
    assert [k for _, k in seen[0]] == list(range(5)) * 16, "a prompt's rollouts stay together"
    half = {seed_id.split("-")[0] for seed_id, _ in seen[0][:40]}
    assert half == {"benign", "red"}, "mini-batches are cut from the front: kinds must not be sorted apart"


async def test_two_prompts_of_one_id_keep_their_rollouts_together() -> None:
    one = await record([GOOD])
    turn = one.turns[0]
    asked = {text: turn.model_copy(update={"user": UserTurn(text=text)}) for text in ("a?", "b?")}
    for run in range(4):
        played = [
            one.model_copy(update={"uid": f"{run}-{text}", "rollout": k, "turns": () if k == 2 else (turn,)})
            for text, turn in asked.items()
            for k in range(4)
        ]
        random.Random(run).shuffle(played)
        batch = KVBatchMeta(keys=[str(at) for at in range(8)], tags=[{}] * 8, partition_id="train")
        ordered = [(found.uid[2:], found.rollout) for found in sampler.in_order(batch, played)]
        assert ordered == list(itertools.product(("a?", "b?"), range(4)))


async def test_rows_of_another_loop_stay_where_they_are() -> None:
    batch = KVBatchMeta(keys=["b", "a"], tags=[{}, {}], partition_id="train")
    ours = [await record([GOOD])]
    assert sampler.in_order(batch, ours) == ours and batch.keys == ["b", "a"]
