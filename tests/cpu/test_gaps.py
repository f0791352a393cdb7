"""Each workaround: its gap is still open upstream (else the workaround goes), and it closes the gap. In real processes.

One process runs without the CPU runtime and one with it, started as Ray starts its workers: nothing but the environment
variable differs. tests/cpu/facts.py looks.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from steer_verl.cpu import INSTRUCTIONS

pytest.importorskip("verl")
torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU runtime is never active beside CUDA"),
]

FACTS = Path(__file__).with_name("facts.py")
NO_CUDA_BUILD = "torchvision is a CPU build here: no start-up hook is installed, and there is nothing to close"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Facts ``without`` and ``with`` the CPU runtime, and some of a ``bare`` vLLM that loads no entry point."""
    folder = tmp_path_factory.mktemp("facts")
    left_out = ("VERL_ENGINE_DEVICE", "STEER_CPU", "OMP_NUM_THREADS", *INSTRUCTIONS)
    environment = {k: v for k, v in os.environ.items() if k not in left_out}
    running = {}
    bare = {"VLLM_PLUGINS": ""}
    for name, wish in {"without": {}, "with": {"STEER_CPU": "1", **INSTRUCTIONS}, "bare": bare}.items():
        only = ["torchvision", "queue_in_shared_memory"] if name == "bare" else []
        command = [sys.executable, str(FACTS), str(folder / f"{name}.json"), *only]
        with open(folder / f"{name}.log", "w") as log:
            running[name] = subprocess.Popen(
                command, env={**environment, **wish}, stdout=log, stderr=log, cwd=FACTS.parents[2]
            )
    for name, process in running.items():
        assert process.wait(timeout=400) == 0, (folder / f"{name}.log").read_text()[-2000:]
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in running}


def open_gap(fact: Any, sign: Any, workaround: str) -> None:
    """Upstream still has the gap: the fact is, or as text contains, the sign."""
    still = sign in fact if isinstance(sign, str) and isinstance(fact, str) else fact == sign
    assert still, f"upstream now says {fact!r}: {workaround} may have had its day: remove it, or restate its versions"


def test_torchvision_beside_a_cpu_torch(seen: dict[str, dict[str, Any]]) -> None:
    from steer_verl.cpu.install import hook_path

    if not hook_path().exists():
        assert "Error" not in seen["without"]["torchvision"], "run `make env`: torchvision needs the start-up hook"
        pytest.skip(NO_CUDA_BUILD)
    open_gap(seen["without"]["torchvision"], "operator torchvision::", "boot.declare_operators")
    assert "Error" not in seen["with"]["torchvision"]


def test_cpu_platform(seen: dict[str, dict[str, Any]]) -> None:
    assert "cpu" not in seen["without"]["platforms"], "verl has a CPU platform now: use it in place of PlatformCPU"
    open_gap(seen["without"]["platform"], "cuda", "verl_gaps.cpu_platform")
    assert seen["with"]["platform"] == "cpu"
    assert seen["with"]["weights_between_processes"] == [False, "GPU"]


def test_engine_device(seen: dict[str, dict[str, Any]]) -> None:
    without = seen["with"]["engine_without_verls_override"]
    open_gap(without, "No engine registered for device='cpu'", "verl_gaps.engine_device")
    assert "Error" not in seen["with"]["engine"]


def test_one_backend_per_device(seen: dict[str, dict[str, Any]]) -> None:
    open_gap(seen["without"]["process_group"], "Duplicate device type cpu", "verl_gaps.one_backend_per_device")
    assert "gloo" in seen["with"]["process_group"] and "Error" not in seen["with"]["process_group"]


def test_offload_without_pinning(seen: dict[str, dict[str, Any]]) -> None:
    open_gap(seen["without"]["verl_asks_for_pinning"], True, "verl_gaps.offload_without_pinning")
    open_gap(seen["without"]["memory_can_be_pinned"], "Error", "verl_gaps.offload_without_pinning")
    assert seen["without"]["offload_policy_pins"] is True
    assert seen["with"]["offload_policy_pins"] is False
    assert seen["with"]["torchs_own_offload_policy_pins"] is True, "only verl's name may be replaced, not torch's class"


def test_vllm_by_its_other_name(seen: dict[str, dict[str, Any]]) -> None:
    open_gap(seen["without"]["vllm_version"], "PackageNotFoundError", "verl_gaps.vllm_by_its_other_name")
    assert seen["with"]["vllm_version"].endswith("+cpu")
    assert seen["with"]["vllm_platform"] == "cpu"
    assert seen["with"]["vllm_is_listed"] == seen["without"]["vllm_is_listed"] == 1


def test_keep_live_weights(seen: dict[str, dict[str, Any]]) -> None:
    shape, follows = seen["without"]["weight_after_loading"]
    open_gap([shape, follows], [[0], False], "vllm_gaps.keep_live_weights")
    assert seen["with"]["weight_after_loading"] == [[32, 64], True]


def test_a_row_does_not_depend_on_the_others(seen: dict[str, dict[str, Any]]) -> None:
    without, alone = seen["without"]["rows_that_company_changes"], dict.fromkeys(("linear", "head"), 0)
    assert without["linear"] and without["head"], "torch adds every row alike now: vllm_gaps.linear may go"
    if (os.cpu_count() or 1) > 1:
        assert without["attention"] and without["cached"], "vLLM's threads split alike: vllm_gaps.one_thread may go"
    assert seen["with"]["rows_that_company_changes"] == {**alone, "attention": 0, "cached": 0}


def test_one_thread(seen: dict[str, dict[str, Any]]) -> None:
    assert seen["with"]["threads_of_vllm"] == [1, "1"]
    assert seen["without"]["threads_of_vllm"][0] == len(os.sched_getaffinity(0))


def test_collect_rarely(seen: dict[str, dict[str, Any]]) -> None:
    assert seen["without"]["garbage_is_collected_after"] < 10_000 < seen["with"]["garbage_is_collected_after"]


@pytest.mark.skipif(not torch.cpu._is_avx512_supported(), reason="this processor has no AVX-512 to be held from")
def test_one_instruction_set(seen: dict[str, dict[str, Any]]) -> None:
    [without] = seen["without"]["kernels_of_vllm"]
    assert "AVX2" not in without, "vLLM does as torch is told now: vllm_gaps.one_instruction_set may go"
    assert seen["with"]["kernels_of_vllm"] == ["_C_AVX2.abi3.so"]


def test_queues_leave_no_file(seen: dict[str, dict[str, Any]]) -> None:
    """Closed on every machine, so that the gap shows in neither process: one looks at vLLM without our entry point."""
    open_gap(seen["bare"]["queue_in_shared_memory"], [1, "a message"], "vllm_gaps.queues_leave_no_file")
    assert seen["without"]["queue_in_shared_memory"] == seen["with"]["queue_in_shared_memory"] == [0, "a message"]
