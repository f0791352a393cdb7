"""The factory gives what the configuration names and imports only what that needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from steer_verl.config import EndpointConfig, HoldoutConfig, JudgeConfig, PanelConfig, TutorConfig
from steer_verl.errors import ConfigError
from steer_verl.mini.judge import MiniJudge
from steer_verl.mini.tutor import MiniTutor
from steer_verl.tutor import Judge, Tutor, build_holdout, build_tutor
from steer_verl.tutor.panel import PanelTutor

ENDPOINT = EndpointConfig(base_url="http://127.0.0.1:1/v1", model="qwen")


def test_each_kind_gives_its_tutor() -> None:
    tutor = build_tutor(TutorConfig(endpoint=ENDPOINT))
    assert isinstance(tutor, Tutor) and tutor.name.startswith("openai:qwen@rubric-")
    assert isinstance(build_tutor(TutorConfig(kind="mini")), MiniTutor)


def test_the_name_tells_the_attacker_and_the_rubric() -> None:
    two = build_tutor(TutorConfig(endpoint=ENDPOINT, attacker=ENDPOINT.model_copy(update={"model": "llama"})))
    assert two.name.endswith("+attacker:llama")


def test_a_panel_wraps_whatever_tutor_there_is() -> None:
    guard = JudgeConfig(endpoint=ENDPOINT.model_copy(update={"model": "guard"}), format="qwen3guard")
    second = JudgeConfig(endpoint=ENDPOINT.model_copy(update={"model": "second"}))
    panel = PanelConfig(judges=(guard, second), combine="median", quorum=2)
    for config in (TutorConfig(kind="mini", panel=panel), TutorConfig(endpoint=ENDPOINT, panel=panel)):
        tutor = build_tutor(config)
        assert isinstance(tutor, PanelTutor) and isinstance(tutor, Tutor)
        first = "mini-rules-2" if config.kind == "mini" else "openai:qwen@rubric-"
        assert tutor.name.startswith(f"median of 2/3: {first}")
        assert "qwen3guard:guard, openai:second@rubric-" in tutor.name


def test_the_held_out_judge_is_the_one_that_is_named() -> None:
    assert build_holdout(TutorConfig(kind="mini")) is None
    assert isinstance(build_holdout(TutorConfig(kind="mini", holdout=HoldoutConfig(judge="mini"))), MiniJudge)
    named = HoldoutConfig(judge=JudgeConfig(endpoint=ENDPOINT, format="llama_guard"))
    for kind in ({"kind": "mini"}, {"endpoint": ENDPOINT}):
        judge = build_holdout(TutorConfig.model_validate({**kind, "holdout": named}))
        assert isinstance(judge, Judge) and judge.name == "llama_guard:qwen"


def test_a_missing_rubric_is_found_when_the_tutor_is_built() -> None:
    with pytest.raises(ConfigError, match=r"tutor\.rubric"):
        build_tutor(TutorConfig(endpoint=ENDPOINT, rubric="/no/such/rubric.md"))
    judge = JudgeConfig(endpoint=ENDPOINT, rubric="/no/such/rubric.md")
    with pytest.raises(ConfigError, match=r"^tutor\.panel\.judges\[0\]\.rubric"):
        build_tutor(TutorConfig(kind="mini", panel=PanelConfig(judges=(judge,))))


def test_importing_the_package_loads_no_client_library() -> None:
    heavy = {"aiohttp", "torch", "PIL", "verl"}
    code = f"import sys, steer_verl.tutor, steer_verl.text; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
