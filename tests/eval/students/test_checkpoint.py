"""From a path to a Hugging Face folder: verl's layouts, broken ones, and a real merge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from steer_verl.errors import ConfigError, StudentError
from steer_verl.eval.config import StudentSettings
from steer_verl.eval.students.build import build_student, student_label
from steer_verl.eval.students.checkpoint import Checkpoint, find_checkpoint, resolve_checkpoint
from steer_verl.mini.model import build


def hugging_face(folder: Path, weights: bytes | None = b"weights") -> Path:
    """A folder as transformers writes it; without ``weights``, as verl does beside its shards."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
    return folder


def shards(folder: Path, world: int = 2, ranks: tuple[int, ...] = (0, 1)) -> Path:
    """An FSDP checkpoint as verl writes it when the model alone is saved."""
    hugging_face(folder / "huggingface", None)
    (folder / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": world}))
    for rank in ranks:
        (folder / f"model_world_size_{world}_rank_{rank}.pt").write_bytes(b"shard %d" % rank)
    return folder


def tracked(folder: Path, step: int | str = 20) -> Path:
    """The folder of checkpoints, with its tracker."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest_checkpointed_iteration.txt").write_text(str(step))
    return folder


def test_a_hugging_face_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = hugging_face(tmp_path / "model")
    assert resolve_checkpoint(folder, tmp_path / "out") == folder
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", ["", "global_step_20", "global_step_20/actor", "global_step_20/actor/huggingface"])
def test_weights_saved_with_an_rl_checkpoint_are_taken(tmp_path: Path, given: str) -> None:
    tracked(tmp_path)
    shards(tmp_path / "global_step_20" / "actor")
    hugging_face(tmp_path / "global_step_10" / "actor" / "huggingface", b"older")
    whole = hugging_face(tmp_path / "global_step_20" / "actor" / "huggingface")
    assert resolve_checkpoint(tmp_path / given, tmp_path / "out") == whole


@pytest.mark.parametrize("given", ["", "global_step_20", "global_step_20/huggingface"])
@pytest.mark.parametrize("actor", ["", "actor"])
def test_shards_are_found_in_both_layouts(tmp_path: Path, given: str, actor: str) -> None:
    tracked(tmp_path, "20\n")
    folder = shards(tmp_path / "global_step_20" / actor)
    path = tmp_path / (given.replace("20/", f"20/{actor}/") if actor else given)
    found = find_checkpoint(path)
    names = tuple(folder / f"model_world_size_2_rank_{rank}.pt" for rank in (0, 1))
    assert found == Checkpoint(folder.resolve(), names, sharded=True)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda p: None, "holds no model .found: nothing"),
        (lambda p: (p / "notes.txt").write_text("x"), r"found: notes\.txt.*config\.json and \*\.safetensors"),
        (lambda p: hugging_face(p, None), r"found: config\.json"),
        (lambda p: tracked(p, 30), "names step 30, but it is not there"),
        (lambda p: shards(p / "global_step_20"), "holds 1 steps and no latest_.*give one of them: global_step_20"),
        (lambda p: shards(p, world=4), "lacks the shards of 2 of 4 ranks .the first: 2"),
        (lambda p: (shards(p) / "fsdp_config.json").unlink(), r"no fsdp_config\.json; copy the whole"),
        (lambda p: (shards(p) / "fsdp_config.json").write_text("{"), "cannot be read; copy"),
        (lambda p: (shards(p) / "fsdp_config.json").write_text("[" * 100_000), "cannot be read; copy"),
        (lambda p: (shards(p) / "fsdp_config.json").write_text('{"world_size": "2"}'), "cannot be read; copy"),
        (lambda p: (shards(p) / "fsdp_config.json").write_text('{"world_size": -1}'), "lacks the shards of 1 of 1"),
        (
            lambda p: (shards(p) / "fsdp_config.json").write_text('{"world_size": 1000000000000}'),
            "lacks the shards of 1000000000000 of 1000000000000 ranks .the first: 0",
        ),
        (lambda p: tracked(p, "../elsewhere"), r"names step \.\./elsewhere, but it is not there"),
        (lambda p: (shards(p) / "huggingface/config.json").unlink(), r"no huggingface/config\.json"),
        (lambda p: (shards(p) / "lora_train_meta.json").write_text("{}"), "LoRA adapter.*merge it into its base"),
        (lambda p: (p / "adapter_config.json").write_text("{}"), "LoRA adapter"),
        (lambda p: (p / "actor/model/dist_ckpt").mkdir(parents=True), "Megatron shards; merge them"),
        (
            lambda p: (hugging_face(p, None) / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "model-00001.safetensors", "b": "model-00002.safetensors"}}'
            ),
            r"lacks 2 of 2 weight files \(the first: model-00001",
        ),
        (lambda p: (hugging_face(p) / "model.safetensors.index.json").write_text("[]"), "index.json cannot be read"),
    ],
)
def test_what_is_no_model_is_told_in_one_line(tmp_path: Path, make: Any, told: str) -> None:
    make(tmp_path)
    with pytest.raises(ConfigError, match=told) as error:
        resolve_checkpoint(tmp_path, tmp_path / "out")
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_fingerprint_is_of_the_weights_and_not_of_their_place(tmp_path: Path) -> None:
    def of(name: str, weights: bytes) -> str:
        return find_checkpoint(hugging_face(tmp_path / name, weights)).fingerprint

    large = bytes(300_000)
    assert of("a", large) == of("b", large)
    for changed in (b"1" + large[1:], large[:-1] + b"1", large + b"0", large[:150_001] + b"1" + large[150_002:]):
        assert of("c", changed) != of("a", large)


@pytest.mark.parametrize("make", [hugging_face, shards])
@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "chat_template.json", "preprocessor_config.json"]
)
def test_another_template_or_image_size_is_another_student(tmp_path: Path, make: Any, name: str) -> None:
    folder = make(tmp_path / "model")
    file = (folder / "huggingface" if make is shards else folder) / name
    before = find_checkpoint(folder).fingerprint
    (file.parent / "README.md").write_text("notes")
    assert find_checkpoint(folder).fingerprint == before
    file.write_text('{"changed": true}')
    assert find_checkpoint(folder).fingerprint != before


def test_another_step_is_another_student(tmp_path: Path) -> None:
    def name(weights: bytes, **more: Any) -> str:
        folder = hugging_face(tmp_path / "run" / "global_step_20" / "actor" / "huggingface", weights)
        return build_student(StudentSettings(path=folder, **more), tmp_path / "out").name

    assert name(b"one") == name(b"one") != name(b"two")
    assert name(b"one") != name(b"one", kind="mini")
    assert name(b"one").startswith("global_step_20@")
    assert student_label(StudentSettings(path=tmp_path / "grpo" / "hf")) == "grpo"
    with pytest.raises(ConfigError, match="one process serves it"):
        build_student(StudentSettings(path=tmp_path), tmp_path, processes=2)


def sharded_model(folder: Path, *, world: int = 2) -> dict[str, torch.Tensor]:
    """A mini model's weights in ``world`` shards as FSDP2 saves them, without the processes; returns the whole ones."""
    import torch.distributed as dist
    from safetensors.torch import load_file
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor, Shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    shards(folder, world, ())
    whole = load_file(build(folder / "huggingface") / "model.safetensors")
    for rank in range(world):
        dist.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())
        try:
            mesh = DeviceMesh("cpu", list(range(world)), mesh_dim_names=("fsdp",))
            state = {}
            for name, tensor in whole.items():
                parts = list(torch.chunk(tensor, world))
                mine = (parts[rank] if rank < len(parts) else tensor[:0]).clone()
                state[name] = DTensor.from_local(
                    mine, mesh, [Shard(0)], run_check=False, shape=tensor.shape, stride=tensor.stride()
                )
            torch.save(state, folder / f"model_world_size_{world}_rank_{rank}.pt")
        finally:
            dist.destroy_process_group()
    (folder / "huggingface" / "model.safetensors").unlink()
    return whole


@pytest.mark.slow
def test_shards_are_merged_once_by_verls_own_merger(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    pytest.importorskip("verl")
    whole = sharded_model(tmp_path / "run" / "global_step_2" / "actor")
    out = tmp_path / "out"
    folder = resolve_checkpoint(tmp_path / "run" / "global_step_2", out)
    assert folder == out / "hf" and not (out / "hf.new").exists()
    merged = load_file(folder / "model.safetensors")
    assert set(merged) == set(whole)
    assert all(torch.equal(merged[name], whole[name].bfloat16()) for name in whole), "bfloat16, as verl's merger writes"
    assert {"config.json", "tokenizer.json", "processor_config.json"} <= {path.name for path in folder.iterdir()}

    (out / "merge.log").unlink()
    assert resolve_checkpoint(tmp_path / "run" / "global_step_2", out) == folder
    assert not (out / "merge.log").exists(), "it is kept"

    shard = tmp_path / "run/global_step_2/actor/model_world_size_2_rank_1.pt"
    shard.write_bytes(b"no pickle")
    with pytest.raises(ConfigError, match=r"rank_1\.pt is no file that torch\.save wrote whole .*copy the checkpoint"):
        resolve_checkpoint(tmp_path / "run" / "global_step_2", out)
    with pytest.raises(StudentError, match=r"could not merge .*Error.*see .*merge\.log.*save hf_model") as error:
        resolve_checkpoint(tmp_path / "run" / "global_step_2", out, trusted=True)
    assert "\n" not in str(error.value)
    assert folder.is_dir(), "an older merge is not taken for the new one, and not lost either"
