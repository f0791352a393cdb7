"""The whole way from sources to sets: through the command, with the laboratory's rules and with models over HTTP."""

from __future__ import annotations

import functools
import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from benchmarks.data.build import ANSWERS
from steer_verl.data.commands import app
from steer_verl.data.pipeline import make
from steer_verl.data.pipeline.config import BuildConfig, load_config
from steer_verl.data.pipeline.make import build
from steer_verl.data.stage2.endpoints import blue_prompt
from steer_verl.errors import ConfigError, SteerError
from steer_verl.mini.sources import mini_sources
from steer_verl.settings_file import parse_settings
from steer_verl.work.manifest import read_manifest
from steer_verl.work.outcomes import read_outcomes
from tests.data.role_server import RoleServer
from tests.data.samples import picture
from tests.models.fault_server import MODEL

SEEDS = 60


def mini_config(out: Path, **more: Any) -> dict[str, Any]:
    """A build with the laboratory's rules."""
    return {
        "out": str(out),
        "agents": {"kind": "mini"},
        "perturb": {"share": 0.0},
        "bootstrap": {"tau_safe": 8, "tau_help": 8, "static_share": 0.0},
        "splits": {"sft": 0.4, "rl": 0.4, "bench": 0.2},
        "student_format": False,
        "work": {"in_flight": 4, "shards": 2},
        **more,
    }


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the plain form, as a user would have it, one bad row and one repeated among the good ones."""
    folder = tmp_path_factory.mktemp("seeds")
    rows = []
    for seed in mini_sources(folder, SEEDS, 0):
        row = seed.model_dump(include={"question", "unsafe", "category", "source", "source_id", "license", "facts"})
        rows.append({**row, "image": f"pictures/{seed.image}"})
    rows += [{**rows[0], "source_id": "again"}, {**rows[1], "source_id": "gone", "image": "pictures/gone.png"}]
    path = folder / "seeds.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def built(seeds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command has made of them."""
    out = tmp_path_factory.mktemp("built") / "out"
    file = out.parent / "build.yaml"
    file.write_text(yaml.safe_dump(mini_config(out, sources=[{"set": "plain", "path": str(seeds)}])))
    result = CliRunner().invoke(app, ["build", str(file)])
    assert result.exit_code == 0, result.output
    return out


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_is_accounted_for_in_every_step(built: Path) -> None:
    steps = {step.step: step for step in read_manifest(built / "manifest.json").steps}
    assert list(steps) == list(make.STEPS)
    assert (steps["seeds"].entered, steps["seeds"].kept) == (SEEDS + 2, SEEDS)
    assert steps["seeds"].rejected == {"duplicate": 1, "picture": 1}
    assert steps["dialogues"].entered == SEEDS and steps["dialogues"].agents["target"] == "mini-target-1"
    kept = steps["dialogues"].kept
    sets = json.loads((built / "sets" / "sets.json").read_text())
    assert steps["bootstrap"].entered + steps["history"].entered + sets["bench"]["offered"] == kept
    assert sets["sft"]["offered"] == steps["bootstrap"].kept and sets["rl"]["offered"] == steps["history"].kept
    assert all(report["offered"] == report["kept"] + sum(report["left_out"].values()) for report in sets.values())


def test_the_sets_pass_our_own_check_and_share_nothing(built: Path) -> None:
    files = [str(built / "sets" / name) for name in ("sft.parquet", "rl.parquet", "bench.jsonl")]
    result = CliRunner().invoke(app, ["check", *files])
    assert result.exit_code == 0, result.output
    ids = Counter(row["id"] for row in lines(built / "sets" / "sft.jsonl"))
    ids += Counter(row["metadata"]["question_id"] for row in lines(built / "sets" / "rl.jsonl"))
    ids += Counter(row["question_id"] for row in lines(built / "sets" / "bench.jsonl"))
    assert len(ids) > SEEDS / 2 and max(ids.values()) == 1
    for name in ("sft", "rl", "bench"):
        page = (built / "cards" / name / "card.html").read_text()
        assert "Apache-2.0" in page and page.count("<details") > 1, "sampled dialogues are on it"


def test_done_is_done(built: Path, seeds: Path) -> None:
    def state() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in built.glob("steps/*/shard-*/outcomes-*.jsonl")}

    before = state()
    config = parse_settings(BuildConfig, mini_config(built, sources=[{"set": "plain", "path": str(seeds)}]), "here")
    manifest = build(config)
    assert state() == before and manifest == read_manifest(built / "manifest.json")


def test_other_settings_in_the_same_folder_are_told(built: Path, seeds: Path) -> None:
    changed = mini_config(built, sources=[{"set": "plain", "path": str(seeds)}], red_team={"max_strategies": 7})
    with pytest.raises(ConfigError, match="max_strategies"):
        build(parse_settings(BuildConfig, changed, "here"))


def test_a_job_goes_to_another_process_as_it_is(built: Path) -> None:
    config = parse_settings(BuildConfig, mini_config(built), "here")
    step = pickle.loads(pickle.dumps(functools.partial(make.make_step, config, "bootstrap")))(4)
    items = pickle.loads(pickle.dumps(functools.partial(make._items, config, "bootstrap")))()
    assert step.name == "bootstrap" and sum(1 for _ in items) == read_manifest(built / "manifest.json").steps[2].entered


def http_config(tmp_path: Path, server: RoleServer, **more: Any) -> BuildConfig:
    """Four seeds and a model in every role."""
    rows = []
    for number in range(4):
        picture(tmp_path / "photos" / f"{number}.png", size=(20 + number, 20))
        what = {"question": f"What is thing {number} for?", "image": f"photos/{number}.png", "unsafe": number % 2 == 0}
        rows.append({**what, "source": "made-up", "source_id": str(number), "license": "CC0-1.0"})
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "out": str(tmp_path / "out"),
        "sources": [{"set": "plain", "path": str(tmp_path / "seeds.jsonl")}],
        "agents": {"endpoint": {"base_url": server.base_url, "model": MODEL, "timeout": 5, "max_retries": 1}},
        "expand": {"turn_weights": [1, 0, 0, 0, 0, 0, 0, 0, 0]},
        "kinds": {"obfuscated": 1.0, "red_team": 0.0},
        "splits": {"sft": 1, "rl": 0, "bench": 0},
        "work": {"shards": 1, "pause": 0.01, "tries": 2},
        **more,
    }
    return parse_settings(BuildConfig, values, "here")


def test_models_in_every_role_and_an_endpoint_that_dies_and_comes_back(tmp_path: Path) -> None:
    server = RoleServer(ANSWERS, prompts=[blue_prompt()])
    with server.in_thread():
        config = http_config(tmp_path, server)
        build(config, until="dialogues")
        paid = server.requests
        server.faults, server.kinds = 1.0, (_dead(),)
        with pytest.raises(SteerError, match="no item is lost"):
            build(config)
        assert not list(read_outcomes(config.step("bootstrap"))), "nobody is rejected for a dead endpoint"
        server.faults = 0.0
        manifest = build(config)
        assert server.roles["rewrite_benign"] + server.roles["rewrite_obfuscated"] == 4 and server.requests > paid
    assert [step.kept for step in manifest.steps] == [4, 4, 4, 0]
    assert len(lines(config.out / "sets" / "sft.jsonl")) == 4
    names = manifest.steps[2].agents
    assert names["blue_expert"].startswith(f"{MODEL}@blue_expert-") and set(names) == {
        "red_user",
        "blue_expert",
        "evaluator",
    }
    assert any((config.out / "calls").iterdir())


def _dead() -> Any:
    from tests.models.fault_server import status

    return status(503)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"nonsense": 1}, "nonsense: unknown key"),
        ({"agents": {"endpoint": {"base_url": "http://x/v1"}}}, "generator: model: Field required"),
        ({"agents": {"kind": "mini", "endpoint": {"model": "m"}}}, "takes no endpoint"),
        ({"agents": {"kind": "mini"}, "sources": [{"set": "imagenet", "path": "x"}]}, "'imagenet' is no set"),
        ({"agents": {"kind": "mini"}, "splits": {"sft": 0, "rl": 0, "bench": 0}}, "sum to 0"),
    ],
)
def test_a_setting_that_cannot_work_is_one_line(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        parse_settings(BuildConfig, {**mini_config(tmp_path), **change}, "build.yaml")
    assert "\n" not in str(error.value) and str(error.value).startswith("build.yaml: ")


def test_overrides_stand_as_if_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "build.yaml"
    file.write_text(yaml.safe_dump(mini_config(tmp_path / "out", sources=[{"set": "plain", "path": "a"}])))
    config = load_config(file, ["work.in_flight=7", "sources.0.path=b", "expand.max_chars=99"])
    assert (config.work.in_flight, str(config.sources[0].path), config.expand.max_chars) == (7, "b", 99)
    for wrong in ("work.in_flight", "out.deeper=1", "sources.9.path=b", "sources.x.path=b"):
        with pytest.raises(ConfigError):
            load_config(file, [wrong])


@pytest.mark.parametrize("name", ["build", "photos"])
def test_the_recipes_files_are_builds(name: str) -> None:
    config = load_config(Path(__file__).parents[3] / "recipes" / "data" / f"{name}.yaml")
    assert config.sources and config.agents.of("target").model


def test_nothing_to_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sources: none"):
        build(parse_settings(BuildConfig, mini_config(tmp_path), "here"))


@pytest.mark.slow
def test_two_ray_nodes_make_the_sets_that_one_process_makes(built: Path, seeds: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        config = parse_settings(
            BuildConfig, mini_config(tmp_path / "out", sources=[{"set": "plain", "path": str(seeds)}]), "here"
        )
        manifest = build(config, ray=True)
    finally:
        ray.shutdown()
        cluster.shutdown()
    here = read_manifest(built / "manifest.json")
    assert [(step.kept, step.rejected) for step in manifest.steps] == [(s.kept, s.rejected) for s in here.steps]
    for name in ("sft", "rl", "bench"):
        assert (config.out / "sets" / f"{name}.jsonl").read_text() == (built / "sets" / f"{name}.jsonl").read_text()
