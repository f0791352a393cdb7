"""The settings that hold addresses and keys: what is refused, and that no refusal repeats a secret."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example
from hypothesis import given as drawn
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import ValidationError

from steer_verl.address import EXAMPLE
from steer_verl.config import (
    STEER_KEY,
    EndpointConfig,
    SteerConfig,
    TutorConfig,
    require_address,
    section_of,
    steer_config,
    tcsr_config,
    verl_settings,
)
from steer_verl.data.config import BuildConfig
from steer_verl.errors import ConfigError
from steer_verl.eval.config import EvalConfig
from steer_verl.names import REWARD_MODEL_URL
from steer_verl.settings_file import load_settings, parse_settings, read_yaml, set_override

SECRET = "K3yThatNobodyMaySee"
URL = "http://127.0.0.1:8000/v1"
ENDPOINT = f"{STEER_KEY}.tutor.endpoint"

GOOD_ADDRESSES = {
    URL: URL,
    f"  {URL}//\r\n": URL,
    "https://api.example.com": "https://api.example.com",
    "http://localhost:1/": "http://localhost:1",
    "HTTPS://Host/v1": "https://host/v1",
    "http://[::1]:8000/v1": "http://[::1]:8000/v1",
    "http://tutor_1.lab-2/a%20b/v1": "http://tutor_1.lab-2/a%20b/v1",
    "http://köln.example/v1": "http://köln.example/v1",
    "https://x.openai.azure.com/openai/v1/": "https://x.openai.azure.com/openai/v1",
    "HTTPS://X.openai.azure.com:443/openai/V1": "https://x.openai.azure.com/openai/V1",
    "http://Tutor:80/v1": "http://tutor/v1",
    "http://tutor:8080": "http://tutor:8080",
    "http://[::80]/v1": "http://[::80]/v1",
    REWARD_MODEL_URL: REWARD_MODEL_URL,
    f" {REWARD_MODEL_URL}/": REWARD_MODEL_URL,
}

BAD_ADDRESSES = {
    # what: (address, the message says, the server that it may name)
    "user": (f"http://user:{SECRET}@host/v1", "holds a user or a password", ""),
    "user without slashes": (f"http:user:{SECRET}@host", "holds a user or a password", ""),
    "user with one slash": (f"http:/user:{SECRET}@host", "holds a user or a password", ""),
    "user with three slashes": (f"http:///user:{SECRET}@host", "holds a user or a password", ""),
    "user without scheme": (f"//user:{SECRET}@host", "holds a user or a password", ""),
    "user alone": (f"user:{SECRET}@host/v1", "holds a user or a password", ""),
    "key as user": (f"https://{SECRET}@host/v1", "holds a user or a password", ""),
    "user behind percent signs": (f"http://user%3A{SECRET}%40host/v1", "holds a user or a password", ""),
    "user behind them twice": (f"http://user:{SECRET}%2540host/v1", "holds a user or a password", ""),
    "user in the path": (f"http://host/user:{SECRET}@other/v1", "holds a user or a password", ""),
    "user behind a backslash": (f"http://host\\user:{SECRET}@other/v1", "holds a user or a password", ""),
    "query": (f"http://host:8000/v1?api_key={SECRET}", "holds a query", "(http://host:8000)"),
    "query at once": (f"http://host?{SECRET}", "holds a query", "(http://host)"),
    "query behind percent signs": (f"http://host/v1%3Fapi_key%3D{SECRET}", "holds a query", "(http://host)"),
    "fragment": (f"https://host/v1#{SECRET}", "holds a query or a fragment", "(https://host)"),
    "parameter": (f"https://host/v1;api_key={SECRET}", "holds a query", "(https://host)"),
    "empty query": ("https://host/v1?", "holds a query", "(https://host)"),
    "inner space": (f"http://host/v1 {SECRET}", "white space", "(http://host)"),
    "inner newline": (f"http://host/v1\nX: {SECRET}", "white space or control", "(http://host)"),
    "newline behind a percent sign": (f"http://host/v1%0d%0aX:{SECRET}", "control characters", "(http://host)"),
    "NUL": (f"http://host/{SECRET}\0", "control characters", "(http://host)"),
    "a key": (f"sk-{SECRET}", "is no http address", ""),
    "another scheme": (f"ftp://host/{SECRET}", "is no http address", ""),
    "a file": (f"file:///{SECRET}", "is no http address", ""),
    "verl, but another": (f"verl://{SECRET}", "is no http address", ""),
    "no host": (f"http:///{SECRET}", "is no http address", ""),
    "host with a colon too many": (f"http://user:{SECRET}/v1", "is no http address", ""),
    "port too high": ("http://host:65536/v1", "is no http address", "(http://host:65536)"),
    "backslash": (f"http://host\\{SECRET}", "is no http address", ""),
    "backslash in the path": (f"http://host/v1\\{SECRET}", "is no http address", "(http://host)"),
    "percent signs in the host": (f"http://%68ost.{SECRET}/v1", "is no http address", ""),
    "key as host": (f"http://sk-{SECRET}?x", "holds a query", ""),
    "host alone": (f"{SECRET}/v1", "is no http address", ""),
    "nothing": ("", "is no http address", ""),
    "slashes": ("///", "is no http address", ""),
}

GOOD_NAMES = (
    "STEER_TUTOR_API_KEY",
    "STEER_TUTOR_API_KEY_2",
    "_k",
    "openai_key",
    "B",
    "",
    "AZURE_OPENAI_API_KEY_EU_WEST_1",
)

BAD_NAMES = {
    "OpenAI's": (f"sk-{SECRET}", "is no name"),
    "OpenAI's, with underscores": (f"sk_{SECRET}", "looks like a key"),
    "Hugging Face's": (f"hf_{SECRET}", "looks like a key"),
    "Groq's": (f"gsk_{SECRET}", "looks like a key"),
    "Google's": (f"AIza{SECRET}", "looks like a key"),
    "xAI's": (f"xai-{SECRET}", "is no name"),
    "NVIDIA's": (f"nvapi-{SECRET}", "is no name"),
    "hexadecimal": ("c0ffee" * 5 + SECRET, "looks like a key"),
    "capitals": ("0AB1CD2EF3GH4IJ5KL6M"[1:] + "7" + SECRET.upper(), "looks like a key"),
    "with underscores": (f"aB3_dE6_gH9_jK2_mN5_{SECRET}", "looks like a key"),
    "header": (f"Bearer {SECRET}", "is no name"),
    "assignment": (f"STEER_TUTOR_API_KEY={SECRET}", "is no name"),
    "reference": (f"${SECRET}", "is no name"),
    "digit first": (f"1{SECRET}", "is no name"),
    "trailing newline": (f"{SECRET}\n", "is no name"),
    "another script": ("ключ", "is no name"),
}


def steer(endpoint: Any) -> Any:
    return steer_config({"tutor": {"endpoint": endpoint}})


def evaluation(endpoint: Any) -> Any:
    student, benchmarks = {"path": "model"}, {"mine": {"file": "bench.jsonl"}}
    values = {"out": "o", "student": student, "benchmarks": benchmarks, "judge": {"endpoint": endpoint}}
    return parse_settings(EvalConfig, values, "run.yaml")


def build(endpoint: Any) -> Any:
    return parse_settings(BuildConfig, {"out": "o", "agents": {"endpoint": endpoint}}, "build.yaml")


PARSERS: dict[str, Callable[[Any], Any]] = {
    "training": steer,
    "mirror": lambda endpoint: steer({"base_url": URL, "model": "m", "mirrors": [endpoint]}),
    "panel": lambda endpoint: steer_config(
        {"tutor": {"endpoint": {"base_url": URL, "model": "m"}, "panel": {"judges": [{"endpoint": endpoint}]}}}
    ),
    "held-out judge": lambda endpoint: steer_config(
        {"tutor": {"endpoint": {"base_url": URL, "model": "m"}, "holdout": {"judge": {"endpoint": endpoint}}}}
    ),
    "evaluation": evaluation,
    "data": build,
    "OmegaConf": lambda endpoint: steer(OmegaConf.create(endpoint)),
}


@pytest.fixture(autouse=True)
def no_secret_in_any_log(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.DEBUG)
    yield
    assert SECRET.lower() not in caplog.text.lower()


def told(parse: Callable[[], Any]) -> str:
    """What the refusal says, once it is sure that the secret is nowhere in it."""
    with pytest.raises((ConfigError, ValidationError)) as caught:
        parse()
    error = caught.value
    for text in (str(error), repr(error), *map(str, error.args), *traceback.format_exception(error)):
        assert SECRET.lower() not in text.lower()
    if isinstance(error, ConfigError):
        assert "\n" not in str(error) and len(str(error)) < 1000
    return str(error)


@pytest.mark.parametrize("given", GOOD_ADDRESSES)
def test_an_address_is_written_once_for_all_who_name_it(given: str) -> None:
    mirrors = ({"base_url": given},)
    endpoint = EndpointConfig.model_validate({"base_url": given, "model": "m", "mirrors": mirrors})
    assert endpoint.base_url == endpoint.mirrors[0].base_url == GOOD_ADDRESSES[given]


@pytest.mark.parametrize("case", BAD_ADDRESSES)
@pytest.mark.parametrize("parser", PARSERS)
def test_an_address_that_may_hold_a_secret_is_refused_and_not_repeated(parser: str, case: str) -> None:
    url, says, server = BAD_ADDRESSES[case]
    message = told(lambda: PARSERS[parser]({"base_url": url, "model": "m"}))
    assert "base_url: " in message and says in message and "set api_key_env" in message
    assert server in message
    own = message.replace(EXAMPLE, "").replace(server, "")
    assert not any(part in own for part in re.split(r"[/:?#@;\s\\]+", url) if len(part) > 4)
    if not server:
        assert "host" not in own and "user:" not in own


@example(tail="value_er", head="https:")
@drawn(st.text(max_size=20), st.sampled_from(["http://", "https:", "//", "", "http://h/", "http://h?", "HTTP://"]))
def test_no_address_is_taken_from_which_a_secret_can_be_cut(tail: str, head: str) -> None:
    """Whatever is accepted has a host, and neither user, password, query nor fragment, to two parsers."""
    import httpx

    addresses = (url for url, *_ in BAD_ADDRESSES.values())
    refusals = "".join(told(lambda url=url: EndpointConfig(base_url=url, model="m")) for url in addresses)
    try:
        url = EndpointConfig(base_url=head + tail, model="m").base_url
    except ValidationError as error:
        said = str(error).replace("\\\\", "\\")
        assert len(tail) < 8 or tail not in said or tail in refusals  # a piece of what every refusal says is no leak
        return
    if url == REWARD_MODEL_URL:
        return
    try:
        seen = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError, ValueError):  # a host that is no name: it never leaves this machine
        return
    assert seen.scheme in ("http", "https") and seen.host and not seen.userinfo and not seen.query and not seen.fragment


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_names_of_variables(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name or "_", raising=False)
    assert EndpointConfig(base_url=URL, model="m", api_key_env=name).api_key_env == name


def test_a_long_name_is_one_if_there_is_such_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "MyTeam2s_Key_For_The_Tutor"
    assert "looks like a key" in told(lambda: steer({"base_url": URL, "model": "m", "api_key_env": name}))
    monkeypatch.setenv(name, "k")
    assert steer({"base_url": URL, "model": "m", "api_key_env": name}).tutor.endpoint.api_key_env == name


@pytest.mark.parametrize("case", BAD_NAMES)
@pytest.mark.parametrize("parser", PARSERS)
def test_a_key_in_the_place_of_its_name_is_refused_and_not_repeated(parser: str, case: str) -> None:
    name, says = BAD_NAMES[case]
    message = told(lambda: PARSERS[parser]({"base_url": URL, "model": "m", "api_key_env": name}))
    assert "api_key_env: " in message and says in message and "environment variable" in message
    assert name.strip() not in message


UNKNOWN_KEYS = {
    # given beside base_url and model: (the message names, whether it looks like a key)
    "api_key": ({"api_key": SECRET}, "api_key: unknown key", True),
    "token": ({"token": SECRET}, "token: unknown key", True),
    "headers": ({"headers": {"Authorization": f"Bearer {SECRET}"}}, "headers: unknown key", True),
    "list": ({"extra_headers": [SECRET]}, "extra_headers: unknown key", True),
    "camel": ({"apiKey": SECRET}, "apiKey: unknown key", True),
    "password": ({"password": SECRET}, "password: unknown key", True),
    "something else": ({"tmeout": SECRET}, "tmeout: unknown key", False),
    "limit": ({"max_token": SECRET}, "max_token: unknown key", False),
    "a key as key": ({f"sk-{SECRET}": 1}, "(not shown): unknown key", False),
    "a mapping as key": ({f"{{base_url: x, api_key: {SECRET}}}": None}, "(not shown): unknown key", False),
}


@pytest.mark.parametrize("case", UNKNOWN_KEYS)
@pytest.mark.parametrize("parser", [name for name in PARSERS if name != "OmegaConf"])
def test_an_unknown_key_is_named_and_its_value_is_not(parser: str, case: str) -> None:
    more, says, hint = UNKNOWN_KEYS[case]
    message = told(lambda: PARSERS[parser]({"base_url": URL, "model": "m", **more}))
    assert says in message
    assert ("keys come from the environment: set api_key_env" in message) == hint


@pytest.mark.parametrize(("bare", "meant"), [("on", "on"), ("off", "off"), ("auto", "auto")])
def test_a_bare_word_of_a_yaml_is_what_the_docs_say(bare: str, meant: str) -> None:
    endpoint = yaml.safe_load(f"{{base_url: {URL}, model: m, json_schema: {bare}}}")
    config = steer({**endpoint})
    assert config.tutor.endpoint is not None and config.tutor.endpoint.json_schema == meant
    assert steer_config({"tutor": {"kind": "mini"}, "reward": {"format": False}}).reward.format == "off"


def test_an_unknown_key_is_told_with_the_known_ones_wherever_it_stands() -> None:
    whole = {"base_url": URL, "model": "m"}
    assert "the known ones are: api_key_env, base_url, model, weight" in told(
        lambda: steer({**whole, "mirrors": [{"base_url": URL, "wieght": 1}]})
    )
    judge = {"judge": {"endpoint": whole, "rubirc": "x"}}
    message = told(lambda: steer_config({"tutor": {"endpoint": whole, "holdout": judge}}))
    assert "the known ones are: endpoint, format, rubric" in message


PLACES: dict[str, Any] = {
    # a key where something else belongs: (section, the message still says)
    "number": ({"tutor": {"endpoint": {"base_url": URL, "model": "m", "timeout": f"sk-{SECRET}"}}}, "timeout: "),
    "number, no prefix": ({"max_turns": f"{SECRET}{'0a' * 9}", "tutor": {"kind": "mini"}}, "max_turns: "),
    "section as text": ({"tutor": {"endpoint": f"{{model: m, api_key: {SECRET}}}"}}, "endpoint: "),
    "section as address": ({"tutor": {"endpoint": f"http://u:{SECRET}@h"}}, "endpoint: "),
    "tutor as text": ({"tutor": SECRET}, "tutor: "),
    "kind": ({"tutor": {"kind": f"http://u:{SECRET}@h/v1"}}, "kind: "),
    "address as mapping": ({"tutor": {"endpoint": {"base_url": {"url": SECRET}, "model": "m"}}}, "base_url: "),
    "address as list": ({"tutor": {"endpoint": {"base_url": [SECRET], "model": "m"}}}, "base_url: "),
    "name as mapping": (
        {"tutor": {"endpoint": {"base_url": URL, "model": "m", "api_key_env": {"key": SECRET}}}},
        "api_key_env: ",
    ),
    "no endpoint, but a key": ({"tutor": {"attacker": {"base_url": URL, "model": SECRET}}}, "there is no endpoint"),
    "missing": ({"tutor": {"endpoint": {"model": SECRET}}}, "base_url: Field required"),
    "preset": ({"tutor": {"kind": "mini"}, "reward": {"preset": f"sk-{SECRET}"}}, "reward.preset: (not shown)"),
    "preset as mapping": ({"tutor": {"kind": "mini"}, "reward": {"preset": {"a": SECRET}}}, "reward.preset: a mapping"),
    "reward as text": ({"tutor": {"kind": "mini"}, "reward": SECRET}, "reward: a mapping is needed, not str"),
    "section": (SECRET, "a mapping is needed, not str"),
    "list": ([SECRET], "a mapping is needed, not list"),
}


@pytest.mark.parametrize("case", PLACES)
def test_a_key_in_any_other_place_is_not_repeated(case: str) -> None:
    section, says = PLACES[case]
    assert says in told(lambda: steer_config(section))


def test_other_values_are_repeated_in_short() -> None:
    mini = {"tutor": {"kind": "mini"}}
    assert "(given: 11)" in told(lambda: steer_config({**mini, "max_turns": 11}))
    assert "(given: 'many')" in told(lambda: steer_config({**mini, "max_turns": "many"}))
    assert "(given: a list)" in told(lambda: steer_config({**mini, "max_turns": [1] * 10_000}))
    assert "(given: a mapping)" in told(lambda: steer_config({**mini, "max_turns": {"x": 1}}))
    long = told(lambda: steer_config({**mini, "attack": "so many words " * 1000}))
    assert "(given: 'so many words so many" in long and len(long) < 300
    bomb = yaml.safe_load("\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]" for n in range(1, 12))]))
    assert "(given: a list)" in told(lambda: steer_config({**mini, "max_turns": bomb["a11"]}))
    assert "max_turns" in told(lambda: steer_config({**mini, "max_turns": 10**5000}))


def test_pydantics_own_errors_hold_no_input_either() -> None:
    for values in ({"base_url": URL, "model": [SECRET]}, {"base_url": URL, "model": "m", "api_key": SECRET}, SECRET):
        told(lambda values=values: EndpointConfig.model_validate(values))
        told(lambda values=values: TutorConfig.model_validate({"endpoint": values}))
        told(lambda values=values: EvalConfig.model_validate({"student": {"endpoint": values}}))


OVERRIDES = {
    "no equals sign": f"sk-{SECRET}",
    "an address alone": f"http://u:{SECRET}@h/v1",
    "no YAML": f"judge.endpoint.api_key={SECRET}: [",
    "no place": f"out.api_key={SECRET}",
    "a key as key": f"sk-{SECRET}=1",
    "a key as section": f"judge.sk-{SECRET}.x=1",
    "unknown": f"judge.endpoint.api_key={SECRET}",
    "known": f"judge.endpoint.base_url=http://u:{SECRET}@h/v1",
    "name": f"judge.endpoint.api_key_env=sk-{SECRET}",
    "too deep": f"judge={'[' * 3000}{SECRET}",
    "a date that is none": "judge=2024-13-45",
    "a tag that does not fit": f"judge=!!timestamp {SECRET}",
}

FILES = {
    "tab": f"judge:\n\tapi_key: {SECRET}\n",
    "colon": f"judge: api_key: {SECRET}\n",
    "tag": f"judge: !{SECRET}\n",
    "alias": f"judge: *{SECRET}\n",
    "quote": f'judge: "{SECRET}\n',
    "list": f"- {SECRET}\n",
    "text": f"{SECRET}\n",
    "too deep": f"judge: {'[' * 3000}{SECRET}",
    "a date that is none": f"out: 2024-13-45\nkey: {SECRET}\n",
    "a tag that does not fit": f"judge: !!bool {SECRET}\n",
    "a tag of nothing": f"judge: !!int\nkey: {SECRET}\n",
    "twice": f"{SECRET}: 1\n{SECRET}: 2\n",
    "unknown": f"api_key: {SECRET}\n",
    "not UTF-8": b"out: \xff" + SECRET.encode(),
}


@pytest.mark.parametrize("override", OVERRIDES.values(), ids=OVERRIDES)
def test_an_override_is_named_by_its_key_alone(tmp_path: Path, override: str) -> None:
    path = tmp_path / "run.yaml"
    judge = {"endpoint": {"base_url": URL, "model": "m"}}
    path.write_text(yaml.safe_dump({"out": "o", "student": {"path": "m"}, "benchmarks": {}, "judge": judge}))
    told(lambda: load_settings(EvalConfig, path, ["benchmarks.b.file=c", override]))


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_a_file_that_cannot_be_read_is_not_repeated(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert str(path) in told(lambda: load_settings(EvalConfig, path))


def test_where_a_file_breaks_is_told(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("out: a\njudge: {x: [}\n")
    assert re.search(r"is no YAML at line 2, column \d+", told(lambda: load_settings(EvalConfig, path)))
    path.write_text("out: a\njudge: {endpoint: {model: m}}\nout: b\n")
    assert "a key stands twice at line 3, column 1" in told(lambda: load_settings(EvalConfig, path))
    path.write_text("a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, x: 3}\n")
    assert read_yaml(path) == {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 3}}
    values: dict[str, Any] = {"a": {}}
    set_override(values, "a.b=3")
    assert values == {"a": {"b": 3}}


def test_what_is_accepted_is_what_is_used() -> None:
    config = steer({"base_url": f" {URL}/ ", "model": "m"})
    assert isinstance(config, SteerConfig) and config.tutor.endpoint.base_url == URL
    assert build({"base_url": f"{URL}/", "model": "m"}).agents.of("target").base_url == URL


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = steer_config({"tutor": {"kind": "mini", "log": "~/log"}, "cache": "~/run/cache", "transcripts": "out/~"})
    assert (config.tutor.log, config.cache, config.transcripts) == ("/home/me/log", "/home/me/run/cache", "out/~")


@pytest.mark.parametrize(
    "values", [{"base_url": REWARD_MODEL_URL}, {"base_url": URL, "mirrors": [{"base_url": f"{REWARD_MODEL_URL}/"}]}]
)
def test_verls_own_reward_model_is_refused_where_no_training_runs(values: dict[str, Any]) -> None:
    endpoint = EndpointConfig.model_validate({"model": "m", **values})
    with pytest.raises(
        ConfigError, match=r"^student\.endpoint base_url verl://reward_model is known within a training"
    ):
        require_address(endpoint, "student.endpoint")
    require_address(EndpointConfig(base_url=URL, model="m"))


VERL = {
    "actor_rollout_ref": {"rollout": {"n": 5, "custom": {"steer": {"tutor": {"kind": "mini"}, "max_turns": 4}}}},
    "algorithm": {"gamma": 1.0, "tcsr": {"preset": "paper"}},
}


@pytest.mark.parametrize("make", [dict, OmegaConf.create])
def test_both_sections_of_verls_config(make: Callable[[Any], Any]) -> None:
    steered, tcsr = verl_settings(make(VERL))
    assert steered.max_turns == 4 and steered.reward.format == "gate" and tcsr == tcsr_config({"preset": "paper"})
    struct = OmegaConf.create(VERL)
    OmegaConf.set_struct(struct, True)
    assert verl_settings(struct) == (steered, tcsr)
    assert section_of(make(VERL), "actor_rollout_ref.rollout.n.x") is None
    without = {**VERL, "algorithm": {}}
    assert verl_settings(make(without))[1] == tcsr_config(None)
    for nothing in ({}, {"actor_rollout_ref": None}, {"actor_rollout_ref": {"rollout": {"custom": None}}}):
        with pytest.raises(ConfigError, match=f"{STEER_KEY} is missing"):
            verl_settings(make(nothing))
    with pytest.raises(ConfigError, match=r"algorithm\.tcsr: a mapping is needed, not str"):
        verl_settings(make({**VERL, "algorithm": {"tcsr": SECRET}}))


@pytest.mark.parametrize(
    ("tutor", "where"),
    [
        (
            {"kind": "mini", "holdout": {"judge": {"endpoint": {"base_url": URL, "model": "m", "timout": 1}}}},
            "holdout.judge.endpoint.timout",
        ),
        ({"kind": "mini", "holdout": {"judge": "big"}}, "holdout.judge"),
        ({"endpoint": {"base_url": URL, "model": ""}}, "endpoint.model"),
    ],
)
def test_a_refused_setting_is_named_as_it_is_written(tutor: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError, match=rf"^actor_rollout_ref\.rollout\.custom\.steer\.tutor\.{re.escape(where)}: "):
        steer_config({"tutor": tutor})
