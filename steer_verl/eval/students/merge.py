"""verl's model merger, called as its documentation says: the one place that knows its command line (verl 0.9.1)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from steer_verl.errors import StudentError
from steer_verl.eval.students.child import environment, last_words

STAMP = "merged_from.txt"
"""In a merged folder: the fingerprint of the shards that it was made of."""


def merger_arguments(shards: Path, target: Path) -> list[str]:
    """Arguments of ``python -m verl.model_merger`` (model_merger/base_model_merger.py, ``parse_args``)."""
    return ["merge", "--backend", "fsdp", "--local_dir", str(shards), "--target_dir", str(target)]


def merge_fsdp(shards: Path, target: Path, fingerprint: str, *, log: Path) -> Path:
    """Make a Hugging Face folder, in bfloat16 as verl's merger does, unless it is there already.

    Args:
        shards: folder of the shards of all ranks. They are pickles: they are as trustworthy as who wrote them.
        target: the folder; it is whole or not there.
        fingerprint: of the shards.
        log: what the merger says.

    Returns:
        ``target``.

    Raises:
        StudentError: the merger failed.
    """
    stamp = target / STAMP
    if stamp.is_file() and stamp.read_text() == fingerprint:
        return target
    fresh = target.with_name(f"{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "verl.model_merger", *merger_arguments(shards, fresh)]
    with log.open("wb") as output:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment()
        )
    if ended.returncode != 0:
        words = last_words(log.read_text(errors="replace"))
        raise StudentError(
            f"student.path: verl's merger could not merge {shards} ({words}); see {log}, or save hf_model with the "
            "checkpoint (actor_rollout_ref.actor.checkpoint.save_contents)"
        )
    (fresh / STAMP).write_text(fingerprint)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(fresh, target)
    return target
