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
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from PIL import Image

from benchmarks import pages
from steer_verl.data.ready import QUESTION
from steer_verl.work.manifest import Manifest, read_manifest
from steer_verl.work.outcomes import outcome_files, read_outcomes
from tests.data.role_server import RoleServer, number_of, record
from tests.models.fault_server import MODEL, Request, Step
from tests.models.replies import completion

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


def write_seeds(folder: Path, count: int) -> dict[str, int]:
    """Write ``count`` seeds with a small image each, and a hundredth of it of every kind of bad row.

    Returns:
        Planted rows that make no seed, by the reason that they must get.
    """
    rng, photos, rows, few = random.Random(0), folder / "photos", list[str](), max(1, count // 100)
    photos.mkdir()
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno image")
    for number in range(count):
        Image.frombytes("RGB", (32, 32), rng.randbytes(32 * 32 * 3)).save(photos / f"{number}.png")
        rows.append(_row(number, f"{number}.png", unsafe=number % 5 < 2))
    for number in range(few):
        rows += [_row(number, f"{number}.png", "again"), '{"question": "torn']
        rows += [_row(number, image, image) for image in ("gone.png", "broken.png", "../../etc/passwd")]
    rng.shuffle(rows)
    (folder / "seeds.jsonl").write_text("\n".join(rows) + "\n")
    return {"duplicate": few, "image": 3 * few, "line": few}


def _row(number: int, image: str, sort: str = "good", unsafe: bool = False) -> str:
    question = f"What is thing {number} on the shelf, and what is it there for?"
    source = {"source": "made-up", "source_id": f"{sort} {number}", "license": "CC0-1.0"}
    return json.dumps({"question": question, "image": image, "unsafe": unsafe, **source})


def write_config(folder: Path, base_url: str) -> Path:
    """The build's settings: short dialogues, so that many of them can be afforded."""
    endpoint = {"base_url": base_url, "model": MODEL, "max_concurrency": CONCURRENCY, "timeout": 60, "max_retries": 8}
    values = {
        "out": str(folder / "out"),
        "sources": [{"set": "plain", "path": str(folder / "seeds.jsonl"), "images": str(folder / "photos")}],
        "agents": {"endpoint": endpoint},
        "expand": {"turn_weights": [1, 1, 0, 0, 0, 0, 0, 0, 0]},
        "red_team": {"max_strategies": 2, "prompt_words": [1, 200]},
        "bootstrap": {"tau_safe": 8, "tau_help": 8},
        "splits": {"sft": 0.4, "rl": 0.5, "bench": 0.1},
        "work": {"in_flight": 192, "shards": 4, "pause": 0.2},
    }
    path = folder / "build.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


class Roles(RoleServer):
    """Every role; what a build asks before its first item, at each start anew, is answered and not counted."""

    def _by_role(self, request: Request) -> Step:
        return Step("ready", _ready) if QUESTION in request.text else super()._by_role(request)


async def _ready(request: Request) -> web.Response:
    request.server.requests -= 1
    return web.Response(body=completion("ready"), content_type="application/json")


def play(config: Path, seeds: int) -> list[int]:
    """Start the build, kill it at each mark and start it again, until it ends.

    Returns:
        The seeds that had ended by each kill.
    """
    command = [sys.executable, "-m", "steer_verl.cli", "data", "build", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    records, killed = config.parent / "out" / "steps" / "dialogues", list[int]()

    def ended() -> int:
        return sum(path.read_bytes().count(b"\n") for path in outcome_files(records))

    for share in KILLS:
        build = subprocess.Popen(command, env=environment)
        while ended() < share * seeds:
            if build.poll() is not None:
                raise RuntimeError("the build ended before it could be killed")
            time.sleep(0.1)
        build.kill()
        build.wait()
        killed.append(ended())
    subprocess.run(command, env=environment, check=True)
    return killed


def wrong(out: Path, count: int, planted: dict[str, int], again: int) -> Iterator[str]:
    """What is not as it must be: each seed ends once, and each planted row was rejected for its reason."""
    seeds, dialogues = read_manifest(out / "manifest.json").steps
    ids = Counter(outcome.id for outcome in read_outcomes(out / "steps" / "dialogues"))
    if set(ids.values()) != {1} or len(ids) != count or not dialogues.complete:
        yield f"dialogues: {len(ids)} ids, {ids.total()} outcomes, {count} seeds"
    if seeds.rejected != planted or seeds.kept != count:
        yield f"seeds: {seeds.kept} kept, {seeds.rejected} rejected, planted {count} and {planted}"
    if again > len(KILLS) * CONCURRENCY:
        yield f"{again} requests came again"


def steps(manifest: Manifest, sets: dict[str, Any]) -> Iterator[list[str]]:
    """What went into each step and set, what was kept, and why the rest was not."""
    seeds, dialogues = manifest.steps
    yield [seeds.step, f"{seeds.entered:,}", f"{seeds.kept:,}", pages.counted(seeds.rejected)]
    yield [dialogues.step, f"{dialogues.entered:,}", f"{dialogues.kept:,}", "none"]
    for stage, reasons in dialogues.stages.items():
        yield [f"- rejected in {stage}", "", "", pages.counted(reasons)]
    for name, told in sets.items():
        yield [f"set {name}", f"{told['offered']:,}", f"{told['kept']:,}", pages.counted(told["left_out"])]


def main() -> None:
    """Run it and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data.build", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000)
    count = parser.parse_args().seeds
    server = Roles(ANSWERS, faults=FAULTS, keep=False)
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = Path(scratch), Path(scratch) / "out"
        planted = write_seeds(folder, count)
        with server.in_thread():
            began = time.monotonic()
            killed = play(write_config(folder, server.base_url), count)
            seconds = time.monotonic() - began
        again = server.delivered.total() - len(server.delivered)
        deviations = list(wrong(out, count, planted, again))
        table = [*steps(read_manifest(out / "manifest.json"), json.loads((out / "sets" / "sets.json").read_text()))]
    faults = {kind: n for kind, n in server.injected.items() if kind not in {*server.answers, "ready"}}
    verdict = "; ".join(deviations) or "every seed ended once, every planted row was rejected for its reason"
    pages.write(
        Path(__file__).with_suffix(".md"),
        "# A build with faults and kills: figures",
        pages.written("STEER_CPU=1 python -m benchmarks.data.build"),
        pages.table(["step", "in", "kept", "rejected"], table),
        f"* SIGKILL with {killed[0]:,} and with {killed[1]:,} seeds ended; then it ran to its end. {seconds:.0f} s in "
        f"all.\n* Looked up in the records: {verdict}.\n* {server.requests:,} requests reached the server, "
        f"{len(server.delivered):,} different ones were answered. Faults: {pages.counted(faults)}. {again} came "
        f"again although their reply had been sent whole; at most {CONCURRENCY} are in flight at a kill.",
    )
    if deviations:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
