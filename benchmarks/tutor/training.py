"""Faults, losses, a full disk and a SIGKILL in real training: ``STEER_CPU=1 python -m benchmarks.tutor.training``.

Five runs of the mini recipe through verl's own trainer, against one tutor server on 127.0.0.1 of whose requests 5 %
fail at random:

1. undisturbed;
2. killed in its last step by SIGKILL, every process of it, just when the server has made a ruling and before the
   reply is sent; then started again with the same command;
3. lossy: some answers are never judged, at any attempt, and the images of one prompt vanish on the way; every advantage
   is computed again from the transcripts, of the groups without their lost members;
4. with a disk that is full before the first step has ended (a small tmpfs; not run where it cannot be mounted);
5. with a server that fails altogether from the second step on.

Writes benchmarks/tutor/training.md.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import re
import subprocess
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from benchmarks import mini_grpo, pages
from steer_verl.config import steer_config, tcsr_config
from steer_verl.data.rows.parquet import load_seeds
from steer_verl.models.log import read_log, summary
from steer_verl.processes.child import StageFailed
from steer_verl.records import read_records
from steer_verl.report.training import Step as Logged
from steer_verl.report.training import parse_step
from steer_verl.rewards import trajectory_rewards
from steer_verl.transcripts import read_transcripts
from steer_verl.types import Trajectory, Verdict
from tests.models.fault_server import MODEL, FaultServer, Request, Step, dropped, filtered, flood, good, says, status
from tests.tcsr_twin import Batch, twin_advantages

STEPS, SAVED, DIALOGUES, GROUP = 4, 2, 40, 5
"""Steps, steps between two checkpoints, dialogues of a step and of a prompt."""
TRANSCRIPTS = Path("grpo", "transcripts")
"""Of a run, below its folder."""
UNREADABLE = says("no verdict", kind="bad_json")
FAULTS = (dropped(), status(503), status(429, retry_after=1), UNREADABLE, flood())

Worst = Callable[[Request, int], Step | None]
"""What becomes of a request that comes in a step of the training; ``None``: what is usual."""
Rows = list[tuple[str, str, bool | None]]
"""What, its figure, and whether it is as it must be."""


def ruling(request: Request) -> Step:
    """A good reply, by what was said."""
    number = zlib.crc32(request.text.encode())
    scores = ((10, 10, 10), (8, 8, 9), (4, 1, 8), (1, 1, 10))[number % 4]
    return good(scores, new_question=f"And what about part {number % 1000}?")


@contextmanager
def tutor(folder: Path, worst: Worst = lambda request, step: None) -> Iterator[FaultServer]:
    """The server of the run in ``folder``; the newest step in the run's cache of answers is the one at work."""
    rng, cache = random.Random(0), folder / "grpo" / "checkpoints" / "cache"

    def choose(request: Request) -> Step:
        step = max((int(played.name) for played in cache.glob("*/train/*")), default=0)
        usual = rng.choice(FAULTS) if rng.random() < 0.05 else ruling(request)
        return worst(request, step) or usual

    mini_grpo.prepare(folder)
    with FaultServer(choose=choose, keep=False).in_thread() as server:
        yield server


def train(
    folder: Path, server: FaultServer, *more: str, steps: int = STEPS, kill: Callable[[], bool] = lambda: False
) -> tuple[list[Logged], str]:
    """Start the training command: what verl logged at each finished step, and how it ended if not well."""
    endpoint = f"endpoint: {{base_url: '{server.base_url}', model: {MODEL}, max_retries: 3, timeout: 60}}"
    settings = f"{{kind: openai, log: {folder}/attempts, {endpoint}}}"
    overrides = (f"++{mini_grpo.SETTINGS}.tutor={settings}", f"~{mini_grpo.SETTINGS}.tutor.holdout")
    try:
        return mini_grpo.run(folder, steps, *overrides, f"trainer.save_freq={SAVED}", *more, kill=kill), ""
    except StageFailed as failure:
        lines = (folder / "log.txt").read_text(errors="replace").splitlines()
        return [step for line in lines if (step := parse_step(line))], str(failure)


def complaint(folder: Path) -> str:
    """Why the run was stopped before an update, in its own words."""
    log = (folder / "log.txt").read_text(errors="replace")
    return (re.findall(r"\d+ of \d+ dialogues of this step are lost.*", log) or ["(none)"])[-1]


def dialogues(folder: Path) -> list[Trajectory]:
    """The run's, each once."""
    return list(read_transcripts(folder / TRANSCRIPTS))


def order_of(folder: Path) -> set[tuple[int, str]]:
    """Every step, and every seed that it played."""
    return {(record.step, record.seed_id) for record in dialogues(folder)}


def undisturbed(folder: Path) -> Rows:
    """The first run."""
    with tutor(folder) as server:
        steps, _ = train(folder, server)
    turns = [turn for record in dialogues(folder) for turn in record.turns]
    lost = sum(not isinstance(turn.verdict, Verdict) for turn in turns)
    faults = server.requests - server.injected["good"]
    return [
        ("undisturbed: finished steps", numbers(steps), numbers(steps) == "1, 2, 3, 4"),
        ("its requests, and faults among them", f"{server.requests}, {faults}", faults > 0),
        ("its unscored turns, of all", f"{lost} of {len(turns)}", None),
    ]


def killed(folder: Path, order: set[tuple[int, str]]) -> Rows:
    """The second run."""
    dying, requests = threading.Event(), itertools.count(1)

    async def die(request: Request) -> web.StreamResponse:
        """The ruling is made and charged; nobody is left to receive it."""
        response = await ruling(request).act(request)
        dying.set()
        await asyncio.sleep(60)
        return response

    def worst(request: Request, step: int) -> Step | None:
        return Step("killed", die) if step == STEPS and next(requests) == DIALOGUES else None

    with tutor(folder, worst) as server:
        began = time.perf_counter()
        first, _ = train(folder, server, kill=dying.is_set)
        before, between = server.requests, time.perf_counter()
        second, _ = train(folder, server)
        seconds = f"{between - began:.0f}, {time.perf_counter() - between:.0f}"
    played = defaultdict[tuple[str, int], list[list[str]]](list)
    for record in read_records(folder / TRANSCRIPTS, Trajectory.model_validate_json):
        if record.step == SAVED + 1:
            played[record.seed_id, record.rollout].append([turn.answer for turn in record.turns])
    twice = [both for both in played.values() if len(both) > 1]
    equal = sum(one == again for one, again in twice)
    attempts = list(read_log(folder / "attempts"))
    answered = {one.turn_key for one in attempts if one.outcome == "ok"} - {""}  # the preflight's probes have none
    failed = Counter(summary(attempts).outcomes)
    del failed["ok"]
    again = sum(count > 1 for key, count in server.charges.items() if key)
    ends, replayed, same = f"{numbers(first)}; {numbers(second)}", f"{len(twice)}, {equal}", order_of(folder) == order
    return [
        ("killed: its finished steps, then those of the second start", ends, ends == "1, 2, 3; 3, 4"),
        ("same seeds in every step as undisturbed", pages.listed(sorted({step for step, _ in order})), same),
        (f"dialogues of step {SAVED + 1} played again, word for word the same", replayed, replayed == "40, 40"),
        ("requests before the kill, and after", f"{before}, {server.requests - before}", None),
        ("requests charged twice", str(again), again == 0),
        ("turns with a reply", str(len(answered)), None),
        ("failed attempts in the log", pages.counted(failed), None),
        ("seconds of the two starts", seconds, None),
    ]


def lossy(folder: Path, order: set[tuple[int, str]]) -> Rows:
    """The third run, over two steps."""
    mini_grpo.prepare(folder)
    gone = min(seed for step, seed in order if step == 2)
    seeds = load_seeds(folder / "data" / "rl_train.parquet")
    vanish = [Path(path) for seed in seeds if seed.id == gone for turn in seed.turns for path in turn.images]

    def worst(request: Request, step: int) -> Step | None:
        """The dialogue up to the answer decides, not what is asked: its fate is the same at every attempt."""
        for path in vanish if step == 2 else ():
            path.unlink(missing_ok=True)
        ends = [found.end() for found in re.finditer(r"<<\w+ end \d+>>", request.text)]
        drawn = zlib.crc32(request.text[: ends[-1]].encode()) / 2**32
        if drawn < 0.03:
            return filtered()
        return UNREADABLE if drawn < 0.05 else None

    with tutor(folder, worst) as server:
        steps, _ = train(folder, server, f"++{mini_grpo.SETTINGS}.max_lost_share=0.9", steps=2)
    rows: Rows = [("lossy: finished steps", numbers(steps), numbers(steps) == "1, 2")]
    played = dialogues(folder)
    for step in steps:
        rows += compared(step, [one for one in played if one.step == step["step"]])
    blind = [one for one in played if (one.step, one.seed_id) == (2, gone)]
    vanished = sum(one.lost in ("data", "image") for one in blind)  # to the student, or to the tutor
    return [*rows, ("dialogues whose image vanished, all lost for it", str(vanished), vanished == GROUP)]


def compared(step: Logged, played: list[Trajectory]) -> Rows:
    """What verl logged of a step, against its transcripts: losses, alarm, and the greatest and the least advantage by
    the twin of the tests, lost members left out."""
    lost = Counter(one.lost for one in played if one.lost)
    told = {key.rpartition("/")[2]: share for key, share in step.items() if key.startswith("steer/lost/") and share}
    complete = len(played) == DIALOGUES and told == {reason: count / DIALOGUES for reason, count in lost.items()}
    alarm = step.get("steer/alarm/content_filter_share", 0.0)
    reward = steer_config({"tutor": {"kind": "mini"}, "reward": {"preset": "paper"}}).reward
    whole = [one for one in played if not one.lost]
    batch = Batch([one.uid for one in whole], [trajectory_rewards(one, reward) for one in whole], spans=[])
    found = [value for member in twin_advantages(batch, tcsr_config({"preset": "steer"})) for value in member]
    logged, ours = [step[f"critic/advantages/{end}"] for end in ("max", "min")], [max(found), min(found)]
    close = all(abs(theirs - own) < 1e-3 for theirs, own in zip(logged, ours, strict=True))
    ends = "; ".join(", ".join(f"{value:.4f}" for value in values) for values in (logged, ours))
    name = f"step {step['step']:.0f}"
    what = "greatest and least advantage that verl logged; of whole groups, from the transcripts"
    return [
        (f"{name}: dialogues lost, by reason", pages.counted(lost), complete),
        (f"{name}: alarm content_filter_share", f"{alarm:.0f}", alarm == float("content_filter" in lost)),
        (f"{name}: {what}", ends, close),
    ]


def full_disk(folder: Path) -> Rows:
    """The fourth run: transcripts on 64 kB, less than a step needs."""
    place = folder / TRANSCRIPTS
    place.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True).returncode:
        return [("a full disk", "not run: a tmpfs cannot be mounted here", None)]
    try:
        with tutor(folder) as server:
            steps, _ = train(folder, server)
        kept = len(dialogues(folder))
    finally:
        subprocess.run(["umount", place], check=False)
    return [
        ("a disk that is full in step 1: finished steps", numbers(steps), not steps),
        ("dialogues that it kept", str(kept), 0 < kept < DIALOGUES),
        ("its message", complaint(folder), "disk" in complaint(folder)),
    ]


def hopeless(folder: Path) -> Rows:
    """The fifth run."""
    with tutor(folder, lambda request, step: status(503) if step >= 2 else None) as server:
        steps, ended = train(folder, server)
    saved = [path.name for path in (folder / "grpo" / "checkpoints").glob("global_step_*")]
    return [
        ("a tutor that fails from step 2 on: finished steps", numbers(steps), numbers(steps) == "1"),
        ("how it ended", ended, bool(ended)),
        ("its message", complaint(folder), complaint(folder) != "(none)"),
        ("checkpoints after step 1", pages.listed(saved), not saved),
    ]


def numbers(steps: list[Logged]) -> str:
    """The numbers of finished steps."""
    return pages.listed(f"{step['step']:.0f}" for step in steps)


PAGE = f"""\
The mini recipe ({STEPS} steps of {DIALOGUES} dialogues, a checkpoint every {SAVED}) by verl's own trainer, with a
tutor at an HTTP server of which 5 % of the requests fail at random. The second run is killed (SIGKILL, all processes)
in step {STEPS}, when the server has made a ruling and not yet sent it, and started again. The server honours
Idempotency-Key. In the lossy run some answers are never judged, and the images of one prompt vanish after step 1; the
advantages that verl logged are held against those of the groups without their lost members, computed anew from the
transcripts in plain Python."""


def main() -> None:
    """All five, then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/tutor-training"))
    root = parser.parse_args().out.resolve()
    rows = undisturbed(root / "undisturbed")
    order = order_of(root / "undisturbed")
    rows += killed(root / "killed", order) + lossy(root / "lossy", order)
    rows += full_disk(root / "full") + hopeless(root / "hopeless")
    marks = {True: "yes", False: "**no**", None: ""}
    pages.write(
        Path(__file__).with_suffix(".md"),
        "# Faults and a SIGKILL in real training",
        pages.written("STEER_CPU=1 python -m benchmarks.tutor.training"),
        PAGE,
        pages.table(["what", "figure", "as it must be"], ((what, figure, marks[met]) for what, figure, met in rows)),
    )


if __name__ == "__main__":
    main()
