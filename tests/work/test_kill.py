"""A process killed at random moments, against a server that counts what it charges."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from steer_verl.work.manifest import account
from steer_verl.work.outcomes import read_outcomes
from tests.models.fault_server import FaultServer, Request, Step, dropped, half_sent, says, slow, status
from tests.work.calls import CALLS, CONCURRENCY

COUNT = 70
FAULTS = (dropped(), status(503), half_sent())
ROOT = Path(__file__).parents[2]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """Answers after 20 ms; one request in twelve fails on its way."""
    rng = random.Random(3)
    word = says("a word")

    def choose(request: Request) -> Step:
        return rng.choice(FAULTS) if rng.random() < 1 / 12 else slow(0.02, word)

    with FaultServer(choose=choose, keep=False).in_thread() as running:
        yield running


def start(folder: Path, server: FaultServer) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.work.calls", str(folder), server.base_url, str(COUNT)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def stop(process: subprocess.Popen[str], server: FaultServer, requests: int, *how: signal.Signals) -> str:
    """Send signals once the server has got so many requests more; what the process has printed."""
    until, deadline = server.requests + requests, time.monotonic() + 60
    while server.requests < until and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    for one in how:
        process.send_signal(one)
        time.sleep(0.01)
    said, _ = process.communicate(timeout=60)
    return said


@pytest.mark.slow
def test_killed_twice_every_item_ends_once_and_every_call_is_charged_once(tmp_path: Path, server: FaultServer) -> None:
    rng = random.Random()  # the moments differ from run to run; what must hold does not
    for _ in range(2):
        killed = start(tmp_path, server)
        stop(killed, server, rng.randint(10, 90), signal.SIGKILL)
        assert killed.returncode == -signal.SIGKILL
    last = start(tmp_path, server)
    said, _ = last.communicate(timeout=120)
    assert last.returncode == 0, said

    ended = Counter(outcome.id for outcome in read_outcomes(tmp_path))
    assert ended == Counter(f"thing {n}" for n in range(COUNT))
    assert len(server.charges) == COUNT * CALLS and set(server.charges.values()) == {1}
    faults = sum(server.injected[fault.kind] for fault in FAULTS)
    assert server.requests - faults <= COUNT * CALLS + 2 * CONCURRENCY  # those that a kill cut off were sent again
    found = account(tmp_path)
    assert found.complete and (found.entered, found.kept, found.undone) == (COUNT, COUNT, 0)


@pytest.mark.slow
def test_interrupted_it_says_so_and_goes_on(tmp_path: Path, server: FaultServer) -> None:
    process = start(tmp_path, server)
    said = stop(process, server, 60, signal.SIGINT)
    assert process.returncode != 0
    assert "calls: interrupted; what was done is kept, and the same command goes on" in said
    before = server.requests
    assert account(tmp_path).undone > 0
    twice = start(tmp_path, server)
    said = stop(twice, server, 20, signal.SIGINT, signal.SIGINT)
    assert "interrupted" in said and "never retrieved" not in said
    again = start(tmp_path, server)
    assert again.wait(120) == 0
    assert server.requests > before and set(server.charges.values()) == {1}
    assert account(tmp_path).kept == COUNT
