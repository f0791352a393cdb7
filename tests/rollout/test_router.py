"""The address of verl's reward-model router, asked of a real Ray actor; the router itself is verl's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from steer_verl.config import TutorConfig
from steer_verl.errors import ConfigError
from steer_verl.names import REWARD_MODEL_URL

pytest.importorskip("verl")

import ray

from rollout.router import REWARD_WORKER, with_router

CONFIG = TutorConfig.model_validate(
    {
        "endpoint": {"base_url": REWARD_MODEL_URL, "model": "judge", "mirrors": [{"base_url": "http://other/v1"}]},
        "panel": {"judges": [{"endpoint": {"base_url": REWARD_MODEL_URL, "model": "judge"}}]},
    }
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A small Ray of our own."""
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def reward_worker(address: str | None) -> object:
    """Stands where verl's RewardLoopWorker stands: its name and its attribute are in the contract test."""

    @ray.remote
    class Worker:
        def __init__(self) -> None:
            self.reward_router_address = address

        async def compute_score(self) -> None:
            """Makes it an async actor, as verl's is."""

    return Worker.options(name=REWARD_WORKER, num_cpus=0).remote()


def test_every_place_gets_the_address(cluster: None) -> None:
    worker = reward_worker("127.0.0.1:1234")
    found = with_router(CONFIG)
    assert found.endpoint.base_url == "http://127.0.0.1:1234/v1"
    assert found.panel.judges[0].endpoint.base_url == "http://127.0.0.1:1234/v1"
    assert found.endpoint.mirrors == CONFIG.endpoint.mirrors
    assert found.endpoint.timeout == CONFIG.endpoint.timeout
    ray.kill(worker)


def test_no_reward_model_is_told_with_the_hint(cluster: None) -> None:
    worker = reward_worker(None)
    with pytest.raises(ConfigError, match=r"reward\.reward_model\.enable=true"):
        with_router(CONFIG)
    ray.kill(worker)


def test_without_a_worker(cluster: None) -> None:
    with pytest.raises(ConfigError, match="no reward worker"):
        with_router(CONFIG)


def test_other_addresses_need_no_ray() -> None:
    plain = TutorConfig.model_validate({"endpoint": {"base_url": "http://x/v1", "model": "m"}})
    assert with_router(plain) is plain
