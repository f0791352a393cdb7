"""From a path to a Hugging Face folder: such a folder itself, or a checkpoint of verl 0.9.1.

    <trainer.default_local_dir>/
        latest_checkpointed_iteration.txt     the last step that is whole
        global_step_<n>/                      SFT keeps its files here ...
            actor/                            ... and RL here:
                huggingface/                  configuration and tokenizer; weights too if hf_model is saved
                model_world_size_<w>_rank_<r>.pt, fsdp_config.json

(utils/checkpoint/fsdp_checkpoint_manager.py, trainer/ppo/v1/trainer_base.py, checkpoint_handler.py.) Shards without
Hugging Face weights are merged once, by verl's own merger. The files of the optimizer and of the trainer's state are
never opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_verl.errors import ConfigError, StudentError, disk_error
from steer_verl.eval.students.shards import SAFE_LOAD, check_shards
from steer_verl.processes.child import alone_environment, last_words

TRACKER = "latest_checkpointed_iteration.txt"
LORA_MARKS = ("adapter_config.json", "lora_train_meta.json", "lora_adapter")
STAMP = "merged_from.txt"
"""In a merged folder: the fingerprint of the shards that it was made of."""
SPOKEN = ("config.json", "*token*", "vocab*", "merges.txt", "chat_template*", "*processor_config.json", "*.py")
"""Files beside the weights that decide what a student is shown and says, its chat template and image sizes too."""
SAMPLE = 64 * 2**10
"""Bytes read at three places of each file for the fingerprint."""

_SHARD = re.compile(r"model_world_size_(\d{1,9})_rank_(\d{1,9})\.pt")


@dataclass(frozen=True)
class Checkpoint:
    """Where a model lies."""

    folder: Path
    files: tuple[Path, ...]
    """Its weights."""
    sharded: bool
    """FSDP shards, of which a Hugging Face folder must be made first."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits over names, sizes and samples of the weights and of :data:`SPOKEN`: a copy has the same."""
        digest, beside = hashlib.sha256(), self.folder / "huggingface" if self.sharded else self.folder
        spoken = {path for pattern in SPOKEN for path in beside.glob(pattern) if path.is_file()}
        for path in (*self.files, *sorted(spoken)):
            size = path.stat().st_size
            digest.update(f"{path.name}\n{size}\n".encode())
            with path.open("rb") as handle:
                for start in (0, size // 2, max(0, size - SAMPLE)):
                    handle.seek(start)
                    digest.update(handle.read(SAMPLE))
        return digest.hexdigest()[:16]


def resolve_checkpoint(path: Path, out: Path, *, trusted: bool = False) -> Path:
    """A Hugging Face folder of the model that ``path`` names.

    Args:
        path: such a folder, or a checkpoint of verl (see the module's docstring): ``global_step_<n>``, what lies in
            it, or the folder above.
        out: shards are merged into ``hf`` below it. That is kept, and made anew when the checkpoint has changed.
        trusted: open shards that may run code.

    Raises:
        ConfigError: see :func:`find_checkpoint`; or a shard holds more than tensors, and is not trusted.
        StudentError: verl's merger failed.
        SteerError: a folder cannot be read or written.
    """
    try:
        found = find_checkpoint(path)
        return _merged(found, out, trusted) if found.sharded else found.folder
    except OSError as error:
        raise disk_error(error) from None


def find_checkpoint(path: Path) -> Checkpoint:
    """The model that ``path`` names; nothing is written.

    Raises:
        ConfigError: there is none, it is not whole, or it is a LoRA adapter; one line, with how to fix it.
    """
    top = _latest(Path(os.path.expanduser(path)).resolve())
    for place in (top, top / "actor", *([top.parent] if top.name == "huggingface" else [])):
        if marks := [name for name in LORA_MARKS if (place / name).exists()]:
            raise ConfigError(
                f"student.path: {place} holds a LoRA adapter ({marks[0]}), not a whole model; merge it into its base "
                "(peft: PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(folder)) and give "
                "that folder"
            )
        for folder in (place, place / "huggingface"):
            if (folder / "config.json").is_file() and (files := _weight_files(folder)):
                return Checkpoint(folder, files, sharded=False)
        if files := _shard_files(place):
            return Checkpoint(place, files, sharded=True)
    raise ConfigError(_nothing(top))


def merger_arguments(shards: Path, target: Path) -> list[str]:
    """Arguments of ``python -m verl.model_merger`` (model_merger/base_model_merger.py, ``parse_args``)."""
    return ["merge", "--backend", "fsdp", "--local_dir", str(shards), "--target_dir", str(target)]


def _merged(found: Checkpoint, out: Path, trusted: bool) -> Path:
    """A Hugging Face folder below ``out``, in bfloat16 as verl's merger writes: whole, or not there."""
    target, fresh, log, fingerprint = out / "hf", out / "hf.new", out / "merge.log", found.fingerprint
    if (target / STAMP).is_file() and (target / STAMP).read_text(errors="replace") == fingerprint:
        return target
    if not trusted:
        check_shards(found.files)
    _remove(fresh)
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "verl.model_merger", *merger_arguments(found.folder, fresh)]
    env = {**alone_environment(), **({} if trusted else SAFE_LOAD)}
    with log.open("wb") as output:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env)
    if ended.returncode != 0:
        words = last_words(log.read_text(errors="replace"))
        raise StudentError(
            f"student.path: verl's merger could not merge {found.folder} ({words}); see {log}, or save "
            "hf_model with the checkpoint (actor_rollout_ref.actor.checkpoint.save_contents)"
        )
    (fresh / STAMP).write_text(fingerprint)
    _remove(target)
    os.replace(fresh, target)
    return target


def _remove(folder: Path) -> None:
    """A folder with all that is in it; of a link, the link alone."""
    folder.unlink() if folder.is_symlink() else shutil.rmtree(folder, ignore_errors=True)


def _weight_files(folder: Path) -> tuple[Path, ...]:
    """Hugging Face weights, in order of their names; an index that names a missing file is a ``ConfigError``."""
    for index in sorted(folder.glob("*.index.json")):
        named = {str(name) for name in _field(index, "weight_map", dict).values()}
        if missing := sorted(name for name in named if not (folder / name).is_file()):
            raise ConfigError(
                f"student.path: {folder} lacks {len(missing)} of {len(named)} weight files (the first: {missing[0]}); "
                "copy the model's folder again"
            )
    return tuple(sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin")))


def _shard_files(folder: Path) -> tuple[Path, ...]:
    """The FSDP shards of every rank, if any, in order; a ``ConfigError`` where one, or what the merger needs, lacks."""
    ranks = {(int(m[1]), int(m[2])) for path in folder.glob("model_*.pt") if (m := _SHARD.fullmatch(path.name))}
    if not ranks:
        return ()
    for name in ("fsdp_config.json", "huggingface/config.json"):
        if not (folder / name).is_file():
            raise ConfigError(f"student.path: {folder} holds FSDP shards but no {name}; copy the whole checkpoint")
    world = max(1, _field(folder / "fsdp_config.json", "world_size", int))
    there = {rank for size, rank in ranks if size == world and rank < world}
    if lacking := world - len(there):
        first = next(rank for rank in range(world) if rank not in there)
        raise ConfigError(
            f"student.path: {folder} lacks the shards of {lacking} of {world} ranks (the first: {first}); "
            "copy them from the nodes that trained"
        )
    return tuple(folder / f"model_world_size_{world}_rank_{rank}.pt" for rank in range(world))


def _field(file: Path, name: str, kind: type) -> Any:
    """A field of a JSON file; where it is no ``kind``, a ``ConfigError``."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))[name]
        if isinstance(value, kind):
            return value
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ConfigError(f"student.path: {file} cannot be read; copy the model's folder again")


def _latest(path: Path) -> Path:
    """The folder itself, or that of the last step where it is one of checkpoints; else a ``ConfigError``."""
    if not path.is_dir():
        raise ConfigError(f"student.path: {path} is no folder; give a Hugging Face folder or a checkpoint of verl")
    tracker = path / TRACKER
    if not tracker.is_file():
        return path
    step = tracker.read_text(errors="replace").strip()
    folder = path / f"global_step_{step}"
    if not step.isdecimal() or not folder.is_dir():
        there = ", ".join(sorted(p.name for p in path.glob("global_step_*"))) or "none"
        raise ConfigError(
            f"student.path: {tracker} names step {step[:40]}, but it is not there (there: {there}); give one"
        )
    return folder


def _nothing(folder: Path) -> str:
    there = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "") if there else "nothing"
    if steps := [name for name in there if name.startswith("global_step_")]:
        return f"student.path: {folder} holds {len(steps)} steps and no {TRACKER}; give one of them: {steps[-1]}"
    if any((folder / name / "dist_ckpt").exists() for name in ("model", "actor/model")):
        return (
            f"student.path: {folder} holds Megatron shards; merge them with `python -m verl.model_merger merge "
            "--backend megatron --local_dir ... --target_dir ...` and give that folder"
        )
    return (
        f"student.path: {folder} holds no model (found: {shown}); give a folder with config.json and *.safetensors, or "
        "a checkpoint of verl with the model's shards"
    )
