"""``make env``: the environment of a machine without a GPU, in ./.venv, from requirements/cpu.lock, for Python 3.11
and 3.12 alike.

Every install is ``--no-deps``, so pip never picks a torch by itself. torch comes first, from one of two places:

* ``STEER_TORCH_INDEX=<URL of PyTorch's CPU wheel index> make env``: CPU builds of torch and torchvision. The usual way.
* nothing set: the package index that pip is configured for. On most Linux machines that would be a CUDA build, so pip
  is asked what it would take, by the wheel's metadata, and a build that needs CUDA is refused before it is downloaded.

A stamp in the environment, keyed by what it was made from, makes a second call cost nothing; an interrupted one goes
on. Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements" / "cpu.lock"
STAMP = VENV / ".steer-env"
INDEX_ENV = "STEER_TORCH_INDEX"
PIP = "pip==26.1.2"  # reads a wheel's metadata without the wheel
TORCH = ("torch==2.13.0", "torchvision==0.28.0")
PYTHONS = ((3, 11), (3, 12))
CUDA_PREFIXES = ("nvidia-", "cuda-", "pytorch-triton")


def fingerprint() -> str:
    """Digest of everything the environment is made from."""
    made_from = (LOCK, Path(__file__), ROOT / "setup.py", ROOT / "steer_verl" / "__init__.py")
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in made_from)).hexdigest()


def pip(python: Path, *arguments: str, capture: bool = False) -> str:
    """Run pip in the environment; returns its output if ``capture``. Ends the program with pip's status if it fails."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    run = subprocess.run(command, stdout=subprocess.PIPE if capture else None, text=True)
    if run.returncode:
        raise SystemExit(f"make env: pip failed (above): {' '.join(arguments)}")
    return run.stdout or ""


def pip_counting(python: Path, *arguments: str, total: int) -> None:
    """Run pip's install and show how many of ``total`` requirements it has reached: minutes pass in here."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "install", *arguments]
    reached, wanted = 0, ("Collecting ", "Requirement already satisfied: ")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout or ():
            if line.startswith(wanted):
                reached += 1
                if reached % 25 == 0 or reached == total:
                    print(f"make env:     {reached} of {total}", flush=True)
            elif line.startswith("Installing "):
                print("make env:     unpacking", flush=True)
    if run.returncode:
        raise SystemExit(f"make env: pip failed (above): {' '.join(arguments)}")


def cuda_requirements(report: str) -> list[str]:
    """The CUDA packages that the builds in a ``pip install --report`` ask for; empty for a CPU build."""
    builds = json.loads(report)["install"]
    wanted = [need for build in builds for need in build["metadata"].get("requires_dist", [])]
    return [need for need in wanted if need.startswith(CUDA_PREFIXES)]


def refuse_cuda(python: Path, index: list[str]) -> None:
    """End the program, with the cure, if pip would take a CUDA build of torch from ``index`` (pip's arguments)."""
    report = pip(python, "install", "--dry-run", "-qq", "--no-deps", "--report", "-", *index, TORCH[0], capture=True)
    if cuda := cuda_requirements(report):
        needs = f"{cuda[0].split(';')[0].strip()} and {len(cuda) - 1} more"
        raise SystemExit(
            f"make env: {TORCH[0]} would be a CUDA build here (it needs {needs}), of no use to a CPU; give the index "
            f"that pytorch.org shows for Linux, Pip, CPU: {INDEX_ENV}=<URL> make env (or, with a GPU, not make env "
            "but: pip install -e '.[gpu]')"
        )


def install(python: Path) -> None:
    """Install torch, the lock and this project, in that order, and the CPU start-up hook where it is needed."""
    url = os.environ.get(INDEX_ENV)
    index = ["--index-url", url] if url else []
    quiet = ("install", "-qq", "--no-deps")
    pip(python, *quiet, PIP)
    refuse_cuda(python, index)
    print(f"make env: 1/4 torch from {'the CPU wheel index' if url else 'the package index'}", flush=True)
    pip(python, *quiet, *index, *TORCH)
    print("make env: 2/4 the locked packages, about 1 GB to download, some minutes", flush=True)
    pins = [line for line in LOCK.read_text().splitlines() if "==" in line]
    pip_counting(python, "--no-deps", "--requirement", str(LOCK), total=len(pins))
    print("make env: 3/4 this project", flush=True)
    pip(python, *quiet, "--no-build-isolation", "--editable", str(ROOT))
    print("make env: 4/4 the CPU runtime", flush=True)
    if subprocess.run([str(python), "-c", "import torch; raise SystemExit(torch.version.cuda is not None)"]).returncode:
        raise SystemExit(
            f"make env: {VENV} holds a CUDA build of torch, or a broken one; remove {VENV} and start again"
        )
    subprocess.run([str(python), "-m", "steer_verl.cpu.install"], check=True, cwd=ROOT)


def fits(python: Path) -> bool:
    """Whether it runs, and is a Python that the lock is for."""
    try:
        words = [str(python), "-c", f"import sys; sys.exit(sys.version_info[:2] not in {PYTHONS})"]
        return subprocess.run(words).returncode == 0
    except OSError:
        return False


def main() -> None:
    """Make or complete the environment, unless the stamp says that nothing has changed."""
    python = VENV / "bin" / "python"
    if STAMP.exists() and STAMP.read_text() == fingerprint() and python.exists():
        return
    if (VENV / "bin" / "pip").exists():  # the last thing that venv makes
        if not fits(python):
            raise SystemExit(
                f"make env: {VENV} is of a Python other than 3.11 and 3.12, or of one that is gone; remove it and "
                "start again"
            )
    else:
        if sys.version_info[:2] not in PYTHONS:
            raise SystemExit(f"make env: the lock is for Python 3.11 and 3.12, not for {sys.version.split()[0]}")
        print(f"make env: Python {sys.version.split()[0]}, {sys.executable}", flush=True)
        venv.create(VENV, with_pip=True, symlinks=True)
    install(python)
    STAMP.write_text(fingerprint())
    print(f"make env: ready, {VENV}", flush=True)


if __name__ == "__main__":
    main()
