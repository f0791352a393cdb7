"""``model.external_lib=steer_verl.frozen_vision``: the tower takes no gradient, and checkpoints stay plain."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from steer_verl.families import VISION
from steer_verl.mini import model as mini_model

PROGRAM = """
import sys, json
from verl.utils.import_utils import import_external_libs
import_external_libs("steer_verl.frozen_vision")
from transformers import AutoConfig
from verl.utils.model import get_hf_auto_model_class
config = AutoConfig.from_pretrained(sys.argv[1])
model = get_hf_auto_model_class(config).from_pretrained(sys.argv[1], config=config)
model.save_pretrained(sys.argv[2])
frozen = [name for name, weight in model.named_parameters() if not weight.requires_grad]
trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
print("RESULT" + json.dumps([frozen, trained]))
"""


@pytest.mark.parametrize("family", VISION)
def test_the_vision_tower_is_frozen_and_nothing_else(tmp_path: Path, family: str) -> None:
    """In a process of its own: what it registers holds for a whole process. Loaded by verl's own steps."""
    plain = mini_model.build(tmp_path / "plain", family=family)
    command = [sys.executable, "-c", PROGRAM, plain, tmp_path / "saved"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    frozen, trained = json.loads(output.partition("RESULT")[2].splitlines()[0])
    assert frozen and all(".visual." in name for name in frozen)
    assert trained and not any(".visual." in name for name in trained)
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["architectures"] == [f"{mini_model.FAMILIES[family].name}ForConditionalGeneration"]
    assert saved["model_type"] == family
