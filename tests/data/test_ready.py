"""Before a build's first item, everybody whom it asks is asked once."""

from __future__ import annotations

import json

import pytest

from steer_verl.config import EndpointConfig, MirrorConfig
from steer_verl.data.ready import check_endpoints
from steer_verl.errors import ConfigError
from tests.models.fault_server import MODEL, FaultServer, says, status, text_only

KEY = "STEER_TEST_READY_KEY"


def endpoint(server: FaultServer, **more: object) -> EndpointConfig:
    values = {"base_url": server.base_url, "model": MODEL, "timeout": 5.0, "max_retries": 0, **more}
    return EndpointConfig.model_validate(values)


async def test_roles_that_ask_the_same_model_are_one_question() -> None:
    async with FaultServer(says("ready"), says("ready")) as server:
        same = endpoint(server, temperature=1.0), endpoint(server, max_tokens=4000)
        await check_endpoints({"generator": same[0], "target": same[1], "blind": endpoint(server, images=False)})
        contents = [body["messages"][0]["content"] for body in server.bodies]
    assert len(contents) == 2 and sorted(isinstance(content, str) for content in contents) == [False, True]
    assert "data:image/png;base64," in json.dumps(contents)


async def test_everything_wrong_is_told_at_once_with_its_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sk-secret-7")
    async with FaultServer(status(401)) as server:
        gone = EndpointConfig(base_url="http://127.0.0.1:9/v1", model="m", timeout=5.0, max_retries=0)
        with pytest.raises(ConfigError) as error:
            await check_endpoints({"target": endpoint(server, api_key_env=KEY), "screener": gone, "generator": gone})
    told = str(error.value)
    assert f"set the environment variable {KEY}" in told and "agents.roles.target" in told
    assert "agents.roles.screener,generator" in told and "cannot be reached" in told and "sk-secret-7" not in told


async def test_a_mirror_that_is_not_there_is_found() -> None:
    async with FaultServer(says("ready")) as server:
        whole = endpoint(server, mirrors=(MirrorConfig(base_url="http://127.0.0.1:9/v1"),))
        with pytest.raises(ConfigError, match=r"127\.0\.0\.1:9/v1 cannot be reached"):
            await check_endpoints({"generator": whole})


async def test_a_server_that_takes_no_images_is_told() -> None:
    async with FaultServer(text_only()) as server:
        with pytest.raises(ConfigError, match="images=false"):
            await check_endpoints({"breach_judge": endpoint(server)})
