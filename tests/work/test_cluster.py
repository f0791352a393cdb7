"""The same job on two Ray nodes, one of which dies."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steer_verl.config import EndpointConfig
from steer_verl.errors import SteerError
from steer_verl.work.cluster import CLOSING, Follower, _stop, secrets_of
from steer_verl.work.outcomes import read_outcomes
from steer_verl.work.run import run
from steer_verl.work.step import Kept, Outcome, WorkSettings
from steer_verl.work.store import Store
from tests.models.fault_server import FaultServer, says, slow, status
from tests.models.replies import prompt_text
from tests.work.calls import CALLS, calls_job
from tests.work.scripted import paper

COUNT = 160
SETTINGS = WorkSettings(in_flight=32, shards=4, dead_after=8, grace=0.0)
SOON = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 5}
"""So that Ray sees at once that a node is gone."""


def test_a_follower_reads_every_line_once_and_whole(tmp_path: Path) -> None:
    rng, seen, written = random.Random(0), Follower(tmp_path), 0
    with Store(tmp_path / "shard-000") as one, Store(tmp_path / "shard-001") as two:
        for n in range(40):
            store = rng.choice([one, two])
            store.meet(f"{n}")
            store.finish(Outcome(id=f"{n}", done=Kept(value={})))
            if rng.random() < 0.3:
                ids = [int(outcome.id) for outcome in seen.new()]
                assert sorted(ids) == list(range(written, n + 1))
                written = n + 1
    torn = tmp_path / "shard-000" / "outcomes-900000.jsonl"
    line = Outcome(id="torn", done=Kept(value={})).model_dump_json()
    torn.write_text(line[:20])
    assert "torn" not in [outcome.id for outcome in seen.new()]
    torn.write_text("no outcome\n" + line + "\n")
    assert [outcome.id for outcome in seen.new()] == ["torn"]


def test_a_cluster_that_is_not_there_is_told_with_how_to_fix_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: Any) -> None:
        raise ConnectionError("no Ray at 192.0.2.2:1\nsee the log")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init))
    job = calls_job(tmp_path, EndpointConfig(base_url="http://127.0.0.1:9/v1", model="m"), 1, SETTINGS)
    with pytest.raises(SteerError, match=r"no Ray at 192\.0\.2\.2:1 see the log\); correct RAY_ADDRESS"):
        run(job, {}, ray=True)


def test_a_task_that_has_come_to_its_end_is_not_ended_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for Ray, which itself aborts the process now and then when this is wrong (task_manager.cc:1329)."""
    calls: list[tuple[str, bool]] = []

    def cancel(task: str, force: bool = False) -> None:
        calls.append((task, force))

    def wait(tasks: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        assert (num_returns, timeout) == (2, 1.0 + CLOSING)
        return ["quick"], ["late"]

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(cancel=cancel, wait=wait))
    _stop(["quick", "late"], 1.0)
    assert calls == [("quick", False), ("late", False), ("late", True)]
    _stop([], 1.0)


def further(body: dict[str, Any]) -> str:
    """A reply that tells what it was a reply to."""
    return prompt_text(body) + "!"


def made(folder: Path) -> Counter[tuple[str, str]]:
    """What became of every item."""
    return Counter((outcome.id, outcome.done.model_dump_json()) for outcome in read_outcomes(folder))


@pytest.mark.slow
def test_a_task_has_the_key_and_no_file_of_ray_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    key = f"sk-secret-{random.randbytes(8).hex()}"
    context = ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    monkeypatch.setenv("STEER_TEST_WORK_KEY", key)  # only now: Ray's own processes have not inherited it
    try:
        with FaultServer(says("a word")).in_thread() as server:
            given = {"base_url": server.base_url, "model": "fake-tutor", "api_key_env": "STEER_TEST_WORK_KEY"}
            config = EndpointConfig.model_validate({**given, "max_retries": 0})
            secrets = ("STEER_TEST_WORK_KEY", "STEER_TEST_NOT_SET")
            job = calls_job(tmp_path / "good", config, 6, SETTINGS, secrets)
            assert run(job, {}, ray=True).kept == 6
            assert set(server.keys) == {f"Bearer {key}"}
            server.script = [status(401, f"no such key: {key}")]
            with pytest.raises(SteerError, match="no item is lost") as error:
                run(calls_job(tmp_path / "bad", config, 6, SETTINGS, secrets), {}, ray=True)
            assert key not in str(error.value)
    finally:
        session = Path(context.address_info["session_dir"])
        ray.shutdown()
    seen = [path for path in session.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.suffix == ".err" for path in seen)
    for path in [*seen, *(path for path in tmp_path.rglob("*") if path.is_file())]:
        assert key.encode() not in path.read_bytes(), path
    assert key not in repr(secrets_of(["STEER_TEST_WORK_KEY"]))


@pytest.mark.slow
def test_two_nodes_of_which_one_dies_do_what_one_process_does(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": SOON}
    )
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        with FaultServer(slow(0.1, says(further)), keep=False).in_thread() as server:
            job = calls_job(
                tmp_path / "cluster",
                EndpointConfig(base_url=server.base_url, model="fake-tutor", max_concurrency=16),
                COUNT,
                SETTINGS,
            )

            def end_second_node() -> None:
                while server.requests < COUNT:
                    time.sleep(0.01)
                cluster.remove_node(second, allow_graceful=False)

            killer = threading.Thread(target=end_second_node)
            killer.start()
            console = paper()
            found = run(job, {}, total=COUNT, ray=True, console=console)
            killer.join()
            assert found.complete and (found.entered, found.kept, found.undone) == (COUNT, COUNT, 0)
            assert server.peak > 8  # one process alone has 8 places: both were at work
            assert len(server.charges) == COUNT * CALLS and set(server.charges.values()) == {1}
            assert f"{COUNT}/{COUNT} · kept {COUNT}" in console.file.getvalue()  # type: ignore[attr-defined]

            before = server.requests
            assert run(job, {}) == found  # the same folder in this process: nothing is left to do
            assert server.requests == before
            server.script = [says(further)]
            run(replace(job, folder=tmp_path / "alone"), {})
            assert made(tmp_path / "cluster") == made(tmp_path / "alone")

            server.script = [status(503)]
            broken = EndpointConfig(base_url=server.base_url, model="fake-tutor", max_retries=0)
            with pytest.raises(SteerError, match="calls: nothing has succeeded since"):
                run(calls_job(tmp_path / "dead", broken, COUNT, SETTINGS), {}, ray=True)
    finally:
        ray.shutdown()
        cluster.shutdown()
