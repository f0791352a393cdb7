"""Ten thousand seeds, faults and two SIGKILLs: ``STEER_CPU=1 python -m benchmarks.data.build``.

``steer data build`` as a user starts it, in a process of its own, against a real HTTP server that plays every role and
lets a share of the attempts fail. The process is killed with SIGKILL in the middle of Stage I and again in the middle
of Stage II, and started again by the same command. Then every row is looked up in every step's records.

A smaller build is done twice, undisturbed and with both kills: the set of completions that a gateway charges must be
the same. Writes benchmarks/data/build.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from steer_verl.data.stage2.endpoints import blue_prompt
from steer_verl.work.manifest import Manifest, read_manifest
from steer_verl.work.outcomes import outcome_files, read_outcomes, shard_folders
from tests.data.role_server import RoleServer, number_of, record
from tests.models.fault_server import MODEL

HERE = Path(__file__).parent
FAULTS = 0.03
"""Share of the attempts that fail: 429, 503, a broken connection, half an answer, a flood, words without an object."""
KILLS = (("dialogues", 0.4), ("bootstrap", 0.4))
"""Step, and the share of its items after whose end the process is killed."""
ANSWERS = {
    "red_user": record(lambda body: {"message": f"And number {number_of(body)}, what of that?"}),
    "blue_expert": lambda body: f"<thinking>A box.</thinking><answer>Box {number_of(body)} is by the door.</answer>",
    "risk_alone": record(lambda body: {"level": 1 + number_of(body) % 3, "why": "plain"}),
    "risk_whole": record(lambda body: {"level": 3 + number_of(body) % 3, "why": "plain"}),
}


@dataclass
class Lot:
    """What the seeds' file holds."""

    path: Path
    good: int
    bad: Counter[str] = field(default_factory=Counter)
    """Planted rows that make no seed, by the reason that they must get."""


def write_seeds(folder: Path, count: int) -> Lot:
    """``count`` seeds with a small picture each, and a hundredth of it of every kind of bad row."""
    from PIL import Image

    rng, lot = random.Random(0), Lot(folder / "seeds.jsonl", count)
    (folder / "photos").mkdir(parents=True)
    (folder / "photos" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    rows: list[str] = []
    for number in range(count):
        Image.frombytes("RGB", (32, 32), rng.randbytes(32 * 32 * 3)).save(folder / "photos" / f"{number}.png")
        rows.append(_row(number, f"{number}.png"))
    few = max(1, count // 100)
    for number in range(few):
        rows += [
            _row(f"again-{number}", f"{number}.png", number),
            _row(f"gone-{number}", "gone.png"),
            _row(f"broken-{number}", "broken.png"),
            _row(f"out-{number}", "../../etc/passwd"),
            _row(number, f"{number}.png"),
            '{"question": "torn',
        ]
    lot.bad = Counter(duplicate=few, picture=3 * few, duplicate_id=few, line=few)
    rng.shuffle(rows)
    lot.path.write_text("\n".join(rows) + "\n")
    return lot


def _row(name: int | str, picture: str, about: int | None = None) -> str:
    number = name if about is None else about
    return json.dumps(
        {
            "question": f"What is thing {number} on the shelf, and what is it there for?",
            "image": picture,
            "unsafe": isinstance(number, int) and number % 5 < 2,
            "source": "made-up",
            "source_id": str(name),
            "license": "CC0-1.0",
        }
    )


def write_config(folder: Path, out: Path, lot: Lot, base_url: str) -> Path:
    """The build's settings: short dialogues, so that many of them can be afforded."""
    endpoint = {"base_url": base_url, "model": MODEL, "max_concurrency": 64, "timeout": 60, "max_retries": 8}
    values = {
        "out": str(out),
        "sources": [{"set": "plain", "path": str(lot.path), "images": str(folder / "photos")}],
        "agents": {"endpoint": endpoint},
        "expand": {"turn_weights": [1, 1, 0, 0, 0, 0, 0, 0, 0]},
        "red_team": {"max_strategies": 2},
        "bootstrap": {"tau_safe": 8, "tau_help": 8},
        "splits": {"sft": 0.4, "rl": 0.5, "bench": 0.1},
        "work": {"in_flight": 192, "shards": 4, "pause": 0.2},
    }
    path = folder / f"{out.name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@contextmanager
def roles() -> Iterator[RoleServer]:
    """The server, on a thread and an event loop of its own."""
    with RoleServer(ANSWERS, prompts=[blue_prompt()], faults=FAULTS, keep=False).in_thread() as server:
        yield server


def play(config: Path, out: Path, kills: tuple[tuple[str, float], ...]) -> list[str]:
    """Start the build, kill it at each mark and start it again, until it ends; what was done at each kill."""
    told = []
    for step, share in (*kills, ("", 1.0)):
        process = subprocess.Popen(
            [sys.executable, "-m", "steer_verl.cli", "data", "build", str(config)],
            stderr=(config.parent / "build.log").open("ab"),
            env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        )
        if not step:
            if process.wait() != 0:
                raise RuntimeError((config.parent / "build.log").read_text()[-2000:])
            break
        while process.poll() is None and _ended(out / "steps" / step) < share * _given(out, step):
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            raise RuntimeError(f"the build ended before it could be killed in {step}")
        told.append(f"SIGKILL in `{step}` with {_ended(out / 'steps' / step):,} of its items ended")
    return told


def _ended(step: Path) -> int:
    """Lines that the step's records hold by now."""
    files = (path for shard in shard_folders(step) for path in outcome_files(shard)) if step.is_dir() else ()
    return sum(path.read_bytes().count(b"\n") for path in files)


def _given(out: Path, step: str) -> float:
    """Items of a step, roughly: the seeds, and 0.4 of Stage I's dialogues on SFT's side."""
    seeds = _ended(out / "steps" / "seeds")
    if step == "dialogues":
        return seeds or float("inf")
    return 0.35 * seeds


def check(out: Path, lot: Lot) -> tuple[Manifest, list[str]]:
    """Every row once in every step it came to, and every planted row rejected for its reason; what is wrong."""
    manifest = read_manifest(out / "manifest.json")
    wrong = []
    for step in manifest.steps:
        ids = Counter(outcome.id for outcome in read_outcomes(out / "steps" / step.step))
        if any(count != 1 for count in ids.values()) or len(ids) != step.entered or step.undone or not step.complete:
            wrong.append(f"{step.step}: {len(ids)} ids, {sum(ids.values())} outcomes, {step.entered} in")
    seeds = manifest.steps[0]
    if seeds.rejected != dict(lot.bad) or seeds.kept != lot.good:
        wrong.append(f"seeds: {seeds.kept} kept, {seeds.rejected} rejected, planted {lot.good} and {dict(lot.bad)}")
    return manifest, wrong


def disturbed_twin(folder: Path, count: int) -> tuple[int, int, int]:
    """Completions charged undisturbed, with the kills, and in one of the two alone."""
    lot = write_seeds(folder, count)
    charged = []
    for name, kills in (("calm", ()), ("killed", KILLS)):
        with roles() as server:
            out = folder / name
            out.mkdir()
            (out / "secret").write_bytes(b"s" * 32)  # the key of the ids in the evaluator's prompts
            play(write_config(folder, out, lot, server.base_url), out, kills)
            charged.append(set(server.charges))
    return len(charged[0]), len(charged[1]), len(charged[0] ^ charged[1])


def main() -> None:
    """Run it and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data.build", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--twin", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "large"
        lot = write_seeds(folder, options.seeds)
        with roles() as server:
            began = time.monotonic()
            told = play(write_config(folder, folder / "out", lot, server.base_url), folder / "out", KILLS)
            seconds = time.monotonic() - began
            requests, charges = server.requests, len(server.charges)
            injected = {kind: count for kind, count in server.injected.items() if kind not in server.answers}
        manifest, wrong = check(folder / "out", lot)
        sets = json.loads((folder / "out" / "sets" / "sets.json").read_text())
        twin = disturbed_twin(Path(scratch) / "small", options.twin)
    page = render(manifest, wrong, told, sets, seconds, requests, charges, injected, twin, options.twin)
    (HERE / "build.md").write_text(page)
    print(page)
    if wrong or twin[2]:
        raise SystemExit(1)


def render(
    manifest: Manifest,
    wrong: list[str],
    told: list[str],
    sets: dict[str, Any],
    seconds: float,
    requests: int,
    charges: int,
    injected: dict[str, int],
    twin: tuple[int, int, int],
    twins: int,
) -> str:
    """The page."""
    rows = [
        f"| {step.step} | {step.entered:,} | {step.kept:,} | "
        f"{', '.join(f'{count:,} {reason}' for reason, count in step.rejected.items()) or 'none'} | {step.undone} |"
        for step in manifest.steps
    ]
    rows += [
        f"| set {name} | {report['offered']:,} | {report['kept']:,} | "
        f"{', '.join(f'{count:,} {reason}' for reason, count in report['left_out'].items()) or 'none'} | 0 |"
        for name, report in sets.items()
    ]
    faults = ", ".join(f"{count:,} {kind}" for kind, count in sorted(injected.items()))
    verdict = "; ".join(wrong) if wrong else "every row once in every step, every planted row rejected for its reason"
    return "\n".join(
        [
            "# A build with faults and kills: figures",
            "",
            "Written by `STEER_CPU=1 python -m benchmarks.data.build`; no figure is written by hand.",
            "",
            "| step | in | kept | rejected | undone |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            f"* {'; '.join(told)}; then it ran to its end. {seconds:.0f} s in all.",
            f"* Looked up in the records: {verdict}.",
            f"* {requests:,} requests, {charges:,} completions charged, one for each key. Faults: {faults}.",
            f"* {twins} seeds undisturbed and with both kills: {twin[0]:,} and {twin[1]:,} completions charged, "
            f"{twin[2]} of them in one of the two alone.",
            "",
            f"<sub>{date.today()}, {os.cpu_count()} cores, Python {platform.python_version()}</sub>",
            "",
        ]
    )


if __name__ == "__main__":
    main()
