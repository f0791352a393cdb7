"""``steer doctor`` finds what is broken on purpose, in real processes, and says the hint."""

import contextlib
import importlib.metadata
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from steer_verl import doctor
from steer_verl.doctor.checks import Check, device, device_set, versions

pytest.importorskip("verl")
torch = pytest.importorskip("torch")

REGISTERED = ("agent loop steer_dialogue", "reward manager steer_tutor", "advantage estimator tcsr")


@pytest.fixture(autouse=True)
def as_users_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU runtime where there is no GPU, and no wish about plugins."""
    monkeypatch.setenv("STEER_CPU", "1")
    for name in ("VERL_USE_EXTERNAL_PLUGINS", "VERL_USE_EXTERNAL_MODULES", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def failures(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks if check.status == "fail"}


@pytest.mark.slow
@pytest.mark.parametrize("place", list(doctor.PLACES))
def test_a_healthy_environment_passes_everywhere(place: str) -> None:
    checks = doctor.examine(place)
    assert not failures(checks)
    found = {check.name: check.found for check in checks}
    assert found["agent loop steer_dialogue"] == "rollout.agent_loop.SteerAgentLoop"
    assert found["reward manager steer_tutor"] == "reward_fns.manager.SteerTutorRewardManager"
    assert found["advantage estimator tcsr"] == "steer_verl.tcsr.compute_tcsr_advantage"
    assert found["verl's platform"] == {"cpu": "cpu", "gpu": "cuda"}[device_set()]


@pytest.mark.slow
def test_plugins_shut_out_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "none")
    found = failures(doctor.examine("process"))
    assert set(found) >= {*REGISTERED, "plugin steer"}
    assert torch.cuda.is_available() or found["verl's platform"].found == "cuda"
    assert "unset VERL_USE_EXTERNAL_PLUGINS" in found["plugin steer"].hint
    assert all("plugin steer" in found[name].hint for name in REGISTERED)


@pytest.mark.slow
def test_several_faults_are_each_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another's plugin that breaks, and an adapter of ours that breaks."""
    info = tmp_path / "broken_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[verl.plugins]\nbroken = broken_plugin\n")
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('a fault nobody sees')\n")
    (tmp_path / "reward_fns").mkdir()
    (tmp_path / "reward_fns" / "__init__.py").write_text("")
    (tmp_path / "reward_fns" / "manager.py").write_text("raise ImportError('an adapter that broke')\n")
    monkeypatch.chdir(tmp_path)  # first on the path of `python -m`
    found = failures(doctor.examine("process"))
    assert "a fault nobody sees" in found["plugin broken"].found
    assert "an adapter that broke" in found["reward manager steer_tutor"].found
    assert set(found) == {"plugin broken", "reward manager steer_tutor"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU needs no asking")
def test_a_cpu_run_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEER_CPU", "0")
    assert "set STEER_CPU=1" in failures(list(device()))["device"].hint


def test_versions_missing_wrong_and_untested(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "ray":
            raise importlib.metadata.PackageNotFoundError(name)
        return {"verl": "0.8.0", "torch": "2.99.0"}.get(name) or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = {check.name: check for check in versions()}
    assert (found["ray"].status, found["ray"].found) == ("fail", "not installed")
    assert found["verl"].status == "fail" and ">=0.9,<0.10" in found["verl"].hint
    assert found["torch"].status == "warn" and "tested version" in found["torch"].hint
    assert found["tensordict"].status == "ok"


def test_a_gpu_without_torch_is_no_case_for_the_cpu_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The wheel without its extra."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("steer_verl.doctor.checks.DRIVER", tmp_path)
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: real("no-such-distribution"))
    assert all("pip install" in check.hint and "make env" not in check.hint for check in versions())


def test_a_torch_that_does_not_import_hides_no_other_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Libraries of another CUDA."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libcudart.so.12: no such file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch")
    assert {"verl", "torch", "ray"} <= {check.name for check in versions()}
    (check,) = device()
    assert check.status == "fail" and "libcudart" in check.found and check.hint.startswith("run `")


def test_a_place_that_does_not_answer_is_a_failure() -> None:
    (check,) = doctor.examine("process", timeout=0.01)
    assert check.status == "fail" and "took longer than" in check.found


@pytest.mark.slow
def test_nothing_is_left_of_a_ray_that_was_interrupted() -> None:
    """Neither its folder in /tmp nor a process; the token of the test is in the environment of each."""
    token, command = f"doctor-{os.getpid()}", [sys.executable, "-c", "from steer_verl import doctor; doctor.run()"]
    asked = subprocess.Popen(command, env={**os.environ, "STEER_TEST": token}, start_new_session=True)
    while not (folder := re.search(r"/tmp/[^\0]*?(?=/session_)", "".join(carrying(token)))) and asked.poll() is None:
        time.sleep(0.1)
    assert folder and Path(folder[0]).is_dir()
    os.killpg(asked.pid, signal.SIGINT)
    assert asked.wait(60) != 0 and not carrying(token)
    assert not Path(folder[0]).exists()


def carrying(token: str) -> list[str]:
    """Command lines of the live processes with a variable of that value."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if token.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text())
    return found


def test_a_place_that_breaks_off_is_a_failure_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:not-a-port")
    (check,) = doctor.examine("ray")
    assert check.status == "fail" and check.found and "python" not in check.found.lower()[:6]
    command = shlex.split(check.hint.partition(": ")[2])
    assert command[:3] == [sys.executable, "-m", "steer_verl.doctor"], "a command that runs as it stands"


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: str, code: int
) -> None:
    hint = "" if status == "ok" else "do [this] and that"
    monkeypatch.setattr(doctor, "examine", lambda place: [Check("thing", status, "found it", hint)])  # type: ignore[arg-type]
    assert doctor.run() == code
    printed = capsys.readouterr().out
    assert "found it" in printed and hint in printed
