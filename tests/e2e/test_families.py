"""Two real GRPO steps of a student of another family: vLLM and FSDP agree on its tokens, positions and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import mini_grpo
from steer_verl.families import VISION

pytestmark = [pytest.mark.slow, pytest.mark.e2e]


@pytest.mark.parametrize("family", sorted(set(VISION) - {"qwen2_5_vl"}))  # that one is tests/e2e/test_grpo.py's
def test_rollout_and_actor_agree_and_the_tower_stays(tmp_path: Path, family: str) -> None:
    overrides = ("actor_rollout_ref.actor.optim.lr=5e-3", "trainer.save_freq=2")
    steps = mini_grpo.run(tmp_path, 2, *overrides, family=family)
    assert [step["step"] for step in steps] == [1, 2]
    for step in steps:
        assert step["training/rollout_actor_probs_pearson_corr"] > 0.999
        assert step["training/rollout_probs_diff_max"] < 1e-3
        assert step["actor/grad_norm"] > 0 and step["steer/lost_share"] == 0
    saved = tmp_path / "grpo/checkpoints/global_step_2/actor/huggingface"
    assert json.loads((saved / "config.json").read_text())["model_type"] == family
    before, after = load_file(tmp_path / "student" / "model.safetensors"), load_file(saved / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name].float(), after[name].float())}
    assert moved and not [name for name in moved if ".visual." in name or name.startswith("visual.")]
