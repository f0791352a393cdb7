"""The CPU runtime is inert unless asked for, never active beside CUDA, and costs next to nothing at start-up."""

import json
import os
import subprocess
import sys
from importlib.metadata import DistributionFinder
from pathlib import Path

import pytest

from steer_verl import cpu
from steer_verl.cpu import boot, install, vllm_gaps

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("value", ["0", "", "true", None])
def test_only_one_value_asks_for_it(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv(cpu.ENV, raising=False)
    if value is not None:
        monkeypatch.setenv(cpu.ENV, value)
    assert not cpu.requested() and not cpu.active()


def test_never_active_beside_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv(cpu.ENV, "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cpu.requested() and not cpu.active()
    monkeypatch.setattr(vllm_gaps, "keep_live_weights", lambda: pytest.fail("vLLM was touched beside CUDA"))
    vllm_gaps.activate()


def test_active_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv(cpu.ENV, "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cpu.active()


def test_operators_are_not_declared_for_a_cuda_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.library, "Library", lambda *_: pytest.fail("declared beside a CUDA torch"))
    monkeypatch.setattr(boot, "_kept", [])
    boot.declare_operators()


def test_start_up_imports_nothing() -> None:
    """Every process of the environment runs the hook: the standard library's heavy modules stay out, and torch."""
    code = "import os, sys; before = set(sys.modules); exec(sys.argv[1]); print(*sorted(set(sys.modules) - before))"
    run = subprocess.run(
        [sys.executable, "-S", "-c", code, install.LINE],
        env={"PYTHONPATH": str(ROOT), cpu.ENV: "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(run.stdout.split()) == {"__future__", "steer_verl", "steer_verl.cpu", "steer_verl.cpu.boot"}


@pytest.mark.parametrize(("value", "hooked"), [("1", True), ("0", False)])
def test_the_hooks_line_asks_the_environment(value: str, hooked: bool) -> None:
    code = "import sys; exec(sys.argv[1]); print(any(type(f).__name__ == 'BeforeTorchvision' for f in sys.meta_path))"
    run = subprocess.run(
        [sys.executable, "-S", "-c", code, install.LINE],
        env={"PYTHONPATH": str(ROOT), cpu.ENV: value},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == str(hooked)


def test_the_alias_answers_for_vllm_by_name_only() -> None:
    pytest.importorskip("wrapt")
    from steer_verl.cpu.verl_gaps import VllmCpuAlias

    finder = VllmCpuAlias()
    assert not list(finder.find_distributions(None))
    assert not list(finder.find_distributions(DistributionFinder.Context()))
    assert not list(finder.find_distributions(DistributionFinder.Context(name="torch")))
    found = list(finder.find_distributions(DistributionFinder.Context(name="vllm")))
    assert [d.metadata["Name"] for d in found] in ([], ["vllm"])
    assert all(d.version.endswith("+cpu") and not list(d.entry_points) for d in found)


def test_install_writes_removes_or_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hook = tmp_path / install.HOOK
    monkeypatch.setattr(install, "hook_path", lambda: hook)
    monkeypatch.setattr(install, "torchvision_fault", lambda: "RuntimeError: operator torchvision::nms does not exist")
    assert "written" in install.install() and hook.read_text() == install.LINE
    monkeypatch.setattr(install, "torchvision_fault", lambda: None)
    assert "no start-up hook" in install.install() and not hook.exists()
    monkeypatch.setattr(install, "torchvision_fault", lambda: "ModuleNotFoundError: No module named 'PIL'")
    with pytest.raises(SystemExit, match="PIL"):
        install.install()
    assert not hook.exists()
    monkeypatch.setattr(install, "torchvision_fault", lambda: "RuntimeError: operator torchvision::nms does not exist")
    monkeypatch.setattr(install, "hook_path", lambda: tmp_path / "none" / install.HOOK)
    with pytest.raises(SystemExit, match=r"cannot be written \(No such file or directory\); check the path"):
        install.install()


def test_the_environment_is_told_not_set() -> None:
    before = dict(os.environ)
    wanted = cpu.environment()
    assert dict(os.environ) == before
    assert wanted[cpu.ENV] == "1" and wanted["VERL_ENGINE_DEVICE"] == "cuda"
    run = subprocess.run([sys.executable, "-c", "pass"], env={**wanted, **os.environ})  # as a launcher gives it
    assert run.returncode == 0


@pytest.mark.parametrize("script", ["run_sft.sh", "run_grpo.sh"])
@pytest.mark.parametrize("mine", [{}, {"OMP_NUM_THREADS": "7"}])
def test_the_laboratory_is_one_on_every_machine(tmp_path: Path, script: str, mine: dict[str, str]) -> None:
    """Whoever starts a stage, the demo or a user, it computes with the same threads and instructions."""
    told = tmp_path / "told.json"
    python = tmp_path / "python"
    python.write_text(
        f"""#!/usr/bin/env bash
[ "$1" = -c ] && exec {sys.executable} "$@"
exec {sys.executable} -c 'import json, os; json.dump(dict(os.environ), open("{told}", "w"))'
"""
    )
    python.chmod(0o755)
    bare = {k: v for k, v in os.environ.items() if k not in {*cpu.environment(), *cpu.laboratory()}}
    recipe = ROOT / "recipes" / "mini" / script
    subprocess.run(["bash", recipe], env={**bare, **mine, "PYTHON": str(python)}, check=True)
    wanted = {**cpu.environment(), **cpu.laboratory(), **mine}
    assert json.loads(told.read_text()).items() >= wanted.items()
