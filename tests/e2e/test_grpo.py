"""Two real GRPO steps of the mini recipe: run script, preflight, verl's own trainer, FSDP2, vLLM, the rule tutor.

The student is untrained and the learning rate large, so that one step changes it visibly: what vLLM then samples must
agree with the new weights, not with the old ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import mini_grpo
from steer_verl.transcripts import read_transcripts
from steer_verl.types import StopReason

STEPS = 2

pytestmark = [pytest.mark.slow, pytest.mark.e2e]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[dict[str, float]]]]:
    """The folder of the run and what verl logged at each step."""
    root = tmp_path_factory.mktemp("grpo")
    large_steps = "actor_rollout_ref.actor.optim.lr=5e-3"
    yield root, mini_grpo.run(root, STEPS, large_steps, f"trainer.save_freq={STEPS}")


def test_rollout_and_actor_agree_before_and_after_the_weights_changed(
    run: tuple[Path, list[dict[str, float]]],
) -> None:
    _, steps = run
    assert [step["step"] for step in steps] == [1, 2]
    for step in steps:
        assert step["training/rollout_actor_probs_pearson_corr"] > 0.999
        assert step["training/rollout_probs_diff_max"] < 1e-3
        assert abs(step["rollout_corr/log_ppl_diff"]) < 1e-2
        assert step["actor/grad_norm"] > 0


def test_the_weights_changed_and_were_saved(run: tuple[Path, list[dict[str, float]]]) -> None:
    from safetensors.torch import load_file

    root, _ = run
    before = load_file(root / "student" / "model.safetensors")
    after = load_file(root / f"grpo/checkpoints/global_step_{STEPS}/actor/huggingface/model.safetensors")
    moved = {name: (after[name].float() - before[name].float()).abs().max().item() for name in before if name in after}
    assert len(moved) > 50, "the checkpoint has the model's own names"
    assert max(moved.values()) > 1e-3
    assert all(torch.isfinite(tensor).all() for tensor in after.values())


def test_every_dialogue_left_its_record_and_every_answer_was_judged(
    run: tuple[Path, list[dict[str, float]]],
) -> None:
    root, steps = run
    records = list(read_transcripts(root / "grpo" / "transcripts"))
    assert {step: sum(r.step == step for r in records) for step in (1, 2)} == {1: 40, 2: 40}
    assert all(len(r.scored) == len(r.turns) for r in records)
    assert {r.stop for r in records} <= {StopReason.COMPLETED, StopReason.TOKEN_BUDGET}
    assert sum(len(r.turns) for r in records if r.step == 1) == steps[0]["steer/total_turns"]


def test_our_figures_are_in_verls_own_log(run: tuple[Path, list[dict[str, float]]]) -> None:
    _, steps = run
    for step in steps:
        assert step["steer/total_dialogues"] == 40 and step["steer/lost_share"] == 0
        assert 1 <= step["steer/safety/worst_turn"] <= step["steer/safety/mean"] <= 10
        assert step["steer/origin/tutor"] > 0, "the attack was adaptive"
        assert step["critic/rewards/mean"] > 0 and step["critic/rewards/min"] >= 0
