"""``make env`` never lets pip take a CUDA torch: shown with a real pip against a package index on 127.0.0.1."""

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
WHEEL = "torch-2.13.0-py3-none-any.whl"


@pytest.fixture
def env() -> ModuleType:
    """requirements/env.py, which is a script outside every package."""
    spec = importlib.util.spec_from_file_location("make_env", ROOT / "requirements" / "env.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Index(ThreadingHTTPServer):
    """An index with one torch, which serves the wheel's metadata beside it, as indexes do, but not the wheel."""

    requires: tuple[str, ...] = ()
    asked: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/simple"

    def metadata(self) -> bytes:
        needs = "".join(f"Requires-Dist: {need}\n" for need in self.requires)
        return f"Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\n{needs}".encode()


class Handler(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        digest = hashlib.sha256(self.server.metadata()).hexdigest()
        link = f'<a href="/{WHEEL}" data-core-metadata="sha256={digest}">{WHEEL}</a>'
        pages = {"/simple/torch/": link.encode(), f"/{WHEEL}.metadata": self.server.metadata()}
        body = pages.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """Pip's own configuration is shut out, so that only this index is asked."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_IGNORE_INSTALLED", "1")
    server = Index(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_cuda_build_is_refused_before_it_is_downloaded(env: ModuleType, index: Index) -> None:
    index.requires = ("filelock", "nvidia-cublas==13.1; platform_system == 'Linux'", "nvidia-nccl-cu13==2.28")
    with pytest.raises(
        SystemExit, match=r"CUDA build here \(it needs nvidia-cublas==13\.1 and 1 more\).*STEER_TORCH_INDEX="
    ):
        env.refuse_cuda(Path(sys.executable), ["--index-url", index.url])
    assert f"/{WHEEL}.metadata" in index.asked
    assert f"/{WHEEL}" not in index.asked, "gigabytes would have been downloaded to learn this"


def test_a_cpu_build_passes(env: ModuleType, index: Index) -> None:
    index.requires = ("filelock", "sympy>=1.13.3", "opt-einsum>=3.3; extra == 'opt-einsum'")
    env.refuse_cuda(Path(sys.executable), ["--index-url", index.url])
    assert f"/{WHEEL}" not in index.asked


@pytest.mark.parametrize(
    ("needs", "refused"),
    [(["nvidia-nccl-cu13"], True), (["cuda-toolkit[all]"], True), (["numpy"], False), ([], False)],
)
def test_what_counts_as_cuda(env: ModuleType, needs: list[str], refused: bool) -> None:
    report = json.dumps({"install": [{"metadata": {"name": "torch", "requires_dist": needs}}]})
    assert bool(env.cuda_requirements(report)) == refused


def test_every_pin_is_exact_and_none_is_torch(env: ModuleType) -> None:
    pins = [line for line in env.LOCK.read_text().splitlines() if line and not line.startswith("#")]
    names = [pin.split("==")[0].lower() for pin in pins]
    assert all(pin.count("==") == 1 for pin in pins)
    assert len(names) == len(set(names))
    assert not {"torch", "torchvision", "torchaudio", "vllm"} & set(names)
    assert not [name for name in names if name.startswith(env.CUDA_PREFIXES)]


def test_nothing_is_done_twice(env: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The stamp follows what the environment is made from."""
    calls: list[Path] = []
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pip").touch()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setattr(env, "VENV", tmp_path)
    monkeypatch.setattr(env, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(env, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(env, "install", calls.append)
    env.LOCK.write_text("one==1\n")
    env.main()
    env.main()
    assert len(calls) == 1
    env.LOCK.write_text("one==2\n")
    env.main()
    assert len(calls) == 2


def test_an_interrupted_environment_is_not_taken_for_ready(
    env: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(python: Path) -> None:
        raise SystemExit("pip failed")

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pip").touch()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setattr(env, "VENV", tmp_path)
    monkeypatch.setattr(env, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(env, "install", interrupted)
    with pytest.raises(SystemExit):
        env.main()
    assert not env.STAMP.exists()


def test_another_python_is_refused_before_anything_is_made(
    env: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(env, "VENV", tmp_path / "venv")
    monkeypatch.setattr(env, "STAMP", tmp_path / "venv" / "stamp")
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(SystemExit, match=r"for Python 3\.11 and 3\.12"):
        env.main()
    assert not env.VENV.exists()


@pytest.mark.parametrize("python", ["#!/bin/sh\nexit 1\n", None], ids=["another", "gone"])
def test_an_environment_of_another_python_is_told(
    env: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, python: str | None
) -> None:
    """One's own .venv, or one whose Python an upgrade of the system has taken away."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pip").touch()
    if python:
        (tmp_path / "bin" / "python").write_text(python)
        (tmp_path / "bin" / "python").chmod(0o755)
    monkeypatch.setattr(env, "VENV", tmp_path)
    monkeypatch.setattr(env, "STAMP", tmp_path / "stamp")
    env.STAMP.write_text("" if python else env.fingerprint())
    with pytest.raises(SystemExit, match="remove it and start again"):
        env.main()


STAND_IN = """#!/bin/sh
if [ "$1" = -c ]; then exec {python} "$@"; fi
echo "{name} runs $1"
"""


@pytest.mark.parametrize(
    ("here", "said"),
    [
        (("python3.11", "python3.12"), "python3.11 runs requirements/env.py"),
        (("python3.12",), "python3.12 runs requirements/env.py"),
        (("python3",), "python3 runs requirements/env.py"),
        (("broken", "python3.12"), "python3.12 runs requirements/env.py"),
        (("python3.13",), "no Python 3.11 or 3.12 here"),
    ],
)
def test_make_takes_the_first_python_that_fits(tmp_path: Path, here: tuple[str, ...], said: str) -> None:
    for name in ("make", "sh"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    for name in here:
        program = tmp_path / name.replace("broken", "python3.11")  # a version manager's name for what is not installed
        program.write_text(
            "#!/bin/sh\nexit 127\n" if name == "broken" else STAND_IN.format(python=sys.executable, name=name)
        )
        program.chmod(0o755)
    run = subprocess.run(["make", "env"], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert said in run.stdout, run.stderr
