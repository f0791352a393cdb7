"""Ten thousand seeds, faults and two SIGKILLs: ``STEER_CPU=1 python -m benchmarks.data.build``.

``steer data build`` as a user starts it, in a process of its own, against a real HTTP server that plays every role and
lets a share of the attempts fail. The process is killed with SIGKILL twice while it makes dialogues, and started again
by the same command. Then every row is looked up in the records, and the server says what reached it: no request whose
reply was sent whole may come again, but for those in flight at a kill. Writes benchmarks/data/build.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from benchmarks import pages
from steer_verl.data.ready import QUESTION
from steer_verl.work.manifest import Manifest, read_manifest
from steer_verl.work.outcomes import outcome_files, read_outcomes
from tests.data.role_server import RoleServer, number_of, record
from tests.models.fault_server import MODEL, Request, Step
from tests.models.replies import completion

HERE = Path(__file__).parent
FAULTS = 0.03
"""Share of the attempts that fail: 429, 503, a broken connection, half an answer, a flood, words without an object."""
KILLS = (0.3, 0.65)
"""Shares of the seeds after whose end the process is killed."""
CONCURRENCY = 64
"""Requests in flight at most, and so what a kill may cost."""
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
    """``count`` seeds with a small image each, and a hundredth of it of every kind of bad row."""
    from PIL import Image

    rng, lot = random.Random(0), Lot(folder / "seeds.jsonl", count)
    (folder / "photos").mkdir(parents=True)
    (folder / "photos" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno image")
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
            '{"question": "torn',
        ]
    lot.bad = Counter(duplicate=few, image=3 * few, line=few)
    rng.shuffle(rows)
    lot.path.write_text("\n".join(rows) + "\n")
    return lot


def _row(name: int | str, image: str, about: int | None = None) -> str:
    number = name if about is None else about
    return json.dumps(
        {
            "question": f"What is thing {number} on the shelf, and what is it there for?",
            "image": image,
            "unsafe": isinstance(number, int) and number % 5 < 2,
            "source": "made-up",
            "source_id": str(name),
            "license": "CC0-1.0",
        }
    )


def write_config(folder: Path, out: Path, lot: Lot, base_url: str) -> Path:
    """The build's settings: short dialogues, so that many of them can be afforded."""
    endpoint = {"base_url": base_url, "model": MODEL, "max_concurrency": CONCURRENCY, "timeout": 60, "max_retries": 8}
    values = {
        "out": str(out),
        "sources": [{"set": "plain", "path": str(lot.path), "images": str(folder / "photos")}],
        "agents": {"endpoint": endpoint},
        "expand": {"turn_weights": [1, 1, 0, 0, 0, 0, 0, 0, 0]},
        "red_team": {"max_strategies": 2, "prompt_words": [1, 200]},
        "bootstrap": {"tau_safe": 8, "tau_help": 8},
        "splits": {"sft": 0.4, "rl": 0.5, "bench": 0.1},
        "work": {"in_flight": 192, "shards": 4, "pause": 0.2},
    }
    path = folder / f"{out.name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


class Roles(RoleServer):
    """Every role; what a build asks before its first item, at each start anew, is answered and not counted."""

    def _by_role(self, request: Request) -> Step:
        if QUESTION in request.text:
            return Step("ready", _ready)
        return super()._by_role(request)


async def _ready(request: Request) -> web.Response:
    request.server.requests -= 1
    return web.Response(body=completion("ready"), content_type="application/json")


def play(config: Path, out: Path, seeds: int) -> list[int]:
    """Start the build, kill it at each mark and start it again, until it ends.

    Returns:
        The seeds that had ended by each kill.
    """
    ended = []
    for share in (*KILLS, None):
        process = subprocess.Popen(
            [sys.executable, "-m", "steer_verl.cli", "data", "build", str(config)],
            stderr=(config.parent / "build.log").open("ab"),
            env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        )
        if share is None:
            if process.wait() != 0:
                raise RuntimeError((config.parent / "build.log").read_text()[-2000:])
            break
        while process.poll() is None and _ended(out) < share * seeds:
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            raise RuntimeError(
                f"the build ended before it could be killed\n{(config.parent / 'build.log').read_text()}"
            )
        ended.append(_ended(out))
    return ended


def _ended(out: Path) -> int:
    """Lines that the records of the dialogues hold by now."""
    step = out / "steps" / "dialogues"
    files = outcome_files(step)
    return sum(path.read_bytes().count(b"\n") for path in files)


def check(out: Path, lot: Lot) -> tuple[Manifest, list[str]]:
    """Every seed ended once, and every planted row was rejected for its reason; what is wrong."""
    manifest = read_manifest(out / "manifest.json")
    seeds, dialogues = manifest.steps
    wrong = []
    ids = Counter(outcome.id for outcome in read_outcomes(out / "steps" / "dialogues"))
    if any(count != 1 for count in ids.values()) or len(ids) != lot.good or not dialogues.complete:
        wrong.append(f"dialogues: {len(ids)} ids, {sum(ids.values())} outcomes, {lot.good} seeds")
    if seeds.rejected != dict(lot.bad) or seeds.kept != lot.good:
        wrong.append(f"seeds: {seeds.kept} kept, {seeds.rejected} rejected, planted {lot.good} and {dict(lot.bad)}")
    return manifest, wrong


def main() -> None:
    """Run it and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data.build", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000)
    count = parser.parse_args().seeds
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = Path(scratch), Path(scratch) / "out"
        lot = write_seeds(folder, count)
        with Roles(ANSWERS, faults=FAULTS, keep=False).in_thread() as server:
            began = time.monotonic()
            ended = play(write_config(folder, out, lot, server.base_url), out, count)
            seconds = time.monotonic() - began
        manifest, wrong = check(out, lot)
        sets = json.loads((out / "sets" / "sets.json").read_text())
    again = server.delivered.total() - len(server.delivered)
    if again > len(KILLS) * CONCURRENCY:
        wrong.append(f"{again} requests came again")
    injected = {kind: n for kind, n in server.injected.items() if kind not in {*server.answers, "ready"}}
    verdict = "; ".join(wrong) or "every seed ended once, every planted row was rejected for its reason"
    pages.write(
        HERE / "build.md",
        "# A build with faults and kills: figures",
        pages.written("STEER_CPU=1 python -m benchmarks.data.build"),
        pages.table(["step", "in", "kept", "rejected"], steps(manifest, sets)),
        f"* SIGKILL with {ended[0]:,} and with {ended[1]:,} seeds ended; then it ran to its end. {seconds:.0f} s in "
        f"all.\n* Looked up in the records: {verdict}.\n* {server.requests:,} requests reached the server, "
        f"{len(server.delivered):,} different ones were answered. Faults: {_reasons(injected)}. {again} requests came "
        f"again although their reply had been sent whole; at most {CONCURRENCY} are in flight at a kill.",
    )
    if wrong:
        raise SystemExit(1)


def steps(manifest: Manifest, sets: dict[str, Any]) -> list[list[object]]:
    """What went into each step and set, what was kept, and why the rest was not."""
    seeds, dialogues = manifest.steps
    rows: list[list[object]] = [
        [seeds.step, f"{seeds.entered:,}", f"{seeds.kept:,}", _reasons(seeds.rejected)],
        [dialogues.step, f"{dialogues.entered:,}", f"{dialogues.kept:,}", "none"],
    ]
    rows += [[f"- rejected in {stage}", "", "", _reasons(reasons)] for stage, reasons in dialogues.stages.items()]
    for name, told in sets.items():
        rows.append([f"set {name}", f"{told['offered']:,}", f"{told['kept']:,}", _reasons(told["left_out"])])
    return rows


def _reasons(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items())) or "none"


if __name__ == "__main__":
    main()
