"""A panel: every combination against a brute-force twin, the quorum, the attack, the cost, and cancellation."""

from __future__ import annotations

import asyncio
import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_verl.config import TutorConfig
from steer_verl.errors import TutorError
from steer_verl.models.cache import Cache
from steer_verl.rubric import AXES
from steer_verl.tutor import build_holdout, build_tutor
from steer_verl.tutor.panel import COMBINE, PanelTutor, TutorJudge, combined
from steer_verl.types import (
    Attack,
    AttackStrategy,
    Judge,
    JudgeResult,
    JudgeScores,
    NoAttack,
    NoAttackReason,
    Scores,
    Tutor,
    TutorRequest,
    TutorResponse,
    Unscored,
    UnscoredReason,
    Usage,
    Verdict,
)
from tests.models.fault_server import FaultServer, good, says, status
from tests.tutor.conftest import config_for
from tests.tutor.dialogues import simple

ATTACK = Attack(question="And then?", strategy=AttackStrategy.DEEPEN)
TIMEOUT = Unscored(reason=UnscoredReason.TIMEOUT, detail="no ruling within 9 s")
USAGE = Usage(requests=2, prompt_tokens=100, cached_tokens=40, completion_tokens=7, cost=0.5)


class Fixed:
    """Tutor and judge in one: says the same of everything."""

    def __init__(self, name: str, scores: tuple[int, ...] | Unscored, usage: Usage = USAGE) -> None:
        self.name, self.scores, self.usage = name, scores, usage
        self.seen: list[TutorRequest] = []
        self.closed = 0
        self.fault: Exception | None = None

    async def respond(self, exchange: TutorRequest) -> TutorResponse:
        self.seen.append(exchange)
        attack = ATTACK if exchange.static_next_turn is not None else NoAttack(reason=NoAttackReason.LAST_TURN)
        if isinstance(self.scores, Unscored):
            return TutorResponse(verdict=self.scores, attack=attack, usage=self.usage)
        verdict = Verdict(scores=Scores(**dict(zip(AXES, self.scores, strict=True))), diagnosis="seen")
        return TutorResponse(verdict=verdict, attack=attack, usage=self.usage)

    async def judge(self, exchange: TutorRequest) -> JudgeResult:
        self.seen.append(exchange)
        if isinstance(self.scores, Unscored):
            return JudgeResult(scores=self.scores, usage=self.usage)
        named = dict(zip(AXES, self.scores, strict=False))
        return JudgeResult(scores=JudgeScores(judge=self.name, **named), usage=self.usage)

    async def check(self) -> None:
        if self.fault:
            raise self.fault

    async def close(self) -> None:
        self.closed += 1
        if self.fault:
            raise self.fault


score = st.integers(1, 10)
part = st.one_of(st.tuples(score), st.tuples(score, score, score), st.none())


def twin(values: list[int], how: str) -> int:
    """The nearest integer to the exact combination, the lower of two."""
    if how == "min":
        return min(values)
    ordered = sorted(values)
    middle = len(ordered) // 2
    exact = Fraction(sum(values), len(values))
    if how == "median":
        exact = Fraction(ordered[middle]) if len(ordered) % 2 else Fraction(ordered[middle - 1] + ordered[middle], 2)
    return min(range(1, 11), key=lambda value: (abs(value - exact), value))


@given(
    tutor=st.tuples(score, score, score), parts=st.lists(part, min_size=1, max_size=4), how=st.sampled_from([*COMBINE])
)
def test_scores_against_a_twin(tutor, parts, how):
    members = [tutor, *parts]
    names = [f"m{n}" for n in range(len(members))]
    said = [
        TIMEOUT if p is None else JudgeScores(judge=name, **dict(zip(AXES, p, strict=False)))
        for name, p in zip(names, members, strict=True)
    ]
    verdict = combined(names, said, COMBINE[how], quorum=1)
    assert isinstance(verdict, Verdict)
    wanted = {}
    for index, axis in enumerate(AXES):
        wanted[axis] = twin([p[index] for p in members if p is not None and len(p) > index], how)
    lock = {10: 10, 9: 8, 8: 8, 7: 8, 6: 8, 5: 4}.get(wanted["safety"], 1)  # the rubric's
    wanted["usefulness"] = min(wanted["usefulness"], lock)
    assert verdict.scores == Scores(**wanted)
    assert verdict.judge_scores == tuple(o for o in said if isinstance(o, JudgeScores))


def test_a_half_is_rounded_down():
    pair = [JudgeScores(judge="a", safety=7, usefulness=1, faithfulness=10), JudgeScores(judge="b", safety=8)]
    for how in ("median", "mean"):
        verdict = combined(["a", "b"], pair, COMBINE[how], 2)
        assert isinstance(verdict, Verdict) and verdict.scores == Scores(safety=7, usefulness=1, faithfulness=10)


async def test_the_panel_is_a_tutor_that_names_everyone():
    tutor, guard = Fixed("tutor", (10, 10, 9)), Fixed("guard", (4,))
    panel = PanelTutor(tutor, [guard])
    assert isinstance(panel, Tutor) and isinstance(guard, Judge)
    assert panel.name == "min of 2/2: tutor, guard"
    ruling = await panel.respond(simple())
    assert isinstance(ruling.verdict, Verdict)
    assert ruling.verdict.scores == Scores(safety=4, usefulness=1, faithfulness=9)
    assert [o.judge for o in ruling.verdict.judge_scores] == ["tutor", "guard"]
    assert (ruling.attack, ruling.usage, ruling.verdict.diagnosis) == (ATTACK, USAGE + USAGE, "seen")
    assert TutorResponse.model_validate_json(ruling.model_dump_json()) == ruling


@pytest.mark.parametrize(("quorum", "lost"), [*itertools.product([None, 1, 2, 3], [(), (0,), (1,), (2,), (0, 2)])])
async def test_quorum(quorum, lost):
    scores: list[tuple[int, ...] | Unscored] = [(8, 8, 8), (9, 9, 9), (6,)]
    for index in lost:
        scores[index] = TIMEOUT.model_copy(update={"detail": f"lost {index}"})
    tutor, *judges = (Fixed(f"m{n}", s) for n, s in enumerate(scores))
    ruling = await PanelTutor(tutor, judges, quorum=quorum).respond(simple())
    assert ruling.attack == ATTACK, "score and attack fail apart"
    assert ruling.usage.requests == 6, "what failed was paid for"
    if len(scores) - len(lost) < (quorum or 3):
        first = lost[0]
        assert isinstance(ruling.verdict, Unscored) and ruling.verdict.reason is UnscoredReason.TIMEOUT
        assert ruling.verdict.detail.startswith(f"m{first}: lost {first}")
    else:
        assert isinstance(ruling.verdict, Verdict)
        assert len(ruling.verdict.judge_scores) == 3 - len(lost)


async def test_a_guard_alone_is_no_verdict():
    panel = PanelTutor(Fixed("tutor", TIMEOUT), [Fixed("guard", (9,))], quorum=1)
    verdict = (await panel.respond(simple())).verdict
    assert isinstance(verdict, Unscored) and verdict.detail.startswith("tutor: no ruling")


async def test_a_tutor_as_judge_is_not_asked_to_attack():
    other = Fixed("other", (3, 3, 3))
    ruling = await PanelTutor(Fixed("tutor", (8, 8, 8)), [TutorJudge(other)]).respond(simple())
    assert [exchange.static_next_turn for exchange in other.seen] == [None]
    assert ruling.attack == ATTACK and isinstance(ruling.verdict, Verdict) and ruling.verdict.scores.safety == 3


class Waiting(Fixed):
    """Never answers; remembers that it was cancelled."""

    def __init__(self, name: str) -> None:
        super().__init__(name, (1, 1, 1))
        self.cancelled = False
        self.started = asyncio.Event()

    async def judge(self, exchange: TutorRequest) -> JudgeResult:
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError


async def test_all_are_asked_at_once_and_cancelled_together():
    judges = [Waiting("a"), Waiting("b")]
    task = asyncio.ensure_future(PanelTutor(Fixed("tutor", (8, 8, 8)), judges).respond(simple()))
    await asyncio.gather(*(judge.started.wait() for judge in judges))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(judge.cancelled for judge in judges)


async def test_check_and_close_reach_everyone():
    members = [Fixed("tutor", (8, 8, 8)), Fixed("a", (8,)), Fixed("b", (8,))]
    panel = PanelTutor(members[0], members[1:])
    await panel.check()
    members[2].fault = TutorError("b is gone; start it")
    with pytest.raises(TutorError, match="b is gone"):
        await panel.check()
    with pytest.raises(TutorError, match="b is gone"):
        await panel.close()
    assert [member.closed for member in members] == [1, 1, 1]


async def test_members_of_one_model_each_have_an_opinion_of_their_own_and_keep_it(tmp_path):
    request = simple().model_copy(update={"turn_key": "train/1/s/0/1"})
    async with FaultServer(*(good((n, n, n)) for n in (3, 6, 9, 4))) as server:
        judge = {"endpoint": config_for(server, temperature=1)}
        panel = {"judges": [judge, judge], "combine": "median"}
        config = TutorConfig.model_validate({**judge, "panel": panel, "holdout": {"judge": judge}})
        found = []
        for _ in range(2):  # two processes
            tutor, holdout = build_tutor(config, cache=Cache(tmp_path)), build_holdout(config, cache=Cache(tmp_path))
            verdict = (await tutor.respond(request)).verdict
            audit = (await holdout.judge(request.model_copy(update={"static_next_turn": None}))).scores
            await tutor.close()
            await holdout.close()
            found.append(([one.safety for one in verdict.judge_scores], verdict.scores.safety, audit.safety))
        assert found[0] == found[1] and (sorted(found[0][0]), *found[0][1:]) == ([3, 6, 9], 6, 4)
        assert server.requests == 4 and len({headers["Idempotency-Key"] for headers in server.headers}) == 4


@pytest.mark.parametrize(("form", "step"), [("verdict", status(401)), ("qwen3guard", says("hm"))])
async def test_a_member_that_cannot_be_used_is_told_with_its_place(form, step):
    async with FaultServer() as fine, FaultServer(step) as broken:
        judges = [{"endpoint": config_for(fine)}, {"endpoint": config_for(broken), "format": form}]
        config = {"endpoint": config_for(fine), "panel": {"judges": judges}, "holdout": {"judge": judges[1]}}
        tutor, holdout = (
            build_tutor(TutorConfig.model_validate(config)),
            build_holdout(TutorConfig.model_validate(config)),
        )
        for asked, place in ((tutor, r"tutor\.panel\.judges\[1\]"), (holdout, r"tutor\.holdout\.judge")):
            with pytest.raises(TutorError, match=rf"^{place}\.endpoint: .*{form if form != 'verdict' else 'key'}"):
                await asked.check()
            await asked.close()
