"""``python -m steer_verl.cpu.install``: write the start-up hook of ``boot`` into this environment, if it is needed.

Needed means: torch is a CPU build and torchvision a CUDA build, told by importing torchvision without the hook. Where
both are CPU builds (PyTorch's own CPU wheel index) nothing is written, and a hook left from earlier is removed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from steer_verl import cpu
from steer_verl.errors import disk_error

HOOK = "steer_verl_cpu.pth"
LINE = f"import os; os.environ.get('{cpu.ENV}') == '1' and __import__('steer_verl.cpu.boot').cpu.boot.install()\n"


def hook_path() -> Path:
    """Where the hook stands in the running interpreter's environment."""
    return Path(sysconfig.get_path("purelib")) / HOOK


def torchvision_fault() -> str | None:
    """The last line of the error of ``import torchvision`` without the hook, or None where it imports.

    torch itself is imported first, so that a broken torch is not taken for a torchvision that needs help.
    """
    env = {**os.environ, cpu.ENV: "0"}
    subprocess.run([sys.executable, "-c", "import torch"], env=env, check=True)
    run = subprocess.run([sys.executable, "-c", "import torch, torchvision"], env=env, capture_output=True, text=True)
    return None if run.returncode == 0 else (run.stderr.strip().splitlines() or ["no message"])[-1]


def install() -> str:
    """Write or remove the hook; returns what was done and why, for a person to read.

    Raises:
        SystemExit: torchvision has another fault, or the environment may not be written.
    """
    fault = torchvision_fault()
    if fault is not None and "operator torchvision::" not in fault:
        raise SystemExit(f"torchvision cannot be imported, and not for want of its operators: {fault}")
    try:
        if fault is None:
            hook_path().unlink(missing_ok=True)
            return "torchvision imports as it is: no start-up hook installed"
        hook_path().write_text(LINE)
    except OSError as error:
        raise SystemExit(str(disk_error(error, hook_path(), "written"))) from None
    return f"torchvision is a CUDA build beside a CPU torch ({fault}): start-up hook written to {hook_path()}"


if __name__ == "__main__":
    print(install())
