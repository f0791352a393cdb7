"""Sets that the rule agents make have the distribution of the direct construction (tests/mini/twin.py)."""

from __future__ import annotations

import math
import pickle
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from steer_verl.answer import parse_answer
from steer_verl.mini.agents import Agents, mini_agents
from steer_verl.mini.answers import REFUSALS
from steer_verl.mini.dialogues import KINDS
from steer_verl.mini.phrases import DIRECT, OFFERS, STEPS_QUESTIONS, asks_for_steps
from steer_verl.mini.rules import MiniSettings
from steer_verl.mini.sources import RL_KINDS, SFT_KINDS
from steer_verl.mini.world import STEPS, is_restricted
from steer_verl.types import DialogueKind, Seed, Verdict
from tests.mini.twin import Table, Talk, bootstrapped, direct, scripted, talk_of, templates

DIALOGUES = 2000
DEVIATIONS = 4.0
"""Standard deviations that two shares may lie apart: one in 16,000 does by chance, and some 500 are compared."""

Cell = tuple[str, object]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("build")


async def played(folder: Path, settings: MiniSettings | None = None) -> list[Talk]:
    agents = mini_agents(settings)
    return [(await bootstrapped(agents, seed))[0] for seed in await scripted(agents, folder, "sft", DIALOGUES)]


def wording(text: str, talk: Talk) -> str:
    """The text with its slots empty."""
    fills = (talk.scene.name, *OFFERS.values(), *STEPS[talk.scene.shape])
    for fill in fills:
        text = text.replace(fill, "_")
    return text


def cells(talk: Talk) -> Iterator[Cell]:
    """(group, value): in every group the shares of the values are compared."""
    about = f"{talk.kind.value}, {'sealed' if is_restricted(talk.scene) else 'free'}"
    yield "kind", about
    yield "device", talk.scene.name
    yield f"turns of {talk.kind.value}", len(talk.asked)
    yield f"opening of {about}", talk.asked[0]
    yield f"last of {about}", wording(talk.asked[-1], talk)
    yield from ((f"later of {about}", wording(text, talk)) for text in talk.asked[1:])
    for question, answer in zip(talk.asked, talk.answers, strict=bool(talk.answers)):
        text = parse_answer(answer).answer
        yield f"form of {about}", parse_answer(answer).well_formed
        if is_restricted(talk.scene) and asks_for_steps(question):
            first, *rest = text.replace(talk.scene.name, "{name}").split(". ")
            yield "refusal", first.rstrip(".") + "."
            yield "plain", not rest
            yield "alternative", tuple(rest)


def counted(talks: Iterable[Talk]) -> dict[str, Counter[object]]:
    groups: defaultdict[str, Counter[object]] = defaultdict(Counter)
    for talk in talks:
        for group, value in cells(talk):
            groups[group][value] += 1
    return groups


def apart(ours: Iterable[Talk], theirs: Iterable[Talk]) -> list[str]:
    """Every cell whose two shares lie further apart than chance explains: by the pooled binomial deviation."""
    found, (a, b) = [], (counted(ours), counted(theirs))
    for group in a.keys() | b.keys():
        n, m = a[group].total(), b[group].total()
        for value in a[group].keys() | b[group].keys():
            x, y = a[group][value], b[group][value]
            pooled = (x + y) / (n + m)
            deviation = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m)) if n and m else 0
            if not n or not m or abs(x / n - y / m) > DEVIATIONS * deviation:
                found.append(f"{group}: {value!r} {x}/{n} against {y}/{m}")
    return found


async def test_the_sft_set_is_the_twin_s(folder: Path) -> None:
    ours = await played(folder)
    twin = list(direct(DIALOGUES, SFT_KINDS, random.Random(0)))
    assert len(counted(twin)) > 15
    assert apart(ours, twin) == []
    sealed_steps = {q for t in ours if is_restricted(t.scene) for q in t.asked if asks_for_steps(q)}
    assert sealed_steps == set(STEPS_QUESTIONS)  # never in the tutor's wording
    assert {r.format(name=t.scene.name) for t in ours for r in REFUSALS} & {
        parse_answer(a).answer for t in ours for a in t.answers
    }


@pytest.mark.parametrize(
    ("changed", "cell"),
    [
        ({"plain_refusals": 0.22}, "plain: True"),
        ({"adaptive": 0.8}, "later of benign, free"),
        ({"accepted": 0.3}, "Yes, tell me _."),
        ({"follow_up": 0.35}, "later of benign, sealed: 'Thanks."),
    ],
)
async def test_the_comparison_sees_a_changed_share(folder: Path, changed: dict[str, float], cell: str) -> None:
    ours = await played(folder, MiniSettings(**changed))
    found = apart(ours, direct(DIALOGUES, SFT_KINDS, random.Random(0)))
    assert any(cell in line for line in found)


async def test_the_rl_set_is_the_twin_s_less_what_is_a_risk_by_itself(folder: Path) -> None:
    agents = mini_agents()
    seeds = await scripted(agents, folder, "rl", DIALOGUES)
    twin = list(templates(DIALOGUES, RL_KINDS, random.Random(1)))
    assert apart(map(talk_of, seeds), twin) == []
    chosen = [seed for seed in seeds if await in_history(agents, seed)]
    assert {seed.id for seed in seeds} - {seed.id for seed in chosen} == {
        seed.id for seed in seeds if seed.kind is DialogueKind.RED_TEAM and talk_of(seed).asked[0] in DIRECT
    }
    left = Counter(seed.kind for seed in chosen)
    for kind, percent in KINDS.items():
        share, n = percent / 100, len(chosen)
        assert abs(left[kind] / n - share) < DEVIATIONS * math.sqrt(share * (1 - share) / n)


async def in_history(agents: Agents, seed: Seed) -> bool:
    """Whether a dialogue may enter the RL set: benign, or risky only as a whole."""
    desk = Table(f"history/{seed.id}")
    alone = [(await agents.risk_judge.alone(seed, turn, desk)).level for turn in range(len(seed.turns))]
    whole = (await agents.risk_judge.whole(seed, desk)).level
    assert (whole == 5) == (seed.kind is not DialogueKind.BENIGN)
    return seed.kind is DialogueKind.BENIGN or (max(alone) < 3 and whole >= 4)


async def test_the_evaluator_finds_nothing_to_reject(folder: Path) -> None:
    agents = mini_agents()
    for seed in await scripted(agents, folder, "sft", 300):
        _, judgements = await bootstrapped(agents, seed)
        verdicts = [judgement for judgement in judgements if isinstance(judgement, Verdict)]
        assert len(verdicts) == len(seed.turns)
        assert min(verdict.scores.safety for verdict in verdicts) >= 8
        assert min(verdict.scores.usefulness for verdict in verdicts) >= 8


async def test_the_same_desk_gets_the_same_answer_and_another_seed_another(folder: Path) -> None:
    def agents(seed: int) -> Agents:
        return pickle.loads(pickle.dumps(mini_agents(MiniSettings(seed=seed))))

    async def talks(seed: int) -> list[Talk]:
        return [(await bootstrapped(agents(seed), one))[0] for one in await scripted(agents(seed), folder, "sft", 40)]

    once = await talks(3)
    assert once == await talks(3)
    assert sum(a != b for a, b in zip(once, await talks(4), strict=True)) > 20
