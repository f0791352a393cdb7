"""A shard is a pickle: whatever it would run, nothing runs without consent."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steer_verl.errors import ConfigError, StudentError
from steer_verl.eval.config import StudentSettings
from steer_verl.eval.students import checkpoint
from steer_verl.eval.students.build import build_student
from steer_verl.eval.students.checkpoint import resolve_checkpoint
from steer_verl.eval.students.shards import check_shards, foreign_names
from steer_verl.mini.model import build
from steer_verl.models.place import Place
from tests.eval.students.test_checkpoint import sharded_model, shards

ASKED = [{"role": "user", "content": "Well?"}]


class Runs:
    """Calls something when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.called = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.called


def archive(path: Path, pickled: bytes, *, name: str = "archive/data.pkl") -> Path:
    """A file as ``torch.save`` writes it, with a pickle of our own."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, pickled)
        file.writestr("archive/version", "3\n")
    return path


def saved(value: Any) -> bytes:
    """The bytes of ``torch.save``."""
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def crafted(folder: Path, content: bytes) -> Path:
    """A checkpoint of two shards, the second of which is crafted."""
    shards(folder)
    (folder / "model_world_size_2_rank_0.pt").write_bytes(saved({"weight": torch.zeros(2)}))
    (folder / "model_world_size_2_rank_1.pt").write_bytes(content)
    return folder


@pytest.mark.parametrize(
    "name", ["float32", "bfloat16", "float16", "float64", "int64", "int32", "uint8", "bool", "float8_e4m3fn", "uint16"]
)
def test_plain_tensors_pass(tmp_path: Path, name: str) -> None:
    path = tmp_path / "shard.pt"
    torch.save(OrderedDict(a=torch.zeros(2, 3).to(getattr(torch, name)), b=torch.nn.Parameter(torch.ones(2))), path)
    assert foreign_names(path) == []


def test_what_fsdp_saves_passes(tmp_path: Path) -> None:
    pytest.importorskip("verl")
    sharded_model(tmp_path)
    files = tuple(tmp_path.glob("model_*.pt"))
    assert len(files) == 2
    check_shards(files)


@pytest.mark.parametrize("world", [1, 2])
def test_all_placements_of_a_mesh_pass(tmp_path: Path, world: int) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=2 * world, store=FakeStore())
    try:
        mesh = DeviceMesh("cpu", torch.arange(2 * world).reshape(2, world), mesh_dim_names=("ddp", "fsdp"))
        for placement in (Shard(0), Replicate(), Partial()):
            tensor = DTensor.from_local(torch.zeros(4, 4), mesh, [Replicate(), placement], run_check=False)
            torch.save({"weight": tensor}, tmp_path / "shard.pt")
            assert foreign_names(tmp_path / "shard.pt") == []
    finally:
        dist.destroy_process_group()


def _pickles(mark: Path) -> dict[str, bytes]:
    """Pickles that make ``mark`` when they are opened, by how they hide it."""
    touch = Runs(os.system, f"touch {mark}")
    command = f"touch {mark}".encode()
    return {
        "protocol 0": pickle.dumps(touch, 0),
        "protocol 2": pickle.dumps(touch, 2),
        "protocol 4, by the stack": pickle.dumps(touch, 4),
        "protocol 5, by the stack": pickle.dumps(touch, 5),
        "eval": pickle.dumps(Runs(eval, f"open({str(mark)!r}, 'w')"), 2),
        "among tensors": pickle.dumps({"weight": [OrderedDict(a=1), touch]}, 2),
        "INST": b"(S'" + command + b"'\niposix\nsystem\n.",
        "OBJ": b"(cposix\nsystem\nS'" + command + b"'\no.",
        "through the memo": b"\x80\x02X\x05\x00\x00\x00posixq\x00X\x06\x00\x00\x00systemq\x010h\x00h\x01\x93(S'"
        + command
        + b"'\ntR.",
        "an extension's code": b"\x80\x02\x82\x01.",
        "a pickle in a pickle": pickle.dumps(Runs(pickle.loads, pickle.dumps(touch, 2)), 2),
        "a method of torch": b"\x80\x02ctorch.hub\nload\n(tR.",
        "a name that looks like a needed one": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
        "a needed name in another module": b"\x80\x02cevil\nDTensor\n.",
        "a module that has a needed name": b"\x80\x02ctorch Size\nx\n.",
    }


@pytest.mark.parametrize("how", _pickles(Path("x")))
def test_a_shard_that_would_run_something_is_refused_by_file_and_name(tmp_path: Path, how: str) -> None:
    mark = tmp_path / "ran"
    path = archive(tmp_path / "shard.pt", _pickles(mark)[how])
    folder = crafted(tmp_path / "model", path.read_bytes())
    with pytest.raises(ConfigError) as told:
        resolve_checkpoint(folder, tmp_path / "out")
    words = str(told.value)
    assert "model_world_size_2_rank_1.pt would import " in words and "student.trust_checkpoint=true" in words
    assert "\n" not in words and not mark.exists() and not (tmp_path / "out").exists(), "the merger was not begun"
    if how in ("protocol 0", "OBJ", "protocol 2"):
        assert "posix.system" in words


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps({"legacy": 1}, 2),
        pickle.dumps(Runs(os.getpid), 0),
        saved({"weight": torch.zeros(2)})[:-30],
        b"PK\x05\x06" + bytes(18),
    ],
    ids=["empty", "text", "a bare pickle", "a bare pickle that runs", "cut", "an empty archive"],
)
def test_what_torch_save_does_not_write_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = crafted(tmp_path / "model", content)
    with pytest.raises(ConfigError, match=r"rank_1\.pt is no file that torch\.save wrote whole") as told:
        resolve_checkpoint(folder, tmp_path / "out")
    assert "\n" not in str(told.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["archive/data.pkl", "other/data.pkl"])
def test_an_archive_with_two_pickles_is_refused(tmp_path: Path, second: str) -> None:
    path = archive(tmp_path / "shard.pt", pickle.dumps({}, 2))
    check_shards((path,))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(second, pickle.dumps(Runs(os.getpid), 2))
    with pytest.raises(ConfigError, match=r"is no file that torch\.save wrote"):
        check_shards((path,))


def test_a_pickle_that_swells_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steer_verl.eval.students.shards.MAX_PICKLE", 1000)
    path = tmp_path / "shard.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"0" * 10**6)
    with pytest.raises(ConfigError, match="larger than 1000 bytes"):
        check_shards((path,))


@given(st.binary(max_size=200))
def test_any_bytes_pass_or_are_told(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        try:
            check_shards((archive(Path(folder) / "shard.pt", content),))
        except ConfigError as error:
            assert "\n" not in str(error)


def test_files_beside_the_model_are_not_opened(tmp_path: Path) -> None:
    folder = crafted(tmp_path / "model", saved({"weight": torch.zeros(2)}))
    for name in ("optim", "extra_state"):
        (folder / f"{name}_world_size_2_rank_0.pt").write_bytes(b"never read")
    check_shards(tuple(folder.glob("model_*.pt")))
    assert checkpoint.find_checkpoint(folder).files == tuple(sorted(folder.glob("model_*.pt")))


@pytest.mark.parametrize("kind", ["mini", "vllm"])
async def test_a_student_of_either_kind_refuses(tmp_path: Path, kind: str) -> None:
    mark = tmp_path / "ran"
    crafted(tmp_path / "model", saved({"weight": Runs(os.system, f"touch {mark}")}))
    settings = StudentSettings.model_validate({"path": tmp_path / "model", "kind": kind})
    student = build_student(settings, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"posix\.system"):
        await student.answer(ASKED, Place("step/item"))
    await student.close()
    assert not mark.exists()


@pytest.mark.slow
@pytest.mark.parametrize("trusted", [False, True])
def test_the_merger_runs_nothing_even_of_a_shard_that_was_exchanged_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    """With consent it is opened as it is, which shows that the attack works."""
    pytest.importorskip("verl")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setattr(checkpoint, "check_shards", lambda files: None)
    mark, folder = tmp_path / "ran", tmp_path / "model"
    crafted(folder, saved({"weight": Runs(os.system, f"touch {mark}")}))
    (folder / "model_world_size_2_rank_0.pt").write_bytes((folder / "model_world_size_2_rank_1.pt").read_bytes())
    build(folder / "huggingface")
    (folder / "huggingface" / "model.safetensors").unlink()
    with pytest.raises(StudentError, match="could not merge") as told:
        resolve_checkpoint(folder, tmp_path / "out", trusted=trusted)
    assert mark.exists() == trusted
    assert trusted or "Weights only load failed" in str(told.value) or "posix.system" in str(told.value)


async def test_a_hugging_face_folder_runs_neither_its_pickle_nor_its_code(tmp_path: Path) -> None:
    mark, folder = tmp_path / "ran", build(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoProcessor": "evil.Processor"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nConfig = Model = Processor = None\n")
    student = build_student(StudentSettings(path=folder, kind="mini"), tmp_path / "out")
    await student.check()
    await student.close()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(saved({"weight": Runs(os.system, f"touch {mark}")}))
    student = build_student(StudentSettings(path=folder, kind="mini"), tmp_path / "out")
    with pytest.raises(Exception, match=r"[Ww]eights|posix\.system"):
        await student.check()
    await student.close()
    assert not mark.exists()


def test_a_link_in_a_foreign_run_folder_leads_the_merger_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("months of work")
    out = tmp_path / "out"
    out.mkdir()
    (out / "hf.new").symlink_to(mine)
    (out / "hf").symlink_to(mine)
    folder = crafted(tmp_path / "model", saved({"weight": torch.zeros(2)}))

    def merge(command: list[str], **_: Any) -> Any:
        target = Path(command[command.index("--target_dir") + 1])
        target.mkdir()
        (target / "config.json").write_text(json.dumps({}))

        class Ended:
            returncode = 0

        return Ended

    monkeypatch.setattr("subprocess.run", merge)
    assert resolve_checkpoint(folder, out) == out / "hf"
    assert not (out / "hf").is_symlink() and [path.name for path in mine.iterdir()] == ["notes.txt"]
