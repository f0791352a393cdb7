"""Each fix: upstream still has the fault (else the fix goes), and with the plugin it is gone. In real processes.

One process runs without plugins; one with ours and without the CPU runtime, as on any machine; and one with both, for
what verl hides where it sees no device. tests/cpu/facts.py looks.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steer_verl import verl_fixes
from tests.cpu.test_gaps import FACTS, open_gap

pytest.importorskip("verl")
torch = pytest.importorskip("torch")

ANYWHERE = ("torchvision", "saved_weights_after_an_update", "trainer_takes_flush")  # torchvision lets verl import
PROCESSES: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "bare": ({"VERL_USE_EXTERNAL_PLUGINS": "none"}, ANYWHERE),
    "plugin": ({}, ANYWHERE),
    "device": ({"STEER_CPU": "1"}, ("weight_sockets",)),
}
"""Name -> what its environment says, and the facts that are looked at."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each process finds."""
    folder = tmp_path_factory.mktemp("facts")
    unset = ("VERL_ENGINE_DEVICE", "STEER_CPU", "VERL_USE_EXTERNAL_PLUGINS")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    running = {}
    for name, (says, facts) in PROCESSES.items():
        command = [sys.executable, str(FACTS), str(folder / f"{name}.json"), *facts]
        with open(folder / f"{name}.log", "w") as log:
            running[name] = subprocess.Popen(
                command, env={**environment, **says}, stdout=log, stderr=log, cwd=FACTS.parents[2]
            )
    for name, process in running.items():
        assert process.wait(timeout=400) == 0, (folder / f"{name}.log").read_text()[-2000:]
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in running}


@pytest.mark.slow
def test_saved_weights_stay(seen: dict[str, dict[str, Any]]) -> None:
    """Weights of 1 on the CPU, saved, updated to 2 and restored."""
    open_gap(seen["bare"]["saved_weights_after_an_update"], [[2, 2], [2, 2], 4], "verl_fixes.saved_weights_stay")
    assert seen["plugin"]["saved_weights_after_an_update"] == [[1, 1], [1, 1], 2]


def test_weights_that_verl_has_copied_are_not_copied_again() -> None:
    """As it does from a GPU: its memory would be needed twice."""
    model = torch.nn.Linear(2, 2)
    copied, shared = model.weight.detach().clone(), model.bias.detach()
    upstream = SimpleNamespace(
        fsdp2_sharded_save_to_cpu=lambda model: ({"weight": (copied, "a place"), "bias": (shared, None)}, "spec")
    )
    verl_fixes._copy_what_is_saved(upstream)
    state, spec = upstream.fsdp2_sharded_save_to_cpu(model)
    assert spec == "spec" and state["weight"][0] is copied and state["weight"][1] == "a place"
    assert state["bias"][0].data_ptr() != shared.data_ptr() and torch.equal(state["bias"][0], shared)


@pytest.mark.slow
def test_trainer_that_logs_like_print(seen: dict[str, dict[str, Any]]) -> None:
    open_gap(seen["bare"]["trainer_takes_flush"], "TypeError", "verl_fixes.trainer_that_logs_like_print")
    assert seen["plugin"]["trainer_takes_flush"] == "taken"


@pytest.mark.slow
def test_weights_by_sockets_of_its_own(seen: dict[str, dict[str, Any]]) -> None:
    by_job, told = seen["device"]["weight_sockets"]
    open_gap(by_job, [True, True], "verl_fixes.weights_by_sockets_of_its_own")
    assert told == [True, True]


def test_two_runs_of_one_job_id_name_their_sockets_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sender and receiver agree within a run; another Ray of the same machine has the same job id, not the session."""
    import ray

    class Ends:
        """Both ends, as verl's modules name them."""

        class ServerAdapter:
            def __init__(self, rank: int) -> None:
                job = ray.get_runtime_context().get_job_id()
                self.zmq_handle = f"ipc:///tmp/rl-colocate-zmq-{job}-replica-{rank}-rank-0.sock"

        class vLLMHttpServer:
            def __init__(self) -> None:
                os.environ["VERL_RAY_JOB_ID"] = ray.get_runtime_context().get_job_id()

    verl_fixes._name_sender_by_session(Ends)
    verl_fixes._name_receiver_by_session(Ends)
    monkeypatch.setenv("VERL_RAY_JOB_ID", "")
    handles = []
    for session in ("session_2026-11-25_19-21-35_643001_15062", "session_2026-11-25_19-21-36_643001_15063"):
        context = SimpleNamespace(get_job_id=lambda: "01000000", get_session_name=lambda name=session: name)
        monkeypatch.setattr(ray, "get_runtime_context", lambda context=context: context)
        Ends.vLLMHttpServer()
        handle = Ends.ServerAdapter(2).zmq_handle
        assert handle == f"ipc:///tmp/rl-colocate-zmq-{os.environ['VERL_RAY_JOB_ID']}-replica-2-rank-0.sock"
        assert len(handle.removeprefix("ipc://")) < 108, "the longest path of a Unix socket"
        handles.append(handle)
    assert len(set(handles)) == 2


def test_text_alone_is_embedded(tmp_path: Path) -> None:
    """A micro-batch without an image, such as one of lost dialogues, through the miniature student."""
    from transformers import AutoModelForImageTextToText
    from verl.models.transformers import qwen2_vl

    from steer_verl.mini.model import build

    model = AutoModelForImageTextToText.from_pretrained(build(tmp_path / "student")).model
    ids = torch.tensor([[1, 2, 3]])
    with pytest.raises(AttributeError, match="mean"):  # upstream still has the fault; else the fix goes
        qwen2_vl._get_input_embeds.__wrapped__(model, ids)
    embeddings, mask = qwen2_vl._get_input_embeds(model, ids, torch.ones_like(ids), None, None, None, None)
    assert torch.equal(embeddings, model.get_input_embeddings()(ids)) and mask.tolist() == [[1, 1, 1]]
    embeddings.sum().backward()
    assert any(weight.grad is not None for weight in model.visual.parameters()), "the tower is part of every step"


def test_spelled_marks_are_words() -> None:
    """A student that spells the marks of images in letters, once more than there are images."""
    from PIL import Image
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker

    from steer_verl.mini.model import IMAGE_PAD, make_processor

    worker = AgentLoopWorker.__new__(AgentLoopWorker)
    worker.processor, worker.mm_processor_kwargs = make_processor(), {}
    worker.tokenizer = worker.processor.tokenizer
    output = SimpleNamespace(multi_modal_data={"images": [Image.new("RGB", (84, 84))]}, mm_processor_kwargs=None)
    encode, inputs = worker.tokenizer.encode, AgentLoopWorker._compute_multi_modal_inputs
    asked = encode(f"{IMAGE_PAD} what is it?")
    spelled = torch.tensor([*asked, *(token for letter in IMAGE_PAD * 2 for token in encode(letter))])
    with pytest.raises(StopIteration):  # upstream still has the fault; else the fix goes
        inputs.__wrapped__(worker, output, spelled)
    found, plain = inputs(worker, output, spelled), inputs.__wrapped__(worker, output, torch.tensor(asked))
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], plain[name]) for name in ("pixel_values", "image_grid_thw"))
