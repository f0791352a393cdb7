"""From a path to a Hugging Face folder: such a folder itself, or a checkpoint of verl 0.9.1.

    <trainer.default_local_dir>/
        latest_checkpointed_iteration.txt     the last step that is whole
        global_step_<n>/                      SFT keeps its files here ...
            actor/                            ... and RL here:
                huggingface/                  configuration and tokenizer; weights too if hf_model is saved
                model_world_size_<w>_rank_<r>.pt, fsdp_config.json

(utils/checkpoint/fsdp_checkpoint_manager.py, trainer/ppo/v1/trainer_base.py, checkpoint_handler.py.) Shards without
Hugging Face weights are merged once, by verl's own merger.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from steer_verl.errors import ConfigError
from steer_verl.eval.students.merge import merge_fsdp

TRACKER = "latest_checkpointed_iteration.txt"
LORA_MARKS = ("adapter_config.json", "lora_train_meta.json", "lora_adapter")
SAMPLE = 64 * 2**10
"""Bytes read at three places of each file for the fingerprint."""

_SHARD = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")


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
        """16 hex digits over names, sizes and samples of the weights: a copy has the same, another step another."""
        digest = hashlib.sha256()
        for path in self.files:
            size = path.stat().st_size
            digest.update(f"{path.name}\n{size}\n".encode())
            with path.open("rb") as handle:
                for start in (0, size // 2, max(0, size - SAMPLE)):
                    handle.seek(start)
                    digest.update(handle.read(SAMPLE))
        return digest.hexdigest()[:16]


def find_checkpoint(path: Path) -> Checkpoint:
    """The model that ``path`` names; nothing is written.

    Raises:
        ConfigError: there is none, it is not whole, or it is a LoRA adapter; one line, with the cure.
    """
    top = _latest(path.expanduser().resolve())
    places = (top, top / "actor", *([top.parent] if top.name == "huggingface" else []))
    for place in places:
        if marks := [name for name in LORA_MARKS if (place / name).exists()]:
            raise ConfigError(
                f"student.path: {place} holds a LoRA adapter ({marks[0]}), not a whole model; merge it into its base "
                "(peft: PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(folder)) and give "
                "that folder"
            )
        for folder in (place, place / "huggingface"):
            if (folder / "config.json").is_file() and (files := weight_files(folder)):
                return Checkpoint(folder, files, sharded=False)
        if files := shard_files(place):
            return Checkpoint(place, files, sharded=True)
    raise ConfigError(_nothing(top))


def resolve_checkpoint(path: Path, out: Path) -> Path:
    """A Hugging Face folder of the model that ``path`` names.

    Args:
        path: such a folder, or a checkpoint of verl (see the module's docstring): ``global_step_<n>``, what lies in
            it, or the folder above.
        out: shards are merged into ``hf`` below it. That is kept, and made anew when the checkpoint has changed.

    Raises:
        ConfigError: see :func:`find_checkpoint`.
        StudentError: verl's merger failed.
    """
    found = find_checkpoint(path)
    if not found.sharded:
        return found.folder
    return merge_fsdp(found.folder, out / "hf", found.fingerprint, log=out / "merge.log")


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Hugging Face weights, in order of their names; none when there are none.

    Raises:
        ConfigError: an index names a file that is missing.
    """
    for index in sorted(folder.glob("*.index.json")):
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"student.path: {index} cannot be read; copy the model's folder again") from None
        if missing := sorted(name for name in named if not (folder / str(name)).is_file()):
            raise ConfigError(
                f"student.path: {folder} lacks {len(missing)} of {len(named)} weight files (the first: {missing[0]}); "
                "copy the model's folder again"
            )
    return tuple(sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin")))


def shard_files(folder: Path) -> tuple[Path, ...]:
    """The FSDP shards of every rank, in the order of ranks; none when there are none.

    Raises:
        ConfigError: a rank's file, or what the merger needs beside them, is missing.
    """
    ranks = {(int(m[1]), int(m[2])) for path in folder.glob("model_*.pt") if (m := _SHARD.fullmatch(path.name))}
    if not ranks:
        return ()
    for name in ("fsdp_config.json", "huggingface/config.json"):
        if not (folder / name).is_file():
            raise ConfigError(f"student.path: {folder} holds FSDP shards but no {name}; copy the whole checkpoint")
    try:
        world = int(json.loads((folder / "fsdp_config.json").read_text(encoding="utf-8"))["world_size"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"student.path: {folder}/fsdp_config.json cannot be read; copy the checkpoint again"
        ) from None
    if missing := sorted(set(range(world)) - {rank for size, rank in ranks if size == world}):
        raise ConfigError(
            f"student.path: {folder} lacks the shards of {len(missing)} of {world} ranks (the first: {missing[0]}); "
            "copy them from the nodes that trained"
        )
    return tuple(folder / f"model_world_size_{world}_rank_{rank}.pt" for rank in range(world))


def _latest(path: Path) -> Path:
    """The folder itself, or that of the last step where it is one of checkpoints.

    Raises:
        ConfigError: it is no folder, or the step that the tracker names is not there.
    """
    if not path.is_dir():
        raise ConfigError(f"student.path: {path} is no folder; give a Hugging Face folder or a checkpoint of verl")
    tracker = path / TRACKER
    if not tracker.is_file():
        return path
    step = tracker.read_text(errors="replace").strip()
    folder = path / f"global_step_{step}"
    if not folder.is_dir():
        there = ", ".join(sorted(p.name for p in path.glob("global_step_*"))) or "none"
        raise ConfigError(f"student.path: {tracker} names step {step}, but it is not there (there: {there}); give one")
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
