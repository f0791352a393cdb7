"""Credit that runs out, and prompts that a filter refuses: the run stops, or goes on, and loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from steer_verl.config import EndpointConfig
from steer_verl.errors import SteerError
from steer_verl.work.manifest import account
from steer_verl.work.run import run
from steer_verl.work.step import WorkSettings
from tests.models.fault_server import MODEL, FaultServer, Request, Step, says, status
from tests.work.calls import CALLS, calls_job

COUNT = 24
QUICK = WorkSettings(in_flight=4, shards=2, tries=2, pause=0.01, dead_after=6)


def worked(folder: Path, choose: Callable[[Request], Step]) -> FaultServer:
    """One start of the job."""
    with FaultServer(choose=choose, keep=False).in_thread() as server:
        config = EndpointConfig(base_url=server.base_url, model=MODEL, max_concurrency=4, max_retries=0)
        run(calls_job(folder, config, COUNT, QUICK), {"model": MODEL})
        return server


@pytest.mark.parametrize("failure", [status(402, "Insufficient Balance"), status(401), status(418, "odd")])
def test_the_same_refusal_of_item_after_item_stops_the_run_and_the_same_command_goes_on(
    tmp_path: Path, failure: Step
) -> None:
    after = 5 * CALLS
    with pytest.raises(SteerError, match=r"no item is lost"):
        worked(tmp_path, lambda request: says("a word") if request.number < after else failure)
    stopped = account(tmp_path, {})
    assert stopped.undone > 0 and stopped.rejected == {}
    server = worked(tmp_path, lambda request: says("a word"))
    found = account(tmp_path, {})
    assert (found.kept, found.undone, found.rejected) == (COUNT, 0, {})
    assert server.requests == COUNT * CALLS - after, "what was paid for is not paid again"


def test_a_flagged_prompt_is_that_items_alone(tmp_path: Path) -> None:
    def choose(request: Request) -> Step:
        flagged = status(403, "requires moderation ... flagged")
        return flagged if "3" in str(request.body["messages"][0]["content"]) else says("a word")

    worked(tmp_path, choose)
    found = account(tmp_path, {})
    assert found.kept > 0 and set(found.rejected) == {"content_filter"} and found.undone == 0
