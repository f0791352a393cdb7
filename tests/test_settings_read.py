"""Every key that we accept has a reader: dialogues are played by the real consumers while reads are written down.

A new key that nothing reads fails here, and so does one that is read under some settings only, unless
:data:`steer_verl.preflight.unread.RULES` says so. To cover new settings, add a case to ``CASES``.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

pytest.importorskip("verl")

import rollout.sampler as sampler
import steer_verl.config as config_module
from steer_verl.config import STEER_KEY, TCSR_KEY, Settings, TcsrConfig, steer_config
from steer_verl.mini.dialogues import seed as mini_seed
from steer_verl.mini.world import Split, draw_scene
from steer_verl.preflight.unread import STOP_KEY, sections, set_keys, unread_keys, unread_settings
from steer_verl.tcsr import compute_tcsr_advantage
from steer_verl.types import DialogueKind, Trajectory
from tests.models.fault_server import FaultServer, Request, Step, good, says, status
from tests.rollout.test_agent_loop import Engine, picture, processor, row  # noqa: F401
from tests.rollout.test_sampler import Ours
from tests.tutor.conftest import no_back_off

BREAKER = {"failures": 1, "cooldown": 0.001, "max_cooldown": 0.002}
PRICES = {"prompt": 1.0, "cached": 0.5, "completion": 2.0}


class Reads:
    """The leaf keys that were read of each section parsed since, by section and dotted path."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: set[str] = set()
        self._paths: dict[int, tuple[Settings, str]] = {}
        parse, copy = config_module._parse, Settings.model_copy

        def parsed(cls: Any, values: Any, where: str) -> Any:
            settings = parse(cls, values, where)
            for path, section in list(sections(settings)):
                self._paths[id(section)] = (section, f"{where}.{path}".removesuffix("."))
            return settings

        def copied(settings: Settings, **kwargs: Any) -> Settings:
            made = copy(settings, **kwargs)
            if held := self._paths.get(id(settings)):
                self._paths[id(made)] = (made, held[1])
            return made

        def get(settings: Settings, name: str) -> Any:
            held = self._paths.get(id(settings))
            if held is not None and name in type(settings).model_fields:
                self.seen.add(f"{held[1]}.{name}")
            return object.__getattribute__(settings, name)

        monkeypatch.setattr(config_module, "_parse", parsed)
        monkeypatch.setattr(Settings, "model_copy", copied)
        monkeypatch.setattr(Settings, "__getattribute__", get)


def leaves(settings: Settings, where: str) -> Iterator[str]:
    """Every leaf key."""
    found = list(sections(settings))
    for path, section in found:
        for name, field in type(section).model_fields.items():
            if getattr(section, name) is None and list(config_module._classes(field.annotation)):
                continue  # a section that is not there
            key = f"{where}.{path}.{name}".replace("..", ".")
            inner = f"{path}.{name}".removeprefix(".")
            if not any(other == inner or other.startswith((f"{inner}.", f"{inner}[")) for other, _ in found):
                yield key


def endpoint(url: str, model: str, **more: Any) -> dict[str, Any]:
    """With everything set that an endpoint has."""
    mirror = {"base_url": url.replace("127.0.0.1", "localhost"), "weight": 0.5, "model": model, "api_key_env": ""}
    return {
        "base_url": url,
        "model": model,
        "weight": 2.0,
        "mirrors": [mirror],
        "api_key_env": "",
        "temperature": 0.1,
        "max_tokens": 300,
        "timeout": 20.0,
        "connect_timeout": 5.0,
        "read_timeout": 10.0,
        "max_retries": 20,
        "reasks": 2,
        "max_concurrency": 4,
        "breaker": BREAKER,
        "images": True,
        "json_schema": "auto",
        "stream": True,
        "prices": PRICES,
        **more,
    }


def guard(url: str, model: str) -> dict[str, Any]:
    """With what a guard model's endpoint reads."""
    return {key: value for key, value in judge(url, model).items() if key not in ("images", "json_schema", "reasks")}


def judge(url: str, model: str) -> dict[str, Any]:
    """With what the endpoint of one reads that writes no question beside its scores."""
    return {key: value for key, value in endpoint(url, model).items() if key != "stream"}


def everything(url: str, folder: Path) -> dict[str, Any]:
    """A tutor in two parts, a panel, a held-out judge."""
    return {
        "tutor": {
            "kind": "openai",
            "endpoint": judge(url, "tutor"),
            "attacker": judge(url, "attacker"),
            "order": "question_first",
            "rubric": rubric(folder),
            "panel": {
                "judges": [
                    {"endpoint": judge(url, "second"), "format": "verdict", "rubric": rubric(folder)},
                    {"endpoint": guard(url, "guard"), "format": "qwen3guard"},
                ],
                "combine": "median",
                "quorum": 2,
            },
            "holdout": {"judge": {"endpoint": judge(url, "held out"), "rubric": rubric(folder)}, "share": 1.0},
            "log": str(folder / "log"),
        },
        "attack": "adaptive",
        "max_turns": 4,
        "max_question_chars": 200,
        "reward": {
            "weights": {"safety": 1.0, "usefulness": 1.0, "faithfulness": 1.0},
            "normalization": "unit",
            "format": "bonus",
            "repetition_penalty": 0.1,
        },
        "alarms": {
            "holdout_gap": 1.0,
            "benign_refusal_share": 0.5,
            "best_score_share": 0.5,
            "answer_growth": 3.0,
            "repeated_answer_share": 0.9,
            "lost_share": 0.5,
            "content_filter_share": 0.5,
            "rejected_share": 0.5,
        },
        "share_images": True,
        "transcripts": str(folder / "transcripts"),
        "cache": str(folder / "cache"),
    }


def rubric(folder: Path) -> str:
    """A rubric file: the built-in one's words."""
    from steer_verl.tutor import prompt

    path = folder / "rubric.md"
    path.write_text((Path(prompt.__file__).parent / "rubric.md").read_text())
    return str(path)


def static(url: str, folder: Path) -> dict[str, Any]:
    """The seed's own questions, one endpoint."""
    return {"tutor": {"endpoint": judge(url, "tutor")}, "attack": "static"}


def guarded(url: str, folder: Path) -> dict[str, Any]:
    """One endpoint for all, and a guard model held out."""
    held_out = {"endpoint": guard(url, "guard"), "format": "qwen3guard"}
    return {"tutor": {"endpoint": endpoint(url, "tutor"), "holdout": {"judge": held_out, "share": 1.0}}}


def laboratory(url: str, folder: Path) -> dict[str, Any]:
    """The rule tutor and its judge."""
    return {"tutor": {"kind": "mini", "holdout": {"judge": "mini", "share": 1.0}}}


CASES = [everything, static, guarded, laboratory]


def answers() -> Any:
    """Each model fails twelve times, says something else once, then replies well: a verdict, or a guard's words."""
    asked: Counter[str] = Counter()

    def choose(request: Request) -> Step:
        model = request.body["model"]
        asked[model] += 1
        if asked[model] <= 12:
            return status(503)
        if model == "guard":
            return says("Safety: Safe\nCategories: None\nRefusal: No")
        return says("no verdict") if asked[model] == 13 else good()

    return choose


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_every_key_is_read_or_told(
    case: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    processor: Any,  # noqa: F811
    picture: str,  # noqa: F811
) -> None:
    tcsr = {"alpha": 0.5, "shaping": "prefix", "aggregation": "sum", "credit": "turn", "normalize_std": True}
    async with FaultServer(choose=answers()) as server:
        steer = case(server.base_url, tmp_path)
        reads = Reads(monkeypatch)
        with no_back_off():
            await play(steer, tcsr, monkeypatch, processor, picture)
    monkeypatch.undo()

    told = unread_keys(steer_config(steer))
    both = [*leaves(steer_config(steer), STEER_KEY), *leaves(TcsrConfig(**tcsr), TCSR_KEY)]
    unread = [key for key in both if key not in reads.seen]
    named = [f"{STEER_KEY}.{key}" for key in told]
    missing = [key for key in unread if not any(key == name or key.startswith(f"{name}.") for name in named)]
    assert not missing, "nothing reads these under these settings, and steer_verl/preflight/unread.py does not say so"
    assert list(unread_settings(steer_config(steer))) == []


async def play(steer: dict[str, Any], tcsr: Any, monkeypatch: pytest.MonkeyPatch, processor: Any, picture: str) -> None:  # noqa: F811
    """Three dialogues, their rewards, the step's metrics and alarms, and the advantages."""
    rng = random.Random(0)
    fields, records = [], []
    loops = [verl_loop(steer, tcsr, processor, rng) for _ in range(3)]
    for number, loop in enumerate(loops):
        scene = draw_scene(rng, Split.TRAIN)
        asked = mini_seed(f"s{number}", DialogueKind.RED_TEAM, scene, picture, rng)
        output = await loop.run({}, **row(asked, session_id=number))
        records.append(Trajectory.model_validate_json(output.extra_fields["trajectory"]))
        fields.append(output.as_dict())
    await loops[0].tutor.close()
    assert any(record.scored for record in records)
    monkeypatch.setattr(sampler, "_records", lambda batch: records)
    Ours(sampler_kwargs={"steer": {**steer, STOP_KEY: 1.0}}).sample(1, "train", 3)
    scores, mask = (
        torch.nested.as_nested_tensor([one[name] for one in fields], layout=torch.jagged).to_padded_tensor(0)
        for name in ("rm_scores", "response_mask")
    )
    compute_tcsr_advantage(scores, mask, np.array(["u"] * 3), {"tcsr": tcsr})


def verl_loop(steer: dict[str, Any], tcsr: Any, processor: Any, rng: random.Random) -> Any:  # noqa: F811
    """A loop as verl's worker makes it, with the tutor that the settings name."""
    from verl.experimental.agent_loop.agent_loop import DictConfigWrap
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from rollout.agent_loop import SteerAgentLoop

    steer = {"max_answer_tokens": 12, **steer}
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {
                "model": {"path": "student"},
                "actor": {},
                "rollout": {"prompt_length": 64, "response_length": 400, "custom": {"steer": steer}},
            },
            "data": {},
            "algorithm": {"tcsr": tcsr},
            "reward": {"reward_manager": {"name": "steer_tutor"}, "reward_model": {"enable": False}},
        }
    )
    return SteerAgentLoop(
        trainer_config=DictConfigWrap(config),
        server_manager=Engine(processor.tokenizer, rng),
        tokenizer=processor.tokenizer,
        processor=processor,
        dataset_cls=RLHFDataset,
        data_config=DictConfigWrap(config.data),
        hf_model_type="qwen2_5_vl",
    )


TOLD: list[tuple[dict[str, Any], str]] = [
    ({"tutor": {"kind": "mini", "rubric": "a.md"}}, "tutor.rubric is set"),
    ({"tutor": {"kind": "mini", "log": "out"}}, "tutor.log is set"),
    ({"tutor": {"kind": "mini", "order": "scores_first"}}, "tutor.order is set"),
    (
        {
            "tutor": {
                "endpoint": {"base_url": "http://h/v1", "model": "m"},
                "attacker": {"base_url": "http://h/v1", "model": "n", "stream": False},
            }
        },
        "tutor.attacker.stream is set",
    ),
    (
        {"tutor": {"endpoint": {"base_url": "http://h/v1", "model": "m", "stream": True}, "order": "scores_first"}},
        "tutor.endpoint.stream is set",
    ),
    ({"tutor": {"kind": "mini"}, "alarms": {"holdout_gap": 1.0}}, "tutor.holdout is not set"),
    ({"tutor": {"kind": "mini"}, "alarms": {"rejected_share": 0.1}}, "no request leaves this process"),
    ({"tutor": {"kind": "mini"}, "attack": "static", "max_question_chars": 9}, "max_question_chars is set"),
    ({"tutor": {"endpoint": {"base_url": "http://h/v1", "model": "m", "weight": 2}}}, "tutor.endpoint.weight is set"),
    (
        {
            "attack": "static",
            "tutor": {
                "endpoint": {"base_url": "http://h/v1", "model": "m"},
                "attacker": {"base_url": "http://h/v1", "model": "n"},
            },
        },
        "tutor.attacker is set",
    ),
    *(
        (
            {"tutor": {"kind": "mini", "panel": {"judges": [{**given, "format": "llama_guard"}]}}},
            f"tutor.panel.judges[0].{key} is set",
        )
        for key, given in {
            "rubric": {"endpoint": {"base_url": "http://h/v1", "model": "m"}, "rubric": "a.md"},
            "endpoint.images": {"endpoint": {"base_url": "http://h/v1", "model": "m", "images": False}},
            "endpoint.json_schema": {"endpoint": {"base_url": "http://h/v1", "model": "m", "json_schema": "on"}},
            "endpoint.reasks": {"endpoint": {"base_url": "http://h/v1", "model": "m", "reasks": 0}},
        }.items()
    ),
]


@pytest.mark.parametrize(("section", "wanted"), TOLD, ids=[wanted for _, wanted in TOLD])
def test_a_setting_without_a_reader_is_told_in_one_line(section: dict[str, Any], wanted: str) -> None:
    (line,) = unread_settings(steer_config(section))
    assert wanted in line and line.startswith(STEER_KEY)


def test_null_and_defaults_are_no_settings() -> None:
    steer = steer_config({"tutor": {"kind": "mini", "rubric": None}, "alarms": {"holdout_gap": None}})
    assert list(unread_settings(steer)) == []
    assert set_keys(steer) == ["tutor.kind", "reward.format", "reward.normalization", "reward.repetition_penalty"]
