"""The factory gives what the configuration names and imports only what that needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from steer_verl.config import EndpointConfig, TutorConfig
from steer_verl.errors import ConfigError
from steer_verl.mini.tutor import MiniTutor
from steer_verl.tutor import Tutor, build_tutor

ENDPOINT = EndpointConfig(base_url="http://127.0.0.1:1/v1", model="qwen")


def test_each_kind_gives_its_tutor() -> None:
    tutor = build_tutor(TutorConfig(endpoint=ENDPOINT))
    assert isinstance(tutor, Tutor) and tutor.name.startswith("openai:qwen@rubric-")
    assert isinstance(build_tutor(TutorConfig(kind="mini")), MiniTutor)


def test_the_name_tells_the_attacker_and_the_rubric() -> None:
    two = build_tutor(TutorConfig(endpoint=ENDPOINT, attacker=ENDPOINT.model_copy(update={"model": "llama"})))
    assert two.name.endswith("+attacker:llama")


def test_a_missing_rubric_is_found_when_the_tutor_is_built() -> None:
    with pytest.raises(ConfigError, match=r"tutor\.rubric"):
        build_tutor(TutorConfig(endpoint=ENDPOINT, rubric="/no/such/rubric.md"))


def test_a_missing_client_library_has_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"pip install 'steer-verl\[openai\]'"):
        build_tutor(TutorConfig(endpoint=ENDPOINT))


def test_importing_the_package_loads_no_client_library() -> None:
    heavy = {"openai", "torch", "PIL", "verl"}
    code = f"import sys, steer_verl.tutor, steer_verl.text; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
