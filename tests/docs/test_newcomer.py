"""README's way from a clone to one's own model, data and tutor is walked, up to the trainer's own command line."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from pathlib import Path

from PIL import Image

from steer_verl.mini import model as mini_model
from tests.docs.pages import ROOT, blocks, rows
from tests.models.fault_server import FaultServer

TIDY = "steer_verl.processes.tidy"
STAND_IN = """#!/bin/sh
if [ "$2" = {tidy} ]; then printf '%s\\n' "$@" > said; exit; fi
exec {python} "$@"
"""


async def test_from_a_clone_to_the_trainer(tmp_path: Path) -> None:
    (block,) = [text for text in blocks(ROOT / "README.md", "bash") if "git clone" in text]
    install, *commands = block.replace("\\\n", " ").splitlines()
    assert shlex.split(install, comments=True)[-3:] == ["install", "-e", ".[gpu,data]"]

    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    Image.new("RGB", (84, 84), (200, 90, 40)).save(tmp_path / "cup.png")
    for name, count in (("dialogues", 64), ("heldout", 4)):
        (tmp_path / f"{name}.jsonl").write_text(rows(name, count))
    mini_model.build(tmp_path / "student")
    config = tmp_path / "student" / "config.json"
    config.write_text(config.read_text().replace("4096", "16384"))  # the recipe's dialogues are longer than its own
    (tmp_path / "steer").write_text(f'#!/bin/sh\nexec {sys.executable} -m steer_verl.cli "$@"\n')
    (tmp_path / "python3").write_text(STAND_IN.format(tidy=TIDY, python=sys.executable))
    for program in ("steer", "python3"):
        (tmp_path / program).chmod(0o755)

    async with FaultServer(models=["Qwen/Qwen3-VL-32B-Instruct"]) as tutor:
        text = "\n".join(commands).replace("http://tutor:8000/v1", tutor.base_url)
        text = text.replace("=Qwen/Qwen2.5-VL-3B-Instruct", "=student")
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        run = await asyncio.create_subprocess_exec(
            *("bash", "-ec", text),
            cwd=tmp_path,
            env=env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told, _ = await run.communicate()
    assert run.returncode == 0, told.decode()
    said = (tmp_path / "said").read_text().splitlines()
    assert (
        "verl.trainer.main_ppo" in said
        and "actor_rollout_ref.model.path=student" in said
        and f"data.val_files={tmp_path}/val.parquet" in said
    )
    assert tutor.requests, "preflight has asked the tutor before anything is loaded"
