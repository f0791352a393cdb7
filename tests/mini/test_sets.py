"""Sets that the rule agents make have the distribution of the direct construction (tests/mini/twin.py)."""

from __future__ import annotations

import asyncio
import math
import pickle
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from steer_verl.answer import parse_answer
from steer_verl.mini.agents import MiniAgents
from steer_verl.mini.dialogues import SAFE_QUESTIONS, persistent
from steer_verl.mini.phrases import DIRECT, OFFERS, STEPS_QUESTIONS, asks_for_steps
from steer_verl.mini.sources import RL_KINDS, RL_SET, SEALED_SHARES, SFT_KINDS
from steer_verl.mini.world import STEPS, is_restricted
from steer_verl.types import DialogueKind, Seed
from tests.mini.twin import Talk, bootstrapped, direct, in_history, scripted, talk_of, templates

DIALOGUES = 2000
DEVIATIONS = 4.0
"""Standard deviations that two shares may lie apart: one in 16,000 does by chance, and some 500 are compared."""

Cell = tuple[str, object]
Counts = dict[str, Counter[object]]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Seed]:
    return asyncio.run(scripted(MiniAgents(), tmp_path_factory.mktemp("build"), "sft", DIALOGUES))


@pytest.fixture(scope="module")
def twin() -> Counts:
    return counted(direct(DIALOGUES, SFT_KINDS, random.Random(0)))


async def played(seeds: Iterable[Seed], **settings: float) -> list[Talk]:
    agents = MiniAgents(**settings)
    return [talk_of(await bootstrapped(agents, seed)) for seed in seeds]


def wording(text: str, talk: Talk) -> str:
    """The text with its slots empty."""
    fills = (talk.scene.name, *OFFERS.values(), *STEPS[talk.scene.shape])
    for fill in fills:
        text = text.replace(fill, "_")
    return text


def manner(text: str) -> str:
    """Whether a question stands as it was, or how it was reworded."""
    if text in SAFE_QUESTIONS + STEPS_QUESTIONS:
        return "as it was"
    if text.endswith(SAFE_QUESTIONS + STEPS_QUESTIONS):
        return "follow-up"
    return "adaptive" if asks_for_steps(text) else "acceptance"


def cells(talk: Talk) -> Iterator[Cell]:
    """(group, value): in every group the shares of the values are compared."""
    about = f"{talk.kind.value}, {'sealed' if is_restricted(talk.scene) else 'free'}"
    yield "kind", about
    yield "device", talk.scene.name
    yield f"turns of {talk.kind.value}", len(talk.asked)
    yield f"opening of {about}", talk.asked[0]
    yield f"last of {about}", wording(talk.asked[-1], talk)
    yield from ((f"manner of {about}", manner(text)) for text in talk.asked[1:])
    yield from ((f"later of {about}", wording(text, talk)) for text in talk.asked[1:])
    for question, answer in zip(talk.asked, talk.answers, strict=bool(talk.answers)):
        text = parse_answer(answer).answer
        yield f"form of {about}", parse_answer(answer).well_formed
        if is_restricted(talk.scene) and asks_for_steps(question):
            first, *rest = text.replace(talk.scene.name, "{name}").split(". ")
            yield "refusal", first.rstrip(".") + "."
            yield "plain", not rest
            yield "alternative", tuple(rest)


def counted(talks: Iterable[Talk]) -> Counts:
    groups: defaultdict[str, Counter[object]] = defaultdict(Counter)
    for talk in talks:
        for group, value in cells(talk):
            groups[group][value] += 1
    return groups


def apart(a: Counts, b: Counts) -> list[str]:
    """Every cell whose two shares lie further apart than chance explains: by the pooled binomial deviation."""
    found = []
    for group in a.keys() | b.keys():
        n, m = a[group].total(), b[group].total()
        for value in a[group].keys() | b[group].keys():
            x, y = a[group][value], b[group][value]
            pooled = (x + y) / (n + m)
            deviation = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m)) if n and m else 0
            if not n or not m or abs(x / n - y / m) > DEVIATIONS * deviation:
                found.append(f"{group}: {value!r} {x}/{n} against {y}/{m}")
    return found


async def test_the_sft_set_is_the_twin_s(seeds: list[Seed], twin: Counts) -> None:
    """None of the dialogues is rejected either: ``bootstrapped`` sees to that."""
    ours = await played(seeds)
    assert apart(counted(ours), twin) == []
    for asked in ({q: t.scene for q in t.asked if asks_for_steps(q)} for t in ours if is_restricted(t.scene)):
        assert all(q in STEPS_QUESTIONS or q in persistent(scene) for q, scene in asked.items())
    assert {manner(t.asked[0]) for t in ours} == {"as it was"}


@pytest.mark.parametrize(
    ("changed", "cell"),
    [
        ({"plain_refusals": 0.4}, "plain: True"),
        ({"adaptive": 0.7}, "manner of benign, free: 'adaptive'"),
        ({"pressed": 0.6}, "manner of red_team, sealed: 'adaptive'"),
        ({"accepted": 0.5}, "manner of obfuscated, sealed: 'acceptance'"),
        ({"follow_up": 0.5}, "manner of benign, sealed: 'follow-up'"),
    ],
)
async def test_the_comparison_sees_a_changed_share(
    seeds: list[Seed], twin: Counts, changed: dict[str, float], cell: str
) -> None:
    ours = await played(seeds[:400], **changed)
    assert any(line.startswith(cell) for line in apart(counted(ours), twin))


async def test_the_rl_set_is_the_twin_s_less_what_is_a_risk_by_itself(tmp_path: Path) -> None:
    agents = MiniAgents()
    seeds = await scripted(agents, tmp_path, "rl", DIALOGUES)
    twin = counted(templates(DIALOGUES, RL_KINDS, random.Random(1), SEALED_SHARES["rl"]))
    assert apart(counted(map(talk_of, seeds)), twin) == []
    chosen = [seed for seed in seeds if await in_history(agents, seed)]
    direct_openings = {s.id for s in seeds if s.kind is DialogueKind.RED_TEAM and talk_of(s).asked[0] in DIRECT}
    assert {seed.id for seed in seeds} - {seed.id for seed in chosen} == direct_openings
    left = Counter(seed.kind for seed in chosen)
    for kind, percent in RL_SET.items():
        share, n = percent / 100, len(chosen)
        assert abs(left[kind] / n - share) < DEVIATIONS * math.sqrt(share * (1 - share) / n)


async def test_the_same_place_gets_the_same_answer_and_another_seed_another(seeds: list[Seed]) -> None:
    def agents(seed: int) -> MiniAgents:
        """As another process has them."""
        return pickle.loads(pickle.dumps(MiniAgents(seed=seed)))

    first, again, other = [[talk_of(await bootstrapped(agents(seed), one)) for one in seeds[:40]] for seed in (3, 3, 4)]
    assert first == again
    assert sum(a != b for a, b in zip(first, other, strict=True)) > 20
