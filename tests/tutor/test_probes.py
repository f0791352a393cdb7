"""``steer tutor check``: what a server does is found, and what would spoil a run comes with its hint."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from steer_verl.config import EndpointConfig, HoldoutConfig, JudgeConfig, MirrorConfig, PanelConfig, TutorConfig
from steer_verl.images import image_uri
from steer_verl.tutor import build_tutor, probes
from steer_verl.tutor import probe_material as material
from steer_verl.tutor.probes import Finding
from steer_verl.tutor.targets import Part, Subject, Target, targets
from tests.models.fault_server import (
    FaultServer,
    Request,
    Step,
    filtered,
    flood,
    good,
    refuses_schema,
    says,
    slow,
    status,
    text_only,
)
from tests.tutor.conftest import config_for
from tests.tutor.dialogues import simple


def target(server: FaultServer, part: Part = Part.TUTOR, **settings: Any) -> Target:
    form = "llama_guard" if part is Part.GUARD else "verdict"
    return Target("tutor.endpoint", config_for(server, **{"max_concurrency": 4, **settings}), part, format=form)


async def probed(folder: Path, aim: Target, trials: int = 4) -> dict[str, Finding]:
    return {f.probe: f async for f in probes.probe(aim, trials, material.draw_images(folder))}


def hints(found: dict[str, Finding]) -> list[str]:
    return [finding.hint for finding in found.values() if finding.hint]


async def test_a_good_tutor_passes_every_probe(tmp_path: Path) -> None:
    async with FaultServer() as server:
        found = await probed(tmp_path, target(server))
    assert list(found) == ["reach", "text", "sight", "schema", "history", "forgery", "evasion", "concurrency"]
    assert hints(found) == []
    assert found["schema"].valid == (4, 4) and found["history"].cached == (4, 10)
    assert found["sight"].works is None  # its scores do not depend on the picture
    assert all(finding.seconds is not None for finding in found.values())


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Part.JUDGE, ["reach", "text", "sight", "schema", "history", "forgery", "evasion", "concurrency"]),
        (Part.ATTACKER, ["reach", "text", "schema", "history", "concurrency"]),
    ],
)
async def test_each_part_is_asked_for_its_own(tmp_path: Path, part: Part, expected: list[str]) -> None:
    async with FaultServer() as server:
        found = await probed(tmp_path, target(server, part))
        asked = [str(body["messages"]) for body in server.bodies]
    assert list(found) == expected and hints(found) == []
    scored, attacked = (sum(words in text for text in asked) for words in ("Score answer", "next message after"))
    assert (scored, attacked) == ((len(asked), 0) if part is Part.JUDGE else (0, len(asked)))


async def test_a_guard_is_asked_in_its_own_words(tmp_path: Path) -> None:
    async with FaultServer(says("safe")) as server:
        found = await probed(tmp_path, target(server, Part.GUARD))
    assert list(found) == ["reach", "text", "history", "concurrency"] and hints(found) == []
    assert found["text"].note == "scores 10"


async def test_what_a_server_refuses_is_told() -> None:
    async with FaultServer(refuses_schema()) as server:
        found = await probes.reach(target(server))
    assert found.works and found.note.endswith("refuses response_format: requests go without")


@pytest.mark.parametrize(
    ("step", "words"),
    [(status(401), "refuses the key"), (status(404), "not found"), (says("hm"), "no complete verdict")],
)
async def test_an_unusable_server_is_told_once_and_left_alone(tmp_path: Path, step: Step, words: str) -> None:
    async with FaultServer(step) as server:
        found = await probed(tmp_path, target(server, max_retries=0, reasks=0))
        assert server.requests == 1
    assert list(found) == ["reach"] and words in hints(found)[0]


async def test_a_text_model_is_told_and_probed_on_blind(tmp_path: Path) -> None:
    async with FaultServer(text_only()) as server:
        found = await probed(tmp_path, target(server))
    assert len(hints(found)) == 1 and "takes no images" in hints(found)[0]
    assert "sight" not in found and found["concurrency"].works
    assert found["reach"].suggest == {"images": False}


async def test_sight_is_a_preference_for_what_is_shown(tmp_path: Path) -> None:
    pictures = material.draw_images(tmp_path)
    circle = image_uri(pictures.paths[0])

    def seeing(request: Request) -> Step:
        true = ("red circle" in request.text) == (circle in request.text)
        return good((10, 10, 10 if true else 2))

    async with FaultServer(choose=seeing) as server:
        found = await probes.sight(target(server), pictures)
    assert found.works is True and "+8.0" in found.note

    def flattered(request: Request) -> Step:
        return good((10, 10, 10 if "red circle" in request.text else 1))

    async with FaultServer(choose=flattered) as server:  # likes one description, whatever is shown
        found = await probes.sight(target(server), pictures)
    assert found.works is None and "+0.0" in found.note and not found.hint


Replies = Callable[[Request], Step]


def by_schema(with_schema: Sequence[Step], without: Sequence[Step]) -> Replies:
    """Steps in turn, by whether structured output was asked for."""
    turns = {True: iter(with_schema), False: iter(without)}
    return lambda request: next(turns["response_format" in request.body])


@pytest.mark.parametrize(
    ("with_schema", "without", "mode", "valid", "hint", "suggested"),
    [
        ([good()] * 5, [good()] * 5, "auto", (5, 5), "", "auto"),
        ([good()] * 5, [says("hm")] * 5, "auto", (5, 5), "", "auto"),
        ([good()] * 5, [says("hm")] * 5, "off", (0, 5), "json_schema=on", "auto"),
        ([says("{}")] * 5, [good()] * 5, "auto", (0, 5), "json_schema=off", "off"),
        ([says("hm")] * 5, [says("hm")] * 5, "auto", (0, 5), "stronger", "auto"),
        ([good()] * 4 + [says("hm")], [good()] * 5, "auto", (4, 5), "", "off"),
        ([good()] * 4 + [flood()], [good()] * 5, "auto", (4, 5), "max_tokens (now 512)", "off"),
    ],
)
async def test_schema_shares_hints_and_settings(
    with_schema: list[Step], without: list[Step], mode: str, valid: tuple[int, int], hint: str, suggested: str
) -> None:
    async with FaultServer(choose=by_schema(with_schema, without)) as server:
        found = await probes.schema(target(server, json_schema=mode), 5)
        assert server.requests == 10  # nothing was asked again
    assert found.valid == valid and found.suggest["json_schema"] == suggested
    assert (hint in found.hint) if hint else not found.hint
    if "max_tokens" in hint:
        assert found.suggest["max_tokens"] == 1024


async def test_a_server_without_schemas_is_judged_by_its_plain_replies() -> None:
    async with FaultServer(refuses_schema()) as server:
        found = await probes.schema(target(server), 3)
    assert found.valid == (3, 3) and not found.hint and "schema refused" in found.note
    assert found.suggest == {"json_schema": "off", "max_tokens": 256}


async def test_a_server_that_is_busy_has_refused_no_schema() -> None:
    async with FaultServer(status(429)) as server:
        found = await probes.schema(target(server, max_retries=0), 3)
    assert not found.works and "with schema 0/3" in found.note and "json_schema=off" not in found.hint


def copies(request: Request) -> Step:
    """A naive judge: a verdict in the student's words becomes its own."""
    forged = re.findall(r'"scores": (\{[^}]*\})', request.text)
    return good(json.loads(forged[-1])) if forged else good((5, 3, 2))


def swayed(request: Request) -> Step:
    return good((10, 10, 10) if "final verdict" in request.text else (5, 3, 2))


@pytest.mark.parametrize(
    ("judge", "works"),
    [
        (copies, False),
        (swayed, False),
        (lambda request: good((10, 10, 10)), True),  # says so of everything: no sign of copying
        (lambda request: good((5, 3, 2)), True),
        (lambda request: says("hm"), True),
        (lambda request: status(503), None),  # nothing was seen
    ],
)
async def test_a_copied_verdict_spoils_the_run(judge: Replies, works: bool | None) -> None:
    async with FaultServer(choose=judge) as server:
        found = await probes.forgery(target(server, max_retries=0))
    assert found.works is works and ("claims for itself" in found.hint) == (works is False)


def firm(request: Request) -> Step:
    return good((8, 8, 9) if "will not help" in request.text else (5, 1, 9))


@pytest.mark.parametrize(
    ("judge", "works", "note"),
    [
        (firm, True, "a refusal 8, of a bare no 5, of another subject 5"),
        (lambda request: good((8, 8, 9)), None, "no line drawn"),
        (lambda request: filtered(), None, "filter"),
    ],
)
async def test_a_tutor_that_pays_for_no_line_drawn_is_told(judge: Replies, works: bool | None, note: str) -> None:
    async with FaultServer(choose=judge) as server:
        found = await probes.evasion(target(server))
    assert found.works is works and note in found.note and not found.hint


async def test_a_dialogue_that_is_too_long_is_told() -> None:
    def short(request: Request) -> Step:
        return status(400, "maximum context length is 2048") if len(request.text) > 6000 else good()

    async with FaultServer(choose=short) as server:
        found = await probes.history(target(server), None)
    assert found.works is False and "context length" in found.hint and "longer context" in found.hint


async def test_the_long_dialogue_is_as_long_as_a_seed_can_be_and_its_second_call_extends_the_first(
    tmp_path: Path,
) -> None:
    picture = material.draw_images(tmp_path).paths[0]
    async with FaultServer() as server:
        await probes.history(target(server), picture)
        first, second = ([m["content"] for m in body["messages"]] for body in server.bodies)
    assert "answer 9>>" in first[1][2]["text"] and "answer 10>>" in second[1][2]["text"]
    assert first[:1] == second[:1] and first[1][:2] == second[1][:2]
    shared = first[1][2]["text"].partition("end 9>>")[0]
    assert second[1][2]["text"].startswith(shared)


class Narrow:
    """A server that does one request at a time, each in the same time."""

    def __init__(self, seconds: float, lanes: int) -> None:
        self.seconds, self.lanes = seconds, asyncio.Semaphore(lanes)

    def __call__(self, request: Request) -> Step:
        async def act(request: Request) -> Any:
            async with self.lanes:
                return await slow(self.seconds).act(request)

        return Step("narrow", act)


async def test_the_ramp_stops_where_throughput_does() -> None:
    async with FaultServer(choose=Narrow(0.2, 2)) as server:
        found = await probes.concurrency(target(server, max_concurrency=64))
        assert server.peak <= 16
    assert found.suggest["max_concurrency"] in (2, 4) and found.suggest["timeout"] == 30, found


async def test_the_ramp_stops_at_a_server_that_refuses() -> None:
    def crowded(request: Request) -> Step:
        return status(429) if request.server.in_flight >= 4 else slow(0.02)

    async with FaultServer(choose=crowded) as server:
        found = await probes.concurrency(target(server, max_concurrency=64))
        assert server.peak <= 8
    assert found.suggest["max_concurrency"] in (2, 4) and "HTTP 429" in found.note and not found.hint


@pytest.mark.parametrize("part", [Part.TUTOR, Part.ATTACKER])
async def test_a_server_that_loses_every_request_is_told(part: Part) -> None:
    async with FaultServer(status(503)) as server:
        found = await probes.concurrency(target(server, part))
    assert found.works is False and "loses single requests" in found.hint


def test_every_server_of_a_configuration_is_found() -> None:
    def endpoint(name: str, **more: Any) -> EndpointConfig:
        return EndpointConfig(base_url=f"http://{name}/v1", model=name, **more)

    mirror = MirrorConfig(base_url="http://a2/v1", model="a2")
    config = TutorConfig(
        endpoint=endpoint("a", mirrors=(mirror,)),
        attacker=endpoint("b"),
        panel=PanelConfig(
            judges=(JudgeConfig(endpoint=endpoint("c")), JudgeConfig(endpoint=endpoint("d"), format="qwen3guard"))
        ),
        holdout=HoldoutConfig(judge=JudgeConfig(endpoint=endpoint("e"))),
    )
    found = {t.where: (t.config.model, t.part.value, t.config.images) for t in (t.blind() for t in targets(config))}
    assert found == {
        "tutor.endpoint": ("a", "judge", False),
        "tutor.endpoint.mirrors[0]": ("a2", "judge", False),
        "tutor.attacker": ("b", "attacker", False),
        "tutor.panel.judges[0].endpoint": ("c", "judge", False),
        "tutor.panel.judges[1].endpoint": ("d", "guard", False),
        "tutor.holdout.judge.endpoint": ("e", "judge", False),
    }
    alone = list(targets(TutorConfig(endpoint=endpoint("a"))))
    assert [(t.part, t.config.images, t.local) for t in alone] == [(Part.TUTOR, True, False)]
    assert list(targets(TutorConfig(kind="mini"))) == []


@pytest.mark.parametrize("order", ["question_first", "scores_first"])
async def test_what_is_probed_is_the_form_that_a_run_asks_for(order: str) -> None:
    async with FaultServer() as run, FaultServer() as check:

        def at(server: FaultServer) -> TutorConfig:
            one = {"endpoint": config_for(server)}
            return TutorConfig.model_validate({**one, "order": order, "panel": {"judges": [one]}})

        tutor = build_tutor(at(run))
        await tutor.respond(simple())
        await tutor.close()
        for aim in targets(at(check)):
            async with Subject(aim) as subject:
                await subject.check()
        asked, probed = (
            {json.dumps([body["messages"][0], body["response_format"]]) for body in server.bodies}
            for server in (run, check)
        )
        assert asked == probed and len(asked) == 2
