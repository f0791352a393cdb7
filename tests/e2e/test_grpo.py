"""Three real GRPO steps of the mini recipe: run script, preflight, verl's own trainer, FSDP2, vLLM, the rule tutor.

The student is untrained and the learning rate large, so that one step changes it visibly: what vLLM then samples must
agree with the new weights, not with the old ones. The same run is played a second time on a machine that is busy
elsewhere, killed in the middle of its last step and resumed: nothing of it may differ.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import mini_grpo
from benchmarks.lab import fast
from benchmarks.lab.window import arm_config
from benchmarks.lab.worlds import REACHABLE
from rollout.images import pixel_digest
from rollout.resume import KeptAnswer, answer_digest
from steer_verl.config import REWARD_PRESETS, RewardConfig
from steer_verl.data.rows.parquet import load_seeds
from steer_verl.mini.student import open_image
from steer_verl.models.cache import Cache
from steer_verl.processes.leftovers import SHM, Claim, shared_memory
from steer_verl.seeds import place_seed
from steer_verl.transcripts import read_transcripts
from steer_verl.types import StopReason

STEPS, SAVED, LR, ANSWER = 3, 2, 5e-3, 24
SEED = 42
"""verl's default of ``rollout.seed``."""
OVERRIDES = (f"actor_rollout_ref.actor.optim.lr={LR}",)
PACE = ("timing", "perf/", "seconds", "idle", "cached_share", "time_per")
"""Parts of the names of figures that tell how fast it went."""

Steps = list[dict[str, float]]

pytestmark = [pytest.mark.slow, pytest.mark.e2e]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Steps]]:
    """The folder of the run and what verl logged at each step."""
    root = tmp_path_factory.mktemp("grpo")
    yield root, mini_grpo.run(root, STEPS, *OVERRIDES, f"trainer.save_freq={STEPS}")


@contextmanager
def busy() -> Iterator[None]:
    """A loop on every core."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def test_rollout_and_actor_agree_before_and_after_the_weights_changed(
    run: tuple[Path, Steps],
) -> None:
    _, steps = run
    assert [step["step"] for step in steps] == [1, 2, 3]
    for step in steps:
        assert step["training/rollout_actor_probs_pearson_corr"] > 0.999
        assert step["training/rollout_probs_diff_max"] < 1e-3
        assert abs(step["rollout_corr/log_ppl_diff"]) < 1e-2
        assert step["actor/grad_norm"] > 0


def test_the_weights_changed_and_were_saved(run: tuple[Path, Steps]) -> None:
    from safetensors.torch import load_file

    root, _ = run
    before = load_file(root / "student" / "model.safetensors")
    after = load_file(root / f"grpo/checkpoints/global_step_{STEPS}/actor/huggingface/model.safetensors")
    moved = {name: (after[name].float() - before[name].float()).abs().max().item() for name in before if name in after}
    assert len(moved) > 50, "the checkpoint has the model's own names"
    assert max(moved.values()) > 1e-3
    assert all(torch.isfinite(tensor).all() for tensor in after.values())


def test_every_dialogue_left_its_record_and_every_answer_was_judged(
    run: tuple[Path, Steps],
) -> None:
    root, steps = run
    records = list(read_transcripts(root / "grpo" / "transcripts"))
    assert {step: sum(r.step == step for r in records) for step in (1, 2, 3)} == {1: 40, 2: 40, 3: 40}
    assert all(len(r.scored) == len(r.turns) for r in records)
    assert {r.stop for r in records} <= {StopReason.COMPLETED, StopReason.TOKEN_BUDGET}
    assert sum(len(r.turns) for r in records if r.step == 1) == steps[0]["steer/total_turns"]


def test_our_figures_are_in_verls_own_log(run: tuple[Path, Steps]) -> None:
    _, steps = run
    for step in steps:
        assert step["steer/total_dialogues"] == 40 and step["steer/lost_share"] == 0
        assert 1 <= step["steer/safety/worst_turn"] <= step["steer/safety/mean"] <= 10
        assert step["steer/origin/tutor"] > 0, "the attack was adaptive"
        assert step["critic/rewards/mean"] > 0 and step["critic/rewards/min"] >= 0


def test_the_fast_trainer_makes_the_same_steps_of_the_same_answers(run: tuple[Path, Steps]) -> None:
    """Token by token: an answer is found under the prompt that it was given to. Then the weights are compared."""
    root, _ = run
    (folder,) = (root / "grpo" / "checkpoints" / "cache").iterdir()
    cache = Cache(folder)
    settings = replace(
        fast.Settings.of(REACHABLE), steps=STEPS, lr=LR, answer=ANSWER, reward=RewardConfig(**REWARD_PRESETS["paper"])
    )
    params = {"temperature": 1.0, "top_p": 1, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}

    def said(one: fast.Played, room: int) -> list[int]:
        key = one.dialogue.turn_key
        images = [pixel_digest(open_image(one.picture))]
        digest = answer_digest(one.ids, images, {**params, "max_tokens": room, "seed": place_seed(SEED, key)})
        kept = cache.get(key, digest, KeptAnswer)
        assert kept is not None, f"{key}: verl's student was shown something else"
        return kept.output().token_ids

    trainer = fast.Trainer(root / "student", arm_config("steer"), settings)
    seeds = load_seeds(root / "data" / "rl_train.parquet")
    first = {name: weight.clone() for name, weight in trainer.student.model.state_dict().items()}
    for step in range(1, STEPS + 1):
        trainer.step(step, seeds[8 * (step - 1) : 8 * step], 0, said)
    theirs = fast.Student(root / f"grpo/checkpoints/global_step_{STEPS}/actor/huggingface")
    moved, expected = (
        torch.cat([(weight - first[name]).flatten() for name, weight in student.model.state_dict().items()])
        for student in (trainer.student, theirs)
    )
    assert moved.norm() / expected.norm() == pytest.approx(1, abs=1e-3)
    assert torch.cosine_similarity(moved, expected, dim=0) > 0.999


def figures(steps: Steps) -> Steps:
    """What does not tell the pace."""
    return [{name: step[name] for name in step if not any(part in name for part in PACE)} for step in steps]


def said(folder: Path) -> dict[str, Any]:
    """Every word of every dialogue, and its scores."""
    return {
        record.key: [(turn.user.text, turn.answer, turn.origin, turn.verdict) for turn in record.turns]
        for record in read_transcripts(folder / "transcripts")
    }


def test_under_load_killed_and_resumed_it_is_the_same_run(run: tuple[Path, Steps]) -> None:
    root, steps = run
    cache, blocks = root / "again" / "checkpoints" / "cache", set[str]()
    load, loaded = ExitStack(), []

    def in_the_middle_of_the_last_step() -> bool:
        if not loaded and list(cache.glob("*/train/1")):  # starting up would only take longer
            loaded.append(load.enter_context(busy()))
        kept = [file.read_bytes().count(b"\n") for file in cache.glob(f"*/train/{STEPS}/*.jsonl")]
        if sum(kept) < 100:  # of 40 dialogues' answers and rulings
            return False
        claim = Claim.model_validate_json((root / mini_grpo.RECORD).read_text())
        blocks.update(name for name in shared_memory(claim) if (SHM / name).exists())
        return True

    with load:
        killed = mini_grpo.run(
            root, STEPS, *OVERRIDES, f"trainer.save_freq={SAVED}", "mini.run=again", kill=in_the_middle_of_the_last_step
        )
    assert not [name for name in blocks if name.startswith("psm_")], "vLLM's queues would stay in /dev/shm for ever"
    (saved,) = cache.parent.glob("global_step_*")
    assert saved.name == f"global_step_{SAVED}" and [step["step"] for step in killed] == [1, 2]

    resumed = mini_grpo.run(root, STEPS, *OVERRIDES, f"trainer.save_freq={SAVED}", "mini.run=again")
    assert figures([*killed, *resumed]) == figures(steps)
    assert said(root / "again") == said(root / "grpo") and len(said(root / "grpo")) == 40 * STEPS
